//! Leases: renewal, expiry, revocation.

use raftgrid_control::{Beat, Config, Input};
use raftgrid_proto::v1::{Phase, TaskRow, TaskStatus};

use crate::world::*;

fn ttl() -> u64 {
    Config::local().lease_ttl_ms
}

#[test]
fn a_new_leader_with_living_workers_expires_nobody() {
    let mut world = World::new();
    for n in 0..200 {
        world.node(&format!("node-{n}"));
        world.task(running(n + 1, &format!("node-{n}"), 1_000 + n));
    }
    world.load();
    // The workers find the new leader after almost the whole grace, then beat at their interval.
    let first = START + Config::local().election_grace_ms - 1;
    for at in (START..first + 20_000).step_by(250) {
        let actions = world.at(at);
        assert_eq!(expired(&actions), vec![], "at {at}");
        if at + 250 > first {
            for n in 0..200 {
                let task_id = format!("task-{}", n + 1);
                let answer = world.beat(beat_holding(&format!("node-{n}"), &[(&task_id, 1_000 + n)]));
                assert_eq!((answer.revoked, answer.not_renewed, answer.stopping), (vec![], vec![], vec![]));
            }
        }
    }
}

#[test]
fn a_new_leader_expires_a_dead_workers_lease_exactly_after_the_grace() {
    let mut world = World::new();
    world.node("node-0");
    world.task(running(1, "node-0", 1_000));
    world.load();
    let end = START + Config::local().election_grace_ms;
    assert_eq!(expired(&world.at(end - 1)), vec![]);
    assert_eq!(expired(&world.at(end)), vec![("task-1".to_owned(), 1_000)]);
}

#[test]
fn a_new_lease_is_expired_exactly_after_its_ttl() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.now += 10;
    world.task(running(1, "node-0", 1_000));
    let seen = world.now;
    world.step(vec![]);
    assert_eq!(expired(&world.at(seen + ttl() - 1)), vec![]);
    let actions = world.at(seen + ttl());
    assert_eq!(expired(&actions), vec![("task-1".to_owned(), 1_000)]);
    assert_eq!(expired(&world.at(seen + ttl() + 1)), vec![], "one proposal a subject");
}

/// Task 1 as it was assigned, before its start.
fn assigned(node_id: &str, epoch: u64) -> TaskRow {
    let mut row = running(1, node_id, epoch);
    row.mut_task().status = TaskStatus::ASSIGNED;
    row.mut_task().phase = Phase::PHASE_LEASED;
    row
}

#[test]
fn a_start_is_as_good_as_a_renewal() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(assigned("node-0", 1_000));
    world.step(vec![]);
    // The worker asked for it, and said so, at the last moment.
    world.now += ttl() - 1;
    world.task(running(1, "node-0", 1_000));
    let seen = world.now;
    world.step(vec![]);
    assert_eq!(expired(&world.at(seen + ttl() - 1)), vec![]);
    let actions = world.at(seen + ttl());
    assert_eq!(expired(&actions), vec![("task-1".to_owned(), 1_000)]);
    assert_eq!(before_start(&actions), vec![false]);
}

#[test]
fn an_expiry_that_was_proposed_before_the_start_was_seen_says_so() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(assigned("node-0", 1_000));
    world.step(vec![]);
    let actions = world.at(world.now + ttl());
    assert_eq!(before_start(&actions), vec![true]);
}

#[test]
fn a_renewal_counts_from_the_arrival_of_its_beat() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(running(1, "node-0", 1_000));
    world.step(vec![]);
    let arrived = world.now + 2_000;
    world.now = arrived;
    let (ticket, beat) = world.beat_input(beat_holding("node-0", &[("task-1", 1_000)]));
    world.step(beat);
    world.now = arrived + 500;
    let actions = world.step(vec![Input::QuorumConfirmed { ticket }]);
    assert!(answer(&actions, ticket).expect("answered").is_some());
    assert_eq!(expired(&world.at(arrived + ttl() - 1)), vec![]);
    assert_eq!(expired(&world.at(arrived + ttl())).len(), 1);
}

