//! Leader-side steps: scheduler, leases, shard leases, rounds. Pure.

mod types;

pub use types::*;
