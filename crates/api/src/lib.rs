//! The public services of a replica: decode, check sizes, ask the replica, answer. What a call means is decided elsewhere.
//!
//! Owned here: the mapping of outcomes to gRPC statuses, the one forwarding of a call to the leader, the flow of byte streams between the
//! network and the replica's `Bytes`, watches, task logs, health, reflection. Called by `controld`, which registers the services on its ports.
//! Never here: a decision about a task, job or round; blocking work on a gRPC thread (it goes to `pool`).

mod artifact;
mod backup;
mod callers;
mod calls;
mod cluster;
mod context;
mod encoded;
mod fail_fast;
mod failure;
mod forward;
mod health;
mod job;
mod kv;
pub mod limits;
mod log_book;
mod logs;
mod metrics;
mod ml;
mod node;
mod parked;
mod pool;
mod ports;
mod queue;
mod reflection;
mod schedule;
mod services;
mod session;
mod streams;
mod task;
mod validate;
mod values;
mod views;
mod watch;

pub use forward::Forwarded;
pub use ports::Ports;
pub use services::{ApiConfig, ApiError, Services};
