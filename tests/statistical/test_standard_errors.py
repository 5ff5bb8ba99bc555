"""Standard errors are what they say, and estimates are unbiased where no quadrature is exact: Monte Carlo.

Seeds are fixed, so nothing here can flake; sample sizes are such that a factor of two is off by more than ten
standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esopt import (
    Antithetic,
    AtMean,
    Bonnet,
    Evals,
    Gaussian,
    Key,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    Population,
    Score,
)
from esopt.baselines.moving_average import MovingAverageState
from esopt.estimators.score import ScoreState
from esopt.protocols import Estimator
from tests.reference.oracles import Cosine, Exponential

Array = NDArray[np.float64]

SAMPLERS = {"rows": Gaussian(), "pairs": Antithetic()}


@dataclass(frozen=True, eq=False)
class Separable:
    """c + b.x + q.x^2 / 2: cheap in many dimensions."""

    c: float
    b: Array
    q: Array

    def f(self, x: Array) -> Array:
        return self.c + x @ self.b + 0.5 * np.square(x) @ self.q

    def grad(self, x: Array) -> Array:
        return self.b + x * self.q

    def mean_gradient(self, mean: Array, sigma: Array) -> Array:
        return self.b + self.q * mean

    def log_scale_gradient(self, mean: Array, sigma: Array) -> Array:
        return np.square(sigma) * self.q

    def smoothed(self, mean: Array, sigma: Array) -> float:
        return float(self.f(mean) + 0.5 * np.square(sigma) @ self.q)


def estimators(value: float) -> dict[str, tuple[Estimator, Any]]:
    """Every baseline, and Bonnet; the moving average subtracts a number near ``value``."""
    average = ScoreState(MovingAverageState(0.5 * value + 0.3, 0.5))
    return {
        "NoBaseline": (Score(NoBaseline(), with_scale=True), ScoreState(())),
        "LeaveOneOut": (Score(LeaveOneOut(), with_scale=True), ScoreState(())),
        "AtMean": (Score(AtMean(), with_scale=True), ScoreState(())),
        "MovingAverage": (Score(MovingAverage(), with_scale=True), average),
        "Bonnet": (Bonnet(with_scale=True), ()),
    }


def collect(
    problem: Any, mean: Array, scale: Any, sampler: str, blocks: int, generations: int
) -> dict[str, dict[str, tuple[Array, Array, Array]]]:
    """Estimates (generations, ...), standard errors and truth, for every estimator and part of the gradient."""
    sigma = np.broadcast_to(np.asarray(scale), mean.shape)
    by_log = problem.log_scale_gradient(mean, sigma)
    truth = {
        "mean": problem.mean_gradient(mean, sigma),
        "scale": by_log if np.ndim(scale) else by_log.sum(keepdims=True) / scale,
        "value": np.array([problem.smoothed(mean, sigma)]),
    }
    several = estimators(float(truth["value"][0]))
    found: dict[str, dict[str, list[Any]]] = {name: {part: [] for part in truth} for name in several}
    for generation in range(generations):
        noise = SAMPLERS[sampler].noise(Key(17, generation), blocks * SAMPLERS[sampler].block, mean.size)
        population = Population(mean, scale, noise).with_extra("mean", mean)
        x = population.rows()
        evals = Evals(problem.f(x), problem.grad(x))
        for name, (estimator, state) in several.items():
            g, _ = estimator.estimate(population, evals, state)
            pairs = {
                "mean": (g.mean, g.mean_stderr),
                "scale": (g.scale, g.scale_stderr),
                "value": (g.value, g.value_stderr),
            }
            for part, pair in pairs.items():
                found[name][part].append(pair)
    out: dict[str, dict[str, tuple[Array, Array, Array]]] = {}
    for name, parts in found.items():
        out[name] = {}
        for part, pairs_of in parts.items():
            both = np.array(pairs_of, np.float64).reshape(generations, 2, -1)
            out[name][part] = both[:, 0], both[:, 1], truth[part]
    return out


@pytest.mark.parametrize("generations", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["scalar", "diagonal"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_standardised_errors_have_variance_one(sampler: str, kind: str, generations: int) -> None:
    """128 blocks, d = 50: (estimate - truth) / standard error, pooled over coordinates, to 10 %."""
    d = 50
    mean, scale = np.linspace(-0.5, 0.5, d), 0.5 if kind == "scalar" else np.linspace(0.2, 0.8, d)
    problem = Separable(2.0, np.linspace(1.0, -0.6, d), np.linspace(0.6, 0.2, d))
    for name, parts in collect(problem, mean, scale, sampler, 128, generations).items():
        for part, (found, error, truth) in parts.items():
            if name == "Bonnet" and sampler == "pairs" and part == "mean":
                assert np.abs(found - truth).max() < 1e-12  # E20: no variance on a quadratic
                continue
            off = found - truth
            z = off / error
            ratio = np.square(off).mean() / np.square(error).mean()
            assert np.abs(off.mean(axis=0) / off.std(axis=0)).max() * np.sqrt(generations) < 4.5, (name, part)
            assert 0.9 < ratio < 1.1, (name, part)
            assert 0.9 < z.var() < (1.25 if part == "scale" else 1.1), (name, part)


@pytest.mark.parametrize("kind", ["scalar", "diagonal"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize(
    "problem", [Exponential(np.array([0.8, -0.5, 0.3])), Cosine(np.array([1.1, -0.7, 0.4]))], ids=["exp", "cos"]
)
def test_unbiased_on_functions_that_are_no_polynomials(problem: Any, sampler: str, kind: str) -> None:
    """4096 blocks, 60 seeds: within 4 standard errors, and half or twice the truth would be off by more than 10."""
    mean, scale = np.array([0.6, -0.2, 0.9]), 0.8 if kind == "scalar" else np.array([0.9, 0.7, 1.0])
    for name, parts in collect(problem, mean, scale, sampler, 2048, 60).items():
        for part, (found, _, truth) in parts.items():
            error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
            z = (found.mean(axis=0) - truth) / error
            assert np.abs(z).max() < 4.0, (name, part)
            assert np.sqrt(np.mean(np.square(0.5 * truth / error))) > 10.0, (name, part)
