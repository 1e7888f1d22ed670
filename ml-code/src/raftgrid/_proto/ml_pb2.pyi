from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AckOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACK_ACCEPTED: _ClassVar[AckOutcome]
    ACK_DUPLICATE: _ClassVar[AckOutcome]
    ACK_STALE: _ClassVar[AckOutcome]
    ACK_REJECTED: _ClassVar[AckOutcome]
    ACK_MISMATCH: _ClassVar[AckOutcome]
ACK_ACCEPTED: AckOutcome
ACK_DUPLICATE: AckOutcome
ACK_STALE: AckOutcome
ACK_REJECTED: AckOutcome
ACK_MISMATCH: AckOutcome

class ModelRequest(_message.Message):
    __slots__ = ("job_id", "task_id", "lease_epoch", "version", "offset", "version_given")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    VERSION_GIVEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    task_id: str
    lease_epoch: int
    version: int
    offset: int
    version_given: bool
    def __init__(self, job_id: _Optional[str] = ..., task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ..., version: _Optional[int] = ..., offset: _Optional[int] = ..., version_given: bool = ...) -> None: ...

class ModelChunk(_message.Message):
    __slots__ = ("chunk_id", "data", "offset", "crc32c", "version", "total_bytes", "digest")
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    chunk_id: int
    data: bytes
    offset: int
    crc32c: int
    version: int
    total_bytes: int
    digest: bytes
    def __init__(self, chunk_id: _Optional[int] = ..., data: _Optional[bytes] = ..., offset: _Optional[int] = ..., crc32c: _Optional[int] = ..., version: _Optional[int] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class GradientChunk(_message.Message):
    __slots__ = ("job_id", "worker_id", "data", "round", "shard", "task_id", "lease_epoch", "offset", "crc32c", "total_bytes", "digest", "weight", "metrics_json", "state_artifact", "numeric_class", "model_version", "model_version_given")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    METRICS_JSON_FIELD_NUMBER: _ClassVar[int]
    STATE_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    NUMERIC_CLASS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_GIVEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    worker_id: str
    data: bytes
    round: int
    shard: int
    task_id: str
    lease_epoch: int
    offset: int
    crc32c: int
    total_bytes: int
    digest: bytes
    weight: float
    metrics_json: bytes
    state_artifact: str
    numeric_class: bytes
    model_version: int
    model_version_given: bool
    def __init__(self, job_id: _Optional[str] = ..., worker_id: _Optional[str] = ..., data: _Optional[bytes] = ..., round: _Optional[int] = ..., shard: _Optional[int] = ..., task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ..., offset: _Optional[int] = ..., crc32c: _Optional[int] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., weight: _Optional[float] = ..., metrics_json: _Optional[bytes] = ..., state_artifact: _Optional[str] = ..., numeric_class: _Optional[bytes] = ..., model_version: _Optional[int] = ..., model_version_given: bool = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("success", "outcome", "reason", "position", "resume_offset")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    RESUME_OFFSET_FIELD_NUMBER: _ClassVar[int]
    success: bool
    outcome: AckOutcome
    reason: str
    position: int
    resume_offset: int
    def __init__(self, success: bool = ..., outcome: _Optional[_Union[AckOutcome, str]] = ..., reason: _Optional[str] = ..., position: _Optional[int] = ..., resume_offset: _Optional[int] = ...) -> None: ...

class Optimizer(_message.Message):
    __slots__ = ("algorithm", "learning_rate", "momentum", "nesterov", "weight_decay", "beta1", "beta2", "epsilon", "schedule")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    NESTEROV_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    schedule: LearningRateSchedule
    def __init__(self, algorithm: _Optional[str] = ..., learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ..., nesterov: bool = ..., weight_decay: _Optional[float] = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., epsilon: _Optional[float] = ..., schedule: _Optional[_Union[LearningRateSchedule, _Mapping]] = ...) -> None: ...

class LearningRateSchedule(_message.Message):
    __slots__ = ("kind", "warmup_rounds", "decay_rounds", "final_factor", "step_rounds", "step_factor")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WARMUP_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    DECAY_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    FINAL_FACTOR_FIELD_NUMBER: _ClassVar[int]
    STEP_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    STEP_FACTOR_FIELD_NUMBER: _ClassVar[int]
    kind: str
    warmup_rounds: int
    decay_rounds: int
    final_factor: float
    step_rounds: int
    step_factor: float
    def __init__(self, kind: _Optional[str] = ..., warmup_rounds: _Optional[int] = ..., decay_rounds: _Optional[int] = ..., final_factor: _Optional[float] = ..., step_rounds: _Optional[int] = ..., step_factor: _Optional[float] = ...) -> None: ...

class Combine(_message.Message):
    __slots__ = ("strategy", "trim_fraction", "clip_norm")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    TRIM_FRACTION_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    strategy: str
    trim_fraction: float
    clip_norm: float
    def __init__(self, strategy: _Optional[str] = ..., trim_fraction: _Optional[float] = ..., clip_norm: _Optional[float] = ...) -> None: ...

class InitModelChunk(_message.Message):
    __slots__ = ("job_id", "task_id", "lease_epoch", "data", "offset", "crc32c", "total_bytes", "digest", "optimizer", "numeric_class", "combine")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    NUMERIC_CLASS_FIELD_NUMBER: _ClassVar[int]
    COMBINE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    task_id: str
    lease_epoch: int
    data: bytes
    offset: int
    crc32c: int
    total_bytes: int
    digest: bytes
    optimizer: Optimizer
    numeric_class: bytes
    combine: Combine
    def __init__(self, job_id: _Optional[str] = ..., task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ..., data: _Optional[bytes] = ..., offset: _Optional[int] = ..., crc32c: _Optional[int] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., optimizer: _Optional[_Union[Optimizer, _Mapping]] = ..., numeric_class: _Optional[bytes] = ..., combine: _Optional[_Union[Combine, _Mapping]] = ...) -> None: ...

class ShardStep(_message.Message):
    __slots__ = ("round", "shard", "num_shards", "seed", "model_version", "model_digest", "state_artifact")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARDS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    round: int
    shard: int
    num_shards: int
    seed: int
    model_version: int
    model_digest: bytes
    state_artifact: str
    def __init__(self, round: _Optional[int] = ..., shard: _Optional[int] = ..., num_shards: _Optional[int] = ..., seed: _Optional[int] = ..., model_version: _Optional[int] = ..., model_digest: _Optional[bytes] = ..., state_artifact: _Optional[str] = ...) -> None: ...

class NextShardsRequest(_message.Message):
    __slots__ = ("job_id", "task_id", "lease_epoch", "wait_ms")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    task_id: str
    lease_epoch: int
    wait_ms: int
    def __init__(self, job_id: _Optional[str] = ..., task_id: _Optional[str] = ..., lease_epoch: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class NextShardsResponse(_message.Message):
    __slots__ = ("steps", "finished", "phase", "rounds", "rounds_committed", "model_version", "has_model", "shard_state")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    HAS_MODEL_FIELD_NUMBER: _ClassVar[int]
    SHARD_STATE_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[ShardStep]
    finished: bool
    phase: str
    rounds: int
    rounds_committed: int
    model_version: int
    has_model: bool
    shard_state: bool
    def __init__(self, steps: _Optional[_Iterable[_Union[ShardStep, _Mapping]]] = ..., finished: bool = ..., phase: _Optional[str] = ..., rounds: _Optional[int] = ..., rounds_committed: _Optional[int] = ..., model_version: _Optional[int] = ..., has_model: bool = ..., shard_state: bool = ...) -> None: ...
