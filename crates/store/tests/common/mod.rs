//! Machines to test on: one simulated, one real. Both can be stopped at any moment and found again by the next
//! process.

#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "each test file uses its part")]

pub mod fault_disk;
pub mod sim_disk;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use raftgrid_driver::{
    ConfState, Entry, EntryKind, HardState, Index, LogBatch, LogReader, LogStore, NodeId, Snapshot, SyncMark, Syncer,
    Term,
};
use raftgrid_manifest::{Change, Table};
use raftgrid_store::{BootMode, Booted, Disk, SnapshotShelf, StateTables, Store, StoreError};
use raftgrid_store_rocks::RocksDisk;

pub use fault_disk::{Budget, FaultDisk};
pub use sim_disk::{Crash, SimDisk};

/// A machine with a disk.
pub trait Machine: Sized {
    type D: Disk;
    fn new() -> Self;
    fn disk(&self) -> Self::D;
    fn dir(&self) -> PathBuf;
    /// The machine after it stopped, while this one's process still has everything open. A real disk can only be
    /// killed.
    fn stopped(&self, how: Crash) -> Self;
    /// Ways in which it can stop that are worth a test.
    fn crashes() -> Vec<Crash>;

    fn open(&self, mode: BootMode) -> Result<Booted<Self::D>, StoreError> {
        Store::open(self.disk(), &self.dir(), mode)
    }
}

pub struct SimMachine(pub SimDisk);

impl Machine for SimMachine {
    type D = SimDisk;

    fn new() -> Self {
        let disk = SimDisk::new(7);
        let root = Path::new("/machine");
        disk.create_dir(root).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        Self(disk)
    }

    fn disk(&self) -> SimDisk {
        self.0.clone()
    }

    fn dir(&self) -> PathBuf {
        PathBuf::from("/machine/data")
    }

    fn stopped(&self, how: Crash) -> Self {
        Self(self.0.crash(how))
    }

    fn crashes() -> Vec<Crash> {
        let mut out = vec![Crash::Kill, Crash::WorstPowerCut];
        out.extend((1..=12).map(Crash::PowerCut));
        out
    }
}

/// Attempts at a copy of files that rest.
const COPIES_MAX: u32 = 1_000;

pub struct RocksMachine {
    disk: RocksDisk,
    root: tempfile::TempDir,
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            match fs::copy(entry.path(), &target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}

/// Every file below and its length.
fn listing(folder: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at)?.flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => drop(found.insert(entry.path(), meta.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

impl Machine for RocksMachine {
    type D = RocksDisk;

    fn new() -> Self {
        Self { disk: RocksDisk::new(), root: tempfile::tempdir().unwrap() }
    }

    fn disk(&self) -> RocksDisk {
        self.disk.clone()
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn stopped(&self, _how: Crash) -> Self {
        // RocksDB may flush and compact meanwhile. A kill leaves the files of one moment, and a copy is one if nothing changed while it was made.
        for _ in 0..COPIES_MAX {
            let next = Self::new();
            let before = listing(self.root.path()).unwrap();
            copy_tree(self.root.path(), next.root.path()).unwrap();
            if listing(self.root.path()).unwrap() == before {
                return next;
            }
        }
        panic!("the files never rested");
    }

    fn crashes() -> Vec<Crash> {
        vec![Crash::Kill]
    }
}

pub fn found(node_id: NodeId, founders: &[NodeId]) -> BootMode {
    BootMode::Found { cluster_id: "grid-1".into(), node_id, founders: founders.to_vec() }
}

pub fn join(node_id: NodeId) -> BootMode {
    BootMode::Join { cluster_id: "grid-1".into(), node_id }
}

pub fn voters(nodes: &[NodeId]) -> ConfState {
    ConfState { voters: nodes.to_vec(), ..ConfState::default() }
}

pub fn entry(index: Index, term: Term, data: impl Into<Vec<u8>>) -> Entry {
    Entry { index, term, kind: EntryKind::Normal, data: Bytes::from(data.into()), context: Bytes::new() }
}

pub fn append(entries: impl IntoIterator<Item = (Index, Term)>, term: Term) -> LogBatch {
    let entries: Vec<_> =
        entries.into_iter().map(|(index, term)| entry(index, term, format!("{index}/{term}"))).collect();
    LogBatch {
        truncate_after: entries.first().map(|entry| entry.index - 1),
        entries,
        hard_state: Some(HardState { term, vote: 0, commit: 1 }),
        snapshot: None,
    }
}

/// The mark that the driver would pass.
pub fn mark_of<L: LogStore>(log: &L, ready_number: u64, hard_state: HardState) -> SyncMark {
    let reader = log.reader();
    let last_index = reader.last_index();
    SyncMark {
        ready_number,
        last_index,
        last_term: reader.term(last_index).unwrap(),
        term: hard_state.term,
        vote: hard_state.vote,
    }
}

pub fn sync<D: Disk>(booted: &Booted<D>, number: u64) {
    let mark = mark_of(&booted.log, number, booted.log.hard_state());
    booted.log.syncer().sync(mark).unwrap();
}

pub fn put(table: Table, key: &[u8], value: &[u8]) -> Change {
    Change { table, key: key.to_vec(), value: Some(value.to_vec()) }
}

/// Puts an entry (index, term) into the log and its row into the tables, with everything between committed at that
/// term.
pub fn advance<D: Disk>(booted: &mut Booted<D>, index: Index, term: Term) {
    let first = booted.log.reader().last_index() + 1;
    booted.log.write(append((first..=index).map(|at| (at, term)), term)).unwrap();
    sync(booted, index);
    apply_to(&mut booted.tables, index, term);
}

pub fn apply_to<D: Disk>(tables: &mut StateTables<D>, index: Index, term: Term) {
    tables.commit(&[put(Table::Task, b"last", index.to_string().as_bytes())], (index, term), None).unwrap();
}

/// Sends a snapshot from one shelf to another, as the transport would; the name is the receiver's.
pub fn transfer<A: Disk, B: Disk>(
    from: &SnapshotShelf<A>,
    snapshot: &Snapshot,
    to: &SnapshotShelf<B>,
) -> Result<Snapshot, StoreError> {
    let reader = from.open(&snapshot.name)?;
    let mut staging = to.stage(snapshot.meta.index, snapshot.meta.term)?;
    for file in reader.files() {
        let mut offset = 0;
        loop {
            let chunk = reader.read(&file.name, offset, 3_000)?;
            staging.write(&file.name, offset, &chunk)?;
            offset += chunk.len() as u64;
            if offset == file.bytes {
                break;
            }
        }
    }
    staging.finish()
}

/// A leader's machine that stands at (index, term), and a snapshot of it.
pub fn donor<M: Machine>(index: Index, term: Term) -> (M, Booted<M::D>, Snapshot) {
    let machine = M::new();
    let mut booted = machine.open(found(1, &[1, 2, 3])).unwrap();
    booted.tables.commit(&[put(Table::Task, b"from", b"donor")], (index, term), None).unwrap();
    let snapshot = booted.tables.checkpointer().make().unwrap();
    (machine, booted, snapshot)
}
