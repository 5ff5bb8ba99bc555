"""Philox4x32-10 against its published vectors, and the one rounding of fma."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from esopt._kernels import seeds
from esopt._kernels.fma import fma, fma_exact
from tests.reference import noise as twin

WORD = st.integers(0, 2**32 - 1)
LONG = st.integers(0, 2**64 - 1)

# kat_vectors of Random123, the three rows "philox4x32 10": counter, key, output.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

ODD = st.integers(2**11, 2**12 - 1).map(lambda k: 2 * k + 1)

# Finite, without overflow of a * b + c: the arguments that the kernels could ever see are all here.
SINGLE = st.floats(-(2.0**60), 2.0**60, width=32)


def _words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_published_vectors(counter: str, key: str, output: str) -> None:
    low, high = _words(key)
    seed = low | high << 32

    assert seeds.words(*_words(counter), np.uint64(seed)).tolist() == _words(output)
    assert twin.philox_words(*_words(counter), seed) == _words(output)
    assert twin.philox_arrays(_words(counter)[0], *_words(counter)[1:], seed).tolist() == _words(output)


@given(WORD, WORD, WORD, WORD, LONG)
def test_philox_equals_plain_integers(c0: int, c1: int, c2: int, c3: int, seed: int) -> None:
    expected = twin.philox_words(c0, c1, c2, c3, seed)

    assert seeds.words(c0, c1, c2, c3, np.uint64(seed)).tolist() == expected
    assert twin.philox_arrays(np.array([c0]), c1, c2, c3, seed)[0].tolist() == expected


@given(WORD, st.integers(0, 2**32 - 8), WORD, WORD, LONG)
def test_hashed_rows_are_the_first_two_words(column: int, first: int, generation: int, stream: int, seed: int) -> None:
    out = np.empty(7, np.uint64)
    seeds.hash_rows(column, first, generation, stream, np.uint64(seed), out)

    words = [twin.philox_words(column, first + i, generation, stream, seed) for i in range(7)]
    assert out.tolist() == [a | b << 32 for a, b, _, _ in words]


@settings(max_examples=600)
@given(SINGLE, SINGLE, SINGLE)
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    expected = twin.round_to_float32(Fraction(a) * Fraction(b) + Fraction(c))

    assert fma_exact(a, b, c) == expected
    assert fma_exact(a, b, c).dtype == np.float32


@settings(max_examples=300)
@given(ODD, ODD, st.sampled_from([-1, 1]), st.integers(-60, -20), st.integers(-1, 1))
def test_fma_rounds_once_near_ties(a: int, b: int, sign: int, shift: int, nudge: int) -> None:
    """The odd product of 25 or 26 bits is often a tie; the addend moves it off by less than float64 can hold."""
    addend = sign * nudge * 2.0**shift
    b *= sign
    expected = twin.round_to_float32(Fraction(a) * Fraction(b) + Fraction(addend))

    assert fma_exact(np.float32(a), np.float32(b), np.float32(addend)) == expected


@njit
def _fma(a, b, c, out):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        out[i] = fma(a[i], b[i], c[i])


def test_the_compiled_fma_is_the_exact_one_to_the_bit() -> None:
    rng = np.random.default_rng(1)
    a, b, c = np.ldexp(rng.standard_normal((3, 1 << 18)), rng.integers(-30, 30, (3, 1 << 18))).astype(np.float32)
    # A third of the sums cancel to a few bits. In another third the product is a tie between two float32 numbers and
    # the addend too small for float64 to see next to it, so that two roundings go wrong half of the time.
    third = len(a) // 3
    c[:third] = -a[:third] * b[:third]
    ties = slice(third, 2 * third)
    a[ties], b[ties] = rng.integers(2**11, 2**12, (2, third)) * 2 + 1
    c[ties] = np.ldexp(rng.choice([-1.0, 1.0], third), rng.integers(-60, -40, third))
    compiled = np.empty_like(a)
    _fma(a, b, c, compiled)

    assert np.array_equal(compiled.view(np.uint32), twin.fma32(a, b, c).view(np.uint32))
    some = np.r_[0:3000, third : third + 3000, 2 * third : 2 * third + 3000]
    exact = np.array([fma_exact(a[i], b[i], c[i]) for i in some])
    assert np.array_equal(compiled[some].view(np.uint32), exact.view(np.uint32))
    # The arguments must tell a fused operation from a separate one, and one rounding from two.
    assert np.count_nonzero(compiled != a * b + c) > len(a) // 10
    assert np.count_nonzero(compiled != (a.astype(np.float64) * b + c).astype(np.float32)) > third // 10
