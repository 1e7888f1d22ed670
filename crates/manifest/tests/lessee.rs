//! Nobody sends for another's shard.

mod common;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

const JOB: &str = "digits";

fn leased(mode: &str) -> (World, Vec<u64>) {
    let mut world = World::newest();
    let epochs = world.training(JOB, |train| {
        (train.shards, train.workers, train.rounds) = (2, 3, 10);
        (train.mode, train.staleness) = (mode.into(), u64::from(mode == "bounded"));
    });
    world.ok(lease_shards(JOB, 0, vec![lease(0, &trainer(JOB, 0), epochs[0], false)]));
    (world, epochs)
}

fn ledger(world: &World) -> (Vec<ContributionRow>, Vec<RoundLease>, u64) {
    let rows = views::contributions(&world.rows, JOB, 0).expect("memory");
    (rows, world.round(JOB, 0).leases.into_vec(), world.job(JOB).rejected)
}

#[test]
fn what_is_sent_for_a_shard_that_is_leased_to_another_is_stale_and_changes_nothing_but_the_count() {
    for mode in ["sync", "bounded"] {
        let (mut world, epochs) = leased(mode);
        let before = ledger(&world);
        for attempt in 0..3 {
            let reply = world.gradient(JOB, 0, 0, 1, epochs[1], &format!("forged {attempt}"));
            assert_eq!(reply.outcome, Outcome::STALE, "{mode}: {}", reply.message);
            assert!(reply.message.contains(&format!("leased to {}", trainer(JOB, 0))), "{}", reply.message);
            let reply = world.run(reject(JOB, 0, 0, 1, epochs[1], &format!("nan {attempt}")));
            assert_eq!(reply.outcome, Outcome::STALE, "{mode}: {}", reply.message);
        }
        assert_eq!(ledger(&world), before, "{mode}");
        assert_eq!(world.job(JOB).stale, 6, "{mode}");
        assert_eq!(world.gradient(JOB, 0, 0, 0, epochs[0], "good").outcome, Outcome::OK, "{mode}");
        // Given now: neither other bytes nor the same ones are anybody's who never had it.
        let before = ledger(&world);
        for text in ["good", "other"] {
            let reply = world.gradient(JOB, 0, 0, 1, epochs[1], text);
            assert_eq!(reply.outcome, Outcome::STALE, "{mode}: {}", reply.message);
            assert!(reply.message.contains(&format!("given by {}", trainer(JOB, 0))), "{}", reply.message);
        }
        assert_eq!(ledger(&world), before, "{mode}");
        assert_eq!((world.job(JOB).mismatches, world.job(JOB).compared), (0, 0), "{mode}");
    }
}

#[test]
fn two_strangers_refused_for_a_shard_that_is_anothers_do_not_end_the_job() {
    let (mut world, epochs) = leased("sync");
    for worker in [1, 2] {
        world.run(reject(JOB, 0, 0, worker, epochs[worker as usize], "nan"));
    }
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_RUNNING);
}

#[test]
fn a_second_computation_that_was_leased_is_compared() {
    let (mut world, epochs) = leased("sync");
    world.ok(lease_shards(JOB, 0, vec![lease(0, &trainer(JOB, 1), epochs[1], true)]));
    assert_eq!(world.gradient(JOB, 0, 0, 0, epochs[0], "good").outcome, Outcome::OK);
    assert_eq!(world.gradient(JOB, 0, 0, 1, epochs[1], "good").outcome, Outcome::DUPLICATE);
    assert_eq!(world.job(JOB).compared, 1);
}

#[test]
fn a_lease_that_an_extension_took_may_still_be_answered() {
    let mut world = World::newest();
    let epochs = world.training(JOB, |train| {
        (train.shards, train.workers, train.rounds) = (2, 3, 10);
        (train.round_deadline_ms, train.min_contributions, train.extensions_max) = (1_000, 2, 1);
    });
    world.ok(lease_shards(JOB, 0, vec![lease(0, &trainer(JOB, 0), epochs[0], false)]));
    world.now_ms += 1_000;
    world.ok(Kind::extend_round(ExtendRound { job_id: JOB.into(), round: 0, ..ExtendRound::default() }));
    world.ok(lease_shards(JOB, 0, vec![lease(0, &trainer(JOB, 1), epochs[1], false)]));
    assert_eq!(world.gradient(JOB, 0, 0, 0, epochs[0], "slow").outcome, Outcome::OK, "the first valid one counts");
    assert_eq!(world.gradient(JOB, 0, 0, 1, epochs[1], "slow").outcome, Outcome::DUPLICATE);
}
