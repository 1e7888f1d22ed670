//! Rounds and the ledger: first valid one wins, the rest is compared, and a model follows from a sealed round only.

mod common;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

const JOB: &str = "digits";
/// An upload's, far off.
const EXPIRES_MS: u64 = 9_000_000_000_000;

fn t(i: u32) -> String {
    trainer(JOB, i)
}

#[test]
fn model_0_is_made_by_the_init_task_under_its_open_lease() {
    let mut world = World::with_nodes();
    world.ok(submit_job(train_spec(JOB)));
    let (init, other) = (world.assign(&t(0), "node-a"), world.assign(&t(1), "node-b"));
    let model = world.begin(JOB, "model", "m0");
    let by = |change: &dyn Fn(&mut CommitModel)| {
        let Kind::commit_model(mut commit) = model_0(JOB, init, model, "m0") else { unreachable!() };
        change(&mut commit);
        Kind::commit_model(commit)
    };
    let cases: Vec<(Kind, Outcome)> = vec![
        (by(&|c| (c.task_id, c.epoch) = (t(1), other)), Outcome::PRECONDITION),
        (by(&|c| c.epoch = init + 1), Outcome::STALE_LEASE),
        (by(&|c| c.job_id = "none".into()), Outcome::NOT_FOUND),
        (by(&|c| c.model_digest.clear()), Outcome::INVALID),
        (by(&|c| c.model_digest = sha("x")), Outcome::PRECONDITION),
        (by(&|c| c.model_artifact = 7), Outcome::NOT_FOUND),
        (by(&|c| c.state_artifact = model), Outcome::INVALID),
        (by(&|c| c.mut_optimizer().algorithm = "magic".into()), Outcome::INVALID),
        (by(&|c| c.mut_optimizer().learning_rate = f64::NAN), Outcome::INVALID),
        (by(&|c| c.model_receipts.clear()), Outcome::PRECONDITION),
        (by(&|c| c.version = 1), Outcome::PRECONDITION),
    ];
    for (kind, outcome) in cases {
        world.must(kind, outcome);
        assert!(!world.job(JOB).has_model);
    }
    world.ok(by(&|_| ()));
    let job = world.job(JOB);
    assert_eq!((job.phase, job.has_model, job.model_version), (JobPhase::JOB_RUNNING, true, 0));
    let round = world.round(JOB, 0);
    assert_eq!(
        (round.phase, round.model_artifact, round.input_model_digest),
        (RoundPhase::ROUND_OPEN, model, sha("m0"))
    );
    world.must(by(&|_| ()), Outcome::EXISTING);
    world.must(by(&|c| (c.task_id, c.epoch) = (t(1), other)), Outcome::EXISTING);
    world.must(by(&|c| (c.task_id, c.model_digest) = (t(1), sha("x"))), Outcome::MISMATCH);
}

/// Two slots, three trainers: the init task lost its lease, and the others have the slots.
#[test]
fn another_trainer_makes_model_0_while_the_init_task_has_no_lease() {
    let mut world = World::with_nodes();
    world.ok(submit_job(train_spec(JOB)));
    let (init, other) = (world.assign(&t(0), "node-a"), world.assign(&t(1), "node-b"));
    let model = world.begin(JOB, "model", "m0");
    let made_by = |i: u32, epoch: u64| {
        let Kind::commit_model(mut commit) = model_0(JOB, epoch, model, "m0") else { unreachable!() };
        commit.task_id = t(i);
        Kind::commit_model(commit)
    };
    let maker = |world: &World| {
        let job_row = views::job_row(&world.rows, JOB).unwrap().unwrap();
        views::first_model_maker(&world.rows, &job_row).unwrap()
    };
    world.ok(expire(&t(0), init));
    let refused = world.must(made_by(1, other), Outcome::PRECONDITION);
    assert!(refused.message.contains(&t(0)), "machine version 1 to 6: {}", refused.message);
    assert_eq!(maker(&world), Some(t(0)));
    let version = raftgrid_manifest::MACHINE_VERSION;
    world.ok(Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() }));

    assert_eq!(maker(&world), Some(t(1)));
    let init = world.assign(&t(0), "node-a");
    assert_eq!(maker(&world), Some(t(0)), "it goes before the others");
    world.ok(expire(&t(0), init));
    world.must(made_by(0, init), Outcome::STALE_LEASE);
    world.must(made_by(1, other + 1), Outcome::STALE_LEASE);
    // It began while it was the one to send it; that the init task has a lease again does not matter.
    let init = world.assign(&t(0), "node-a");
    assert!(!world.job(JOB).has_model);
    world.ok(made_by(1, other));
    assert!(world.job(JOB).has_model);
    world.must(made_by(0, init), Outcome::EXISTING);
    world.ok(expire(&t(0), init));
    world.ok(expire(&t(1), other));
    assert_eq!(maker(&world), None);
}

