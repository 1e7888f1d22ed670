//! Public services, forwarding to the leader.
