"""Rows of random signs, 32 to a Philox word: independent ones, and rows of a Hadamard matrix with random signs.

Layout: 2048 columns are 16 counters x 4 output words x 32 bits. Column j is bit (j % 2048) // 64 of output word
(j % 64) // 16 of the counter (16 (j // 2048) + j % 16, row, generation, stream); a set bit is -1. So a run of 64
columns is one bit of 64 words, and both Philox and the unpacking of bits run along vectors.

A Hadamard group of P = 2**bits rows has random column signs D, the signs of row number ``group``, and a random nonzero
element a of the field GF(P). Row r of the group is D_j (-1)**popcount(i & j) with i = a r, the product in the field: a
bijection of the P rows under which the pattern i ^ i' of any two of them, and with it their elementwise product, is
uniform over all patterns but 0.

References
----------
Yu et al. (2016), Orthogonal random features, section 4 (rows of H D).
"""

import numpy as np
from numba import njit

from .jit import kernel
from .philox import F32, LANES, U32, U64, philox

RUN = 4 * LANES
GROUP = 32 * RUN

_ONE = U32(0x3F800000)
_TOP = U32(0x80000000)
_FULL = U32(0xFFFFFFFF)
_HALF = U64(32)

# x**m + ...: the remaining terms of the smallest irreducible polynomial over GF(2) of degree m = 1 ... 31.
POLYNOMIALS = (
    1, 3, 3, 3, 5, 3, 3, 27, 3, 9, 5, 9, 27, 33, 3, 43, 9, 9, 39, 9, 5, 3, 33, 27, 9, 27, 39, 3, 5, 3, 9,
)  # fmt: skip


@njit
def _group_words(words, group, row, generation, stream, seed):
    """Write the 64 words of one group of columns."""
    k0, k1 = U32(seed & U64(_FULL)), U32(seed >> _HALF)
    c1, c2, c3 = U32(row), U32(generation), U32(stream)
    first = U32((U64(group) * U64(LANES)) & U64(_FULL))
    for i in range(LANES):
        a0, a1, a2, a3 = philox(U32(first + U32(i)), c1, c2, c3, k0, k1)
        words[i] = a0
        words[i + LANES] = a1
        words[i + 2 * LANES] = a2
        words[i + 3 * LANES] = a3


@njit
def _unpack(out, words, start, column):
    """Write the columns of the group that begins at ``start`` to ``out``, a row that begins at ``column``."""
    first, stop = max(start, column), min(start + GROUP, column + out.size)
    for run in range((first - start) // RUN, (stop - start + RUN - 1) // RUN):
        low, high = max(start + run * RUN, first), min(start + (run + 1) * RUN, stop)
        target = out[low - column : high - column]
        source = words[low % RUN :]
        shift = U32(31 - run)
        # The bit becomes the sign bit of 1.0.
        for j in range(high - low):
            target[j] = U32(_ONE | U32(U32(source[j] << shift) & _TOP)).view(F32)


@kernel()
def fill(out, row, column, generation, stream, seed):
    """Write the rectangle of ``out.shape`` whose corner is (row, column): independent signs."""
    words = np.empty(RUN, U32)
    for i in range(out.shape[0]):
        for group in range(column // GROUP, (column + out.shape[1] + GROUP - 1) // GROUP):
            _group_words(words, group, row + i, generation, stream, seed)
            _unpack(out[i], words, group * GROUP, column)


@kernel()
def field_product(a, b, bits, polynomial):
    """Return a * b in GF(2**bits)."""
    product = 0
    for _ in range(bits):
        if b & 1:
            product ^= a
        b >>= 1
        a <<= 1
        if (a >> bits) & 1:
            a ^= polynomial
    return product


@kernel()
def multiplier(group, bits, generation, stream, seed):
    """Return a random element of GF(2**bits) other than 0, from the last column group of the row."""
    k0, k1 = U32(seed & U64(_FULL)), U32(seed >> _HALF)
    word, _, _, _ = philox(_FULL, U32(group), U32(generation), U32(stream), k0, k1)
    return 1 + ((np.int64(word) * ((1 << bits) - 1)) >> 32)


@njit
def _parity(x):
    for shift in (16, 8, 4, 2, 1):
        x ^= x >> shift
    return x & 1


@njit
def _walsh(words, signs, number, start):
    """Write ``signs`` with bit b of word w flipped where popcount(number & (start + 64 b + w)) is odd."""
    pattern = U32(0)
    high = number // RUN
    for b in range(32):
        if _parity(high & b):
            pattern |= U32(U32(1) << U32(b))
    if _parity(number & start):
        pattern ^= _FULL
    for w in range(RUN):
        odd = (U32(0x6996) >> U32((number & w) & 15)) & U32(1)
        odd ^= (U32(0x6996) >> U32((number & w) >> 4)) & U32(1)
        words[w] = U32(signs[w] ^ pattern ^ (_FULL if odd else U32(0)))


@kernel()
def fill_hadamard(out, row, column, block, bits, polynomial, generation, stream, seed):
    """Write a rectangle of rows in blocks of ``block``; a block is cut into groups of at most 2**bits rows."""
    order = 1 << bits
    per_block = (block + order - 1) // order
    signs, words = np.empty(RUN, U32), np.empty(RUN, U32)
    for group in range(column // GROUP, (column + out.shape[1] + GROUP - 1) // GROUP):
        last, factor = -1, 1
        for i in range(out.shape[0]):
            inside = (row + i) % block
            address = (row + i) // block * per_block + inside // order
            if address != last:
                _group_words(signs, group, address, generation, stream, seed)
                factor = multiplier(address, bits, generation, stream, seed)
                last = address
            number = field_product(factor, inside % order, bits, polynomial)
            _walsh(words, signs, number, group * GROUP)
            _unpack(out[i], words, group * GROUP, column)