#[test]
fn a_gradient_is_accepted_under_every_guard_and_no_other() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    world.ok(submit("alone", |_| ()));
    let alone = world.assign("alone", "node-c");
    let artifact = world.begin(JOB, "gradient", "g");
    let foreign = world.begin("", "gradient", "h");
    let with = |change: &dyn Fn(&mut CommitGradient)| {
        let Kind::commit_gradient(mut commit) = gradient(JOB, 0, 0, &t(0), epochs[0], artifact, "g") else {
            unreachable!()
        };
        change(&mut commit);
        Kind::commit_gradient(commit)
    };
    let cases: Vec<(Kind, Outcome)> = vec![
        (with(&|c| c.job_id = "none".into()), Outcome::NOT_FOUND),
        (with(&|c| c.shard = 2), Outcome::INVALID),
        (with(&|c| c.digest = vec![1]), Outcome::INVALID),
        (with(&|c| c.weight_bits = 0.0_f64.to_bits()), Outcome::INVALID),
        (with(&|c| c.weight_bits = f64::NAN.to_bits()), Outcome::INVALID),
        (with(&|c| c.metrics_json = " ".repeat(5_000)), Outcome::INVALID),
        (with(&|c| c.round = 1), Outcome::PRECONDITION),
        (with(&|c| c.task_id = "none".into()), Outcome::NOT_FOUND),
        (with(&|c| (c.task_id, c.epoch) = ("alone".into(), alone)), Outcome::PRECONDITION),
        (with(&|c| c.epoch = 0), Outcome::STALE_LEASE),
        (with(&|c| c.epoch += 1), Outcome::STALE_LEASE),
        (with(&|c| c.artifact_id = 7), Outcome::NOT_FOUND),
        (with(&|c| c.artifact_id = foreign), Outcome::PRECONDITION),
        (with(&|c| c.total_bytes = 9), Outcome::PRECONDITION),
        (with(&|c| c.receipts.truncate(1)), Outcome::PRECONDITION),
        (with(&|c| c.receipts[1].digest = sha("x")), Outcome::MISMATCH),
    ];
    for (kind, outcome) in cases {
        world.must(kind, outcome);
        assert_eq!((world.job(JOB).accepted, world.round(JOB, 0).accepted), (0, 0));
    }
    world.ok(with(&|_| ()));
    assert_eq!((world.job(JOB).accepted, world.round(JOB, 0).accepted), (1, 1));
    let reused = with(&|c| c.shard = 1);
    assert!(world.must(reused, Outcome::PRECONDITION).message.contains("COMMITTED"), "bytes count for one shard only");
}

#[test]
fn the_same_attempt_again_is_a_duplicate_whatever_became_of_its_lease() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    let first = world.gradient(JOB, 0, 0, 0, epochs[0], "g");
    assert_eq!(first.outcome, Outcome::OK);
    let again = world.gradient(JOB, 0, 0, 0, epochs[0], "g");
    assert_eq!((again.outcome, again.position), (Outcome::DUPLICATE, first.position));
    world.ok(expire(&t(0), epochs[0]));
    assert_eq!(world.gradient(JOB, 0, 0, 0, epochs[0], "g").outcome, Outcome::DUPLICATE);
    assert_eq!(world.gradient(JOB, 0, 1, 0, epochs[0], "h").outcome, Outcome::STALE_LEASE);
    let job = world.job(JOB);
    assert_eq!((job.accepted, job.duplicates, job.compared), (1, 2, 0));
}

