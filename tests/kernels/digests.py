"""Hashes of what the kernels write, to compare machines, and the interpreter with the compiler.

Run as a program it prints them as JSON; with NUMBA_DISABLE_JIT=1 that is the interpreter's answer.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from esopt._kernels import gaussian, seeds

ADDRESSES = (
    # row, column, generation, stream, seed
    (0, 0, 0, 0, 0),
    (2**31 + 3, 17, 5, 1, 2**32 + 1),
    (2**32 - 16, 2**32 + 40, 2**32 - 1, 2**31, 2**64 - 1),
    (7, 2**34 - 192, 2**31, 16, 2**63 + 12345),
)


def _hash(*arrays: np.ndarray[Any, Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def noise(rows: int, columns: int) -> str:
    """Hash of one rectangle at each address."""
    out = np.empty((len(ADDRESSES), rows, columns), np.float32)
    for rectangle, (row, column, generation, stream, seed) in zip(out, ADDRESSES, strict=True):
        gaussian.fill(rectangle, row, column, generation, stream, np.uint64(seed))
    return _hash(out)


def population(kind: type[np.floating[Any]]) -> str:
    """Hash of 5 mirrored rows, from an odd one on, with a vector scale, and of 2 plain rows with a scalar."""
    mean, scale = np.linspace(-1.0, 1.0, 100), np.linspace(0.1, 3.0, 100)
    mirrored, plain = np.empty((5, 100), kind), np.empty((2, 100), kind)
    gaussian.population(mean, scale, True, 3, 4, 0, np.uint64(9), mirrored)
    gaussian.population(mean, scale[:1], False, 1, 4, 0, np.uint64(9), plain)
    return _hash(mirrored, plain)


def evaluation_seeds() -> str:
    """Hash of 40 seeds."""
    out = np.empty(40, np.uint64)
    seeds.hash_rows(1, 2**31 - 20, 3, 1, np.uint64(2**40 + 5), out)
    return _hash(out)


def sums() -> str:
    """Hash of one small result of each kernel that adds up."""
    at = 3, 0, np.uint64(11)
    weights, largest = np.empty((2, 5), np.float32), np.empty(2)
    gaussian.fold(np.linspace(-1.0, 1.0, 20).reshape(2, 10), np.array([1, 2]), True, weights, largest)
    rows = np.outer(np.arange(1.0, 4.0), np.linspace(-2.0, 1.0, 100))
    moments, squares = np.zeros((2, 100)), np.zeros((2, 100))
    gaussian.moment(weights, np.array([1, 2]), *at, moments, squares)
    plain, dots, norms = np.zeros((2, 100)), np.zeros(3), np.zeros(3)
    gaussian.moment(weights, np.array([2, 1]), *at, plain, np.zeros((0, 100)))
    gaussian.dot(rows, *at, dots)
    gaussian.norms(np.ones(1), 100, *at, norms)
    total, total_squares = np.zeros(100), np.zeros(100)
    gaussian.weighted(rows, *at, total, total_squares)
    return _hash(largest, moments, squares, plain, dots, norms, total, total_squares)


def small() -> dict[str, str]:
    """All of them at sizes that the interpreter does in a second."""
    return {
        "noise": noise(2, 192),
        "population32": population(np.float32),
        "population64": population(np.float64),
        "seeds": evaluation_seeds(),
        "sums": sums(),
    }


if __name__ == "__main__":
    print(json.dumps(small()))
