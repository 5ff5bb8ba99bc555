"""Laws of shapings."""

from __future__ import annotations

import numpy as np

from ..noise import Array
from ..protocols import Shaping
from ..records import Population
from ._check import Check, bits, given, normals


def check_shaping(
    shaping: Shaping, *, monotone: bool = True, centered: bool | None = None, affine_invariant: bool | None = None
) -> None:
    """Check that ``shaping`` keeps the laws of :class:`esopt.protocols.Shaping`.

    The best value has the lowest utility; the order of the blocks does not matter; failures rank last where ``ranks``
    is true, else they are nan; with ``ranks``, increasing transformations of the values change no bit.

    Parameters
    ----------
    monotone : utilities are an increasing function of the values, and equal values share theirs. Without it this is
        only asked of rows whose utility is not zero (truncation).
    centered : utilities add up to zero, so that equal values cause no drift; None for every shaping that is not
        ``raw``.
    affine_invariant : 3 v + 7 gives the utilities of v; None for every shaping that is not ``raw``.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> from esopt import CenteredRanks
    >>> from esopt.testing import check_shaping
    >>> check_shaping(CenteredRanks())
    """
    check = Check(shaping)
    centered = not shaping.raw if centered is None else centered
    affine_invariant = not shaping.raw if affine_invariant is None else affine_invariant
    for block in (1, 2):
        population = Population(np.zeros(3), 0.5, given(1, 12, 3, block))
        for values in _examples(population.n):
            _check_order(check, shaping, values, population, monotone)
            if centered:
                total = _shape(check, shaping, values, population).sum()
                do = "Subtract the mean of the utilities, or pass centered=False."
                check.close("utilities add up to zero", total, 0.0, do=do, size=float(population.n))
        values = normals(2, 1, population.n)[0]
        _check_invariance(check, shaping, values, population, affine_invariant)
        _check_failures(check, shaping, values, population)
        single = Population(np.zeros(3), 0.5, given(1, block, 3, block))
        _shape(check, shaping, values[:block], single)


def _examples(n: int) -> list[Array]:
    values = normals(3, 1, n)[0]
    tied = values.copy()
    tied[[1, 4, n - 1]] = values[2]
    return [values, values * 1e-3 + 1e3, tied, np.full(n, 2.5), np.arange(float(n))]


def _shape(check: Check, shaping: Shaping, values: Array, population: Population, *, finite: bool = True) -> Array:
    """Return the utilities, after the laws that hold for any values."""
    kept = bits(values)
    utilities = shaping.shape(values, population)
    do = "Return a new float64 array with one number per row, computed from the values alone."
    check.same("shape does not change its arguments", values, kept, do=do)
    check.same("shape is pure", shaping.shape(values, population), bits(utilities), do=do)
    check.require(
        utilities.shape == values.shape
        and utilities.dtype == np.float64
        and (not finite or bool(np.isfinite(utilities).all())),
        "utilities are one finite number per row",
        got=utilities,
        expected=f"shape {values.shape}",
        do=do,
    )
    return utilities


def _check_order(check: Check, shaping: Shaping, values: Array, population: Population, monotone: bool) -> None:
    utilities = _shape(check, shaping, values, population)
    check.require(
        utilities[values.argmin()] == utilities.min(),
        "the best value has the lowest utility",
        got=utilities[values.argmin()],
        expected=utilities.min(),
        do="Lower is better, before and after: check the sign.",
    )
    among = np.ones(values.size, bool) if monotone else utilities != 0.0
    v, u = values[among], utilities[among]
    better, equal = v[:, None] < v[None, :], v[:, None] == v[None, :]
    swapped = (better & (u[:, None] > u[None, :])) | (equal & (u[:, None] != u[None, :]))
    check.require(
        not swapped.any(),
        "utilities are an increasing function of the values, equal for equal values",
        got=utilities,
        expected=f"the order of {values}",
        do="Average over ties, or pass monotone=False if some rows are dropped on purpose.",
    )


def _check_invariance(check: Check, shaping: Shaping, values: Array, population: Population, affine: bool) -> None:
    utilities = _shape(check, shaping, values, population)
    block = population.noise.block
    order = np.argsort(normals(4, 1, population.n // block)[0])
    shuffled = _shape(check, shaping, values.reshape(-1, block)[order].reshape(-1), population)
    do = "Treat all rows alike, whatever their number."
    check.close(
        "blocks in another order have the same utilities",
        shuffled.reshape(-1, block),
        utilities.reshape(-1, block)[order],
        do=do,
    )
    if affine:
        do = "Divide by a spread of the values, or pass affine_invariant=False."
        check.close(
            "3 v + 7 has the utilities of v", _shape(check, shaping, 3.0 * values + 7.0, population), utilities, do=do
        )
    if shaping.ranks:
        do = "Use the order of the values and nothing else, or set ranks to False."
        for name, other in (("exp(v)", np.exp(values)), ("v^3", values**3), ("1e300 v", 1e300 * values)):
            check.same(
                f"{name} has the utilities of v", _shape(check, shaping, other, population), bits(utilities), do=do
            )


def _check_failures(check: Check, shaping: Shaping, values: Array, population: Population) -> None:
    failed = values.copy()
    failed[[1, 6, 7]] = np.nan
    if shaping.ranks:
        utilities = _shape(check, shaping, failed, population)
        others = np.delete(utilities, [1, 6, 7])
        check.require(
            np.ptp(utilities[[1, 6, 7]]) == 0.0 and utilities[1] >= others.max(),
            "failures rank last, and share their utility",
            got=utilities,
            expected=f"the largest at the nan of {failed}",
            do="Sort nan behind everything else, +inf included.",
        )
        failed[1], failed[6], failed[7] = np.inf, -np.inf, np.nan
        utilities = _shape(check, shaping, failed, population)
        check.require(
            utilities[6] == utilities.min() and utilities[7] == utilities.max() and utilities[7] >= utilities[1],
            "-inf ranks first, +inf behind finite values, nan last",
            got=utilities,
            expected=f"the order of {failed}",
            do="Rank infinite values like others.",
        )
        return
    failed[7] = -np.inf
    utilities = _shape(check, shaping, failed, population, finite=False)
    block = population.noise.block
    unusable = ~np.isfinite(failed).reshape(-1, block).all(axis=1)
    do = "Return nan for failed and infinite values, and compute the rest from the usable ones."
    check.require(
        np.isnan(utilities[[1, 6, 7]]).all() and np.isfinite(utilities.reshape(-1, block)[~unusable]).all(),
        "failed and infinite values are nan in the result, usable blocks are not",
        got=utilities,
        expected=f"nan where {failed} is not finite",
        do=do,
    )
    nothing = _shape(check, shaping, np.full(values.size, np.nan), population, finite=False)
    check.require(np.isnan(nothing).all(), "failures alone give nan", got=nothing, expected="nan everywhere", do=do)
