//! Bounded and async rounds: over which models contributions count, in which round, and that none counts twice.

mod common;

use common::*;
use raftgrid_manifest::{views, MemRows};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

const JOB: &str = "digits";

fn t(i: u32) -> String {
    trainer(JOB, i)
}

fn world(mode: &str, staleness: u64, change: impl FnOnce(&mut TrainSpec)) -> (World, Vec<u64>) {
    let mut world = World::newest();
    let epochs = world.training(JOB, |train| {
        (train.shards, train.rounds) = (3, 12);
        (train.mode, train.staleness) = (mode.into(), staleness);
        change(train);
    });
    (world, epochs)
}

/// A gradient by trainer `worker` over model `version`; of an async job its round is that.
fn give(world: &mut World, round: u64, shard: u32, worker: u32, epoch: u64, version: u64, text: &str) -> CommandReply {
    let artifact = world.begin(JOB, "gradient", text);
    let Kind::commit_gradient(mut commit) = gradient(JOB, round, shard, &t(worker), epoch, artifact, text) else {
        unreachable!()
    };
    commit.model_version = version;
    world.run(Kind::commit_gradient(commit))
}

fn given(world: &mut World, round: u64, shard: u32, epoch: u64, version: u64) {
    let reply = give(world, round, shard, 0, epoch, version, &format!("g{round}.{shard}.{version}"));
    assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
}

fn sum(world: &mut World, round: u64) {
    let model = world.next_model(JOB, round);
    world.ok(Kind::commit_model(model));
}

fn rows(world: &World, round: u64) -> Vec<ContributionRow> {
    views::contributions(&world.rows, JOB, round).expect("memory")
}

#[test]
fn a_shard_may_be_ahead_of_the_slowest_by_its_staleness_and_no_more() {
    let (mut world, epochs) = world("bounded", 2, |_| ());
    let e = epochs[0];
    let open: Vec<RoundPhase> = (0..3).map(|round| world.round(JOB, round).phase).collect();
    assert_eq!(open, [RoundPhase::ROUND_OPEN; 3]);
    assert!(views::get_round(&world.rows, JOB, 3).expect("memory").is_none(), "three ahead");
    for round in 0..3 {
        let ahead = |shard| lease_shards(JOB, round, vec![lease(shard, &t(0), e, false)]);
        if round > 0 {
            let reply = world.must(ahead(2), Outcome::PRECONDITION);
            assert!(reply.message.contains(&format!("follows round {}", round - 1)), "{}", reply.message);
            assert_eq!(give(&mut world, round, 2, 0, e, 0, "early").outcome, Outcome::PRECONDITION);
        }
        world.ok(ahead(0));
        given(&mut world, round, 0, e, 0);
        given(&mut world, round, 1, e, 0);
    }
    assert_eq!(give(&mut world, 3, 0, 0, e, 0, "too far").outcome, Outcome::PRECONDITION);
    // The slow shard gives: round 0 is sealed and summed, round 3 opens, round 1 has its model.
    given(&mut world, 0, 2, e, 0);
    assert_eq!(world.round(JOB, 0).phase, RoundPhase::ROUND_SEALED);
    sum(&mut world, 0);
    let round = world.round(JOB, 1);
    assert_eq!((round.phase, round.accepted, round.input_model_digest), (RoundPhase::ROUND_OPEN, 2, sha("digits m1")));
    assert_eq!(give(&mut world, 3, 0, 0, e, 0, "too old").outcome, Outcome::STALE);
    given(&mut world, 3, 0, e, 1);
    assert_eq!(world.round(JOB, 3).stalest, 2);
}

