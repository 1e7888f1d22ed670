//! Tasks and nodes.

use protobuf::Message;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{
    CANCEL_TASK, DRAIN_NODE, EXPLAIN_TASK, GET_TASK, LIST_NODES, LIST_TASKS, REQUEUE_TASK, RESUME_TASK,
    SET_TASK_PRIORITY, SUBMIT_TASK, SUSPEND_TASK,
};

use crate::call::{request_id, Client};
use crate::error::ClientError;

impl Client {
    /// Submits a task. An empty request id is filled in; keep it to learn the outcome after a failure.
    pub fn submit_task(&self, mut request: SubmitTaskRequest) -> Result<SubmitTaskResponse, ClientError> {
        if request.get_request_id().is_empty() {
            request.set_request_id(request_id());
        }
        let response = self.call(&SUBMIT_TASK, &request, self.config().timeout)?;
        if response.get_success() {
            Ok(response)
        } else {
            Err(ClientError::Refused(response.get_error_message().to_owned()))
        }
    }

    /// A task as of now.
    pub fn get_task(&self, task_id: &str) -> Result<Task, ClientError> {
        let mut request = GetTaskRequest::new();
        request.set_task_id(task_id.to_owned());
        let mut response = self.call(&GET_TASK, &request, self.config().timeout)?;
        if response.get_found() {
            Ok(response.take_task())
        } else {
            Err(ClientError::NotFound(format!("task {task_id}")))
        }
    }

    /// One page of tasks.
    pub fn list_tasks(&self, request: &ListTasksRequest) -> Result<ListTasksResponse, ClientError> {
        self.call(&LIST_TASKS, request, self.config().timeout)
    }

    /// Cancels a task; it may still be stopping when this returns.
    pub fn cancel_task(&self, task_id: &str) -> Result<Task, ClientError> {
        let mut request = CancelTaskRequest::new();
        request.set_task_id(task_id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&CANCEL_TASK, &request, self.config().timeout)?.take_task())
    }

    /// Takes a task off its node, or out of the queue, until it is resumed; it may still be stopping when this returns.
    pub fn suspend_task(&self, task_id: &str) -> Result<Task, ClientError> {
        let mut request = SuspendTaskRequest::new();
        request.set_task_id(task_id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&SUSPEND_TASK, &request, self.config().timeout)?.take_task())
    }

    /// Queues a suspended task.
    pub fn resume_task(&self, task_id: &str) -> Result<Task, ClientError> {
        let mut request = ResumeTaskRequest::new();
        request.set_task_id(task_id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&RESUME_TASK, &request, self.config().timeout)?.take_task())
    }

    /// Takes a task off its node and queues it again; it may still be stopping when this returns.
    pub fn requeue_task(&self, task_id: &str) -> Result<Task, ClientError> {
        let mut request = RequeueTaskRequest::new();
        request.set_task_id(task_id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&REQUEUE_TASK, &request, self.config().timeout)?.take_task())
    }

    /// Another priority, 0 to 100; it counts from the next placement on.
    pub fn set_task_priority(&self, task_id: &str, priority: i32) -> Result<Task, ClientError> {
        let mut request = SetTaskPriorityRequest::new();
        request.set_task_id(task_id.to_owned());
        request.set_priority(priority);
        request.set_request_id(request_id());
        Ok(self.call(&SET_TASK_PRIORITY, &request, self.config().timeout)?.take_task())
    }

    /// Why a pending task is pending.
    pub fn explain_task(&self, task_id: &str) -> Result<ExplainTaskResponse, ClientError> {
        let mut request = ExplainTaskRequest::new();
        request.set_task_id(task_id.to_owned());
        self.call(&EXPLAIN_TASK, &request, self.config().timeout)
    }

    /// All nodes.
    pub fn list_nodes(&self) -> Result<Vec<Node>, ClientError> {
        let mut response = self.call(&LIST_NODES, &ListNodesRequest::new(), self.config().timeout)?;
        Ok(response.take_nodes().into_vec())
    }

    /// Makes a node eligible, cordoned or draining.
    pub fn set_node_eligibility(&self, node_id: &str, eligibility: Eligibility) -> Result<Node, ClientError> {
        let mut request = DrainNodeRequest::new();
        request.set_node_id(node_id.to_owned());
        request.set_eligibility(eligibility);
        Ok(self.call(&DRAIN_NODE, &request, self.config().timeout)?.take_node())
    }
}

/// Calls `page` with each token until there is no further one, and collects what `take` finds in each answer.
pub(crate) fn all_pages<Resp: Message, T>(
    mut page: impl FnMut(Vec<u8>) -> Result<Resp, ClientError>,
    mut take: impl FnMut(Resp) -> (Vec<T>, Vec<u8>),
) -> Result<Vec<T>, ClientError> {
    let mut all = Vec::new();
    let mut token = Vec::new();
    loop {
        let (rows, next) = take(page(token.clone())?);
        all.extend(rows);
        if next.is_empty() || next == token {
            return Ok(all);
        }
        token = next;
    }
}
