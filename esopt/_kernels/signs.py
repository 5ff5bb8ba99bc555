"""Rows of random signs, 32 to a Philox word: independent ones, and rows of a Hadamard matrix with random signs.

Layout: column j of row i is bit j % 32 of output word (j % 128) // 32 of the counter (j // 128, i, generation, stream);
a set bit is -1.

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

from .philox import F32, U32, U64, philox

GROUP = 128
TILE = 4096

_ONE = U32(0x3F800000)
_TOP = U32(31)
_FULL = U32(0xFFFFFFFF)
_HALF = U64(32)

# x**m + ...: the remaining terms of the smallest irreducible polynomial over GF(2) of degree m = 1 ... 31.
POLYNOMIALS = (
    1, 3, 3, 3, 5, 3, 3, 27, 3, 9, 5, 9, 27, 33, 3, 43, 9, 9, 39, 9, 5, 3, 33, 27, 9, 27, 39, 3, 5, 3, 9,
)  # fmt: skip


@njit
def _words(out, first, count, row, generation, stream, seed):
    """Write the words of ``count`` counters of a row, starting with column group ``first``: out uint32."""
    k0, k1 = U32(seed & U64(_FULL)), U32(seed >> _HALF)
    c1, c2, c3 = U32(row), U32(generation), U32(stream)
    for g in range(count):
        a0, a1, a2, a3 = philox(U32((first + g) & 0xFFFFFFFF), c1, c2, c3, k0, k1)
        out[4 * g] = a0
        out[4 * g + 1] = a1
        out[4 * g + 2] = a2
        out[4 * g + 3] = a3


@njit(inline="always")
def _sign(word, bit):
    """1.0, or -1.0 where the bit is set: the bit becomes the sign bit of a float."""
    return U32(_ONE | U32(U32(U32(word) >> U32(bit)) << _TOP)).view(F32)


@njit
def _expand(out, words, first):
    """out[j] = sign of bit ``first + j`` of the words."""
    size = out.size
    head = min(size, (32 - first % 32) % 32)
    for j in range(head):
        out[j] = _sign(words[first // 32], first % 32 + j)
    at = (first + head) // 32
    whole = (size - head) // 32
    for w in range(whole):
        word = words[at + w]
        base = head + 32 * w
        for b in range(32):
            out[base + b] = _sign(word, b)
    for j in range(head + 32 * whole, size):
        out[j] = _sign(words[at + whole], j - head - 32 * whole)


@njit(cache=True, nogil=True)
def fill(out, row, column, generation, stream, seed):
    """Write the rectangle of ``out.shape`` whose corner is (row, column): independent signs."""
    words = np.empty(TILE // 32, np.uint32)
    stop = column + out.shape[1]
    for i in range(out.shape[0]):
        for start in range(column // GROUP * GROUP, stop, TILE):
            end = min(start + TILE, stop)
            low = max(start, column)
            _words(words, start // GROUP, (end - start + GROUP - 1) // GROUP, row + i, generation, stream, seed)
            _expand(out[i, low - column : end - column], words, low - start)


@njit
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


@njit
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
def _pattern(i):
    """Bit b of the result is the parity of popcount(i & b), for b < 32."""
    word = U32(0)
    if i & 1:
        word ^= U32(0xAAAAAAAA)
    if i & 2:
        word ^= U32(0xCCCCCCCC)
    if i & 4:
        word ^= U32(0xF0F0F0F0)
    if i & 8:
        word ^= U32(0xFF00FF00)
    if i & 16:
        word ^= U32(0xFFFF0000)
    return U32(word)


@njit(cache=True, nogil=True)
def fill_hadamard(out, row, column, block, bits, polynomial, generation, stream, seed):
    """Write a rectangle of rows in blocks of ``block``; a block is cut into groups of at most 2**bits rows."""
    order = 1 << bits
    groups = (block + order - 1) // order
    stop = column + out.shape[1]
    signs, words = np.empty(TILE // 32, np.uint32), np.empty(TILE // 32, np.uint32)
    for start in range(column // GROUP * GROUP, stop, TILE):
        end = min(start + TILE, stop)
        low = max(start, column)
        count = (end - start + GROUP - 1) // GROUP
        last, factor = -1, 1
        for i in range(out.shape[0]):
            inside = (row + i) % block
            group = (row + i) // block * groups + inside // order
            if group != last:
                _words(signs, start // GROUP, count, group, generation, stream, seed)
                factor = multiplier(group, bits, generation, stream, seed)
                last = group
            number = field_product(factor, inside % order, bits, polynomial)
            pattern = _pattern(number)
            for w in range(4 * count):
                flip = _FULL if _parity(number & (start + 32 * w)) else U32(0)
                words[w] = U32(signs[w] ^ pattern ^ flip)
            _expand(out[i, low - column : end - column], words, low - start)
