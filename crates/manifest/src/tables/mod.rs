//! Writes of rows that other rows must follow: indexes, counters, allocations. Each is kept in one place.

mod artifact;
mod job;
mod kv;
mod node;
mod queue;
mod task;

pub(crate) use artifact::{count_all, fragment_bytes, put_usage, ArtifactTable, USAGE_SINCE};
pub(crate) use job::JobTable;
pub(crate) use kv::{kv_bytes, KvTable};
pub(crate) use node::NodeTable;
pub(crate) use queue::QueueTable;
pub(crate) use task::{demand, is_over, TaskTable};
