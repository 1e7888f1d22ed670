//! What clients hand in besides single tasks: tasks that wait for others, graphs, arrays, gangs and schedules. Small, so that a healed cluster
//! finishes them.

use raftgrid_proto::v1::{
    ArraySpec, CatchUp, Command_oneof_kind as Kind, Condition, DagEdge, DagTask, Dependency, GangSpec, JobSpec,
    Overlap, PutSchedule, Schedule, ScheduledTask, SubmitJob, SubmitTask, TaskSpec,
};

use crate::linearizability::Tag;
use crate::orders::QUEUE;
use crate::rng::Rng;

const CONDITIONS: [Condition; 3] = [Condition::WHEN_SUCCEEDED, Condition::WHEN_FAILED, Condition::WHEN_ENDED];
const OVERLAPS: [Overlap; 3] = [Overlap::OVERLAP_FORBID, Overlap::OVERLAP_ALLOW, Overlap::OVERLAP_REPLACE];
const CATCH_UPS: [CatchUp; 3] = [CatchUp::CATCH_UP_NONE, CatchUp::CATCH_UP_LAST, CatchUp::CATCH_UP_ALL];

fn condition(rng: &mut Rng) -> Condition {
    *rng.pick(&CONDITIONS).unwrap_or(&Condition::WHEN_ENDED)
}

/// What of its placement a task with this tag says.
pub fn placement(tag: Tag, spec: &mut TaskSpec) {
    spec.set_priority(i32::try_from(tag % 5 * 20).unwrap_or(0));
    if tag.is_multiple_of(3) {
        spec.set_preemptible(true);
    }
    if tag.is_multiple_of(7) {
        spec.set_queue(QUEUE.to_owned());
    }
}

/// A task that waits for `other`.
pub fn task_after(client: usize, made: u64, other: &str, rng: &mut Rng) -> Kind {
    let mut submit = SubmitTask {
        task_id: format!("after-{client}-{made}"),
        task_type: "simulated".to_owned(),
        task_data: b"{}".to_vec(),
        ..SubmitTask::default()
    };
    let dependency = Dependency { task_id: other.to_owned(), condition: condition(rng), ..Dependency::default() };
    submit.mut_spec().depends_on.push(dependency);
    Kind::submit_task(submit)
}

/// A graph of four tasks, an array of `elements_max` elements at most, or a gang.
pub fn job(client: usize, made: u64, elements_max: u32, rng: &mut Rng) -> Kind {
    let mut spec = JobSpec { name: format!("job-{client}-{made}"), ..JobSpec::default() };
    spec.task_data = b"{}".to_vec();
    spec.field_type = "command".to_owned();
    spec.mut_task().set_max_retries(1);
    spec.mut_task().set_retries_given(true);
    match rng.below(3) {
        0 => {
            let count = u32::try_from(rng.between(1, u64::from(elements_max))).unwrap_or(1);
            spec.set_array(ArraySpec { count, max_parallel: 3 + count / 4, ..ArraySpec::default() });
        }
        1 => {
            spec.set_gang(GangSpec { min_members: 2, max_members: 3, ..GangSpec::default() });
            placement(rng.next(), spec.mut_task());
            // Its quota may be less than a gang needs, for ever.
            spec.mut_task().queue.clear();
        }
        _ => graph(&mut spec, rng),
    }
    Kind::submit_job(SubmitJob { spec: Some(spec).into(), ..SubmitJob::default() })
}

fn graph(spec: &mut JobSpec, rng: &mut Rng) {
    spec.field_type = "dag".to_owned();
    for (name, others) in [("a", &[][..]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])] {
        let edge =
            |other: &&str| DagEdge { name: (*other).to_owned(), condition: condition(rng), ..DagEdge::default() };
        let depends_on = others.iter().map(edge).collect();
        let (name, field_type) = (name.to_owned(), "command".to_owned());
        spec.dag.push(DagTask { name, field_type, depends_on, ..DagTask::default() });
    }
}

/// A task at each minute. `check::ticks` reckons them for itself.
pub fn schedule(client: usize, rng: &mut Rng) -> Kind {
    let mut task = ScheduledTask { task_type: "simulated".to_owned(), ..ScheduledTask::default() };
    task.task_data = b"{}".to_vec();
    let schedule = Schedule {
        schedule_id: format!("minute-{client}"),
        cron: "* * * * *".to_owned(),
        overlap: *rng.pick(&OVERLAPS).unwrap_or(&Overlap::OVERLAP_ALLOW),
        catch_up: *rng.pick(&CATCH_UPS).unwrap_or(&CatchUp::CATCH_UP_ALL),
        task: Some(task).into(),
        ..Schedule::default()
    };
    Kind::put_schedule(PutSchedule { schedule: Some(schedule).into(), ..PutSchedule::default() })
}