#[test]
fn another_attempt_with_equal_bytes_is_compared_once() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    let leases = vec![lease(0, &t(0), epochs[0], false), lease(0, &t(1), epochs[1], true)];
    world.ok(lease_shards(JOB, 0, leases));
    assert_eq!(world.gradient(JOB, 0, 0, 0, epochs[0], "g").outcome, Outcome::OK);
    for _ in 0..2 {
        assert_eq!(world.gradient(JOB, 0, 0, 1, epochs[1], "g").outcome, Outcome::DUPLICATE);
    }
    let job = world.job(JOB);
    assert_eq!((job.accepted, job.duplicates, job.compared), (1, 2, 1), "its retry is not a second comparison");
    assert!(world.round(JOB, 0).leases.iter().all(|lease| lease.answered));
    assert_eq!(world.audit(JOB).reproducible, "yes");
}

#[test]
fn another_attempt_without_a_lease_of_the_shard_is_compared_once_too() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    world.gradient(JOB, 0, 0, 0, epochs[0], "g");
    for _ in 0..3 {
        assert_eq!(world.gradient(JOB, 0, 0, 1, epochs[1], "g").outcome, Outcome::DUPLICATE);
    }
    assert_eq!(world.job(JOB).compared, 1);
}

#[test]
fn other_bytes_are_a_mismatch_that_is_recorded_and_never_counted() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    world.gradient(JOB, 0, 1, 0, epochs[0], "g");
    for _ in 0..2 {
        assert_eq!(world.gradient(JOB, 0, 1, 1, epochs[1], "other").outcome, Outcome::MISMATCH);
    }
    let job = world.job(JOB);
    assert_eq!((job.accepted, job.mismatches, job.compared), (1, 1, 0));
    let ledger = views::contributions(&world.rows, JOB, 0).expect("memory");
    assert_eq!((ledger[0].digest.clone(), ledger[0].refused.len()), (sha("g"), 1), "the first stands");
    let audit = world.audit(JOB);
    assert_eq!(audit.reproducible, "no");
    for part in ["round 0 shard 1", "attempt 1 of digits/trainer-0 on node node-a", "digits/trainer-1 on node node-b"] {
        assert!(audit.reproducible_reason.contains(part), "\"{}\" names {part}", audit.reproducible_reason);
    }
    let outcomes: Vec<&str> = audit.contributions.iter().map(|c| c.outcome.as_str()).collect();
    assert_eq!(outcomes, ["ACCEPTED", "MISMATCH"]);
}

#[test]
fn one_attempt_that_gives_two_results_is_a_mismatch() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    world.gradient(JOB, 0, 0, 0, epochs[0], "g");
    assert_eq!(world.gradient(JOB, 0, 0, 0, epochs[0], "h").outcome, Outcome::MISMATCH);
    assert_eq!(world.job(JOB).mismatches, 1);
}

#[test]
fn the_list_of_mismatches_is_bounded_and_the_count_is_not() {
    let mut world = World::with_nodes();
    let mut epoch = world.training(JOB, |_| ())[0];
    world.gradient(JOB, 0, 0, 0, epoch, "g");
    for n in 0..12 {
        world.ok(expire(&t(0), epoch));
        epoch = world.assign(&t(0), "node-a");
        assert_eq!(world.gradient(JOB, 0, 0, 0, epoch, &format!("x{n}")).outcome, Outcome::MISMATCH);
    }
    assert_eq!(world.job(JOB).mismatches, 12);
    assert_eq!(views::contributions(&world.rows, JOB, 0).expect("memory")[0].refused.len(), 8);
}

#[test]
fn a_closed_round_still_compares_and_the_rest_is_stale() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |train| train.quorum = 1);
    world.gradient(JOB, 0, 0, 0, epochs[0], "g");
    assert_eq!(world.round(JOB, 0).phase, RoundPhase::ROUND_SEALED, "sealed inside the apply that filled it");
    assert_eq!(world.gradient(JOB, 0, 1, 1, epochs[1], "late").outcome, Outcome::STALE);
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    assert_eq!(world.gradient(JOB, 0, 0, 1, epochs[1], "g").outcome, Outcome::DUPLICATE);
    assert_eq!(world.gradient(JOB, 0, 1, 1, epochs[1], "late").outcome, Outcome::STALE);
    let job = world.job(JOB);
    assert_eq!((job.accepted, job.stale, job.compared), (1, 2, 1));
    assert_eq!(world.audit(JOB).reproducible, "no", "who was first depends on time");
}

