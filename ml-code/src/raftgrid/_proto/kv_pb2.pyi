from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AddRequest(_message.Message):
    __slots__ = ("key", "val", "data", "request_id", "task_id", "lease_epoch", "job_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VAL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    val: str
    data: bytes
    request_id: str
    task_id: str
    lease_epoch: int
    job_id: str
    def __init__(self, key: _Optional[str] = ..., val: _Optional[str] = ..., data: _Optional[bytes] = ..., request_id: _Optional[str] = ..., task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ..., job_id: _Optional[str] = ...) -> None: ...

class AddResponse(_message.Message):
    __slots__ = ("commit_index", "revision")
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    commit_index: int
    revision: int
    def __init__(self, commit_index: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("key", "linearizable")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LINEARIZABLE_FIELD_NUMBER: _ClassVar[int]
    key: str
    linearizable: bool
    def __init__(self, key: _Optional[str] = ..., linearizable: bool = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("read_at_index", "value", "found", "data", "revision")
    READ_AT_INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    read_at_index: int
    value: str
    found: bool
    data: bytes
    revision: int
    def __init__(self, read_at_index: _Optional[int] = ..., value: _Optional[str] = ..., found: bool = ..., data: _Optional[bytes] = ..., revision: _Optional[int] = ...) -> None: ...

class StatRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatResponse(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: str
    def __init__(self, stats: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("key", "min_index", "timeout_seconds", "from_revision")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MIN_INDEX_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    key: str
    min_index: int
    timeout_seconds: int
    from_revision: int
    def __init__(self, key: _Optional[str] = ..., min_index: _Optional[int] = ..., timeout_seconds: _Optional[int] = ..., from_revision: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("value", "current_index", "abandoned", "deleted", "data", "revision")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    ABANDONED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    value: str
    current_index: int
    abandoned: bool
    deleted: bool
    data: bytes
    revision: int
    def __init__(self, value: _Optional[str] = ..., current_index: _Optional[int] = ..., abandoned: bool = ..., deleted: bool = ..., data: _Optional[bytes] = ..., revision: _Optional[int] = ...) -> None: ...

class CompareAndSetRequest(_message.Message):
    __slots__ = ("key", "data", "expected", "request_id", "task_id", "lease_epoch", "job_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    data: bytes
    expected: int
    request_id: str
    task_id: str
    lease_epoch: int
    job_id: str
    def __init__(self, key: _Optional[str] = ..., data: _Optional[bytes] = ..., expected: _Optional[int] = ..., request_id: _Optional[str] = ..., task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ..., job_id: _Optional[str] = ...) -> None: ...

class CompareAndSetResponse(_message.Message):
    __slots__ = ("swapped", "found", "data", "revision")
    SWAPPED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    swapped: bool
    found: bool
    data: bytes
    revision: int
    def __init__(self, swapped: bool = ..., found: bool = ..., data: _Optional[bytes] = ..., revision: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("key", "expected", "request_id", "task_id", "lease_epoch")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    key: str
    expected: int
    request_id: str
    task_id: str
    lease_epoch: int
    def __init__(self, key: _Optional[str] = ..., expected: _Optional[int] = ..., request_id: _Optional[str] = ..., task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("deleted", "revision")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    revision: int
    def __init__(self, deleted: bool = ..., revision: _Optional[int] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("prefix", "limit", "page_token", "with_data")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITH_DATA_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    limit: int
    page_token: bytes
    with_data: bool
    def __init__(self, prefix: _Optional[str] = ..., limit: _Optional[int] = ..., page_token: _Optional[bytes] = ..., with_data: bool = ...) -> None: ...

class KeyValue(_message.Message):
    __slots__ = ("key", "data", "revision", "bytes", "job_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    data: bytes
    revision: int
    bytes: int
    job_id: str
    def __init__(self, key: _Optional[str] = ..., data: _Optional[bytes] = ..., revision: _Optional[int] = ..., bytes: _Optional[int] = ..., job_id: _Optional[str] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("keys", "next_page_token")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[KeyValue]
    next_page_token: bytes
    def __init__(self, keys: _Optional[_Iterable[_Union[KeyValue, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...
