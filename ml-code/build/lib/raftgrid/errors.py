"""What this package raises. Normal races of a round (a duplicate, a closed round) raise nothing: see `PushResult`."""


class RaftgridError(RuntimeError):
    """The root of this package's errors. A retry by the caller does not help: what can be retried was."""


class LeaseLost(RaftgridError):
    """This attempt was fenced: its task runs elsewhere or not at all, and nothing that it sends counts any more. End the process."""


class FrameError(RaftgridError, ValueError):
    """Bytes that are no frame, or arrays that cannot be one. Names the tensor where there is one."""


class TransferError(RaftgridError):
    """A transfer whose checksum, length or digest was wrong again and again."""