#[test]
fn a_verify_lease_answers_after_the_round_closed() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    world.whole_round(JOB, 0, epochs[0]);
    world.must(lease_shards(JOB, 0, vec![lease(0, &t(1), epochs[1], false)]), Outcome::PRECONDITION);
    world.must(lease_shards(JOB, 0, vec![lease(0, &t(0), epochs[0], true)]), Outcome::PRECONDITION);
    world.ok(lease_shards(JOB, 0, vec![lease(0, &t(1), epochs[1], true)]));
    assert_eq!(world.gradient(JOB, 0, 0, 1, epochs[1], "other").outcome, Outcome::MISMATCH);
    assert!(world.round(JOB, 0).leases.iter().any(|l| l.answered && l.get_lease().verify));
    assert_eq!(world.audit(JOB).reproducible, "no");
}

#[test]
fn shards_are_leased_to_live_trainers_and_fall_back_when_a_lease_ends() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    let one = |shard, i: u32, epoch| lease_shards(JOB, 0, vec![lease(shard, &t(i), epoch, false)]);
    let cases = [
        (lease_shards("none", 0, vec![lease(0, &t(0), epochs[0], false)]), Outcome::NOT_FOUND),
        (lease_shards(JOB, 0, Vec::new()), Outcome::INVALID),
        (lease_shards(JOB, 1, vec![lease(0, &t(0), epochs[0], false)]), Outcome::PRECONDITION),
        (one(2, 0, epochs[0]), Outcome::INVALID),
        (one(0, 0, epochs[0] + 1), Outcome::STALE_LEASE),
        (lease_shards(JOB, 0, vec![lease(0, &t(1), epochs[1], true)]), Outcome::PRECONDITION),
    ];
    for (kind, outcome) in cases {
        world.must(kind, outcome);
    }
    world.ok(one(0, 0, epochs[0]));
    world.ok(one(0, 0, epochs[0]));
    assert_eq!(world.round(JOB, 0).leases.len(), 1, "the same lease again is the same lease");
    let both = vec![lease(1, &t(1), epochs[1], false), lease(0, &t(1), epochs[1], false)];
    world.must(lease_shards(JOB, 0, both), Outcome::PRECONDITION);
    assert_eq!(world.round(JOB, 0).leases.len(), 1, "all or nothing");
    world.ok(expire(&t(0), epochs[0]));
    world.ok(one(0, 1, epochs[1]));
    let round = world.round(JOB, 0);
    assert_eq!((round.leases.len(), round.leases[0].get_lease().epoch), (1, epochs[1]), "the dead lease is gone");
    world.gradient(JOB, 0, 0, 1, epochs[1], "g");
    world.must(one(0, 1, epochs[1] + 1), Outcome::STALE_LEASE);
    let again = world.assign(&t(0), "node-a");
    world.must(one(0, 0, again), Outcome::PRECONDITION);
}

#[test]
fn a_rejected_pair_may_come_back_to_the_same_attempt_as_a_live_lease() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    let again = || lease_shards(JOB, 0, vec![lease(0, &t(0), epochs[0], false)]);
    world.ok(again());
    world.ok(reject(JOB, 0, 0, 0, epochs[0], "n"));
    assert!(world.round(JOB, 0).leases[0].answered);
    world.ok(again());
    let leases = world.round(JOB, 0).leases;
    assert_eq!((leases.len(), leases[0].answered), (1, false));
}

