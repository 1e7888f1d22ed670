//! A counter on three replicas in one process, in memory: all that an embedder writes. It goes on when its leader stops.
//!
//! `cargo run --release -p raftgrid-driver --example counter`

use std::{collections::BTreeMap, sync::mpsc, sync::Arc, sync::Mutex};

use bytes::Bytes;
use raftgrid_driver::testing::MemoryDisk;
use raftgrid_driver::*;

/// The replicated state: the same payloads in the same order make the same value on every replica.
struct Counter {
    value: i64,
    applied: (Index, Term),
}

impl StateMachine for Counter {
    fn apply(&mut self, entries: &[Committed]) -> Vec<Vec<Bytes>> {
        self.applied = entries.last().map_or(self.applied, |last| (last.index, last.term));
        let mut add = |payload: &Bytes| {
            // What is no number adds nothing, on every replica alike; a panic here would end them all.
            self.value = self.value.wrapping_add(payload[..].try_into().map_or(0, i64::from_be_bytes));
            Bytes::copy_from_slice(&self.value.to_be_bytes())
        };
        entries.iter().map(|entry| entry.payloads.iter().map(&mut add).collect()).collect()
    }
    fn apply_membership(&mut self, index: Index, term: Term, _conf: &ConfState, _context: &Bytes) {
        self.applied = (index, term);
    }
    fn applied(&self) -> (Index, Term) {
        self.applied
    }
    fn flushed(&self) -> Index {
        1 // Nothing of the value is durable: the log is never cut, is replayed at a start, and nobody needs a snapshot.
    }
    fn request_flush(&mut self) {}
    fn restore(&mut self, _snapshot: &Snapshot) {}
    fn build_snapshot(&mut self, done: Box<dyn FnOnce(Result<Snapshot, String>) + Send>) {
        done(Err("this counter lives in its log".to_owned()));
    }
}

/// The network: whoever is in the map can be reached.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<BTreeMap<NodeId, RaftHandle>>>);

impl Transport for Wires {
    fn send(&mut self, messages: Vec<Message>) {
        let all = self.0.lock().expect("no holder panics");
        let reached = messages.into_iter().filter_map(|message| Some((all.get(&message.to)?, message)));
        reached.for_each(|(peer, message)| peer.step(message));
    }
}

impl Observer for Wires {
    fn changed(&mut self, _status: &Status) {}
}

/// Adds `step` through whoever leads; the leader and the value. An unknown outcome is not tried again: it may have counted.
fn add(wires: &Wires, step: i64) -> Result<(NodeId, i64), ProposeError> {
    loop {
        let all = wires.0.lock().expect("no holder panics").clone();
        for (node, handle) in all {
            let (told, outcome) = mpsc::channel();
            let payload = Bytes::copy_from_slice(&step.to_be_bytes());
            handle.propose(payload, Box::new(move |outcome| drop(told.send(outcome))));
            match outcome.recv().unwrap_or(Err(ProposeError::Stopped)) {
                Ok(done) => return Ok((node, i64::from_be_bytes(done.reply[..].try_into().expect("eight bytes")))),
                Err(ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::Superseded) => {}
                Err(other) => return Err(other),
            }
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

/// Adds 1, 2 and 3, and stops the leader before the 3; the value.
pub(crate) fn run() -> Result<i64, Box<dyn std::error::Error>> {
    let (nodes, wires, mut runners) = ([1, 2, 3], Wires::default(), BTreeMap::new());
    for node in nodes {
        let (log, _) = MemoryDisk::founded(&nodes).open();
        let config = Config { tick_ms: 10, election_timeout_ms: 200, snapshot_interval_ms: 0, ..Config::new(node) };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let counter = Counter { value: 0, applied: (1, 1) };
        let (handle, runner) = Runner::start(config, log, counter, wires.clone(), wires.clone(), logger)?;
        wires.0.lock().expect("no holder panics").insert(node, handle);
        runners.insert(node, runner);
    }
    let ((_, one), (leader, three)) = (add(&wires, 1)?, add(&wires, 2)?);
    wires.0.lock().expect("no holder panics").remove(&leader);
    runners.remove(&leader).into_iter().for_each(Runner::stop);
    let (next, value) = add(&wires, 3)?;
    println!("1 makes {one}, 2 makes {three}; replica {leader} is gone, replica {next} leads: 3 makes {value}");
    Ok(value)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run().map(drop)
}
