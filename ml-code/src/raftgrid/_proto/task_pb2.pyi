from raftgrid._proto import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_ACCEPTED: _ClassVar[ReportOutcome]
    REPORT_DUPLICATE: _ClassVar[ReportOutcome]
    REPORT_STALE_LEASE: _ClassVar[ReportOutcome]
REPORT_ACCEPTED: ReportOutcome
REPORT_DUPLICATE: ReportOutcome
REPORT_STALE_LEASE: ReportOutcome

class SubmitTaskRequest(_message.Message):
    __slots__ = ("task_type", "task_data", "request_id", "task_id", "spec", "fail_fast")
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    TASK_DATA_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    FAIL_FAST_FIELD_NUMBER: _ClassVar[int]
    task_type: str
    task_data: bytes
    request_id: str
    task_id: str
    spec: _types_pb2.TaskSpec
    fail_fast: bool
    def __init__(self, task_type: _Optional[str] = ..., task_data: _Optional[bytes] = ..., request_id: _Optional[str] = ..., task_id: _Optional[str] = ..., spec: _Optional[_Union[_types_pb2.TaskSpec, _Mapping]] = ..., fail_fast: bool = ...) -> None: ...

class SubmitTaskResponse(_message.Message):
    __slots__ = ("task_id", "success", "error_message", "position", "existing")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    success: bool
    error_message: str
    position: int
    existing: bool
    def __init__(self, task_id: _Optional[str] = ..., success: bool = ..., error_message: _Optional[str] = ..., position: _Optional[int] = ..., existing: bool = ...) -> None: ...

class GetTaskRequest(_message.Message):
    __slots__ = ("task_id", "consistency")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    consistency: _types_pb2.Consistency
    def __init__(self, task_id: _Optional[str] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ...) -> None: ...

class GetTaskResponse(_message.Message):
    __slots__ = ("task", "found", "read_position", "age_ms")
    TASK_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    READ_POSITION_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    found: bool
    read_position: int
    age_ms: int
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., found: bool = ..., read_position: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("status_filter", "limit", "page_token", "consistency", "job_id", "queue")
    STATUS_FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    status_filter: _types_pb2.TaskStatus
    limit: int
    page_token: bytes
    consistency: _types_pb2.Consistency
    job_id: str
    queue: str
    def __init__(self, status_filter: _Optional[_Union[_types_pb2.TaskStatus, str]] = ..., limit: _Optional[int] = ..., page_token: _Optional[bytes] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ..., job_id: _Optional[str] = ..., queue: _Optional[str] = ...) -> None: ...

