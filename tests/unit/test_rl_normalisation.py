"""Moments of observations: exact merging, the floor, what the options mean."""

from __future__ import annotations

import numpy as np
import pytest

from esopt.rl import Moments, Running
from esopt.rl.normalisation import FLOOR, check_normalise

ROWS = np.random.default_rng(3).normal([1.0, -50.0, 0.0], [2.0, 0.5, 1e3], (400, 3))


def test_mean_and_deviation_are_numpys():
    moments = Moments.of(ROWS)

    np.testing.assert_allclose(moments.mean, ROWS.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.std(), ROWS.std(axis=0), rtol=1e-10)


def test_merging_in_parts_is_merging_in_order():
    """To the bit: moments do not know in which pieces their rows came."""
    whole, squares = Moments.none(3).merged(400, ROWS, ROWS**2), ROWS**2
    for cut in (0, 1, 7, 399, 400):
        parts = Moments.none(3).merged(cut, ROWS[:cut], squares[:cut]).merged(400 - cut, ROWS[cut:], squares[cut:])
        assert parts.count == whole.count == 400
        assert parts.sums.tobytes() == whole.sums.tobytes()
        assert parts.squares.tobytes() == whole.squares.tobytes()
    sums = np.zeros(3)
    for row in ROWS:
        sums = sums + row
    assert whole.sums.tobytes() == sums.tobytes()


def test_rows_of_sums_count_what_they_are_sums_of():
    halves = ROWS.reshape(4, 100, 3)
    moments = Moments.none(3).merged(400, halves.sum(axis=1), (halves**2).sum(axis=1))

    np.testing.assert_allclose(moments.mean, ROWS.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.std(), ROWS.std(axis=0), rtol=1e-9)


@pytest.mark.parametrize(
    ("spread", "expected"), [(0.0, 1.0), (0.9 * FLOOR, 1.0), (1.1 * FLOOR, 1.1 * FLOOR), (5.0, 5.0)]
)
def test_what_hardly_varies_is_only_centred(spread: float, expected: float):
    moments = Moments.of(np.array([[3.0 - spread], [3.0 + spread]]))

    assert moments.mean.tolist() == pytest.approx([3.0], rel=1e-15)
    assert moments.std()[0] == pytest.approx(expected, rel=1e-9)
    assert moments.std(floor=1e-9)[0] == pytest.approx(spread or 1.0, rel=1e-6)


def test_rounding_is_no_deviation():
    moments = Moments.of(np.full((1000, 1), 12345.678))

    assert moments.std(floor=1e-12).tolist() == [1.0]


def test_no_observation_is_no_normalisation():
    moments = Moments.none(2)

    assert (moments.mean.tolist(), moments.std().tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_options():
    given = Moments.of(ROWS)

    assert check_normalise("off") is None
    assert check_normalise("running") == Running(after=0, floor=FLOOR)
    assert check_normalise(given) is given
    for bad in ("on", None, 3):
        with pytest.raises(ValueError, match='must be "running", "off", '):
            check_normalise(bad)
    with pytest.raises(ValueError, match="after must be a whole number of generations, got -1"):
        Running(after=-1)
    with pytest.raises(ValueError, match="floor must be positive"):
        Running(floor=0.0)
    with pytest.raises(ValueError, match=r"sums of shape \(2,\) and squares of shape \(3,\)"):
        Moments(1, np.zeros(2), np.zeros(3))
