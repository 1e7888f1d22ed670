"""Named limits and times. Bytes, seconds or milliseconds as the names say."""

CHUNK_BYTES_MAX = 1024 * 1024
"""Data in one chunk of any stream."""
FRAME_BYTES_MAX = 4 * 1024 * 1024 * 1024
"""Largest model or gradient, in bytes of its tensors."""
CHECKPOINT_CHANGES_MAX = 100
"""How often the newest version may be another one's before `save` gives up."""
CHECKPOINTS_KEPT_MAX = 1_000
"""Most versions of a checkpoint that stay in a cluster: its key lists them."""
HEADER_BYTES_MAX = 16 * 1024 * 1024
"""Largest header of a frame."""
NAME_BYTES_MAX = 1024
"""Longest name of a tensor, in UTF-8."""
MESSAGE_BYTES_MAX = 4 * CHUNK_BYTES_MAX
"""Largest gRPC message: a chunk and what stands beside it."""
METRICS_BYTES_MAX = 64 * 1024
"""Longest JSON of one step's metrics."""
METRICS_MAX = 256
"""Most metrics that are averaged per round."""
RESULT_BYTES_MAX = 128 * 1024
"""Longest JSON of a result: it becomes a replicated command."""

UNARY_TIMEOUT_S = 10.0
"""Deadline of a short call."""
STREAM_TIMEOUT_S = 60.0
"""Deadline of a stream, besides the time for its bytes."""
STREAM_BYTES_PER_S_MIN = 1024 * 1024
"""Slowest transfer that a deadline allows for."""
NEXT_SHARDS_WAIT_MS = 10_000
"""How long workerd may hold a request for work before it answers that there is none."""
RETRY_FIRST_S = 0.05
"""Pause before the first retry; doubled for each further one."""
RETRY_MAX_S = 2.0
"""Longest pause between retries."""
CORRUPT_ATTEMPTS_MAX = 5
"""Transfers in a row that may fail their checks before that is an error."""
SHOULD_STOP_CACHE_S = 0.5
"""How long an answer to `should_stop` is used again, so that it may stand in an inner loop."""

CALL_TIMEOUT_S = 15.0
"""A call of the control plane as a whole."""
ATTEMPT_TIMEOUT_S = 3.0
"""One attempt of it at one replica."""
ENDPOINTS_MAX = 32
"""Replicas that are remembered."""
KEY_BYTES_MAX = 512
"""Longest replicated key."""
VALUE_BYTES_MAX = 64 * 1024
"""Longest value of one."""
KEY_WATCH_S = 5.0
"""How long one watch for a key lasts; then it is read again, maybe at another replica."""
LOG_PIECE_BYTES_MAX = 256 * 1024
"""One piece of a log that is sent."""
LOG_KEPT_BYTES = (256 * 1024, 768 * 1024)
"""Of the beginning and of the end of a log, in its artifact."""
REASON_BYTES_MAX = 1000
"""Longest reason of a failure."""
SESSION_CALLS_MAX = 512
"""Calls in one batch of a session."""
SESSION_BYTES_MAX = 1024 * 1024
"""Bytes of one batch, beyond its first call."""
SESSION_FLUSH_S = 0.005
"""How long a report waits for others at most, while calls are short."""
SESSION_ANSWER_S = 3.0
"""An answer that did not come by then, beyond the wait of a poll, does not come on this stream."""
ENDED_KEPT_S = 10.0
"""How long an attempt is remembered that was acknowledged: a poll's answer that was on its way may name it again."""
TASK_RESULT_BYTES_MAX = 64 * 1024
"""Longest `result_data` of a task."""
RESULT_TAIL_BYTES_MAX = 8 * 1024
"""Last bytes of stdout in a result: escapes can make text six times as long, and a result has 64 KiB."""
