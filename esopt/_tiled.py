"""Sums over noise that is read tile by tile: what every kind of noise without kernels of its own shares."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._kernels import tiles

if TYPE_CHECKING:
    from .noise import Array, Noise


@cache
def degree_array(degrees: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the degrees as the array that kernels read."""
    return np.array(degrees, np.int64)


def check_rows(noise: Noise, rows: Array, *, one: bool = False) -> Array:
    """Return ``rows`` as the C-contiguous float64 (n, d) array that kernels read without looking."""
    if rows.shape != (noise.n, noise.dim) and not (one and rows.shape == (1, noise.dim)):
        raise ValueError(
            f"got rows of shape {rows.shape} for noise of shape {(noise.n, noise.dim)}. Pass one row for each."
        )
    return np.ascontiguousarray(rows, np.float64)


def displace(noise: Noise, mean: Array, scale: Array, start: int, out: NDArray[Any]) -> None:
    """Serve :meth:`esopt.noise.Noise.displace`."""
    out[...] = mean + scale * noise.rows(start, start + len(out)).astype(np.float64)


def moments(noise: Noise, weights: Array, degrees: Sequence[int], squares: bool) -> tuple[Array, Array]:
    """Serve :meth:`esopt.noise.Noise.moments`."""
    sums = np.zeros((len(weights), noise.dim))
    block_squares = np.zeros((len(weights) if squares else 0, noise.dim))
    kinds, table = degree_array(tuple(degrees)), np.ascontiguousarray(weights)
    for rows, columns, tile in noise.tiles():
        tiles.moments(tile, table, kinds, noise.block, rows.start, columns.start, sums, block_squares)
    return sums, block_squares


def dot(noise: Noise, rows: Array) -> Array:
    """Serve :meth:`esopt.noise.Noise.dot`."""
    rows = check_rows(noise, rows, one=True)
    out = np.zeros(noise.n)
    for at, columns, eps in noise.tiles():
        out[at] += np.einsum("ij,ij->i", rows[at if len(rows) > 1 else slice(0, 1), columns], eps)
    return out


def norms(noise: Noise, weights: Array) -> Array:
    """Serve :meth:`esopt.noise.Noise.norms`."""
    out = np.zeros(noise.n)
    for at, columns, eps in noise.tiles():
        own = weights[columns] if weights.size > 1 else weights
        out[at] += (own * np.square(eps, dtype=np.float64)).sum(axis=1)
    return out


def check_weights(noise: Noise, weights: Array | None) -> Array:
    """Return ``weights`` as the (1,) or (d,) array that kernels read."""
    if weights is None:
        return np.ones(1)
    if weights.shape not in ((1,), (noise.dim,)):
        raise ValueError(f"got weights of shape {weights.shape} for noise of {noise.dim} columns. Pass (1,) or (d,).")
    return np.array(weights, np.float64)


def weighted(noise: Noise, rows: Array, squares: bool) -> tuple[Array, Array]:
    """Serve :meth:`esopt.noise.Noise.weighted`."""
    rows = check_rows(noise, rows)
    out, block_squares = np.zeros(noise.dim), np.zeros(noise.dim if squares else 0)
    for at, columns, eps in noise.tiles():
        terms = rows[at, columns] * eps
        by_block = terms.reshape(-1, noise.block, terms.shape[1]).sum(axis=1)
        out[columns] += by_block.sum(axis=0)
        if squares:
            block_squares[columns] += (by_block * by_block).sum(axis=0)
    return out, block_squares
