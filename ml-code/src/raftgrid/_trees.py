"""Parameters in whatever form a script has them: a dict of NumPy arrays, a torch module, or a tree of arrays (JAX's, or nested dicts and lists).

Each leaf has a name that depends on nothing but its place: keys, indices and field names from the root, joined with dots, as in torch
("layers.0.weight"). So the same tree gives the same file everywhere. torch and jax are looked up only if the script has imported them.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np

from . import _frame, _torch
from ._frame import Params
from .errors import FrameError

Path = Tuple[str, ...]


def is_module(value: Any) -> bool:
    """Whether it is a torch.nn.Module."""
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "nn") and isinstance(value, torch.nn.Module)


def values(params: Any) -> Params:
    """The parameters by name. Raises FrameError for what has no arrays, or two leaves of one name."""
    if is_module(params):
        return _torch.values(params)
    if _is_flat(params):
        return {name: np.asarray(value) for name, value in params.items()}
    found: Params = {}
    for path, leaf in _flatten(params)[0]:
        name = ".".join(path)
        if name in found:
            raise FrameError(f"two leaves of the tree have the name `{name}`")
        if not _is_array(leaf):
            raise FrameError(f"leaf `{name}` is a {type(leaf).__name__}; an array is needed")
        found[name] = np.asarray(leaf)
    return found


def gradients(grads: Any) -> Params:
    """The gradient by name: of a torch module what its parameters have in `.grad`, else the arrays themselves."""
    return _torch.gradients(grads) if is_module(grads) else values(grads)


def fill(target: Any, model: Mapping[str, np.ndarray]) -> Any:
    """The model in the form of `target`: into the arrays of a dict and the parameters of a module, in place; a tree is made anew, with leaves of
    the kind that it has. Raises FrameError where names, shapes or dtypes differ; then nothing was changed."""
    if is_module(target):
        _torch.fill(target, model)
        return target
    if _is_flat(target) and all(isinstance(value, np.ndarray) for value in target.values()):
        return _frame.fill(target, model)
    wrong = _frame.difference(model, values(target))
    if wrong is not None:
        raise FrameError(f"the parameters given are not the model's: {wrong}")
    leaves, unflatten = _flatten(target)
    return unflatten([_like(leaf, model[".".join(path)]) for path, leaf in leaves])


def _is_flat(params: Any) -> bool:
    return isinstance(params, Mapping) and all(
        isinstance(name, str) and (isinstance(value, np.ndarray) or _is_number(value)) for name, value in params.items()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, np.generic)


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or (hasattr(value, "__array__") and hasattr(value, "dtype"))


def _like(leaf: Any, array: np.ndarray) -> Any:
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(leaf, getattr(jax, "Array", ())):
        return jax.numpy.asarray(array)
    return np.array(array)


def _flatten(tree: Any) -> Tuple[List[Tuple[Path, Any]], Callable[[List[Any]], Any]]:
    """([(path, leaf)], leaves → the same tree with them)."""
    jax = sys.modules.get("jax")
    if jax is not None and hasattr(jax, "tree_util"):
        found, shape = jax.tree_util.tree_flatten_with_path(tree)
        return [(tuple(_word(entry) for entry in path), leaf) for path, leaf in found], shape.unflatten
    leaves: List[Tuple[Path, Any]] = []
    _collect(tree, (), leaves)
    return leaves, lambda new: _rebuilt(tree, iter(new))


def _word(entry: Any) -> str:
    """Of a key of jax.tree_util: DictKey and FlattenedIndexKey have `key`, SequenceKey `idx`, GetAttrKey `name`."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _children(tree: Any) -> "List[Tuple[str, Any]] | None":
    """None: a leaf. In the order of jax.tree_util, which sorts the keys of a dict."""
    if isinstance(tree, Mapping):
        return [(str(key), tree[key]) for key in sorted(tree)]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return [(name, getattr(tree, name)) for name in tree._fields]
    if isinstance(tree, (list, tuple)):
        return [(str(index), item) for index, item in enumerate(tree)]
    return [] if tree is None else None


def _collect(tree: Any, path: Path, leaves: List[Tuple[Path, Any]]) -> None:
    children = _children(tree)
    if children is None:
        leaves.append((path, tree))
        return
    for word, child in children:
        _collect(child, (*path, word), leaves)


def _rebuilt(tree: Any, leaves: Any) -> Any:
    if isinstance(tree, Mapping):
        new: Dict[Any, Any] = {key: _rebuilt(tree[key], leaves) for key in sorted(tree)}
        return {key: new[key] for key in tree}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[_rebuilt(item, leaves) for item in tree])
    if isinstance(tree, (list, tuple)):
        return type(tree)([_rebuilt(item, leaves) for item in tree])
    return None if tree is None else next(leaves)
