"""Holds a product that was made by blocks against NumPy: the task `check` of a job of type `matmul`.

The elements are whole numbers from -8 to 7, so that every sum is exact whatever its order: both checksums (SHA-256 over C row by row, float64,
little-endian) must be equal to the last bit. Matrices that were given as artifacts may hold anything; then the products must agree to rounding.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

import raftgrid

GAMMA = 0x9E3779B97F4A7C15


def elements(seed: int, begin: int, count: int) -> np.ndarray:
    """float64[count]: values begin, begin + 1, ... of the seed: the highest four bits of splitmix64's outputs, minus 8."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.uint64(GAMMA) * (np.arange(begin, begin + count, dtype=np.uint64) + np.uint64(1))
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(60)).astype(np.float64) - 8.0


def matrix(inputs: Path, name: str, seed: int, begin: int, rows: int, columns: int) -> np.ndarray:
    """float64[rows, columns]: the matrix that was given as an artifact, else that of the seed."""
    if (inputs / name).exists():
        return np.fromfile(inputs / name, dtype="<f8").reshape(rows, columns)
    return elements(seed, begin, rows * columns).reshape(rows, columns)


def main() -> None:
    job = raftgrid.init()
    rows, inner, columns = (int(job.config[side]) for side in ("rows", "inner", "columns"))
    inputs, seed = Path(os.environ["RAFTGRID_INPUTS"]), int(job.config["seed"])
    left = matrix(inputs, "left", seed, 0, rows, inner)
    right = matrix(inputs, "right", seed, rows * inner, inner, columns)
    # A zero has one sign in what was made by blocks.
    expected = (left @ right + 0.0).astype("<f8")
    product = (inputs / "product").read_bytes()
    checksum, of_numpy = hashlib.sha256(product).hexdigest(), hashlib.sha256(expected.tobytes()).hexdigest()
    equal = checksum == of_numpy
    if (inputs / "left").exists() or (inputs / "right").exists():
        given = np.frombuffer(product, dtype="<f8").reshape(rows, columns)
        equal = equal or bool(np.allclose(given, expected))
    job.log("check", equal=equal, checksum=checksum, numpy=of_numpy)
    job.result({"checksum": checksum, "numpy": of_numpy, "equal": equal})
    if not equal:
        raise SystemExit("the product is not NumPy's")


if __name__ == "__main__":
    main()
