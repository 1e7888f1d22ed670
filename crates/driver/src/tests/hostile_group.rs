//! A running group under fire: random bytes, broken and foreign messages, replays of real traffic, in the midst of proposals, crashes and
//! lost messages. Everything is refused and counted or does no harm; afterwards the group goes on and agrees.
//!
//! Two kinds of fire. The *live* group gets whatever somebody without a vote can send, and what a broken peer sends that the guard must
//! refuse: there everything that the simulated world checks must go on to hold. *Copies* of its replicas get what a member could forge
//! (raft does not defend against that, and they are thrown away): there the process must not end.
//!
//! `RAFTGRID_HOSTILE_MESSAGES=1000000` (`make hostile`) fires so many; 50,000 without it.

use std::collections::BTreeMap;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Message as RaftMessage, MessageType};

use super::alone::{append, entry, message, wrap, Alone};
use super::hostile::{hostile, number, KINDS};
use super::sim::{Options, Rng, Sim};
use crate::core::Dropped;
use crate::limits::{ENTRY_BYTES_MAX, INDEX_MAX, TERM_LEAP_MAX, TERM_MAX};
use crate::types::{Message, NodeId, Role, Status};

const VOTERS: [NodeId; 3] = [1, 2, 3];
const MESSAGES_DEFAULT: u64 = 50_000;
/// Fired at one world, half of it at copies.
const MESSAGES_PER_WORLD: u64 = 5_000;
const ROUNDS: u64 = 100;

/// A message and whether the guard must refuse it.
type Shot = (Message, bool);

#[derive(Default)]
struct Tally {
    fired: u64,
    at_copies: u64,
    refused: BTreeMap<Dropped, u64>,
}

fn kind_of(rng: &mut Rng, kinds: &[MessageType]) -> MessageType {
    kinds[rng.below(kinds.len() as u64) as usize]
}

fn some_bytes(rng: &mut Rng, length: u64) -> Vec<u8> {
    (0..rng.below(length)).map(|_| rng.next() as u8).collect()
}

fn other(rng: &mut Rng, than: NodeId) -> NodeId {
    let others: Vec<NodeId> = VOTERS.into_iter().filter(|node| *node != than).collect();
    others[rng.below(others.len() as u64) as usize]
}

/// A message that was really sent to `to`, whenever that was.
fn replayed(sim: &mut Sim, to: NodeId) -> Option<RaftMessage> {
    let sent: Vec<&Message> = sim.tap.iter().filter(|message| message.to == to).collect();
    let at = sim.rng.below(sent.len().max(1) as u64) as usize;
    sent.get(at).map(|message| RaftMessage::parse_from_bytes(&message.data).expect("real traffic"))
}

/// From somebody who is in no configuration: a response, or a request for a vote. (Who leads need not be known here, so a foreign append of
/// a new term is taken: a stranger that forges terms and entries is a member, as far as raft can know.)
fn from_stranger(rng: &mut Rng, to: &Status) -> Shot {
    let responses = [
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgRequestPreVoteResponse,
    ];
    let votes = [MessageType::MsgRequestVote, MessageType::MsgRequestPreVote];
    let asks = rng.percent(30);
    let kind = if asks { kind_of(rng, &votes) } else { kind_of(rng, &responses) };
    let term = match rng.below(8) {
        0 => to.term + TERM_LEAP_MAX,
        1 => to.term + TERM_LEAP_MAX + 1,
        2 => TERM_MAX,
        _ => to.term + rng.below(3),
    };
    let mut m = message(kind, 7 + rng.below(3), to.node, term);
    (m.index, m.log_term, m.commit) = (number(rng, to.last), number(rng, to.term), number(rng, to.commit));
    m.reject = rng.percent(50);
    if asks && rng.percent(50) {
        m.context = Bytes::from_static(b"CampaignTransfer");
    }
    (wrap(&m, None), !asks)
}

