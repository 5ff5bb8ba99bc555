"""Gradients in a factor L of the covariance: the local matrix S = 1/2 L^T E[Hessian f] L, (d, d), and its errors.

Every estimator of S is the symmetric part of sum_i l_i r_i^T, for values less sum_i c_i times I (theory: Stein's
identities of first and second order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..noise import Array, Noise
from ._blocks import divide_with_error

Pair = Callable[[slice], tuple[Array, Array]]
"""Rows to the left and right factors of their terms, (m, d) each; m may be half the rows, but whole blocks."""

_CHUNK = 2**18
"""Numbers in an array of rows or of small matrices at a time."""


def chunks(n: int, dim: int, block: int) -> Iterator[slice]:
    """Yield slices of whole blocks that cover ``n`` rows of ``dim`` numbers."""
    height = max(1, _CHUNK // (dim * block)) * block
    for start in range(0, n, height):
        yield slice(start, min(start + height, n))


def scores(
    noise: Noise, weights: Array, factor: Array, blocks: int, scale_weights: Array | None
) -> tuple[Array, Array, Array | None, Array | None]:
    """Return L^-T sum w eps and 1/2 sum w (eps eps^T - I), each with its standard error (F1, F2).

    ``weights`` and those of the matrix, ``scale_weights``, are (n,), those of dropped rows zero, for ``blocks`` usable
    blocks; None leaves the matrix out.
    """
    dim, block, inverse = noise.dim, noise.block, np.linalg.inv(factor)
    mean, squares = np.zeros(dim), np.zeros(dim)
    for rows in chunks(noise.n, dim, block):
        terms = noise.rows(rows.start, rows.stop) * weights[rows, None]
        by_block = terms.reshape(-1, block, dim).sum(axis=1) @ inverse
        mean += by_block.sum(axis=0)
        squares += np.einsum("ij,ij->j", by_block, by_block)
    mean, error = divide_with_error(mean, squares, blocks)
    if scale_weights is None:
        return mean, error, None, None
    half, folded = 0.5 * scale_weights, 2 if noise.mirrored else 1
    if noise.mirrored:
        half = half[::2] + half[1::2]

    def pair(rows: slice) -> tuple[Array, Array]:
        eps = noise.rows(rows.start, rows.stop)[::folded].astype(np.float64)
        return eps * half[rows.start // folded : rows.stop // folded, None], eps

    constants = half.reshape(-1, block // folded).sum(axis=1)
    return mean, error, *local_matrix(noise, pair, blocks, block // folded, constants)


def slopes(noise: Noise, grads: Array, factor: Array, blocks: int) -> tuple[Array, Array]:
    """Return 1/4 sum (L^T g eps^T + eps g^T L) and its standard error (F3, F4); grads (n, d) are weighted."""
    mirrored = noise.mirrored

    def pair(rows: slice) -> tuple[Array, Array]:
        own, eps = grads[rows], noise.rows(rows.start, rows.stop)[:: 2 if mirrored else 1].astype(np.float64)
        return (own[::2] - own[1::2] if mirrored else own) @ (0.5 * factor), eps

    return local_matrix(noise, pair, blocks, noise.block // 2 if mirrored else noise.block)


def local_matrix(
    noise: Noise, pair: Pair, blocks: int, block: int, constants: Array | None = None, metric: Array | None = None
) -> tuple[Array, Array]:
    """Return the symmetric part of sum_i l_i r_i^T less sum_b c_b I, (d, d), and its standard error.

    ``block`` counts rows of a pair, ``constants`` c are one for each block. With ``metric``, (d, d), sum_b c_b times it
    is taken off instead of I. Nothing of size (n, d, d) is built.
    """
    dim, first = noise.dim, 0
    total, squares = np.zeros((dim, dim)), np.zeros((dim, dim))
    sums, square_sums, cross = np.zeros(dim), np.zeros(dim), np.zeros((dim, dim))
    for rows in chunks(noise.n, dim, noise.block):
        left, right = pair(rows)
        total += left.T @ right
        squares += _block_squares(left, right, block)
        diagonal = (left * right).reshape(-1, block, dim).sum(axis=1)
        if constants is not None:
            own = constants[first : first + len(diagonal)]
            if metric is None:
                diagonal -= own[:, None]
            else:
                cross += (left * np.repeat(own, block)[:, None]).T @ right
        first += len(diagonal)
        sums += diagonal.sum(axis=0)
        square_sums += np.einsum("ij,ij->j", diagonal, diagonal)
    total = 0.5 * (total + total.T)
    np.fill_diagonal(total, sums)
    np.fill_diagonal(squares, square_sums)
    if constants is not None and metric is not None:
        # sum (s - c G)^2 = sum s^2 - 2 G sum c s + G^2 sum c^2
        total -= constants.sum() * metric
        squares += np.square(metric) * (constants @ constants) - metric * (cross + cross.T)
    flat = divide_with_error(total.reshape(-1), squares.reshape(-1), blocks)
    return flat[0].reshape(dim, dim), flat[1].reshape(dim, dim)


def _block_squares(left: Array, right: Array, block: int) -> Array:
    """Return the sum over blocks of the squared entries of the symmetric part of sum_{i in block} l_i r_i^T, (d, d)."""
    if block == 1:
        # (l_j r_k + l_k r_j)^2 = l_j^2 r_k^2 + l_k^2 r_j^2 + 2 (l_j r_j) (l_k r_k)
        cross, own = np.square(left).T @ np.square(right), left * right
        return np.asarray(0.25 * (cross + cross.T + 2.0 * (own.T @ own)))
    dim = left.shape[1]
    a, b = left.reshape(-1, block, dim), right.reshape(-1, block, dim)
    squares, step = np.zeros((dim, dim)), max(1, _CHUNK // dim**2)
    for start in range(0, len(a), step):
        part = a[start : start + step].transpose(0, 2, 1) @ b[start : start + step]
        part += part.transpose(0, 2, 1).copy()
        squares += np.einsum("bij,bij->ij", part, part)
    return 0.25 * squares
