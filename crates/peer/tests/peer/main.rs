//! Two replicas' ends over real gRPC on 127.0.0.1; what lies behind the ends is watched.
#![allow(missing_docs, unreachable_pub, reason = "a test, read by its names")]

mod calls;
mod certs;
mod forged;
mod fragments;
mod ground;
mod messages;
mod proxy;
mod resume;
mod snapshots;
mod tls;
