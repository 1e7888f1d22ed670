//! k of n with deadlines: what seals a round, what extends it, when its job is paused or fails, and how it goes on.

mod common;

use common::*;
use raftgrid_manifest::{command, fields_version, minimum_version, views, MemRows};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

const JOB: &str = "digits";
const DEADLINE_MS: u64 = 10_000;

fn t(i: u32) -> String {
    trainer(JOB, i)
}

/// Four shards, two trainers, at least three gradients within ten seconds, one extension.
fn rules(train: &mut TrainSpec) {
    (train.shards, train.rounds) = (4, 3);
    train.min_contributions = 3;
    train.round_deadline_ms = DEADLINE_MS;
    train.extensions_max = 1;
}

fn world(change: impl FnOnce(&mut TrainSpec)) -> (World, Vec<u64>) {
    let mut world = World::newest();
    let epochs = world.training(JOB, |train| {
        rules(train);
        change(train);
    });
    (world, epochs)
}

fn seal(round: u64, extension: u32) -> Kind {
    Kind::seal_round(SealRound { job_id: JOB.into(), round, extension, ..SealRound::default() })
}

fn extend(round: u64, extension: u32) -> Kind {
    Kind::extend_round(ExtendRound { job_id: JOB.into(), round, extension, ..ExtendRound::default() })
}

fn resume_job() -> Kind {
    Kind::resume_job(ResumeJob { job_id: JOB.into(), ..ResumeJob::default() })
}

/// The shards' gradients by trainer 0.
fn give(world: &mut World, round: u64, shards: std::ops::Range<u32>, epoch: u64) {
    for shard in shards {
        let reply = world.gradient(JOB, round, shard, 0, epoch, &format!("g{round}.{shard}"));
        assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
    }
}

#[test]
fn a_deadline_seals_with_the_minimum_and_never_before_its_time_or_below_it() {
    let (mut world, epochs) = world(|_| ());
    give(&mut world, 0, 0..2, epochs[0]);
    world.now_ms += DEADLINE_MS;
    assert!(world.must(seal(0, 0), Outcome::PRECONDITION).message.contains("2 of 3"));
    give(&mut world, 0, 2..3, epochs[0]);
    let due = world.round(JOB, 0).opened_at_ms + DEADLINE_MS;
    world.now_ms = due;
    assert!(world.must(seal(0, 1), Outcome::PRECONDITION).message.contains("extension 1"), "not of this extension");
    world.must(seal(1, 0), Outcome::PRECONDITION);
    assert!(world.must(extend(0, 0), Outcome::PRECONDITION).message.contains("minimum"));
    world.ok(seal(0, 0));
    let round = world.round(JOB, 0);
    assert_eq!((round.phase, round.accepted, round.sealed_by.as_str()), (RoundPhase::ROUND_SEALED, 3, "deadline"));
    world.must(seal(0, 0), Outcome::EXISTING);
    world.must(extend(0, 0), Outcome::STALE);

    let late = world.gradient(JOB, 0, 3, 1, epochs[1], "late");
    assert_eq!((late.outcome, world.job(JOB).stale), (Outcome::STALE, 1));
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    let audit = world.audit(JOB);
    assert_eq!((audit.expected, audit.accepted, audit.lost, audit.rounds_by_deadline), (3, 3, 0, 1));
    assert_eq!(audit.reproducible, "no");
    assert!(audit.reproducible_reason.contains("deadline with 3 of 4"), "{}", audit.reproducible_reason);
    world.must(seal(0, 0), Outcome::EXISTING);
}

#[test]
fn a_deadline_that_is_not_over_by_cluster_time_does_nothing() {
    let (mut world, epochs) = world(|_| ());
    give(&mut world, 0, 0..3, epochs[0]);
    world.now_ms = world.round(JOB, 0).opened_at_ms + DEADLINE_MS - 1;
    for early in [seal(0, 0), extend(0, 0)] {
        assert!(world.must(early, Outcome::PRECONDITION).message.contains("another 1 ms"));
    }
    assert_eq!(world.round(JOB, 0).phase, RoundPhase::ROUND_OPEN);
}

