//! Which trainer gets which (round, shard).

use std::collections::BTreeMap;

use raftgrid_control::{Action, Input};
use raftgrid_manifest::Table;
use raftgrid_proto::v1::{
    Command_oneof_kind as Kind, JobPhase, NodeStatus, Phase, RefusedResult, RoundPhase, ShardLease, TaskStatus,
};

use crate::world::*;

/// A world with job 1 running, round `round` open and nothing leased, `trainers` ready trainers on as many nodes.
fn open_round(trainers: u64, round: u64, verify: f64) -> World {
    let mut world = World::settled();
    world.trainers(trainers, trainers);
    world.step(vec![]);
    world.job(&train_job(verify));
    world.round(1, &round_row(round, RoundPhase::ROUND_OPEN, vec![]));
    world
}

fn per_trainer(leases: &[(u64, ShardLease)]) -> BTreeMap<String, Vec<u32>> {
    let mut map: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (_, lease) in leases {
        map.entry(lease.task_id.clone()).or_default().push(lease.shard);
    }
    map
}

/// Writes the leases into the round's row, as the machine does, answers the proposal, and gives what the step makes of it.
fn grant(world: &mut World, round: u64, actions: &[Action], answered: impl Fn(u32) -> bool) -> Vec<Action> {
    let leases = shard_leases(actions);
    let rows = leases.iter().map(|(_, lease)| leased(lease, answered(lease.shard))).collect();
    world.round(1, &round_row(round, RoundPhase::ROUND_OPEN, rows));
    world.step(vec![accepted(tags(actions)[0], 1)])
}

#[test]
fn six_shards_are_balanced_over_any_number_of_trainers() {
    for (trainers, most, least) in [(1, 6, 6), (2, 3, 3), (3, 2, 2), (4, 2, 1), (5, 2, 1), (6, 1, 1)] {
        let mut world = open_round(trainers, 5, 0.0);
        let leases = shard_leases(&world.step(vec![]));
        assert_eq!(
            leases.iter().map(|(round, lease)| (*round, lease.shard)).collect::<Vec<_>>(),
            (0..6).map(|s| (5, s)).collect::<Vec<_>>()
        );
        let counts: Vec<usize> = per_trainer(&leases).values().map(Vec::len).collect();
        assert_eq!(counts.len() as u64, trainers);
        assert_eq!((counts.iter().max(), counts.iter().min()), (Some(&most), Some(&least)), "{trainers} trainers");
    }
}

#[test]
fn all_unleased_shards_go_into_one_command_and_are_leased_once() {
    let mut world = open_round(3, 5, 0.0);
    let actions = world.step(vec![]);
    assert_eq!(commands(&actions).iter().filter(|kind| matches!(kind, Kind::lease_shards(_))).count(), 1);
    assert_eq!(shard_leases(&world.step(vec![])), vec![], "under way");
    grant(&mut world, 5, &actions, |_| false);
    world.now += 500;
    for n in 0..3 {
        let (task, epoch) = (trainer_id(n), 1_001 + n);
        world.beat(beat_holding(&format!("node-{n}"), &[(&task, epoch)]));
    }
    assert_eq!(shard_leases(&world.step(vec![])), vec![], "leased");
}

#[test]
fn a_pair_falls_back_when_its_trainers_lease_ends_and_is_leased_to_those_that_live() {
    let mut world = open_round(3, 5, 0.0);
    let actions = world.step(vec![]);
    let before = per_trainer(&shard_leases(&actions));
    // Trainer 1 has given its first shard and dies over the second.
    let lost = before[&trainer_id(1)].clone();
    world.contribution(1, &given(5, lost[0], 1, "node-1"));
    grant(&mut world, 5, &actions, |shard| shard == lost[0]);
    world.step(vec![]);
    let mut row = trainer_row(1, "node-1");
    row.open_epoch = 0;
    row.ready = false;
    row.mut_task().status = TaskStatus::PENDING;
    row.mut_task().phase = Phase::PHASE_BACKOFF;
    row.not_before_ms = CLUSTER_MS + 1_000_000;
    world.task(row);
    let leases = shard_leases(&world.step(vec![]));
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!(leases[0].1.shard, lost[1]);
    assert_ne!(leases[0].1.task_id, trainer_id(1));
}

#[test]
fn a_new_attempt_does_not_inherit_the_leases_of_the_old_one() {
    let mut world = open_round(1, 5, 0.0);
    let actions = world.step(vec![]);
    grant(&mut world, 5, &actions, |_| false);
    let mut row = trainer_row(0, "node-0");
    row.open_epoch = 2_000;
    row.mut_task().lease_epoch = 2_000;
    world.task(row);
    let leases = shard_leases(&world.step(vec![]));
    assert_eq!(leases.len(), 6);
    assert!(leases.iter().all(|(_, lease)| lease.epoch == 2_000));
}

