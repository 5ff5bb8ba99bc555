"""The score-function estimate from this generation's rows and from late ones of earlier generations.

Rows of several Gaussians are weighted for the present one, p, by the balance heuristic: w = p / sum_g (c_g / N) p_g,
c_g being how many rows of generation g there are, N in all. Each sum (1 / N) sum_i w_i h(x_i) is then unbiased for
E_p[h], and no weight exceeds N over the present generation's count (Veach and Guibas 1995, Optimally combining sampling
techniques for Monte Carlo rendering, section 3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..baselines.at_mean import AtMean
from ..baselines.leave_one_out import LeaveOneOut
from ..baselines.moving_average import MovingAverage
from ..baselines.none import NoBaseline
from ..noise import Array, Law, Philox, moment
from ..protocols import Baseline, Shaping
from ..records import Population, Scale
from ._full import chunks

_CONSTANT = (NoBaseline, LeaveOneOut, AtMean, MovingAverage)
"""Baselines that expect the same of every row, and see no late value: they do not bias weighted values."""


class _Stratum(NamedTuple):
    """The rows of one Gaussian that are used.

    ``rows`` (n,) says which, ``values`` (n,) are less the baseline, 0 for the others.
    """

    population: Population
    rows: NDArray[np.bool_]
    values: Array


class Reweighted(NamedTuple):
    """A gradient of J with its errors from ``blocks`` blocks, ``late`` rows and others, worth ``effective`` rows."""

    mean: Array
    mean_stderr: Array
    scale: Scale | None
    scale_stderr: Scale | None
    blocks: int
    late: int
    effective: float


def check_reweightable(shaping: Shaping, baseline: Baseline | None, population: Population) -> None:
    """Raise TypeError unless values of an earlier generation can be weighted for ``population``.

    ``baseline`` is that of a :class:`esopt.Score`, None for other estimators.
    """
    noise = population.noise
    if not shaping.raw:
        what = f"the shaping {shaping}: no weight makes values of another generation comparable with this one's ranks"
    elif baseline is None:
        what = "an estimator that does not weigh its rows"
    elif not isinstance(baseline, _CONSTANT):
        what = f"the baseline {baseline}, which is not the same number for rows of other generations"
    elif noise.law is not Law.GAUSSIAN or not isinstance(noise, Philox):
        what = "noise that has no density N(0, I)"
    elif not population.separable:
        what = "a factor as sigma, and it needs one number or one per coordinate"
    else:
        return
    raise TypeError(
        f'stale="reweight" got {what}. Use GradientES(shaping=Raw(), estimator=Score(LeaveOneOut())), or leave '
        'stale="reweight" out.'
    )


def reweighted(
    population: Population,
    rows: NDArray[np.bool_] | None,
    values: Array,
    centered: Array,
    stale: tuple[tuple[Population, Array], ...],
    *,
    with_scale: bool,
) -> Reweighted:
    """Return the gradient of J from this generation's ``values`` (n,) and those of ``stale`` generations.

    Parameters
    ----------
    rows : (n,)  rows in usable blocks; None for all.
    centered : (n,)  values less the baseline.
    stale : populations with values (n,), nan for rows that are not used.
    """
    rows = np.ones(population.n, np.bool_) if rows is None else rows
    # All rows of one expectation: what a baseline leaves of E[w eps] over the strata together is zero.
    baseline = float((values[rows] - centered[rows]).mean())
    strata = [_Stratum(population, rows, np.where(rows, centered, 0.0))]
    for earlier, numbers in stale:
        used = np.isfinite(numbers)
        strata.append(_Stratum(earlier, used, np.where(used, numbers - baseline, 0.0)))
    total = sum(int(stratum.rows.sum()) for stratum in strata)
    weights = [_weigh(stratum, strata, total) for stratum in strata]
    sums = [
        _moments(stratum, population, weight * stratum.values / total, with_scale=with_scale)
        for stratum, weight in zip(strata, weights, strict=True)
    ]
    blocks = [int(_by_block(stratum.rows, stratum.population).any(axis=1).sum()) for stratum in strata]
    sigma = np.asarray(population.sigma("Score()"))
    mean = np.asarray(sum(part[0] for part, _ in sums))[: population.dim] / sigma
    variance = sum(_variance(*part, count) for (part, _), count in zip(sums, blocks, strict=True))
    error = np.sqrt(np.asarray(variance)) if sum(blocks) > 1 else np.full(np.size(sums[0][0][0]), np.nan)
    scale: Scale | None = None
    scale_error: Scale | None = None
    if with_scale and sigma.ndim:
        scale, scale_error = np.asarray(sum(part[0] for part, _ in sums))[population.dim :], error[population.dim :]
    elif with_scale:
        spread = sum(_variance(*part, count) for (_, part), count in zip(sums, blocks, strict=True))
        scale = float(np.asarray(sum(part[0] for _, part in sums))[0]) / float(sigma)
        scale_error = float(np.sqrt(np.asarray(spread))[0]) / float(sigma) if sum(blocks) > 1 else np.nan
    flat, late = np.concatenate(weights), total - int(rows.sum())
    effective = float(flat.sum()) ** 2 / float(flat @ flat)
    return Reweighted(mean, error[: population.dim] / sigma, scale, scale_error, sum(blocks), late, effective)


def _by_block(rows: NDArray[np.bool_], population: Population) -> NDArray[np.bool_]:
    return rows.reshape(-1, population.noise.block)


def _weigh(stratum: _Stratum, strata: list[_Stratum], total: int) -> Array:
    """Return w of the rows of a stratum, (n,), 0 for those that are not used; the first stratum is that of p."""
    mine = _log_density(stratum.population, strata[0].population)
    below = np.zeros(len(mine))
    with np.errstate(over="ignore"):
        for other in strata:
            ratio = np.exp(_log_density(stratum.population, other.population) - mine)
            below += int(other.rows.sum()) / total * ratio
    return np.where(stratum.rows, 1.0 / below, 0.0)


def _relative(source: Population, target: Population) -> tuple[Array, Array]:
    """Return (a, r): a row with noise eps of ``source`` is the one with a + r eps of ``target``, (d,) each."""
    there, here = (np.broadcast_to(np.asarray(each.scale, np.float64), each.dim) for each in (source, target))
    return (source.mean - target.mean) / here, there / here


def _square_norms(source: Population, target: Population) -> Array:
    """Return |z|^2 for the noise z that the rows of ``source`` have in ``target``, (n,)."""
    if source is target:
        return source.noise.norms()
    shift, ratio = _relative(source, target)
    noise = source.noise
    cross = noise.dot((shift * ratio)[None, :])
    return np.asarray(shift @ shift + 2.0 * cross + noise.norms(np.square(ratio)))


def _log_density(source: Population, target: Population) -> Array:
    """Return the log density of ``target`` at the noise rows of ``source``, (n,), up to the constant of all."""
    scale = np.broadcast_to(np.asarray(target.scale, np.float64), target.dim)
    return np.asarray(-0.5 * _square_norms(source, target) - np.log(scale).sum())


def _moments(
    stratum: _Stratum, population: Population, weights: Array, *, with_scale: bool
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return sums over the rows of z and, for a sigma in each coordinate, z^2 - 1, and the block sums' squares.

    z is the noise in ``population``. The second pair, (1,) each, has |z|^2 - d, for a single sigma.
    """
    source, noise = stratum.population, stratum.population.noise
    diagonal = with_scale and not isinstance(population.scale, float)
    terms = weights * (_square_norms(source, population) - noise.dim) if with_scale else weights
    own = terms.reshape(-1, noise.block).sum(axis=1)
    single = (own.sum(keepdims=True), np.array([own @ own]))
    if source is population:
        table = np.stack([weights, weights]) if diagonal else weights[None, :]
        sums, squares = moment(noise, table, (1, 2) if diagonal else (1,), squares=True)
        return (sums.reshape(-1), squares.reshape(-1)), single
    shift, ratio = _relative(source, population)
    width = 2 * noise.dim if diagonal else noise.dim
    total, squares = np.zeros(width), np.zeros(width)
    for part in chunks(noise.n, noise.dim, noise.block):
        if not stratum.rows[part].any():
            continue
        z = shift + ratio * noise.rows(part.start, part.stop)
        z = np.concatenate([z, np.square(z) - 1.0], axis=1) if diagonal else z
        by_block = (z * weights[part, None]).reshape(-1, noise.block, width).sum(axis=1)
        total += by_block.sum(axis=0)
        squares += np.einsum("ij,ij->j", by_block, by_block)
    return (total, squares), single


def _variance(total: Array, squares: Array, blocks: int) -> Array:
    """Return the variance of a sum of ``blocks`` independent terms; of a single one at most its square."""
    if blocks < 2:
        return squares
    return np.asarray(np.maximum(squares - np.square(total) / blocks, 0.0) * (blocks / (blocks - 1)))
