"""The strategy of minimize() where none is given."""

from __future__ import annotations

import math

import numpy as np

from .estimators.bonnet import Bonnet
from .noise import Array
from .protocols import Strategy
from .rules.adam import Adam
from .schedules import ExponentialDecay
from .strategies.cmaes import CMAES
from .strategies.gradient_es import GradientES, check_sigma
from .strategies.named import snes
from .strategies.portfolio import Portfolio
from .strategies.restarts import Restarts
from .strategies.sep_cma import SepCMA

PORTFOLIO_DIM, CMAES_DIM, SEP_DIM = 40, 200, 10_000
"""The largest d for which each strategy is the default; beyond the last it is SNES, which never holds n d numbers."""


def default_strategy(
    sigma: float | Array | None,
    dim: int,
    *,
    gradients: bool,
    stochastic: bool,
    most: float = math.inf,
    constrained: bool = False,
) -> Strategy:
    """Return the default of :func:`minimize` for an objective of ``dim`` variables; its own sigma is at most ``most``.

    With gradients Bonnet with Adam and a shrinking sigma; SNES for a stochastic f; else by d: Portfolio to 40, CMAES
    with restarts to 200, SepCMA with restarts to 10,000, SNES. No Portfolio for a ``constrained`` f.
    """
    if gradients:
        shrinking = ExponentialDecay(min(0.1, most), 0.5, every=100, end=min(1e-6, most))
        return GradientES(sigma=shrinking if sigma is None else sigma, n=4, estimator=Bonnet(), rule=Adam(0.05))
    spread = min(0.5, most) if sigma is None else sigma
    check_sigma(spread)
    if stochastic or dim > SEP_DIM:
        return snes(sigma=spread)
    portfolio = Portfolio(spread)
    if dim <= PORTFOLIO_DIM and not constrained and np.ndim(portfolio.sigma) < 2:
        return portfolio
    if dim <= CMAES_DIM:
        return Restarts(CMAES(spread))
    return Restarts(SepCMA(spread))
