"""Sums for the mixture of values and gradients: noise regenerated, gradients read once, column tile by column tile.

Block ``k`` of those kept belongs to half k % 2. P_k is the mean of its gradients, T_h the sum of P over half h. Noise
comes from ``eps`` (n, d), or from the counters where that has no rows. Sums over columns are made for every tile apart
and added in order by the caller; sums over blocks run in the order of the blocks.
"""

import numpy as np
from numba import njit, prange

from .directions import LANES, _dot
from .jit import kernel
from .philox import BLOCK, F32, fill_blocks

TILE = 1024

# One loop to a function: a loop over many arrays is not vectorised, for fear that they overlap.


@njit(nogil=True)
def _add(out, a):
    for j in range(out.size):
        out[j] += a[j]


@njit(nogil=True)
def _add_times(out, factor, a):
    for j in range(out.size):
        out[j] += factor * a[j]


@njit(nogil=True)
def _add_product(out, a, b):
    for j in range(out.size):
        out[j] += a[j] * b[j]


@njit(nogil=True)
def _add_square(out, a):
    for j in range(out.size):
        out[j] += a[j] * a[j]


@njit(nogil=True)
def _subtract(out, a):
    for j in range(out.size):
        out[j] -= a[j]


@njit(nogil=True)
def _rest(out, total):
    for j in range(out.size):
        out[j] = total[j] - out[j]


@njit(nogil=True)
def _copy(out, a):
    for j in range(out.size):
        out[j] = a[j]


@njit(nogil=True)
def _scale(out, sigma, column):
    if sigma.size == 1:
        s = sigma[0]
        for j in range(out.size):
            out[j] *= s
    else:
        part = sigma[column : column + out.size]
        for j in range(out.size):
            out[j] *= part[j]


@njit(nogil=True)
def _times_sign(out, sign, a):
    for j in range(out.size):
        out[j] = sign * a[j]


