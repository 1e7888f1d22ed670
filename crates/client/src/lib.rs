//! Endpoints, retries, request ids: how a program talks to the control plane.
//!
//! Owned here: which endpoint is asked next, when a call is made again, the request id that makes this safe, and the checks on
//! bytes that come or go in streams. Called by gridctl and by workerd's control-plane adapter (`agent`). Blocking by design: none
//! of these functions may be called on a gRPC completion thread.
//!
//! Invariants: one logical call carries one request id whatever the number of attempts; no attempt starts after the deadline; a
//! byte that did not match its checksum is never handed on.

mod artifact;
mod backup;
mod call;
mod cluster;
mod config;
mod endpoints;
mod error;
mod job;
mod kv;
pub mod limits;
mod logs;
mod ml;
mod queue;
mod schedule;
mod stream;
mod task;
mod watch;

pub use artifact::{ArtifactHead, Upload};
pub use backup::BackupTarget;
pub use call::{request_id, Client};
pub use config::ClientConfig;
pub use error::ClientError;
pub use stream::ReadSeek;
pub use watch::JobWatch;