class ListTasksResponse(_message.Message):
    __slots__ = ("tasks", "next_page_token", "read_position", "age_ms")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    READ_POSITION_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[_types_pb2.Task]
    next_page_token: bytes
    read_position: int
    age_ms: int
    def __init__(self, tasks: _Optional[_Iterable[_Union[_types_pb2.Task, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ..., read_position: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class CancelTaskRequest(_message.Message):
    __slots__ = ("task_id", "request_id")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    request_id: str
    def __init__(self, task_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CancelTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ...) -> None: ...

class RetryTaskRequest(_message.Message):
    __slots__ = ("task_id", "request_id")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    request_id: str
    def __init__(self, task_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RetryTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ...) -> None: ...

class SuspendTaskRequest(_message.Message):
    __slots__ = ("task_id", "request_id")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    request_id: str
    def __init__(self, task_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SuspendTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ...) -> None: ...

class ResumeTaskRequest(_message.Message):
    __slots__ = ("task_id", "request_id")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    request_id: str
    def __init__(self, task_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ResumeTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ...) -> None: ...

class RequeueTaskRequest(_message.Message):
    __slots__ = ("task_id", "request_id")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    request_id: str
    def __init__(self, task_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RequeueTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ...) -> None: ...

class SetTaskPriorityRequest(_message.Message):
    __slots__ = ("task_id", "request_id", "priority")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    request_id: str
    priority: int
    def __init__(self, task_id: _Optional[str] = ..., request_id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class SetTaskPriorityResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ...) -> None: ...

class SessionBatch(_message.Message):
    __slots__ = ("batch_id", "calls")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    calls: _containers.RepeatedCompositeFieldContainer[SessionCall]
    def __init__(self, batch_id: _Optional[int] = ..., calls: _Optional[_Iterable[_Union[SessionCall, _Mapping]]] = ...) -> None: ...

class SessionCall(_message.Message):
    __slots__ = ("submit", "start", "report", "poll")
    SUBMIT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    POLL_FIELD_NUMBER: _ClassVar[int]
    submit: SubmitTaskRequest
    start: StartTaskRequest
    report: ReportTaskResultRequest
    poll: PollTaskRequest
    def __init__(self, submit: _Optional[_Union[SubmitTaskRequest, _Mapping]] = ..., start: _Optional[_Union[StartTaskRequest, _Mapping]] = ..., report: _Optional[_Union[ReportTaskResultRequest, _Mapping]] = ..., poll: _Optional[_Union[PollTaskRequest, _Mapping]] = ...) -> None: ...

class SessionAnswers(_message.Message):
    __slots__ = ("batch_id", "answers")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    answers: _containers.RepeatedCompositeFieldContainer[SessionAnswer]
    def __init__(self, batch_id: _Optional[int] = ..., answers: _Optional[_Iterable[_Union[SessionAnswer, _Mapping]]] = ...) -> None: ...

class SessionAnswer(_message.Message):
    __slots__ = ("status", "message", "submit", "start", "report", "poll")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    POLL_FIELD_NUMBER: _ClassVar[int]
    status: int
    message: str
    submit: SubmitTaskResponse
    start: StartTaskResponse
    report: ReportTaskResultResponse
    poll: PollTaskResponse
    def __init__(self, status: _Optional[int] = ..., message: _Optional[str] = ..., submit: _Optional[_Union[SubmitTaskResponse, _Mapping]] = ..., start: _Optional[_Union[StartTaskResponse, _Mapping]] = ..., report: _Optional[_Union[ReportTaskResultResponse, _Mapping]] = ..., poll: _Optional[_Union[PollTaskResponse, _Mapping]] = ...) -> None: ...

class WatchTaskRequest(_message.Message):
    __slots__ = ("task_id", "from_position")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_POSITION_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    from_position: int
    def __init__(self, task_id: _Optional[str] = ..., from_position: _Optional[int] = ...) -> None: ...

class WatchTaskResponse(_message.Message):
    __slots__ = ("task", "position", "compacted")
    TASK_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    COMPACTED_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    position: int
    compacted: bool
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., position: _Optional[int] = ..., compacted: bool = ...) -> None: ...

class ExplainTaskRequest(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class ExplainTaskResponse(_message.Message):
    __slots__ = ("task_id", "summary", "reasons", "queue", "position", "gang_members", "gang_fit", "never", "timeline")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    GANG_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    GANG_FIT_FIELD_NUMBER: _ClassVar[int]
    NEVER_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    summary: str
    reasons: _containers.RepeatedScalarFieldContainer[str]
    queue: str
    position: int
    gang_members: int
    gang_fit: int
    never: bool
    timeline: _containers.RepeatedCompositeFieldContainer[TimelineEvent]
    def __init__(self, task_id: _Optional[str] = ..., summary: _Optional[str] = ..., reasons: _Optional[_Iterable[str]] = ..., queue: _Optional[str] = ..., position: _Optional[int] = ..., gang_members: _Optional[int] = ..., gang_fit: _Optional[int] = ..., never: bool = ..., timeline: _Optional[_Iterable[_Union[TimelineEvent, _Mapping]]] = ...) -> None: ...

class TimelineEvent(_message.Message):
    __slots__ = ("at_ms", "what", "attempt", "node_id", "detail")
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    at_ms: int
    what: str
    attempt: int
    node_id: str
    detail: str
    def __init__(self, at_ms: _Optional[int] = ..., what: _Optional[str] = ..., attempt: _Optional[int] = ..., node_id: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class StreamLogsRequest(_message.Message):
    __slots__ = ("task_id", "offset", "follow")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    offset: int
    follow: bool
    def __init__(self, task_id: _Optional[str] = ..., offset: _Optional[int] = ..., follow: bool = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("offset", "data", "truncated", "lease_epoch")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    truncated: bool
    lease_epoch: int
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ..., truncated: bool = ..., lease_epoch: _Optional[int] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("node_id", "cpu_usage", "memory_usage", "active_tasks", "boot_nonce", "incarnation", "held", "node", "problem", "draining", "generation")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CPU_USAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_TASKS_FIELD_NUMBER: _ClassVar[int]
    BOOT_NONCE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    cpu_usage: float
    memory_usage: float
    active_tasks: int
    boot_nonce: int
    incarnation: int
    held: _containers.RepeatedCompositeFieldContainer[_types_pb2.Lease]
    node: _types_pb2.Node
    problem: str
    draining: bool
    generation: int
    def __init__(self, node_id: _Optional[str] = ..., cpu_usage: _Optional[float] = ..., memory_usage: _Optional[float] = ..., active_tasks: _Optional[int] = ..., boot_nonce: _Optional[int] = ..., incarnation: _Optional[int] = ..., held: _Optional[_Iterable[_Union[_types_pb2.Lease, _Mapping]]] = ..., node: _Optional[_Union[_types_pb2.Node, _Mapping]] = ..., problem: _Optional[str] = ..., draining: bool = ..., generation: _Optional[int] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("acknowledged", "leader_address", "incarnation", "next_beat_ms", "revoked", "endpoints", "not_renewed", "lease_ttl_ms", "stopping", "leader_time_ms")
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    LEADER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NEXT_BEAT_MS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    NOT_RENEWED_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    LEADER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    leader_address: str
    incarnation: int
    next_beat_ms: int
    revoked: _containers.RepeatedCompositeFieldContainer[_types_pb2.Lease]
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    not_renewed: _containers.RepeatedCompositeFieldContainer[_types_pb2.Lease]
    lease_ttl_ms: int
    stopping: _containers.RepeatedCompositeFieldContainer[_types_pb2.Lease]
    leader_time_ms: int
    def __init__(self, acknowledged: bool = ..., leader_address: _Optional[str] = ..., incarnation: _Optional[int] = ..., next_beat_ms: _Optional[int] = ..., revoked: _Optional[_Iterable[_Union[_types_pb2.Lease, _Mapping]]] = ..., endpoints: _Optional[_Iterable[str]] = ..., not_renewed: _Optional[_Iterable[_Union[_types_pb2.Lease, _Mapping]]] = ..., lease_ttl_ms: _Optional[int] = ..., stopping: _Optional[_Iterable[_Union[_types_pb2.Lease, _Mapping]]] = ..., leader_time_ms: _Optional[int] = ...) -> None: ...

class PollTaskRequest(_message.Message):
    __slots__ = ("node_id", "wait_ms", "max_tasks", "incarnation")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_TASKS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    wait_ms: int
    max_tasks: int
    incarnation: int
    def __init__(self, node_id: _Optional[str] = ..., wait_ms: _Optional[int] = ..., max_tasks: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class PollTaskResponse(_message.Message):
    __slots__ = ("task", "has_task", "tasks")
    TASK_FIELD_NUMBER: _ClassVar[int]
    HAS_TASK_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    task: _types_pb2.Task
    has_task: bool
    tasks: _containers.RepeatedCompositeFieldContainer[_types_pb2.Task]
    def __init__(self, task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., has_task: bool = ..., tasks: _Optional[_Iterable[_Union[_types_pb2.Task, _Mapping]]] = ...) -> None: ...

class ReportTaskResultRequest(_message.Message):
    __slots__ = ("task_id", "final_status", "result_data", "lease_epoch", "exit_code", "reason", "digest", "result_artifact", "infrastructure", "log_artifact")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FINAL_STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_DATA_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RESULT_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    INFRASTRUCTURE_FIELD_NUMBER: _ClassVar[int]
    LOG_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    final_status: _types_pb2.TaskStatus
    result_data: str
    lease_epoch: int
    exit_code: int
    reason: str
    digest: bytes
    result_artifact: str
    infrastructure: bool
    log_artifact: str
    def __init__(self, task_id: _Optional[str] = ..., final_status: _Optional[_Union[_types_pb2.TaskStatus, str]] = ..., result_data: _Optional[str] = ..., lease_epoch: _Optional[int] = ..., exit_code: _Optional[int] = ..., reason: _Optional[str] = ..., digest: _Optional[bytes] = ..., result_artifact: _Optional[str] = ..., infrastructure: bool = ..., log_artifact: _Optional[str] = ...) -> None: ...

class ReportTaskResultResponse(_message.Message):
    __slots__ = ("acknowledged", "outcome")
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    outcome: ReportOutcome
    def __init__(self, acknowledged: bool = ..., outcome: _Optional[_Union[ReportOutcome, str]] = ...) -> None: ...

class StartTaskRequest(_message.Message):
    __slots__ = ("task_id", "lease_epoch")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_epoch: int
    def __init__(self, task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ...) -> None: ...

class StartTaskResponse(_message.Message):
    __slots__ = ("acknowledged",)
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    def __init__(self, acknowledged: bool = ...) -> None: ...

class AppendLogRequest(_message.Message):
    __slots__ = ("task_id", "lease_epoch", "offset", "data")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_epoch: int
    offset: int
    data: bytes
    def __init__(self, task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class AppendLogResponse(_message.Message):
    __slots__ = ("next_offset",)
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    next_offset: int
    def __init__(self, next_offset: _Optional[int] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("consistency",)
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    consistency: _types_pb2.Consistency
    def __init__(self, consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "read_position", "age_ms")
    NODES_FIELD_NUMBER: _ClassVar[int]
    READ_POSITION_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Node]
    read_position: int
    age_ms: int
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.Node, _Mapping]]] = ..., read_position: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("node_id", "eligibility")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ELIGIBILITY_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    eligibility: _types_pb2.Eligibility
    def __init__(self, node_id: _Optional[str] = ..., eligibility: _Optional[_Union[_types_pb2.Eligibility, str]] = ...) -> None: ...

class DrainNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.Node
    def __init__(self, node: _Optional[_Union[_types_pb2.Node, _Mapping]] = ...) -> None: ...

class DeregisterRequest(_message.Message):
    __slots__ = ("node_id", "incarnation")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    incarnation: int
    def __init__(self, node_id: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class DeregisterResponse(_message.Message):
    __slots__ = ("acknowledged",)
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    def __init__(self, acknowledged: bool = ...) -> None: ...

class SetMaintenanceRequest(_message.Message):
    __slots__ = ("node_id", "for_ms", "off")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    FOR_MS_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    for_ms: int
    off: bool
    def __init__(self, node_id: _Optional[str] = ..., for_ms: _Optional[int] = ..., off: bool = ...) -> None: ...

class SetMaintenanceResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.Node
    def __init__(self, node: _Optional[_Union[_types_pb2.Node, _Mapping]] = ...) -> None: ...
