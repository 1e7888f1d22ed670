"""What raftgrid.torchrun needs of torch, for machines without it: the interfaces as torch 2.7 declares them, and nothing behind them.

torch.distributed.Store, torch.distributed.elastic.rendezvous (api, dynamic_rendezvous.RendezvousBackend).
"""

import contextlib
import importlib.util
import sys
import types
from abc import ABC, abstractmethod


class RendezvousError(Exception):
    pass


class RendezvousConnectionError(RendezvousError):
    pass


class RendezvousStateError(RendezvousError):
    pass


class RendezvousHandler(ABC):
    pass


class RendezvousParameters:
    def __init__(self, backend, endpoint, run_id, min_nodes, max_nodes, local_addr=None, **kwargs):
        if not backend:
            raise ValueError("The rendezvous backend name must be a non-empty string.")
        self.backend, self.endpoint, self.run_id = backend, endpoint, run_id
        self.min_nodes, self.max_nodes, self.local_addr, self.config = min_nodes, max_nodes, local_addr, kwargs

    def get(self, key, default=None):
        return self.config.get(key, default)

    def get_as_int(self, key, default=None):
        value = self.get(key, default)
        return value if value is None else int(value)


class RendezvousBackend(ABC):
    @property
    @abstractmethod
    def name(self):
        """Get the name of the backend."""

    @abstractmethod
    def get_state(self):
        """Get the rendezvous state: a tuple of the encoded state and its fencing token, or None if there is no state."""

    @abstractmethod
    def set_state(self, state, token=None):
        """Set the state conditionally: (state, token, whether it was set), or None if no state is found."""


class Store:
    def __init__(self):
        self.initialized = True


class Handler(RendezvousHandler):
    def __init__(self, store, backend, params):
        self.store, self.backend, self.params = store, backend, params


@contextlib.contextmanager
def in_place():
    """While it is open the stand-in is in torch's place, unless torch is there. Other packages look for torch, so it does not stay."""
    if importlib.util.find_spec("torch") is not None:
        yield
        return
    distributed = types.ModuleType("torch.distributed")
    distributed.Store = Store
    rendezvous = types.ModuleType("torch.distributed.elastic.rendezvous")
    rendezvous.RendezvousHandler, rendezvous.RendezvousParameters = RendezvousHandler, RendezvousParameters
    api = types.ModuleType("torch.distributed.elastic.rendezvous.api")
    api.RendezvousConnectionError, api.RendezvousStateError = RendezvousConnectionError, RendezvousStateError
    dynamic = types.ModuleType("torch.distributed.elastic.rendezvous.dynamic_rendezvous")
    dynamic.RendezvousBackend, dynamic.Token, dynamic.create_handler = RendezvousBackend, object, Handler
    elastic = types.ModuleType("torch.distributed.elastic")
    modules = {module.__name__: module for module in (types.ModuleType("torch"), distributed, elastic, rendezvous, api, dynamic)}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
