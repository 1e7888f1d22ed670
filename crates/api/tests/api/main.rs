//! The services over real gRPC on 127.0.0.1, before a replica that is real in its state machine (manifest over rows in memory) and has no
//! network of its own.
#![allow(missing_docs, unreachable_pub, reason = "a test, read by its names")]

mod aliases;
mod bytes;
mod errors;
mod forwarding;
mod liveness;
mod logs;
mod sessions;
mod watches;
mod world;
