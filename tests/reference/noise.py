"""Naive twins of the noise engine: plain integers, float64 formulas, exact sums.

Nothing here imports numba or the package. ``normals64`` is the textbook Box-Muller in float64 on the uniforms of the
kernels; ``normals32`` repeats their float32 arithmetic step by step and must agree to the bit.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint32]
F32 = np.float32

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF

BLOCK, LANES = 64, 16

# Highest degree first, as numpy.polyval wants them: log(1 + m) = m - m**2 / 2 + m**3 P(m), and sin(2 pi v) = v Q(v**2).
LOG = (
    -0.0763449966907501, 0.1276158094406128, -0.1316018253564835, 0.1420175731182098,
    -0.1662335693836212, 0.2000122666358948, -0.2500081956386566, 0.3333333134651184,
)  # fmt: skip
SINE = 39.71091842651367, -76.57498931884766, 81.60223388671875, -41.34167861938477, 6.283185482025146


def philox_words(c0: int, c1: int, c2: int, c3: int, seed: int) -> list[int]:
    """Philox4x32-10 in plain Python integers; the key words are the low and the high half of ``seed``."""
    k0, k1 = seed & LOW, seed >> 32
    for _ in range(10):
        high0, low0 = divmod(c0 * MULTIPLIERS[0], 1 << 32)
        high1, low1 = divmod(c2 * MULTIPLIERS[1], 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return [c0, c1, c2, c3]


def philox_arrays(c0: Bits, c1: int, c2: int, c3: int, seed: int) -> Bits:
    """The same for an array of first counter words: (m,) -> (m, 4)."""
    low = np.uint64(LOW)
    w = [np.asarray(c0, np.uint64)] + [np.full(np.shape(c0), c, np.uint64) for c in (c1, c2, c3)]
    k0, k1 = seed & LOW, seed >> 32
    for _ in range(10):
        p0, p1 = w[0] * np.uint64(MULTIPLIERS[0]), w[2] * np.uint64(MULTIPLIERS[1])
        w = [
            (p1 >> np.uint64(32)) ^ w[1] ^ np.uint64(k0),
            p1 & low,
            (p0 >> np.uint64(32)) ^ w[3] ^ np.uint64(k1),
            p0 & low,
        ]
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return np.stack(w, axis=-1).astype(np.uint32)


def row_bits(address: tuple[int, int, int], row: int, column: int, width: int) -> tuple[Bits, Bits, NDArray[np.bool_]]:
    """Return the two random words behind eps[row, column : column + width], and which of the pair each column is.

    ``address`` is (generation, stream, seed). Column j belongs to block j // 64 and there to lane j % 16 of quarter
    (j % 64) // 16. Counter 16 * block + lane gives four words; words 0 and 1 make quarters 0 and 1, 2 and 3 the others.
    """
    generation, stream, seed = address
    columns = np.arange(column, column + width, dtype=np.int64)
    quarter = columns % BLOCK // LANES
    counters = (columns // BLOCK * LANES + columns % LANES).astype(np.uint32)
    words = philox_arrays(counters, row, generation, stream, seed)
    first = (quarter // 2 * 2)[:, None]
    a, b = (np.take_along_axis(words, first + k, axis=1)[:, 0] for k in (0, 1))
    return a, b, quarter % 2 == 1


def uniform(a: Bits) -> NDArray[np.float64]:
    """(top 24 bits + 1/2) / 2**24, rounded to float32 as the kernels do."""
    return ((np.asarray(a) >> 8) * 2.0**-24 + 2.0**-25).astype(F32).astype(np.float64)


def turn(b: Bits) -> NDArray[np.float64]:
    """The angle in turns, in [-1/4, 1/4)."""
    return (np.asarray(b) >> 8) * 2.0**-25 - 0.25


def box_muller64(a: Bits, b: Bits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Box-Muller in float64: r sin(2 pi t) and +-r cos(2 pi t)."""
    radius, angle = np.sqrt(-2.0 * np.log(uniform(a))), 2.0 * np.pi * turn(b)
    return radius * np.sin(angle), np.where(np.asarray(b) & 1, -1.0, 1.0) * radius * np.cos(angle)


