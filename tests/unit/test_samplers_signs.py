"""Rademacher and Hadamard: bits against a naive twin, exact orthogonality, and the choice of rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.linalg import hadamard as sylvester
from scipy.stats import chi2

from esopt import Antithetic, Gaussian, Hadamard, Key, Law, Rademacher
from esopt._kernels import signs
from tests.reference import samplers as twin

KEYS = Key(5, 3, 16), Key(2**64 - 1, 2**32 - 1, 2**31), Key(0)


def _address(key: Key) -> tuple[int, int, int]:
    return key.generation, key.stream, key.seed


def _fill(sampler: Any, key: Key, row: int, column: int, dim: int, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    out = np.empty(shape, np.float32)
    sampler.fill(key, row, column, dim, out)
    return out


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("row", "column", "width"),
    [(0, 0, 200), (3, 63, 3), (2**32 - 1, 2047, 2), (7, 2000, 130), (1, 2**30 + 5, 70), (2, 64, 64), (9, 17, 1)],
)
def test_rademacher_is_its_twin(key: Key, row: int, column: int, width: int) -> None:
    found = _fill(Rademacher(), key, row, column, column + width, (1, width))

    assert found.tolist() == twin.signs(_address(key), range(row, row + 1), range(column, column + width)).tolist()


def test_rademacher_signs_are_fair_and_independent() -> None:
    """Counts, products of neighbouring columns and of neighbouring rows: each within five standard errors."""
    eps = Rademacher().noise(Key(3), 512, 2500).rows().astype(np.float64)

    assert abs(eps.mean()) < 5.0 / np.sqrt(eps.size)
    assert np.abs(eps.mean(axis=0)).max() < 5.5 / np.sqrt(512)
    for lag in (1, 16, 32, 64, 128, 2048):
        products = eps[:, lag:] * eps[:, :-lag]
        assert abs(products.mean()) < 5.0 / np.sqrt(products.size)
    products = eps @ eps.T / np.sqrt(2500)
    assert np.abs(products[~np.eye(512, dtype=bool)]).max() < 6.0


def test_reduction_polynomials_are_irreducible() -> None:
    assert len(signs.POLYNOMIALS) == 31
    for bits, rest in enumerate(signs.POLYNOMIALS, 1):
        assert rest < 1 << bits
        assert twin.is_irreducible(1 << bits | rest)
    assert not twin.is_irreducible(0b10101)  # (x^2 + x + 1)^2
    assert not twin.is_irreducible(0b110)


@pytest.mark.parametrize("bits", [1, 2, 5, 13, 31])
def test_field_product_is_its_twin(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for a, b in rng.integers(0, 1 << bits, (50, 2)).tolist():
        polynomial = 1 << bits | signs.POLYNOMIALS[bits - 1]
        assert signs.field_product(a, b, bits, polynomial) == twin.field_product(a, b, bits, polynomial)


def test_any_two_rows_meet_in_every_pattern_equally_often() -> None:
    """Over the multipliers a, i ^ i' = a (r ^ r') is every number but 0 exactly once."""
    bits, polynomial = 4, 1 << 4 | signs.POLYNOMIALS[3]
    for r, other in ((0, 1), (3, 9), (15, 2)):
        met = [
            signs.field_product(a, r, bits, polynomial) ^ signs.field_product(a, other, bits, polynomial)
            for a in range(1, 16)
        ]
        assert sorted(met) == list(range(1, 16))


def test_multipliers_are_uniform_without_zero() -> None:
    count, bits = 7000, 3
    found = Counter(signs.multiplier(group, bits, 4, 0, np.uint64(9)) for group in range(count))

    assert set(found) == set(range(1, 8))
    statistic = sum((found[a] - count / 7) ** 2 / (count / 7) for a in range(1, 8))
    assert chi2.sf(statistic, 6) > 1e-3
    assert signs.multiplier(5, 0, 4, 0, np.uint64(9)) == 1


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("dim", "k"), [(1, 3), (2, 2), (5, 3), (13, 20), (70, 4), (3000, 2)])
def test_hadamard_is_its_twin(key: Key, dim: int, k: int) -> None:
    bits = (dim - 1).bit_length()
    polynomial = signs.POLYNOMIALS[bits - 1] if bits else 0
    n = min(2 * k, 8) // k * k or k
    found = Hadamard(k).noise(key, n, dim).rows()
    expected = [twin.hadamard_row(_address(key), row, dim, k, polynomial) for row in range(n)]

    assert found.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize(("dim", "k"), [(1, 1), (2, 2), (8, 8), (64, 5), (256, 256), (4096, 16)])
def test_rows_are_exactly_orthogonal_where_d_is_a_power_of_two(dim: int, k: int) -> None:
    for block in Hadamard(k).noise(Key(1), 3 * k, dim).rows().astype(np.float64).reshape(3, k, dim):
        assert np.array_equal(block @ block.T, dim * np.eye(k))


@pytest.mark.parametrize("dim", [1, 3, 8, 13, 100])
def test_a_whole_block_is_a_tight_frame_in_any_dimension(dim: int) -> None:
    """P rows are all the rows of H: sum eps eps' = P I, exactly, and none comes twice."""
    order = 1 << (dim - 1).bit_length()
    noise = Hadamard().noise(Key(2), order, dim)
    rows = noise.rows().astype(np.float64)

    assert noise.block == order
    assert np.array_equal(rows.T @ rows, order * np.eye(dim))
    # Undoing the signs of the columns leaves the rows of Sylvester's matrix in some order.
    matrix = sylvester(order)[:, :dim]
    assert Counter(map(tuple, (rows * rows[0]).tolist())) == Counter(map(tuple, (matrix * matrix[0]).tolist()))


