//! A group of cores in virtual time: messages are lost, doubled, delayed and overtake each other; processes crash and lose what
//! was not synced. The world checks at every step that
//! * one term has one leader,
//! * every replica applies the same entry at the same index,
//! * nothing leaves that promises what is not durable,
//! * a read sees everything that was acknowledged before it was asked for,
//!
//! and at the end, after the faults, that the group goes on and that every acknowledged payload is in every replica, once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Message as RaftMessage, MessageType};
use slog::{o, Discard, Logger};

use crate::core::{Applied, Applier, ApplyTask, Core, CoreConfig, Effects, Outcome};
use crate::testing::{MemoryDisk, MemoryLog, MemoryMachine, Tables};
use crate::traits::{StateMachine, SyncMark};
use crate::types::{Index, MembershipChange, Message, NodeId, Role, Snapshot, Term};
use crate::waiters::Waiters;

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub(super) struct Options {
    pub(super) loss_percent: u64,
    pub(super) double_percent: u64,
    pub(super) delay_us: u64,
    /// So much later than the snapshot itself arrives the report of its sending, in microseconds.
    pub(super) report_late_us: u64,
    pub(super) sync_us: u64,
    pub(super) apply_us: u64,
    pub(super) flush_percent: u64,
    pub(super) log_tail_entries: u64,
    /// Checks each message against what is durable at its sender.
    pub(super) check_promises: bool,
    /// Of every core.
    pub(super) hold_votes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            loss_percent: 0,
            double_percent: 0,
            delay_us: 2_000,
            report_late_us: 0,
            sync_us: 1_000,
            apply_us: 500,
            flush_percent: 20,
            log_tail_entries: 10_000,
            check_promises: true,
            hold_votes: false,
        }
    }
}

pub(super) const TICK_US: u64 = 10_000;
const TAP_MESSAGES_MAX: usize = 400;

enum Event {
    Tick(NodeId, u64),
    Drain(NodeId, u64),
    SyncDone(NodeId, u64, SyncMark, usize),
    ApplyStep(NodeId, u64),
    AppliedDone(NodeId, u64, Applied),
    Deliver(Message, u64),
    SnapshotBuilt(NodeId, u64, Result<Snapshot, String>),
    SnapshotReported(NodeId, u64, NodeId, bool),
}

pub(super) struct Live {
    pub(super) core: Core<MemoryLog>,
    applier: Applier,
    pub(super) machine: MemoryMachine,
    queue: VecDeque<ApplyTask>,
    applying: bool,
    drain_scheduled: bool,
    syncing: bool,
    sync_next: Option<SyncMark>,
    waiters: Waiters<u64>,
    reads: BTreeMap<u64, Index>,
}

pub(super) struct Node {
    pub(super) disk: MemoryDisk,
    incarnation: u64,
    pub(super) live: Option<Live>,
}

#[derive(Default)]
pub(super) struct Seen {
    leaders: BTreeMap<Term, NodeId>,
    applied: BTreeMap<Index, (Term, Outcome)>,
    pub(super) acked: BTreeMap<u64, Index>,
    pub(super) superseded: u64,
    pub(super) unknown: u64,
    pub(super) reads: u64,
    /// Reads that were served, by ticket: when their core served them.
    pub(super) served: BTreeMap<u64, u64>,
    pub(super) snapshots: u64,
    pub(super) crashes: u64,
    pub(super) changes: BTreeMap<u64, Result<(Index, Term), crate::ChangeError>>,
    pub(super) transfers: BTreeMap<u64, Result<NodeId, crate::TransferError>>,
    pub(super) packed: usize,
}

pub(super) struct Sim {
    pub(super) rng: Rng,
    pub(super) options: Options,
    pub(super) now: u64,
    sequence: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: BTreeMap<u64, Event>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Pairs that do not hear each other, each way separately.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) seen: Seen,
    /// The newest messages that were sent, lost ones included.
    pub(super) tap: VecDeque<Message>,
    tickets: u64,
    pub(super) trace: u64,
}

fn logger() -> Logger {
    Logger::root(Discard, o!())
}

