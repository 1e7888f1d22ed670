//! Proposals through three replicas in one process: real drivers, real RocksDB logs and fsyncs, messages over channels instead of gRPC.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use crossbeam::channel::bounded;
use raftgrid_benches::founded;
use raftgrid_driver::{
    Committed, ConfState, Config, Index, Message, NodeId, Observer, RaftHandle, Role, Runner, Snapshot, StateMachine,
    Status, Term, Transport,
};

/// Applies nothing: what is measured is the way there.
struct Nothing {
    applied: (Index, Term),
}

impl StateMachine for Nothing {
    fn apply(&mut self, entries: &[Committed]) -> Vec<Vec<Bytes>> {
        if let Some(last) = entries.last() {
            self.applied = (last.index, last.term);
        }
        entries.iter().map(|entry| entry.payloads.iter().map(|_| Bytes::new()).collect()).collect()
    }
    fn apply_membership(&mut self, index: Index, term: Term, _conf: &ConfState, _context: &Bytes) {
        self.applied = (index, term);
    }
    fn applied(&self) -> (Index, Term) {
        self.applied
    }
    fn flushed(&self) -> Index {
        1
    }
    fn request_flush(&mut self) {}
    fn restore(&mut self, _snapshot: &Snapshot) {
        unreachable!("no replica falls behind the log here");
    }
    fn build_snapshot(&mut self, done: Box<dyn FnOnce(Result<Snapshot, String>) + Send>) {
        done(Err("a benchmark makes no snapshots".to_owned()));
    }
}

type Handles = Arc<Mutex<BTreeMap<NodeId, RaftHandle>>>;

struct Channels(Handles);

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

struct Silent;

impl Observer for Silent {
    fn changed(&mut self, _status: &Status) {}
}

fn replication(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let handles: Handles = Arc::default();
    let founders = [1, 2, 3];
    let mut runners = Vec::new();
    for node in founders {
        let booted = founded(&dir.path().join(node.to_string()), node, &founders);
        let machine = Nothing { applied: booted.tables.applied() };
        let config = Config { tick_ms: 10, election_timeout_ms: 200, snapshot_interval_ms: 0, ..Config::new(node) };
        let logger = raftgrid_telemetry::silent();
        let (handle, runner) =
            Runner::start(config, booted.log, machine, Channels(handles.clone()), Silent, logger).expect("it starts");
        handles.lock().expect("no holder panics").insert(node, handle);
        runners.push(runner);
    }
    let all: Vec<RaftHandle> = handles.lock().expect("no holder panics").values().cloned().collect();
    let leader = loop {
        if let Some(leader) = all.iter().find(|handle| handle.status().role == Role::Leader) {
            break leader.clone();
        }
        std::thread::park_timeout(Duration::from_millis(10));
    };
    let mut group = criterion.benchmark_group("replication");
    for under_way in [1_u64, 64, 256] {
        group.throughput(Throughput::Elements(under_way));
        group.bench_function(format!("propose_256B/under_way_{under_way}"), |bencher| {
            bencher.iter(|| {
                let (sender, done) = bounded(usize::try_from(under_way).expect("small"));
                for _ in 0..under_way {
                    let sender = sender.clone();
                    let payload = Bytes::from(vec![b'x'; 256]);
                    let told = move |ok| sender.send(ok).expect("the bench waits for every answer");
                    leader.propose(payload, Box::new(move |outcome| told(outcome.is_ok())));
                }
                for _ in 0..under_way {
                    assert!(done.recv().expect("every proposal is answered"), "a proposal failed");
                }
            });
        });
    }
    group.finish();
    for runner in runners {
        runner.stop();
    }
}

criterion_group!(benches, replication);
criterion_main!(benches);
