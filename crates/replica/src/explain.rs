//! Why a waiting task is not placed: what the leader's scheduler knows, as a message.

use raftgrid_control::Explanation;
use raftgrid_proto::v1::ExplainTaskResponse;

/// The explanation with the task's place in its queue first.
pub(crate) fn response_of(task_id: String, explanation: Explanation) -> ExplainTaskResponse {
    let mut response = ExplainTaskResponse::new();
    let queue = if explanation.queue.is_empty() { "the default queue" } else { &explanation.queue };
    if explanation.position > 0 {
        response.reasons.push(format!("position {} in {queue}", explanation.position));
    }
    for reason in explanation.reasons {
        response.reasons.push(reason);
    }
    let (members, fit) = explanation.gang.unwrap_or_default();
    response.set_task_id(task_id);
    response.set_summary(explanation.summary);
    response.set_queue(explanation.queue);
    response.set_position(explanation.position);
    response.set_gang_members(members);
    response.set_gang_fit(fit);
    response.set_never(explanation.never);
    response
}
