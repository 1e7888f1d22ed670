"""The numeric class of a process: what can change the bytes of a gradient besides the script and its inputs."""

from __future__ import annotations

import json
import os
import platform
import sys
from functools import lru_cache
from typing import Any, Dict

import numpy as np

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_SWITCHES = ("OPENBLAS_CORETYPE", "MKL_CBWR", "PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "NPY_DISABLE_CPU_FEATURES")


@lru_cache(maxsize=None)
def numeric_class() -> bytes:
    """JSON with sorted keys and no blanks: architecture, BLAS (name, version, core type), threads, switches, NumPy's version and the processor
    features that it found, Python's version, those of torch and JAX where they are imported, and the bundle's digest where RAFTGRID_BUNDLE gives it."""
    config = _config()
    found: Dict[str, Any] = {
        "arch": platform.machine(),
        "blas": _blas(config),
        "bundle": os.environ.get("RAFTGRID_BUNDLE", ""),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "simd": sorted(config.get("SIMD Extensions", {}).get("found", [])),
        "switches": {name: os.environ[name] for name in _SWITCHES if name in os.environ},
        "threads": {name: os.environ[name] for name in _THREADS if name in os.environ},
    }
    # Only where the script has imported them, so that the class of a script without them is what it was.
    for name in ("torch", "jax", "jaxlib"):
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", ""))
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def _config() -> Dict[str, Any]:
    """How NumPy was built, in the form that it tells since 1.25."""
    try:
        return dict(np.__config__.show(mode="dicts"))  # type: ignore[attr-defined]
    except TypeError:  # before 1.25 it only prints, but keeps what it prints
        kept = vars(np.__config__)
        libraries = [name for key in ("blas_ilp64_opt_info", "blas_opt_info") for name in kept.get(key, {}).get("libraries", ())]
        return {"Build Dependencies": {"blas": {"name": libraries[0] if libraries else ""}}}


def _blas(config: Dict[str, Any]) -> Dict[str, str]:
    """The library that is loaded, if threadpoolctl is there to ask it; else the one that NumPy was built with."""
    built = config.get("Build Dependencies", {}).get("blas", {})
    blas = {
        "name": str(built.get("name", "")),
        "version": str(built.get("version", "")),
        "core": str(built.get("openblas configuration", "")),
    }
    try:
        import threadpoolctl  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        return blas
    for library in threadpoolctl.threadpool_info():
        if library.get("user_api") == "blas" and "numpy" in library.get("filepath", ""):
            return {
                "name": str(library.get("internal_api", "")),
                "version": str(library.get("version", "")),
                "core": str(library.get("architecture", "")),
            }
    return blas
