"""Compiled runs of GradientES where it is SNES: one sigma per coordinate, rank weights, natural gradient."""

from __future__ import annotations

import math
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np

from .._kernels import snes
from ..baselines.none import NoBaseline
from ..estimators.score import Score
from ..noise import Array
from ..records import Goal, Lap
from ..rules.exponential import Exponential
from ..rules.sgd import SGD, SGDState
from ..shaping import RecombinationWeights

TINY, HUGE = 1e-150, 1e150
# |eps| < 6, so that below this share of a coordinate sigma * eps is lost in rounding.
ROUNDING = 2.0**-57

_LARGE = 1 << 18
_ROWS = 256
"""Larger populations need no compiled laps, and would need a table of n squared utilities."""


@lru_cache(maxsize=16)
def _tables(shaping: RecombinationWeights, n: int) -> Array:
    """Return the utilities by rank, (n, n), one row for each number of failures."""
    return np.array([shaping.by_rank(n, failed) for failed in range(n)])


def lap(strategy: Any, state: Any, address: Any, goal: Goal) -> tuple[Any, Lap]:
    """Return the state after generations in compiled code, in the bits of ask and tell, and what happened in them.

    None for other settings than those of SNES, and for populations that are worth threads.
    """
    dim, n = state.mean.size, state.n
    rates = _rates(strategy, state) if n * dim < _LARGE and n <= _ROWS else None
    if rates is None:
        return state, Lap(0, 0, state.mean, math.inf, np.empty(0), 0, 0)
    done, mean, scale, values, value, x, nans, steps = snes.run(
        address, (goal.generations, goal.target, goal.steps), np.uint64(state.seed), strategy.sampler.mirrored,
        state.generation, state.mean, state.scale, _tables(strategy.shaping, n), rates,
        (TINY, HUGE, ROUNDING),
    )  # fmt: skip
    after = type(state)(
        state.seed, state.generation + done, mean, scale, n, state.estimator, SGDState(state.rule.count + done),
        SGDState(state.scale_rule.count + done), state.rates, state.sizing,
    )  # fmt: skip
    return after, Lap(done, done * n, x, value, values, nans, steps)


def _rates(strategy: Any, state: Any) -> tuple[float, float] | None:
    """Return the factors of both gradients in a step, or None if the strategy is not SNES with constant rates."""
    rule, scale_rule, estimator = strategy.rule, strategy.scale_rule, strategy.estimator
    if not (
        strategy.natural
        and np.ndim(state.scale) == 1
        and strategy.sampler.fused
        and type(strategy.shaping) is RecombinationWeights
        and type(estimator) is Score
        and type(estimator.baseline) is NoBaseline
        and estimator.with_scale
        and type(rule) is SGD
        and isinstance(rule.lr, Real)
        and type(scale_rule) is Exponential
        and (scale_rule.lr is None or isinstance(scale_rule.lr, Real))
        and not strategy.weight_decay
        and not strategy.rates
        and strategy.sizing is None
    ):
        return None
    return -float(rule.lr), -0.5 * scale_rule.rate(state.mean.size, 0)
