//! The threads, in one process, over a transport of function calls. No verdict depends on time, except that of never.

use std::collections::BTreeMap;
use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slog::{o, Discard, Logger};

use crate::error::{ProposeDone, ProposeError, ReadError};
use crate::runner::{Config, RaftHandle, Runner};
use crate::testing::{MemoryDisk, Tables};
use crate::traits::{Observer, Transport};
use crate::types::{MembershipChange, Message, NodeId, Role, Status};

/// Longer than any machine takes: what is not there by then never comes.
const NEVER: Duration = Duration::from_secs(120);

type Peers = Arc<Mutex<BTreeMap<NodeId, (RaftHandle, MemoryDisk)>>>;

struct Wires {
    from: NodeId,
    disk: MemoryDisk,
    peers: Peers,
}

impl Transport for Wires {
    fn send(&mut self, messages: Vec<Message>) {
        let peers = self.peers.lock().expect("sound");
        let own = peers.get(&self.from).map(|(handle, _)| handle.clone());
        for mut message in messages {
            let sent = message.snapshot.take();
            let there = peers.get(&message.to);
            if let (Some(_), Some(own)) = (&sent, &own) {
                own.snapshot_sent(message.to, there.is_some());
            }
            match there {
                Some((handle, disk)) => {
                    message.snapshot = sent.map(|snapshot| disk.stage(&self.disk, &snapshot));
                    handle.step(message);
                }
                None => own.iter().for_each(|own| own.unreachable(message.to)),
            }
        }
    }
}

struct Watch(mpsc::Sender<Status>);

impl Observer for Watch {
    fn changed(&mut self, status: &Status) {
        // The test may be over.
        let _ = self.0.send(status.clone());
    }
}

struct Group {
    peers: Peers,
    running: BTreeMap<NodeId, (Runner, Arc<Mutex<Tables>>, MemoryDisk)>,
    changes: (mpsc::Sender<Status>, mpsc::Receiver<Status>),
}

impl Group {
    fn found(nodes: &[NodeId]) -> Self {
        let mut group = Self { peers: Peers::default(), running: BTreeMap::new(), changes: mpsc::channel() };
        nodes.iter().for_each(|node| group.start(*node, MemoryDisk::founded(nodes)));
        group
    }

    fn start(&mut self, node: NodeId, disk: MemoryDisk) {
        let (log, machine) = disk.open();
        let tables = machine.watch();
        let mut config = Config::new(node);
        (config.tick_ms, config.election_timeout_ms) = (10, 200);
        (config.log_tail_entries, config.flush_after_entries) = (50, 100);
        // Small, so that the apply thread also reads from the log.
        config.apply_queue_bytes_max = 16 << 10;
        let wires = Wires { from: node, disk: disk.clone(), peers: Arc::clone(&self.peers) };
        let watch = Watch(self.changes.0.clone());
        let logger = Logger::root(Discard, o!());
        let (handle, runner) = Runner::start(config, log, machine, wires, watch, logger).expect("it starts");
        self.peers.lock().expect("sound").insert(node, (handle, disk.clone()));
        self.running.insert(node, (runner, tables, disk));
    }

    /// Stops a replica; what was not synced is lost.
    fn kill(&mut self, node: NodeId) -> MemoryDisk {
        self.peers.lock().expect("sound").remove(&node);
        let (runner, _, disk) = self.running.remove(&node).expect("it runs");
        runner.stop();
        disk.crash(0);
        disk
    }

    fn handle(&self, node: NodeId) -> RaftHandle {
        self.peers.lock().expect("sound")[&node].0.clone()
    }

    fn leader(&self) -> NodeId {
        wait(|| {
            let handles: Vec<RaftHandle> =
                self.peers.lock().expect("sound").values().map(|(handle, _)| handle.clone()).collect();
            let leads = |handle: &RaftHandle| handle.status().role == Role::Leader;
            handles.iter().find(|handle| leads(handle)).map(|handle| handle.status().node)
        })
    }

    /// Proposes until it is applied, wherever the leader is; `Unknown` may apply it twice.
    fn insist(&self, payload: &Bytes) -> ProposeDone {
        wait(|| propose(&self.handle(self.leader()), payload).ok())
    }
}

fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < NEVER, "it never comes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn propose(handle: &RaftHandle, payload: &Bytes) -> Result<ProposeDone, ProposeError> {
    let (told, outcome) = mpsc::channel();
    handle.propose(payload.clone(), Box::new(move |result| drop(told.send(result))));
    outcome.recv().expect("a callback is called")
}

fn read(handle: &RaftHandle) -> Result<u64, ReadError> {
    let (told, outcome) = mpsc::channel();
    handle.read(Box::new(move |result| drop(told.send(result))));
    outcome.recv().expect("a callback is called")
}

