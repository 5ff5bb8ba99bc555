"""Naive twins of the samplers: plain integers, float64 formulas, textbook decompositions.

Nothing here imports numba or the package; Gaussian rows come in as arrays.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tests.reference.noise import philox_words

Array = NDArray[np.float64]
Address = tuple[int, int, int]
"""Generation, stream, seed."""


def sign(address: Address, row: int, column: int) -> float:
    """One random sign: bit (j % 2048) // 64 of word (j % 64) // 16 of the counter 16 (j // 2048) + j % 16."""
    generation, stream, seed = address
    words = philox_words(16 * (column // 2048) + column % 16, row, generation, stream, seed)
    return -1.0 if words[column % 64 // 16] >> (column % 2048 // 64) & 1 else 1.0


def signs(address: Address, rows: range, columns: range) -> Array:
    return np.array([[sign(address, i, j) for j in columns] for i in rows])


def field_product(a: int, b: int, bits: int, polynomial: int) -> int:
    """a * b in GF(2**bits): multiply as polynomials over GF(2), then take the remainder."""
    product = 0
    for t in range(b.bit_length()):
        if b >> t & 1:
            product ^= a << t
    return remainder(product, polynomial | 1 << bits)


def remainder(a: int, b: int) -> int:
    """a mod b as polynomials over GF(2)."""
    while a.bit_length() >= b.bit_length():
        a ^= b << a.bit_length() - b.bit_length()
    return a


def is_irreducible(polynomial: int) -> bool:
    """Rabin's test over GF(2): x^(2^m) = x, and x^(2^(m / q)) - x has no common factor for any prime q of m."""
    m = polynomial.bit_length() - 1

    def frobenius(times: int) -> int:
        x = remainder(2, polynomial)
        for _ in range(times):
            x = field_product(x, x, m, polynomial)
        return x

    def common_factor(a: int, b: int) -> int:
        while b:
            a, b = b, remainder(a, b)
        return a

    primes = [q for q in range(2, m + 1) if m % q == 0 and all(q % p for p in range(2, q))]
    x = remainder(2, polynomial)
    return frobenius(m) == x and all(common_factor(polynomial, frobenius(m // q) ^ x) == 1 for q in primes)


def hadamard_row(address: Address, row: int, dim: int, block: int, polynomial: int) -> Array:
    """One row of H D, in blocks of ``block`` rows, groups of at most P."""
    generation, stream, seed = address
    bits = (dim - 1).bit_length()
    order = 1 << bits
    inside = row % block
    group = row // block * math.ceil(block / order) + inside // order
    word = philox_words(2**32 - 1, group, generation, stream, seed)[0]
    number = field_product(1 + (word * (order - 1) >> 32), inside % order, bits, polynomial)
    return np.array([sign(address, group, j) * (-1.0) ** (number & j).bit_count() for j in range(dim)])


def orthogonal_block(gaussian: Array) -> Array:
    """Gaussian rows (k, d), k <= d, to orthogonal ones of the same lengths: Q of QR with a positive diagonal."""
    q, r = np.linalg.qr(gaussian.T)
    return (q * np.sign(np.diag(r)) * np.linalg.norm(gaussian, axis=1)).T


def low_rank(gaussian: Array, shapes: tuple[tuple[int, ...], ...], rank: int) -> Array:
    """One row of factors to one row of noise."""
    parts, at = [], 0
    for shape in shapes:
        if len(shape) == 1:
            parts.append(gaussian[at : at + shape[0]])
            at += shape[0]
            continue
        m, n = shape
        a = gaussian[at : at + rank * m].reshape(rank, m)
        b = gaussian[at + rank * m : at + rank * (m + n)].reshape(rank, n)
        parts.append((a.T @ b).reshape(-1) / math.sqrt(rank))
        at += rank * (m + n)
    return np.concatenate(parts)