#[test]
fn a_trainer_says_that_it_is_ready_under_its_lease() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    let ready = |task_id: &str, epoch, model_given, model_version| {
        let task_id = task_id.to_owned();
        Kind::trainer_ready(TrainerReady { task_id, epoch, model_given, model_version, ..TrainerReady::default() })
    };
    world.must(ready(&t(0), epochs[0] + 1, false, 0), Outcome::STALE_LEASE);
    world.ok(submit("alone", |_| ()));
    let alone = world.assign("alone", "node-c");
    world.must(ready("alone", alone, false, 0), Outcome::PRECONDITION);
    world.ok(ready(&t(0), epochs[0], false, 0));
    world.must(ready(&t(0), epochs[0], false, 0), Outcome::EXISTING);
    world.ok(ready(&t(0), epochs[0], true, 0));
    let first = world.row(&t(0)).model_given_position;
    world.ok(ready(&t(0), epochs[0], true, 0));
    let second = world.row(&t(0)).model_given_position;
    assert!(0 < first && first < second, "the same model given again is remembered, too: {first}, {second}");
    world.ok(ready(&t(0), epochs[0], true, 1));
    let row = world.row(&t(0));
    assert_eq!((row.ready, row.model_given, row.model_given_version), (true, true, 1));
    world.must(ready(&t(0), epochs[0], false, 0), Outcome::EXISTING);
    assert_eq!(world.row(&t(0)).model_given_position, row.model_given_position, "no model was given");
    world.ok(expire(&t(0), epochs[0]));
    let row = world.row(&t(0));
    assert!(!row.ready && !row.model_given && row.model_given_position == 0, "it belonged to the lease");
}

#[test]
fn a_model_follows_from_a_sealed_round_with_the_hash_of_its_ledger() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    world.gradient(JOB, 0, 0, 0, epochs[0], "a");
    let early = world.next_model(JOB, 0);
    world.must(Kind::commit_model(early), Outcome::PRECONDITION);
    world.must(Kind::seal_round(SealRound { job_id: JOB.into(), ..SealRound::default() }), Outcome::PRECONDITION);
    world.gradient(JOB, 0, 1, 1, epochs[1], "b");
    world.must(Kind::seal_round(SealRound { job_id: JOB.into(), ..SealRound::default() }), Outcome::EXISTING);
    let right = world.next_model(JOB, 0);
    type Change = fn(&mut CommitModel);
    let cases: [(Change, Outcome); 8] = [
        (|c| c.inputs_hash[0] ^= 1, Outcome::MISMATCH),
        (|c| c.version = 2, Outcome::PRECONDITION),
        (|c| c.state_artifact = 0, Outcome::NOT_FOUND),
        (|c| c.state_artifact = c.model_artifact, Outcome::INVALID),
        (|c| c.state_digest = sha("x"), Outcome::PRECONDITION),
        (|c| c.model_digest = sha("x"), Outcome::PRECONDITION),
        (|c| c.state_receipts.clear(), Outcome::PRECONDITION),
        (|c| c.model_receipts.truncate(1), Outcome::PRECONDITION),
    ];
    for (change, outcome) in cases {
        let mut wrong = right.clone();
        change(&mut wrong);
        world.must(Kind::commit_model(wrong), outcome);
        assert_eq!(world.job(JOB).model_version, 0);
    }
    world.ok(Kind::commit_model(right.clone()));
    let job = world.job(JOB);
    assert_eq!((job.model_version, job.rounds_committed, job.model_digest.clone()), (1, 1, right.model_digest.clone()));
    assert_eq!(job.metrics_json, right.metrics_json);
    let (done, open) = (world.round(JOB, 0), world.round(JOB, 1));
    assert_eq!((done.phase, open.phase), (RoundPhase::ROUND_COMMITTED, RoundPhase::ROUND_OPEN));
    assert_eq!(
        (open.input_model_digest, open.input_state_digest),
        (right.model_digest.clone(), right.state_digest.clone())
    );
    assert_eq!(job.ledger_hash, done.chain_hash);
    assert!(done.committed_position > 0);
    world.must(Kind::commit_model(right.clone()), Outcome::EXISTING);
    let mut other = right;
    other.model_digest = sha("other");
    world.must(Kind::commit_model(other), Outcome::MISMATCH);
}

