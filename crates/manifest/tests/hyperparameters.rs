//! What a job may ask of the leader's step, from which machine version on, and that the ledger's hash knows it.

mod common;

use common::*;
use raftgrid_manifest::{command, fields_version};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn adam() -> Optimizer {
    Optimizer {
        algorithm: "adam".into(),
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        ..Optimizer::default()
    }
}

fn median() -> Combine {
    Combine { strategy: "median".into(), ..Combine::default() }
}

/// Model 0 of `job` with these settings.
fn first(world: &mut World, job: &str, change: impl FnOnce(&mut CommitModel)) -> Kind {
    world.ok(submit_job(train_spec(job)));
    let epoch = world.assign(&trainer(job, 0), "node-a");
    let model = world.begin(job, "model", job);
    let Kind::commit_model(mut commit) = model_0(job, epoch, model, job) else { unreachable!() };
    change(&mut commit);
    Kind::commit_model(commit)
}

#[test]
fn below_version_5_everything_is_decided_as_it_always_was() {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 4, ..SetMachineVersion::default() }));
    let asked = first(&mut world, "adam", |commit| commit.set_optimizer(adam()));
    assert!(world.must(asked, Outcome::INVALID).message.contains("\"sgd\", is \"adam\""));
    // An older replica does not know the field, and takes the model.
    let asked = first(&mut world, "median", |commit| {
        commit.set_combine(Combine { strategy: "magic".into(), ..Combine::default() });
    });
    world.ok(asked);
    assert!(world.job("median").combine.is_none(), "its rounds go by the weighted mean, and their hash says so");
}

#[test]
fn what_an_older_replica_would_read_as_something_else_asks_for_version_5() {
    let version = |change: &dyn Fn(&mut CommitModel)| {
        let mut commit = CommitModel::default();
        commit.set_optimizer(sgd());
        change(&mut commit);
        fields_version(command(Kind::commit_model(commit)).kind.as_ref().expect("a command"))
    };
    assert_eq!(version(&|_| ()), 1);
    assert_eq!(version(&|commit| commit.set_optimizer(adam())), 5);
    assert_eq!(version(&|commit| commit.set_combine(Combine::default())), 5);
    assert_eq!(version(&|commit| commit.mut_optimizer().set_schedule(LearningRateSchedule::default())), 5);
    let mut spec = train_spec("robust");
    assert_eq!(fields_version(&submit_job(spec.clone())), 1);
    spec.mut_train().set_combine(median());
    assert_eq!(fields_version(&submit_job(spec)), 5);
}

#[test]
fn a_job_keeps_what_its_script_asks_for_and_its_spec_comes_first() {
    let mut world = World::newest();
    let asked = first(&mut world, "plain", |_| ());
    world.ok(asked);
    assert!(world.job("plain").combine.is_none(), "a job that asks for nothing new keeps its old hash");
    let asked = first(&mut world, "adam", |commit| commit.set_optimizer(adam()));
    world.ok(asked);
    assert_eq!(world.job("adam").combine.as_ref(), Some(&Combine::default()));
    let asked = first(&mut world, "median", |commit| commit.set_combine(median()));
    world.ok(asked);
    assert_eq!(world.job("median").combine.as_ref(), Some(&median()));

    let mut spec = train_spec("spec");
    spec.mut_train().set_combine(median());
    world.ok(submit_job(spec));
    let epoch = world.assign(&trainer("spec", 0), "node-a");
    let model = world.begin("spec", "model", "spec");
    let Kind::commit_model(mut commit) = model_0("spec", epoch, model, "spec") else { unreachable!() };
    commit.set_combine(Combine { clip_norm: 1.0, ..Combine::default() });
    assert!(world.must(Kind::commit_model(commit.clone()), Outcome::INVALID).message.starts_with("combine"));
    commit.combine.clear();
    world.ok(Kind::commit_model(commit));
    assert_eq!(world.job("spec").combine.as_ref(), Some(&median()));
}

#[test]
fn each_refusal_names_the_field() {
    type Case = (fn(&mut CommitModel), &'static str);
    let cases: [Case; 9] = [
        (|c| c.mut_optimizer().algorithm = "magic".into(), "optimizer.algorithm"),
        (|c| c.mut_optimizer().learning_rate = f64::NAN, "optimizer.learning_rate"),
        (|c| c.mut_optimizer().beta2 = 1.0, "optimizer.beta2"),
        (|c| c.mut_optimizer().epsilon = 0.0, "optimizer.epsilon"),
        (|c| c.mut_optimizer().momentum = 0.5, "optimizer.momentum"),
        (|c| c.mut_optimizer().nesterov = true, "optimizer.nesterov"),
        (|c| c.mut_optimizer().mut_schedule().kind = "steep".into(), "optimizer.schedule.kind"),
        (|c| c.mut_combine().trim_fraction = 0.1, "combine.trim_fraction"),
        (|c| c.mut_combine().clip_norm = f64::INFINITY, "combine.clip_norm"),
    ];
    for (change, field) in cases {
        let mut world = World::newest();
        let asked = first(&mut world, "job", |commit| {
            commit.set_optimizer(adam());
            change(commit);
        });
        let message = world.must(asked, Outcome::INVALID).message;
        assert!(message.starts_with(field), "{field}: {message}");
    }
}
