"""Values that come after their generation was closed, used with importance weights or counted as lost.

A row of an earlier generation has a status. Rows that an update used are spent, and so are those of their block,
because they depend on each other; all others are independent of the mean and scale of today, given what those were
when the rows were drawn. That is why :func:`esopt.estimators._reweighted.reweighted` is unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._open import LATE, Past
from ._progress import Run
from ._told import check_rows, check_steps, check_values
from .errors import CheckpointError
from .estimators._blocks import usable_blocks
from .protocols import State, Strategy
from .records import Evals, Population

AWAITED, SPENT, READY, USELESS = range(4)
"""Status of a row: its value may still be used; was told, and used or lost; waits for the next update (a row of a
mirrored pair, for the other one too); is not told and will be of no use."""

_FLOOR = 0.1
"""Least share of independent samples that one of another distribution stands for, in expectation."""
_KEPT = 8
"""Generations of which late values are waited for: a mean, a scale and the values are kept of each."""


def check_policy(stale: object, strategy: Strategy, state: State) -> None:
    """Raise ValueError unless ``stale`` is a policy, and TypeError if ``strategy`` cannot follow it."""
    if stale not in ("refuse", "reweight"):
        raise ValueError(f'stale must be "refuse" or "reweight", got {stale!r}. Leave it out to refuse late values.')
    if stale == "refuse":
        return
    check = getattr(strategy, "check_stale", None)
    if check is None:
        raise TypeError(
            f'stale="reweight" got {type(strategy).__name__}, which has no use for weighted values: importance weights '
            "need a gradient from values as they are, not from ranks, and no bounds or restarts around it. Use "
            "GradientES() with its Raw() shaping and without bounds, or leave stale out and close generations with "
            "es.close_generation()."
        )
    check(state)


def refuse(generation: int, now: int, stale: str, besides: Mapping[str, object]) -> None:
    """Raise TypeError or ValueError for a ``generation`` that is not one of the past, or whose values are not used.

    ``besides`` are derivatives and constraints, for which there is no use.
    """
    if isinstance(generation, bool) or not isinstance(generation, (int, np.integer)):
        raise TypeError(f"tell() got generation of type {type(generation).__name__}. Pass es.generation as it was.")
    if not 0 <= generation < now:
        raise ValueError(
            f"tell() got values of generation {generation}, and the run is in generation {now}. "
            "Pass the number that es.generation had when they were asked for."
        )
    if stale == "refuse":
        raise ValueError(
            f"tell() got values of generation {generation}, which is closed: the run is in generation {now}. "
            'Throw them away, or use Optimizer(GradientES(), x0, stale="reweight").'
        )
    if besides:
        raise ValueError(
            f"tell() got {' and '.join(besides)} of generation {generation}, which is closed: only values are of use. "
            "Leave them out."
        )


def take(
    run: Run,
    strategy: Strategy,
    values: ArrayLike,
    rows: ArrayLike | None,
    generation: int,
    steps: int,
) -> Run:
    """Return the run with late ``values`` of some ``rows`` of an earlier generation, to be used in the next update."""
    check_steps(steps)
    past, at = run.past, np.flatnonzero(run.past.generation == generation)
    if not at.size:  # too long ago, or nothing was missing
        lost = np.size(values)
        progress = replace(run.progress, evaluations=run.progress.evaluations + lost, steps=run.progress.steps + steps)
        return replace(run, past=replace(past, lost=past.lost + lost), progress=progress)
    population, own = recall(strategy, run.strategy, past, int(at[0])), slices(past)[int(at[0])]
    status = past.status[own]
    told = (status == SPENT) | (status == READY)
    if rows is None:
        rows = np.flatnonzero(~told)
    chosen = check_rows(rows, told, generation)
    numbers = check_values(values, population, chosen)
    usable = np.isfinite(numbers) & (status[chosen] == AWAITED)
    nans = int(np.isnan(numbers).sum())
    kept, states = past.values.copy(), past.status.copy()
    kept[own][chosen] = numbers
    states[own][chosen] = np.where(usable, READY, SPENT)
    after = replace(
        past,
        values=kept,
        status=states,
        lost=past.lost + int((~usable).sum()) - nans,
        nans=past.nans + nans,
    )
    progress = replace(
        run.progress, evaluations=run.progress.evaluations + chosen.size, steps=run.progress.steps + steps
    )
    finite = np.where(np.isfinite(numbers), numbers, np.inf)
    if finite.size and finite.min() < progress.best_value:
        least = int(finite.argmin())
        progress = replace(progress, best_value=float(finite[least]), best_x=population[int(chosen[least])])
    return replace(run, past=after, progress=progress)


def join(evals: Evals, past: Past, population: Population, strategy: Strategy, state: State) -> tuple[Evals, Past]:
    """Return ``evals`` of this generation's ``population`` with the late values that are of use, and what is left."""
    status, lost, keep, stale = past.status.copy(), past.lost, [], []
    for index, own in enumerate(slices(past)):
        earlier, mine = recall(strategy, state, past, index), status[own]
        far = _share(population, earlier) < _FLOOR or index < len(past.generation) - _KEPT
        ready = mine[: earlier.n] == READY
        if far:
            lost += int(ready.sum())
            mine[mine == READY] = SPENT
        elif ready.any():
            if earlier.noise.mirrored:
                ready = ready.reshape(-1, 2).all(axis=1).repeat(2)
            mine[: earlier.n][ready] = SPENT
            if ready.any():
                stale.append((earlier, np.where(ready, past.values[own][: earlier.n], np.nan)))
        keep.append(not far and bool(((mine == AWAITED) | (mine == READY)).any()))
    failures = dict(evals.failures)
    for kind, number in (("stale", lost), ("nan", past.nans)):
        if number:
            failures[kind] = failures.get(kind, 0) + number
    after = _chosen(replace(past, status=status, lost=0, nans=0), np.array(keep, np.bool_))
    return replace(evals, failures=failures, stale=tuple(stale)), after


