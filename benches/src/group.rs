//! Three replicas in one process: real drivers and RocksDB logs, a state machine that does nothing, messages over channels.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use raftgrid_driver::{
    Committed, ConfState, Config, Index, InitialState, LogBatch, LogError, LogStore, Message, NodeId, Observer,
    RaftHandle, Role, Runner, Snapshot, StateMachine, Status, SyncMark, Syncer, Term, Transport,
};

use crate::founded;

/// Applies nothing: what is measured is the way there. Says that all of it is durable, so that the log is cut as it grows.
struct Nothing {
    applied: (Index, Term),
}

impl StateMachine for Nothing {
    fn apply(&mut self, entries: &[Committed]) -> Vec<Vec<Bytes>> {
        if let Some(last) = entries.last() {
            self.applied = (last.index, last.term);
        }
        entries.iter().map(|entry| vec![Bytes::new(); entry.payloads.len()]).collect()
    }
    fn apply_membership(&mut self, index: Index, term: Term, _conf: &ConfState, _context: &Bytes) {
        self.applied = (index, term);
    }
    fn applied(&self) -> (Index, Term) {
        self.applied
    }
    fn flushed(&self) -> Index {
        self.applied.0
    }
    fn request_flush(&mut self) {}
    fn restore(&mut self, _snapshot: &Snapshot) {
        unreachable!("no replica falls behind the log here");
    }
    fn build_snapshot(&mut self, done: Box<dyn FnOnce(Result<Snapshot, String>) + Send>) {
        done(Err("a benchmark makes no snapshots".to_owned()));
    }
}

/// A log that counts its fsyncs.
struct Counted<L> {
    log: L,
    syncs: Arc<AtomicU64>,
}

impl<L: LogStore> LogStore for Counted<L> {
    type Reader = L::Reader;
    type Syncer = Counted<L::Syncer>;

    fn initial_state(&self) -> InitialState {
        self.log.initial_state()
    }
    fn write(&mut self, batch: LogBatch) -> Result<(), LogError> {
        self.log.write(batch)
    }
    fn compact(&mut self, index: Index) -> Result<(), LogError> {
        self.log.compact(index)
    }
    fn reader(&self) -> L::Reader {
        self.log.reader()
    }
    fn syncer(&self) -> Counted<L::Syncer> {
        Counted { log: self.log.syncer(), syncs: self.syncs.clone() }
    }
}

impl<S: Syncer> Syncer for Counted<S> {
    fn sync(&mut self, mark: SyncMark) -> Result<(), LogError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.log.sync(mark)
    }
}

#[derive(Clone, Default)]
struct Channels(Arc<Mutex<BTreeMap<NodeId, RaftHandle>>>);

impl Transport for Channels {
    fn send(&mut self, messages: Vec<Message>) {
        let handles = self.0.lock().expect("no holder panics");
        for message in messages {
            if let Some(handle) = handles.get(&message.to) {
                handle.step(message);
            }
        }
    }
}

impl Observer for Channels {
    fn changed(&mut self, _status: &Status) {}
}

/// The group; stopped when it is dropped.
pub struct Group {
    channels: Channels,
    runners: Vec<Runner>,
    syncs: Arc<AtomicU64>,
}

impl Group {
    /// Founds three replicas below `dir` and waits for a leader.
    pub fn start(dir: &Path) -> Self {
        let (channels, syncs, founders) = (Channels::default(), Arc::<AtomicU64>::default(), [1, 2, 3]);
        let mut runners = Vec::new();
        for node in founders {
            let booted = founded(&dir.join(node.to_string()), node, &founders);
            let machine = Nothing { applied: booted.tables.applied() };
            let config = Config {
                tick_ms: 10,
                election_timeout_ms: 1_000,
                snapshot_interval_ms: 0,
                client_inbox_max: 1 << 16,
                ..Config::new(node)
            };
            let log = Counted { log: booted.log, syncs: syncs.clone() };
            let logger = raftgrid_telemetry::silent();
            let started = Runner::start(config, log, machine, channels.clone(), channels.clone(), logger);
            let (handle, runner) = started.expect("it starts");
            channels.0.lock().expect("no holder panics").insert(node, handle);
            runners.push(runner);
        }
        let group = Self { channels, runners, syncs };
        group.leader();
        group
    }

    /// Waits for whoever leads.
    pub fn leader(&self) -> RaftHandle {
        loop {
            let all = self.channels.0.lock().expect("no holder panics").clone();
            if let Some(leader) = all.into_values().find(|handle| handle.status().role == Role::Leader) {
                return leader;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Fsyncs of all logs so far.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.runners.drain(..).for_each(Runner::stop);
    }
}
