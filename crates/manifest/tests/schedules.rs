//! Schedules: each tick once, overlap, and what a person may do to one.

mod common;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

use TaskStatus::COMPLETED;

fn schedule(change: impl FnOnce(&mut Schedule)) -> Kind {
    let mut schedule = Schedule { schedule_id: "s".into(), cron: "* * * * *".into(), ..Schedule::default() };
    schedule.mut_job().field_type = "command".into();
    schedule.mut_job().task_data = b"{\"argv\":[\"true\"]}".to_vec();
    change(&mut schedule);
    let mut put = PutSchedule::default();
    put.set_schedule(schedule);
    Kind::put_schedule(put)
}

fn fire(world: &World, tick_ms: u64, change: impl FnOnce(&mut FireSchedule)) -> Kind {
    let generation = row(world).generation;
    let mut fire = FireSchedule { schedule_id: "s".into(), generation, tick_ms, ..FireSchedule::default() };
    change(&mut fire);
    Kind::fire_schedule(fire)
}

fn row(world: &World) -> ScheduleRow {
    views::schedule_row(&world.rows, "s").expect("memory").expect("there is one")
}

fn state(world: &World) -> Schedule {
    row(world).get_schedule().clone()
}

fn pause(paused: bool) -> Kind {
    Kind::pause_schedule(PauseSchedule { schedule_id: "s".into(), paused, ..PauseSchedule::default() })
}

#[test]
fn a_tick_that_two_leaders_propose_runs_once() {
    let mut world = World::newest();
    world.ok(schedule(|_| ()));
    world.now_ms += 60_000;
    let tick = world.now_ms;
    let name = format!("sched.s.{}", tick / 1_000);
    // Both reckoned it before either saw the other's.
    let (one, two) = (fire(&world, tick, |_| ()), fire(&world, tick, |_| ()));
    assert_eq!(world.ok(one).id, name);
    assert_eq!(world.must(two, Outcome::EXISTING).id, name);
    world.must(fire(&world, tick - 1, |_| ()), Outcome::EXISTING);
    assert_eq!((state(&world).fired, state(&world).last_tick_ms, state(&world).last_run), (1, tick, name.clone()));
    assert_eq!(world.job(&name).phase, JobPhase::JOB_RUNNING);
    world.must(fire(&world, tick + 3_600_000, |_| ()), Outcome::INVALID);
}

#[test]
fn a_tick_of_a_task_is_a_task_with_the_tick_in_its_id() {
    let mut world = World::newest();
    let kind = schedule(|schedule| {
        schedule.job.clear();
        schedule.mut_task().task_type = "command".into();
    });
    world.ok(kind);
    world.now_ms += 1_000;
    let id = format!("sched/s/{}", world.now_ms);
    assert_eq!(world.ok(fire(&world, world.now_ms, |_| ())).id, id);
    assert_eq!(world.task(&id).phase, Phase::PHASE_QUEUED);
}

#[test]
fn a_run_that_is_not_over_is_waited_out_joined_or_replaced() {
    for (overlap, runs, skipped) in
        [(Overlap::OVERLAP_FORBID, 1, 1), (Overlap::OVERLAP_ALLOW, 2, 0), (Overlap::OVERLAP_REPLACE, 2, 0)]
    {
        let mut world = World::newest();
        world.ok(schedule(|schedule| schedule.overlap = overlap));
        world.now_ms += 60_000;
        let first = world.ok(fire(&world, world.now_ms, |_| ())).id;
        world.now_ms += 60_000;
        world.ok(fire(&world, world.now_ms, |_| ()));
        let now = state(&world);
        assert_eq!((now.fired, now.skipped, now.last_tick_ms), (runs, skipped, world.now_ms), "{overlap:?}");
        let cancelled = world.job(&first).phase == JobPhase::JOB_CANCELLED;
        assert_eq!(cancelled, overlap == Overlap::OVERLAP_REPLACE);
        assert_eq!(now.last_skip.contains("was not over"), overlap == Overlap::OVERLAP_FORBID);
        // With nothing open, the next tick runs whatever the policy.
        let last = now.last_run.clone();
        if world.job(&first).phase == JobPhase::JOB_RUNNING && first == last {
            world.end(&first, COMPLETED);
            world.now_ms += 60_000;
            world.ok(fire(&world, world.now_ms, |_| ()));
            assert_eq!(state(&world).fired, runs + 1);
        }
    }
}

