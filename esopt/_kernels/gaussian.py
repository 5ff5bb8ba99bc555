"""Gaussian populations and their moments, regenerated from counters instead of stored.

A unit is one row of base noise eps_u; when ``mirrored`` it stands for rows 2u (+eps_u) and 2u + 1 (-eps_u) of the
population. Work is cut into tiles of columns that stay in the first-level cache. Sums over rows run in a fixed order
inside a tile: float32 within chunks of ``CHUNK`` units, then float64.
"""

import numpy as np
from numba import njit, prange

from .jit import kernel
from .philox import BLOCK, F32, fill_blocks

TILE = 2048
CHUNK = 256


@njit(inline="always")
def _blocks(width):
    return (width + BLOCK - 1) // BLOCK


@kernel()
def fill_row(out, column, row, generation, stream, seed):
    """Write eps[row, column : column + out.size] to ``out`` (float32), any column."""
    size = out.size
    at = 0
    scratch = np.empty(BLOCK, F32)
    offset = column % BLOCK
    if offset != 0:
        fill_blocks(scratch, column // BLOCK, 1, row, generation, stream, seed)
        at = min(size, BLOCK - offset)
        for j in range(at):
            out[j] = scratch[offset + j]
    whole = (size - at) // BLOCK
    fill_blocks(out[at:], (column + at) // BLOCK, whole, row, generation, stream, seed)
    done = at + whole * BLOCK
    if done < size:
        fill_blocks(scratch, (column + done) // BLOCK, 1, row, generation, stream, seed)
        for j in range(size - done):
            out[done + j] = scratch[j]


@kernel()
def fill(out, row, column, generation, stream, seed):
    """Write the rectangle of ``out.shape`` whose corner is (row, column)."""
    for i in range(out.shape[0]):
        fill_row(out[i], column, row + i, generation, stream, seed)


@njit(nogil=True)
def _displace_pair(noise, center, scale, plus, minus):
    """Write center + scale * noise to ``plus`` and center - scale * noise to ``minus``."""
    if scale.size == 1:
        spread = scale[0]
        for j in range(center.size):
            step = spread * np.float64(noise[j])
            plus[j] = center[j] + step
            minus[j] = center[j] - step
    else:
        for j in range(center.size):
            step = scale[j] * np.float64(noise[j])
            plus[j] = center[j] + step
            minus[j] = center[j] - step


@njit(nogil=True)
def _population_piece(piece, tiles, mean, scale, mirrored, start, generation, stream, seed, out):
    """Tile ``piece % tiles`` of the rows that unit ``piece // tiles`` (from row ``start`` on) stands for."""
    per = 2 if mirrored else 1
    unit = start // per + piece // tiles
    column = (piece % tiles) * TILE
    width = min(TILE, mean.size - column)
    noise = np.empty(_blocks(width) * BLOCK, F32)
    fill_blocks(noise, column // BLOCK, _blocks(width), unit, generation, stream, seed)
    first = unit * per - start
    if mirrored and 0 <= first and first + 1 < out.shape[0]:
        _displace_pair(
            noise, mean[column : column + width], scale if scale.size == 1 else scale[column : column + width],
            out[first, column : column + width], out[first + 1, column : column + width],
        )  # fmt: skip
        return
    for side in range(per):
        row = first + side
        if 0 <= row < out.shape[0]:
            sign = F32(1 - 2 * side)
            target = out[row, column : column + width]
            center = mean[column : column + width]
            if scale.size == 1:
                spread = scale[0]
                for j in range(width):
                    target[j] = center[j] + spread * np.float64(sign * noise[j])
            else:
                spreads = scale[column : column + width]
                for j in range(width):
                    target[j] = center[j] + spreads[j] * np.float64(sign * noise[j])


@kernel()
def population(mean, scale, mirrored, start, generation, stream, seed, out):
    """Rows start ... start + len(out) of mean + scale * eps; mean and scale float64, out float32 or float64."""
    per = 2 if mirrored else 1
    units = (start + out.shape[0] + per - 1) // per - start // per
    tiles = (mean.size + TILE - 1) // TILE
    for piece in range(units * tiles):
        _population_piece(piece, tiles, mean, scale, mirrored, start, generation, stream, seed, out)


@kernel(parallel=True)
def population_parallel(mean, scale, mirrored, start, generation, stream, seed, out):
    """Parallel twin of :func:`population`."""
    per = 2 if mirrored else 1
    units = (start + out.shape[0] + per - 1) // per - start // per
    tiles = (mean.size + TILE - 1) // TILE
    for piece in prange(units * tiles):
        _population_piece(piece, tiles, mean, scale, mirrored, start, generation, stream, seed, out)


@kernel()
def fold(weights, degrees, mirrored, coefficients, largest):
    """Weights of rows (m, n) to coefficients of units, relative to the largest of each vector.

    A mirrored unit counts w(+) - w(-) where the polynomial is odd and w(+) + w(-) where it is even.
    """
    for k in range(weights.shape[0]):
        sign = -1.0 if degrees[k] == 1 else 1.0
        most = 0.0
        for u in range(coefficients.shape[1]):
            c = weights[k, 2 * u] + sign * weights[k, 2 * u + 1] if mirrored else weights[k, u]
            most = max(most, abs(c))
        if not most > 0.0:
            most = 1.0
        largest[k] = most
        for u in range(coefficients.shape[1]):
            c = weights[k, 2 * u] + sign * weights[k, 2 * u + 1] if mirrored else weights[k, u]
            coefficients[k, u] = F32(c / most)


@njit(nogil=True)
def _moment_tile(tile, coefficients, degrees, generation, stream, seed, out, squares):
    """One tile of columns of sum_u c_u He(eps_u), and of the sum of squared terms where ``squares`` has rows."""
    vectors, units = coefficients.shape
    column = tile * TILE
    width = min(TILE, out.shape[1] - column)
    count = _blocks(width)
    wide = count * BLOCK
    noise = np.empty(wide, F32)
    partial = np.empty((vectors, wide), F32)
    partial_squares = np.empty((vectors if squares.shape[0] else 0, wide), F32)
    for first in range(0, units, CHUNK):
        partial[:] = F32(0.0)
        partial_squares[:] = F32(0.0)
        for u in range(first, min(first + CHUNK, units)):
            used = False
            for k in range(vectors):
                used = used or coefficients[k, u] != F32(0.0)
            if not used:
                continue
            fill_blocks(noise, column // BLOCK, count, u, generation, stream, seed)
            for k in range(vectors):
                c = coefficients[k, u]
                total = partial[k]
                if squares.shape[0]:
                    total_squares = partial_squares[k]
                    if degrees[k] == 1:
                        for j in range(wide):
                            term = F32(c * noise[j])
                            total[j] += term
                            total_squares[j] += term * term
                    else:
                        for j in range(wide):
                            term = F32(c * (noise[j] * noise[j] - F32(1.0)))
                            total[j] += term
                            total_squares[j] += term * term
                elif degrees[k] == 1:
                    for j in range(wide):
                        total[j] += c * noise[j]
                else:
                    for j in range(wide):
                        total[j] += c * (noise[j] * noise[j] - F32(1.0))
        for k in range(vectors):
            for j in range(width):
                out[k, column + j] += partial[k, j]
            if squares.shape[0]:
                for j in range(width):
                    squares[k, column + j] += partial_squares[k, j]


@kernel()
def moment(coefficients, degrees, generation, stream, seed, out, squares):
    """Add sum_u c[k, u] He_degree(eps_u) to out[k] and the sum of squared terms to squares[k] (or shape (0, d))."""
    for tile in range((out.shape[1] + TILE - 1) // TILE):
        _moment_tile(tile, coefficients, degrees, generation, stream, seed, out, squares)


@kernel(parallel=True)
def moment_parallel(coefficients, degrees, generation, stream, seed, out, squares):
    """Parallel twin of :func:`moment`."""
    for tile in prange((out.shape[1] + TILE - 1) // TILE):
        _moment_tile(tile, coefficients, degrees, generation, stream, seed, out, squares)


@njit(nogil=True)
def _dot_unit(unit, rows, generation, stream, seed, out):
    """rows[u] . eps_u in float64: one running sum per lane of a block, lanes added in order."""
    dim = rows.shape[1]
    row = rows[unit] if rows.shape[0] > 1 else rows[0]
    noise = np.empty(TILE, F32)
    lanes = np.zeros(BLOCK, np.float64)
    for column in range(0, dim, TILE):
        width = min(TILE, dim - column)
        fill_blocks(noise, column // BLOCK, _blocks(width), unit, generation, stream, seed)
        for block in range(0, width, BLOCK):
            for j in range(min(BLOCK, width - block)):
                lanes[j] += row[column + block + j] * np.float64(noise[block + j])
    total = 0.0
    for j in range(BLOCK):
        total += lanes[j]
    out[unit] = total


@kernel()
def dot(rows, generation, stream, seed, out):
    """out[u] = rows[u] . eps_u; one row in ``rows`` serves every unit."""
    for unit in range(out.size):
        _dot_unit(unit, rows, generation, stream, seed, out)


@kernel(parallel=True)
def dot_parallel(rows, generation, stream, seed, out):
    """Parallel twin of :func:`dot`."""
    for unit in prange(out.size):
        _dot_unit(unit, rows, generation, stream, seed, out)


@njit(nogil=True)
def _norm_unit(unit, weights, dim, generation, stream, seed, out):
    """sum_j weights[j] eps_uj**2 in float64, summed as in :func:`_dot_unit`; a single weight serves every column."""
    noise = np.empty(TILE, F32)
    lanes = np.zeros(BLOCK, np.float64)
    for column in range(0, dim, TILE):
        width = min(TILE, dim - column)
        fill_blocks(noise, column // BLOCK, _blocks(width), unit, generation, stream, seed)
        for block in range(0, width, BLOCK):
            for j in range(min(BLOCK, width - block)):
                weight = weights[column + block + j] if weights.size > 1 else weights[0]
                lanes[j] += weight * (np.float64(noise[block + j]) * np.float64(noise[block + j]))
    total = 0.0
    for j in range(BLOCK):
        total += lanes[j]
    out[unit] = total


@kernel()
def norms(weights, dim, generation, stream, seed, out):
    """out[u] = sum_j weights[j] eps_uj**2, with one weight for all columns or one for each."""
    for unit in range(out.size):
        _norm_unit(unit, weights, dim, generation, stream, seed, out)


@kernel(parallel=True)
def norms_parallel(weights, dim, generation, stream, seed, out):
    """Parallel twin of :func:`norms`."""
    for unit in prange(out.size):
        _norm_unit(unit, weights, dim, generation, stream, seed, out)


@njit(nogil=True)
def _weighted_tile(tile, rows, generation, stream, seed, out, squares):
    column = tile * TILE
    width = min(TILE, rows.shape[1] - column)
    noise = np.empty(_blocks(width) * BLOCK, F32)
    for u in range(rows.shape[0]):
        fill_blocks(noise, column // BLOCK, _blocks(width), u, generation, stream, seed)
        for j in range(width):
            term = rows[u, column + j] * np.float64(noise[j])
            out[column + j] += term
            if squares.size:
                squares[column + j] += term * term


@kernel()
def weighted(rows, generation, stream, seed, out, squares):
    """Add sum_u rows[u] * eps_u to ``out`` and the squared terms to ``squares`` (or size 0)."""
    for tile in range((rows.shape[1] + TILE - 1) // TILE):
        _weighted_tile(tile, rows, generation, stream, seed, out, squares)


@kernel(parallel=True)
def weighted_parallel(rows, generation, stream, seed, out, squares):
    """Parallel twin of :func:`weighted`."""
    for tile in prange((rows.shape[1] + TILE - 1) // TILE):
        _weighted_tile(tile, rows, generation, stream, seed, out, squares)
