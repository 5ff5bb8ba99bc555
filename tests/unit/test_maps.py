"""The maps' laws: inside, right inverse, monotone up to the bounds, derivative, periods; and what they refuse."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds

import esopt
from esopt._kernels import box as kernels
from esopt.maps import Map, as_map, fill_inside
from esopt.testing import ConformanceError, check_map

KINDS = (esopt.Smooth, esopt.Reflect, esopt.Clip)
ENDS = st.floats(-1e6, 1e6)
WIDTHS = st.floats(1e-6, 1e6)
FREE = st.floats(-1e9, 1e9)


def boxes(low: float, width: float, side: str) -> tuple[float, float]:
    return (low if side != "high" else -np.inf), (low + width if side != "low" else np.inf)


SIDES = st.sampled_from(["both", "low", "high"])


@given(low=ENDS, width=WIDTHS, side=SIDES, y=st.lists(FREE, min_size=1, max_size=20), kind=st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None)
def test_forward_is_inside_for_every_number(low, width, side, y, kind):
    low, high = boxes(low, width, side)

    x = kind(low, high).forward(np.array(y))

    assert (x >= low).all()
    assert (x <= high).all()


@given(low=ENDS, width=WIDTHS, side=SIDES, share=st.floats(0.0, 1.0), kind=st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None)
def test_inverse_is_a_right_inverse(low, width, side, share, kind):
    low, high = boxes(low, width, side)
    x = np.array([low + share * width if math.isfinite(low) else high - share * width])
    x = np.clip(x, low, high)
    box = kind(low, high)

    np.testing.assert_allclose(box.forward(box.inverse(x)), x, rtol=1e-14, atol=1e-14 * width)


@given(low=ENDS, width=WIDTHS, side=SIDES)
@settings(max_examples=50, deadline=None)
def test_smooth_is_monotone_up_to_the_bounds_and_the_identity_well_inside(low, width, side):
    low, high = boxes(low, width, side)
    box = esopt.Smooth(low, high)
    left, right = (
        float(box.inverse(np.array([b if math.isfinite(b) else o]))[0])
        for b, o in ((low, high - width), (high, low + width))
    )
    y = np.linspace(left, right, 1001)

    x = box.forward(y)

    assert (np.diff(x) >= 0.0).all()
    inside = (x > low + 0.0501 * width) & (x < high - 0.0501 * width) if side == "both" else np.zeros(x.size, bool)
    np.testing.assert_array_equal(x[inside], y[inside])
    assert inside.sum() > 700 or side != "both"


def test_smooth_is_what_its_docstring_says():
    box = esopt.Smooth(0.0, 10.0)
    y = np.array([-0.5, -0.25, 0.0, 0.25, 0.5, 3.0, 9.5, 10.0, 10.5])
    a = 0.5
    expected = np.where(y < a, (y + a) ** 2 / (4 * a), np.where(y > 10 - a, 10 - (10 + a - y) ** 2 / (4 * a), y))

    np.testing.assert_allclose(box.forward(y), expected, rtol=1e-15)
    np.testing.assert_array_equal(box.forward(np.array([-0.5, 10.5])), [0.0, 10.0])
    np.testing.assert_allclose(box.derivative(np.array([-0.5, 0.0, 0.5, 5.0, 10.0, 10.5])), [0.0, 0.5, 1, 1, 0.5, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bounds", [(-1.0, 2.0), (-1.0, None), (None, 2.0), (None, None)])
def test_pullback_and_slope_are_numerical_derivatives(kind, bounds):
    box = kind(*bounds)
    # Off the kinks of Reflect and Clip, and off the seams of Smooth.
    y = np.arange(-9.987, 9.0, 0.1).reshape(-1, 1)
    h, grads = 1e-6, np.full((len(y), 1), 2.5)

    found = box.pullback(y, grads)

    numerical = 2.5 * (box.forward(y + h) - box.forward(y - h)) / (2 * h)
    np.testing.assert_allclose(found, numerical, atol=1e-6)
    slope = (box.penalty(y + h) - box.penalty(y - h)) / (2 * h)
    np.testing.assert_allclose(box.slope(y)[:, 0], slope, atol=1e-6)
    assert box.penalises == bool(np.any(box.penalty(y) > 0.0)) or bounds == (None, None)


@given(low=ENDS, width=st.floats(1e-3, 1e3), y=st.floats(-100.0, 100.0), turns=st.integers(-3, 3))
@settings(max_examples=100, deadline=None)
def test_mirrors_are_periodic_and_even(low, width, y, turns):
    for box, period, left in (
        (esopt.Reflect(low, low + width), 2 * width, low),
        (esopt.Smooth(low, low + width), 2.2 * width, low - 0.05 * width),
    ):
        at = box.forward(np.array([left + y]))
        close = {"rtol": 0, "atol": 1e-9 * (abs(low) + 1000.0)}
        np.testing.assert_allclose(box.forward(np.array([left + y + turns * period])), at, **close)
        np.testing.assert_allclose(box.forward(np.array([left - y])), at, **close)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_of_a_row_do_not_depend_on_the_others(kind):
    box = kind([0.0, -1.0, -np.inf], [1.0, np.inf, 3.0])
    rows = np.random.default_rng(3).normal(scale=4.0, size=(101, 3))

    whole = box.forward(rows)

    np.testing.assert_array_equal(whole, np.concatenate([box.forward(row[None]) for row in rows]))
    np.testing.assert_array_equal(whole[50:57], box.forward(rows[50:57]))
    np.testing.assert_array_equal(box.forward(rows[7]), whole[7])


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_bounds(kind):
    y = np.array([-1e300, -1e99, -7.0, 0.0, 3.0, 1e99, 1e300])
    for low, high in (
        (-1e99, 1e99),
        (0.0, 5e-324),
        (1.0, np.nextafter(1.0, 2)),
        (-1e308, 1e308),
        (1e19, 1e21),
        (0, 1e99),
    ):
        x = kind(low, high).forward(y)
        assert (x >= low).all()
        assert (x <= high).all()
    np.testing.assert_array_equal(kind(-1e99, 1e99).forward(y[2:5]), y[2:5])
    np.testing.assert_array_equal(kind(None, None).forward(y), y)
    assert np.isnan(kind(0.0, 1.0).forward(np.array([[np.nan]]))).all()


@given(low=st.floats(-1e30, 1e30), width=st.floats(1e-3, 1e3))
@settings(max_examples=100, deadline=None)
def test_float32_rows_are_rounded_into_the_box(low, width):
    high = max(low + width, np.nextafter(np.float32(low), np.float32(np.inf)) * (1 + np.sign(low) * 1e-6))
    box, out = esopt.Smooth(low, high), np.empty((3, 1), np.float32)

    fill_inside(np.array([[low], [low / 2 + high / 2], [high]]), box, out)

    wide = np.abs(high - low) > 1e-6 * max(abs(low), abs(high))
    assert not wide or ((out.astype(np.float64) >= low).all() and (out.astype(np.float64) <= high).all())


@pytest.mark.parametrize(
    ("low", "high", "error", "words"),
    [
        (1.0, 1.0, ValueError, "low = 1 is not below high = 1.*fixed"),
        ([0.0, 2.0], 1.0, ValueError, r"low\[1\] = 2 is not below high\[1\] = 1"),
        (np.zeros((2, 2)), [[1.0, 1.0], [0.0, 1.0]], ValueError, r"low\[1, 0\]"),
        (np.nan, 1.0, ValueError, "low must be numbers"),
        (np.inf, None, ValueError, "low must be numbers"),
        (None, [1.0, -np.inf], ValueError, "high must be numbers"),
        ("a", 1.0, TypeError, "low must be a number"),
        ([], 1.0, TypeError, "low must be a number"),
        ([[1.0], [1.0, 2.0]], 3.0, TypeError, "low must be a number"),
        ([0.0, 0.0], [1.0, 1.0, 1.0], ValueError, "low has shape"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_bounds_are_refused_in_words(kind, low, high, error, words):
    with pytest.raises(error, match=words):
        kind(low, high)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="margin must be in"):
        esopt.Smooth(0.0, 1.0, margin=0.6)
    with pytest.raises(ValueError, match="weight must be positive"):
        esopt.Clip(0.0, 1.0, weight=0.0)


def test_bounds_in_the_forms_that_people_write():
    for pair in ((0.0, 1.0), [0.0, 1.0], Bounds(0.0, 1.0), np.array([0.0, 1.0])):
        box = as_map(pair)
        assert isinstance(box, esopt.Smooth)
        assert (box.low, box.high) == (0.0, 1.0)
    mixed = as_map(([0.0, None], [None, 2.0]))
    np.testing.assert_array_equal((mixed.low, mixed.high), ([0.0, -np.inf], [np.inf, 2.0]))
    box = esopt.Reflect(0.0, None)
    assert as_map(box) is box
    assert isinstance(box, Map)
    for wrong in (3.0, [(0, 1)] * 3, esopt.Smooth, "ab" * 2):
        with pytest.raises(TypeError, match=r"bounds must be \(low, high\)"):
            as_map(wrong)


def test_bounds_are_copied():
    low = np.zeros(3)
    box = esopt.Smooth(low, 1.0)
    low[:] = 5.0

    assert (box.low == 0.0).all()


def test_population_maps_every_row_and_keeps_the_recipe():
    population = esopt.Population(
        np.zeros(2), 3.0, esopt.Gaussian().noise(esopt.Key(1), 20, 2), extra=np.array([[5.0, 0.5]]), tags=("a",)
    )
    box = esopt.Reflect(-1.0, 2.0)
    mapped = replace(population, map=box)

    rows = mapped.rows()

    np.testing.assert_array_equal(rows, box.forward(population.rows()))
    np.testing.assert_array_equal(rows[-1], [-1.0, 0.5])
    np.testing.assert_array_equal(mapped[3], rows[3])
    np.testing.assert_array_equal(mapped[18:], rows[18:])
    np.testing.assert_array_equal(mapped.resize(7).rows()[:7], rows[:7])
    np.testing.assert_array_equal(mapped.with_extra("b", np.array([4.0, 0.0])).rows()[-1], [0.0, 0.0])
    np.testing.assert_array_equal(np.asarray(mapped), rows)
    np.testing.assert_array_equal(mapped.seeds, population.seeds)
    narrow = mapped.rows(out=np.empty((21, 2), np.float32))
    assert narrow.min() >= -1.0
    assert narrow.max() <= 2.0
    np.testing.assert_allclose(narrow, rows, rtol=1e-6)


def test_kernels_are_compiled_once():
    for box in (esopt.Smooth(0.0, 1.0), esopt.Reflect([0.0, -np.inf], 1.0)):
        for rows in (
            np.ones((3, 2)),
            np.ones(2, np.float32),
            np.asfortranarray(np.ones((3, 2))),
            np.ones((6, 4))[::2, ::2],
        ):
            box.forward(rows)
            box.pullback(rows, np.ones_like(rows))

    assert len(kernels.forward.signatures) == len(kernels.derivative.signatures) == 1


BOXES = [(-1.0, 2.0), (0.0, 1e-5), (None, 7.0), (-1e3, None), (None, None), ([0.0, -np.inf, 3.0], [1.0, 5.0, np.inf])]


@pytest.mark.parametrize("bounds", BOXES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_public_suite_passes(kind, bounds):
    check_map(kind(*bounds))


@dataclass(frozen=True)
class Wrong(esopt.Reflect):
    """A map with one mistake."""

    mistake: str = ""

    @property
    def penalises(self):
        return self.mistake == "slope is"

    def forward(self, rows):
        x = super().forward(rows)
        if self.mistake == "inside":
            return x * (1.0 + 1e-15)
        if self.mistake == "do not depend" and len(rows) > 1:
            return x * (1.0 - 1e-15)
        if self.mistake == "changes no argument":
            rows[...] = x
        return x

    def inverse(self, x):
        return x + 0.1 if self.mistake == "is x" else x

    def pullback(self, rows, grads):
        return grads if self.mistake == "pullback is" else super().pullback(rows, grads)

    def penalty(self, rows):
        out = ((rows - super().forward(rows)) ** 2).sum(axis=1)
        return {"positive only": out, "slope is": out, "where T is": out + 1.0}.get(self.mistake, 0.0 * out)


@pytest.mark.parametrize(
    "mistake", ["inside", "do not depend", "changes no argument", "is x", "pullback is", "positive only", "slope is"]
)
def test_the_public_suite_finds_a_mistake(mistake):
    with pytest.raises(ConformanceError, match=mistake):
        check_map(Wrong(-1.0, 2.0, mistake=mistake))
