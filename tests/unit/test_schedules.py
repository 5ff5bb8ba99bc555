"""Schedules: their values, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import esopt
from esopt.schedules import at, check_fraction, check_positive


def test_a_number_is_the_same_in_every_generation():
    assert [at(0.25, g) for g in (0, 7, 10**9)] == [0.25, 0.25, 0.25]
    assert type(at(1, 3)) is float
    assert type(at(np.float32(0.5), 3)) is float
    assert at(lambda g: g + 1, 3) == 4.0


@pytest.mark.parametrize("generation", [0, 1, 5, 10, 25, 1000])
def test_exponential_decay(generation: int):
    schedule = esopt.ExponentialDecay(0.8, 0.5, every=10, end=0.01)

    assert schedule(generation) == pytest.approx(max(0.01, 0.8 * 0.5 ** (generation / 10)), rel=1e-15)


def test_exponential_decay_halves_every_so_many_generations():
    schedule = esopt.ExponentialDecay(0.8, 0.5, every=10)

    assert [schedule(g) for g in (0, 10, 20, 30)] == pytest.approx([0.8, 0.4, 0.2, 0.1], rel=1e-15)


def test_linear_decay():
    schedule = esopt.LinearDecay(1.0, 0.2, 8)

    assert [schedule(g) for g in (0, 2, 4, 8, 100)] == pytest.approx([1.0, 0.8, 0.6, 0.2, 0.2], rel=1e-15)


def test_cosine_decay():
    schedule = esopt.CosineDecay(1.0, 0.2, 9)
    expected = [1.0, 0.2 + 0.4 * (1.0 + math.cos(math.pi / 3)), 0.2 + 0.4 * (1.0 - math.cos(math.pi / 3)), 0.2, 0.2]

    assert [schedule(g) for g in (0, 3, 6, 9, 100)] == pytest.approx(expected, rel=1e-14)
    assert schedule(9) == 0.2


@given(st.integers(0, 200), st.integers(1, 100))
def test_decays_stay_between_their_ends(generation: int, generations: int):
    for schedule in (esopt.LinearDecay(2.0, 0.5, generations), esopt.CosineDecay(2.0, 0.5, generations)):
        assert 0.5 <= schedule(generation) <= 2.0
        assert schedule(generation + 1) <= schedule(generation)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, "0.1", None, True, 1j, [0.1]])
def test_rates_must_be_positive_numbers(bad: object):
    with pytest.raises(ValueError, match=r"lr must be a positive number or a schedule, got .*Pass"):
        check_positive("lr", bad)


@pytest.mark.parametrize("good", [1, 1e-300, np.float32(0.1), np.int64(3), esopt.LinearDecay(1.0, 0.0, 5)])
def test_rates_may_be_any_real_type(good: object):
    check_positive("lr", good)


@pytest.mark.parametrize("bad", [1.0, -0.1, math.nan, "0.9", None, lambda g: 0.9])
def test_weights_of_the_past_are_in_the_unit_interval(bad: object):
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\), got "):
        check_fraction("beta", bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: esopt.ExponentialDecay(0.0, 0.5),
        lambda: esopt.ExponentialDecay(1.0, -0.5),
        lambda: esopt.ExponentialDecay(1.0, 0.5, every=0),
        lambda: esopt.LinearDecay(1.0, 0.1, 0),
        lambda: esopt.LinearDecay(math.nan, 0.1, 5),
        lambda: esopt.CosineDecay(1.0, 0.1, -3),
        lambda: esopt.CosineDecay("1", 0.1, 3),
    ],
)
def test_schedules_refuse_what_would_fail_later(make):
    with pytest.raises(ValueError, match="must be a positive number"):
        make()


@pytest.mark.parametrize("end", [-1, -1e-300, math.nan, math.inf, "0", None, True])
def test_the_end_of_a_decay_is_not_negative(end: object):
    for make in (
        lambda: esopt.ExponentialDecay(1.0, 0.5, end=end),
        lambda: esopt.LinearDecay(1.0, end, 5),
        lambda: esopt.CosineDecay(1.0, end, 5),
    ):
        with pytest.raises(ValueError, match="end must be 0 or a positive number, got "):
            make()