#[test]
fn a_lease_is_not_renewed_without_the_quorums_confirmation() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(running(1, "node-0", 1_000));
    world.step(vec![]);
    let seen = world.now;
    let mut unanswered = Vec::new();
    let mut expiries = Vec::new();
    for at in (seen + 250..=seen + ttl()).step_by(250) {
        world.now = at;
        let (ticket, beat) = world.beat_input(beat_holding("node-0", &[("task-1", 1_000)]));
        let actions = world.step(beat);
        assert!(answer(&actions, ticket).is_none(), "no answer before a quorum");
        unanswered.push(ticket);
        expiries.extend(expired(&actions));
    }
    assert_eq!(expiries, vec![("task-1".to_owned(), 1_000)], "the beats of a deposed leader renew nothing");
    let actions = world.at(seen + ttl() + ttl() / 3);
    assert_eq!(
        answer(&actions, *unanswered.last().expect("beats were sent")),
        Some(None),
        "UNAVAILABLE after a third of the TTL"
    );
}

#[test]
fn a_lease_whose_expiry_is_under_way_is_not_promised() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(running(1, "node-0", 1_000));
    world.step(vec![]);
    world.now += ttl();
    let actions = world.step(vec![]);
    assert_eq!(expired(&actions).len(), 1);
    let first = world.beat(beat_holding("node-0", &[("task-1", 1_000)]));
    assert_eq!(first.not_renewed, vec![("task-1".to_owned(), 1_000)]);
    // The expiry came to nothing: after its pause the next beat renews.
    world.step(vec![Input::Proposed { tag: tags(&actions)[0], replies: None }]);
    world.now += 100;
    let (ticket, mut inputs) = world.beat_input(beat_holding("node-0", &[("task-1", 1_000)]));
    inputs.push(Input::QuorumConfirmed { ticket });
    let actions = world.step(inputs);
    let answer = answer(&actions, ticket).expect("answered").expect("with a quorum");
    assert_eq!((answer.not_renewed, answer.revoked), (vec![], vec![]));
    assert_eq!(expired(&actions), vec![]);
}

#[test]
fn held_epochs_are_revoked_stopping_or_not_renewed_as_the_rows_say() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.live_node("node-1");
    world.task(running(1, "node-0", 1_000));
    world.task(running(2, "node-0", 1_500));
    world.task(running(3, "node-1", 1_600));
    let mut over = running(4, "node-0", 1_700);
    over.mut_task().status = TaskStatus::FAILED;
    over.open_epoch = 0;
    world.task(over);
    let mut stopping = running(5, "node-0", 1_800);
    stopping.mut_task().phase = Phase::PHASE_STOPPING;
    stopping.stop_requested_ms = CLUSTER_MS + 1_000_000;
    world.task(stopping);
    world.step(vec![]);
    let held = [
        ("task-1", 1_000),
        ("task-2", 1_400),
        ("task-3", 1_600),
        ("task-4", 1_700),
        ("task-5", 1_800),
        ("task-6", 5_000),
    ];
    let answer = world.beat(beat_holding("node-0", &held));
    let pairs = |list: &[(&str, u64)]| list.iter().map(|(id, epoch)| ((*id).to_owned(), *epoch)).collect::<Vec<_>>();
    assert_eq!(answer.revoked, pairs(&[("task-2", 1_400), ("task-3", 1_600), ("task-4", 1_700)]));
    assert_eq!(answer.stopping, pairs(&[("task-5", 1_800)]));
    assert_eq!(answer.not_renewed, pairs(&[("task-6", 5_000)]), "given after all that is folded here");
}

#[test]
fn an_old_agents_beat_renews_all_leases_of_its_node() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.live_node("node-1");
    world.task(running(1, "node-0", 1_000));
    world.task(running(2, "node-0", 1_001));
    world.task(running(3, "node-1", 1_002));
    world.step(vec![]);
    let seen = world.now;
    world.now += ttl() - 1;
    world.beat(Beat { node_id: "node-0".into(), ..Beat::default() });
    assert_eq!(expired(&world.at(seen + ttl())), vec![("task-3".to_owned(), 1_002)]);
}

#[test]
fn a_new_agent_that_names_no_lease_renews_none() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(running(1, "node-0", 1_000));
    world.step(vec![]);
    let seen = world.now;
    world.now += ttl() - 1;
    world.beat(beat("node-0"));
    assert_eq!(expired(&world.at(seen + ttl())), vec![("task-1".to_owned(), 1_000)]);
}