#[test]
fn the_quorum_seals_at_once_and_says_so() {
    let (mut world, epochs) = world(|train| train.quorum = 3);
    give(&mut world, 0, 0..3, epochs[0]);
    let round = world.round(JOB, 0);
    assert_eq!((round.phase, round.sealed_by.as_str()), (RoundPhase::ROUND_SEALED, "quorum"));
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    let audit = world.audit(JOB);
    assert_eq!((audit.expected, audit.lost, audit.rounds_by_deadline), (3, 0, 0));
    assert!(audit.reproducible_reason.contains("quorum 3 of 4"), "{}", audit.reproducible_reason);
}

#[test]
fn an_extension_takes_the_missing_shards_from_their_trainers_and_gives_the_round_its_time_again() {
    let (mut world, epochs) = world(|_| ());
    let leases =
        vec![lease(0, &t(0), epochs[0], false), lease(1, &t(1), epochs[1], false), lease(2, &t(1), epochs[1], false)];
    world.ok(lease_shards(JOB, 0, leases));
    give(&mut world, 0, 0..1, epochs[0]);
    let to_0 = || lease_shards(JOB, 0, vec![lease(1, &t(0), epochs[0], false)]);
    world.must(to_0(), Outcome::PRECONDITION);
    world.now_ms += DEADLINE_MS;
    world.ok(extend(0, 0));
    let round = world.round(JOB, 0);
    assert_eq!((round.extensions, round.deadline_from_ms), (1, world.now_ms));
    let taken: Vec<u32> = round.leases.iter().filter(|held| held.taken).map(|held| held.get_lease().shard).collect();
    assert_eq!(taken, [1, 2], "not the shard that is given");
    world.must(extend(0, 0), Outcome::PRECONDITION);
    assert_eq!(world.round(JOB, 0).extensions, 1, "the second proposal did no harm");
    world.ok(to_0());
    // Whoever is first gives it, the other one is compared.
    assert_eq!(world.gradient(JOB, 0, 1, 1, epochs[1], "g0.1").outcome, Outcome::OK);
    assert_eq!(world.gradient(JOB, 0, 1, 0, epochs[0], "g0.1").outcome, Outcome::DUPLICATE);
    assert_eq!(world.job(JOB).compared, 1);
    // With nobody else it goes back to whoever had it.
    world.ok(lease_shards(JOB, 0, vec![lease(2, &t(1), epochs[1], false)]));
    let held = world.round(JOB, 0).leases;
    let of_2: Vec<bool> = held.iter().filter(|held| held.get_lease().shard == 2).map(|held| held.taken).collect();
    assert_eq!(of_2, [false], "one lease, and it is live");
}

#[test]
fn below_the_minimum_after_all_extensions_the_job_is_paused_and_goes_on_when_it_is_resumed() {
    let (mut world, epochs) = world(|_| ());
    give(&mut world, 0, 0..2, epochs[0]);
    world.now_ms += DEADLINE_MS;
    world.ok(extend(0, 0));
    world.now_ms += DEADLINE_MS;
    world.ok(extend(0, 1));
    let job = world.job(JOB);
    assert_eq!(job.phase, JobPhase::JOB_PAUSED);
    assert!(job.reason.contains("2 of at least 3") && job.reason.contains("missing: shards 2, 3"), "{}", job.reason);
    assert_eq!(world.task(&t(0)).status, TaskStatus::ASSIGNED, "its trainers wait");
    for kind in [seal(0, 1), extend(0, 1), lease_shards(JOB, 0, vec![lease(2, &t(0), epochs[0], false)])] {
        world.must(kind, Outcome::PRECONDITION);
    }
    // What was under way is not lost, and nothing is summed.
    assert_eq!(world.gradient(JOB, 0, 2, 0, epochs[0], "g0.2").outcome, Outcome::OK);
    world.ok(resume_job());
    let (job, round) = (world.job(JOB), world.round(JOB, 0));
    assert_eq!((job.phase, job.reason.as_str()), (JobPhase::JOB_RUNNING, ""));
    assert_eq!((round.extensions, round.extensions_before, round.deadline_from_ms), (2, 2, world.now_ms));
    world.must(resume_job(), Outcome::EXISTING);
    world.must(extend(0, 1), Outcome::PRECONDITION);
    world.now_ms += DEADLINE_MS;
    world.ok(seal(0, 2));
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    assert_eq!((world.job(JOB).extensions, world.audit(JOB).lost), (2, 0));
}

