//! raft-rs' protobufs to our nouns and back. Only this folder sees both.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb;

use crate::types::{ConfState, Entry, EntryKind, HardState, Message, Snapshot, SnapshotMeta};

pub(super) fn entry_from(raft: &eraftpb::Entry) -> Entry {
    let kind = match raft.get_entry_type() {
        eraftpb::EntryType::EntryNormal => EntryKind::Normal,
        eraftpb::EntryType::EntryConfChange => EntryKind::ConfChange,
        eraftpb::EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
    };
    Entry { index: raft.index, term: raft.term, kind, data: raft.data.clone(), context: raft.context.clone() }
}

pub(super) fn entry_to(ours: Entry) -> eraftpb::Entry {
    let mut raft = eraftpb::Entry { index: ours.index, term: ours.term, ..Default::default() };
    raft.set_entry_type(match ours.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => eraftpb::EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    });
    raft.data = ours.data;
    raft.context = ours.context;
    raft
}

pub(super) fn hard_state_from(raft: &eraftpb::HardState) -> HardState {
    HardState { term: raft.term, vote: raft.vote, commit: raft.commit }
}

pub(super) fn hard_state_to(ours: &HardState) -> eraftpb::HardState {
    eraftpb::HardState { term: ours.term, vote: ours.vote, commit: ours.commit, ..Default::default() }
}

/// With every list in ascending order: raft-rs gives them in the order of its hash map.
pub(super) fn conf_from(raft: &eraftpb::ConfState) -> ConfState {
    let mut ours = ConfState {
        voters: raft.get_voters().to_vec(),
        learners: raft.get_learners().to_vec(),
        voters_outgoing: raft.get_voters_outgoing().to_vec(),
        learners_next: raft.get_learners_next().to_vec(),
        auto_leave: raft.auto_leave,
    };
    sort(&mut ours);
    ours
}

pub(super) fn sorted(conf: &ConfState) -> ConfState {
    let mut conf = conf.clone();
    sort(&mut conf);
    conf
}

fn sort(conf: &mut ConfState) {
    conf.voters.sort_unstable();
    conf.learners.sort_unstable();
    conf.voters_outgoing.sort_unstable();
    conf.learners_next.sort_unstable();
}

pub(super) fn conf_to(ours: &ConfState) -> eraftpb::ConfState {
    let mut raft = eraftpb::ConfState::default();
    raft.set_voters(ours.voters.clone());
    raft.set_learners(ours.learners.clone());
    raft.set_voters_outgoing(ours.voters_outgoing.clone());
    raft.set_learners_next(ours.learners_next.clone());
    raft.auto_leave = ours.auto_leave;
    raft
}

pub(super) fn snapshot_from(raft: &eraftpb::Snapshot) -> Snapshot {
    let meta = raft.get_metadata();
    Snapshot {
        meta: SnapshotMeta { index: meta.index, term: meta.term, conf: conf_from(meta.get_conf_state()) },
        name: String::from_utf8_lossy(raft.get_data()).into_owned(),
    }
}

pub(super) fn snapshot_to(ours: &Snapshot) -> eraftpb::Snapshot {
    let mut raft = eraftpb::Snapshot::default();
    raft.set_data(Bytes::copy_from_slice(ours.name.as_bytes()));
    let meta = raft.mut_metadata();
    meta.index = ours.meta.index;
    meta.term = ours.meta.term;
    meta.set_conf_state(conf_to(&ours.meta.conf));
    raft
}

pub(super) fn message_from(raft: &eraftpb::Message) -> Message {
    let snapshot =
        (raft.get_msg_type() == eraftpb::MessageType::MsgSnapshot).then(|| snapshot_from(raft.get_snapshot()));
    let data = raft.write_to_bytes().expect("a message of raft-rs has no required fields and is far below 2 GiB");
    Message { to: raft.to, from: raft.from, data: Bytes::from(data), snapshot }
}

/// A message as a peer sent it, without copying its entries. `None` when it is no message at all.
pub(super) fn message_to(ours: &Message) -> Option<eraftpb::Message> {
    let mut raft = eraftpb::Message::default();
    let mut input = protobuf::CodedInputStream::from_carllerche_bytes(&ours.data);
    raft.merge_from(&mut input).ok()?;
    Some(raft)
}
