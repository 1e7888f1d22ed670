"""torch modules as named arrays. Imported without torch; its functions are called only with modules, so torch is there.

Parameters are those that are trained (`requires_grad`), by the names of `named_parameters`; one that stands at two places counts once. Buffers
are those of the state_dict that are no parameters, such as the running means of a batch norm.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

import numpy as np

from . import _frame
from ._frame import Params
from .errors import FrameError


def values(module: Any) -> Params:
    """Views of the parameters where they are on the CPU, else copies. float32 and float64."""
    return {name: _array(name, parameter) for name, parameter in _parameters(module).items()}


def gradients(module: Any) -> Params:
    """`.grad` of each parameter; zeros for one that the loss does not depend on. Raises FrameError if no parameter has any."""
    parameters = _parameters(module)
    if parameters and all(parameter.grad is None for parameter in parameters.values()):
        raise FrameError("no parameter of the module has a gradient: call loss.backward() before step.push(module)")
    found: Params = {}
    for name, parameter in parameters.items():
        if parameter.grad is None:
            found[name] = np.zeros_like(_array(name, parameter))
        else:
            found[name] = _array(name, parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad)
    return found


def fill(module: Any, model: Mapping[str, np.ndarray]) -> None:
    """Copies the model into the parameters and forgets their gradients. Raises FrameError where they differ; then nothing was copied."""
    import torch

    parameters = _parameters(module)
    wrong = _frame.difference(model, values(module))
    if wrong is not None:
        raise FrameError(f"the parameters of the module are not the model's: {wrong}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.array(model[name])))
            # A gradient left from another step would be added to.
            parameter.grad = None


def buffers(module: Any) -> Dict[str, np.ndarray]:
    """Copies of the buffers that a state_dict has, by name, in any dtype."""
    kept = set(module.state_dict(keep_vars=True))
    return {name: np.array(_array(name, buffer)) for name, buffer in module.named_buffers() if name in kept}


def set_buffers(module: Any, kept: Mapping[str, np.ndarray]) -> None:
    """Copies what `buffers` gave back into the module. Raises FrameError if they are another module's."""
    import torch

    own = dict(module.named_buffers())
    with torch.no_grad():
        for name, array in kept.items():
            if name not in own or tuple(own[name].shape) != array.shape:
                raise FrameError(f"buffer `{name}` is not one of the module's, or has another shape")
            own[name].copy_(torch.from_numpy(np.array(array)))


def _parameters(module: Any) -> Dict[str, Any]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _array(name: str, tensor: Any) -> np.ndarray:
    try:
        found: np.ndarray = tensor.detach().cpu().numpy()
    except TypeError as error:  # bfloat16 and the like
        raise FrameError(f"tensor `{name}` has dtype {tensor.dtype}; this release takes float32 and float64") from error
    return found
