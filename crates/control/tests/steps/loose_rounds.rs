//! Rounds that do not wait for all, from end to end against the real machine: workers of different pace, shards that nobody answers for, leaders
//! and workers that go.

use raftgrid_manifest::{views, MACHINE_VERSION};
use raftgrid_proto::v1::{
    AuditJobResponse, Command_oneof_kind as Kind, JobPhase, Outcome, ResumeJob, RoundRow, SetMachineVersion, TrainSpec,
};

use crate::closed_loop::{Cluster, ROUNDS, SHARDS};

fn cluster(paces_ms: &[u64], verify: f64, change: impl FnOnce(&mut TrainSpec)) -> Cluster {
    let mut cluster = Cluster::new(paces_ms.len());
    let newest = SetMachineVersion { version: MACHINE_VERSION, ..SetMachineVersion::default() };
    assert_eq!(cluster.one(Kind::set_machine_version(newest)).outcome, Outcome::OK);
    for (worker, pace_ms) in cluster.workers.iter_mut().zip(paces_ms) {
        worker.pace_ms = *pace_ms;
    }
    cluster.submit_with(paces_ms.len() as u32, verify, change);
    cluster
}

/// Nothing lost, nothing counted twice, the chain whole.
fn audit(cluster: &Cluster) -> AuditJobResponse {
    let audit = views::audit(&cluster.rows, "digits", false).expect("memory").expect("submitted");
    assert_eq!((audit.lost, audit.duplicated, audit.mismatches), (0, 0, 0), "{audit:?}");
    assert!(audit.ledger_hash_verified);
    audit
}

fn bounded(train: &mut TrainSpec) {
    (train.mode, train.staleness) = ("bounded".into(), 2);
}

fn first_three(train: &mut TrainSpec) {
    (train.mode, train.quorum) = ("async".into(), 3);
}

#[test]
fn fast_trainers_run_ahead_of_a_slow_one_by_their_staleness() {
    let mut cluster = cluster(&[10, 10, 400], 0.3, bounded);
    let mut furthest = 0;
    let job = cluster.run(120_000, |cluster| {
        let done = cluster.job().get_job().rounds_committed;
        let given = cluster.scan::<RoundRow>(raftgrid_manifest::Table::Round);
        let ahead = given.iter().filter(|row| row.accepted > 0).map(|row| row.round).max().unwrap_or(0);
        furthest = furthest.max(ahead.saturating_sub(done));
    });
    assert_eq!((job.get_job().phase, furthest), (JobPhase::JOB_DONE, 2));
    let audit = audit(&cluster);
    assert_eq!(audit.accepted, ROUNDS * u64::from(SHARDS));
    assert!(audit.stale_gradients > 0 && audit.stalest <= 2, "{audit:?}");
    assert!(audit.compared > 0, "pairs are verified over the model of the first");
}

#[test]
fn an_async_job_does_not_wait_for_its_slow_trainer_and_uses_what_it_gives() {
    let mut cluster = cluster(&[10, 10, 150], 0.3, first_three);
    let job = cluster.run(120_000, |_| ());
    assert_eq!(job.get_job().phase, JobPhase::JOB_DONE, "{}", job.get_job().reason);
    let audit = audit(&cluster);
    assert!(audit.accepted >= 3 * ROUNDS && audit.stale_gradients > 0, "{audit:?}");
    assert!(audit.compared > 0);
}

#[test]
fn leaders_workers_and_proposals_may_go_in_every_mode() {
    type Change = fn(&mut TrainSpec);
    for (mode, change) in [("bounded", bounded as Change), ("async", first_three)] {
        for killed in 0..3 {
            let mut cluster = cluster(&[10, 30, 60], 0.1, change);
            cluster.lossy = true;
            let (mut elections, mut dead) = (0, false);
            let job = cluster.run(240_000, |cluster| {
                let done = cluster.job().get_job().rounds_committed;
                if (elections == 0 && done >= 3) || (elections == 1 && done >= 8) {
                    elections += 1;
                    cluster.elect();
                }
                if !dead && done >= 5 {
                    dead = true;
                    cluster.workers[killed].alive = false;
                    cluster.workers[killed].trainers.clear();
                }
            });
            assert_eq!(job.get_job().phase, JobPhase::JOB_DONE, "{mode}, worker {killed}: {}", job.get_job().reason);
            assert_eq!((elections, dead), (2, true));
            audit(&cluster);
        }
    }
}

#[test]
fn a_shard_that_nobody_answers_for_is_left_out_at_every_deadline() {
    let mut cluster = cluster(&[0, 0, 0], 0.0, |train| {
        (train.min_contributions, train.round_deadline_ms) = (SHARDS - 1, 300);
    });
    cluster.silent = Some(4);
    let job = cluster.run(120_000, |_| ());
    assert_eq!(job.get_job().phase, JobPhase::JOB_DONE, "{}", job.get_job().reason);
    let audit = audit(&cluster);
    assert_eq!((audit.rounds_by_deadline, audit.accepted), (ROUNDS, ROUNDS * u64::from(SHARDS - 1)));
}

#[test]
fn a_shard_is_taken_from_a_trainer_that_hangs() {
    let mut cluster = cluster(&[0, 1_000_000], 0.0, |train| {
        (train.round_deadline_ms, train.extensions_max) = (300, 3);
    });
    let job = cluster.run(240_000, |_| ());
    assert_eq!(job.get_job().phase, JobPhase::JOB_DONE, "{}", job.get_job().reason);
    let audit = audit(&cluster);
    assert_eq!((audit.accepted, audit.rounds_by_deadline), (ROUNDS * u64::from(SHARDS), 0));
    assert!(audit.extensions >= 1);
}

#[test]
fn a_job_that_was_paused_waits_and_goes_on() {
    let mut cluster = cluster(&[0, 0, 0], 0.0, |train| {
        (train.round_deadline_ms, train.extensions_max) = (300, 1);
    });
    cluster.silent = Some(2);
    let mut paused_for = 0;
    let job = cluster.run(120_000, |cluster| {
        if cluster.job().get_job().phase != JobPhase::JOB_PAUSED {
            return;
        }
        paused_for += 1;
        // Long enough for every lease to be renewed many times.
        if paused_for == 1_000 {
            cluster.silent = None;
            let resume = ResumeJob { job_id: "digits".into(), ..ResumeJob::default() };
            assert_eq!(cluster.one(Kind::resume_job(resume)).outcome, Outcome::OK);
        }
    });
    assert_eq!((job.get_job().phase, paused_for), (JobPhase::JOB_DONE, 1_000), "{}", job.get_job().reason);
    let audit = audit(&cluster);
    assert_eq!((audit.accepted, audit.extensions), (ROUNDS * u64::from(SHARDS), 2));
}
