//! Writes of rows that other rows must follow: indexes, counters, allocations. Each is kept in one place.

mod job;
mod kv;
mod node;
mod queue;
mod task;

pub(crate) use job::JobTable;
pub(crate) use kv::{kv_bytes, KvTable};
pub(crate) use node::NodeTable;
pub(crate) use queue::QueueTable;
pub(crate) use task::{demand, is_over, TaskTable};