#[test]
fn a_shard_that_is_rejected_on_two_nodes_stops_the_job_and_names_them() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    world.must(reject(JOB, 0, 0, 0, epochs[0] + 1, "n"), Outcome::STALE_LEASE);
    world.ok(reject(JOB, 0, 0, 0, epochs[0], "n"));
    world.must(reject(JOB, 0, 0, 0, epochs[0], "n"), Outcome::EXISTING);
    world.ok(reject(JOB, 0, 0, 0, epochs[0], "n2"));
    assert_eq!((world.job(JOB).phase, world.job(JOB).rejected), (JobPhase::JOB_RUNNING, 2), "one node only");
    world.ok(reject(JOB, 0, 1, 1, epochs[1], "n"));
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_RUNNING, "another shard");
    world.ok(reject(JOB, 0, 0, 1, epochs[1], "n"));
    let job = world.job(JOB);
    assert_eq!(job.phase, JobPhase::JOB_REJECTED);
    for part in ["round 0 shard 0", "node-a (not finite)", "node-b (not finite)"] {
        assert!(job.reason.contains(part), "{}", job.reason);
    }
}

#[test]
fn a_rejection_beside_an_accepted_result_does_not_stop_the_job() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |train| train.workers = 3);
    world.ok(reject(JOB, 0, 0, 0, epochs[0], "n"));
    assert_eq!(world.gradient(JOB, 0, 0, 1, epochs[1], "g").outcome, Outcome::OK, "the second node passes");
    world.ok(reject(JOB, 0, 0, 2, epochs[2], "n"));
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_RUNNING);
}

#[test]
fn numeric_classes_that_differ_are_noted_and_a_pinned_job_refuses_them() {
    for pinned in [false, true] {
        let mut world = World::with_nodes();
        let epochs = world.training(JOB, |train| train.pin_numeric_class = pinned);
        world.gradient(JOB, 0, 0, 0, epochs[0], "g");
        let artifact = world.begin(JOB, "gradient", "h");
        let Kind::commit_gradient(mut other) = gradient(JOB, 0, 1, &t(1), epochs[1], artifact, "h") else {
            unreachable!()
        };
        other.numeric_class = b"aarch64".to_vec();
        let outcome = if pinned { Outcome::PRECONDITION } else { Outcome::OK };
        world.must(Kind::commit_gradient(other), outcome);
        let audit = world.audit(JOB);
        if pinned {
            assert_eq!(audit.reproducible, "unverified");
        } else {
            assert_eq!(audit.reproducible, "no");
            assert!(audit.reproducible_reason.contains("aarch64"), "{}", audit.reproducible_reason);
        }
    }
}

#[test]
fn an_audit_of_a_whole_job_finds_everything_and_damage_shows() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |_| ());
    for round in 0..3 {
        world.whole_round(JOB, round, epochs[0]);
    }
    let audit = world.audit(JOB);
    assert_eq!((audit.expected, audit.accepted, audit.lost, audit.duplicated), (6, 6, 0, 0));
    assert!(audit.ledger_hash_verified);
    assert_eq!((audit.reproducible.as_str(), audit.contributions.len()), ("unverified", 6));

    world.unchecked = true;
    let (key, value) = world
        .rows
        .iter()
        .find(|(table, _, _)| *table == raftgrid_manifest::Table::Contribution)
        .map(|(_, key, value)| (key.to_vec(), value.to_vec()))
        .expect("the ledger has rows");
    let change =
        |value| raftgrid_manifest::Change { table: raftgrid_manifest::Table::Contribution, key: key.clone(), value };
    let mut lost = world.clone();
    lost.rows.write(&[change(None)]);
    assert_eq!((lost.audit(JOB).lost, lost.audit(JOB).ledger_hash_verified), (1, false));
    let mut forged = <ContributionRow as protobuf::Message>::parse_from_bytes(&value).expect("a row of ours");
    forged.weight_bits = 2.0_f64.to_bits();
    world.rows.write(&[change(Some(encoded(&forged)))]);
    assert!(!world.audit(JOB).ledger_hash_verified, "a changed weight breaks the chain");
}