def close(past: Past, population: Population, evals: Evals, seen: Evals, told: NDArray[np.bool_]) -> Past:
    """Return ``past`` with the generation of ``population``, of which an update used ``evals``.

    ``seen`` has the values of all rows ``told``, those of half pairs too.
    """
    noise, n = population.noise, population.n
    used = usable_blocks(evals.values[:n], population, pairs=True)[1]
    used = np.ones(n, np.bool_) if used is None else used
    clean = ~used.reshape(-1, noise.block).any(axis=1).repeat(noise.block)
    missing = (~told[:n]).reshape(-1, noise.block).any(axis=1).repeat(noise.block)
    status = np.where(told, SPENT, USELESS).astype(np.int8)
    ready = told[:n] & clean & missing & np.isfinite(seen.values[:n])
    status[:n][ready] = READY
    status[:n][~told[:n] & clean] = AWAITED
    scale = np.atleast_1d(np.asarray(population.scale, np.float64))
    empty = not past.generation.size
    return Past(
        np.append(past.generation, population.noise.key.generation),
        np.append(past.n, n),
        np.append(past.rows, len(population)),
        np.concatenate([np.empty((0, population.dim)) if empty else past.mean, population.mean[None]]),
        np.concatenate([np.empty((0, scale.size)) if empty else past.scale, scale[None]]),
        np.concatenate([past.values, seen.values]),
        np.concatenate([past.status, status]),
        past.lost,
        past.nans,
    )


def recall(strategy: Any, state: State, past: Past, index: int) -> Population:
    """Return the population of a generation of the past."""
    scale = past.scale[index]
    population: Population = strategy.recall(
        state,
        int(past.generation[index]),
        int(past.n[index]),
        past.mean[index],
        float(scale[0]) if isinstance(state.scale, float) else scale,
    )
    return population


def slices(past: Past) -> list[slice]:
    """Return where the rows of each generation are."""
    ends = np.cumsum(past.rows).tolist()
    return [slice(start, end) for start, end in zip([0, *ends][:-1], ends, strict=True)]


def check_past(past: Past, state: State, name: str) -> None:
    """Raise CheckpointError unless the lengths of what the file ``name`` holds agree."""
    count, rows = len(past.generation), int(past.rows.sum())
    good = all(len(part) == count for part in (past.n, past.rows, past.mean, past.scale))
    good = good and len(past.values) == len(past.status) == rows and bool((past.n <= past.rows).all())
    good = good and bool((past.n >= 0).all()) and bool((past.generation < state.generation).all())
    if count:
        good = good and past.mean.shape[1] == state.mean.size and past.scale.shape[1] == np.size(state.scale)
    if not good:
        raise CheckpointError(
            f"{name} is damaged: what it says of earlier generations does not fit together.\n"
            "Restore it from a copy, or start a new run with another file."
        )


def _chosen(past: Past, keep: NDArray[np.bool_]) -> Past:
    if keep.all():
        return past
    rows = np.repeat(keep, past.rows)
    return replace(
        past,
        generation=past.generation[keep],
        n=past.n[keep],
        rows=past.rows[keep],
        mean=past.mean[keep],
        scale=past.scale[keep],
        values=past.values[rows],
        status=past.status[rows],
    )


def _share(now: Population, earlier: Population) -> float:
    """Return the expected effective share of samples from ``earlier`` weighted for ``now``: 1 / E[w^2], w = p / q.

    E_q[(p / q)^2] is the product over coordinates of s_q^2 / (s_p sqrt(v)) exp(delta^2 / v), v = 2 s_q^2 - s_p^2, and
    infinite where a v is not positive.
    """
    p, q = (np.broadcast_to(np.asarray(each.scale, np.float64), each.dim) for each in (now, earlier))
    spread = 2.0 * np.square(q) - np.square(p)
    if not (min(spread.min(), p.min(), q.min()) > 0.0):
        return 0.0
    logs = 2.0 * np.log(q) - np.log(p) - 0.5 * np.log(spread) + np.square(now.mean - earlier.mean) / spread
    return math.exp(-float(logs.sum()))


def known(evals: Evals, told: NDArray[np.bool_]) -> Evals:
    """Return ``evals`` with the rows that were not ``told`` counted as late."""
    missing = int((~told).sum())
    return replace(evals, failures={**evals.failures, LATE: missing}) if missing else evals
