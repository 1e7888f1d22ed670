from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ("sdk_version",)
    SDK_VERSION_FIELD_NUMBER: _ClassVar[int]
    sdk_version: str
    def __init__(self, sdk_version: _Optional[str] = ...) -> None: ...

class HelloResponse(_message.Message):
    __slots__ = ("job_id", "task_id", "attempt", "num_shards", "rounds", "seed", "config_json", "init_task", "node_id", "opens_files")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARDS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    INIT_TASK_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    OPENS_FILES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    task_id: str
    attempt: int
    num_shards: int
    rounds: int
    seed: int
    config_json: str
    init_task: bool
    node_id: str
    opens_files: bool
    def __init__(self, job_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., num_shards: _Optional[int] = ..., rounds: _Optional[int] = ..., seed: _Optional[int] = ..., config_json: _Optional[str] = ..., init_task: bool = ..., node_id: _Optional[str] = ..., opens_files: bool = ...) -> None: ...

class SetResultRequest(_message.Message):
    __slots__ = ("result_json",)
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    result_json: str
    def __init__(self, result_json: _Optional[str] = ...) -> None: ...

class SetResultResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShouldStopRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShouldStopResponse(_message.Message):
    __slots__ = ("stop", "reason")
    STOP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    stop: bool
    reason: str
    def __init__(self, stop: bool = ..., reason: _Optional[str] = ...) -> None: ...
