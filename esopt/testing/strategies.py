"""Laws of strategies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, Key, check_seed
from ..objective import ALONG_PROBES, PARTS
from ..optimizer import Optimizer
from ..protocols import State, Strategy
from ..records import Evals
from ..samplers.gaussian import Gaussian
from ._check import Check, bits, normals
from ._problems import Problem, constant, sphere

# Runs on random values: how many, the generations before the count begins, and those that count.
_RUNS, _BEFORE, _COUNTED = 16, 50, 300
_BIAS = 0.003
"""Drift of log sigma in a generation that is let pass beside four standard errors."""


def check_strategy(
    strategy: Strategy,
    *,
    dims: Sequence[int] = (1, 2, 5),
    rank_based: bool = False,
    translation_equivariant: bool = False,
    shift_invariant: bool = False,
    seeded: bool = True,
    learns: int = 150,
    survives: bool = False,
    neutral: bool = False,
) -> None:
    """Check that ``strategy`` keeps the laws of :class:`esopt.protocols.Strategy`.

    ``ask`` and ``stop`` are pure; ``tell`` moves the clock by one and changes none of its arguments; equal seeds give
    equal bits; a state saved and loaded in any generation goes on in the same bits, and so does a run that is told in
    pieces, in any order; failures and constant values do no harm.

    Parameters
    ----------
    dims : dimensions to try.
    rank_based : increasing transformations of the values change no bit of mean and candidates.
    translation_equivariant : moving x0 and f moves every mean, up to rounding.
    shift_invariant : a constant added to f changes no mean, up to rounding.
    seeded : other seeds give other candidates; False for fixed designs.
    survives : a generation without any value is no error once there was one; the search goes on elsewhere.
    neutral : where values are random, log ``state.sigma`` has no drift: less than 0.003 in a generation, and four
        standard errors of 16 runs of 300 generations, in the largest of ``dims``.
    learns : generations after which |mean - 1|^2 is below half of its start at 0; 0 to leave that out.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> import esopt
    >>> from esopt.testing import check_strategy
    >>> check_strategy(esopt.openai_es(n=8), rank_based=True)
    """
    check = Check(strategy)
    for dim in dims:
        _check_start(check, strategy, dim, seeded)
        _check_run(check, strategy, dim)
        _check_pieces(check, strategy, dim)
        _check_failures(check, strategy, dim, survives)
        if rank_based:
            _check_ranks(check, strategy, dim)
        if translation_equivariant:
            _check_translation(check, strategy, dim)
        if shift_invariant:
            do = "Subtract a baseline, or pass shift_invariant=False."
            law = "a constant added to f changes no mean"
            a, b = (_run(strategy, np.ones(dim), 5, sphere(0.0, c)) for c in (0.0, 32.0))
            check.close(law, b[-1].mean, a[-1].mean, do=do, tolerance=1e-6, size=_travelled(a))
        if learns:
            _check_learning(check, strategy, dim, learns)
    if neutral:
        _check_drift(check, strategy, max(dims))


def _run(strategy: Strategy, x0: Array, generations: int, problem: Problem, seed: int = 5) -> list[State]:
    states = [strategy.init(x0, seed)]
    for _ in range(generations):
        states.append(strategy.tell(states[-1], problem.evaluate(strategy.ask(states[-1])))[0])
    return states


def _travelled(states: list[State]) -> float:
    return float(max(np.abs(state.mean - states[0].mean).max() for state in states)) or 1.0


def _check_start(check: Check, strategy: Strategy, dim: int, seeded: bool) -> None:
    x0 = np.linspace(1.0, 2.0, dim)
    state = strategy.init(x0, 3)
    check.same("init does not change x0", x0, bits(np.linspace(1.0, 2.0, dim)), do="Copy x0.")
    frozen = bits(state)
    check.same("init is pure", strategy.init(x0, 3), frozen, do="Derive everything from x0, the seed and the settings.")
    x0 += 1.0
    check.same("a state shares no memory with x0", state, frozen, do="Copy x0.")
    check.require(
        state.generation == 0 and state.mean.shape == (dim,) and state.mean.dtype == np.float64,
        "a fresh state is in generation 0, with a mean (d,)",
        got=(state.generation, state.mean),
        expected=(0, f"{dim} float64 numbers"),
        do="Keep fields generation and mean in the state.",
    )
    reasons = strategy.stop(state)
    check.require(reasons == {}, "a fresh run goes on", got=reasons, expected={}, do="Return {} while running.")
    rows = strategy.ask(state).rows()
    check.require(
        rows.ndim == 2 and rows.shape[1] == dim and len(rows) > 0 and bool(np.isfinite(rows).all()),
        "candidates are finite numbers, (n, d)",
        got=rows,
        expected=f"shape (n, {dim})",
        do="Return a Population around state.mean.",
    )
    large = strategy.init(np.ones(dim), check_seed(2**64 - 1))
    strategy.ask(large)
    if seeded:
        other = strategy.ask(strategy.init(np.linspace(1.0, 2.0, dim), 4)).rows()
        do = "Put the seed into the key of the noise, or pass seeded=False."
        check.require(
            not np.array_equal(rows, other), "other seeds give other candidates", got=other, expected="others", do=do
        )


def _check_run(check: Check, strategy: Strategy, dim: int) -> None:
    """Check purity, the clock, and saving in every generation of a short run."""
    problem, states = sphere(0.25), [strategy.init(np.ones(dim), 5)]
    for generation in range(4):
        state = states[-1]
        before = bits(state)
        population = strategy.ask(state)
        rows, seeds = population.rows(), population.seeds
        evals = problem.evaluate(population)
        told = bits(evals.values)
        after, info = strategy.tell(state, evals)
        do = "Compute from the state and the arguments alone, and write to neither."
        check.same("ask is pure", strategy.ask(state).rows(), bits(rows), do=do)
        check.same("seeds are pure", strategy.ask(state).seeds, bits(seeds), do=do)
        check.same("tell is pure", strategy.tell(state, evals)[0], bits(after), do=do)
        check.require(
            strategy.stop(state) == strategy.stop(state), "stop is pure", got="two answers", expected="one", do=do
        )
        check.same("ask, tell and stop do not change the state", state, before, do=do)
        check.same("tell does not change the values", evals.values, told, do=do)
        check.require(
            after.generation == generation + 1 and info.generation == generation,
            "tell moves the clock by one, and its Info has the generation that was told",
            got=(after.generation, info.generation),
            expected=(generation + 1, generation),
            do="Add one to state.generation in tell.",
        )
        states.append(after)
    final = bits(states[-1])
    for generation, state in enumerate(states):
        loaded = check.reload(state, strategy.init(np.zeros(dim), 0))
        for _ in range(generation, 4):
            loaded, _ = strategy.tell(loaded, problem.evaluate(strategy.ask(loaded)))
        do = "Keep everything that the next generation needs in the state."
        check.same(f"a run saved in generation {generation} and resumed ends in the same bits", loaded, final, do=do)


def _check_pieces(check: Check, strategy: Strategy, dim: int) -> None:
    """Check that values told in pieces and in any order end in the bits of values told at once."""
    problem, state, es = sphere(0.25), strategy.init(np.ones(dim), 5), Optimizer(strategy, np.ones(dim), 5)
    for generation in range(3):
        population = strategy.ask(state)
        evals = problem.evaluate(population)
        state, _ = strategy.tell(state, evals)
        tables = {name: getattr(evals, name) for name in PARTS if getattr(evals, name) is not None}
        order = np.argsort(normals(generation, 1, len(population))[0])
        for rows in np.array_split(order, 1 + generation):
            noise = rows[rows < population.n]
            told = {name: table[noise if name in ALONG_PROBES else rows] for name, table in tables.items()}
            es.tell(evals.values[rows], rows=rows, **told)
        do = "Compute from the state and the values alone, whatever their array looks like."
        law = "values told in pieces, in any order, give the bits of values told at once"
        check.same(law, es.state, bits(state), do=do)


def _check_failures(check: Check, strategy: Strategy, dim: int, survives: bool) -> None:
    for value in (1.0, 0.0, -1e10):
        state = _run(strategy, np.ones(dim), 4, constant(value))[-1]
        check.require(
            np.isfinite(state.mean).all() and np.isfinite(strategy.ask(state).rows()).all(),
            f"a constant f = {value} leaves the run finite",
            got=state.mean,
            expected="finite numbers",
            do="Guard divisions by the spread of the values and by the length of the gradient.",
        )
    state = strategy.init(np.ones(dim), 5)
    for _ in range(3):
        population = strategy.ask(state)
        evals = sphere().evaluate(population)
        before = bits(state)
        nothing = replace(evals, values=np.full(len(population), np.nan))
        do = "Raise esopt.EvaluationError before anything is changed."
        if population.n > 1 and not survives:
            # Failures are news to a search that goes from point to point, and an error to one that samples.
            check.raises(EvaluationError, partial(strategy.tell, state, nothing), "values all nan are an error", do=do)
            check.same("values all nan leave the state as it was", state, before, do=do)
        values = evals.values.copy()
        values[0] = np.nan
        try:
            state, _ = strategy.tell(state, replace(evals, values=values))
        except EvaluationError as error:
            check.require(
                population.n <= population.noise.block,
                "one failure among several blocks is survived",
                got=f"EvaluationError: {error}",
                expected="the next state",
                do="Drop the block of a failed row, or rank it last.",
            )
            return
        check.require(
            np.isfinite(state.mean).all(),
            "one failure leaves the mean finite",
            got=state.mean,
            expected="numbers",
            do=do,
        )


def _compose(outer: Callable[[Array], Array], inner: Callable[[Array], Array], x: Array) -> Array:
    return outer(inner(x))


def _check_ranks(check: Check, strategy: Strategy, dim: int) -> None:
    states = _run(strategy, np.ones(dim), 5, sphere())
    for name, increasing in (("exp(f)", np.exp), ("f^3", lambda v: v**3), ("f - 10^4", lambda v: v - 1e4)):
        transformed = _run(strategy, np.ones(dim), 5, replace(sphere(), f=partial(_compose, increasing, sphere().f)))
        do = "Use the order of the values and nothing else, or pass rank_based=False."
        expected = bits((states[-1].mean, strategy.ask(states[-1]).rows()))
        found = (transformed[-1].mean, strategy.ask(transformed[-1]).rows())
        check.same(f"{name} in place of f gives the same mean and candidates", found, expected, do=do)
    population = strategy.ask(states[-1])
    evals = sphere().evaluate(population)
    values = evals.values.copy()
    values[[0, -1]] = np.inf, -np.inf
    after, _ = strategy.tell(states[-1], replace(evals, values=values))
    do = "Rank infinite values like others."
    check.require(
        np.isfinite(after.mean).all(), "infinite values are ranked", got=after.mean, expected="numbers", do=do
    )


def _check_translation(check: Check, strategy: Strategy, dim: int) -> None:
    offset = np.linspace(2.0, -3.0, dim)
    here = _run(strategy, np.ones(dim), 5, sphere(0.0))
    there = _run(strategy, np.ones(dim) + offset, 5, sphere(offset))
    for a, b in zip(here, there, strict=True):
        do = "Use differences from the mean only; weight decay and bounds break this: translation_equivariant=False."
        law = f"moving x0 and f moves the mean of generation {a.generation}"
        check.close(law, b.mean - offset, a.mean, do=do, tolerance=1e-6, size=_travelled(here))


def _check_learning(check: Check, strategy: Strategy, dim: int, generations: int) -> None:
    problem, state = sphere(1.0), strategy.init(np.zeros(dim), 5)
    for _ in range(generations):
        if strategy.stop(state):
            break
        state, _ = strategy.tell(state, problem.evaluate(strategy.ask(state)))
    reached = float(np.square(state.mean - 1.0).sum())
    check.require(
        reached < 0.5 * dim,
        f"|x - 1|^2 goes down in {generations} generations from {dim}",
        got=reached,
        expected=f"< {0.5 * dim}",
        do="Lower is better: check the sign of the update. Pass a larger learns for small steps.",
    )


def _check_drift(check: Check, strategy: Strategy, dim: int) -> None:
    """Check log sigma on random values, after the generations in which paths that start from zero fill."""
    drifts = np.empty(_RUNS)
    for run in range(_RUNS):
        state: Any = strategy.init(np.ones(dim), run)
        first = 0.0
        for generation in range(_BEFORE + _COUNTED):
            if generation == _BEFORE:
                first = math.log(state.sigma)
            # Noise of a seed that no run has.
            values = Gaussian().noise(Key(1000 + run, generation), 1, len(strategy.ask(state))).rows()[0]
            state, _ = strategy.tell(state, Evals(values.astype(np.float64)))
        drifts[run] = (math.log(state.sigma) - first) / _COUNTED
    found, error = float(drifts.mean()), float(drifts.std(ddof=1)) / math.sqrt(_RUNS)
    check.require(
        abs(found) < _BIAS + 4.0 * error,
        f"log sigma has no drift in {dim} dimensions where values are random",
        got=f"{found:+.4f} in a generation",
        expected=f"within {_BIAS + 4.0 * error:.4f} of zero",
        do="Compare sigma's path with its expectation under random selection, or pass neutral=False.",
    )