@njit(nogil=True)
def _noise(row, column, eps, mirrored, generation, stream, seed, scratch, out):
    """Write eps[row, column : column + out.size] to ``out``; ``scratch`` keeps a mirrored unit for its second row."""
    if eps.shape[0]:
        _copy(out, eps[row, column : column + out.size])
        return
    second = mirrored and row % 2 == 1
    if not second:
        count = (out.size + BLOCK - 1) // BLOCK
        fill_blocks(scratch, column // BLOCK, count, row // 2 if mirrored else row, generation, stream, seed)
    sign = F32(-1.0) if second else F32(1.0)
    _times_sign(out, sign, scratch)


@njit(nogil=True)
def _mean_gradient(grads, first, block, column, out):
    """Write the mean of rows first ... first + block - 1 of the tile of gradients to ``out``."""
    _copy(out, grads[first, column : column + out.size])
    for i in range(1, block):
        _add(out, grads[first + i, column : column + out.size])
    if block > 1:
        for j in range(out.size):
            out[j] /= block


@njit(nogil=True)
def _rest_tile(tile, grads, kept, block, sigma, eps, mirrored, generation, stream, seed, sums, lengths, products):
    column = tile * TILE
    width = min(TILE, grads.shape[1] - column)
    scratch, lanes = np.empty(TILE, F32), np.empty(LANES)
    mean, noise = np.empty(width), np.empty(width)
    for k in range(kept.size):
        _mean_gradient(grads, kept[k] * block, block, column, mean)
        _add(sums[k % 2, column : column + width], mean)
    for k in range(kept.size):
        _mean_gradient(grads, kept[k] * block, block, column, mean)
        lengths[tile, 0, k] = _dot(mean, mean, lanes)
        _rest(mean, sums[k % 2, column : column + width])
        lengths[tile, 1, k] = _dot(mean, mean, lanes)
        _scale(mean, sigma, column)
        for i in range(block):
            _noise(kept[k] * block + i, column, eps, mirrored, generation, stream, seed, scratch, noise)
            products[tile, k * block + i] = _dot(mean, noise, lanes)


@kernel()
def rest(grads, kept, block, sigma, eps, mirrored, generation, stream, seed, sums, lengths, products):
    """Write T_h to ``sums`` (2, d), which must be 0, and what tangents made of it need.

    That is |P_k|^2 and |T_h - P_k|^2, to ``lengths`` (tiles, 2, B), and (T_h - P_k) . sigma eps_i for every row i of
    block k, to ``products`` (tiles, B * block).
    """
    for tile in range(lengths.shape[0]):
        _rest_tile(tile, grads, kept, block, sigma, eps, mirrored, generation, stream, seed, sums, lengths, products)


@kernel(parallel=True)
def rest_parallel(grads, kept, block, sigma, eps, mirrored, generation, stream, seed, sums, lengths, products):
    """Parallel twin of :func:`rest`."""
    for tile in prange(lengths.shape[0]):
        _rest_tile(tile, grads, kept, block, sigma, eps, mirrored, generation, stream, seed, sums, lengths, products)


@njit(nogil=True)
def _score(rows, block, weights, inverse, column, eps, mirrored, generation, stream, seed, scratch, noise, out):
    """Write sum_i weights[i] eps_i / sigma over the block from row ``rows`` on to ``out``."""
    out[:] = 0.0
    for i in range(block):
        _noise(rows + i, column, eps, mirrored, generation, stream, seed, scratch, noise)
        _add_times(out, weights[i], noise)
    _scale(out, inverse, column)


@njit(nogil=True)
def _distance(delta, slope, total, mean):
    for j in range(delta.size):
        delta[j] += slope * (total[j] - mean[j]) - mean[j]


@njit(nogil=True)
def _sides_tile(
    tile, grads, kept, block, sigma, eps, mirrored, generation, stream, seed,
    weights, tangents, sums, known, centers, dropped, columns, products,
):  # fmt: skip
    column = tile * TILE
    width = min(TILE, grads.shape[1] - column)
    depth = products.shape[1] - 1
    inverse, scratch, lanes = 1.0 / sigma, np.empty(TILE, F32), np.empty(LANES)
    mean, noise, ring = np.empty(width), np.empty(width), np.empty((depth, width))
    for k in range(kept.size):
        half, first, delta = k % 2, kept[k] * block, ring[k % depth]
        _score(first, block, weights[k * block : (k + 1) * block], inverse, column, eps, mirrored, generation, stream,
               seed, scratch, noise, delta)  # fmt: skip
        _mean_gradient(grads, first, block, column, mean)
        _distance(delta, tangents[k], sums[half, column : column + width], mean)
        _add(delta, known[half, column : column + width])
        _subtract(mean, centers[half, column : column + width])
        if dropped[k]:
            _add(mean, delta)
            delta[:] = 0.0
        _add(columns[half, 0, column : column + width], delta)
        _add_square(columns[half, 1, column : column + width], delta)
        _add(columns[half, 2, column : column + width], mean)
        _add_square(columns[half, 3, column : column + width], mean)
        _add_product(columns[half, 4, column : column + width], mean, delta)
        for lag in range(min(depth, k + 1)):
            products[tile, lag, k] = _dot(delta, ring[(k - lag) % depth], lanes)
        products[tile, depth, k] = _dot(mean, mean, lanes)


@kernel()
def sides(
    grads, kept, block, sigma, eps, mirrored, generation, stream, seed,
    weights, tangents, sums, known, centers, dropped, columns, products,
):  # fmt: skip
    """Write the sums of delta, delta^2, q, q^2 and q delta over each half to ``columns`` (2, 5, d), which must be 0.

        S_k = sum_i weights_i eps_i / sigma + tangents_k (T_h - P_k) + known_h,  delta_k = S_k - P_k,
        q_k = P_k - centers_h,

    and q_k + delta_k and 0 instead of q_k and delta_k for a block that is ``dropped``. ``products``
    (tiles, lags + 2, B), 0 before, takes delta_k . delta_(k - lag) for lag = 0, 1, ..., and last |q_k|^2.
    """
    for tile in range(products.shape[0]):
        _sides_tile(tile, grads, kept, block, sigma, eps, mirrored, generation, stream, seed,
                    weights, tangents, sums, known, centers, dropped, columns, products)  # fmt: skip


@kernel(parallel=True)
def sides_parallel(
    grads, kept, block, sigma, eps, mirrored, generation, stream, seed,
    weights, tangents, sums, known, centers, dropped, columns, products,
):  # fmt: skip
    """Parallel twin of :func:`sides`."""
    for tile in prange(products.shape[0]):
        _sides_tile(tile, grads, kept, block, sigma, eps, mirrored, generation, stream, seed,
                    weights, tangents, sums, known, centers, dropped, columns, products)  # fmt: skip
