"""Low rank beside a diagonal: x = mean + scale * (base eps + V^T B V eps), with V (m, d) in float32.

Every row does the same arithmetic whatever the rows beside it, so that a candidate's bits do not depend on how a
population is cut. Noise comes from its counters twice, once for the products V eps and once for the candidate, and is
never stored. A group of rows shares the tiles of V; the products run in float32 lanes within a tile, then in float64.
"""

import numpy as np
from numba import njit, prange

from .fma import fma
from .jit import kernel
from .philox import BLOCK, F32, fill_blocks

TILE = 2048
LANES = 64
GROUP = 16


@njit(nogil=True)
def _products(vectors, column, width, noise, sums):
    """Add V[k, column : column + width] . noise[u] to the lanes of sums[u, k], for two u at a time."""
    count = vectors.shape[0]
    partial = np.empty((4, LANES), F32)
    p00, p01, p10, p11 = partial[0], partial[1], partial[2], partial[3]
    z0, z1 = noise[0], noise[1]
    whole = width - width % (4 * LANES)
    for k in range(0, count, 2):
        other = min(k + 1, count - 1)
        partial[:] = F32(0.0)
        v0, v1 = vectors[k, column : column + width], vectors[other, column : column + width]
        for at in range(0, whole, 4 * LANES):
            a0, a1 = v0[at : at + LANES], v0[at + LANES : at + 2 * LANES]
            a2, a3 = v0[at + 2 * LANES : at + 3 * LANES], v0[at + 3 * LANES : at + 4 * LANES]
            b0, b1 = v1[at : at + LANES], v1[at + LANES : at + 2 * LANES]
            b2, b3 = v1[at + 2 * LANES : at + 3 * LANES], v1[at + 3 * LANES : at + 4 * LANES]
            w0, w1 = z0[at : at + LANES], z0[at + LANES : at + 2 * LANES]
            w2, w3 = z0[at + 2 * LANES : at + 3 * LANES], z0[at + 3 * LANES : at + 4 * LANES]
            x0, x1 = z1[at : at + LANES], z1[at + LANES : at + 2 * LANES]
            x2, x3 = z1[at + 2 * LANES : at + 3 * LANES], z1[at + 3 * LANES : at + 4 * LANES]
            for j in range(LANES):
                p00[j] = fma(a3[j], w3[j], fma(a2[j], w2[j], fma(a1[j], w1[j], fma(a0[j], w0[j], p00[j]))))
                p01[j] = fma(b3[j], w3[j], fma(b2[j], w2[j], fma(b1[j], w1[j], fma(b0[j], w0[j], p01[j]))))
                p10[j] = fma(a3[j], x3[j], fma(a2[j], x2[j], fma(a1[j], x1[j], fma(a0[j], x0[j], p10[j]))))
                p11[j] = fma(b3[j], x3[j], fma(b2[j], x2[j], fma(b1[j], x1[j], fma(b0[j], x0[j], p11[j]))))
        for at in range(whole, width, LANES):
            a, b = v0[at : min(at + LANES, width)], v1[at : min(at + LANES, width)]
            w, x = z0[at : at + LANES], z1[at : at + LANES]
            for j in range(a.size):
                p00[j] = fma(a[j], w[j], p00[j])
                p01[j] = fma(b[j], w[j], p01[j])
                p10[j] = fma(a[j], x[j], p10[j])
                p11[j] = fma(b[j], x[j], p11[j])
        s00, s01, s10, s11 = sums[0, k], sums[0, k + 1], sums[1, k], sums[1, k + 1]
        for j in range(LANES):
            s00[j] += np.float64(p00[j])
            s01[j] += np.float64(p01[j])
            s10[j] += np.float64(p10[j])
            s11[j] += np.float64(p11[j])


@njit(nogil=True)
def _combine(vectors, column, width, coefficients, noise):
    """Add sum_k c[k] V[k, column : column + width] to ``noise``, in the order of k."""
    count = vectors.shape[0]
    whole = count - count % 8
    for k in range(0, whole, 8):
        c0, c1, c2, c3 = coefficients[k], coefficients[k + 1], coefficients[k + 2], coefficients[k + 3]
        c4, c5, c6, c7 = coefficients[k + 4], coefficients[k + 5], coefficients[k + 6], coefficients[k + 7]
        v0, v1 = vectors[k, column : column + width], vectors[k + 1, column : column + width]
        v2, v3 = vectors[k + 2, column : column + width], vectors[k + 3, column : column + width]
        v4, v5 = vectors[k + 4, column : column + width], vectors[k + 5, column : column + width]
        v6, v7 = vectors[k + 6, column : column + width], vectors[k + 7, column : column + width]
        for j in range(width):
            s = fma(c3, v3[j], fma(c2, v2[j], fma(c1, v1[j], fma(c0, v0[j], noise[j]))))
            noise[j] = fma(c7, v7[j], fma(c6, v6[j], fma(c5, v5[j], fma(c4, v4[j], s))))
    for k in range(whole, count):
        c, v = coefficients[k], vectors[k, column : column + width]
        for j in range(width):
            noise[j] = fma(c, v[j], noise[j])


