//! One test for each trap of raft-rs 0.7 that the driver steps around.

use bytes::Bytes;
use raft::eraftpb::{ConfChangeType, MessageType};

use super::alone::{append, change_entry, entry, message, snapshot_message, voters, Alone};
use super::sim::{Options, Sim};
use crate::core::conf::single;
use crate::core::{Core, CoreConfig, Dropped};
use crate::error::{ProposeError, ReadError, StartError};
use crate::limits::{LOW_ROOM_APPEND_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::testing::MemoryDisk;
use crate::types::{ConfState, MembershipChange, NodeId, Role, SnapshotMeta};

const SECOND: u64 = 1_000_000;

fn lead(sim: &mut Sim) -> NodeId {
    assert!(sim.run_until(10 * SECOND, |sim| sim.leader().is_some_and(|l| sim.core(l).status().applied > 1)));
    sim.leader().expect("just seen")
}

#[test]
fn the_empty_entry_that_leaves_a_joint_configuration_is_applied() {
    let mut sim = Sim::found(1, Options::default(), &[1, 2, 3]);
    sim.add(4, MemoryDisk::default());
    let leader = lead(&mut sim);
    let gone = *[1, 2, 3].iter().find(|node| **node != leader).expect("two others");
    let stay: Vec<NodeId> = [1, 2, 3, 4].into_iter().filter(|node| *node != gone).collect();
    sim.input(leader, |live| {
        let changes = vec![single(4, ConfChangeType::AddNode), single(gone, ConfChangeType::RemoveNode)];
        live.core.propose_changes(changes, Bytes::new()).expect("no other change is under way");
    });
    let left = sim.run_until(10 * SECOND, |sim| {
        let there = |conf: &ConfState| conf.voters == stay && !conf.is_joint();
        sim.conf_everywhere(&stay, there)
    });
    assert!(left, "the joint configuration is left on every replica");
    sim.nodes.remove(&gone);
    sim.check_end(&stay);
}

#[test]
fn one_grows_to_three_while_it_crashes() {
    for seed in 1..=40 {
        let options = Options { sync_us: 30_000, ..Options::default() };
        let mut sim = Sim::found(seed, options, &[1]);
        sim.add(2, MemoryDisk::default());
        sim.add(3, MemoryDisk::default());
        for _ in 0..100 {
            sim.run_for(100_000);
            if sim.rng.percent(15) {
                sim.crash(1);
                sim.start(1);
            }
            if let Some(leader) = sim.leader() {
                sim.propose(leader);
                sim.change(leader, MembershipChange::AddLearner { node: 2 }, b"two");
                sim.change(leader, MembershipChange::AddLearner { node: 3 }, b"three");
            }
        }
        sim.run_for(10 * SECOND);
        let all = [1, 2, 3];
        assert!(sim.conf_everywhere(&all, |conf| conf.voters == all), "seed {seed}: all three vote");
        sim.check_end(&all);
    }
}

#[test]
fn a_single_voter_sends_nothing_of_a_term_that_is_not_durable() {
    let disk = MemoryDisk::founded(&[1]);
    let mut one = Alone::open(1, disk);
    // It leads, and adds a learner.
    (0..50).for_each(|_| one.core.tick());
    one.settle();
    one.core.change(1, &MembershipChange::AddLearner { node: 2 }, Bytes::new());
    one.settle();
    assert_eq!(one.status().conf.learners, [2]);
    // It starts again, and leads at once in a new term that is not durable yet.
    let all = one.disk.unsynced();
    one.disk.crash(all);
    let mut one = Alone::open(1, one.disk.clone());
    one.settle();
    assert_eq!(one.status().conf.learners, [2]);
    (0..50).for_each(|_| one.core.tick());
    one.drain();
    let term = one.status().term;
    assert_eq!(one.status().role, Role::Leader);
    assert!(one.disk.durable().0.term < term, "the sync has not come back");
    assert!(one.sent.iter().all(|m| m.term < term), "nothing of the new term has left");
    one.synced();
    one.drain();
    (0..4).for_each(|_| one.core.tick());
    one.settle();
    assert!(one.sent.iter().any(|m| m.term == term && m.to == 2), "then it leaves");
}

#[test]
fn a_late_change_does_not_land_on_a_newer_snapshot() {
    let mut three = Alone::open(3, MemoryDisk::founded(&[1, 2, 3]));
    let gone = change_entry(3, 2, 2, ConfChangeType::RemoveNode);
    three.step(&append(1, 3, 2, (1, 1), 3, vec![entry(2, 2), gone]));
    three.drain();
    three.synced();
    let late = three.run_tasks();
    assert_eq!(late.len(), 1, "the change is applied, the report is under way");
    // Meanwhile 2 was added again, and a snapshot says so.
    let meta = SnapshotMeta { index: 20, term: 2, conf: voters(&[1, 2, 3]) };
    let staged = snapshot_message(1, &three, 2, &meta);
    three.core.step(&staged);
    three.drain();
    for applied in late {
        three.core.applied(applied);
    }
    assert_eq!(three.status().conf, voters(&[1, 2, 3]));
    three.settle();
    assert_eq!((three.status().conf, three.status().applied), (voters(&[1, 2, 3]), 20));
}

#[test]
fn nothing_campaigns_until_an_install_is_applied() {
    let mut three = Alone::open(3, MemoryDisk::founded(&[1, 2, 3]));
    let meta = SnapshotMeta { index: 20, term: 2, conf: voters(&[1, 2, 3]) };
    let staged = snapshot_message(1, &three, 2, &meta);
    three.core.step(&staged);
    let timeout_now = message(MessageType::MsgTimeoutNow, 1, 3, 2);
    let campaigns =
        |alone: &Alone| alone.sent_of(MessageType::MsgRequestVote) + alone.sent_of(MessageType::MsgRequestPreVote);
    for stage in ["written", "durable"] {
        three.step(&timeout_now);
        (0..200).for_each(|_| three.core.tick());
        three.drain();
        assert_eq!(campaigns(&three), 0, "a campaign while the snapshot is only {stage}");
        three.synced();
    }
    assert_eq!(three.core.dropped().get(&Dropped::TimeoutNow), Some(&2));
    three.settle();
    assert_eq!(three.status().applied, 20);
    three.step(&timeout_now);
    three.settle();
    assert!(campaigns(&three) > 0, "after the install it may campaign");
}

#[test]
fn a_single_voter_does_not_campaign_on_entries_that_are_not_durable() {
    let mut one = Alone::open(1, MemoryDisk::founded(&[1, 2]));
    let gone = change_entry(3, 2, 2, ConfChangeType::RemoveNode);
    one.step(&append(2, 1, 2, (1, 1), 3, vec![entry(2, 2), gone]));
    one.settle();
    assert_eq!(one.status().conf, voters(&[1]), "now it votes alone");
    one.step(&append(2, 1, 2, (3, 2), 3, vec![entry(4, 2)]));
    (0..200).for_each(|_| one.core.tick());
    one.drain();
    one.step(&message(MessageType::MsgTimeoutNow, 2, 1, 2));
    (0..200).for_each(|_| one.core.tick());
    assert_eq!(one.status().role, Role::Follower);
    one.settle();
    (0..200).for_each(|_| one.core.tick());
    one.settle();
    assert_eq!(one.status().role, Role::Leader);
}

#[test]
fn a_single_voter_restarts_with_everything_acknowledged() {
    for seed in 1..=30 {
        let options = Options { sync_us: 20_000, flush_percent: 5, log_tail_entries: 10, ..Options::default() };
        let mut sim = Sim::found(seed, options, &[1]);
        for _ in 0..200 {
            sim.run_for(40_000);
            for _ in 0..3 {
                sim.propose(1);
            }
            sim.read(1);
            if sim.rng.percent(5) {
                sim.crash(1);
                sim.start(1);
            }
        }
        assert!(sim.seen.acked.len() > 100 && sim.seen.reads > 10, "seed {seed} does something");
        sim.check_end(&[1]);
    }
}

#[test]
fn a_leader_that_is_taken_out_steps_down_and_another_leads() {
    for kind in [ConfChangeType::RemoveNode, ConfChangeType::AddLearnerNode] {
        // Entries are still on their way to the disk when the removal is applied.
        let mut sim = Sim::found(3, Options { sync_us: 30_000, ..Options::default() }, &[1, 2, 3]);
        let leader = lead(&mut sim);
        // What `change` refuses happens all the same when leadership moves while a removal is under way.
        sim.input(leader, |live| {
            live.core.propose_changes(vec![single(leader, kind)], Bytes::new()).expect("no other change");
        });
        let others: Vec<NodeId> = [1, 2, 3].into_iter().filter(|node| *node != leader).collect();
        for _ in 0..1000 {
            sim.run_for(1_000);
            if let Some(at) = sim.leader() {
                sim.propose(at);
            }
        }
        let moved = sim.run_until(10 * SECOND, |sim| sim.leader().is_some_and(|now| now != leader));
        assert!(moved, "{kind:?}: another one leads");
        assert_ne!(sim.core(leader).status().role, Role::Leader);
        assert!(sim.conf_everywhere(&others, |conf| conf.voters == others));
    }
}

#[test]
fn a_late_rejection_does_not_move_next_to_what_is_acknowledged() {
    let mut sim = Sim::found(2, Options::default(), &[1, 2, 3]);
    let leader = lead(&mut sim);
    for _ in 0..20 {
        sim.propose(leader);
        sim.run_for(20_000);
    }
    sim.run_for(SECOND);
    let follower = if leader == 1 { 2 } else { 1 };
    let term = sim.core(leader).status().term;
    let (matched, _) = sim.core(leader).progress_of(follower).expect("a member");
    assert!(matched > 5);
    for (index, hint, hint_term) in [(matched, 0, 0), (matched, 1, 1), (matched + 1, 1, 1), (2, 1, 1)] {
        let mut late = message(MessageType::MsgAppendResponse, follower, leader, term);
        (late.index, late.reject, late.reject_hint, late.log_term) = (index, true, hint, hint_term);
        sim.input(leader, |live| {
            live.core.unreachable(follower);
            live.core.step(&super::alone::wrap(&late, None));
        });
        let (matched, next) = sim.core(leader).progress_of(follower).expect("a member");
        assert!(next > matched, "rejection of {index} with hint {hint}: next {next} is not above match {matched}");
    }
    sim.check_end(&[1, 2, 3]);
}

#[test]
fn a_log_that_lost_its_end_is_noticed_and_does_not_vote() {
    let mut three = Alone::open(3, MemoryDisk::founded(&[1, 2, 3]));
    let mut beat = message(MessageType::MsgHeartbeat, 1, 3, 2);
    beat.commit = 50;
    three.step(&beat);
    assert!(three.core.is_distrusted());
    let mut ask = message(MessageType::MsgRequestVote, 2, 3, 3);
    (ask.index, ask.log_term) = (60, 2);
    three.step(&ask);
    (0..200).for_each(|_| three.core.tick());
    three.settle();
    assert_eq!(three.sent.len(), 0, "no vote, no campaign");
    assert_eq!(three.core.dropped().get(&Dropped::LostLog), Some(&1));
    assert_eq!(three.core.dropped().get(&Dropped::Distrusted), Some(&1));
}

#[test]
fn a_heartbeat_of_an_old_leader_says_nothing_about_the_log() {
    let mut three = Alone::open(3, MemoryDisk::founded(&[1, 2, 3]));
    three.step(&append(2, 3, 5, (1, 1), 1, vec![entry(2, 5)]));
    three.settle();
    let mut beat = message(MessageType::MsgHeartbeat, 1, 3, 4);
    beat.commit = 50;
    three.step(&beat);
    assert!(!three.core.is_distrusted());
}

#[test]
fn a_follower_refuses_what_raft_would_forward_or_drop() {
    let mut three = Alone::open(3, MemoryDisk::founded(&[1, 2, 3]));
    three.step(&message(MessageType::MsgHeartbeat, 1, 3, 2));
    three.core.propose(1, Bytes::from_static(b"x"));
    three.core.propose(2, Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]));
    three.core.read(3);
    let effects = three.core.drain().expect("memory does not fail");
    assert_eq!(effects.refused, [(1, ProposeError::NotLeader { leader: 1 }), (2, ProposeError::TooLarge)]);
    assert_eq!(effects.reads, [(3, Err(ReadError::NotLeader { leader: 1 }))]);
    assert!(effects.send.iter().all(|m| m.snapshot.is_none()) && effects.apply.is_empty());
}