#[test]
fn a_long_job_keeps_a_hundred_rounds_and_its_audit_stays_whole() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |train| (train.rounds, train.shards) = (110, 1));
    world.unchecked = true;
    world.gradient(JOB, 0, 0, 0, epochs[0], "g");
    world.gradient(JOB, 0, 0, 1, epochs[1], "differs");
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    for round in 1..110 {
        world.whole_round(JOB, round, epochs[0]);
        if round % 20 == 0 || (98..104).contains(&round) {
            world.check();
        }
    }
    world.check();
    assert!(views::get_round(&world.rows, JOB, 8).expect("memory").is_none(), "pruned");
    assert!(views::get_round(&world.rows, JOB, 10).expect("memory").is_some(), "kept");
    let audit = world.audit(JOB);
    assert_eq!((audit.expected, audit.accepted, audit.lost, audit.duplicated), (110, 110, 0, 0));
    assert_eq!((audit.ledger_hash_verified, audit.verified_from_round), (true, 10));
    assert_eq!(audit.reproducible, "no");
    assert!(audit.reproducible_reason.contains("round 0 shard 0"), "the first mismatch is named for ever");
    assert_eq!(world.gradient(JOB, 2, 0, 1, epochs[1], "late").outcome, Outcome::STALE);
}

#[test]
fn gradient_bytes_go_when_the_job_no_longer_retains_them() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |train| (train.rounds, train.retain_rounds) = (5, 2));
    let first = world.round(JOB, 0).model_artifact;
    let mut gradients = Vec::new();
    for round in 0..5 {
        world.whole_round(JOB, round, epochs[0]);
        let row = &views::contributions(&world.rows, JOB, round).expect("memory")[0];
        gradients.push(row.artifact_id);
    }
    let state = |id| views::artifact_row(&world.rows, id).expect("memory").expect("the row stands").state;
    let states: Vec<ArtifactState> = gradients.iter().map(|id| state(*id)).collect();
    use ArtifactState::{ARTIFACT_COMMITTED as Kept, ARTIFACT_DELETING as Going};
    assert_eq!(states, [Going, Going, Going, Kept, Kept]);
    assert_eq!(state(first), Kept, "models stay as long as their rounds");
    assert_eq!(world.audit(JOB).lost, 0, "what was let go on purpose is not lost");
}

#[test]
fn a_shard_carries_its_state_on_and_lets_it_go_with_its_round() {
    let mut world = World::newest();
    let epochs = world.training("carry", |train| {
        (train.shards, train.workers, train.rounds, train.retain_rounds) = (1, 1, 8, 2);
    });
    let kept = |world: &mut World, kind: &str, text: &str| {
        let Kind::begin_artifact(mut begun) = begin("", kind, "", text) else { unreachable!() };
        begun.expires_ms = EXPIRES_MS;
        let state = world.ok(Kind::begin_artifact(begun)).number;
        world.ok(commit_artifact(state, text));
        state
    };
    let wrong = kept(&mut world, "bundle", "code");
    let orphan = kept(&mut world, "shard-state", "its trainer died");
    let mut states = Vec::new();
    for round in 0..6 {
        let state = kept(&mut world, "shard-state", &format!("state {round}"));
        let text = format!("g{round}");
        let artifact = world.begin("carry", "gradient", &text);
        let by = |state: &str| {
            let kind = gradient("carry", round, 0, &trainer("carry", 0), epochs[0], artifact, &text);
            let Kind::commit_gradient(mut commit) = kind else { unreachable!() };
            commit.state_artifact = state.to_owned();
            Kind::commit_gradient(commit)
        };
        world.must(by("77"), Outcome::INVALID);
        assert!(world.must(by(&wrong.to_string()), Outcome::INVALID).message.contains("is a bundle"));
        world.ok(by(&state.to_string()));
        let row = views::artifact_row(&world.rows, state).expect("memory").expect("the row stands");
        assert_eq!((&*row.job_id, row.expires_ms), ("carry", 0), "the job's own from here on");
        assert!(world.must(delete_artifact(state, false), Outcome::PRECONDITION).message.contains("job carry"));
        let model = world.next_model("carry", round);
        world.ok(Kind::commit_model(model));
        states.push(state);
    }
    let state_of = |world: &World, id: u64| {
        let row = views::find_artifact(&world.rows, &id.to_string()).expect("memory does not fail");
        row.map(|row| row.state)
    };
    assert_eq!(state_of(&world, states[0]), None, "it is being deleted");
    assert_eq!(state_of(&world, states[5]), Some(ArtifactState::ARTIFACT_COMMITTED));
    assert_eq!(state_of(&world, wrong), Some(ArtifactState::ARTIFACT_COMMITTED));
    world.ok(delete_artifact(orphan, false));
}

