//! A counter on three replicas in one process, on RocksDB: it counts on where it stood, each time it is run.
//! `cargo run --release -p raftgrid-store-rocks --example counter` makes the folder `counter-data`

use std::{collections::BTreeMap, path::Path, sync::mpsc, sync::Arc, sync::Mutex};

use bytes::Bytes;
use raftgrid_driver::*;
use raftgrid_manifest::{Change, Rows, Table};
use raftgrid_store::{BootMode::Found, StateTables, Store};
use raftgrid_store_rocks::RocksDisk;

/// The value is a row of the tables, one batch with where the log stands. Tables that fail end the process: `expect` does that.
struct Counter(StateTables<RocksDisk>);

impl StateMachine for Counter {
    fn apply(&mut self, entries: &[Committed]) -> Vec<Vec<Bytes>> {
        let old = self.0.get(Table::Meta, b"counter").expect("the tables can be read");
        let mut value = old.map_or(0, |row| i64::from_be_bytes(row[..].try_into().expect("eight bytes")));
        let mut add = |payload: &Bytes| {
            value = value.wrapping_add(payload[..].try_into().map_or(0, i64::from_be_bytes));
            Bytes::copy_from_slice(&value.to_be_bytes())
        };
        let replies = entries.iter().map(|entry| entry.payloads.iter().map(&mut add).collect()).collect();
        let last = entries.last().expect("there is one at least");
        let row = Change { table: Table::Meta, key: b"counter".to_vec(), value: Some(value.to_be_bytes().to_vec()) };
        self.0.commit(&[row], (last.index, last.term), None).expect("the tables can be written");
        replies
    }
    fn apply_membership(&mut self, index: Index, term: Term, conf: &ConfState, _context: &Bytes) {
        self.0.commit(&[], (index, term), Some(conf)).expect("the tables can be written");
    }
    fn applied(&self) -> (Index, Term) {
        self.0.applied()
    }
    fn flushed(&self) -> Index {
        self.0.flushed().expect("the tables can be read")
    }
    fn request_flush(&mut self) {
        self.0.request_flush().expect("the tables can be flushed");
    }
    fn restore(&mut self, snapshot: &Snapshot) {
        self.0.restore(snapshot).expect("what is staged can be opened");
    }
    fn build_snapshot(&mut self, done: Box<dyn FnOnce(Result<Snapshot, String>) + Send>) {
        done(self.0.checkpointer().make().map_err(|error| error.to_string()));
    }
}

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

pub(crate) fn run(dir: &Path, steps: &[i64]) -> Result<i64, Box<dyn std::error::Error>> {
    let (nodes, wires, mut runners) = ([1, 2, 3], Wires::default(), Vec::new());
    for node in nodes {
        let mode = Found { cluster_id: "counter".to_owned(), node_id: node, founders: nodes.to_vec() };
        let booted = Store::open(RocksDisk::new(), &dir.join(node.to_string()), mode)?;
        let (counter, logger) = (Counter(booted.tables), slog::Logger::root(slog::Discard, slog::o!()));
        let (log, (wire, observer)) = (booted.log, (wires.clone(), wires.clone()));
        let (handle, runner) = Runner::start(Config::new(node), log, counter, wire, observer, logger)?;
        wires.0.lock().expect("no holder panics").insert(node, handle);
        runners.push(runner);
    }
    let value = steps.iter().try_fold(0, |_, step| add(&wires, *step));
    runners.into_iter().for_each(Runner::stop);
    Ok(value?)
}

/// Adds `step` through whoever leads; the value after it. An unknown outcome is not tried again: it may have counted.
fn add(wires: &Wires, step: i64) -> Result<i64, ProposeError> {
    loop {
        let all = wires.0.lock().expect("no holder panics").clone();
        for handle in all.values() {
            let (told, outcome) = mpsc::channel();
            handle.propose(step.to_be_bytes().to_vec().into(), Box::new(move |outcome| drop(told.send(outcome))));
            match outcome.recv().unwrap_or(Err(ProposeError::Stopped)) {
                Ok(done) => return Ok(i64::from_be_bytes(done.reply[..].try_into().expect("eight bytes"))),
                Err(ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::Superseded) => {}
                Err(other) => return Err(other),
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(Path::new("counter-data"), &[1, 2, 3]).map(|value| println!("the counter stands at {value}"))
}
