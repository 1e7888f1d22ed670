//! Sealed rounds: summed once, committed with the next round's leases.

use raftgrid_control::{Action, Input};
use raftgrid_proto::v1::{CommandReply, Command_oneof_kind as Kind, CommitModel, JobPhase, Outcome, RoundPhase};

use crate::world::*;

fn sealed(trainers: u64, round: u64) -> World {
    let mut world = World::settled();
    world.trainers(trainers, trainers);
    world.step(vec![]);
    world.job(&train_job(0.0));
    world.round(1, &round_row(round, RoundPhase::ROUND_SEALED, vec![]));
    world
}

fn sums(actions: &[Action]) -> Vec<(String, u64)> {
    let sum = |action: &Action| match action {
        Action::Aggregate { job_id, round } => Some((job_id.clone(), *round)),
        Action::AnswerBeat { .. } | Action::Propose { .. } | Action::Explained { .. } | Action::WakeAt(_) => None,
    };
    actions.iter().filter_map(sum).collect()
}

fn aggregated(round: u64) -> Input {
    let commit =
        CommitModel { job_id: "digits".into(), version: round + 1, model_artifact: 9, ..CommitModel::default() };
    Input::Aggregated { job_id: "digits".into(), round, result: Ok(Box::new(commit)) }
}

fn failed(round: u64) -> Input {
    Input::Aggregated { job_id: "digits".into(), round, result: Err("a fragment is missing".into()) }
}

#[test]
fn a_sealed_round_is_summed_once_a_term_unless_the_result_never_comes() {
    let mut world = sealed(3, 5);
    assert_eq!(sums(&world.step(vec![])), [("digits".to_owned(), 5)]);
    world.now += 599_999;
    assert_eq!(sums(&world.step(vec![])), []);
    world.now += 1;
    assert_eq!(sums(&world.step(vec![])).len(), 1, "its result was lost on the way");
    let mut next_leader = World::new();
    next_leader.rows = world.rows.clone();
    next_leader.load();
    assert_eq!(sums(&next_leader.step(vec![])), [("digits".to_owned(), 5)], "the next leader redoes it");
}

#[test]
fn the_next_rounds_leases_ride_with_commit_model() {
    let mut world = sealed(3, 5);
    world.step(vec![]);
    let actions = world.step(vec![aggregated(5)]);
    let [Action::Propose { commands, .. }, ..] = &actions[..] else { panic!("one proposal, not {actions:?}") };
    let kinds: Vec<&Kind> = commands.iter().filter_map(|command| command.kind.as_ref()).collect();
    let [Kind::commit_model(commit), Kind::lease_shards(lease)] = kinds[..] else { panic!("unexpected {kinds:?}") };
    assert_eq!((commit.version, lease.round, lease.leases.len()), (6, 6, 6));
    // The row shows it: nothing is left to lease.
    world.round(1, &round_row(5, RoundPhase::ROUND_COMMITTED, vec![]));
    let rows = lease.get_leases().iter().map(|lease| leased(lease, false)).collect();
    world.round(1, &round_row(6, RoundPhase::ROUND_OPEN, rows));
    let actions = world.step(vec![accepted(tags(&actions)[0], 2)]);
    assert_eq!(decisions(&actions), vec![]);
}

#[test]
fn the_last_rounds_commit_leases_nothing() {
    let mut world = sealed(3, 59);
    world.step(vec![]);
    let kinds = decisions(&world.step(vec![aggregated(59)]));
    assert!(matches!(&kinds[..], [Kind::commit_model(_)]), "{kinds:?}");
}

#[test]
fn without_a_ready_trainer_the_model_is_committed_alone() {
    let mut world = sealed(0, 5);
    world.step(vec![]);
    let kinds = decisions(&world.step(vec![aggregated(5)]));
    assert!(matches!(&kinds[..], [Kind::commit_model(_)]), "{kinds:?}");
}

#[test]
fn a_lost_commit_is_proposed_again_without_summing_again() {
    let mut world = sealed(3, 5);
    world.step(vec![]);
    let actions = world.step(vec![aggregated(5)]);
    world.step(vec![Input::Proposed { tag: tags(&actions)[0], replies: None }]);
    world.now += 100;
    let actions = world.step(vec![]);
    assert_eq!(sums(&actions), []);
    assert!(matches!(decisions(&actions)[..], [Kind::commit_model(_), Kind::lease_shards(_)]));
}

#[test]
fn a_refused_commit_is_summed_again_after_a_pause() {
    let mut world = sealed(3, 5);
    world.step(vec![]);
    let actions = world.step(vec![aggregated(5)]);
    let refusal = CommandReply { outcome: Outcome::PRECONDITION, ..CommandReply::default() };
    let tag = tags(&actions)[0];
    assert_eq!(sums(&world.step(vec![Input::Proposed { tag, replies: Some(vec![refusal; 2]) }])), []);
    world.now += 499;
    assert_eq!(sums(&world.step(vec![])), []);
    world.now += 1;
    assert_eq!(sums(&world.step(vec![])), [("digits".to_owned(), 5)]);
}

#[test]
fn a_failed_sum_is_ordered_again_with_longer_pauses_and_at_last_fails_the_job() {
    let mut world = sealed(3, 5);
    assert_eq!(sums(&world.step(vec![])).len(), 1);
    for failure in 1..6 {
        world.step(vec![failed(5)]);
        world.now += 500 * failure - 1;
        assert_eq!(sums(&world.step(vec![])), [], "failure {failure}");
        world.now += 1;
        assert_eq!(sums(&world.step(vec![])).len(), 1, "failure {failure}");
    }
    let kinds = decisions(&world.step(vec![failed(5)]));
    let fail = kinds.iter().find_map(|kind| match kind {
        Kind::fail_job(fail) => Some(fail),
        _ => None,
    });
    let fail = fail.expect("the job fails");
    assert_eq!(fail.phase, JobPhase::JOB_FAILED);
    assert!(fail.reason.contains("round 5") && fail.reason.contains("a fragment is missing"), "{}", fail.reason);
}

#[test]
fn a_late_result_of_another_round_is_ignored() {
    let mut world = sealed(3, 5);
    world.step(vec![]);
    assert_eq!(decisions(&world.step(vec![aggregated(4)])), vec![]);
    world.round(1, &round_row(5, RoundPhase::ROUND_COMMITTED, vec![]));
    assert_eq!(decisions(&world.step(vec![aggregated(5)])), vec![], "somebody committed it meanwhile");
}

#[test]
fn nothing_is_summed_for_a_job_that_is_held_or_over() {
    for phase in [JobPhase::JOB_PAUSED, JobPhase::JOB_CANCELLED] {
        let mut world = sealed(3, 5);
        let mut job = train_job(0.0);
        job.mut_job().phase = phase;
        world.job(&job);
        assert_eq!(sums(&world.step(vec![])), []);
    }
}
