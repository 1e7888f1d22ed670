//! Commands of jobs: what is made, what is refused, how a job ends.

mod common;

use common::*;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn one_task(name: &str, kind: &str) -> JobSpec {
    JobSpec { name: name.into(), field_type: kind.into(), task_data: b"{}".to_vec(), ..JobSpec::default() }
}

fn cancel_job(job_id: &str) -> Kind {
    Kind::cancel_job(CancelJob { job_id: job_id.into(), ..CancelJob::default() })
}

fn fail_job(job_id: &str, phase: JobPhase) -> Kind {
    Kind::fail_job(FailJob { job_id: job_id.into(), phase, reason: "gave up".into(), ..FailJob::default() })
}

#[test]
fn a_train_job_makes_its_trainers_in_the_same_apply() {
    let mut world = World::with_nodes();
    assert_eq!(world.ok(submit_job(train_spec("digits"))).id, "digits");
    let job = world.job("digits");
    assert_eq!(job.phase, JobPhase::JOB_INIT);
    assert_eq!(job.task_ids.to_vec(), ["digits/trainer-0", "digits/trainer-1"]);
    for id in job.get_task_ids() {
        let task = world.task(id);
        assert_eq!((task.task_type.as_str(), task.job_id.as_str()), ("train", "digits"));
        let data = br#"{"job":"digits","script":"train.py","args":["--fast"]}"#;
        assert_eq!(task.task_data, data, "{}", String::from_utf8_lossy(&task.task_data));
    }
}

#[test]
fn other_jobs_have_one_task_and_end_with_it() {
    let failed = |r: &mut ReportResult| (r.exit_code, r.reason) = (1, "boom".into());
    for (status, phase) in [(TaskStatus::COMPLETED, JobPhase::JOB_DONE), (TaskStatus::FAILED, JobPhase::JOB_FAILED)] {
        let mut world = World::with_nodes();
        let mut spec = one_task("j", "matmul");
        spec.mut_task().retries_given = true;
        world.ok(submit_job(spec));
        let epoch = world.assign("j", "node-a");
        world.ok(report("j", epoch, status, |r| {
            r.result_data = "{\"y\":2}".into();
            failed(r);
        }));
        let job = world.job("j");
        assert_eq!(job.phase, phase);
        if status == TaskStatus::COMPLETED {
            assert_eq!(job.result_json, "{\"y\":2}");
        } else {
            assert_eq!(job.reason, "boom");
        }
    }
    let mut world = World::with_nodes();
    world.ok(submit_job(one_task("j", "python")));
    world.ok(cancel("j", false));
    assert_eq!(world.job("j").phase, JobPhase::JOB_CANCELLED);
}

#[test]
fn a_job_that_is_wrong_is_refused_and_names_the_field() {
    let mut world = World::new();
    type Change = fn(&mut JobSpec);
    let cases: [(Change, &str); 18] = [
        (|s| s.name.clear(), "spec.name"),
        (|s| s.name = "a/b".into(), "spec.name"),
        (|s| s.name = "x".repeat(65), "spec.name"),
        (|s| s.field_type = "dance".into(), "spec.type"),
        (|s| s.train.clear(), "spec.train"),
        (|s| s.field_type = "python".into(), "spec.train"),
        (|s| s.task_data = b"{".to_vec(), "spec.task_data"),
        (|s| s.task_data = b"{\"script\":\"\"}".to_vec(), "spec.task_data"),
        (|s| s.task_data = b"{\"script\":\"a.py\",\"args\":[1]}".to_vec(), "spec.task_data"),
        (|s| s.mut_train().shards = 0, "spec.train.shards"),
        (|s| s.mut_train().workers = 257, "spec.train.workers"),
        (|s| s.mut_train().rounds = 0, "spec.train.rounds"),
        (|s| s.mut_train().quorum = 3, "spec.train.quorum"),
        (|s| s.mut_train().verify = f64::NAN, "spec.train.verify"),
        (|s| s.mut_train().initial_model = "x".into(), "spec.train.initial_model"),
        (|s| s.mut_train().initial_model = "99".into(), "spec.train.initial_model"),
        (|s| s.mut_task().bundle_artifact = "99".into(), "spec.task.bundle_artifact"),
        (|s| s.mut_task().priority = -1, "spec.task.priority"),
    ];
    for (change, field) in cases {
        let mut spec = train_spec("digits");
        change(&mut spec);
        let reply = world.must(submit_job(spec), Outcome::INVALID);
        assert!(reply.message.starts_with(&format!("{field}:")), "\"{}\" names {field}", reply.message);
    }
}

