//! What a deadline proposes, when, and by which extension.

use raftgrid_control::Action;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, JobPhase, JobRow, RoundPhase, RoundRow};

use crate::world::*;

const DEADLINE_MS: u64 = 1_000;

fn job() -> JobRow {
    let mut row = train_job(0.0);
    row.round_rules = true;
    let train = row.mut_job().mut_spec().mut_train();
    (train.min_contributions, train.round_deadline_ms, train.extensions_max) = (4, DEADLINE_MS, 2);
    row
}

fn open(accepted: u32, extensions: u32, from_ms: u64) -> RoundRow {
    RoundRow {
        accepted,
        extensions,
        opened_at_ms: from_ms,
        model_artifact: 9,
        ..round_row(5, RoundPhase::ROUND_OPEN, vec![])
    }
}

/// A world at whose present the round was opened; nobody is there to lease to.
fn world(accepted: u32, extensions: u32) -> (World, u64) {
    let mut world = World::settled();
    let opened = CLUSTER_MS + world.now - START;
    world.job(&job());
    world.round(1, &open(accepted, extensions, opened));
    (world, opened)
}

/// (round, extension, seals) of what is proposed.
fn proposed(actions: &[Action]) -> Vec<(u64, u32, bool)> {
    let of = |kind| match kind {
        Kind::seal_round(seal) => Some((seal.round, seal.extension, true)),
        Kind::extend_round(extend) => Some((extend.round, extend.extension, false)),
        _ => None,
    };
    decisions(actions).into_iter().filter_map(of).collect()
}

#[test]
fn a_round_with_its_minimum_is_sealed_at_its_deadline_and_not_before() {
    let (mut world, _) = world(4, 0);
    let actions = world.step(vec![]);
    assert_eq!((proposed(&actions), wake(&actions)), (vec![], Some(world.now + DEADLINE_MS)));
    world.now += DEADLINE_MS - 1;
    assert_eq!(proposed(&world.step(vec![])), []);
    world.now += 1;
    assert_eq!(proposed(&world.step(vec![])), [(5, 0, true)]);
    assert_eq!(proposed(&world.step(vec![])), [], "it is under way");
}

#[test]
fn a_round_below_its_minimum_is_extended_and_counts_from_there() {
    let (mut world, opened) = world(3, 1);
    world.now += DEADLINE_MS;
    let actions = world.step(vec![]);
    assert_eq!(proposed(&actions), [(5, 1, false)]);
    let mut row = open(3, 2, opened);
    row.deadline_from_ms = opened + DEADLINE_MS;
    world.round(1, &row);
    assert_eq!(proposed(&world.step(vec![accepted(tags(&actions)[0], 1)])), []);
    world.now += DEADLINE_MS;
    assert_eq!(proposed(&world.step(vec![])), [(5, 2, false)], "whether another one is left is the machine's to say");
}

#[test]
fn the_next_leader_keeps_the_deadline() {
    let (mut world, _) = world(4, 0);
    world.now += DEADLINE_MS;
    let mut next = World::new();
    next.rows = world.rows.clone();
    next.load();
    // It reckons from the cluster time that the rows have: nothing is sealed early.
    assert_eq!(proposed(&next.step(vec![])), []);
    next.now = world.now;
    assert_eq!(proposed(&next.step(vec![])), [(5, 0, true)]);
}

#[test]
fn nothing_is_due_for_a_job_that_is_held_sealed_or_without_a_deadline() {
    let mut held = job();
    held.mut_job().phase = JobPhase::JOB_PAUSED;
    let mut older = job();
    older.round_rules = false;
    let mut sealed = open(4, 0, CLUSTER_MS);
    sealed.phase = RoundPhase::ROUND_SEALED;
    let mut ahead = open(4, 0, 0);
    ahead.model_artifact = 0;
    for (row, round) in [(held, open(4, 0, 1)), (older, open(4, 0, 1)), (job(), sealed), (job(), ahead)] {
        let mut world = World::settled();
        world.job(&row);
        world.round(1, &round);
        world.now += 10 * DEADLINE_MS;
        assert_eq!(proposed(&world.step(vec![])), [], "{round:?}");
    }
}