#[test]
fn stale_reports_are_ignored() {
    let mut one = Alone::open(1, MemoryDisk::founded(&[1]));
    (0..50).for_each(|_| one.core.tick());
    one.settle();
    let applied = one.status().applied;
    assert!(applied > 1);
    one.core.applied(crate::core::Applied { index: 1, ..Default::default() });
    one.core.synced(1);
    one.core.synced(0);
    one.settle();
    assert_eq!(one.status().applied, applied);
}

#[test]
fn proposals_are_packed_while_an_fsync_is_under_way() {
    let mut one = Alone::open(1, MemoryDisk::founded(&[1]));
    (0..50).for_each(|_| one.core.tick());
    one.settle();
    one.core.propose(1, Bytes::from_static(b"first"));
    let first = one.core.drain().expect("memory does not fail");
    assert_eq!(first.proposed.len(), 1, "when idle it is sent at once");
    for ticket in 2..=50 {
        one.core.propose(ticket, Bytes::from_static(b"more"));
    }
    assert_eq!(one.core.drain().expect("memory does not fail").proposed, [], "they wait for the fsync");
    let all = one.disk.unsynced();
    one.disk.sync(all);
    one.core.synced(first.sync.expect("an entry must be synced").ready_number);
    let packed = one.core.drain().expect("memory does not fail").proposed;
    assert_eq!(packed.len(), 1);
    assert_eq!(packed[0].tickets, (2..=50).collect::<Vec<_>>());
}