#[test]
fn a_name_is_one_job() {
    let mut world = World::new();
    world.ok(submit_job(train_spec("digits")));
    world.must(submit_job(train_spec("digits")), Outcome::EXISTING);
    let mut other = train_spec("digits");
    other.mut_train().rounds = 9;
    world.must(submit_job(other), Outcome::ALREADY_EXISTS);
    world.ok(submit(&trainer("squat", 1), |_| ()));
    world.must(submit_job(train_spec("squat")), Outcome::ALREADY_EXISTS);
    world.ok(submit_job(train_spec("free")));
}

#[test]
fn the_bundle_is_committed_and_its_digest_becomes_part_of_the_job() {
    let mut world = World::new();
    let bundle = world.begin("", "bundle", "code");
    let spec = |digest: Vec<u8>| {
        let mut spec = train_spec("digits");
        spec.mut_task().bundle_artifact = bundle.to_string();
        spec.bundle_digest = digest;
        spec
    };
    world.must(submit_job(spec(Vec::new())), Outcome::INVALID);
    world.ok(commit_artifact(bundle, "code"));
    world.must(submit_job(spec(sha("other"))), Outcome::INVALID);
    world.ok(submit_job(spec(Vec::new())));
    assert_eq!(world.job("digits").get_spec().bundle_digest, sha("code"));
    world.must(submit_job(spec(Vec::new())), Outcome::EXISTING);
    world.must(submit_job(spec(sha("code"))), Outcome::EXISTING);
    let mut uploaded_again = spec(sha("code"));
    uploaded_again.mut_task().bundle_artifact = "77".to_owned();
    world.must(submit_job(uploaded_again), Outcome::EXISTING);
}

#[test]
fn a_job_over_a_given_model_runs_at_once() {
    let mut world = World::with_nodes();
    let model = world.begin("", "model", "given");
    world.ok(commit_artifact(model, "given"));
    let mut spec = train_spec("tune");
    spec.mut_train().initial_model = model.to_string();
    assert!(world.must(submit_job(spec.clone()), Outcome::INVALID).message.starts_with("spec.train.optimizer"));
    spec.mut_train().set_optimizer(sgd());
    world.ok(submit_job(spec));
    let job = world.job("tune");
    assert_eq!((job.phase, job.has_model, job.model_digest), (JobPhase::JOB_RUNNING, true, sha("given")));
    assert_eq!(world.round("tune", 0).phase, RoundPhase::ROUND_OPEN);
    let epoch = world.assign(&trainer("tune", 1), "node-a");
    for round in 0..3 {
        for shard in 0..2 {
            let reply = world.gradient("tune", round, shard, 1, epoch, &format!("tune g{round}.{shard}"));
            assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
        }
        let model = world.next_model("tune", round);
        world.ok(Kind::commit_model(model));
    }
    assert_eq!(world.job("tune").phase, JobPhase::JOB_DONE);
}

#[test]
fn a_trainer_that_fails_for_good_fails_the_job_and_stops_the_others() {
    let mut world = World::with_nodes();
    let mut spec = train_spec("digits");
    spec.mut_train().workers = 3;
    spec.mut_task().retries_given = true;
    world.ok(submit_job(spec));
    let epochs = [0, 1].map(|i| world.assign(&trainer("digits", i), NODES[i as usize]));
    world.ok(report("digits/trainer-1", epochs[1], TaskStatus::FAILED, |r| r.reason = "ValueError: x".into()));
    let job = world.job("digits");
    assert_eq!(job.phase, JobPhase::JOB_FAILED);
    assert_eq!(job.reason, "digits/trainer-1 failed: ValueError: x");
    assert_eq!(world.task("digits/trainer-0").phase, Phase::PHASE_STOPPING);
    assert_eq!(world.task("digits/trainer-2").phase, Phase::PHASE_CANCELLED);
    world.ok(expire("digits/trainer-0", epochs[0]));
    assert_eq!(world.task("digits/trainer-0").status, TaskStatus::FAILED, "not tried again");
}

