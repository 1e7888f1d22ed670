from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PutArtifactChunk(_message.Message):
    __slots__ = ("name", "total_bytes", "digest", "data", "offset", "crc32c", "request_id", "kind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    total_bytes: int
    digest: bytes
    data: bytes
    offset: int
    crc32c: int
    request_id: str
    kind: str
    def __init__(self, name: _Optional[str] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., data: _Optional[bytes] = ..., offset: _Optional[int] = ..., crc32c: _Optional[int] = ..., request_id: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class PutArtifactResponse(_message.Message):
    __slots__ = ("artifact_id", "digest", "existing")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    digest: bytes
    existing: bool
    def __init__(self, artifact_id: _Optional[str] = ..., digest: _Optional[bytes] = ..., existing: bool = ...) -> None: ...

class GetArtifactRequest(_message.Message):
    __slots__ = ("artifact", "offset")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    artifact: str
    offset: int
    def __init__(self, artifact: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ArtifactChunk(_message.Message):
    __slots__ = ("data", "offset", "crc32c", "total_bytes", "digest", "artifact_id")
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    offset: int
    crc32c: int
    total_bytes: int
    digest: bytes
    artifact_id: str
    def __init__(self, data: _Optional[bytes] = ..., offset: _Optional[int] = ..., crc32c: _Optional[int] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., artifact_id: _Optional[str] = ...) -> None: ...

class StatArtifactRequest(_message.Message):
    __slots__ = ("artifact",)
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    artifact: str
    def __init__(self, artifact: _Optional[str] = ...) -> None: ...

class ArtifactInfo(_message.Message):
    __slots__ = ("artifact_id", "name", "kind", "total_bytes", "digest", "holders", "state")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    name: str
    kind: str
    total_bytes: int
    digest: bytes
    holders: _containers.RepeatedScalarFieldContainer[int]
    state: str
    def __init__(self, artifact_id: _Optional[str] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., holders: _Optional[_Iterable[int]] = ..., state: _Optional[str] = ...) -> None: ...

class StatArtifactResponse(_message.Message):
    __slots__ = ("artifact", "found")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    artifact: ArtifactInfo
    found: bool
    def __init__(self, artifact: _Optional[_Union[ArtifactInfo, _Mapping]] = ..., found: bool = ...) -> None: ...

class DeleteArtifactRequest(_message.Message):
    __slots__ = ("artifact", "request_id")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    artifact: str
    request_id: str
    def __init__(self, artifact: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteArtifactResponse(_message.Message):
    __slots__ = ("artifact_id",)
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    def __init__(self, artifact_id: _Optional[str] = ...) -> None: ...

class ListArtifactsRequest(_message.Message):
    __slots__ = ("page_token", "limit")
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    page_token: bytes
    limit: int
    def __init__(self, page_token: _Optional[bytes] = ..., limit: _Optional[int] = ...) -> None: ...

class ListArtifactsResponse(_message.Message):
    __slots__ = ("artifacts", "next_page_token")
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    artifacts: _containers.RepeatedCompositeFieldContainer[ArtifactInfo]
    next_page_token: bytes
    def __init__(self, artifacts: _Optional[_Iterable[_Union[ArtifactInfo, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...
