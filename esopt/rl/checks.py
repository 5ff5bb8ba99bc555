"""Checks of the centre: what an evaluator of rollouts knows, and when a centre counts as the best so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .engine import Array
from .normalisation import Moments

CHECK_SHARE = 10
"""Unless said otherwise, one step in so many may go into checks of the centre."""

_CLEAR = 3.0
"""Standard errors by which a centre is better than the best so far without playing on."""


class Check(NamedTuple):
    """A look at the centre: its mean return, and the environment steps before it, of candidates and of checks."""

    generation: int
    steps: int
    check_steps: int
    mean_return: float


@dataclass(frozen=True, eq=False)
class RolloutState:
    """What an evaluator of rollouts knows.

    Parameters
    ----------
    generation : generations evaluated.
    steps, check_steps : environment steps, those of candidates and those of checks.
    moments : of the observations so far.
    best, best_mean, best_std : (dim,), (inputs,), (inputs,)  the best centre that a check saw, and its normalisation.
    best_return : its mean return; -inf before the first check.
    average : (dim,)  of the centres so far, as ``averaging`` weighs them: those of the search with the seed ``search``,
        from generation ``since`` on. A strategy that starts several times changes the seed.
    mean_return, top_return : of the candidates of the last generation, with every reward.
    checks : (k, 4)  the fields of :class:`Check`.
    """

    generation: int
    steps: int
    check_steps: int
    moments: Moments
    best: Array
    best_mean: Array
    best_std: Array
    best_return: float
    mean_return: float
    top_return: float
    checks: Array
    average: Array
    search: int = -1
    since: int = 0


def averaged(state: RolloutState, centre: Array, averaging: float | None) -> RolloutState:
    """Return the state with what is checked next: the centre, or an average (Shamir and Zhang 2013, section 4)."""
    if averaging is None:
        return replace(state, average=np.array(centre))
    weight = (averaging + 1.0) / (averaging + 1.0 + state.generation - state.since)
    return replace(state, average=state.average + weight * (centre - state.average))


def searching(state: RolloutState, search: int) -> RolloutState:
    """Return the state for a generation of the search with the seed ``search``: another one begins a new average."""
    return state if search == state.search else replace(state, search=search, since=state.generation)


def due(state: RolloutState, every: int | None, confirm: int) -> bool:
    """Return whether a check is due: the first one is; half of the share of checks is kept for confirming."""
    if every is not None:
        return state.generation % every == 0
    return state.generation == 0 or (2 if confirm else 1) * CHECK_SHARE * state.check_steps <= state.steps


def doubtful(returns: Array, best: float) -> bool:
    """Return whether ``returns`` (k,) have at least the mean ``best``, but not by three standard errors."""
    if returns.size < 2 or not np.isfinite(best):
        return False
    lead = float(returns.mean()) - best
    return bool(0.0 <= lead <= _CLEAR * float(returns.std(ddof=1)) / np.sqrt(returns.size))