#[test]
fn a_full_round_waits_for_its_model_and_is_sealed_when_it_stands() {
    let (mut world, epochs) = world("bounded", 1, |train| train.quorum = 2);
    let e = epochs[0];
    given(&mut world, 0, 0, e, 0);
    given(&mut world, 1, 0, e, 0);
    given(&mut world, 0, 1, e, 0);
    assert_eq!(world.round(JOB, 0).phase, RoundPhase::ROUND_SEALED);
    given(&mut world, 1, 1, e, 0);
    let round = world.round(JOB, 1);
    assert_eq!((round.phase, round.accepted), (RoundPhase::ROUND_OPEN, 2), "round 0 is not summed");
    let seal = SealRound { job_id: JOB.into(), round: 1, ..SealRound::default() };
    world.must(Kind::seal_round(seal), Outcome::PRECONDITION);
    let early = world.next_model(JOB, 1);
    world.must(Kind::commit_model(early), Outcome::PRECONDITION);
    sum(&mut world, 0);
    assert_eq!(world.round(JOB, 1).phase, RoundPhase::ROUND_SEALED, "inside the apply of its model");
    sum(&mut world, 1);
    let audit = world.audit(JOB);
    assert_eq!((audit.expected, audit.accepted, audit.lost, audit.stale_gradients, audit.stalest), (4, 4, 0, 2, 1));
    assert_eq!((audit.reproducible.as_str(), audit.mode.as_str()), ("no", "bounded"));
    let models: Vec<u64> = audit.contributions.iter().map(|one| one.model_version).collect();
    assert_eq!(models, [0, 0, 0, 0]);
}

#[test]
fn models_that_cannot_be_are_refused() {
    let (mut world, epochs) = world("bounded", 1, |_| ());
    let e = epochs[0];
    given(&mut world, 0, 0, e, 0);
    assert_eq!(give(&mut world, 0, 1, 0, e, 1, "over a later one").outcome, Outcome::INVALID);
    assert_eq!(give(&mut world, 1, 0, 0, e, 1, "over none").outcome, Outcome::PRECONDITION);
    assert_eq!(world.job(JOB).accepted, 1);
}

#[test]
fn only_results_over_the_same_model_are_compared() {
    let (mut world, epochs) = world("bounded", 1, |_| ());
    given(&mut world, 0, 0, epochs[0], 0);
    given(&mut world, 0, 1, epochs[0], 0);
    given(&mut world, 1, 0, epochs[0], 0);
    given(&mut world, 0, 2, epochs[0], 0);
    sum(&mut world, 0);
    world.ok(lease_shards(JOB, 1, vec![lease(0, &t(1), epochs[1], true)]));
    assert_eq!(give(&mut world, 1, 0, 1, epochs[1], 0, "g1.0.0").outcome, Outcome::DUPLICATE);
    let other = give(&mut world, 1, 0, 1, epochs[1], 1, "over the newer model");
    assert_eq!(other.outcome, Outcome::STALE);
    assert!(other.message.contains("over model 0, not 1"), "{}", other.message);
    let job = world.job(JOB);
    assert_eq!((job.compared, job.mismatches, job.stale), (1, 0, 1));
    assert_eq!(give(&mut world, 1, 0, 1, epochs[1], 0, "other bytes").outcome, Outcome::MISMATCH);
}

#[test]
fn the_hash_of_a_round_knows_the_models_of_its_gradients() {
    let hash = |version: u64| {
        let (mut world, epochs) = world("bounded", 1, |_| ());
        for shard in 0..3 {
            given(&mut world, 0, shard, epochs[0], 0);
        }
        sum(&mut world, 0);
        for shard in 0..3 {
            let text = format!("same {shard}");
            assert_eq!(give(&mut world, 1, shard, 0, epochs[0], version, &text).outcome, Outcome::OK);
        }
        world.inputs_hash(JOB, 1)
    };
    assert_ne!(hash(0), hash(1));
}

