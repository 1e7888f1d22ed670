//! Joining, leaving, promotion, snapshots for those who were away.

use super::sim::{Options, Sim};
use crate::error::{ChangeError, TransferError};
use crate::testing::MemoryDisk;
use crate::types::{MembershipChange, NodeId, Role};

const SECOND: u64 = 1_000_000;

fn found(seed: u64, voters: &[NodeId]) -> (Sim, NodeId) {
    let options = Options { log_tail_entries: 5, flush_percent: 100, ..Options::default() };
    let mut sim = Sim::found(seed, options, voters);
    assert!(sim.run_until(10 * SECOND, |sim| sim.leader().is_some_and(|l| sim.core(l).status().applied > 1)));
    let leader = sim.leader().expect("just seen");
    sim.run_for(SECOND);
    (sim, leader)
}

fn outcome(sim: &mut Sim, at: NodeId, change: MembershipChange) -> Result<(u64, u64), ChangeError> {
    let ticket = sim.change(at, change, b"");
    sim.run_for(SECOND);
    sim.seen.changes.remove(&ticket).expect("answered")
}

#[test]
fn a_joiner_becomes_a_learner_then_a_voter_and_its_address_is_recorded() {
    let (mut sim, leader) = found(1, &[1, 2, 3]);
    for _ in 0..100 {
        sim.propose(leader);
    }
    sim.run_for(SECOND);
    sim.add(4, MemoryDisk::default());
    sim.change(leader, MembershipChange::AddLearner { node: 4 }, b"four:1");
    assert!(sim.run_until(20 * SECOND, |sim| sim.conf_everywhere(&[1, 2, 3, 4], |c| c.voters == [1, 2, 3, 4])));
    assert!(sim.seen.snapshots > 0, "nobody can start from the log, since the founding is in no log");
    assert!(
        sim.tables(4).contexts.iter().any(|(_, context)| context[..] == b"four:1"[..]) || sim.tables(4).applied > 0
    );
    assert!(sim.tables(leader).contexts.iter().any(|(_, context)| context[..] == b"four:1"[..]));
    // Cut off, it never leads, not even after a restart.
    for other in [1, 2, 3] {
        sim.cut.insert((4, other));
        sim.cut.insert((other, 4));
    }
    for _ in 0..20 {
        sim.run_for(SECOND);
        assert_ne!(sim.core(4).status().role, Role::Leader);
        sim.crash(4);
        sim.start(4);
    }
    sim.check_end(&[1, 2, 3, 4]);
}

#[test]
fn a_joiner_is_promoted_in_an_idle_group_although_its_answer_overtakes_the_report_of_the_snapshot() {
    let options = Options { log_tail_entries: 5, flush_percent: 100, report_late_us: SECOND / 5, ..Options::default() };
    let mut sim = Sim::found(11, options, &[1, 2, 3]);
    assert!(sim.run_until(10 * SECOND, |sim| sim.leader().is_some_and(|l| sim.core(l).status().applied > 1)));
    let leader = sim.leader().expect("just seen");
    sim.add(4, MemoryDisk::default());
    sim.change(leader, MembershipChange::AddLearner { node: 4 }, b"four:1");
    // Nobody proposes anything: raft-rs goes on probing a follower that has everything, and never sends to it again.
    assert!(sim.run_until(20 * SECOND, |sim| sim.conf_everywhere(&[1, 2, 3, 4], |c| c.voters == [1, 2, 3, 4])));
}

#[test]
fn a_replica_that_was_away_returns_by_log_or_by_snapshot() {
    let (mut sim, leader) = found(2, &[1, 2, 3]);
    let away = if leader == 3 { 2 } else { 3 };
    sim.crash(away);
    sim.propose(leader);
    sim.run_for(SECOND);
    sim.start(away);
    sim.run_for(3 * SECOND);
    assert_eq!(sim.seen.snapshots, 0, "one entry comes by the log");
    sim.crash(away);
    for _ in 0..50 {
        let at = sim.leader().expect("two are a majority");
        sim.propose(at);
        sim.run_for(100_000);
    }
    sim.start(away);
    sim.run_for(5 * SECOND);
    assert!(sim.seen.snapshots > 0, "what the log no longer has comes by a snapshot");
    sim.check_end(&[1, 2, 3]);
}

