"""Orthogonal and Sphere: directions and lengths, marginal laws, blocks, and the memo behind row-by-row reading."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, kstest, norm

from esopt import Antithetic, Gaussian, Key, Law, Orthogonal, Population, Sphere
from esopt._kernels import directions
from esopt.samplers import orthogonal as home
from tests.reference import samplers as twin

Array = np.ndarray[Any, Any]
KEY = Key(2**40 + 7, 3, 17)


def _rows(sampler: Any, n: int, dim: int, key: Key = KEY) -> Array:
    return np.asarray(sampler.noise(key, n, dim).rows(), np.float64)


@pytest.mark.parametrize(("dim", "k"), [(1, 1), (2, 2), (10, 10), (33, 7), (100, 100), (257, 64), (1000, 100)])
def test_rows_are_orthogonal_and_keep_their_lengths(dim: int, k: int) -> None:
    base, rows = _rows(Gaussian(), 2 * k, dim), _rows(Orthogonal(k), 2 * k, dim)
    for a, b in zip(base.reshape(2, k, dim), rows.reshape(2, k, dim), strict=True):
        lengths = np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(lengths, np.linalg.norm(a, axis=1), rtol=2e-7)
        np.testing.assert_allclose(b @ b.T / np.outer(lengths, lengths), np.eye(k), rtol=0.0, atol=1e-6)
        np.testing.assert_allclose(b, twin.orthogonal_block(a), rtol=0.0, atol=3e-5)
        np.testing.assert_allclose(b[0], a[0], rtol=0.0, atol=1e-6)


def test_beyond_d_rows_a_block_starts_a_new_set() -> None:
    base, rows = _rows(Gaussian(), 14, 3), _rows(Orthogonal(7), 14, 3)
    for start in (0, 7):
        for first, last in ((0, 3), (3, 6), (6, 7)):
            part = slice(start + first, start + last)
            np.testing.assert_allclose(rows[part], twin.orthogonal_block(base[part]), rtol=0.0, atol=1e-5)


def test_a_row_in_the_span_of_the_others_gets_another_direction() -> None:
    """Also one that is in it but for the eighth digit: a single projection would leave errors of 1e-8."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((6, 4)))[0].T.copy()
    for x in (basis[2].copy() * 3.0, np.zeros(6), 3.0 * basis.sum(axis=0) + 1e-8 * rng.standard_normal(6)):
        directions._direction(x, basis, 3.0, np.empty(6), np.empty(directions.LANES))
        assert abs(np.linalg.norm(x) - 1.0) < 1e-14
        np.testing.assert_allclose(basis @ x, 0.0, rtol=0.0, atol=1e-14)


def test_every_row_is_normal_by_itself() -> None:
    """Entries, lengths and projections of each row of a block; lengths of a block are independent.

    Rows that kept what Gram-Schmidt leaves of them would have squared lengths chi2(d - i), rows of one common length
    would have correlated ones.
    """
    dim, blocks = 5, 4000
    rows = _rows(Orthogonal(dim), blocks * dim, dim).reshape(blocks, dim, dim)
    direction = np.linspace(-1.0, 2.0, dim)
    direction /= np.linalg.norm(direction)
    for i in range(dim):
        assert kstest(rows[:, i, i], norm.cdf).pvalue > 1e-3
        assert kstest(rows[:, i] @ direction, norm.cdf).pvalue > 1e-3
        assert kstest(np.square(rows[:, i]).sum(axis=1), chi2(dim).cdf).pvalue > 1e-3
    moments = [(rows**p).mean(axis=0) for p in (1, 2, 3, 4)]
    for moment, expected, variance in zip(moments, (0.0, 1.0, 0.0, 3.0), (1.0, 2.0, 15.0, 96.0), strict=True):
        assert np.abs(moment - expected).max() < 5.0 * np.sqrt(variance / blocks)
    lengths = np.square(rows).sum(axis=2)
    assert np.abs(np.corrcoef(lengths.T) - np.eye(dim)).max() < 5.0 / np.sqrt(blocks)
    # E (eps_0 . a)^2 (eps_1 . a)^2 is d / (d + 2) for orthogonal rows, 1 for independent ones.
    products = np.square(rows[:, 0] @ direction) * np.square(rows[:, 1] @ direction)
    assert abs(products.mean() - dim / (dim + 2.0)) < 5.0 * products.std() / np.sqrt(blocks)


@pytest.mark.parametrize(
    ("n", "dim", "block"), [(10, 10, 10), (8, 10, 8), (200, 100, 100), (256, 100, 64), (101, 100, 1), (6, 1, 1)]
)
def test_none_takes_the_largest_divisor_up_to_d(n: int, dim: int, block: int) -> None:
    noise, pairs = Orthogonal().noise(KEY, n, dim), Antithetic(Orthogonal()).noise(KEY, 2 * n, dim)

    assert (Orthogonal().block, Antithetic(Orthogonal()).block) == (1, 2)
    assert (noise.block, noise.sampler) == (block, Orthogonal(block))
    assert (pairs.block, pairs.sampler) == (2 * block, Antithetic(Orthogonal(block)))
    assert np.array_equal(pairs.rows()[::2], noise.rows())
    assert np.array_equal(pairs.rows()[1::2], -noise.rows())