#[test]
fn the_first_k_seal_an_async_round_and_the_others_enter_the_next_one() {
    let (mut world, epochs) = world("async", 0, |train| train.quorum = 2);
    let e = epochs[0];
    let leases = (0..3).map(|shard| lease(shard, &t(0), e, false)).collect();
    world.ok(lease_shards(JOB, 0, leases));
    given(&mut world, 0, 0, e, 0);
    given(&mut world, 0, 1, e, 0);
    let (sealed, next) = (world.round(JOB, 0), world.round(JOB, 1));
    assert_eq!((sealed.phase, next.phase), (RoundPhase::ROUND_SEALED, RoundPhase::ROUND_OPEN));
    let carried: Vec<u32> = next.leases.iter().map(|held| held.get_lease().shard).collect();
    assert_eq!(carried, [2], "whoever was not first works for the next round");
    world.must(lease_shards(JOB, 1, vec![lease(0, &t(1), epochs[1], false)]), Outcome::PRECONDITION);
    given(&mut world, 0, 2, e, 0);
    assert_eq!(rows(&world, 1)[0].model_version, 0, "over model 0, in round 1");
    assert!(world.round(JOB, 1).leases[0].answered);
    sum(&mut world, 0);
    given(&mut world, 1, 0, e, 1);
    assert_eq!(world.round(JOB, 1).phase, RoundPhase::ROUND_SEALED);
    sum(&mut world, 1);
    let audit = world.audit(JOB);
    assert_eq!((audit.expected, audit.accepted, audit.lost, audit.duplicated), (4, 4, 0, 0));
    assert_eq!((audit.stale_gradients, audit.stalest, audit.reproducible.as_str()), (1, 1, "no"));
}

#[test]
fn a_retry_after_a_lost_answer_is_a_duplicate_in_whatever_round_it_arrives() {
    let (mut world, epochs) = world("async", 0, |train| train.quorum = 1);
    let e = epochs[0];
    given(&mut world, 0, 0, e, 0);
    for round in 0..6 {
        let again = give(&mut world, 0, 0, 0, e, 0, "g0.0.0");
        assert_eq!(again.outcome, Outcome::DUPLICATE, "with round {round} sealed");
        sum(&mut world, round);
        assert_eq!(give(&mut world, 0, 0, 0, e, 0, "g0.0.0").outcome, Outcome::DUPLICATE, "with the next one open");
        assert_eq!(world.round(JOB, round + 1).accepted, 0);
        let version = round + 1;
        given(&mut world, version, 1, e, version);
    }
    // After its lease is gone it holds still.
    world.ok(expire(&t(0), e));
    assert_eq!(give(&mut world, 0, 0, 0, e, 0, "g0.0.0").outcome, Outcome::DUPLICATE);
    let job = world.job(JOB);
    assert_eq!((job.accepted, job.duplicates), (7, 13));
}

#[test]
fn a_verification_of_an_async_gradient_is_compared_and_never_counted() {
    let (mut world, epochs) = world("async", 0, |train| train.quorum = 1);
    given(&mut world, 0, 0, epochs[0], 0);
    sum(&mut world, 0);
    world.ok(lease_shards(JOB, 0, vec![lease(0, &t(1), epochs[1], true)]));
    assert_eq!(give(&mut world, 0, 0, 1, epochs[1], 0, "g0.0.0").outcome, Outcome::DUPLICATE);
    let job = world.job(JOB);
    assert_eq!((job.accepted, job.compared, world.round(JOB, 1).accepted), (1, 1, 0));
    assert_eq!(give(&mut world, 0, 0, 1, epochs[1], 0, "other").outcome, Outcome::MISMATCH);
}

#[test]
fn a_shard_gives_once_a_round_and_not_over_too_old_a_model() {
    let (mut world, epochs) = world("async", 1, |train| train.quorum = 2);
    let e = epochs[0];
    given(&mut world, 0, 0, e, 0);
    given(&mut world, 0, 1, e, 0);
    sum(&mut world, 0);
    given(&mut world, 1, 0, e, 1);
    let again = give(&mut world, 0, 2, 1, epochs[1], 0, "one behind");
    assert_eq!(again.outcome, Outcome::OK);
    sum(&mut world, 1);
    given(&mut world, 2, 0, e, 2);
    let behind = give(&mut world, 0, 1, 0, e, 0, "g0.1.0");
    assert_eq!(behind.outcome, Outcome::DUPLICATE, "what was counted is known, however old");
    given(&mut world, 1, 1, e, 1);
    sum(&mut world, 2);
    let second = give(&mut world, 2, 0, 1, epochs[1], 2, "again over model 2");
    assert_eq!(second.outcome, Outcome::MISMATCH, "a shard has one gradient over a model");
    assert_eq!(give(&mut world, 1, 2, 0, e, 1, "two behind").outcome, Outcome::STALE);
    assert_eq!(give(&mut world, 4, 2, 0, e, 4, "over none").outcome, Outcome::PRECONDITION);
    assert_eq!(give(&mut world, 3, 2, 0, e, 2, "of no round").outcome, Outcome::INVALID);
}