#[test]
fn trainers_that_are_not_ready_stopping_or_out_of_reach_get_nothing() {
    let mut world = open_round(4, 5, 0.0);
    let mut row = trainer_row(0, "node-0");
    row.ready = false;
    world.task(row);
    let mut row = trainer_row(1, "node-1");
    row.mut_task().phase = Phase::PHASE_STOPPING;
    row.stop_requested_ms = CLUSTER_MS + 1_000_000;
    world.task(row);
    world.put(Table::Node, b"node-2".to_vec(), &node_row("node-2", NodeStatus::UNKNOWN));
    let leases = shard_leases(&world.step(vec![]));
    assert_eq!(per_trainer(&leases).into_keys().collect::<Vec<_>>(), vec![trainer_id(3)]);
}

#[test]
fn a_quarantined_node_gets_shards_only_where_no_other_trainer_is_in_reach() {
    let mut world = open_round(3, 5, 0.0);
    let mut job = train_job(0.0);
    job.mut_job().quarantined_nodes = vec!["node-0".to_owned(), "node-2".to_owned()].into();
    world.job(&job);
    let leases = shard_leases(&world.step(vec![]));
    assert_eq!(per_trainer(&leases).into_keys().collect::<Vec<_>>(), vec![trainer_id(1)]);

    let mut world = open_round(1, 5, 0.0);
    world.job(&job);
    assert_eq!(shard_leases(&world.step(vec![])).len(), 6, "better a watched node than none");
}

#[test]
fn nothing_is_leased_while_the_job_is_not_running() {
    for phase in [JobPhase::JOB_INIT, JobPhase::JOB_PAUSED] {
        let mut world = open_round(3, 5, 0.0);
        let mut job = train_job(0.0);
        job.mut_job().phase = phase;
        world.job(&job);
        assert_eq!(shard_leases(&world.step(vec![])), vec![]);
    }
}

#[test]
fn verify_pairs_go_to_another_node() {
    for (trainers, nodes) in [(2, 2), (3, 3), (4, 2)] {
        let mut world = World::settled();
        world.trainers(trainers, nodes);
        world.step(vec![]);
        world.job(&train_job(1.0));
        world.round(1, &round_row(5, RoundPhase::ROUND_OPEN, vec![]));
        let leases = shard_leases(&world.step(vec![]));
        assert_eq!(leases.len(), 12, "every pair twice");
        let node = |task_id: &str| task_id.rsplit('-').next().and_then(|n| n.parse::<u64>().ok()).map(|n| n % nodes);
        for shard in 0..6 {
            let of = |verify| leases.iter().find(|(_, lease)| lease.shard == shard && lease.verify == verify);
            let (first, second) = (of(false).expect("leased"), of(true).expect("verified"));
            assert_ne!(
                node(&first.1.task_id),
                node(&second.1.task_id),
                "{trainers} trainers on {nodes} nodes, shard {shard}"
            );
        }
    }
}

#[test]
fn on_one_node_another_trainer_verifies_and_a_lone_trainer_never_verifies_itself() {
    let verified = |trainers| {
        let mut world = World::settled();
        world.trainers(trainers, 1);
        world.step(vec![]);
        world.job(&train_job(1.0));
        world.round(1, &round_row(5, RoundPhase::ROUND_OPEN, vec![]));
        let leases = shard_leases(&world.step(vec![]));
        for (_, second) in leases.iter().filter(|(_, lease)| lease.verify) {
            let first = leases.iter().find(|(_, lease)| lease.shard == second.shard && !lease.verify).expect("leased");
            assert_ne!(first.1.task_id, second.task_id);
        }
        leases.iter().filter(|(_, lease)| lease.verify).count()
    };
    assert_eq!(verified(2), 6);
    assert_eq!(verified(1), 0);
}

#[test]
fn the_first_pair_is_verified_however_small_the_share_until_one_comparison_was_made() {
    let verified = |round, compared| {
        let mut world = open_round(3, round, 1e-12);
        let mut job = train_job(1e-12);
        job.mut_job().compared = compared;
        world.job(&job);
        shard_leases(&world.step(vec![]))
            .into_iter()
            .filter(|(_, lease)| lease.verify)
            .map(|(_, lease)| lease.shard)
            .collect::<Vec<_>>()
    };
    assert_eq!(verified(0, 0), [0]);
    assert_eq!(verified(0, 1), [0]);
    assert_eq!(verified(5, 0), [0]);
    assert_eq!(verified(5, 1), Vec::<u32>::new());
}

#[test]
fn without_verify_nothing_is_computed_twice() {
    let mut world = open_round(3, 0, 0.0);
    assert!(shard_leases(&world.step(vec![])).iter().all(|(_, lease)| !lease.verify));
}

#[test]
fn a_pair_given_while_its_second_trainer_was_missing_is_verified_when_one_comes() {
    let mut world = World::settled();
    world.trainers(1, 1);
    world.step(vec![]);
    world.job(&train_job(1.0));
    world.round(1, &round_row(5, RoundPhase::ROUND_OPEN, vec![]));
    let actions = world.step(vec![]);
    world.contribution(1, &given(5, 0, 0, "node-0"));
    grant(&mut world, 5, &actions, |shard| shard == 0);
    world.step(vec![]);
    world.live_node("node-1");
    world.task(trainer_row(1, "node-1"));
    let leases = shard_leases(&world.step(vec![]));
    assert!(leases.iter().all(|(_, lease)| lease.verify && lease.task_id == trainer_id(1)), "{leases:?}");
    assert_eq!(leases.len(), 6);
}

