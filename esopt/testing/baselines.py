"""Laws of baselines."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from ..estimators.score import Score, ScoreState
from ..noise import Array, Given
from ..protocols import Baseline, State
from ..records import Evals, Population
from ._check import Check, bits, given, normals
from ._problems import Problem, linear, quadratic

_SIGMA = 0.7


def check_baseline(baseline: Baseline, *, shift_invariant: bool = False) -> None:
    """Check that ``baseline`` keeps the laws of :class:`esopt.protocols.Baseline`.

    The expected gradient does not change: exactly, over Gauss-Hermite nodes in place of the noise, from a fresh state
    and from one that has learned, with and without failures. A value never influences its own block's baseline.

    Parameters
    ----------
    shift_invariant : a constant added to all values changes no centred value.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> from esopt import LeaveOneOut
    >>> from esopt.testing import check_baseline
    >>> check_baseline(LeaveOneOut(), shift_invariant=True)
    """
    check = Check(baseline)
    for block in (1, 2):
        for dim in (3, 1):
            population = Population(np.ones(dim), _SIGMA, given(1, 12, dim, block))
            state = fresh = baseline.init(dim)
            for generation in range(3):
                state = _check_generation(check, baseline, population, state, fresh, generation)
            if shift_invariant:
                _check_shift(check, baseline, population, state)
        for start in (fresh, state):
            _check_expectation(check, baseline, start, block)


def _prepared(check: Check, baseline: Baseline, population: Population, state: State) -> Population:
    prepared = baseline.prepare(population, state)
    check.require(
        prepared.noise is population.noise and len(baseline.prepare(prepared, state)) == len(prepared),
        "prepare adds explicit rows once, and leaves the noise alone",
        got=f"{len(baseline.prepare(prepared, state))} rows after a second time",
        expected=f"{len(prepared)}",
        do="Use population.with_extra under a tag of your own.",
    )
    return prepared


def _center(check: Check, baseline: Baseline, population: Population, values: Array, state: State) -> Array:
    """Return centred values, after the laws that hold for any values (n + k,)."""
    before, kept, evals = bits(state), bits(values), Evals(values)
    centered = baseline.center(values[: population.n], population, evals, state).values
    again = baseline.center(values[: population.n], population, evals, state).values
    do = "Return a new array, and keep the state for learn."
    check.same("center is pure", again, bits(centered), do=do)
    check.same("center does not change the values", values, kept, do=do)
    check.same("center does not change the state", state, before, do=do)
    nan = np.isnan(values[: population.n])
    check.require(
        centered.shape == (population.n,) and bool((np.isnan(centered) == nan).all()),
        "centred values are one number per noise row, nan where the values are",
        got=centered,
        expected=f"shape {(population.n,)}, nan at {np.flatnonzero(nan)}",
        do="Leave dropped rows nan, and leave them out of every average.",
    )
    return centered


def _check_generation(
    check: Check, baseline: Baseline, population: Population, state: State, fresh: State, generation: int
) -> State:
    population = _prepared(check, baseline, population, state)
    values = 5.0 + normals(20 + generation, 1, len(population))[0]
    block = population.noise.block
    failed = values.copy()
    failed[block : 2 * block] = np.nan
    for told in (values, failed):
        _check_own_block(check, baseline, population, told, state)
    before = bits(state)
    gradient, _ = Score(baseline).estimate(population, Evals(failed), ScoreState(state))
    after = baseline.learn(failed[: population.n], population, gradient, state)
    check.same("learn does not change the state", state, before, do="Return a new state.")
    return check.reload(after, fresh)


def _check_own_block(check: Check, baseline: Baseline, population: Population, values: Array, state: State) -> None:
    block = population.noise.block
    centered = _center(check, baseline, population, values, state)
    for start in range(0, population.n, block):
        change = np.zeros(len(values))
        change[start : start + block] = normals(30 + start, 1, block)[0]
        moved = _center(check, baseline, population, values + change, state)
        own = slice(start, start + block)
        do = "Compute the baseline of a block from other blocks, explicit rows and earlier generations only."
        law = "a value never influences its own block's baseline: centred values move with the values"
        check.close(law, moved[own], centered[own] + change[own], do=do, tolerance=1e-12, size=10.0)


def _check_shift(check: Check, baseline: Baseline, population: Population, state: State) -> None:
    population = baseline.prepare(population, state)
    values = normals(40, 1, len(population))[0]
    a = _center(check, baseline, population, values, state)
    b = _center(check, baseline, population, values + 64.0, state)
    do = "Subtract an average of values with weights that add up to one, or pass shift_invariant=False."
    check.close("a constant added to all values changes nothing", b, a, do=do, tolerance=1e-12, size=64.0)


def _check_expectation(check: Check, baseline: Baseline, state: State, block: int) -> None:
    """Average the score estimate over every combination of Gauss-Hermite nodes: exact for polynomials of low degree.

    Nodes have mean 0 and variance 1, and their product measure makes rows independent; so this is exact for any
    function of the other blocks as well.
    """
    estimator = Score(baseline, with_scale=True)
    problems = [linear(np.array([0.8]), 3.0), quadratic(np.array([0.8]), np.array([[1.7]]), -2.0)]
    for problem, failed in itertools.product(problems, (False, True)):
        got = _expectation(estimator, ScoreState(state), problem, block, failed)
        mean, sigma = np.array([0.4]), np.array([_SIGMA])
        expected = np.concatenate([problem.mean_gradient(mean, sigma), problem.log_scale_gradient(mean, sigma) / sigma])
        law = f"the expected gradient of {problem.name} is that of J, for the mean and for sigma"
        if failed:
            law += ", also if a block failed"
        do = "Subtract nothing from a value that depends on it or on the noise of its block."
        check.close(law, got, expected, do=do, tolerance=1e-10, size=10.0)


def _expectation(estimator: Score, state: ScoreState, problem: Problem, block: int, failed: bool) -> Array:
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = weights / weights.sum()
    blocks, total = 3, np.zeros(2)
    for choice in itertools.product(range(nodes.size), repeat=blocks):
        eps = nodes[list(choice)][:, None]
        rows = eps if block == 1 else np.stack([eps, -eps], axis=1).reshape(-1, 1)
        population = estimator.prepare(Population(np.array([0.4]), _SIGMA, Given(rows, block, block == 2)), state)
        evals = problem.evaluate(population)
        if failed:
            evals = replace(evals, values=np.where(np.arange(len(population)) == block, np.nan, evals.values))
        gradient, _ = estimator.estimate(population, evals, state)
        total += float(np.prod(weights[list(choice)])) * np.append(
            gradient.mean, np.asarray(gradient.scale, np.float64)
        )
    return total