#[test]
fn ticks_that_go_by_are_counted_and_never_run() {
    let mut world = World::newest();
    world.ok(schedule(|_| ()));
    world.now_ms += 600_000;
    world.ok(fire(&world, world.now_ms, |fire| (fire.skip, fire.passed) = (true, 9)));
    let now = state(&world);
    assert_eq!((now.fired, now.skipped, now.last_tick_ms), (0, 10, world.now_ms));
    world.must(fire(&world, world.now_ms - 60_000, |_| ()), Outcome::EXISTING);
}

#[test]
fn a_reckoning_by_an_older_schedule_is_stale_and_what_is_paused_does_not_run() {
    let mut world = World::newest();
    world.ok(schedule(|_| ()));
    world.now_ms += 60_000;
    let old = fire(&world, world.now_ms, |_| ());
    world.ok(schedule(|schedule| schedule.cron = "0 * * * *".into()));
    world.must(old, Outcome::STALE);
    world.now_ms += 60_000;
    world.ok(pause(true));
    world.must(pause(true), Outcome::EXISTING);
    world.must(fire(&world, world.now_ms, |_| ()), Outcome::PRECONDITION);
    world.now_ms += 60_000;
    world.ok(pause(false));
    world.must(fire(&world, world.now_ms - 1, |_| ()), Outcome::EXISTING);
    world.now_ms += 60_000;
    world.ok(fire(&world, world.now_ms, |_| ()));
}

#[test]
fn a_run_by_hand_is_no_tick() {
    let mut world = World::newest();
    world.ok(schedule(|_| ()));
    let before = state(&world).last_tick_ms;
    let by_hand = |world: &mut World| world.ok(fire(world, 0, |fire| (fire.by_hand, fire.generation) = (true, 0))).id;
    let (one, two) = (by_hand(&mut world), by_hand(&mut world));
    assert!(one.starts_with("sched.s.hand-") && one != two);
    assert_eq!((state(&world).last_tick_ms, state(&world).fired), (before, 2));
}

#[test]
fn a_tick_whose_run_is_refused_is_dealt_with_all_the_same() {
    let mut world = World::newest();
    let artifact = world.begin("", "bundle", "code");
    world.ok(commit_artifact(artifact, "code"));
    world.ok(schedule(|schedule| schedule.mut_job().mut_task().bundle_artifact = artifact.to_string()));
    world.ok(delete_artifact(artifact, false));
    world.now_ms += 60_000;
    let rows = world.rows.iter().count();
    world.ok(fire(&world, world.now_ms, |_| ()));
    let now = state(&world);
    assert_eq!((now.fired, now.skipped, now.last_tick_ms), (0, 1, world.now_ms));
    assert!(now.last_skip.contains("is not committed"), "{}", now.last_skip);
    assert_eq!(world.rows.iter().count(), rows, "nothing of the run is left");
}

#[test]
fn a_run_belongs_to_who_put_the_schedule() {
    let mut world = World::newest();
    assert_eq!(world.run_as("ann", "", schedule(|_| ())).outcome, Outcome::OK);
    world.now_ms += 60_000;
    let id = world.ok(fire(&world, world.now_ms, |_| ())).id;
    assert_eq!((world.job(&id).principal, world.task(&id).principal), ("ann".to_owned(), "ann".to_owned()));
}

#[test]
fn schedules_that_make_no_sense_are_refused() {
    let mut world = World::newest();
    let cases: Vec<(Kind, &str)> = vec![
        (schedule(|s| s.schedule_id = "../s".into()), "schedule_id"),
        (schedule(|s| s.schedule_id = "x".repeat(33)), "schedule_id"),
        (schedule(|s| s.cron.clear()), "cron"),
        (schedule(|s| s.cron = "*".repeat(300)), "cron"),
        (schedule(|s| s.job.clear()), "either a job or a task"),
        (schedule(|s| s.mut_task().task_type = "command".into()), "either a job or a task"),
        (schedule(|s| s.mut_job().name = "mine".into()), "job.name"),
        (schedule(|s| s.mut_job().field_type = "nothing".into()), "spec.type"),
        (schedule(|s| s.mut_job().task_data = vec![b' '; 10 << 20]), "spec.task_data"),
    ];
    for (kind, part) in cases {
        let reply = world.must(kind, Outcome::INVALID);
        assert!(reply.message.contains(part), "{}", reply.message);
    }
    let delete = || Kind::delete_schedule(DeleteSchedule { schedule_id: "s".into(), ..DeleteSchedule::default() });
    world.must(delete(), Outcome::NOT_FOUND);
    world.must(pause(true), Outcome::NOT_FOUND);
    world.ok(schedule(|_| ()));
    world.ok(delete());
    assert!(views::schedule_row(&world.rows, "s").expect("memory").is_none());
}
