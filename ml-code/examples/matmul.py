"""Multiplies seeded n x n blocks and tells a checksum and the speed. Alone, or as a task of type `python`.

    python matmul.py --n 512 --blocks 4 --seed 1

The elements are whole numbers from -8 to 8 in float64, so that every product is exact whatever the BLAS, its threads and its order of additions:
the checksum is a function of n, blocks and seed. The speed is not.
"""

import argparse
import hashlib
import time

import numpy as np

import raftgrid

N_MAX = 16_384
ELEMENT_MAX = 8


def block(n: int, seed: int, number: int, side: int) -> np.ndarray:
    """float64[n, n]: the left (side 0) or right (side 1) factor of a block."""
    rng = np.random.default_rng([seed, number, side])
    return rng.integers(-ELEMENT_MAX, ELEMENT_MAX, size=(n, n), endpoint=True).astype(np.float64)


def options(config: dict) -> argparse.Namespace:
    """Flags; the job's configuration gives their defaults."""
    parser = argparse.ArgumentParser(description="multiply seeded blocks")
    parser.add_argument("--n", type=int, default=config.get("n", 512), help="rows and columns of a block")
    parser.add_argument("--blocks", type=int, default=config.get("blocks", 4))
    parser.add_argument("--seed", type=int, default=config.get("seed", 1))
    args = parser.parse_args()
    if not 1 <= args.n <= N_MAX:
        parser.error(f"--n {args.n}: from 1 to {N_MAX}")
    if args.blocks < 1 or args.seed < 0:
        parser.error("--blocks must be at least 1 and --seed at least 0")
    return args


def main() -> None:
    job = raftgrid.init()
    args = options(job.config)
    checksum = hashlib.sha256()
    spent_s = 0.0
    for number in range(args.blocks):
        left, right = block(args.n, args.seed, number, 0), block(args.n, args.seed, number, 1)
        begun_s = time.perf_counter()
        product = left @ right
        spent_s += time.perf_counter() - begun_s
        checksum.update(product.astype("<i8").tobytes())
        if job.should_stop:
            raise SystemExit("stopped")
    gflops = 2.0 * args.n**3 * args.blocks / max(spent_s, 1e-9) / 1e9
    job.log("matmul", n=args.n, blocks=args.blocks, checksum=checksum.hexdigest(), gflops=f"{gflops:.2f}")
    job.result({"n": args.n, "blocks": args.blocks, "checksum": checksum.hexdigest(), "gflops": gflops})


if __name__ == "__main__":
    main()
