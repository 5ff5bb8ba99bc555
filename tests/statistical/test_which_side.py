"""The closed forms of benchmarks/_which_side.py: against quadrature from the definitions, and against the estimators.

Quadrature sums over equal steps of a Gaussian weight, which is exact to rounding for waves and sigmoids; quadratics use
Gauss-Hermite nodes. The page docs/which_side_is_more_precise.md and its figures rest on these functions.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.reference import quadrature

Array = np.ndarray[Any, Any]
N = 7
SPEEDS = (0.05, 0.4, 1.2, 3.0, 9.0, 50.0)


def _load(name: str) -> ModuleType:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return __import__(name)
    finally:
        sys.path.remove(folder)


theory, bench = _load("_which_side"), _load("which_side")


def normal(step: float = 0.005) -> tuple[Array, Array]:
    """Nodes and weights of equal steps for N(0, 1)."""
    nodes = np.arange(-10.0, 10.0 + step / 2.0, step)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def from_definition(
    f: Callable[[Array], Array], slope: Callable[[Array], Array], truth: float, d: int, *, step: float = 0.005
) -> dict[str, float]:
    """Variance x evaluations of every estimator of f(eps_1), sigma = 1, by definition, with E|eps|^2 = u^2 + d - 1."""
    u, w = normal(step)
    y, opposite, square = f(u), f(-u), u**2 + d - 1.0
    mean, signal = w @ y, truth**2
    centered = w @ ((y - mean) ** 2 * square) - signal
    # Leave one out is a U-statistic with the kernel (y_1 - y_2)(eps_1 - eps_2) / 2.
    of_one = 0.25 * centered
    of_two = 0.5 * (centered + signal) + 0.5 * d * (w @ (y - mean) ** 2)
    return {
        "values, no baseline": w @ (y**2 * square) - signal,
        "values, f(mean)": (N + 1) / N * (w @ ((y - f(np.zeros(1))) ** 2 * square) - signal),
        "values, true mean": centered,
        "values, leave one out": (4.0 * (N - 2) * of_one + 2.0 * of_two) / (N - 1),
        "values, antithetic": 2.0 * (w @ ((0.5 * (y - opposite)) ** 2 * square) - signal),
        "gradients": w @ slope(u) ** 2 - signal,
        "gradients, antithetic": 2.0 * (w @ (0.5 * (slope(u) + slope(-u))) ** 2 - signal),
    }


@pytest.mark.parametrize("d", [1, 10, 100])
@pytest.mark.parametrize("s", SPEEDS)
def test_waves(s: float, d: int):
    by_phase = [
        from_definition(
            lambda u, p=p: np.sin(s * u + p),
            lambda u, p=p: s * np.cos(s * u + p),
            s * np.cos(p) * np.exp(-0.5 * s**2),
            d,
        )
        for p in bench.PHASES
    ]
    for name in by_phase[0]:
        expected = np.mean([found[name] for found in by_phase])
        # The definition subtracts the signal from a second moment; that is where its rounding comes from.
        size = expected + theory.wave_signal(s)
        assert abs(theory.wave(name, s, d, N) - expected) < 1e-10 * size, name


def test_leave_one_out_of_two_rows_in_the_plane():
    """The U-statistic argument itself, by brute force: both rows on a grid of Gauss-Hermite nodes."""
    s, nodes = 0.8, np.stack([g.ravel() for g in np.meshgrid(*[quadrature.rule(24)[0]] * 4, indexing="ij")], 1)
    w = quadrature.rule(24)[1]
    weights = np.einsum("i,j,k,l->ijkl", w, w, w, w).ravel()
    found = []
    for phase in bench.PHASES:
        y = np.sin(s * nodes[:, [0, 2]] + phase)
        g = 0.5 * (y[:, :1] - y[:, 1:]) * (nodes[:, :2] - nodes[:, 2:])
        found.append(2.0 * (weights @ np.square(g).sum(axis=1) - np.square(weights @ g).sum()))
    assert abs(np.mean(found) - theory.wave("values, leave one out", s, 2, 2)) < 1e-10


def test_small_steps_lose_no_digits():
    """The leading powers as s -> 0: (d + 1) s^2 / 2, s^4 / 2, s^6 / 2."""
    s = 1e-4
    for name, expected in {
        "values, true mean": 5.5 * s**2,
        "values, antithetic": 11.0 * s**2,
        "gradients": s**4 / 2.0,
        "gradients, antithetic": s**6 / 2.0,
    }.items():
        # The antithetic score is all linear part here: of its pair, d + 1 times the signal.
        assert abs(theory.wave(name, s, 10, N) / expected - 1.0) < 1e-6, name


@pytest.mark.parametrize("d", [1, 4, 25, 100])
def test_the_boundary(d: int):
    """Without a baseline exactly sqrt(d); with the mean 1.202 at d = 1, with pairs on both sides 1.109."""
    assert abs(theory.crossover("values, no baseline", "gradients", d, N) - np.sqrt(d)) < 1e-10
    mean = theory.crossover("values, true mean", "gradients", d, N)
    pairs = theory.crossover("values, antithetic", "gradients, antithetic", d, N)
    expected = {1: (1.2023, 1.1090), 4: (2.0176, 2.0007)}.get(d, (np.sqrt(d), np.sqrt(d)))
    np.testing.assert_allclose((mean, pairs), expected, atol=1e-4)
    # A gradient that costs as much as four values: half as far, but for a signal of exp(-25).
    assert abs(theory.crossover("values, no baseline", "gradients", 100 * d, N, cost=4.0) - 5.0 * np.sqrt(d)) < 1e-6


@pytest.mark.parametrize("d", [1, 10])
@pytest.mark.parametrize("r", [0.02, 0.3, 1.0, 8.0])
def test_sigmoids(r: float, d: int):
    def slope(u: Array) -> Array:
        return np.asarray(np.exp(-0.5 * (u / r) ** 2) / (r * np.sqrt(2.0 * np.pi)))

    truth = theory.sigmoid_gradient(r)
    found = from_definition(lambda u: theory.ndtr(u / r), slope, truth, d, step=0.002)
    assert abs(normal(0.002)[1] @ slope(normal(0.002)[0]) - truth) < 1e-12
    for name in ("values, leave one out", "gradients"):
        assert abs(theory.sigmoid(name, r, d, N) - found[name]) < 1e-10 * (found[name] + truth**2), name


def test_a_step_for_the_values():
    """r -> 0: Var f = 1/4 and the score's second moment d / 4."""
    assert abs(theory.sigmoid("values, leave one out", 0.0, 10, 10**9) - (2.5 - 1.0 / (2.0 * np.pi))) < 1e-7


