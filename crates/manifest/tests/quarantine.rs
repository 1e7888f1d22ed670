//! Whose fault a refused contribution is: the node's, if another node's passes for the same shard; else the job's.

mod common;

use common::*;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

const JOB: &str = "digits";

/// `rejecting` sends a bad contribution for shard 0 of each round, then `passing` a good one for each shard.
fn train(world: &mut World, rounds: std::ops::Range<u64>, epochs: &[u64], rejecting: u32, passing: u32) {
    for round in rounds {
        let bad = format!("nan {round}");
        world.ok(reject(JOB, round, 0, rejecting, epochs[rejecting as usize], &bad));
        for shard in 0..2 {
            let reply =
                world.gradient(JOB, round, shard, passing, epochs[passing as usize], &format!("g{round}.{shard}"));
            assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
        }
        let model = world.next_model(JOB, round);
        world.ok(Kind::commit_model(model));
    }
}

fn newest(rounds: u64) -> (World, Vec<u64>) {
    let mut world = World::newest();
    let epochs = world.training(JOB, |train| (train.shards, train.workers, train.rounds) = (2, 3, rounds));
    (world, epochs)
}

fn quarantined(world: &World) -> Vec<String> {
    world.job(JOB).quarantined_nodes.into_vec()
}

#[test]
fn a_node_whose_contributions_are_refused_where_anothers_pass_is_quarantined_for_the_job() {
    let (mut world, epochs) = newest(10);
    train(&mut world, 0..2, &epochs, 1, 0);
    assert!(quarantined(&world).is_empty(), "twice may be bad luck");
    train(&mut world, 2..5, &epochs, 1, 0);
    assert_eq!(quarantined(&world), ["node-b"], "once, however often it fails after that");
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_RUNNING);
}

#[test]
fn one_that_is_refused_after_anothers_passed_counts_too_and_the_same_one_again_does_not() {
    let (mut world, epochs) = newest(10);
    for round in 0..3 {
        for shard in 0..2 {
            let reply = world.gradient(JOB, round, shard, 0, epochs[0], &format!("g{round}.{shard}"));
            assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
            assert!(quarantined(&world).is_empty());
        }
        world.ok(lease_shards(JOB, round, vec![lease(1, &trainer(JOB, 2), epochs[2], true)]));
        for _ in 0..4 {
            world.run(reject(JOB, round, 1, 2, epochs[2], "nan"));
        }
        let model = world.next_model(JOB, round);
        world.ok(Kind::commit_model(model));
    }
    assert_eq!(quarantined(&world), ["node-c"]);
}

#[test]
fn a_job_that_diverges_everywhere_stops_itself_and_quarantines_nobody() {
    let (mut world, epochs) = newest(10);
    world.ok(reject(JOB, 0, 0, 0, epochs[0], "nan"));
    world.ok(reject(JOB, 0, 0, 1, epochs[1], "nan"));
    let job = world.job(JOB);
    assert_eq!(job.phase, JobPhase::JOB_REJECTED);
    assert!(job.reason.contains("node-a") && job.reason.contains("node-b"), "{}", job.reason);
    assert!(job.quarantined_nodes.is_empty());
}

#[test]
fn a_node_that_is_refused_again_and_again_with_nobody_to_compare_is_not_quarantined() {
    let (mut world, epochs) = newest(10);
    for attempt in 0..6 {
        world.run(reject(JOB, 0, 0, 1, epochs[1], &format!("nan {attempt}")));
    }
    assert!(quarantined(&world).is_empty());
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_RUNNING, "one node's word does not stop a job");
}

#[test]
fn before_machine_version_6_nobody_is_counted() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |train| (train.shards, train.workers, train.rounds) = (2, 3, 10));
    train(&mut world, 0..5, &epochs, 1, 0);
    assert!(quarantined(&world).is_empty());
}
