//! What the benchmarks of the storage and replication paths share; see docs/benchmarks.md for how to repeat each figure.

pub mod figures;
pub mod group;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

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

/// Appends `bytes` bytes to a file in `dir` and makes them durable, `count` times; what each took, in microseconds. The file's room is taken
/// before, as every write-ahead log does.
pub fn raw_fsync(dir: &Path, bytes: usize, count: usize) -> Vec<f64> {
    let path = dir.join("raw-fsync");
    let mut file = File::create(&path).expect("a file can be made");
    let room = (bytes * count) as u64;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, room).expect("there is room");
    let data = vec![b'x'; bytes];
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        file.write_all(&data).expect("there is room");
        file.sync_data().expect("the disk works");
        took.push(start.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path).expect("it was made here");
    took
}
