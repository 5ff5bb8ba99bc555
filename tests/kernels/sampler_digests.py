"""Hashes of what the samplers' kernels write, to compare machines, and the interpreter with the compiler.

Run as a program it prints them as JSON; with NUMBA_DISABLE_JIT=1 that is the interpreter's answer.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from esopt import Hadamard, Key, LowRank, Orthogonal, Rademacher, Sphere
from esopt._kernels import tiles
from esopt.protocols import Sampler

KEYS = Key(0), Key(2**64 - 1, 2**32 - 1, 2**31), Key(2**63 + 12345, 2**31, 16)
SAMPLERS: dict[str, tuple[Sampler, int, int]] = {
    # rows, columns
    "orthogonal": (Orthogonal(4), 8, 70),
    "orthogonal_beyond_dim": (Orthogonal(7), 7, 3),
    "sphere": (Sphere(), 3, 70),
    "rademacher": (Rademacher(), 3, 300),
    "hadamard": (Hadamard(3), 6, 300),
    "low_rank": (LowRank(rank=3, shapes=((4, 3), (5,))), 2, 17),
}


def _hash(*arrays: np.ndarray[Any, Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:32]


def rows(name: str) -> str:
    """Hash of all rows of one sampler at three addresses."""
    sampler, n, dim = SAMPLERS[name]
    return _hash(*[sampler.noise(key, n, dim).rows() for key in KEYS])


def moments() -> str:
    """Hash of the sums over two tiles."""
    sums, squares = np.zeros((2, 6)), np.zeros((2, 6))
    weights, tile = np.linspace(-1.0, 2.0, 16).reshape(2, 8), np.linspace(-2.0, 1.0, 12, dtype=np.float32)
    for row, column in ((0, 0), (4, 3)):
        tiles.moments(tile.reshape(4, 3), weights, np.array([1, 2]), 2, row, column, sums, squares)
    return _hash(sums, squares)


def everything() -> dict[str, str]:
    """All of them, at sizes that the interpreter does in a second."""
    return {**{name: rows(name) for name in SAMPLERS}, "moments": moments()}


if __name__ == "__main__":
    print(json.dumps(everything(), indent=1))