#[test]
fn states_of_before_version_6_do_not_expire_whether_or_not_a_contribution_named_them() {
    let mut world = World::with_nodes();
    let expires =
        |world: &World, id| views::artifact_row(&world.rows, id).expect("memory").expect("the row stands").expires_ms;
    let ids = ["shard-state", "file", "shard-state"].map(|kind| {
        let Kind::begin_artifact(mut begun) = begin("", kind, "", kind) else { unreachable!() };
        begun.expires_ms = EXPIRES_MS;
        world.ok(Kind::begin_artifact(begun)).number
    });
    world.ok(commit_artifact(ids[0], "shard-state"));
    world.ok(commit_artifact(ids[1], "file"));
    let version = raftgrid_manifest::MACHINE_VERSION;
    world.ok(Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() }));
    assert_eq!(ids.map(|id| expires(&world, id)), [0, EXPIRES_MS, EXPIRES_MS], "one that is only begun does as ever");
}

#[test]
fn what_a_contribution_of_an_older_version_named_as_its_state_is_not_deleted_for_it() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |train| {
        (train.shards, train.workers, train.rounds, train.retain_rounds) = (1, 1, 8, 2);
    });
    let code = world.begin("", "bundle", "code");
    world.ok(commit_artifact(code, "code"));
    let artifact = world.begin(JOB, "gradient", "g0");
    let Kind::commit_gradient(mut commit) = gradient(JOB, 0, 0, &t(0), epochs[0], artifact, "g0") else {
        unreachable!()
    };
    commit.state_artifact = code.to_string();
    world.ok(Kind::commit_gradient(commit));
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    let version = raftgrid_manifest::MACHINE_VERSION;
    world.ok(Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() }));
    for round in 1..6 {
        world.whole_round(JOB, round, epochs[0]);
    }
    let state = |id| views::artifact_row(&world.rows, id).expect("memory").expect("the row stands").state;
    assert_eq!(state(artifact), ArtifactState::ARTIFACT_DELETING, "its round was let go");
    assert_eq!(state(code), ArtifactState::ARTIFACT_COMMITTED);
}

#[test]
fn the_state_that_a_shard_named_comes_back_with_its_next_step_only() {
    let mut world = World::with_nodes();
    let epochs = world.training(JOB, |train| (train.shards, train.rounds) = (2, 2));
    let job = views::job_row(&world.rows, JOB).expect("memory").expect("submitted");
    let state_of = |world: &World, round, shard| views::shard_state(&world.rows, &job, round, shard).expect("memory");
    let with_state = |world: &mut World, worker: u32, text: &str, state: &str| {
        let artifact = world.begin(JOB, "gradient", text);
        let epoch = epochs[worker as usize];
        let Kind::commit_gradient(mut commit) = gradient(JOB, 0, 0, &t(worker), epoch, artifact, text) else {
            unreachable!()
        };
        commit.state_artifact = state.to_owned();
        world.run(Kind::commit_gradient(commit)).outcome
    };
    world.ok(reject(JOB, 0, 0, 0, epochs[0], "nan"));
    assert_eq!(state_of(&world, 1, 0), "", "a refused result is nobody's");
    assert_eq!(with_state(&mut world, 0, "g", "77"), Outcome::OK);
    assert_eq!(with_state(&mut world, 1, "other", "78"), Outcome::MISMATCH);
    assert_eq!(world.gradient(JOB, 0, 1, 0, epochs[0], "h").outcome, Outcome::OK);
    assert_eq!(state_of(&world, 1, 0), "77", "that of the contribution that counts");
    assert_eq!(state_of(&world, 1, 1), "", "this shard named none");
    assert_eq!((state_of(&world, 0, 0), state_of(&world, 2, 0)), (String::new(), String::new()));
}
