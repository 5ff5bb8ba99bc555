"""Runs over seeds in a few numbers: the interquartile mean, and bootstrap intervals stratified by environment.

The method of Agarwal, Schwarzer, Castro, Courville, Bellemare (2021), Deep reinforcement learning at the edge of the
statistical precipice. The resamples are a function of a seed: equal runs give equal intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._kernels import seeds
from ..noise import BENCH, check_seed

Array = NDArray[np.float64]

REPLICATES = 50_000
"""Resamples of an interval, as in the paper's code."""

_NUMBERS = 1 << 20


class Estimate(NamedTuple):
    """A statistic and its confidence interval; nan where there are too few runs for one."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: ArrayLike) -> Array:
    """Return the mean of the middle half of ``scores`` (..., m) along the last axis, (...).

    Of m numbers the ``m // 4`` smallest and as many of the largest are left out, so that neither one lucky seed nor one
    that failed decides. It equals ``scipy.stats.trim_mean(scores, 0.25)``; Agarwal et al. (2021), section 4.3.

    Raises
    ------
    ValueError  without scores, or if one is not finite.

    Examples
    --------
    >>> float(interquartile_mean([0.0, 350.0, 351.0, 352.0]))
    350.5
    """
    table = np.atleast_1d(np.asarray(scores, np.float64))
    if not table.shape[-1] or not np.isfinite(table).all():
        raise ValueError(
            f"interquartile_mean() got {'numbers that are not finite' if table.size else 'no numbers'}. "
            "Pass one finite score for each run, (..., m)."
        )
    cut = table.shape[-1] // 4
    middle: Array = np.sort(table, axis=-1)[..., cut : table.shape[-1] - cut].mean(axis=-1)
    return middle


def bootstrap_interval(
    scores: Sequence[ArrayLike],
    *,
    statistic: Callable[[Array], Array] = interquartile_mean,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of all runs and its percentile interval over resampled seeds.

    Parameters
    ----------
    scores : one (m,) for each environment, the score of each run; lengths may differ. Runs are drawn anew, with
        replacement, within each environment, and the statistic is of all of them together. Scores of environments
        that differ in scale are normalised first, or given one environment at a time.
    statistic : maps (..., m) to (...).
    level : of the interval.
    replicates : how many resamples.
    seed : of the resamples.

    Returns
    -------
    Estimate  whose interval is nan if an environment has a single run.

    Raises
    ------
    ValueError, TypeError  for no runs, scores that are not finite, and a level outside (0, 1).

    Notes
    -----
    With very few runs percentile intervals are too narrow: of 2,000 intervals of 95 % for the interquartile mean of
    normal scores, 90 % held the truth with 5 runs, and 94 % with 10 and with 40.

    References
    ----------
    Agarwal, Schwarzer, Castro, Courville, Bellemare (2021), section 4.2; Efron (1979), Bootstrap methods: another look
    at the jackknife.

    Examples
    --------
    >>> found = bootstrap_interval([[350.0, 351.0, 340.0, 352.0]])
    >>> found.low < found.value < found.high
    True
    """
    strata = _strata(scores)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}. Pass for example 0.95.")
    if isinstance(replicates, bool) or not isinstance(replicates, (int, np.integer)) or replicates < 1:
        raise ValueError(f"replicates must be a positive whole number, got {replicates!r}. Pass for example 50_000.")
    check_seed(seed)
    value = float(statistic(np.concatenate(strata)))
    if min(len(stratum) for stratum in strata) < 2:
        return Estimate(value, np.nan, np.nan)
    found = np.empty(replicates)
    height = max(1, _NUMBERS // sum(len(stratum) for stratum in strata))
    for first in range(0, replicates, height):
        rows = slice(first, min(first + height, replicates))
        found[rows] = statistic(_resampled(strata, seed, rows))
    low, high = np.quantile(found, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Estimate(value, float(low), float(high))


def _strata(scores: Sequence[ArrayLike]) -> list[Array]:
    strata = [np.asarray(stratum, np.float64) for stratum in scores]
    if not strata or any(stratum.ndim != 1 or not stratum.size for stratum in strata):
        shapes = ", ".join(str(stratum.shape) for stratum in strata) or "nothing"
        raise ValueError(
            f"bootstrap_interval() got {shapes}. Pass a list of one (m,) for each environment, m runs in each."
        )
    for index, stratum in enumerate(strata):
        if not np.isfinite(stratum).all():
            raise ValueError(
                f"environment {index} has a score that is not finite. Expected a number for each run: "
                "a run that failed needs a score too, for example the lowest possible return."
            )
    return strata


def _resampled(strata: Sequence[Array], seed: int, rows: slice) -> Array:
    """Return the runs of the resamples ``rows``, (rows, all runs).

    Run k of environment s in resample i comes from 32 bits at the counter (column k, row i, generation s).
    """
    bits = np.empty(rows.stop - rows.start, np.uint64)
    columns = []
    for s, stratum in enumerate(strata):
        size = np.uint64(len(stratum))
        for k in range(len(stratum)):
            seeds.hash_rows(k, rows.start, s, BENCH, np.uint64(seed), bits)
            drawn = ((bits >> np.uint64(32)) * size) >> np.uint64(32)
            columns.append(stratum[drawn.astype(np.int64)])
    return np.stack(columns, axis=1)