/// What no correct member sends, and the guard sees by itself.
fn from_broken_member(rng: &mut Rng, to: &Status) -> Shot {
    let from = other(rng, to.node);
    let leader = to.leader;
    let mut m = message(kind_of(rng, &KINDS), from, to.node, to.term);
    match rng.below(7) {
        0 => m.term = [0, TERM_MAX + 1, u64::MAX][rng.below(3) as usize],
        1 => m.index = INDEX_MAX + 1 + rng.below(9),
        2 => {
            let local = [
                MessageType::MsgHup,
                MessageType::MsgBeat,
                MessageType::MsgPropose,
                MessageType::MsgUnreachable,
                MessageType::MsgSnapStatus,
                MessageType::MsgCheckQuorum,
                MessageType::MsgTransferLeader,
                MessageType::MsgReadIndex,
                MessageType::MsgReadIndexResp,
            ];
            m.set_msg_type(kind_of(rng, &local));
            m.mut_entries().push(entry(number(rng, to.last), to.term));
        }
        3 if leader != 0 && leader != from => {
            let kinds = [MessageType::MsgAppend, MessageType::MsgHeartbeat, MessageType::MsgSnapshot];
            m.set_msg_type(kind_of(rng, &kinds));
            (m.index, m.log_term, m.commit) = (to.last, to.term, to.commit);
        }
        4 if leader != from => m.set_msg_type(MessageType::MsgTimeoutNow),
        5 if to.role == Role::Leader => {
            m.set_msg_type(MessageType::MsgAppendResponse);
            if rng.percent(50) {
                m.index = to.last + 1 + rng.below(5);
            } else {
                m.request_snapshot = 1 + rng.below(9);
            }
        }
        _ => {
            let from = if leader == 0 || leader == to.node { from } else { leader };
            m = append(from, to.node, to.term.max(1), (to.last, to.term.max(1)), to.commit, vec![]);
            let good = entry(to.last + 1, to.term.max(1));
            match rng.below(5) {
                0 => m.set_entries(vec![entry(to.last + 2, to.term)].into()),
                1 => m.set_entries(vec![entry(to.last + 1, to.term + 1)].into()),
                2 => m.set_entries(vec![good.clone(), good].into()),
                3 => (m.index, m.log_term) = (to.last + 1, 0),
                _ => {
                    let mut large = good;
                    large.data = Bytes::from(vec![1; ENTRY_BYTES_MAX + 1]);
                    m.set_entries(vec![large].into());
                }
            }
        }
    }
    (wrap(&m, None), true)
}

/// One shot at a replica of the live group.
fn shot(sim: &mut Sim, to: &Status) -> Shot {
    let member = other(&mut sim.rng, to.node);
    match sim.rng.below(100) {
        0..=14 => {
            let data = Bytes::from(some_bytes(&mut sim.rng, 300));
            (Message { to: to.node, from: member, data, snapshot: None }, true)
        }
        15..=29 => from_stranger(&mut sim.rng, to),
        30..=59 => from_broken_member(&mut sim.rng, to),
        60 if to.leader != 0 && to.leader != to.node => {
            // Commit beyond the log: the leader says that we had it. Votes end until the restart.
            let mut m = message(MessageType::MsgHeartbeat, to.leader, to.node, to.term);
            m.commit = to.last + 1 + sim.rng.below(9);
            (wrap(&m, None), true)
        }
        60..=79 => {
            let Some(mut m) = replayed(sim, to.node) else { return from_stranger(&mut sim.rng, to) };
            match sim.rng.below(4) {
                0 => m.to = 9,
                1 => m.from = [0, to.node][sim.rng.below(2) as usize],
                _ => {
                    // One member in the name of another.
                    let mut forged = wrap(&m, None);
                    forged.from = other(&mut sim.rng, m.from);
                    return (forged, true);
                }
            }
            (wrap(&m, None), true)
        }
        _ => match replayed(sim, to.node) {
            Some(m) => (wrap(&m, None), m.get_msg_type() == MessageType::MsgSnapshot),
            None => from_stranger(&mut sim.rng, to),
        },
    }
}

fn fire(sim: &mut Sim, count: u64, tally: &mut Tally) {
    for _ in 0..count {
        let alive: Vec<NodeId> = VOTERS.into_iter().filter(|node| sim.nodes[node].live.is_some()).collect();
        let Some(node) = alive.get(sim.rng.below(alive.len().max(1) as u64) as usize).copied() else { return };
        let status = sim.core(node).status();
        let (message, must_refuse) = shot(sim, &status);
        let before = sim.core(node).dropped().clone();
        sim.input(node, |live| live.core.step(&message));
        let mut refused = 0;
        for (reason, count) in sim.core(node).dropped() {
            let more = count - before.get(reason).copied().unwrap_or(0);
            *tally.refused.entry(*reason).or_default() += more;
            refused += more;
        }
        assert!(refused == 1 || !must_refuse, "taken by {status:?}: {message:?}");
        tally.fired += 1;
    }
}

