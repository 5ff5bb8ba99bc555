"""Counter-based standard normals: Philox4x32-10, then Box-Muller in float32.

Data layout. A row is cut into blocks of 64 columns. Block ``b`` uses the sixteen counters ``16 b + i``; counter ``i``
gives four normals, which go to columns ``i``, ``i + 16``, ``i + 32`` and ``i + 48`` of the block. Stores are then
contiguous runs of sixteen and LLVM vectorises both loops over ``i``. The first loop leaves the random bits in the
output itself and the second turns them into normals in place: two short loops keep more of the pipeline busy than a
long one.

Bits depend on the address (seed, stream, generation, row, column) alone, never on the width of the row or on how a
rectangle is cut. Only integer operations and + - * fma sqrt in float32 are used, all rounded exactly as IEEE 754 says,
so the bits are those of any machine.

References
----------
Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, section 3.3.
Box, Muller (1958), A note on the generation of random normal deviates.
"""

import numpy as np
from numba import njit

from .fma import fma

U32, U64, F32, I32 = np.uint32, np.uint64, np.float32, np.int32

BLOCK = 64
LANES = 16

_MULTIPLIER_0 = U64(0xD2511F53)
_MULTIPLIER_1 = U64(0xCD9E8D57)
_WEYL_0 = U64(0x9E3779B9)
_WEYL_1 = U64(0xBB67AE85)
_LOW = U64(0xFFFFFFFF)
_HALF = U64(32)
_ROUNDS = 10


@njit(inline="always")
def philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds of Philox4x32 on one counter; all arguments and results uint32."""
    for _ in range(_ROUNDS):
        p0 = U64(c0) * _MULTIPLIER_0
        p1 = U64(c2) * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            U32(U32(p1 >> _HALF) ^ c1 ^ k0),
            U32(p1 & _LOW),
            U32(U32(p0 >> _HALF) ^ c3 ^ k1),
            U32(p0 & _LOW),
        )
        k0 = U32((U64(k0) + _WEYL_0) & _LOW)
        k1 = U32((U64(k1) + _WEYL_1) & _LOW)
    return c0, c1, c2, c3


@njit(inline="always")
def radius(u):
    """sqrt(-2 log x) for x = (top 24 bits of u + 1/2) / 2**24; at most 5.89.

    log x = e log 2 + log(1 + m) with 1 + m in [sqrt(1/2), sqrt(2)); log(1 + m) = m - m**2/2 + m**3 P(m), P of degree 7
    fitted by minimax with a relative error of 6.5e-9, so that float32 rounding (6e-8) dominates.
    """
    x = fma(F32(I32(u >> U32(8))), F32(2.0**-24), F32(2.0**-25))
    bits = F32(x).view(I32)
    exponent = I32(I32(bits - I32(0x3F3504F3)) >> I32(23))
    m = F32(I32(bits - I32(exponent << I32(23))).view(F32) - F32(1.0))
    p = fma(F32(-0.0763449966907501), m, F32(0.1276158094406128))
    p = fma(p, m, F32(-0.1316018253564835))
    p = fma(p, m, F32(0.1420175731182098))
    p = fma(p, m, F32(-0.1662335693836212))
    p = fma(p, m, F32(0.2000122666358948))
    p = fma(p, m, F32(-0.2500081956386566))
    p = fma(p, m, F32(0.3333333134651184))
    p = fma(p, m, F32(-0.5))
    log = fma(p, F32(m * m), fma(F32(exponent), F32(0.6931471805599453), m))
    return np.sqrt(F32(-2.0) * log)


@njit(inline="always")
def sin_turns(v):
    """sin(2 pi v) for |v| <= 1/4: odd polynomial of degree 9, relative error 4.3e-8 (2.8e-8 is float32's 2 pi)."""
    z = F32(v * v)
    p = fma(F32(39.71091842651367), z, F32(-76.57498931884766))
    p = fma(p, z, F32(81.60223388671875))
    p = fma(p, z, F32(-41.34167861938477))
    p = fma(p, z, F32(6.283185482025146))
    return F32(v * p)


@njit(inline="always")
def box_muller(a, b):
    """Two independent standard normals from two uint32.

    The top 24 bits of ``b`` pick an angle on the right half of the circle, its lowest bit the half.
    """
    r = radius(a)
    t = fma(F32(I32(b >> U32(8))), F32(2.0**-25), F32(-0.25))
    cosine = sin_turns(F32(F32(0.25) - abs(t)))
    flipped = I32(F32(cosine).view(I32) ^ I32(U32((b & U32(1)) << U32(31)).view(I32))).view(F32)
    return F32(r * sin_turns(t)), F32(r * flipped)


@njit
def fill_blocks(out, first, count, row, generation, stream, seed):
    """Write ``count`` whole blocks of a row, starting with block ``first``, to the start of ``out`` (float32)."""
    k0, k1 = U32(seed & _LOW), U32(seed >> _HALF)
    c1, c2, c3 = U32(row), U32(generation), U32(stream)
    for b in range(count):
        group = U32((U64(first + b) * U64(LANES)) & _LOW)
        at = b * BLOCK
        for i in range(LANES):
            a0, a1, a2, a3 = philox(U32(group + U32(i)), c1, c2, c3, k0, k1)
            out[at + i] = U32(a0).view(F32)
            out[at + i + LANES] = U32(a1).view(F32)
            out[at + i + 2 * LANES] = U32(a2).view(F32)
            out[at + i + 3 * LANES] = U32(a3).view(F32)
    for half in range(2 * count):
        at = half * 2 * LANES
        for i in range(LANES):
            z0, z1 = box_muller(F32(out[at + i]).view(U32), F32(out[at + i + LANES]).view(U32))
            out[at + i] = z0
            out[at + i + LANES] = z1
