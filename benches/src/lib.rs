//! What the benchmarks of the storage and replication paths share; see docs/benchmarks.md for how to repeat each figure.

use std::path::Path;

use bytes::Bytes;
use raftgrid_driver::{Entry, EntryKind, NodeId};
use raftgrid_manifest::encode_batch;
use raftgrid_proto::v1::{Command, Command_oneof_kind, SubmitTask};
use raftgrid_store::{BootMode, Booted, Store};
use raftgrid_store_rocks::RocksDisk;

/// A freshly founded store in `dir`.
pub fn founded(dir: &Path, node: NodeId, founders: &[NodeId]) -> Booted<RocksDisk> {
    let mode = BootMode::Found { cluster_id: "bench".to_owned(), node_id: node, founders: founders.to_vec() };
    Store::open(RocksDisk::new(), dir, mode).expect("an empty directory can be founded")
}

/// A proposal that submits one task with `bytes` bytes of data.
pub fn submit(bytes: usize) -> Vec<u8> {
    let mut task = SubmitTask::new();
    task.set_task_type("bench".to_owned());
    task.set_task_data(vec![b'x'; bytes]);
    let mut command = Command::new();
    command.kind = Some(Command_oneof_kind::submit_task(task));
    encode_batch(1_700_000_000_000, vec![command])
}

/// A normal entry of `bytes` bytes.
pub fn entry(index: u64, bytes: usize) -> Entry {
    let data = Bytes::from(vec![b'x'; bytes]);
    Entry { index, term: 1, kind: EntryKind::Normal, data, context: Bytes::new() }
}
