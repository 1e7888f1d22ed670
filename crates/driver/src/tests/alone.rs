//! One core by hand: each input, drain, sync and apply is a line of the test.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeType, ConfChangeV2, Entry, EntryType, Message as RaftMessage, MessageType};
use slog::{o, Discard, Logger};

use crate::core::conf::single;
use crate::core::{Applied, Applier, ApplyTask, Core, CoreConfig};
use crate::testing::{MemoryDisk, MemoryLog, MemoryMachine};
use crate::traits::SyncMark;
use crate::types::{ConfState, Message, NodeId, Role, Snapshot, SnapshotMeta, Status};

pub(super) struct Alone {
    pub(super) disk: MemoryDisk,
    pub(super) core: Core<MemoryLog>,
    applier: Applier,
    machine: MemoryMachine,
    pub(super) sync: Option<SyncMark>,
    pub(super) sent: Vec<RaftMessage>,
    pub(super) tasks: Vec<ApplyTask>,
}

impl Alone {
    pub(super) fn open(node: NodeId, disk: MemoryDisk) -> Self {
        let (log, machine) = disk.open();
        let core = Core::new(CoreConfig::new(node), log, Logger::root(Discard, o!())).expect("it can be opened");
        let applier = core.applier();
        Self { disk, core, applier, machine, sync: None, sent: Vec::new(), tasks: Vec::new() }
    }

    pub(super) fn drain(&mut self) {
        let effects = self.core.drain().expect("memory does not fail");
        self.sync = effects.sync.or(self.sync);
        let decode = |m: &Message| RaftMessage::parse_from_bytes(&m.data).expect("own message");
        self.sent.extend(effects.send.iter().map(decode));
        self.tasks.extend(effects.apply);
    }

    pub(super) fn synced(&mut self) {
        if let Some(mark) = self.sync.take() {
            let all = self.disk.unsynced();
            self.disk.sync(all);
            self.core.synced(mark.ready_number);
            self.drain();
        }
    }

    /// Runs what there is to apply, and gives the reports without telling the core.
    pub(super) fn run_tasks(&mut self) -> Vec<Applied> {
        let tasks = std::mem::take(&mut self.tasks);
        let run = |task| self.applier.run(&mut self.machine, task).ok().flatten().map(|(applied, _)| applied);
        tasks.iter().filter_map(run).collect()
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..10 {
            self.drain();
            self.synced();
            for applied in self.run_tasks() {
                self.core.applied(applied);
            }
        }
        self.drain();
    }

    /// Makes it the leader, with the votes of `voters`.
    pub(super) fn lead(&mut self, voters: &[NodeId]) {
        let own = self.status().node;
        while self.status().role != Role::Leader {
            self.core.tick();
            self.settle();
            let term = self.status().term;
            for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
                let future = u64::from(kind == MessageType::MsgRequestPreVoteResponse);
                for voter in voters.iter().filter(|voter| **voter != own) {
                    if self.status().role == Role::Candidate {
                        self.step(&message(kind, *voter, own, term + future));
                        self.settle();
                    }
                }
            }
        }
    }

    pub(super) fn step(&mut self, message: &RaftMessage) {
        self.core.step(&wrap(message, None));
    }

    pub(super) fn status(&self) -> Status {
        self.core.status()
    }

    pub(super) fn into_machine(self) -> MemoryMachine {
        self.machine
    }

    pub(super) fn sent_of(&self, kind: MessageType) -> usize {
        self.sent.iter().filter(|message| message.get_msg_type() == kind).count()
    }
}

pub(super) fn wrap(message: &RaftMessage, snapshot: Option<Snapshot>) -> Message {
    let data = Bytes::from(message.write_to_bytes().expect("a message"));
    Message { to: message.to, from: message.from, data, snapshot }
}

pub(super) fn message(kind: MessageType, from: NodeId, to: NodeId, term: u64) -> RaftMessage {
    let mut message = RaftMessage { from, to, term, ..Default::default() };
    message.set_msg_type(kind);
    message
}

pub(super) fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, ..Default::default() }
}

pub(super) fn change_entry(index: u64, term: u64, node: NodeId, kind: ConfChangeType) -> Entry {
    let mut change = ConfChangeV2::default();
    change.mut_changes().push(single(node, kind));
    let mut entry = entry(index, term);
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    entry.data = Bytes::from(change.write_to_bytes().expect("a change"));
    entry
}

/// Appends `entries` after (index, log_term), from replica `from` in `term`.
pub(super) fn append(
    from: NodeId,
    to: NodeId,
    term: u64,
    after: (u64, u64),
    commit: u64,
    entries: Vec<Entry>,
) -> RaftMessage {
    let mut message = message(MessageType::MsgAppend, from, to, term);
    (message.index, message.log_term, message.commit) = (after.0, after.1, commit);
    message.set_entries(entries.into());
    message
}

/// A snapshot message, with the snapshot staged on `disk` from the machine of another replica that stands at `meta`.
pub(super) fn snapshot_message(from: NodeId, to: &Alone, term: u64, meta: &SnapshotMeta) -> Message {
    let staged = to.disk.stage_tables(meta);
    let mut message = message(MessageType::MsgSnapshot, from, to.status().node, term);
    let snapshot = message.mut_snapshot();
    snapshot.mut_metadata().index = meta.index;
    snapshot.mut_metadata().term = meta.term;
    snapshot.mut_metadata().mut_conf_state().set_voters(meta.conf.voters.clone());
    snapshot.mut_metadata().mut_conf_state().set_learners(meta.conf.learners.clone());
    wrap(&message, Some(staged))
}

pub(super) fn voters(nodes: &[NodeId]) -> ConfState {
    ConfState { voters: nodes.to_vec(), ..ConfState::default() }
}

/// The snapshot of `message`, staged as it says of itself.
pub(super) fn staged(to: &Alone, message: &RaftMessage) -> Snapshot {
    let meta = message.get_snapshot().get_metadata();
    let conf = ConfState {
        voters: meta.get_conf_state().get_voters().to_vec(),
        learners: meta.get_conf_state().get_learners().to_vec(),
        auto_leave: meta.get_conf_state().auto_leave,
        ..ConfState::default()
    };
    to.disk.stage_tables(&SnapshotMeta { index: meta.index, term: meta.term, conf })
}