impl Sim {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        Self {
            rng: Rng(seed),
            options,
            now: 0,
            sequence: 0,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            seen: Seen::default(),
            tap: VecDeque::new(),
            tickets: 0,
            trace: seed,
        }
    }

    pub(super) fn found(seed: u64, options: Options, voters: &[NodeId]) -> Self {
        let mut sim = Self::new(seed, options);
        for node in voters {
            sim.add(*node, MemoryDisk::founded(voters));
        }
        sim
    }

    pub(super) fn add(&mut self, node: NodeId, disk: MemoryDisk) {
        self.nodes.insert(node, Node { disk, incarnation: 0, live: None });
        self.start(node);
    }

    pub(super) fn start(&mut self, node: NodeId) {
        let tail = self.options.log_tail_entries;
        let boot_nonce = self.rng.next();
        let home = self.nodes.get_mut(&node).expect("known");
        assert!(home.live.is_none());
        home.incarnation += 1;
        let (log, machine) = home.disk.open();
        let mut config = CoreConfig::new(node);
        (config.boot_nonce, config.log_tail_entries, config.timeout_seed) = (boot_nonce, tail, 7);
        config.promote_lag_entries = 4;
        config.hold_votes = self.options.hold_votes;
        config.snapshot_report_ticks = 200;
        let core = Core::new(config, log, logger()).expect("what is durable can be opened");
        let applier = core.applier();
        home.live = Some(Live {
            core,
            applier,
            machine,
            queue: VecDeque::new(),
            applying: false,
            drain_scheduled: false,
            syncing: false,
            sync_next: None,
            waiters: Waiters::default(),
            reads: BTreeMap::new(),
        });
        let incarnation = home.incarnation;
        let offset = self.rng.below(TICK_US);
        self.schedule(offset, Event::Tick(node, incarnation));
    }

    pub(super) fn crash(&mut self, node: NodeId) {
        let home = self.nodes.get_mut(&node).expect("known");
        let Some(live) = home.live.take() else { return };
        drop(live);
        let unsynced = home.disk.unsynced() as u64;
        let kept = self.rng.below(unsynced + 1) as usize;
        home.disk.crash(kept);
        self.seen.crashes += 1;
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.bodies.insert(self.sequence, event);
        self.events.push(Reverse((self.now + delay, self.sequence)));
    }

    pub(super) fn run_for(&mut self, time_us: u64) {
        let end = self.now + time_us;
        while let Some(Reverse((at, sequence))) = self.events.peek().copied() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = at;
            let event = self.bodies.remove(&sequence).expect("scheduled");
            self.handle(event);
        }
        self.now = end;
    }

    /// Runs until `done` holds, at most `time_us`.
    pub(super) fn run_until(&mut self, time_us: u64, done: impl Fn(&Sim) -> bool) -> bool {
        let end = self.now + time_us;
        while !done(self) {
            if self.now >= end {
                return false;
            }
            self.run_for(TICK_US);
        }
        true
    }

    fn live(&mut self, node: NodeId, incarnation: u64) -> Option<&mut Live> {
        let home = self.nodes.get_mut(&node)?;
        if home.incarnation == incarnation {
            home.live.as_mut()
        } else {
            None
        }
    }

    /// An input: the drain comes a little later, together with what else has arrived by then.
    pub(super) fn input(&mut self, node: NodeId, input: impl FnOnce(&mut Live)) {
        let delay = self.rng.below(100);
        let Some(home) = self.nodes.get_mut(&node) else { return };
        let incarnation = home.incarnation;
        let Some(live) = home.live.as_mut() else { return };
        input(live);
        if !live.drain_scheduled {
            live.drain_scheduled = true;
            self.schedule(delay, Event::Drain(node, incarnation));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(node, incarnation) => {
                if self.live(node, incarnation).is_some() {
                    self.input(node, |live| live.core.tick());
                    self.schedule(TICK_US, Event::Tick(node, incarnation));
                }
            }
            Event::Drain(node, incarnation) => {
                if let Some(live) = self.live(node, incarnation) {
                    live.drain_scheduled = false;
                    let effects = live.core.drain().expect("memory does not fail");
                    live.core.compact().expect("memory does not fail");
                    self.carry_out(node, incarnation, effects);
                }
            }
            Event::SyncDone(node, incarnation, mark, count) => {
                if self.live(node, incarnation).is_some() {
                    self.nodes[&node].disk.sync(count);
                    self.input(node, |live| live.core.synced(mark.ready_number));
                    let next = self.live(node, incarnation).and_then(|live| {
                        live.syncing = false;
                        live.sync_next.take()
                    });
                    if let Some(mark) = next {
                        self.start_sync(node, incarnation, mark);
                    }
                }
            }
            Event::ApplyStep(node, incarnation) => self.apply_step(node, incarnation),
            Event::AppliedDone(node, incarnation, applied) => {
                if self.live(node, incarnation).is_some() {
                    self.input(node, |live| live.core.applied(applied));
                }
            }
            Event::Deliver(message, incarnation) => self.deliver(message, incarnation),
            Event::SnapshotReported(from, incarnation, to, ok) => self.report_snapshot(from, incarnation, to, ok),
            Event::SnapshotBuilt(node, incarnation, built) => {
                if self.live(node, incarnation).is_some() {
                    self.input(node, |live| live.core.snapshot_built(built));
                }
            }
        }
    }

    fn carry_out(&mut self, node: NodeId, incarnation: u64, effects: Effects) {
        self.check_leader(node);
        let live = self.live(node, incarnation).expect("it was just drained");
        let mut packed = 0;
        for proposed in effects.proposed {
            packed = packed.max(proposed.tickets.len());
            live.waiters.insert(proposed.index, proposed.term, proposed.tickets, 0);
        }
        self.seen.packed = self.seen.packed.max(packed);
        self.seen.changes.extend(effects.changes);
        self.seen.transfers.extend(effects.transfers);
        self.finish_reads(node, effects.reads);
        if let Some(mark) = effects.sync {
            self.start_sync(node, incarnation, mark);
        }
        for message in effects.send {
            self.send(node, incarnation, message);
        }
        let live = self.live(node, incarnation).expect("it was just drained");
        live.queue.extend(effects.apply);
        self.start_apply(node, incarnation);
    }

    fn check_leader(&mut self, node: NodeId) {
        let status = self.nodes[&node].live.as_ref().expect("alive").core.status();
        if status.role == Role::Leader {
            let first = *self.seen.leaders.entry(status.term).or_insert(node);
            assert_eq!(first, node, "term {} has two leaders", status.term);
        }
        self.trace = self.trace.rotate_left(5) ^ status.term ^ status.commit << 20 ^ self.now << 32 ^ node;
    }

    fn start_sync(&mut self, node: NodeId, incarnation: u64, mark: SyncMark) {
        let delay = 1 + self.rng.below(self.options.sync_us);
        let count = self.nodes[&node].disk.unsynced();
        let live = self.live(node, incarnation).expect("alive");
        if live.syncing {
            live.sync_next = Some(mark);
        } else {
            live.syncing = true;
            self.schedule(delay, Event::SyncDone(node, incarnation, mark, count));
        }
    }

    fn start_apply(&mut self, node: NodeId, incarnation: u64) {
        let delay = 1 + self.rng.below(self.options.apply_us);
        let live = self.live(node, incarnation).expect("alive");
        if !live.applying && !live.queue.is_empty() {
            live.applying = true;
            self.schedule(delay, Event::ApplyStep(node, incarnation));
        }
    }

    fn apply_step(&mut self, node: NodeId, incarnation: u64) {
        let flush = self.rng.percent(self.options.flush_percent);
        let Some(live) = self.live(node, incarnation) else { return };
        live.applying = false;
        let task = live.queue.pop_front().expect("scheduled for a task");
        if let ApplyTask::BuildSnapshot = task {
            let built = Arc::new(Mutex::new(None));
            let told = Arc::clone(&built);
            live.machine.build_snapshot(Box::new(move |result| *told.lock().expect("sound") = Some(result)));
            let result = built.lock().expect("sound").take().expect("memory builds at once");
            self.schedule(1_000, Event::SnapshotBuilt(node, incarnation, result));
            return self.start_apply(node, incarnation);
        }
        let (applied, outcomes) =
            live.applier.run(&mut live.machine, &task).expect("what is committed can be applied").expect("a task");
        if flush {
            live.machine.request_flush();
        }
        let mut acked = Vec::new();
        let mut superseded = 0;
        for entry in &outcomes {
            let settled = live.waiters.settle(entry.index, entry.term);
            superseded += settled.superseded.len() as u64;
            if let Outcome::Normal(replies) = &entry.outcome {
                for (ticket, reply) in settled.done.iter().zip(replies) {
                    assert_eq!(reply[..8], ticket.to_be_bytes(), "a reply reaches who asked");
                    acked.push((*ticket, entry.index));
                }
            }
        }
        let mut unknown = 0;
        if applied.restored {
            unknown = live.waiters.overtaken(applied.index).len() as u64;
        }
        self.seen.snapshots += u64::from(applied.restored);
        self.seen.unknown += unknown;
        self.seen.superseded += superseded;
        self.seen.acked.extend(acked);
        for entry in outcomes {
            let now = (entry.term, entry.outcome);
            let first = self.seen.applied.entry(entry.index).or_insert_with(|| now.clone());
            assert_eq!(*first, now, "replica {node} applies something else at {}", entry.index);
        }
        let delay = 1 + self.rng.below(300);
        self.schedule(delay, Event::AppliedDone(node, incarnation, applied));
        self.start_apply(node, incarnation);
    }

    /// What a message promises must be durable at its sender when it leaves.
    fn check_promise(&self, node: NodeId, message: &Message) {
        let decoded = RaftMessage::parse_from_bytes(&message.data).expect("own message");
        let (hard, last) = self.nodes[&node].disk.durable();
        let kind = decoded.get_msg_type();
        let future = [MessageType::MsgRequestPreVote, MessageType::MsgRequestPreVoteResponse].contains(&kind);
        if !future {
            assert!(decoded.term <= hard.term, "{kind:?} of term {} leaves, {} is durable", decoded.term, hard.term);
        }
        if kind == MessageType::MsgRequestVoteResponse && !decoded.reject && decoded.term == hard.term {
            assert_eq!(hard.vote, decoded.to, "a vote leaves before it is durable");
        }
        if kind == MessageType::MsgAppendResponse && !decoded.reject && decoded.term == hard.term {
            assert!(decoded.index <= last, "{} is acknowledged, {last} is durable", decoded.index);
        }
    }

    fn send(&mut self, node: NodeId, incarnation: u64, message: Message) {
        assert_eq!(message.from, node);
        if self.options.check_promises {
            self.check_promise(node, &message);
        }
        if self.tap.len() == TAP_MESSAGES_MAX {
            self.tap.pop_front();
        }
        self.tap.push_back(message.clone());
        let copies = 1 + usize::from(self.rng.percent(self.options.double_percent) && message.snapshot.is_none());
        for _ in 0..copies {
            let lost = self.rng.percent(self.options.loss_percent);
            let mut delay = 50 + self.rng.below(self.options.delay_us);
            if self.rng.percent(2) {
                delay *= 20;
            }
            if message.snapshot.is_some() {
                delay *= 10;
            }
            if lost && message.snapshot.is_none() {
                continue;
            }
            self.schedule(delay, Event::Deliver(message.clone(), incarnation));
        }
    }

    fn report_snapshot(&mut self, from: NodeId, incarnation: u64, to: NodeId, ok: bool) {
        if self.live(from, incarnation).is_some() {
            self.input(from, |live| live.core.snapshot_sent(to, ok));
        }
    }

    fn deliver(&mut self, mut message: Message, incarnation: u64) {
        let (from, to) = (message.from, message.to);
        let there = self.nodes.get(&to).is_some_and(|home| home.live.is_some()) && !self.cut.contains(&(from, to));
        if message.snapshot.is_some() {
            let ok = there && !self.rng.percent(self.options.loss_percent);
            if self.options.report_late_us > 0 {
                self.schedule(self.options.report_late_us, Event::SnapshotReported(from, incarnation, to, ok));
            } else {
                self.report_snapshot(from, incarnation, to, ok);
            }
            if !ok {
                return;
            }
            let sent = message.snapshot.take().expect("asked above");
            message.snapshot = Some(self.nodes[&to].disk.stage(&self.nodes[&from].disk, &sent));
        }
        if there {
            self.input(to, |live| live.core.step(&message));
        }
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = |home: &Node| home.live.as_ref().map(|live| live.core.status()).filter(|s| s.role == Role::Leader);
        let all = self.nodes.iter().filter_map(|(id, home)| leads(home).map(|status| (status.term, *id)));
        all.max().map(|(_, id)| id)
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(super) fn propose(&mut self, node: NodeId) -> u64 {
        let ticket = self.ticket();
        let mut payload = ticket.to_be_bytes().to_vec();
        payload.extend(vec![7; self.rng.below(40) as usize]);
        self.input(node, |live| live.core.propose(ticket, Bytes::from(payload)));
        ticket
    }

    pub(super) fn read(&mut self, node: NodeId) -> u64 {
        let ticket = self.ticket();
        let newest = self.seen.acked.values().copied().max().unwrap_or(0);
        self.input(node, |live| {
            live.reads.insert(ticket, newest);
            live.core.read(ticket);
        });
        ticket
    }

    fn finish_reads(&mut self, node: NodeId, reads: Vec<(u64, Result<Index, crate::ReadError>)>) {
        let live = self.nodes.get_mut(&node).and_then(|home| home.live.as_mut()).expect("alive");
        for (ticket, outcome) in reads {
            let newest = live.reads.remove(&ticket).expect("a read is answered once");
            if let Ok(index) = outcome {
                assert!(index >= newest, "a read at {index} misses what was acknowledged at {newest}");
                assert!(live.machine.applied().0 >= index, "a read is served when its index is applied");
                self.seen.reads += 1;
                self.seen.served.insert(ticket, self.now);
            }
        }
    }

    pub(super) fn change(&mut self, node: NodeId, change: MembershipChange, context: &'static [u8]) -> u64 {
        let ticket = self.ticket();
        self.input(node, |live| live.core.change(ticket, &change, Bytes::from_static(context)));
        ticket
    }

    pub(super) fn tables(&self, node: NodeId) -> std::sync::MutexGuard<'_, Tables> {
        self.nodes[&node].live.as_ref().expect("alive").machine.tables()
    }

    pub(super) fn core(&self, node: NodeId) -> &Core<MemoryLog> {
        &self.nodes[&node].live.as_ref().expect("alive").core
    }

    pub(super) fn conf_everywhere(&self, nodes: &[NodeId], fits: impl Fn(&crate::ConfState) -> bool) -> bool {
        nodes.iter().all(|node| fits(&self.core(*node).status().conf) && fits(&self.tables(*node).conf))
    }

    /// After the faults: the group elects, commits, and every replica has every acknowledged payload, once.
    pub(super) fn check_end(&mut self, members: &[NodeId]) {
        self.cut.clear();
        (self.options.loss_percent, self.options.double_percent) = (0, 0);
        for node in members {
            if self.nodes[node].live.is_none() {
                self.start(*node);
            }
        }
        assert!(self.run_until(20_000_000, |sim| sim.leader().is_some()), "nobody leads after the faults");
        self.run_for(3_000_000);
        let leader = self.leader().expect("the leader stays");
        let last = self.propose(leader);
        let acked = self.run_until(5_000_000, |sim| sim.seen.acked.contains_key(&last));
        assert!(acked, "the group does not commit after the faults");
        let index = self.seen.acked[&last];
        let all = members.to_vec();
        let caught_up = self.run_until(10_000_000, |sim| all.iter().all(|node| sim.tables(*node).applied >= index));
        assert!(caught_up, "a replica does not catch up after the faults");
        for node in members {
            let mut count: BTreeMap<u64, (Index, u64)> = BTreeMap::new();
            for (index, payload) in &self.tables(*node).payloads {
                let ticket = u64::from_be_bytes(payload[..8].try_into().expect("eight bytes"));
                let entry = count.entry(ticket).or_insert((*index, 0));
                entry.1 += 1;
            }
            for (ticket, index) in &self.seen.acked {
                assert_eq!(count.get(ticket), Some(&(*index, 1)), "acknowledged {ticket} at {index} on {node}");
            }
        }
    }
}
