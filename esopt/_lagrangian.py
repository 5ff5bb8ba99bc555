"""The terms of an augmented Lagrangian: their values, their multipliers and their penalty coefficients."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .noise import Array
from .records import Evals

_DAMPING = 2.0
"""Over sqrt(d): damping of the multipliers, which then keep up with a sigma that shrinks at a rate of about 1 / d."""
_LOW, _HIGH = 0.2, 1.5
"""Shares of the spread of the Lagrangian between which a penalty coefficient stays as it is."""
_FACTOR = 1.2
"""Change of a penalty coefficient in one generation."""
_ROUNDING = 100.0 * float(np.finfo(np.float64).eps)
"""A spread of the Lagrangian below this times its size says nothing any more."""
_AWAY = 1.5
"""A generation is away from g = 0 if its centre is more than this many standard deviations of g off."""
_AT_REST = 0.5
"""And at rest there if the Lagrangian has a smaller correlation with g."""


class Terms(NamedTuple):
    """``multipliers`` and ``penalties``, nan where not known yet, and which are of an equality, (m + p,) each."""

    multipliers: Array
    penalties: Array
    equal: NDArray[np.bool_]

    @property
    def coefficients(self) -> Array:
        """The penalties, 0 where not known yet."""
        return np.where(np.isnan(self.penalties), 0.0, self.penalties)

    @property
    def edge(self) -> Array:
        """Where a term ends: below -l / r an inequality is not felt."""
        lowest = np.divide(
            -self.multipliers, self.penalties, out=np.zeros(self.equal.size), where=self.coefficients > 0.0
        )
        return np.where(self.equal, -np.inf, lowest)


def gather(evals: Evals, known: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Return constraints and equalities side by side, (n + k, m + p), and which columns are equalities.

    Parameters
    ----------
    known : which columns were equalities before; empty for any. A generation in which all of a kind are nan may have
        another number of them: an evaluator that never saw one does not know how many there are.

    Raises
    ------
    ValueError  if there are none, or not as many of each kind as are ``known``.
    """
    parts = [part for part in (evals.constraints, evals.equalities) if part is not None]
    columns = sum(part.shape[1] for part in parts)
    if not columns:
        raise ValueError(
            "AugmentedLagrangian() was told no constraints. Call tell(values, constraints=...), give the objective "
            "constraints=, and leave wrappers that average evaluations inside: AugmentedLagrangian(Averaged(...))."
        )
    inequalities = 0 if evals.constraints is None else evals.constraints.shape[1]
    equal = np.arange(columns) >= inequalities
    if known.size and not np.array_equal(equal, known):
        fits = (inequalities == int((~known).sum()) or _unknown(evals.constraints)) and (
            columns - inequalities == int(known.sum()) or _unknown(evals.equalities)
        )
        if not fits:
            told, before = _count(equal), _count(known)
            raise ValueError(f"AugmentedLagrangian() was told {told}, before {before}. Tell the same ones.")
        return np.full((evals.values.size, known.size), math.nan), known
    return np.concatenate(parts, axis=1), equal


def _unknown(part: Array | None) -> bool:
    return part is not None and bool(np.isnan(part).all())


def _count(equal: NDArray[np.bool_]) -> str:
    equalities = int(equal.sum())
    more = f" and {equalities} equalities" if equalities else ""
    return f"{equal.size - equalities} constraints{more}"


def violations(evals: Evals, tolerance: float) -> Array:
    """Return by how much each candidate violates its constraints in sum, (n + k,): 0 where it is feasible.

    nan where one of them is not finite.
    """
    away = np.zeros(evals.values.size)
    with np.errstate(over="ignore"):
        if evals.constraints is not None:
            known = np.isfinite(evals.constraints).all(axis=1)
            away = away + np.where(known, np.maximum(evals.constraints, 0.0).sum(axis=1), math.nan)
        if evals.equalities is not None:
            off = np.abs(evals.equalities)
            known = np.isfinite(off).all(axis=1)
            away = away + np.where(known, np.where(off <= tolerance, 0.0, off).sum(axis=1), math.nan)
    return away


def penalty(terms: Terms, g: Array) -> Array:
    """Return what the terms add to the values of rows with the constraints ``g`` (n, m + p)."""
    felt = np.maximum(g, terms.edge)
    with np.errstate(over="ignore", invalid="ignore"):  # a row with an infinite constraint has no value
        return np.asarray((felt * (terms.multipliers + 0.5 * terms.coefficients * felt)).sum(axis=1))