#[test]
fn a_round_that_fills_while_its_job_is_paused_is_summed_when_it_goes_on() {
    let (mut world, epochs) = world(|train| train.extensions_max = 0);
    world.now_ms += DEADLINE_MS;
    world.ok(extend(0, 0));
    assert_eq!(world.job(JOB).phase, JobPhase::JOB_PAUSED);
    give(&mut world, 0, 0..4, epochs[0]);
    assert_eq!(world.round(JOB, 0).phase, RoundPhase::ROUND_SEALED);
    let model = world.next_model(JOB, 0);
    world.must(Kind::commit_model(model.clone()), Outcome::PRECONDITION);
    world.ok(resume_job());
    assert_eq!(world.round(JOB, 0).extensions, 0, "a sealed round needs no other deadline");
    world.ok(Kind::commit_model(model));
}

#[test]
fn a_job_that_says_so_fails_instead() {
    let (mut world, epochs) = world(|train| (train.on_shortfall, train.extensions_max) = ("fail".into(), 0));
    give(&mut world, 0, 0..1, epochs[0]);
    world.now_ms += DEADLINE_MS;
    world.ok(extend(0, 0));
    let job = world.job(JOB);
    assert_eq!(job.phase, JobPhase::JOB_FAILED);
    assert!(job.reason.contains("1 of at least 3 gradients after 0 extensions"), "{}", job.reason);
    world.must(resume_job(), Outcome::PRECONDITION);
    let unknown = ResumeJob { job_id: "none".into(), ..ResumeJob::default() };
    world.must(Kind::resume_job(unknown), Outcome::NOT_FOUND);
}

#[test]
fn a_deadline_that_needs_all_shards_only_extends_and_the_job_stays_reproducible() {
    let (mut world, epochs) = world(|train| train.min_contributions = 0);
    give(&mut world, 0, 0..3, epochs[0]);
    world.now_ms += DEADLINE_MS;
    world.must(seal(0, 0), Outcome::PRECONDITION);
    world.ok(extend(0, 0));
    world.ok(lease_shards(JOB, 0, vec![lease(0, &t(1), epochs[1], true)]));
    assert_eq!(world.gradient(JOB, 0, 0, 1, epochs[1], "g0.0").outcome, Outcome::DUPLICATE);
    give(&mut world, 0, 3..4, epochs[0]);
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    let audit = world.audit(JOB);
    assert_eq!((audit.reproducible.as_str(), audit.extensions, audit.accepted), ("yes", 1, 4));
}

#[test]
fn a_round_of_more_than_a_hundred_keeps_its_audit_clean_whatever_sealed_it() {
    let (mut world, epochs) = world(|train| train.rounds = 108);
    world.unchecked = true;
    for round in 0..107 {
        let shards = if round % 2 == 0 { 3 } else { 4 };
        give(&mut world, round, 0..shards, epochs[0]);
        world.now_ms += DEADLINE_MS;
        if shards == 3 {
            world.ok(seal(round, 0));
        }
        let model = world.next_model(JOB, round);
        world.ok(Kind::commit_model(model));
    }
    world.check();
    let audit = world.audit(JOB);
    assert_eq!((audit.expected, audit.accepted, audit.lost), (54 * 3 + 53 * 4, 54 * 3 + 53 * 4, 0));
    assert!(audit.ledger_hash_verified && audit.verified_from_round > 0);
    assert_eq!(audit.rounds_by_deadline, 54);
}

#[test]
fn a_contribution_that_is_gone_from_a_short_round_is_found_missing() {
    let (mut world, epochs) = world(|_| ());
    give(&mut world, 0, 0..3, epochs[0]);
    world.now_ms += DEADLINE_MS;
    world.ok(seal(0, 0));
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    let sequence = views::job_row(&world.rows, JOB).expect("memory").expect("submitted").sequence;
    let key = raftgrid_manifest::keys::contribution(sequence, 0, 1);
    let table = raftgrid_manifest::Table::Contribution;
    world.rows.write(&[raftgrid_manifest::Change { table, key, value: None }]);
    let audit = world.audit(JOB);
    assert_eq!((audit.expected, audit.lost, audit.ledger_hash_verified), (3, 1, false));
}

