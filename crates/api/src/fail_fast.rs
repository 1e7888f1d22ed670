//! `fail_fast`: a submission that no registered node could ever run is refused before it is proposed. Nodes may come and go, so this is an
//! answer as of now; without it the task waits, and `why` says so.

use std::sync::Arc;

use grpcio::RpcStatusCode;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Consistency, JobSpec, Task, TaskSpec};
use raftgrid_rpc::status::status;

use crate::calls::read;
use crate::context::Core;
use crate::failure::{Answer, Failure};

/// Nodes that a refusal names.
const NAMED_MAX: usize = 3;

pub(crate) async fn task(core: &Arc<Core>, task_type: &str, spec: &TaskSpec) -> Answer<()> {
    require(core, task_type, spec, 1).await
}

/// The job's tasks, a gang's all at once.
pub(crate) async fn job(core: &Arc<Core>, spec: &JobSpec) -> Answer<()> {
    let members = u64::from(spec.get_gang().min_members.max(1));
    require(core, spec.get_field_type(), spec.get_task(), members).await
}

async fn require(core: &Arc<Core>, task_type: &str, spec: &TaskSpec, members: u64) -> Answer<()> {
    let mut task = Task { task_type: task_type.to_owned(), ..Task::default() };
    task.set_spec(spec.clone());
    let view = read(core, Consistency::LINEARIZABLE).await?;
    let Some(why) = views::never(&*view.rows, &task, members)? else { return Ok(()) };
    let mut text = "no node of this cluster can ever run it".to_owned();
    match why.len() {
        0 => text.push_str(": none is registered"),
        1..=NAMED_MAX => text.push_str(&format!(": {}", why.join("; "))),
        more => text.push_str(&format!(": {}; and {} more", why[..NAMED_MAX].join("; "), more - NAMED_MAX)),
    }
    Err(Failure::Status(status(RpcStatusCode::FAILED_PRECONDITION, text)))
}
