//! What clients hand in besides single tasks: tasks that wait for others, graphs and arrays. Small, so that a healed cluster finishes them.

use raftgrid_proto::v1::{
    ArraySpec, Command_oneof_kind as Kind, Condition, DagEdge, DagTask, Dependency, JobSpec, SubmitJob, SubmitTask,
};

use crate::rng::Rng;

const CONDITIONS: [Condition; 3] = [Condition::WHEN_SUCCEEDED, Condition::WHEN_FAILED, Condition::WHEN_ENDED];

fn condition(rng: &mut Rng) -> Condition {
    *rng.pick(&CONDITIONS).unwrap_or(&Condition::WHEN_ENDED)
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

/// A graph of four tasks, or an array of a few elements.
pub fn job(client: usize, made: u64, rng: &mut Rng) -> Kind {
    let mut spec = JobSpec { name: format!("job-{client}-{made}"), ..JobSpec::default() };
    spec.task_data = b"{}".to_vec();
    spec.mut_task().set_max_retries(1);
    spec.mut_task().set_retries_given(true);
    if rng.chance(500) {
        spec.field_type = "command".to_owned();
        let count = u32::try_from(rng.between(1, 12)).unwrap_or(1);
        spec.set_array(ArraySpec { count, max_parallel: 3, ..ArraySpec::default() });
    } else {
        spec.field_type = "dag".to_owned();
        for (name, others) in [("a", &[][..]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])] {
            let edge =
                |other: &&str| DagEdge { name: (*other).to_owned(), condition: condition(rng), ..DagEdge::default() };
            let depends_on = others.iter().map(edge).collect();
            let (name, field_type) = (name.to_owned(), "command".to_owned());
            spec.dag.push(DagTask { name, field_type, depends_on, ..DagTask::default() });
        }
    }
    Kind::submit_job(SubmitJob { spec: Some(spec).into(), ..SubmitJob::default() })
}