#[test]
fn trainers_may_end_when_only_the_sum_of_the_last_round_is_missing() {
    let mut world = World::with_nodes();
    let epochs = world.training("digits", |train| train.rounds = 1);
    for shard in 0..2 {
        let reply = world.gradient("digits", 0, shard, 0, epochs[0], &format!("g0.{shard}"));
        assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
    }
    for (worker, epoch) in epochs.iter().enumerate() {
        world.ok(report(&trainer("digits", worker as u32), *epoch, TaskStatus::COMPLETED, |_| ()));
    }
    assert_eq!(world.job("digits").phase, JobPhase::JOB_RUNNING);
    let model = world.next_model("digits", 0);
    world.ok(Kind::commit_model(model));
    assert_eq!(world.job("digits").phase, JobPhase::JOB_DONE);
}

#[test]
fn trainers_that_end_by_themselves_before_the_job_is_done_fail_it_when_none_is_left() {
    let mut world = World::with_nodes();
    let epochs = world.training("digits", |_| ());
    world.ok(report("digits/trainer-0", epochs[0], TaskStatus::COMPLETED, |_| ()));
    assert_eq!(world.job("digits").phase, JobPhase::JOB_RUNNING, "one is left");
    world.ok(report("digits/trainer-1", epochs[1], TaskStatus::COMPLETED, |_| ()));
    let job = world.job("digits");
    assert_eq!(job.phase, JobPhase::JOB_FAILED);
    assert!(job.reason.contains("no trainer is left after 0 of 3 rounds"), "{}", job.reason);

    let mut world = World::with_nodes();
    world.ok(submit_job(train_spec("digits")));
    let epoch = world.assign("digits/trainer-0", "node-a");
    world.ok(report("digits/trainer-0", epoch, TaskStatus::COMPLETED, |_| ()));
    let job = world.job("digits");
    assert_eq!(job.phase, JobPhase::JOB_FAILED, "nobody can make model 0 any more");
    assert!(job.reason.contains("was to make model 0"), "{}", job.reason);
}

#[test]
fn when_the_job_is_done_trainers_finish_by_themselves() {
    let mut world = World::with_nodes();
    let epochs = world.training("digits", |train| train.workers = 3);
    world.ok(expire("digits/trainer-2", epochs[2]));
    for round in 0..3 {
        world.whole_round("digits", round, epochs[0]);
    }
    assert_eq!(world.job("digits").phase, JobPhase::JOB_DONE);
    assert_eq!(world.task("digits/trainer-2").phase, Phase::PHASE_CANCELLED, "it waited for a node in vain");
    assert_eq!(world.row("digits/trainer-0").open_epoch, epochs[0]);
    world.ok(report("digits/trainer-1", epochs[1], TaskStatus::COMPLETED, |r| r.result_data = "{\"acc\":1}".into()));
    world.ok(report("digits/trainer-0", epochs[0], TaskStatus::COMPLETED, |r| r.result_data = "{\"acc\":2}".into()));
    let job = world.job("digits");
    assert_eq!(
        (job.phase, job.result_json.as_str()),
        (JobPhase::JOB_DONE, "{\"acc\":1}"),
        "of the first that finished"
    );
}

#[test]
fn cancel_and_fail_end_a_job_once() {
    let mut world = World::with_nodes();
    let epochs = world.training("digits", |_| ());
    world.must(cancel_job("none"), Outcome::NOT_FOUND);
    world.must(fail_job("none", JobPhase::JOB_FAILED), Outcome::NOT_FOUND);
    for phase in [JobPhase::JOB_DONE, JobPhase::JOB_CANCELLED, JobPhase::JOB_INIT] {
        world.must(fail_job("digits", phase), Outcome::INVALID);
    }
    world.ok(fail_job("digits", JobPhase::JOB_PAUSED));
    let artifact = world.begin("digits", "gradient", "g");
    let push = gradient("digits", 0, 0, "digits/trainer-0", epochs[0], artifact, "g");
    world.must(push, Outcome::PRECONDITION);
    world.ok(cancel_job("digits"));
    world.must(cancel_job("digits"), Outcome::EXISTING);
    world.must(fail_job("digits", JobPhase::JOB_FAILED), Outcome::PRECONDITION);
    assert_eq!(world.task("digits/trainer-1").phase, Phase::PHASE_STOPPING);
    world.ok(cancel("digits/trainer-1", true));
    assert_eq!(world.job("digits").phase, JobPhase::JOB_CANCELLED);

    world.ok(submit_job(train_spec("other")));
    world.ok(fail_job("other", JobPhase::JOB_FAILED));
    assert_eq!((world.job("other").phase, world.job("other").reason.as_str()), (JobPhase::JOB_FAILED, "gave up"));
    world.must(cancel_job("other"), Outcome::PRECONDITION);
}