#[test]
fn round_0_waits_a_little_for_trainers_that_have_a_node() {
    let mut world = open_round(3, 0, 0.0);
    let mut late = trainer_row(2, "node-2");
    late.ready = false;
    world.task(late);
    let actions = world.step(vec![]);
    assert_eq!(shard_leases(&actions), vec![]);
    world.now += 100;
    world.task(trainer_row(2, "node-2"));
    assert_eq!(per_trainer(&shard_leases(&world.step(vec![]))).len(), 3);
}

#[test]
fn round_0_does_not_wait_for_ever() {
    let mut world = open_round(2, 0, 0.0);
    let mut late = trainer_row(1, "node-1");
    late.ready = false;
    world.task(late);
    let begun = world.now;
    assert_eq!(shard_leases(&world.step(vec![])), vec![]);
    let mut leased_at = None;
    while leased_at.is_none() && world.now < begun + 10_000 {
        world.now += 250;
        let mut inputs = Vec::new();
        for n in 0..2 {
            let (task, epoch) = (trainer_id(n), 1_001 + n);
            inputs.extend(world.beat_input(beat_holding(&format!("node-{n}"), &[(&task, epoch)])).1);
        }
        if !shard_leases(&world.step(inputs)).is_empty() {
            leased_at = Some(world.now - begun);
        }
    }
    assert_eq!(leased_at, Some(3_000));
}

fn refused_on(shard: u32, node_id: &str) -> raftgrid_proto::v1::ContributionRow {
    let mut row = given(5, shard, 0, node_id);
    row.digest.clear();
    let refused = RefusedResult {
        node_id: node_id.into(),
        outcome: "REJECTED".into(),
        reason: "not finite".into(),
        ..RefusedResult::default()
    };
    row.refused.push(refused);
    row
}

#[test]
fn a_refused_pair_is_tried_on_another_node() {
    let mut world = open_round(2, 5, 0.0);
    let actions = world.step(vec![]);
    world.contribution(1, &refused_on(0, "node-0"));
    let leases = shard_leases(&grant(&mut world, 5, &actions, |shard| shard == 0));
    assert_eq!(
        leases.iter().map(|(_, lease)| (lease.shard, lease.task_id.clone())).collect::<Vec<_>>(),
        [(0, trainer_id(1))]
    );
}

#[test]
fn a_pair_refused_where_no_other_trainer_is_in_reach_stops_the_job_after_a_while() {
    let mut world = open_round(1, 5, 0.0);
    let actions = world.step(vec![]);
    world.contribution(1, &refused_on(0, "node-0"));
    grant(&mut world, 5, &actions, |shard| shard == 0);
    let begun = world.now;
    let mut rejected = None;
    while rejected.is_none() && world.now < begun + 60_000 {
        let (task, epoch) = (trainer_id(0), 1_001);
        let (ticket, mut inputs) = world.beat_input(beat_holding("node-0", &[(&task, epoch)]));
        inputs.push(Input::QuorumConfirmed { ticket });
        let actions = world.step(inputs);
        assert_eq!(shard_leases(&actions), vec![], "never to the same attempt again");
        rejected = decisions(&actions).into_iter().find_map(|kind| match kind {
            Kind::fail_job(fail) => Some((world.now - begun, fail.phase, fail.reason)),
            _ => None,
        });
        world.now += 250;
    }
    let (after, phase, reason) = rejected.expect("the job is given up");
    assert_eq!((after, phase), (20_000, JobPhase::JOB_REJECTED));
    assert!(reason.contains("shard 0") && reason.contains("node-0") && reason.contains("not finite"), "{reason}");
}

#[test]
fn a_pair_on_a_node_that_fell_silent_goes_to_a_second_trainer_before_its_lease_ends() {
    let mut world = open_round(3, 5, 0.0);
    let actions = world.step(vec![]);
    let lost = per_trainer(&shard_leases(&actions))[&trainer_id(1)].clone();
    grant(&mut world, 5, &actions, |_| false);
    let mut seconds = Vec::new();
    for _ in 0..3 {
        world.now += 500;
        for n in [0, 2] {
            let (task, epoch) = (trainer_id(n), 1_001 + n);
            let (_, inputs) = world.beat_input(beat_holding(&format!("node-{n}"), &[(&task, epoch)]));
            seconds.extend(shard_leases(&world.step(inputs)));
        }
    }
    let shards: Vec<u32> = seconds.iter().map(|(_, lease)| lease.shard).collect();
    assert_eq!(shards, lost, "each of the silent trainer's pairs once, and no other");
    assert!(seconds.iter().all(|(_, lease)| lease.verify && lease.task_id != trainer_id(1)));
}
