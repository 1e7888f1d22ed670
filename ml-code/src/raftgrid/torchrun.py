"""A rendezvous for unmodified torchrun: `torchrun --rdzv-backend=raftgrid --rdzv-endpoint HOST:PORT[,HOST:PORT...] --rdzv-id ID ...`.

torchrun finds `handler` by the entry point group `torchrun.handlers`, where this package is installed; where it only lies on PYTHONPATH,
`python -m raftgrid.torchrun` takes torchrun's arguments. The state of the rendezvous is one replicated key, changed by
compare-and-set; its token is the key's revision. Any control-plane node may die: calls go on at the others, with the same request id.
In a task of raftgrid the endpoint may be left out, writes carry the task's lease, and the keys go when the job is over.

Options (`--rdzv-conf`): those of torch's dynamic rendezvous (join_timeout, last_call_timeout, ...), and plane_timeout: seconds that one call of
the control plane may take (60).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import time
from typing import Any, Callable, List, Optional, Tuple

import grpc
from torch.distributed import Store
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError, RendezvousStateError
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import RendezvousBackend, Token, create_handler

from ._limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from ._plane import Plane, endpoints_of
from .errors import RaftgridError
from .kv import Keys

PLANE_TIMEOUT_S = 60
"""An election takes a second or two, a replica's restart some more: a rendezvous must outlast both."""


class RaftgridRendezvousBackend(RendezvousBackend):
    """The state of one rendezvous under one key."""

    def __init__(self, keys: Keys, run_id: str) -> None:
        if not run_id:
            raise ValueError("The run id must be a non-empty string.")
        self._keys = keys
        self._key = _key(run_id, "state")

    @property
    def name(self) -> str:
        """See base class."""
        return "raftgrid"

    def get_state(self) -> Optional[Tuple[bytes, Token]]:
        """See base class."""
        found = _plane_call(lambda: self._keys.get(self._key))
        return None if found is None else (found.data, found.revision)

    def set_state(self, state: bytes, token: Optional[Token] = None) -> Optional[Tuple[bytes, Token, bool]]:
        """See base class. The token is the revision that the state must have; None: there must be none yet."""
        if token is not None and not isinstance(token, int):
            # Of another backend: it cannot be the present one.
            found = self.get_state()
            return None if found is None else (*found, False)
        if len(state) > VALUE_BYTES_MAX:
            raise RendezvousStateError(f"the state has {len(state)} bytes; a key holds {VALUE_BYTES_MAX}")
        swapped, value = _plane_call(lambda: self._keys.compare_and_set(self._key, state, token or 0))
        return None if value is None else (value.data, value.revision, swapped)


class RaftgridStore(Store):
    """A c10d store on replicated keys, for what the nodes of a rendezvous tell each other before they have one of their own."""

    def __init__(self, keys: Keys, run_id: str, timeout: datetime.timedelta = datetime.timedelta(seconds=300)) -> None:
        super().__init__()
        self._keys = keys
        self._run_id = run_id
        self._timeout = timeout

    def _name(self, key: Any) -> str:
        return _key(self._run_id, "store/" + _text(key))

    def set(self, key: Any, value: Any) -> None:
        """Sets a key."""
        self._keys.put(self._name(key), _bytes(value))

    def get(self, key: Any) -> bytes:
        """The value, as soon as there is one. Raises LookupError after the store's timeout."""
        found = self._keys.wait(self._name(key), self._timeout.total_seconds())
        if found is None:
            raise LookupError(f"key {_text(key)!r} was not set within {self._timeout}")
        return found.data

    def compare_set(self, key: Any, expected: Any, desired: Any) -> bytes:
        """Sets the key if its value is `expected` ("": or it does not exist); gives the value after that."""
        name, wanted, new = self._name(key), _bytes(expected), _bytes(desired)
        while True:
            found = self._keys.get(name)
            if found is None and wanted:
                return wanted
            if found is not None and found.data != wanted:
                return found.data
            swapped, _ = self._keys.compare_and_set(name, new, 0 if found is None else found.revision)
            if swapped:
                return new

    def add(self, key: Any, num: int) -> int:
        """Adds to a number in decimal digits; 0 if there was none. Gives the sum."""
        name = self._name(key)
        while True:
            found = self._keys.get(name)
            total = (0 if found is None else int(found.data)) + num
            swapped, _ = self._keys.compare_and_set(name, str(total).encode(), 0 if found is None else found.revision)
            if swapped:
                return total

    def wait(self, keys: List[Any], override_timeout: Optional[datetime.timedelta] = None) -> None:
        """Waits until all keys are there. Raises LookupError after the time."""
        timeout = self._timeout if override_timeout is None else override_timeout
        deadline = time.monotonic() + timeout.total_seconds()
        for key in keys:
            if self._keys.wait(self._name(key), max(0.0, deadline - time.monotonic())) is None:
                raise LookupError(f"key {_text(key)!r} was not set within {timeout}")

    def check(self, keys: List[Any]) -> bool:
        """Whether all keys are there."""
        return all(self._keys.get(self._name(key)) is not None for key in keys)

    def delete_key(self, key: Any) -> bool:
        """Deletes a key; False: there was none."""
        return self._keys.delete(self._name(key))

    def set_timeout(self, timeout: datetime.timedelta) -> None:
        """Of `get` and `wait`."""
        self._timeout = timeout


def _text(key: Any) -> str:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _key(run_id: str, rest: str) -> str:
    """A key of ours. What is too long, or has characters that a key may not have, is known by its hash."""
    key = f"torchrun/{run_id}/{rest}"
    if key.isprintable() and len(key.encode("utf-8", "replace")) <= KEY_BYTES_MAX:
        return key
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return "torchrun/" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _plane_call(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (RaftgridError, grpc.RpcError) as error:
        raise RendezvousConnectionError(f"the control plane of raftgrid cannot serve the rendezvous: {error}") from error


def create(params: RendezvousParameters) -> RendezvousHandler:
    """Makes the handler of one torchrun agent."""
    endpoints = endpoints_of(params.endpoint or os.environ.get("RAFTGRID_ENDPOINTS", ""))
    timeout_s = params.get_as_int("plane_timeout", PLANE_TIMEOUT_S) or PLANE_TIMEOUT_S
    keys = Keys.of_task(Plane(endpoints), float(timeout_s))
    return create_handler(RaftgridStore(keys, params.run_id), RaftgridRendezvousBackend(keys, params.run_id), params)


def handler() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """What the entry point names: torchrun calls it for the function that makes handlers."""
    return create


def main() -> None:
    """torchrun with this rendezvous registered."""
    from torch.distributed.elastic.rendezvous import rendezvous_handler_registry
    from torch.distributed.run import main as torchrun

    try:
        rendezvous_handler_registry.register("raftgrid", create)
    except ValueError:
        pass  # the entry point was found
    torchrun()


if __name__ == "__main__":
    main()
