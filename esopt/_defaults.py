"""The strategy of minimize() where none is given."""

from __future__ import annotations

import numpy as np

from ._constrained import constrain, is_constrained
from .estimators.bonnet import Bonnet
from .integers import Rounded
from .maps import UNBOUNDED, Map
from .noise import Array
from .objective import Objective
from .protocols import Strategy
from .rules.adam import Adam
from .schedules import ExponentialDecay
from .strategies.cmaes import CMAES
from .strategies.gradient_es import GradientES, check_sigma
from .strategies.lra_cmaes import LRACMAES
from .strategies.named import snes
from .strategies.portfolio import Portfolio
from .strategies.restarts import Restarts
from .strategies.sep_cma import SepCMA

NOISY_DIM, CMAES_DIM, PORTFOLIO_DIM, SEP_DIM = 40, 200, 640, 10_000
"""The largest d for which each strategy is the default; beyond the last it is SNES, which never holds n d numbers."""


UNLIKE = 10.0
"""Coordinates have a default sigma each where one number would be as many times too small for some."""


def choose_strategy(
    strategy: Strategy | None,
    sigma: float | Array | None,
    objective: Objective | None,
    box: Map | None,
    start: Array,
    stochastic: bool,
    asynchronous: bool,
) -> Strategy:
    """Return the strategy of a run from ``start`` (d,): the given one or the default, inside what constraints make."""
    if strategy is None and isinstance(box, Rounded):
        strategy = default_integer_strategy(sigma, box, start, stochastic=stochastic)
    elif strategy is None:
        gradients, limited = objective is not None and objective.grad is not None, is_constrained(objective)
        own = np.empty(0) if box is None else own_spreads(box, start)
        begin: float | Array | ExponentialDecay = default_spread(own) if sigma is None else sigma
        if sigma is None and gradients:
            least = float(np.fmin.reduce(own, initial=0.1))
            begin = ExponentialDecay(least, 0.5, every=100, end=min(1e-6, least))
        strategy = default_strategy(
            begin, start.size, gradients=gradients, stochastic=stochastic, portfolio=not (limited or asynchronous)
        )
    elif sigma is not None:
        raise ValueError("sigma= is for the default strategy. Set it in the strategy: GradientES(sigma=...).")
    return constrain(strategy, objective, stochastic=stochastic)


def own_spreads(box: Map, start: Array) -> Array:
    """Return a fifth of each coordinate's width, at most 0.5 or a fifth of its start; nan without two bounds."""
    with np.errstate(over="ignore"):
        width = np.subtract(box.high, box.low).reshape(-1)
    if width.size not in (1, start.size):
        return np.empty(0)  # the strategy will refuse it
    return np.where(width < UNBOUNDED, np.minimum(0.2 * width, np.maximum(0.5, 0.2 * np.abs(start))), np.nan)


def default_spread(own: Array) -> float | Array:
    """Return the default sigma: the least of the coordinates' ``own`` and 0.5, or all of them where units differ."""
    known = own[~np.isnan(own)]
    if known.size and known.max() > UNLIKE * known.min():
        return np.where(np.isnan(own), 0.5, own)
    return float(known.min(initial=0.5))


def default_strategy(
    sigma: float | Array | ExponentialDecay, dim: int, *, gradients: bool, stochastic: bool, portfolio: bool = True
) -> Strategy:
    """Return the default of :func:`minimize` for an objective of ``dim`` variables.

    With gradients Bonnet with Adam, whose sigma may shrink. For a stochastic f CMAES with n = 4 d to d = 40, where it
    was the best under two kinds of noise (benchmarks/bench_bbob_noisy.py), without restarts, since the result is the
    mean of the last run; SNES beyond. Else by d: Portfolio to 640, as far as it was looked at (docs/strategies.md),
    SepCMA with restarts to 10,000, SNES. Without ``portfolio`` (constraints, asynchronous runs) or for a factor CMAES
    with restarts takes its place to 200, SepCMA beyond.
    """
    if gradients or isinstance(sigma, ExponentialDecay):
        return GradientES(sigma=sigma, n=4, estimator=Bonnet(), rule=Adam(0.05))
    flat = check_sigma(sigma)
    if stochastic and dim <= NOISY_DIM:
        return CMAES(sigma, n=4 * max(dim, 3))
    if stochastic or dim > SEP_DIM:
        return snes(sigma=sigma)
    whole = isinstance(flat, np.ndarray) and flat.ndim == 2
    if portfolio and dim <= PORTFOLIO_DIM and not whole:
        return Portfolio(sigma)
    if dim <= CMAES_DIM:
        return Restarts(CMAES(sigma))
    return Restarts(SepCMA(sigma))


def default_integer_strategy(sigma: float | Array | None, box: Rounded, start: Array, *, stochastic: bool) -> Strategy:
    """Return the default of :func:`minimize` where the map ``box`` rounds some coordinates.

    CMAES with restarts to d = 200, SepCMA beyond; for a stochastic f to 200 LRACMAES, or CMAES with n = 100 where other
    coordinates are bounded: LRACMAES spreads over the mirror images of a narrow box. The optimizer adds the margin.
    The default sigma is a quarter of the number of values for integers with two bounds, 1 for other integers, and that
    of runs with the other coordinates alone elsewhere.
    """
    with np.errstate(over="ignore"):
        width, rounds = np.subtract(box.high, box.low).reshape(-1), box.rounds.reshape(-1)
    if sigma is None:
        sigma = np.where(np.isfinite(width), 0.25 * (width + 1.0), 1.0)
        sigma[~rounds] = default_spread(own_spreads(box, start)[~rounds])
    check_sigma(sigma)
    if box.rounds.size > CMAES_DIM:
        return Restarts(SepCMA(sigma))
    if stochastic:
        mirrored = np.isfinite(width[~rounds]).any()
        return CMAES(sigma, n=100) if mirrored else LRACMAES(sigma)
    return Restarts(CMAES(sigma))