def test_quadratics():
    """d = 2 with noise of two values on the values, (+1, -1), whose square is what counts."""
    a, h, c, sigma, noise = np.array([0.7, -0.4]), np.array([[1.1, 0.3], [0.3, -0.5]]), 1.3, 0.6, 0.9
    eps = np.array([point for point, _ in quadrature.grid(2, 8)])
    w = np.array([weight for _, weight in quadrature.grid(2, 8)])

    def f(x: Array) -> Array:
        return np.asarray(c + x @ a + 0.5 * ((x @ h) * x).sum(axis=1))

    def second(units: Array) -> float:
        return float(w @ np.square(units).sum(axis=1))

    y, back, a2 = f(sigma * eps), f(-sigma * eps), float(a @ a)
    fuzz = noise * second(eps) / sigma**2
    expected = {
        "values, no baseline": second(y[:, None] * eps / sigma) + fuzz - a2,
        "values, antithetic": 2.0 * (second(0.5 * (y - back)[:, None] * eps / sigma) + 0.5 * fuzz - a2),
        "gradients": second(a + sigma * eps @ h) - a2 + 0.2,
        "gradients, antithetic": 0.2,
    }
    forward = second((y - c)[:, None] * eps / sigma) - a2
    expected["values, f(mean)"] = (N + 1) * ((forward + fuzz) / N + fuzz / N)
    spread = w @ (y - w @ y) ** 2 + noise
    centered = second((y - w @ y)[:, None] * eps / sigma) + fuzz - a2
    expected["values, leave one out"] = centered + (a2 + 2.0 * spread / sigma**2) / (N - 1)
    # A block of two orthogonal pairs: no cross terms in the squared length.
    pair = expected["values, antithetic"] / 2.0
    expected["values, antithetic orthogonal"] = 4.0 * ((pair + a2) / 2.0 - a2)
    assert set(expected) == set(theory.QUADRATICS)
    for name, value in expected.items():
        assert abs(theory.quadratic(name, a, h, c, sigma, N, noise, 0.2) - value) < 1e-10 * (1.0 + value), name