#[test]
fn an_empty_replica_never_campaigns_and_a_wrong_start_is_refused() {
    let mut empty = Alone::open(9, MemoryDisk::default());
    (0..1000).for_each(|_| empty.core.tick());
    empty.settle();
    assert_eq!((empty.sent.len(), empty.status().role), (0, Role::Follower));

    let disk = MemoryDisk::founded(&[1]);
    let mut one = Alone::open(1, disk.clone());
    (0..50).for_each(|_| one.core.tick());
    one.settle();
    assert!(one.status().commit > 1);
    // The tables are newer than the log.
    crate::traits::StateMachine::request_flush(&mut one.into_machine());
    disk.crash(usize::MAX);
    disk.lose_after(1);
    let (log, _) = disk.open();
    let refused = Core::new(CoreConfig::new(1), log, slog::Logger::root(slog::Discard, slog::o!()));
    assert!(matches!(refused, Err(StartError::Inconsistent(_))));
}

#[test]
fn a_follower_without_room_drops_appends_and_takes_them_when_it_has_room_again() {
    let mut sim = Sim::found(1, Options::default(), &[1, 2, 3]);
    let leader = lead(&mut sim);
    let full = *[1, 2, 3].iter().find(|node| **node != leader).expect("two others");
    sim.run_for(SECOND);
    let before = sim.core(full).status().last;
    sim.input(full, |live| live.core.set_low_room(true));
    let ticket = sim.ticket();
    let mut payload = ticket.to_be_bytes().to_vec();
    payload.resize(LOW_ROOM_APPEND_BYTES_MAX + 1, 7);
    sim.input(leader, |live| live.core.propose(ticket, Bytes::from(payload)));
    sim.run_for(5 * SECOND);
    assert!(sim.core(leader).status().commit > before, "the others are a majority");
    assert_eq!(sim.core(full).status().last, before, "nothing was written there");
    assert_eq!(sim.leader(), Some(leader), "its heartbeats are answered as before");
    assert!(sim.core(full).dropped().get(&Dropped::LowRoom).is_some_and(|count| *count > 0));
    sim.input(full, |live| live.core.set_low_room(false));
    assert!(sim.run_until(10 * SECOND, |sim| sim.core(full).status().last == sim.core(leader).status().last));
    sim.check_end(&[1, 2, 3]);
}

#[test]
fn a_group_without_room_anywhere_still_decides_what_is_small() {
    let mut sim = Sim::found(1, Options::default(), &[1, 2, 3]);
    let leader = lead(&mut sim);
    for node in [1, 2, 3] {
        sim.input(node, |live| live.core.set_low_room(true));
    }
    let before = sim.core(leader).status().commit;
    sim.propose(leader);
    assert!(sim.run_until(10 * SECOND, |sim| sim.core(leader).status().commit > before), "a deletion must get through");
}