/// A message that a member could forge: real traffic with fields, bits or bytes changed, or made from nothing.
fn forged(sim: &mut Sim, copy: &Alone) -> Message {
    let node = copy.status().node;
    let real = if sim.rng.percent(50) { replayed(sim, node) } else { None };
    let rng = &mut sim.rng;
    let Some(mut m) = real else { return hostile(rng, copy) };
    if rng.percent(50) {
        let near = copy.status();
        for _ in 0..1 + rng.below(3) {
            match rng.below(10) {
                0 => m.set_msg_type(kind_of(rng, &KINDS)),
                1 => m.term = near.term + rng.below(3),
                2 => m.index = number(rng, near.last),
                3 => m.log_term = number(rng, near.term),
                4 => m.commit = number(rng, near.commit),
                5 => m.reject = !m.reject,
                6 => m.reject_hint = number(rng, near.last),
                7 => m.from = 1 + rng.below(9),
                8 => m.mut_entries().iter_mut().for_each(|e| e.term = number(rng, near.term)),
                _ => m.mut_entries().iter_mut().for_each(|e| e.data = Bytes::from_static(b"\x01\xff\xff\xff\xff")),
            }
        }
        return wrap(&m, None);
    }
    let mut wrapped = wrap(&m, None);
    let mut data = wrapped.data.to_vec();
    let at = rng.below(data.len().max(1) as u64) as usize;
    match rng.below(3) {
        0 => data.truncate(at),
        1 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
        _ => drop(data.splice(at..at, some_bytes(rng, 40))),
    }
    wrapped.data = Bytes::from(data);
    wrapped
}

/// A copy of a replica, as its disk would be after a clean stop, with everything that a member could do to it.
fn ruin_a_copy(sim: &mut Sim, count: u64, tally: &mut Tally) {
    let node = VOTERS[sim.rng.below(3) as usize];
    let disk = sim.nodes[&node].disk.copy();
    let mut copy = Alone::open(node, disk);
    if sim.rng.percent(50) {
        copy.lead(&VOTERS);
    }
    for _ in 0..count {
        let message = forged(sim, &copy);
        copy.core.step(&message);
        if sim.rng.percent(10) {
            copy.core.propose(sim.rng.next(), Bytes::from_static(b"one of ours"));
        }
        if sim.rng.percent(10) {
            (0..sim.rng.below(25)).for_each(|_| copy.core.tick());
        }
        if sim.rng.percent(40) {
            copy.settle();
        }
        tally.at_copies += 1;
    }
    for (reason, count) in copy.core.dropped() {
        *tally.refused.entry(*reason).or_default() += count;
    }
}

/// Whoever was made to distrust its log votes again after a restart, and only then.
fn restart_the_distrustful(sim: &mut Sim) {
    for node in VOTERS {
        if sim.nodes[&node].live.as_ref().is_some_and(|live| live.core.is_distrusted()) {
            sim.crash(node);
            sim.start(node);
        }
    }
}

fn world(seed: u64, tally: &mut Tally) -> usize {
    let options = Options { loss_percent: seed % 4, log_tail_entries: 20, ..Options::default() };
    let mut sim = Sim::found(seed, options, &VOTERS);
    let share = MESSAGES_PER_WORLD / 2 / ROUNDS;
    for round in 0..ROUNDS {
        sim.run_for(30_000);
        if let Some(leader) = sim.leader() {
            for _ in 0..3 {
                sim.propose(leader);
            }
            sim.read(leader);
        }
        fire(&mut sim, share, tally);
        ruin_a_copy(&mut sim, share, tally);
        let node = VOTERS[sim.rng.below(3) as usize];
        if sim.rng.percent(4) {
            sim.crash(node);
        }
        if sim.rng.percent(40) && sim.nodes[&node].live.is_none() {
            sim.start(node);
        }
        if round % 10 == 9 {
            restart_the_distrustful(&mut sim);
            // Peace for a while, so that there is traffic worth replaying.
            sim.run_for(1_500_000);
        }
    }
    restart_the_distrustful(&mut sim);
    sim.check_end(&VOTERS);
    sim.seen.acked.len()
}

#[test]
fn a_group_under_fire_goes_on_and_agrees() {
    let messages = std::env::var("RAFTGRID_HOSTILE_MESSAGES").ok();
    let messages: u64 = messages.map_or(MESSAGES_DEFAULT, |number| number.parse().expect("a number of messages"));
    let (mut tally, mut acked) = (Tally::default(), 0);
    for seed in 1..=messages.div_ceil(MESSAGES_PER_WORLD) {
        acked += world(seed, &mut tally);
    }
    let refused: u64 = tally.refused.values().sum();
    println!("{} at live replicas, {} at copies; {refused} refused: {:?}", tally.fired, tally.at_copies, tally.refused);
    println!("{acked} proposals acknowledged meanwhile, each in every replica once");
    // A full disk and a promised lease are states of the replica, not faults of a message: `traps` and `lease` hold them.
    let of_messages = |reason: &Dropped| !matches!(reason, Dropped::LowRoom | Dropped::Promised);
    for reason in Dropped::ALL.into_iter().filter(of_messages) {
        // Late rejections are raft's own; the others are ours.
        assert!(tally.refused.contains_key(&reason), "{reason:?} was never seen");
    }
    assert!(tally.fired + tally.at_copies >= messages * 9 / 10, "replicas were down for most of the fire");
    assert!(acked > 0, "a world in which nothing happens proves nothing");
}
