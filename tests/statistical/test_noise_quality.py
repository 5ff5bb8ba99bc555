"""Are the normals normal and independent, along every axis of their address?

Seeds are fixed, so nothing here is ever flaky; every threshold is that of a family-wise error of 1e-3 over all the
tests of a kind (Bonferroni). The detectors are tried on noise with planted defects as well.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import chi2, kstest, norm, poisson

from esopt._kernels import gaussian
from esopt.noise import Key

Array = np.ndarray[Any, Any]
ALPHA = 1e-3
WIDTH = 1 << 15

KEYS = (
    Key(0),
    Key(1),
    Key(2**64 - 1, 2**32 - 1, 2**32 - 1),
    Key(0x9E3779B97F4A7C15, 2**31, 16),
)


def _normals(key: Key, row: int = 0, column: int = 0, width: int = WIDTH, rows: int = 1) -> Array:
    out = np.empty((rows, width), np.float32)
    gaussian.fill(out, row, column, key.generation, key.stream, np.uint64(key.seed))
    return out


def _limit(tests: int) -> float:
    """Bound on the largest of ``tests`` standard normal statistics."""
    return float(norm.isf(ALPHA / (2 * tests)))


def _moment_scores(z: Array) -> Array:
    """Standardised raw moments of order 1 to 8, (8,)."""
    totals = np.zeros(8)
    for part in np.array_split(z.ravel(), max(1, z.size >> 18)):
        power = np.ones(part.size)
        for k in range(8):
            power *= part
            totals[k] += power.sum()
    ideal = [math.prod(range(k - 1, 0, -2)) if k % 2 == 0 else 0 for k in range(17)]
    errors = [math.sqrt((ideal[2 * k] - ideal[k] ** 2) / z.size) for k in range(1, 9)]
    return (totals / z.size - ideal[1:9]) / errors


def _pair_scores(products: Array, length: int, vectors: int) -> tuple[Array, float]:
    """Standardised correlations of pairs of different vectors, and the score of the sum of their squares.

    ``products`` are those of features of variance 1, over ``length`` columns; feature i is one of vector i % vectors.
    """
    i, j = np.triu_indices(len(products), 1)
    other = i % vectors != j % vectors
    scores = products[i[other], j[other]] / math.sqrt(length)
    return scores, float((scores @ scores - scores.size) / math.sqrt(2 * scores.size))


def _correlation_scores(z: Array) -> tuple[Array, float]:
    """The same for all pairs of rows, of their squares, and of one with the square of the other."""
    features = np.concatenate(_hermite(z)[:2])
    return _pair_scores(features @ features.T, z.shape[1], len(z))


def _hermite(z: Array) -> list[Array]:
    """He_1, He_2 and He_3, each of variance 1."""
    z = z.astype(np.float64)
    return [z, (z**2 - 1.0) / math.sqrt(2.0), (z**3 - 3.0 * z) / math.sqrt(6.0)]


def _lane_scores(z: Array) -> tuple[Array, float]:
    """Correlations of the first three Hermite polynomials between the 64 columns of a block."""
    total = np.zeros((192, 192))
    blocks = z.reshape(-1, 64)
    for part in np.array_split(blocks, max(1, len(blocks) >> 12)):
        features = np.concatenate(_hermite(part), axis=1)
        total += features.T @ features
    return _pair_scores(total, len(blocks), 64)


def _quarters(z: Array) -> tuple[Array, Array, Array, Array]:
    """The four runs of sixteen columns of every block."""
    a, b, c, d = np.moveaxis(z.reshape(-1, 4, 16), 1, 0).reshape(4, -1)
    return a, b, c, d


def _chi_square(counts: Array) -> float:
    """p-value of equal counts."""
    expected = counts.sum() / counts.size
    return float(chi2.sf(((counts - expected) ** 2).sum() / expected, counts.size - 1))


def _cells(z: Array, count: int) -> Array:
    """Number of the equiprobable cell of each normal."""
    return np.minimum((ndtr(z) * count).astype(np.int64), count - 1)


def _pair_p_value(x: Array, y: Array) -> float:
    """p-value of independence of two normal samples, on 32 x 32 equiprobable cells."""
    return _chi_square(np.bincount(_cells(x, 32) * 32 + _cells(y, 32), minlength=1024))


@pytest.fixture(scope="module")
def sample() -> Array:
    """2**21 normals of one row at each key."""
    return np.concatenate([_normals(key, width=1 << 21) for key in KEYS])


def test_moments_to_order_eight(sample: Array) -> None:
    scores = np.array([_moment_scores(z) for z in (*sample, sample)])

    assert np.abs(scores).max() < _limit(scores.size)


def test_moments_across_rows_and_generations() -> None:
    """One column of many rows, or of many generations, is a sample as good as a row."""
    rows = _normals(Key(5), rows=1 << 14, width=64)
    generations = np.concatenate([_normals(Key(5, generation), width=64) for generation in range(1 << 14)])
    scores = np.array([_moment_scores(z[:, j]) for z in (rows, generations) for j in (0, 17, 34, 51)])

    assert np.abs(scores).max() < _limit(scores.size)


def test_kolmogorov_smirnov() -> None:
    """Of 32 rows; a small excess that all of them share would show in the law of the p-values."""
    rows = np.concatenate([_normals(key, rows=8, width=1 << 18) for key in KEYS])
    p_values = [kstest(z.astype(np.float64), ndtr).pvalue for z in rows]

    assert min(p_values) > ALPHA / len(p_values)
    assert kstest(p_values, "uniform").pvalue > ALPHA


def test_equal_cells_have_equal_counts(sample: Array) -> None:
    p_values = [_chi_square(np.bincount(_cells(z, 1024), minlength=1024)) for z in sample]

    assert min(p_values) > ALPHA / len(p_values)
    assert max(p_values) < 1.0 - ALPHA / len(p_values), "counts are too equal"


def _tail_counts(total: int) -> tuple[dict[float, tuple[int, int]], float]:
    """How many of ``total`` normals lie above z and below -z, and the largest of all."""
    counts = {z: (0, 0) for z in (3.0, 3.5, 4.0, 4.5, 5.0, 5.5)}
    largest, out = 0.0, np.empty((1, 1 << 20), np.float32)
    for row in range(total >> 20):
        gaussian.fill(out, row, 0, 7, 0, np.uint64(3))
        far = out[np.abs(out) > 3.0]
        largest = max(largest, float(np.abs(far).max()))
        counts = {z: (up + int((far > z).sum()), down + int((far < -z).sum())) for z, (up, down) in counts.items()}
    return counts, largest


@pytest.mark.parametrize("total", [1 << 27, pytest.param(1 << 31, marks=pytest.mark.slow)])
def test_tails_to_five_and_a_half(total: int) -> None:
    counts, largest = _tail_counts(total)

    for z, both in counts.items():
        for count in (*both, sum(both)):
            expected = total * norm.sf(z) * (2 if count == sum(both) else 1)
            tail = min(poisson.cdf(count, expected), poisson.sf(count - 1, expected))
            assert tail > ALPHA / (2 * 3 * len(counts)), f"{count} of {expected:.1f} expected beyond {z}"
    assert 5.5 < largest <= 5.89


def _addresses(base: Key) -> dict[str, list[tuple[Key, int, int]]]:
    """Families of (key, row, column) along one axis of the address: neighbours, both sides of 2**31, single bits."""
    near = [*range(24), 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]
    words = [*near, *(2**k for k in range(5, 31))]
    seeds = [*words, *(2**k for k in range(32, 64)), 2**64 - 1, 2**32 + 1]
    places = (0, 0, 1, 2, 2**16) if base == Key(0) else (0, 3, 5, 2**27, 2**27 + 1)
    columns = [*range(0, 24 * WIDTH, WIDTH), *(2**k for k in range(22, 34)), 2**34 - WIDTH, 2**32 + WIDTH]
    return {
        "rows": [(base, row, 0) for row in words],
        "generations": [(base._replace(generation=g), 0, 0) for g in words],
        "streams": [(base._replace(stream=s), 0, 0) for s in words],
        "seeds": [(base._replace(seed=seed), 0, 0) for seed in seeds],
        "columns": [(base, 0, column) for column in columns],
        # Equal numbers in different places of the address.
        "places": [
            (Key(s, g, t), row, column * 64) for s, g, t, row, column in sorted(set(itertools.permutations(places)))
        ],
    }


@pytest.mark.parametrize("axis", ["rows", "generations", "streams", "seeds", "columns", "places"])
@pytest.mark.parametrize("base", [Key(0), Key(2**33 + 7, 2**31 + 3, 2)], ids=["origin", "far"])
def test_no_correlation_across_addresses(axis: str, base: Key) -> None:
    """Every two vectors of a family, their squares, and one with the square of the other."""
    family = _addresses(base)[axis]
    z = np.concatenate([_normals(key, row, column, WIDTH) for key, row, column in family])
    assert len({row.tobytes() for row in z}) == len(family)

    scores, scatter = _correlation_scores(z)
    assert np.abs(scores).max() < _limit(12 * scores.size)
    assert abs(scatter) < _limit(12)


@pytest.mark.parametrize("shift", [1, 16, 64, 1024])
def test_no_correlation_between_shifted_rows(shift: int) -> None:
    """Column j of row i with column j + shift of row i + k."""
    z = _normals(Key(11), rows=32, width=WIDTH + shift)
    features = np.concatenate(_hermite(z)[:2])
    products = features[:, :WIDTH] @ features[:, shift:].T / math.sqrt(WIDTH)

    assert np.abs(products).max() < _limit(4 * products.size)


def test_no_correlation_along_a_row() -> None:
    """All lags up to 4096, by Fourier transform, of the values and of their squares."""
    width, scores = 1 << 21, []
    z = _normals(Key(13), width=width)[0]
    for feature in _hermite(z)[:2]:
        spectrum = np.fft.rfft(feature, 2 * width)
        sums = np.fft.irfft(np.abs(spectrum) ** 2)[1:4097]
        scores.append(sums / np.sqrt(width - np.arange(1.0, 4097.0)))

    assert np.abs(scores).max() < _limit(2 * 4096)
    assert abs(np.sum(np.square(scores)) - 8192) < _limit(1) * math.sqrt(2 * 8192)


def test_the_64_lanes_of_a_block_are_independent(sample: Array) -> None:
    """In the first three Hermite polynomials; the tails of their products need a little room."""
    scores, scatter = _lane_scores(sample[:2])

    assert np.abs(scores).max() < 1.1 * _limit(scores.size)
    assert abs(scatter) < _limit(1)


def test_the_quarters_of_a_block_are_independent(sample: Array) -> None:
    """Columns i and i + 16 are the sine and the cosine of one angle; the other pairs share a counter."""
    quarters = _quarters(sample[1])
    pairs = list(itertools.combinations(range(4), 2))

    assert min(_pair_p_value(quarters[i], quarters[j]) for i, j in pairs) > ALPHA / len(pairs)
    scores = []
    for i, j in pairs:
        for x, y in itertools.product(_hermite(quarters[i]), _hermite(quarters[j])):
            scores.append(x @ y / math.sqrt(x.size))
    assert np.abs(scores).max() < _limit(len(scores))


def test_angle_and_radius_of_a_pair_are_uniform_and_independent(sample: Array) -> None:
    for first, second in ((0, 1), (2, 3)):
        y, x = (_quarters(sample[2:])[k].astype(np.float64) for k in (first, second))
        angle = np.minimum((np.arctan2(y, x) / (2.0 * np.pi) + 0.5) * 64, 63).astype(np.int64)
        radius = np.minimum(np.exp(-0.5 * (x * x + y * y)) * 64, 63).astype(np.int64)
        assert _chi_square(np.bincount(angle * 64 + radius, minlength=4096)) > ALPHA / 2


def test_planted_defects_are_found(sample: Array) -> None:
    """What the other tests call good must not be what they call everything."""
    z = sample[0].copy()
    assert np.abs(_moment_scores(1.004 * sample)).max() > 2 * _limit(40)
    assert np.abs(_moment_scores(np.clip(sample, -3.7, 3.7))[5:]).max() > 2 * _limit(40)

    rows = z[: 32 * WIDTH].reshape(32, WIDTH).astype(np.float64)
    rows[7] += 0.05 * rows[3]
    assert np.abs(_correlation_scores(rows)[0]).max() > _limit(12 * 20_000)
    rows = rows + 0.1 * rows[:1]
    assert _correlation_scores(rows)[1] > 2 * _limit(12)

    blocks = z.reshape(-1, 64)
    shared = blocks.copy()
    shared[:, 32:48] *= np.sqrt(np.abs(shared[:, 0:16]) / 0.8)
    assert np.abs(_lane_scores(shared)[0]).max() > 2 * _limit(18_336)
    a, b, _, _ = _quarters(z)
    assert _pair_p_value(a, np.where((a > 1.0) & (b > 2.0), -b, b)) < 1e-6
    assert _chi_square(np.bincount(_cells(np.round(z, 2), 1024), minlength=1024)) < 1e-6
    assert kstest(z[: 1 << 20] + 0.004, ndtr).pvalue < ALPHA / 4
