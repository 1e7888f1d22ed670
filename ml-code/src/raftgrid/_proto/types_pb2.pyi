from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PENDING: _ClassVar[TaskStatus]
    ASSIGNED: _ClassVar[TaskStatus]
    RUNNING: _ClassVar[TaskStatus]
    COMPLETED: _ClassVar[TaskStatus]
    FAILED: _ClassVar[TaskStatus]

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_QUEUED: _ClassVar[Phase]
    PHASE_BLOCKED: _ClassVar[Phase]
    PHASE_BACKOFF: _ClassVar[Phase]
    PHASE_SUSPENDED: _ClassVar[Phase]
    PHASE_LEASED: _ClassVar[Phase]
    PHASE_STAGING: _ClassVar[Phase]
    PHASE_ACTIVE: _ClassVar[Phase]
    PHASE_STOPPING: _ClassVar[Phase]
    PHASE_ORPHANED: _ClassVar[Phase]
    PHASE_SUCCEEDED: _ClassVar[Phase]
    PHASE_ERROR: _ClassVar[Phase]
    PHASE_RETRIES_EXHAUSTED: _ClassVar[Phase]
    PHASE_CANCELLED: _ClassVar[Phase]
    PHASE_DEADLINE: _ClassVar[Phase]
    PHASE_LOST: _ClassVar[Phase]
    PHASE_DEPENDENCY_FAILED: _ClassVar[Phase]
    PHASE_REJECTED: _ClassVar[Phase]

class NodeStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTHY: _ClassVar[NodeStatus]
    UNHEALTHY: _ClassVar[NodeStatus]
    UNKNOWN: _ClassVar[NodeStatus]