def test_bound_noise_resizes_in_whole_blocks() -> None:
    noise = Antithetic(Orthogonal()).noise(KEY, 20, 5)

    assert noise.block == 10
    assert np.array_equal(noise.resize(10).rows(), noise.rows()[:10])
    assert np.array_equal(noise.resize(40).rows()[:20], noise.rows())


def test_orthogonal_says_what_it_got() -> None:
    with pytest.raises(TypeError, match=r"Orthogonal\(\) needs an integer for k, got True"):
        Orthogonal(True)
    with pytest.raises(ValueError, match=r"at least 1 for k, got -2\. Pass for example k=8"):
        Orthogonal(-2)
    with pytest.raises(ValueError, match=r"blocks of 4 rows, got n=6\. Use a multiple of 4"):
        Orthogonal(4).noise(KEY, 6, 8)
    with pytest.raises(ValueError, match=r"blocks of 8 rows, got n=12\. Use a multiple of 8"):
        Antithetic(Orthogonal(4)).noise(KEY, 12, 8)


def test_reading_row_by_row_makes_each_block_once(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Antithetic(Orthogonal(8)).noise(Key(77), 48, 20)
    whole = noise.rows()
    made: list[int] = []
    real = home._block

    def counted(key: Key, k: int, dim: int, block: int) -> Array:
        made.append(block)
        return real(key, k, dim, block)

    monkeypatch.setattr(home, "_block", counted)
    population = Population(np.zeros(20), 1.0, noise.resize(48))
    one_by_one = np.stack([noise.rows(i, i + 1)[0] for i in range(48)])

    assert made == [0, 1, 2]
    assert np.array_equal(one_by_one, whole)
    assert np.array_equal(np.stack([population[i] for i in range(48)]), whole.astype(np.float64))
    assert made == [0, 1, 2] * 2


def test_the_memo_knows_everything_that_rows_depend_on() -> None:
    """Neighbours in every part of the address, read alternately, give what each gives alone."""
    cases = [
        (Orthogonal(4), Key(5, 1, 16), 20), (Orthogonal(4), Key(6, 1, 16), 20), (Orthogonal(4), Key(5, 2, 16), 20),
        (Orthogonal(4), Key(5, 1, 17), 20), (Orthogonal(8), Key(5, 1, 16), 20), (Orthogonal(4), Key(5, 1, 16), 21),
    ]  # fmt: skip
    alone = []
    for sampler, key, dim in cases:
        Orthogonal(2).noise(Key(999), 2, 3).rows()
        alone.append(sampler.noise(key, 8, dim).rows())
    for before, after in product(zip(cases, alone, strict=True), repeat=2):
        for i, j in product((0, 3, 5), repeat=2):
            for ((sampler, key, dim), expected), at in ((before, i), (after, j)):
                assert np.array_equal(sampler.noise(key, 8, dim).rows(at, at + 1)[0], expected[at])
    assert len({rows.tobytes() for rows in alone}) == len(cases)


def test_rows_handed_out_are_copies() -> None:
    noise = Orthogonal(4).noise(KEY, 4, 6)
    rows = noise.rows()
    rows[:] = 0.0

    assert np.abs(noise.rows()).min() > 0.0


def test_threads_read_what_one_reads() -> None:
    noise = Orthogonal(16).noise(Key(8), 128, 40)
    expected = noise.rows()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: noise.rows(i, i + 1)[0], list(range(128)) * 4))

    assert np.array_equal(np.stack(found), np.tile(expected, (4, 1)))


@pytest.mark.parametrize("dim", [1, 2, 7, 100, 3000])
def test_sphere_rows_are_gaussian_directions_of_one_length(dim: int) -> None:
    base, rows = _rows(Gaussian(), 9, dim), _rows(Sphere(), 9, dim)

    np.testing.assert_allclose(np.square(rows).sum(axis=1), dim, rtol=1e-6)
    np.testing.assert_allclose(
        rows, base * (np.sqrt(dim) / np.linalg.norm(base, axis=1))[:, None], rtol=2e-7, atol=1e-12
    )
    assert Sphere().noise(KEY, 9, dim).law is Law.SPHERE
    part = np.empty((2, dim - dim // 3), np.float32)
    Sphere().fill(KEY, 3, dim // 3, dim, part)
    assert np.array_equal(part, rows[3:5, dim // 3 :])


def test_sphere_has_the_fourth_moments_of_a_sphere() -> None:
    """E eps_i^4 = 3 d / (d + 2) and E eps_i^2 eps_j^2 = d / (d + 2)."""
    dim, n = 3, 40_000
    squares = np.square(_rows(Sphere(), n, dim))
    for found, expected in (
        (squares[:, 0] ** 2, 3 * dim / (dim + 2)), (squares[:, 1] * squares[:, 2], dim / (dim + 2)),
    ):  # fmt: skip
        assert abs(found.mean() - expected) < 5.0 * found.std() / np.sqrt(n)
        assert 5.0 * found.std() / np.sqrt(n) < 0.1