def test_smoothing_is_one_multiplier_for_both_sides():
    """The right side always; the left where f has no jumps, and nothing of a boxcar or a disc."""
    for row in theory.fourier_table():
        assert row["right"] < 1e-10, row
        jumps = row["f"] in ("boxcar", "disc")
        assert (row["left"] == 1.0) if jumps else (row["left"] < 1e-10), row


def test_smoothed_gradients_of_boxcar_triangle_and_disc():
    x, points = np.linspace(-2.0, 2.0, 9), np.array([[0.0, 0.0], [0.6, -0.8], [1.3, 0.4]])
    assert np.abs(theory.boxcar_gradient(x, 0.4) - theory.fourier_1d(theory.boxcar_transform, x, 0.4)).max() < 1e-12
    assert np.abs(theory.triangle_gradient(x, 0.4) - theory.fourier_1d(theory.triangle_transform, x, 0.4)).max() < 1e-12
    circle = theory.disc_gradient(points, 0.4)
    assert np.abs(circle - theory.disc_score(points, 0.4)).max() < 1e-12
    assert np.abs(circle - theory.fourier_2d(theory.disc_transform, points, 0.4)).max() < 1e-12


def agree(row: dict[str, Any], precision: float) -> None:
    """Within five standard errors, which are less than the precision."""
    assert 5.0 * row["error"] < precision * row["exact"], row
    assert abs(row["value"] - row["exact"]) < 5.0 * row["error"], row


@pytest.fixture
def seeds() -> Iterator[int]:
    return itertools.count(7)


@pytest.mark.parametrize("name", bench.ESTIMATORS)
@pytest.mark.parametrize("s", [0.4, 3.0])
def test_the_estimators_on_waves(name: str, s: float, seeds: Iterator[int]):
    agree(bench.measure_wave(name, s, 10, seeds, 160, n=20), 0.6)


@pytest.mark.parametrize("name", ["values, leave one out", "gradients"])
def test_the_estimators_on_a_sigmoid(name: str, seeds: Iterator[int]):
    row = bench.measure_sigmoid(name, 0.2, 10, seeds, 400)
    agree(row, 0.4)
    assert 0.9 < row["coverage"] < 0.98


def test_gradients_are_confidently_wrong_at_a_step(seeds: Iterator[int]):
    """RMSE all of |grad J|, reported 0, no interval holds the truth; the values' intervals do."""
    row = bench.measure_sigmoid("gradients", 0.0, 10, seeds, 3)
    assert (row["declared"], row["coverage"]) == (0.0, 0.0)
    assert abs(row["rmse"] - 1.0 / np.sqrt(2.0 * np.pi)) < 1e-12
    assert 0.93 < bench.measure_sigmoid("values, leave one out", 0.0, 10, seeds, 400)["coverage"] < 0.97


@pytest.mark.parametrize("name", bench.theory.QUADRATICS)
def test_the_estimators_on_a_noisy_quadratic(name: str, seeds: Iterator[int]):
    agree(bench.measure_bowl(name, bench.Bowl(1.0, 1.0), seeds, 250), 0.6)


def test_the_page_shows_the_saved_numbers():
    """Its table is the saved one, and no saved dot is five standard errors from its curve."""
    data = bench.load(bench.RESULTS / "which_side.json")["data"]
    page = (bench.HERE.parent / "docs" / "which_side_is_more_precise.md").read_text("utf-8")
    assert bench.quadratic_table(data["quadratics"]) in page
    dots = [
        row for part in ("waves", "quadratics") for row in data[part] if row["error"] > 1e-12 * (1.0 + row["exact"])
    ]
    assert len(dots) > 300
    for row in dots:
        assert abs(row["value"] - row["exact"]) < 5.0 * row["error"], row