#[test]
fn each_bad_setting_is_refused_by_its_name() {
    type Case = (fn(&mut TrainSpec), &'static str);
    let cases: [Case; 12] = [
        (|t| t.min_contributions = 5, "spec.train.min_contributions"),
        (|t| (t.quorum, t.min_contributions) = (2, 3), "spec.train.min_contributions"),
        (|t| t.round_deadline_ms = 99, "spec.train.round_deadline_ms"),
        (|t| t.round_deadline_ms = u64::MAX, "spec.train.round_deadline_ms"),
        (|t| (t.min_contributions, t.extensions_max, t.round_deadline_ms) = (3, 0, 0), "spec.train.min_contributions"),
        (|t| (t.min_contributions, t.extensions_max, t.round_deadline_ms) = (0, 1, 0), "spec.train.extensions_max"),
        (|t| t.extensions_max = 1_001, "spec.train.extensions_max"),
        (|t| t.on_shortfall = "wait".into(), "spec.train.on_shortfall"),
        (|t| t.mode = "eventual".into(), "spec.train.mode"),
        (|t| t.mode = "bounded".into(), "spec.train.staleness"),
        (|t| (t.mode, t.staleness) = ("async".into(), 51), "spec.train.staleness"),
        (|t| t.staleness = 1, "spec.train.staleness"),
    ];
    let mut world = World::newest();
    for (change, field) in cases {
        let mut spec = train_spec(JOB);
        rules(spec.mut_train());
        change(spec.mut_train());
        let reply = world.must(submit_job(spec), Outcome::INVALID);
        assert!(reply.message.starts_with(&format!("{field}: ")), "{} names {field}", reply.message);
    }
}

#[test]
fn below_version_6_nothing_of_it_counts_and_it_is_not_proposed() {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 5, ..SetMachineVersion::default() }));
    let epochs = world.training(JOB, |train| {
        rules(train);
        train.mode = "eventual".into();
    });
    give(&mut world, 0, 0..3, epochs[0]);
    world.now_ms += DEADLINE_MS;
    world.must(seal(0, 0), Outcome::PRECONDITION);
    for kind in [extend(0, 0), resume_job()] {
        assert!(world.must(kind, Outcome::PRECONDITION).message.contains("machine version 6"));
    }
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 6, ..SetMachineVersion::default() }));
    world.must(seal(0, 0), Outcome::PRECONDITION);
    world.must(extend(0, 0), Outcome::PRECONDITION);
    give(&mut world, 0, 3..4, epochs[0]);
    assert_eq!(world.round(JOB, 0).phase, RoundPhase::ROUND_SEALED, "it goes by its quorum, as it began");

    let version = |kind: Kind| fields_version(command(kind).kind.as_ref().expect("a command"));
    let mut spec = train_spec(JOB);
    assert_eq!(version(submit_job(spec.clone())), 1);
    spec.mut_train().mode = "bounded".into();
    assert_eq!(version(submit_job(spec.clone())), 6);
    let mut put = PutSchedule::default();
    put.mut_schedule().set_job(spec);
    assert_eq!(version(Kind::put_schedule(put)), 6);
    assert_eq!(
        (minimum_version(&extend(0, 0)), minimum_version(&resume_job()), minimum_version(&seal(0, 0))),
        (6, 6, 1)
    );
}

#[test]
fn a_replay_of_deadlines_gives_the_same_rows() {
    let (mut world, epochs) = world(|_| ());
    give(&mut world, 0, 0..2, epochs[0]);
    for extension in 0..2 {
        world.now_ms += DEADLINE_MS;
        world.ok(extend(0, extension));
    }
    world.ok(resume_job());
    give(&mut world, 0, 2..4, epochs[0]);
    let model = world.next_model(JOB, 0);
    world.ok(Kind::commit_model(model));
    let mut again = MemRows::default();
    replay(&mut again, 1, &world.log);
    assert_eq!(again, world.rows);
}
