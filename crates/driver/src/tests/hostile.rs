//! Messages that no correct peer sends. Whatever they are, the process goes on.

use bytes::Bytes;
use raft::eraftpb::{ConfChangeType, EntryType, Message as RaftMessage, MessageType};

use super::alone::{append, change_entry, entry, message, wrap, Alone};
use super::sim::Rng;
use crate::core::Dropped;
use crate::testing::MemoryDisk;
use crate::types::{Message, Role};

pub(super) const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

pub(super) fn number(rng: &mut Rng, near: u64) -> u64 {
    match rng.below(10) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX - 1,
        3 => 1 << 62,
        4 => 1,
        _ => near.saturating_add(rng.below(5)).saturating_sub(2),
    }
}

pub(super) fn hostile(rng: &mut Rng, to: &Alone) -> Message {
    let status = to.status();
    let kind = KINDS[rng.below(KINDS.len() as u64) as usize];
    let addressee = if rng.percent(95) { status.node } else { number(rng, 1) };
    // A term that only grows would make every other message stale.
    let term = if rng.percent(80) { status.term } else { number(rng, status.term).min(status.term + 3) };
    let from = 2 + rng.below(3);
    let mut m = message(kind, from, addressee, term);
    m.index = number(rng, status.last);
    m.log_term = number(rng, status.term);
    m.commit = number(rng, status.commit);
    m.commit_term = number(rng, status.term);
    m.reject = rng.percent(50);
    m.reject_hint = number(rng, status.last);
    m.request_snapshot = if rng.percent(10) { number(rng, status.last) } else { 0 };
    m.context = Bytes::from_static(b"context");
    let mut index = m.index;
    for _ in 0..rng.below(4) {
        index = if rng.percent(90) { index.wrapping_add(1) } else { number(rng, index) };
        let mut e = entry(index, number(rng, status.term));
        if rng.percent(20) {
            e = change_entry(e.index, e.term, 1 + rng.below(4), ConfChangeType::AddNode);
        } else if rng.percent(10) {
            e.set_entry_type(EntryType::EntryConfChange);
            e.data = Bytes::from_static(&[0xff, 0xff]);
        }
        m.mut_entries().push(e);
    }
    if kind == MessageType::MsgSnapshot {
        let meta = m.mut_snapshot().mut_metadata();
        meta.index = number(rng, status.last);
        meta.term = number(rng, status.term);
        meta.mut_conf_state().set_voters((0..rng.below(4)).map(|_| rng.below(5)).collect());
        meta.mut_conf_state().set_learners((0..rng.below(2)).map(|_| rng.below(5)).collect());
        meta.mut_conf_state().auto_leave = rng.percent(10);
        let staged = super::alone::staged(to, &m);
        return wrap(&m, rng.percent(70).then_some(staged));
    }
    wrap(&m, None)
}

#[test]
fn hostile_messages_never_panic() {
    let mut reasons = std::collections::BTreeSet::new();
    for seed in 1..=150 {
        let mut rng = Rng(seed);
        let disk = if seed % 5 == 0 { MemoryDisk::default() } else { MemoryDisk::founded(&[1, 2, 3]) };
        let mut one = Alone::open(1, disk);
        for _ in 0..400 {
            let message = hostile(&mut rng, &one);
            one.core.step(&message);
            if rng.percent(20) {
                (0..rng.below(30)).for_each(|_| one.core.tick());
            }
            if rng.percent(50) {
                one.settle();
            }
        }
        reasons.extend(one.core.dropped().keys().copied());
    }
    for reason in [
        Dropped::Misaddressed,
        Dropped::Local,
        Dropped::Stranger,
        Dropped::OutOfRange,
        Dropped::MalformedAppend,
        Dropped::SecondLeader,
        Dropped::MalformedSnapshot,
        Dropped::MalformedResponse,
        Dropped::LostLog,
        Dropped::Distrusted,
        Dropped::TimeoutNow,
    ] {
        assert!(reasons.contains(&reason), "{reason:?} was never seen");
    }
}

#[test]
fn a_leader_survives_hostile_answers() {
    for seed in 1..=100 {
        let mut rng = Rng(seed);
        let mut one = Alone::open(1, MemoryDisk::founded(&[1, 2, 3]));
        one.lead(&[1, 2, 3]);
        for _ in 0..300 {
            let mut m = RaftMessage::default();
            let kinds = [MessageType::MsgAppendResponse, MessageType::MsgHeartbeatResponse];
            m.set_msg_type(kinds[rng.below(2) as usize]);
            (m.from, m.to, m.term) = (2 + rng.below(2), 1, one.status().term);
            m.index = number(&mut rng, one.status().last);
            m.reject = rng.percent(60);
            m.reject_hint = number(&mut rng, one.status().last);
            m.log_term = number(&mut rng, one.status().term);
            m.commit = number(&mut rng, one.status().commit);
            one.step(&m);
            one.core.propose(rng.next(), Bytes::from_static(b"x"));
            if rng.percent(30) {
                one.core.unreachable(m.from);
            }
            one.drain();
            if rng.percent(50) {
                one.settle();
            }
        }
        assert_eq!(one.status().role, Role::Leader, "answers alone do not depose it");
    }
}

#[test]
fn what_is_no_message_is_dropped() {
    let mut one = Alone::open(1, MemoryDisk::founded(&[1, 2, 3]));
    let garbage = Message { to: 1, from: 2, data: Bytes::from_static(&[0xff; 40]), snapshot: None };
    one.core.step(&garbage);
    assert_eq!(one.core.dropped().get(&Dropped::Undecodable), Some(&1));
}

#[test]
fn an_append_beyond_the_log_with_term_zero_does_not_match() {
    let mut one = Alone::open(1, MemoryDisk::founded(&[1, 2, 3]));
    one.step(&append(2, 1, 2, (40, 0), 41, vec![entry(41, 2)]));
    one.settle();
    assert_eq!(one.status().last, 1);
    assert_eq!(one.core.dropped().get(&Dropped::MalformedAppend), Some(&1));
}