#[test]
fn a_second_gradient_of_a_shard_in_one_round_is_stale() {
    let (mut world, epochs) = world("async", 0, |train| train.quorum = 2);
    let e = epochs[0];
    given(&mut world, 0, 0, e, 0);
    given(&mut world, 0, 1, e, 0);
    given(&mut world, 0, 2, e, 0);
    sum(&mut world, 0);
    // Round 1 has shard 2 over model 0.
    let second = give(&mut world, 1, 2, 0, e, 1, "over model 1");
    assert_eq!(second.outcome, Outcome::STALE);
    assert!(second.message.contains("round 1 has this shard over model 0"), "{}", second.message);
    assert_eq!(world.round(JOB, 1).accepted, 1);
}

#[test]
fn a_gradient_that_no_round_is_open_for_is_stale() {
    let (mut world, epochs) = world("async", 0, |train| (train.quorum, train.rounds) = (1, 1));
    given(&mut world, 0, 0, epochs[0], 0);
    assert_eq!(give(&mut world, 0, 1, 0, epochs[0], 0, "late").outcome, Outcome::STALE);
    sum(&mut world, 0);
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_DONE);
    assert_eq!(give(&mut world, 0, 2, 0, epochs[0], 0, "later").outcome, Outcome::STALE);
    assert_eq!(give(&mut world, 0, 0, 0, epochs[0], 0, "g0.0.0").outcome, Outcome::DUPLICATE);
}

#[test]
fn the_last_rounds_are_summed_without_any_trainer() {
    let (mut world, epochs) = world("bounded", 2, |train| train.rounds = 3);
    for round in 0..3 {
        for shard in 0..3 {
            given(&mut world, round, shard, epochs[0], 0);
        }
    }
    for i in 0..2 {
        world.ok(report(&t(i), epochs[i as usize], TaskStatus::COMPLETED, |_| ()));
    }
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_RUNNING);
    for round in 0..3 {
        sum(&mut world, round);
    }
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_DONE);
    assert_eq!(world.audit(JOB).lost, 0);
}

#[test]
fn a_shard_that_missed_rounds_goes_on_with_its_last_state() {
    let (mut world, epochs) = world("async", 0, |train| train.quorum = 1);
    let state = |world: &World, before: u64| {
        let job = views::job_row(&world.rows, JOB).expect("memory").expect("submitted");
        views::shard_state(&world.rows, &job, before, 0).expect("memory")
    };
    let kept = world.begin(JOB, "shard-state", "state");
    world.ok(commit_artifact(kept, "state"));
    let artifact = world.begin(JOB, "gradient", "g");
    let Kind::commit_gradient(mut commit) = gradient(JOB, 0, 0, &t(0), epochs[0], artifact, "g") else {
        unreachable!()
    };
    commit.state_artifact = kept.to_string();
    world.ok(Kind::commit_gradient(commit));
    sum(&mut world, 0);
    for round in 1..4 {
        given(&mut world, round, 1, epochs[0], round);
        sum(&mut world, round);
    }
    assert_eq!((state(&world, 4), state(&world, 0)), (kept.to_string(), String::new()));
}

#[test]
fn a_replay_gives_the_same_rows() {
    for (mode, staleness) in [("bounded", 2), ("async", 3)] {
        let (mut world, epochs) = world(mode, staleness, |train| train.quorum = 2);
        for round in 0..4 {
            for shard in 0..2 {
                given(&mut world, round, shard, epochs[0], round);
            }
            give(&mut world, round, 2, 1, epochs[1], round, &format!("late {round}"));
            sum(&mut world, round);
        }
        let mut again = MemRows::default();
        replay(&mut again, 1, &world.log);
        assert_eq!(again, world.rows);
        assert_eq!(world.audit(JOB).lost, 0);
    }
}