@np.errstate(over="ignore", invalid="ignore")
def begin(terms: Terms, values: Array, g: Array, dim: int) -> Terms:
    """Return the terms with first coefficients for the equalities and for inequalities that are violated first here.

    A multiplier begins at the spread of f over d times that of g, as in pycma; a penalty at the spread of f over that
    of g and the distance from 0, so that it can be felt there.
    """
    new = np.isnan(terms.penalties) & (terms.equal | (g > 0.0).any(axis=0))
    if len(values) < 2 or not new.any():
        return terms
    spread, wide = _spread(g), float(_spread(values[:, None])[0])
    wide = wide if wide > 0.0 else max(1.0, abs(float(np.median(values))))
    new &= spread > 0.0
    spread = np.where(new, spread, 1.0)
    size = np.maximum(spread, np.abs(np.median(g, axis=0)))
    penalties = np.where(new, wide / (spread * size), terms.penalties)
    multipliers = np.where(new & ~terms.equal, wide / (dim * spread), terms.multipliers)
    return Terms(multipliers, penalties, terms.equal)


@np.errstate(over="ignore", invalid="ignore")
def adapt(terms: Terms, merits: Array, g: Array, dim: int) -> Terms:
    """Return the terms after a generation of rows with the Lagrangian ``merits`` (n,) and constraints ``g`` (n, m + p).

    The share of a term is r s^2 sqrt(d / 2) / S with the standard deviations s of g and S of the Lagrangian. Where that
    is quadratic and the covariance has its shape, the share is between 0 and 1, and so much of the error of a
    multiplier is gone once the search has followed it.
    """
    n, r, edge = len(merits), terms.coefficients, terms.edge
    spread, wide = _spread(g), float(_spread(merits[:, None])[0])
    if not wide > _ROUNDING * abs(float(merits[0])):
        return terms
    half = max(1, n // 2)
    weights = np.log(0.5 * (n + 1.0)) - np.log(np.arange(1.0, half + 1.0)) if half > 1 else np.ones(1)
    centre = weights @ g[np.argsort(merits, kind="stable")[:half]] / weights.sum()
    # As in Atamna et al. (2017), with another damping; the step down is limited to where the term ends.
    after = terms.multipliers + r * np.maximum(centre, edge) / (_DAMPING * math.sqrt(dim))
    after = np.where(terms.equal, after, np.maximum(after, 0.0))
    felt = ~np.isnan(terms.penalties) & (terms.equal | (g > edge).any(axis=0))
    share = r * spread * spread * math.sqrt(0.5 * dim) / wide
    away = np.abs(centre) > _AWAY * spread
    inward = np.sign(centre) * _correlation(merits, g)
    resting = felt & away & (inward < _AT_REST)
    more = resting | (felt & ~away & (share < _LOW))
    less = felt & ~resting & (share > _HIGH)
    change = np.where(more, _FACTOR, np.where(less, 1.0 / _FACTOR, 1.0))
    penalties = terms.penalties * change
    running = resting & (inward < -_AT_REST)
    if running.any():  # f falls faster than the penalty grows: give this one twice the slope of the Lagrangian
        size = np.abs(centre) * spread
        penalties = penalties + np.divide(2.0 * wide, size, out=np.zeros(r.size), where=running & (size > 0.0))
    return Terms(after, penalties, terms.equal)


def _spread(columns: Array) -> Array:
    """Return the standard deviation of each column from its quartiles, or the usual one where those are equal."""
    ordered, last = np.sort(columns, axis=0), len(columns) - 1
    first, part = divmod(0.25 * last, 1.0)  # numpy's own quantile is ten times as slow for a few rows
    i = int(first)
    lower = (1.0 - part) * ordered[i] + part * ordered[min(i + 1, last)]
    upper = (1.0 - part) * ordered[last - i] + part * ordered[max(last - i - 1, 0)]
    wide = (upper - lower) / 1.349
    return np.asarray(wide if wide.all() else np.where(wide > 0.0, wide, columns.std(axis=0)))


def _correlation(merits: Array, g: Array) -> Array:
    """Return the correlation of the merits with each column; 1 where one of both is constant."""
    a, b = merits - merits.mean(), g - g.mean(axis=0)
    lengths = np.sqrt(float(a @ a) * np.square(b).sum(axis=0))
    return np.asarray(np.divide(a @ b, lengths, out=np.ones(b.shape[1]), where=lengths > 0.0))