@njit(nogil=True)
def _group(group, mean, scale, base, vectors, core, mirrored, start, generation, stream, seed, out):
    """Rows of ``out`` that the units of the group stand for; a unit stands for eps, mirrored for -eps as well."""
    per = 2 if mirrored else 1
    count, dim = vectors.shape
    first = start // per + group * GROUP
    units = min(GROUP, (start + out.shape[0] + per - 1) // per - first)
    noise = np.zeros((2, TILE), F32)
    sums = np.zeros((units + 1, count + 1, LANES))
    for column in range(0, dim, TILE):
        width = min(TILE, dim - column)
        blocks = (width + BLOCK - 1) // BLOCK
        for u in range(0, units, 2):
            for side in range(min(2, units - u)):
                fill_blocks(noise[side], column // BLOCK, blocks, first + u + side, generation, stream, seed)
            _products(vectors, column, width, noise, sums[u : u + 2])
    coefficients = np.empty((units, count), F32)
    dots = np.empty(count)
    for u in range(units):
        for k in range(count):
            dots[k] = 0.0
            for j in range(LANES):
                dots[k] += sums[u, k, j]
        for i in range(count):
            total = 0.0
            for k in range(count):
                total += core[i, k] * dots[k]
            coefficients[u, i] = F32(total)
    shrink = F32(base)
    tile = noise[0]
    for column in range(0, dim, TILE):
        width = min(TILE, dim - column)
        blocks = (width + BLOCK - 1) // BLOCK
        for u in range(units):
            fill_blocks(tile, column // BLOCK, blocks, first + u, generation, stream, seed)
            for j in range(width):
                tile[j] = shrink * tile[j]
            _combine(vectors, column, width, coefficients[u], tile)
            for side in range(per):
                row = (first + u) * per + side - start
                if 0 <= row < out.shape[0]:
                    sign = F32(1 - 2 * side)
                    target, center = out[row, column : column + width], mean[column : column + width]
                    if scale.size == 1:
                        spread = scale[0]
                        for j in range(width):
                            target[j] = center[j] + spread * np.float64(sign * tile[j])
                    else:
                        spreads = scale[column : column + width]
                        for j in range(width):
                            target[j] = center[j] + spreads[j] * np.float64(sign * tile[j])


@njit(nogil=True)
def _groups(mirrored, start, rows):
    per = 2 if mirrored else 1
    units = (start + rows + per - 1) // per - start // per
    return (units + GROUP - 1) // GROUP


@kernel()
def population(mean, scale, base, vectors, core, mirrored, start, generation, stream, seed, out):
    """Rows start ... start + len(out); ``scale`` (1,) or (d,) and ``core`` = B (m, m) float64, ``out`` of any kind."""
    for group in range(_groups(mirrored, start, out.shape[0])):
        _group(group, mean, scale, base, vectors, core, mirrored, start, generation, stream, seed, out)


@kernel(parallel=True)
def population_parallel(mean, scale, base, vectors, core, mirrored, start, generation, stream, seed, out):
    """Parallel twin of :func:`population`."""
    for group in prange(_groups(mirrored, start, out.shape[0])):
        _group(group, mean, scale, base, vectors, core, mirrored, start, generation, stream, seed, out)


@kernel()
def dot(a, b):
    """Return a . b in float64: one running sum per lane, whatever the threads that BLAS would take."""
    lanes = np.zeros(LANES)
    for at in range(0, a.size, LANES):
        x, y = a[at : min(at + LANES, a.size)], b[at : min(at + LANES, a.size)]
        for j in range(x.size):
            lanes[j] += np.float64(x[j]) * np.float64(y[j])
    total = 0.0
    for j in range(LANES):
        total += lanes[j]
    return total


@kernel()
def project(vectors, row):
    """Return V row, (m,), in float64."""
    out = np.empty(vectors.shape[0])
    for k in range(out.size):
        out[k] = dot(vectors[k], row)
    return out


@kernel()
def expand(base, vectors, coefficients, row):
    """Return base row + V^T c, (d,), in float64."""
    out = base * row
    for first in range(0, out.size, TILE):
        part = out[first : min(first + TILE, out.size)]
        for k in range(vectors.shape[0]):
            c, v = coefficients[k], vectors[k, first : first + part.size]
            for j in range(part.size):
                part[j] += c * np.float64(v[j])
    return out


@kernel()
def apply(scale, base, vectors, core, eps, out):
    """out[i] = scale * (base eps[i] + V^T B V eps[i]) in float64, each row by itself."""
    for i in range(eps.shape[0]):
        dots = project(vectors, eps[i])
        coefficients = np.zeros(dots.size)
        for j in range(dots.size):
            for k in range(dots.size):
                coefficients[j] += core[j, k] * dots[k]
        out[i] = scale * expand(base, vectors, coefficients, eps[i])


@kernel()
def advance(vectors, keep, gain, row):
    """Return keep[k] V[k] + gain[k] row for every k, (m, d) float32."""
    after = np.empty_like(vectors)
    for k in range(vectors.shape[0]):
        a, b, before, own = keep[k], gain[k], vectors[k], after[k]
        for j in range(row.size):
            own[j] = F32(a * np.float64(before[j]) + b * row[j])
    return after


@kernel()
def dyads(gram, rates):
    """Return a and B of the product of the maps (1 - c_k) I + c_k v_k v_k^T, the first k applied first.

    ``gram`` (k, k) holds the products v_i . v_j. With d = a eps + sum_i b_i v_i before a map, v_k . d = a v_k . eps +
    sum_i gram[k, i] b_i: so the b are linear in the products V eps and nothing of size d is touched.
    """
    count = rates.size
    base, core = 1.0, np.zeros((count, count))
    for k in range(count):
        c = rates[k]
        for j in range(k):
            total = 0.0
            for i in range(k):
                total += gram[k, i] * core[i, j]
            core[k, j] = c * total
        core[k, k] = c * base
        for i in range(k):
            for j in range(k):
                core[i, j] *= 1.0 - c
        base *= 1.0 - c
    return base, core