def fma32(a: NDArray[F32], b: NDArray[F32] | float, c: NDArray[F32] | float) -> NDArray[F32]:
    """a * b + c rounded once: exact product, sum rounded to odd in float64, then to float32."""
    product, addend = np.float64(a) * np.float64(F32(b)), np.float64(F32(c))
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    odd = np.nextafter(total, np.where(error > 0.0, np.inf, -np.inf))
    inexact = (error != 0.0) & (np.asarray(total).view(np.int64) & 1 == 0)
    return np.where(inexact, odd, total).astype(F32)


def radius32(a: Bits) -> NDArray[F32]:
    """sqrt(-2 log x) in the float32 steps of the kernel."""
    x = fma32((np.asarray(a) >> 8).astype(F32), 2.0**-24, 2.0**-25)
    mantissa, exponent = np.frexp(x)
    small = mantissa < np.uint32(0x3F3504F3).view(F32)  # sqrt(1/2)
    m = np.where(small, mantissa * F32(2), mantissa) - F32(1)
    p = np.full_like(m, LOG[0])
    for c in (*LOG[1:], -0.5):
        p = fma32(p, m, c)
    log = fma32(p, m * m, fma32((exponent - small).astype(F32), 0.6931471805599453, m))
    return np.sqrt(F32(-2) * log)


def sin32(v: NDArray[F32]) -> NDArray[F32]:
    """sin(2 pi v) in the float32 steps of the kernel."""
    z = v * v
    p = np.full_like(z, SINE[0])
    for c in SINE[1:]:
        p = fma32(p, z, c)
    return v * p


def box_muller32(a: Bits, b: Bits) -> tuple[NDArray[F32], NDArray[F32]]:
    """Box-Muller in the float32 steps of the kernel."""
    radius, t = radius32(a), turn(b).astype(F32)
    cosine = sin32(F32(0.25) - np.abs(t))
    return radius * sin32(t), radius * np.where(np.asarray(b) & 1, -cosine, cosine)


def normals64(address: tuple[int, int, int], row: int, column: int, width: int) -> NDArray[np.float64]:
    """eps[row, column : column + width] in float64."""
    a, b, second = row_bits(address, row, column, width)
    return np.where(second, *box_muller64(a, b)[::-1])


def normals32(address: tuple[int, int, int], row: int, column: int, width: int) -> NDArray[F32]:
    """eps[row, column : column + width] as the kernels have it, to the bit."""
    a, b, second = row_bits(address, row, column, width)
    return np.where(second, *box_muller32(a, b)[::-1])


def mirror(base: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows +base[0], -base[0], +base[1], -base[1] ..."""
    return np.stack([base, -base], axis=1).reshape(-1, base.shape[1])


def hermite(eps: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """He_1 = eps, He_2 = eps**2 - 1."""
    return eps if degree == 1 else eps * eps - 1.0


def exact_columns(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correctly rounded sum of each column: (n, d) -> (d,)."""
    return np.array([math.fsum(column) for column in terms.T])


def block_sums(terms: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Correctly rounded sums within blocks of rows: (n, d) -> (n / block, d)."""
    return np.array([exact_columns(terms[at : at + block]) for at in range(0, len(terms), block)])


def moment(
    eps: NDArray[np.float64], weights: NDArray[np.float64], degree: int, block: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return sum_i w_i He(eps_i), the sum of squared block sums, and the size of what was added, each (d,).

    The size is the Euclidean length of w_i eps_i, or of w_i (eps_i**2 + 1): float32 sums err by little next to it.
    """
    terms = weights[:, None] * hermite(eps, degree)
    blocks = terms if block == 1 else block_sums(terms, block)
    parts = weights[:, None] * (eps if degree == 1 else eps * eps + 1.0)
    return exact_columns(terms), exact_columns(blocks**2), np.sqrt((parts**2).sum(axis=0))


def weighted(
    eps: NDArray[np.float64], rows: NDArray[np.float64], block: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sum_i rows[i] * eps[i] and the sum of squared block sums, each (d,)."""
    terms = rows * eps
    blocks = terms if block == 1 else block_sums(terms, block)
    return exact_columns(terms), exact_columns(blocks**2)


def dot(eps: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows[i] . eps[i], (n,)."""
    return np.array([math.fsum(row * e) for row, e in zip(np.broadcast_to(rows, eps.shape), eps, strict=True)])


def round_to_float32(exact: Fraction) -> np.float32:
    """Round a rational number to the nearest float32, ties to even; subnormals included, overflow not."""
    if exact == 0:
        return F32(0.0)
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    return F32(math.copysign(float(round(size / unit) * unit), exact))