#[test]
fn three_go_on_when_their_leader_is_killed() {
    let mut group = Group::found(&[1, 2, 3]);
    let leader = group.leader();
    let handle = group.handle(leader);
    let (told, outcomes) = mpsc::channel();
    let sent = 2_000u32;
    for number in 0..sent {
        let told = told.clone();
        let payload = Bytes::copy_from_slice(&number.to_be_bytes());
        handle.propose(payload, Box::new(move |result| drop(told.send((number, result)))));
    }
    let mut acked: BTreeMap<u32, u64> = BTreeMap::new();
    let mut positions = std::collections::BTreeSet::new();
    for (number, outcome) in outcomes.iter().take(sent as usize) {
        match outcome {
            Ok(done) => {
                assert_eq!(done.reply[..], number.to_be_bytes(), "a reply reaches who asked");
                assert!(positions.insert((done.index, done.ordinal)), "a position is given once");
                acked.insert(number, done.index);
            }
            Err(ProposeError::Busy | ProposeError::NotLeader { .. } | ProposeError::Superseded) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(acked.len() > 100, "only {} were taken", acked.len());
    let newest = acked.values().copied().max().expect("not empty");
    let seen = wait(|| read(&group.handle(group.leader())).ok());
    assert!(seen >= newest, "a read sees what was acknowledged");

    let disk = group.kill(leader);
    assert_eq!(propose(&handle, &Bytes::from_static(b"late")), Err(ProposeError::Stopped));
    assert_eq!(read(&handle), Err(ReadError::Stopped));
    let after = group.insist(&Bytes::from_static(b"after the kill"));
    let second = group.leader();
    assert_ne!(second, leader);
    for number in 0..300u32 {
        group.insist(&Bytes::from(format!("more {number}")));
    }
    group.start(leader, disk);
    let last = group.insist(&Bytes::from_static(b"the last"));
    assert!(last.index > after.index);
    for (_, tables, _) in group.running.values() {
        wait(|| (tables.lock().expect("sound").applied >= last.index).then_some(()));
        let tables = tables.lock().expect("sound");
        let has = |index: u64, payload: &[u8]| tables.payloads.iter().any(|(i, p)| *i == index && p[..] == *payload);
        assert!(acked.iter().all(|(number, index)| has(*index, &number.to_be_bytes())), "nothing acknowledged is lost");
        assert!(has(after.index, b"after the kill") && has(last.index, b"the last"));
    }
    let statuses: Vec<Status> = group.changes.1.try_iter().collect();
    let led: Vec<NodeId> = statuses.iter().filter(|s| s.role == Role::Leader).map(|s| s.node).collect();
    assert!(led.contains(&leader) && led.contains(&second), "observers are told who leads");
}

#[test]
fn one_alone_serves_grows_and_hands_over() {
    let mut group = Group::found(&[1]);
    for number in 0..200u32 {
        group.insist(&Bytes::from(format!("{number}")));
    }
    group.start(2, MemoryDisk::default());
    let (told, joined) = mpsc::channel();
    let change = MembershipChange::AddLearner { node: 2 };
    group.handle(1).change_membership(change, Bytes::from_static(b"two"), Box::new(move |r| drop(told.send(r))));
    assert!(joined.recv().expect("a callback is called").is_ok());
    wait(|| (group.handle(2).status().conf.voters == [1, 2]).then_some(()));
    let (told, moved) = mpsc::channel();
    wait(|| {
        let told = told.clone();
        group.handle(1).transfer_leadership(None, Box::new(move |r| drop(told.send(r))));
        moved.recv().expect("a callback is called").ok()
    });
    assert_eq!(group.leader(), 2);
    let done = group.insist(&Bytes::from_static(b"two leads"));
    for (_, tables, _) in group.running.values() {
        wait(|| (tables.lock().expect("sound").applied >= done.index).then_some(()));
    }
    assert!(group.handle(1).status().first > 2, "the log is cut");
    let (told, made) = mpsc::channel();
    group.handle(2).snapshot_now(Box::new(move |r| drop(told.send(r))));
    let meta = made.recv().expect("a callback is called").expect("memory makes one");
    assert!(meta.index >= done.index && meta.conf.voters == [1, 2]);
}

#[test]
fn every_callback_is_called_when_the_runner_stops() {
    let mut group = Group::found(&[1, 2, 3]);
    let leader = group.leader();
    let handle = group.handle(leader);
    let others: Vec<NodeId> = [1, 2, 3].into_iter().filter(|node| *node != leader).collect();
    others.iter().for_each(|node| drop(group.kill(*node)));
    let (told, outcomes) = mpsc::channel();
    let sent = 500;
    for _ in 0..sent {
        let told = told.clone();
        handle.propose(Bytes::from_static(b"nobody to agree"), Box::new(move |r| drop(told.send(r))));
    }
    drop(told);
    group.kill(leader);
    let all: Vec<_> = outcomes.iter().collect();
    assert_eq!(all.len(), sent);
    assert!(all.iter().all(Result::is_err), "two of three are gone: nothing can be acknowledged");
}