#[test]
fn changes_that_do_harm_are_refused() {
    let (mut sim, leader) = found(3, &[1, 2, 3]);
    let other = if leader == 1 { 2 } else { 1 };
    let third = 6 - leader - other;
    let refused = |outcome: Result<(u64, u64), ChangeError>| matches!(outcome, Err(ChangeError::Refused { .. }));
    assert!(refused(outcome(&mut sim, leader, MembershipChange::Remove { node: leader })), "self-removal");
    assert!(refused(outcome(&mut sim, leader, MembershipChange::Demote { node: leader })), "self-demotion");
    assert!(refused(outcome(&mut sim, leader, MembershipChange::AddLearner { node: other })), "a member");
    assert!(refused(outcome(&mut sim, leader, MembershipChange::AddLearner { node: 0 })), "nobody");
    assert!(refused(outcome(&mut sim, leader, MembershipChange::Remove { node: 77 })), "a stranger");
    assert!(refused(outcome(&mut sim, leader, MembershipChange::Promote { node: 77 })), "no learner");
    let not_leader = outcome(&mut sim, other, MembershipChange::Remove { node: third });
    assert_eq!(not_leader, Err(ChangeError::NotLeader { leader }));
    // With one of three silent, taking out a healthy one would leave one of two.
    sim.crash(third);
    sim.run_for(2 * SECOND);
    assert!(refused(outcome(&mut sim, leader, MembershipChange::Remove { node: other })), "no quorum would be left");
    assert!(outcome(&mut sim, leader, MembershipChange::Remove { node: third }).is_ok(), "the silent one may go");
    sim.run_for(2 * SECOND);
    assert_eq!(sim.core(leader).status().conf.voters.len(), 2);
    sim.nodes.remove(&third);
    sim.check_end(&[leader, other]);
}

#[test]
fn a_second_change_waits_for_the_first() {
    let (mut sim, leader) = found(4, &[1, 2, 3]);
    let first = sim.change(leader, MembershipChange::AddLearner { node: 8 }, b"");
    let second = sim.change(leader, MembershipChange::AddLearner { node: 9 }, b"");
    sim.run_for(SECOND);
    assert!(sim.seen.changes[&first].is_ok());
    assert_eq!(sim.seen.changes[&second], Err(ChangeError::Busy), "raft would turn it into an empty entry");
    assert_eq!(sim.core(leader).status().conf.learners, [8]);
}

#[test]
fn a_demoted_voter_is_not_promoted_again_by_itself() {
    let (mut sim, leader) = found(5, &[1, 2, 3]);
    let other = if leader == 1 { 2 } else { 1 };
    assert!(outcome(&mut sim, leader, MembershipChange::Demote { node: other }).is_ok());
    sim.run_for(5 * SECOND);
    assert_eq!(sim.core(leader).status().conf.learners, [other]);
    assert!(outcome(&mut sim, leader, MembershipChange::Promote { node: other }).is_ok(), "when asked it is");
    sim.run_for(SECOND);
    assert_eq!(sim.core(leader).status().conf.voters, [1, 2, 3]);
}

#[test]
fn leadership_goes_where_it_is_asked_to_go() {
    let (mut sim, leader) = found(6, &[1, 2, 3]);
    let to = if leader == 1 { 2 } else { 1 };
    let ticket = sim.ticket();
    sim.input(leader, |live| live.core.transfer(ticket, Some(to)));
    sim.run_for(2 * SECOND);
    assert_eq!(sim.seen.transfers.remove(&ticket), Some(Ok(to)));
    assert_eq!(sim.leader(), Some(to));
    for (target, why) in [(to, "itself"), (77, "a stranger")] {
        let ticket = sim.ticket();
        sim.input(to, |live| live.core.transfer(ticket, Some(target)));
        sim.run_for(SECOND);
        let outcome = sim.seen.transfers.remove(&ticket);
        assert!(matches!(outcome, Some(Err(TransferError::Refused { .. }))), "{why}");
    }
    // One that does not answer does not take over, and the leader goes on.
    sim.cut.insert((leader, to));
    let ticket = sim.ticket();
    sim.cut.insert((to, leader));
    sim.input(to, |live| live.core.transfer(ticket, Some(leader)));
    sim.run_for(5 * SECOND);
    assert_eq!(sim.seen.transfers.remove(&ticket), Some(Err(TransferError::TimedOut)));
    sim.check_end(&[1, 2, 3]);
}

#[test]
fn a_standby_waits_without_a_vote_and_replaces_a_voter_in_one_step() {
    let (mut sim, leader) = found(12, &[1, 2, 3]);
    let old = if leader == 3 { 2 } else { 3 };
    sim.add(4, MemoryDisk::default());
    outcome(&mut sim, leader, MembershipChange::AddStandby { node: 4 }).expect("a new one");
    let early = outcome(&mut sim, leader, MembershipChange::Replace { old, new: 5 });
    assert!(matches!(early, Err(ChangeError::Refused { .. })), "{early:?}");
    let own = outcome(&mut sim, leader, MembershipChange::Replace { old: leader, new: 4 });
    assert!(matches!(own, Err(ChangeError::Refused { .. })), "{own:?}");
    sim.run_for(5 * SECOND);
    assert!(sim.core(leader).status().conf.learners == [4], "it is caught up, and not promoted by itself");
    outcome(&mut sim, leader, MembershipChange::Replace { old, new: 4 }).expect("caught up");
    let mut left: Vec<NodeId> = [1, 2, 3, 4].into_iter().filter(|node| *node != old).collect();
    left.sort_unstable();
    assert!(sim.run_until(10 * SECOND, |sim| sim.conf_everywhere(&left, |c| c.voters == left && !c.is_joint())));
    sim.check_end(&left);
}
