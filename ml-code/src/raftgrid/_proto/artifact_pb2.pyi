from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PutArtifactChunk(_message.Message):
    __slots__ = ("name", "total_bytes", "digest", "data", "offset", "crc32c", "request_id", "kind", "versioned", "keep")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERSIONED_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    name: str
    total_bytes: int
    digest: bytes
    data: bytes
    offset: int
    crc32c: int
    request_id: str
    kind: str
    versioned: bool
    keep: int
    def __init__(self, name: _Optional[str] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., data: _Optional[bytes] = ..., offset: _Optional[int] = ..., crc32c: _Optional[int] = ..., request_id: _Optional[str] = ..., kind: _Optional[str] = ..., versioned: bool = ..., keep: _Optional[int] = ...) -> None: ...

class PutArtifactResponse(_message.Message):
    __slots__ = ("artifact_id", "digest", "existing", "version")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    digest: bytes
    existing: bool
    version: int
    def __init__(self, artifact_id: _Optional[str] = ..., digest: _Optional[bytes] = ..., existing: bool = ..., version: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("artifact_id", "name", "kind", "total_bytes", "digest", "holders", "state", "versions", "principal", "key")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    name: str
    kind: str
    total_bytes: int
    digest: bytes
    holders: _containers.RepeatedScalarFieldContainer[int]
    state: str
    versions: _containers.RepeatedCompositeFieldContainer[ArtifactVersion]
    principal: str
    key: str
    def __init__(self, artifact_id: _Optional[str] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., holders: _Optional[_Iterable[int]] = ..., state: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ArtifactVersion, _Mapping]]] = ..., principal: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class ArtifactVersion(_message.Message):
    __slots__ = ("name", "version", "created_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    created_ms: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., created_ms: _Optional[int] = ...) -> None: ...

class StatArtifactResponse(_message.Message):
    __slots__ = ("artifact", "found")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    artifact: ArtifactInfo
    found: bool
    def __init__(self, artifact: _Optional[_Union[ArtifactInfo, _Mapping]] = ..., found: bool = ...) -> None: ...

class DeleteArtifactRequest(_message.Message):
    __slots__ = ("artifact", "request_id", "all")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    artifact: str
    request_id: str
    all: bool
    def __init__(self, artifact: _Optional[str] = ..., request_id: _Optional[str] = ..., all: bool = ...) -> None: ...

class DeleteArtifactResponse(_message.Message):
    __slots__ = ("artifact_id", "versions")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    versions: int
    def __init__(self, artifact_id: _Optional[str] = ..., versions: _Optional[int] = ...) -> None: ...

class NameArtifactRequest(_message.Message):
    __slots__ = ("artifact", "name", "keep", "request_id")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    artifact: str
    name: str
    keep: int
    request_id: str
    def __init__(self, artifact: _Optional[str] = ..., name: _Optional[str] = ..., keep: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class NameArtifactResponse(_message.Message):
    __slots__ = ("artifact_id", "version", "existing")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    version: int
    existing: bool
    def __init__(self, artifact_id: _Optional[str] = ..., version: _Optional[int] = ..., existing: bool = ...) -> None: ...

class ListArtifactsRequest(_message.Message):
    __slots__ = ("page_token", "limit", "name", "usage")
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    page_token: bytes
    limit: int
    name: str
    usage: bool
    def __init__(self, page_token: _Optional[bytes] = ..., limit: _Optional[int] = ..., name: _Optional[str] = ..., usage: bool = ...) -> None: ...

class ListArtifactsResponse(_message.Message):
    __slots__ = ("artifacts", "next_page_token", "usage")
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    artifacts: _containers.RepeatedCompositeFieldContainer[ArtifactInfo]
    next_page_token: bytes
    usage: _containers.RepeatedCompositeFieldContainer[ArtifactUsage]
    def __init__(self, artifacts: _Optional[_Iterable[_Union[ArtifactInfo, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ..., usage: _Optional[_Iterable[_Union[ArtifactUsage, _Mapping]]] = ...) -> None: ...

class ArtifactUsage(_message.Message):
    __slots__ = ("principal", "node_id", "bytes", "artifacts", "bytes_max")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    principal: str
    node_id: int
    bytes: int
    artifacts: int
    bytes_max: int
    def __init__(self, principal: _Optional[str] = ..., node_id: _Optional[int] = ..., bytes: _Optional[int] = ..., artifacts: _Optional[int] = ..., bytes_max: _Optional[int] = ...) -> None: ...
