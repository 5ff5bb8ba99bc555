"""The mean of all other blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..protocols import Centered, State
from ..records import Evals, Gradient, Population


def leave_own_block_out(values: Array, block: int) -> Array:
    """Return values minus the mean of the other usable blocks, (n,); a single block is left as it is."""
    blocks = values.reshape(-1, block)
    sums = blocks.sum(axis=1)
    usable = np.isfinite(sums)
    others = int(usable.sum()) - 1
    if others < 1:
        return values
    total = sums.sum() if usable.all() else sums[usable].sum()
    return np.asarray((blocks - ((total - sums) / (others * block))[:, None]).reshape(-1))


@dataclass(frozen=True)
class LeaveOneOut:
    """Subtract the mean value of all other blocks.

    Unbiased: a value never influences its own block's baseline. For independent rows it is
    1 / (n - 1) sum (y_i - mean(y)) eps_i, the sample mean with its factor B / (B - 1); in general
    y_i - mean(y) + (mean of i's block - mean(y)) / (B - 1), so that the difference of an antithetic pair is left alone.

    Blocks share the baseline, so the squared standard error of a gradient g from unpaired rows is low by
    (g / (B - 1))^2 in expectation: of no account from a dozen blocks on.

    References
    ----------
    Kool, van Hoof, Welling (2019), Buy 4 REINFORCE samples, get a baseline for free.
    """

    @property
    def raw_only(self) -> bool:
        return False

    def init(self, dim: int) -> State:
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: State) -> Centered:
        return Centered(leave_own_block_out(values, population.noise.block))

    def learn(self, values: Array, population: Population, gradient: Gradient, state: State) -> State:
        return state


SampleMean = LeaveOneOut
"""The sample mean, with the factor B / (B - 1) that makes it unbiased, is the leave-one-out baseline."""