class Eligibility(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ELIGIBLE: _ClassVar[Eligibility]
    CORDONED: _ClassVar[Eligibility]
    DRAINING: _ClassVar[Eligibility]

class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINEARIZABLE: _ClassVar[Consistency]
    LEASE: _ClassVar[Consistency]
    LOCAL: _ClassVar[Consistency]

class Operator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OP_EQUAL: _ClassVar[Operator]
    OP_NOT_EQUAL: _ClassVar[Operator]
    OP_IN: _ClassVar[Operator]
    OP_AT_LEAST: _ClassVar[Operator]
    OP_AT_MOST: _ClassVar[Operator]
    OP_EXISTS: _ClassVar[Operator]
    OP_NOT_EXISTS: _ClassVar[Operator]

class Condition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WHEN_SUCCEEDED: _ClassVar[Condition]
    WHEN_FAILED: _ClassVar[Condition]
    WHEN_ENDED: _ClassVar[Condition]
PENDING: TaskStatus
ASSIGNED: TaskStatus
RUNNING: TaskStatus
COMPLETED: TaskStatus
FAILED: TaskStatus
PHASE_QUEUED: Phase
PHASE_BLOCKED: Phase
PHASE_BACKOFF: Phase
PHASE_SUSPENDED: Phase
PHASE_LEASED: Phase
PHASE_STAGING: Phase
PHASE_ACTIVE: Phase
PHASE_STOPPING: Phase
PHASE_ORPHANED: Phase
PHASE_SUCCEEDED: Phase
PHASE_ERROR: Phase
PHASE_RETRIES_EXHAUSTED: Phase
PHASE_CANCELLED: Phase
PHASE_DEADLINE: Phase
PHASE_LOST: Phase
PHASE_DEPENDENCY_FAILED: Phase
PHASE_REJECTED: Phase
HEALTHY: NodeStatus
UNHEALTHY: NodeStatus
UNKNOWN: NodeStatus
ELIGIBLE: Eligibility
CORDONED: Eligibility
DRAINING: Eligibility
LINEARIZABLE: Consistency
LEASE: Consistency
LOCAL: Consistency
OP_EQUAL: Operator
OP_NOT_EQUAL: Operator
OP_IN: Operator
OP_AT_LEAST: Operator
OP_AT_MOST: Operator
OP_EXISTS: Operator
OP_NOT_EXISTS: Operator
WHEN_SUCCEEDED: Condition
WHEN_FAILED: Condition
WHEN_ENDED: Condition

class Label(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("cpu_milli", "memory_bytes", "gpus", "slots")
    CPU_MILLI_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    cpu_milli: int
    memory_bytes: int
    gpus: int
    slots: int
    def __init__(self, cpu_milli: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpus: _Optional[int] = ..., slots: _Optional[int] = ...) -> None: ...

class Constraint(_message.Message):
    __slots__ = ("key", "value", "operator", "values")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    operator: Operator
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., operator: _Optional[_Union[Operator, str]] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class Preference(_message.Message):
    __slots__ = ("wanted", "weight")
    WANTED_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    wanted: Constraint
    weight: int
    def __init__(self, wanted: _Optional[_Union[Constraint, _Mapping]] = ..., weight: _Optional[int] = ...) -> None: ...

class Affinity(_message.Message):
    __slots__ = ("job_id", "label", "over", "anti", "hard", "weight")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    ANTI_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    label: Label
    over: str
    anti: bool
    hard: bool
    weight: int
    def __init__(self, job_id: _Optional[str] = ..., label: _Optional[_Union[Label, _Mapping]] = ..., over: _Optional[str] = ..., anti: bool = ..., hard: bool = ..., weight: _Optional[int] = ...) -> None: ...

class GangSpec(_message.Message):
    __slots__ = ("min_members", "max_members")
    MIN_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    MAX_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    min_members: int
    max_members: int
    def __init__(self, min_members: _Optional[int] = ..., max_members: _Optional[int] = ...) -> None: ...

class GangPlace(_message.Message):
    __slots__ = ("rank", "world_size", "master_node_id", "master_address", "generation")
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    MASTER_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MASTER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    rank: int
    world_size: int
    master_node_id: str
    master_address: str
    generation: int
    def __init__(self, rank: _Optional[int] = ..., world_size: _Optional[int] = ..., master_node_id: _Optional[str] = ..., master_address: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Dependency(_message.Message):
    __slots__ = ("task_id", "condition")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    condition: Condition
    def __init__(self, task_id: _Optional[str] = ..., condition: _Optional[_Union[Condition, str]] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("resources", "max_retries", "retries_given", "start_timeout_ms", "run_timeout_ms", "deadline_unix_ms", "queue_ttl_ms", "constraints", "priority", "env", "bundle_artifact", "on_disconnect", "preferred_nodes", "queue", "preferences", "spread_over", "affinities", "preemptible", "labels", "depends_on", "limits", "requirements", "requirements_file")
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    RETRIES_GIVEN_FIELD_NUMBER: _ClassVar[int]
    START_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    RUN_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_NODES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PREFERENCES_FIELD_NUMBER: _ClassVar[int]
    SPREAD_OVER_FIELD_NUMBER: _ClassVar[int]
    AFFINITIES_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIBLE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FILE_FIELD_NUMBER: _ClassVar[int]
    resources: Resources
    max_retries: int
    retries_given: bool
    start_timeout_ms: int
    run_timeout_ms: int
    deadline_unix_ms: int
    queue_ttl_ms: int
    constraints: _containers.RepeatedCompositeFieldContainer[Constraint]
    priority: int
    env: _containers.RepeatedCompositeFieldContainer[Label]
    bundle_artifact: str
    on_disconnect: str
    preferred_nodes: _containers.RepeatedScalarFieldContainer[str]
    queue: str
    preferences: _containers.RepeatedCompositeFieldContainer[Preference]
    spread_over: str
    affinities: _containers.RepeatedCompositeFieldContainer[Affinity]
    preemptible: bool
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    depends_on: _containers.RepeatedCompositeFieldContainer[Dependency]
    limits: Limits
    requirements: str
    requirements_file: str
    def __init__(self, resources: _Optional[_Union[Resources, _Mapping]] = ..., max_retries: _Optional[int] = ..., retries_given: bool = ..., start_timeout_ms: _Optional[int] = ..., run_timeout_ms: _Optional[int] = ..., deadline_unix_ms: _Optional[int] = ..., queue_ttl_ms: _Optional[int] = ..., constraints: _Optional[_Iterable[_Union[Constraint, _Mapping]]] = ..., priority: _Optional[int] = ..., env: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., bundle_artifact: _Optional[str] = ..., on_disconnect: _Optional[str] = ..., preferred_nodes: _Optional[_Iterable[str]] = ..., queue: _Optional[str] = ..., preferences: _Optional[_Iterable[_Union[Preference, _Mapping]]] = ..., spread_over: _Optional[str] = ..., affinities: _Optional[_Iterable[_Union[Affinity, _Mapping]]] = ..., preemptible: bool = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., depends_on: _Optional[_Iterable[_Union[Dependency, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., requirements: _Optional[str] = ..., requirements_file: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("memory_bytes", "cpu_seconds", "open_files", "file_bytes", "processes", "cpu_milli")
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FILES_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    CPU_MILLI_FIELD_NUMBER: _ClassVar[int]
    memory_bytes: int
    cpu_seconds: int
    open_files: int
    file_bytes: int
    processes: int
    cpu_milli: int
    def __init__(self, memory_bytes: _Optional[int] = ..., cpu_seconds: _Optional[int] = ..., open_files: _Optional[int] = ..., file_bytes: _Optional[int] = ..., processes: _Optional[int] = ..., cpu_milli: _Optional[int] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task_id", "task_type", "status", "assigned_node_id", "task_data", "created_at", "started_at", "completed_at", "result_data", "phase", "attempt", "lease_epoch", "failure_reason", "pending_reason", "progress", "spec", "job_id", "parent_task_id", "revision", "principal", "queue", "result_artifact", "log_artifact", "gang_place", "array_index", "array_count", "parameters")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_DATA_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    RESULT_DATA_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    FAILURE_REASON_FIELD_NUMBER: _ClassVar[int]
    PENDING_REASON_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    RESULT_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    LOG_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    GANG_PLACE_FIELD_NUMBER: _ClassVar[int]
    ARRAY_INDEX_FIELD_NUMBER: _ClassVar[int]
    ARRAY_COUNT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_type: str
    status: TaskStatus
    assigned_node_id: str
    task_data: bytes
    created_at: int
    started_at: int
    completed_at: int
    result_data: str
    phase: Phase
    attempt: int
    lease_epoch: int
    failure_reason: str
    pending_reason: str
    progress: str
    spec: TaskSpec
    job_id: str
    parent_task_id: str
    revision: int
    principal: str
    queue: str
    result_artifact: str
    log_artifact: str
    gang_place: GangPlace
    array_index: int
    array_count: int
    parameters: _containers.RepeatedCompositeFieldContainer[Label]
    def __init__(self, task_id: _Optional[str] = ..., task_type: _Optional[str] = ..., status: _Optional[_Union[TaskStatus, str]] = ..., assigned_node_id: _Optional[str] = ..., task_data: _Optional[bytes] = ..., created_at: _Optional[int] = ..., started_at: _Optional[int] = ..., completed_at: _Optional[int] = ..., result_data: _Optional[str] = ..., phase: _Optional[_Union[Phase, str]] = ..., attempt: _Optional[int] = ..., lease_epoch: _Optional[int] = ..., failure_reason: _Optional[str] = ..., pending_reason: _Optional[str] = ..., progress: _Optional[str] = ..., spec: _Optional[_Union[TaskSpec, _Mapping]] = ..., job_id: _Optional[str] = ..., parent_task_id: _Optional[str] = ..., revision: _Optional[int] = ..., principal: _Optional[str] = ..., queue: _Optional[str] = ..., result_artifact: _Optional[str] = ..., log_artifact: _Optional[str] = ..., gang_place: _Optional[_Union[GangPlace, _Mapping]] = ..., array_index: _Optional[int] = ..., array_count: _Optional[int] = ..., parameters: _Optional[_Iterable[_Union[Label, _Mapping]]] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("model", "memory_bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    model: str
    memory_bytes: int
    def __init__(self, model: _Optional[str] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node_id", "address", "cloud_provider", "region", "status", "last_heartbeat", "cpu_usage", "memory_usage", "active_tasks", "labels", "capacity", "allocated", "eligibility", "incarnation", "version", "gpus", "unable", "arch", "os", "maintenance_until_ms", "problem")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CLOUD_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CPU_USAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_TASKS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_FIELD_NUMBER: _ClassVar[int]
    ELIGIBILITY_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    UNABLE_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    OS_FIELD_NUMBER: _ClassVar[int]
    MAINTENANCE_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    address: str
    cloud_provider: str
    region: str
    status: NodeStatus
    last_heartbeat: int
    cpu_usage: float
    memory_usage: float
    active_tasks: int
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    capacity: Resources
    allocated: Resources
    eligibility: Eligibility
    incarnation: int
    version: str
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    unable: _containers.RepeatedScalarFieldContainer[str]
    arch: str
    os: str
    maintenance_until_ms: int
    problem: str
    def __init__(self, node_id: _Optional[str] = ..., address: _Optional[str] = ..., cloud_provider: _Optional[str] = ..., region: _Optional[str] = ..., status: _Optional[_Union[NodeStatus, str]] = ..., last_heartbeat: _Optional[int] = ..., cpu_usage: _Optional[float] = ..., memory_usage: _Optional[float] = ..., active_tasks: _Optional[int] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., capacity: _Optional[_Union[Resources, _Mapping]] = ..., allocated: _Optional[_Union[Resources, _Mapping]] = ..., eligibility: _Optional[_Union[Eligibility, str]] = ..., incarnation: _Optional[int] = ..., version: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., unable: _Optional[_Iterable[str]] = ..., arch: _Optional[str] = ..., os: _Optional[str] = ..., maintenance_until_ms: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("task_id", "epoch")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    epoch: int
    def __init__(self, task_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("name", "weight", "quota", "max_running", "default_priority", "usage", "running_tasks", "open_tasks", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_TASKS_FIELD_NUMBER: _ClassVar[int]
    OPEN_TASKS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    weight: int
    quota: Resources
    max_running: int
    default_priority: int
    usage: Resources
    running_tasks: int
    open_tasks: int
    revision: int
    def __init__(self, name: _Optional[str] = ..., weight: _Optional[int] = ..., quota: _Optional[_Union[Resources, _Mapping]] = ..., max_running: _Optional[int] = ..., default_priority: _Optional[int] = ..., usage: _Optional[_Union[Resources, _Mapping]] = ..., running_tasks: _Optional[int] = ..., open_tasks: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...
