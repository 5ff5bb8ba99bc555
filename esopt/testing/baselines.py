"""Laws of baselines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..estimators.score import Score, ScoreState
from ..noise import Array, Given
from ..protocols import Baseline, Centered, State
from ..records import Evals, Population, Scale
from ._check import Check, bits, given, normals
from ._problems import Problem, linear, quadratic

_SIGMA = 0.7


def check_baseline(baseline: Baseline, *, shift_invariant: bool = False) -> None:
    """Check that ``baseline`` keeps the laws of :class:`esopt.protocols.Baseline`.

    The expected gradient does not change, in the mean and in the scale, for each coordinate: exactly, over
    Gauss-Hermite nodes in place of the noise, from a fresh state and from one that has learned, with and without
    failures. A value never influences its own block's baseline, nor the gradients that are added back.

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
                _check_each_block(check, baseline, start, block, dim)
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


def _center(check: Check, baseline: Baseline, population: Population, values: Array, state: State) -> Centered:
    """Return centred values, after the laws that hold for any values (n + k,)."""
    before, kept, evals = bits(state), bits(values), Evals(values)
    told = values[: population.n]
    centered = baseline.center(told, population, evals, state)
    again = baseline.center(told, population, evals, state)
    do = "Return a new array, and keep the state for learn."
    check.same("center is pure", again, bits(centered), do=do)
    check.same("center does not change the values", values, kept, do=do)
    check.same("center does not change the state", state, before, do=do)
    nan = np.isnan(told)
    for part in (centered.values, centered.scale_values):
        check.require(
            part is None or (part.shape == (population.n,) and bool((np.isnan(part) == nan).all())),
            "centred values are one number per noise row, nan where the values are",
            got=part,
            expected=f"shape {(population.n,)}, nan at {np.flatnonzero(nan)}",
            do="Leave dropped rows nan, and leave them out of every average.",
        )
    for part in (centered.mean, centered.scale):
        check.require(
            part is None or (part.shape == (population.dim,) and bool(np.isfinite(part).all())),
            "gradients to be added back are one finite number per coordinate",
            got=part,
            expected=f"shape {(population.dim,)}, or None",
            do="Return d numbers for the mean, and d for log sigma_i.",
        )
    _check_offsets(check, centered, population)
    return centered


def _check_offsets(check: Check, centered: Centered, population: Population) -> None:
    if centered.offsets is None:
        return
    groups, *tables = centered.offsets
    block = population.noise.block
    size = len(tables[0])
    check.require(
        groups.shape == (population.n,)
        and groups.dtype.kind in "iu"
        and bool(((groups >= 0) & (groups < size)).all())
        and bool((groups.reshape(-1, block) == groups[::block, None]).all()),
        "offsets have one group number per noise row, the same in a block",
        got=groups,
        expected=f"{population.n} row numbers of the tables, below {size}",
        do="Number the blocks, and repeat the numbers block times.",
    )
    check.require(
        all(table.shape == (size, population.dim) and bool(np.isfinite(table).all()) for table in tables),
        "offsets are one finite number per group and coordinate",
        got=[table.shape for table in tables],
        expected=f"(g, {population.dim}) for the mean and for the scale",
        do="Leave dropped rows out of every average.",
    )


def _parts(centered: Centered, dim: int) -> Array:
    """Return the centred values in each coordinate of the mean's gradient and of the scale's, (2, n, d)."""
    by_scale = centered.values if centered.scale_values is None else centered.scale_values
    table = np.stack([centered.values, by_scale])[:, :, None] + np.zeros(dim)
    if centered.offsets is not None:
        table -= np.stack(centered.offsets[1:])[:, centered.offsets.groups]
    return np.asarray(table)


def _known(centered: Centered, dim: int) -> Array:
    """Return what is added back to the gradients of mean and scale, (2, d)."""
    return np.stack([np.zeros(dim) if part is None else part for part in (centered.mean, centered.scale)])


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
    block, dim = population.noise.block, population.dim
    centered = _center(check, baseline, population, values, state)
    for start in range(0, population.n, block):
        change = np.zeros(len(values))
        change[start : start + block] = normals(30 + start, 1, block)[0]
        moved = _center(check, baseline, population, values + change, state)
        own = slice(start, start + block)
        do = "Compute the baseline of a block from other blocks, explicit rows and earlier generations only."
        law = "a value never influences its own block's baseline: centred values move with the values"
        expected = _parts(centered, dim)[:, own] + change[own, None]
        check.close(law, _parts(moved, dim)[:, own], expected, do=do, tolerance=1e-12, size=10.0)
        law = "a value never influences what is added back"
        do = "Know the gradient of what is subtracted from earlier generations only."
        check.close(law, _known(moved, dim), _known(centered, dim), do=do, tolerance=1e-12, size=10.0)