def test_blocks_choose_different_rows_and_signs() -> None:
    blocks = Hadamard(4).noise(Key(3), 4 * 300, 64).rows().reshape(300, 4, 64)
    patterns = {(block[0] * block[1]).tobytes() for block in blocks}

    assert len({block[0].tobytes() for block in blocks}) == 300
    assert len(patterns) > 55  # of 63; the expected number is 62.5


def test_beyond_the_order_a_block_starts_a_new_set() -> None:
    rows = Hadamard(12).noise(Key(4), 12, 8).rows().astype(np.float64)
    products = rows @ rows.T

    assert np.array_equal(products[:8, :8], 8 * np.eye(8))
    assert np.array_equal(products[8:, 8:], 8 * np.eye(4))
    assert np.abs(products[:8, 8:]).max() > 0


@pytest.mark.parametrize(
    ("n", "dim", "block"), [(64, 64, 64), (64, 40, 64), (200, 100, 100), (256, 100, 128), (7, 5, 7), (17, 5, 1)]
)
def test_none_takes_the_largest_divisor(n: int, dim: int, block: int) -> None:
    assert Hadamard().block == 1
    assert Hadamard().noise(Key(1), n, dim).block == block
    pairs = Antithetic(Hadamard()).noise(Key(1), 2 * n, dim)
    assert pairs.block == 2 * block
    assert np.array_equal(pairs.rows()[::2], Hadamard().noise(Key(1), n, dim).rows())


def test_hadamard_says_what_it_got() -> None:
    with pytest.raises(TypeError, match=r"Hadamard\(\) needs an integer for k, got 2\.0\. Pass for example k=8"):
        Hadamard(2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least 1 for k, got 0"):
        Hadamard(0)
    with pytest.raises(ValueError, match=r"blocks of 4 rows, got n=6\. Use a multiple of 4"):
        Hadamard(4).noise(Key(0), 6, 8)


def test_laws_of_signs() -> None:
    """Signs are one bit each and not Gaussian: rows say so."""
    for sampler in (Rademacher(), Hadamard(), Antithetic(Hadamard(2)), Antithetic(Rademacher())):
        assert sampler.law is sampler.noise(Key(0), 8, 3).law is Law.RADEMACHER
        assert set(np.unique(sampler.noise(Key(0), 8, 30).rows())) == {-1.0, 1.0}
    assert Gaussian().law is Law.GAUSSIAN
