"""Sobol and Halton: the points are scipy's, evenly spread, freshly scrambled, and independent between replicates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest, norm, qmc

from esopt import Antithetic, Halton, Key, Law, Sobol, child
from esopt.samplers import _sets, halton, sobol

KEY = Key(2**40 + 7, 3, 17)
BOTH = pytest.mark.parametrize("kind", [Sobol, Halton])


def _uniform(sampler: Any, n: int, dim: int, key: Key = KEY) -> np.ndarray[Any, Any]:
    return norm.cdf(sampler.noise(key, n, dim).rows().astype(np.float64))


def test_points_are_those_of_scipy() -> None:
    for block in (0, 1):
        seed = child(child(child(KEY.seed, KEY.generation), KEY.stream), block)
        part = slice(32 * block, 32 * block + 32)
        expected = qmc.Sobol(5, rng=seed).random(32)
        np.testing.assert_allclose(_uniform(Sobol(2), 64, 5)[part], expected, rtol=0.0, atol=1e-7)
        expected = qmc.Halton(5, rng=seed).random(32)
        np.testing.assert_allclose(_uniform(Halton(2), 64, 5)[part], expected, rtol=0.0, atol=1e-7)


def test_sobol_fills_every_stratum_equally() -> None:
    """Of 256 points each interval of length 1/256 of a coordinate holds one, and so do 1/16 x 1/16 squares."""
    points = _uniform(Sobol(), 256, 6)

    for column in points.T:
        assert np.array_equal(np.sort(np.floor(column * 256).astype(int)), np.arange(256))
    squares = np.floor(points[:, :2] * 16).astype(int)
    assert len(np.unique(squares, axis=0)) == 256


def test_halton_fills_every_stratum_equally() -> None:
    points = _uniform(Halton(), 3**5, 2)

    assert np.array_equal(np.sort(np.floor(points[:, 1] * 3**5).astype(int)), np.arange(3**5))
    assert np.abs(np.histogram(points[:, 0], 8, (0.0, 1.0))[0] - 3**5 / 8).max() < 1.0


@BOTH
def test_every_generation_and_replicate_has_a_scramble_of_its_own(kind: Any) -> None:
    keys = [KEY, KEY._replace(generation=4), KEY._replace(stream=18), KEY._replace(seed=KEY.seed + 1)]
    sets = [part for key in keys for part in kind(2).noise(key, 16, 3).rows().reshape(2, 8, 3)]

    assert len({part.tobytes() for part in sets}) == 8
    assert np.array_equal(kind(2).noise(KEY, 16, 3).rows(), kind(points=8).noise(KEY, 16, 3).rows())


@BOTH
def test_every_row_is_normal_by_itself(kind: Any) -> None:
    """Rows 0 and 5 of a set over many scrambles: their entries, and the product of two."""
    rows = kind(800).noise(Key(1), 800 * 8, 2).rows().astype(np.float64).reshape(800, 8, 2)
    for row in (0, 5):
        for column in (0, 1):
            assert kstest(rows[:, row, column], norm.cdf).pvalue > 1e-3
        assert abs(rows[:, row].prod(axis=1).mean()) < 5.0 / np.sqrt(800)


@BOTH
@pytest.mark.parametrize("points", [1, 3, 12, 100])
def test_any_number_of_points_without_a_warning(kind: Any, points: int) -> None:
    noise = kind().noise(KEY, points, 4)

    assert (noise.block, noise.law) == (points, Law.GAUSSIAN)
    assert np.isfinite(noise.rows()).all()
    assert np.array_equal(noise.rows(points - 1, points), noise.rows()[-1:])


@BOTH
def test_blocks_are_replicates(kind: Any) -> None:
    assert (kind().block, kind(4).block, kind(points=16).block) == (1, 4, 16)
    assert kind(4).noise(KEY, 64, 3).block == 16
    assert kind(points=16).noise(KEY, 64, 3).block == 16
    assert Antithetic(kind(4)).noise(KEY, 64, 3).block == 16
    noise = kind(4).noise(KEY, 64, 3)
    assert np.array_equal(noise.resize(32).rows(), noise.rows()[:32])


@BOTH
def test_they_say_what_they_got(kind: Any) -> None:
    name = kind.__name__
    with pytest.raises(ValueError, match=rf"{name} noise comes in blocks of 3 rows, got n=10\. Use a multiple of 3"):
        kind(3).noise(KEY, 10, 2)
    with pytest.raises(ValueError, match=rf"{name} noise comes in blocks of 4 rows, got n=10"):
        kind(points=4).noise(KEY, 10, 2)
    with pytest.raises(ValueError, match=r"replicates=2 and points=4\.\s+Give replicates, and"):
        kind(2, 4)
    with pytest.raises(ValueError, match=r"at least 1 for replicates, got 0"):
        kind(0)
    with pytest.raises(TypeError, match=r"an integer for points, got 4\.0"):
        kind(points=4.0)
    with pytest.raises(ValueError, match=rf"fill\(\) needs the number of points\. Use noise\(.*\), or {name}\(points="):
        kind().fill(KEY, 0, 0, 2, np.empty((1, 2), np.float32))


def test_sobol_refuses_more_columns_than_its_table_has() -> None:
    assert sobol.MAX_DIM == qmc.Sobol.MAXDIM
    with pytest.raises(ValueError, match=r"at most 21201 columns, got dim=21202\. Use Gaussian or Orthogonal"):
        Sobol().noise(KEY, 8, 21202)


def test_the_ends_of_the_interval_stay_finite() -> None:
    found = _sets.normal(np.array([[0.0, 1.0, 0.5, 1.0 - 2.0**-53, 2.0**-40]]))

    np.testing.assert_allclose(found, [[-6.1208, 6.1208, 0.0, 6.1208, -6.1208]], rtol=0.0, atol=1e-3)


@BOTH
def test_reading_row_by_row_scrambles_once(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    home = {Sobol: sobol, Halton: halton}[kind]
    made: list[int] = []
    real = home._points

    def counted(seed: int, count: int, dim: int) -> Any:
        made.append(seed)
        return real(seed, count, dim)

    monkeypatch.setattr(home, "_points", counted)
    noise = kind(2).noise(Key(31), 32, 3)
    one_by_one = np.concatenate([noise.rows(i, i + 1) for i in range(32)])

    assert len(made) == len(set(made)) == 2
    assert np.array_equal(one_by_one, noise.rows())