def _check_shift(check: Check, baseline: Baseline, population: Population, state: State) -> None:
    population = baseline.prepare(population, state)
    values = normals(40, 1, len(population))[0]
    a = _parts(_center(check, baseline, population, values, state), population.dim)
    b = _parts(_center(check, baseline, population, values + 64.0, state), population.dim)
    do = "Subtract an average of values with weights that add up to one, or pass shift_invariant=False."
    check.close("a constant added to all values changes nothing", b, a, do=do, tolerance=1e-12, size=64.0)


def _check_each_block(check: Check, baseline: Baseline, state: State, block: int, dim: int) -> None:
    """Average one block's part of the estimate over the nodes of its noise, the other blocks being what they are."""
    a, mean, sigma = np.linspace(0.8, -0.5, dim), np.linspace(0.4, -0.3, dim), np.linspace(0.7, 1.1, dim)
    problem = quadratic(a, np.diag(np.linspace(1.7, -0.6, dim)) + 0.2, -2.0)
    expected = np.stack([problem.mean_gradient(mean, sigma), problem.scale_gradient(mean, sigma)])
    others = given(70, 6 * block, dim, block)
    for own, failed in itertools.product((0, 1, 5), (False, True)):
        got = np.zeros((2, dim))
        for eps, weight in _nodes(dim, 3):
            rows = others.given.copy()
            rows[own * block : (own + 1) * block] = eps if block == 1 else np.stack([eps, -eps])
            noise = replace(others, given=rows)
            population = baseline.prepare(Population(mean, sigma, noise), state)
            values = problem.evaluate(population).values
            if failed:
                lost = (own + 1) % 6 * block
                values[lost : lost + block] = np.nan
            centered = baseline.center(values[: noise.n], population, Evals(values), state)
            parts = _parts(centered, dim)[:, own * block : (own + 1) * block]
            at = rows[own * block : (own + 1) * block]
            terms = parts * np.stack([at / sigma, np.square(at) - 1.0])
            got += weight * (terms.mean(axis=1) + _known(centered, dim))
        law = "the expected gradient, given the other blocks, is that of J, for the mean and for log sigma"
        do = "Add back the gradient of what is subtracted, and choose the rest without the noise of its block."
        check.close(law, got, expected, do=do, tolerance=1e-10, size=10.0)


def _nodes(coordinates: int, q: int) -> Iterator[tuple[Array, float]]:
    """Yield every combination of q Gauss-Hermite nodes, (coordinates,), and its weight."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(q)
    weights = weights / weights.sum()
    for choice in itertools.product(range(q), repeat=coordinates):
        yield nodes[list(choice)], float(np.prod(weights[list(choice)]))


def _check_expectation(check: Check, baseline: Baseline, state: State, block: int) -> None:
    """Average the score estimate over every combination of Gauss-Hermite nodes: exact for polynomials of low degree.

    Nodes have mean 0 and variance 1, and their product measure makes rows independent; so this is exact for any
    function of the other blocks as well.
    """
    estimator, mean = Score(baseline, with_scale=True), np.array([0.4])
    tilted = linear(np.array([0.8]), 3.0)
    curved = quadratic(np.array([0.8]), np.array([[1.7]]), -2.0)
    scales: tuple[Scale, ...] = (_SIGMA, np.array([_SIGMA]))
    for scale, (problem, failed) in itertools.product(scales, ((tilted, False), (curved, False), (curved, True))):
        got = _expectation(estimator, ScoreState(state), problem, mean, scale, block, failed)
        expected = np.append(problem.mean_gradient(mean, scale), problem.scale_gradient(mean, scale))
        law = f"the expected gradient of {problem.name} is that of J, for the mean and for sigma"
        if failed:
            law += ", also if a block failed"
        do = "Subtract nothing from a value that depends on it or on the noise of its block."
        check.close(law, got, expected, do=do, tolerance=1e-10, size=10.0)


def _expectation(
    estimator: Score, state: ScoreState, problem: Problem, mean: Array, scale: Scale, block: int, failed: bool
) -> Array:
    total = np.zeros(2)
    for eps, weight in _nodes(4, 3):
        rows = eps[:, None] if block == 1 else np.stack([eps, -eps], axis=1).reshape(-1, 1)
        population = estimator.prepare(Population(mean, scale, Given(rows, block, block == 2)), state)
        evals = problem.evaluate(population)
        if failed:
            evals = replace(evals, values=np.where(np.arange(len(population)) == block, np.nan, evals.values))
        gradient, _ = estimator.estimate(population, evals, state)
        total += weight * np.append(gradient.mean, np.asarray(gradient.scale, np.float64))
    return total
