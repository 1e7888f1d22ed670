//! Leader-side steps: scheduler, leases, shard leases, rounds. Pure.
