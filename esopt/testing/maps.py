"""Laws of maps."""

from __future__ import annotations

import numpy as np

from ..maps import Map
from ..noise import Array
from ._check import Check, bits, normals

_STEP = 1e-6


def check_map(box: Map, *, dim: int = 3) -> None:
    """Check that a map keeps the laws of :class:`esopt.maps.Map`.

    Candidates are inside, wherever the search is; the bits of a row do not depend on the other rows, and arguments are
    not written to; ``forward(inverse(x))`` is x for x inside; ``pullback``, ``slope`` and ``curvature``, if there is
    one, are derivatives; the penalty is zero where T is x itself, and never where ``penalises`` is False.

    Parameters
    ----------
    dim : dimension to try, that of the bounds if they are arrays.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> import esopt
    >>> from esopt.testing import check_map
    >>> check_map(esopt.Smooth(-1.0, 2.0))
    """
    check = Check(box)
    low, high = np.broadcast_to(box.low, dim), np.broadcast_to(box.high, dim)
    left = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 1.0, 0.0))
    right = np.where(np.isfinite(high), high, left + 1.0)
    width = right - left
    near = left + width * (0.5 + normals(1, 400, dim))
    _check_forward(check, box, np.concatenate([near, left + 1e3 * width * normals(2, 20, dim), 1e100 * near[:4]]))
    inside = np.concatenate([left + width * np.linspace(0.0, 1.0, 17)[:, None]])
    back = np.array([box.forward(box.inverse(x)) for x in np.clip(inside, low, high)])
    do = "Return a point that is mapped to x."
    for j in range(dim):
        check.close("forward(inverse(x)) is x", back[:, j] - left[j], inside[:, j] - left[j], do=do, size=width[j])
    _check_derivatives(check, box, near, _STEP * width)


def _check_forward(check: Check, box: Map, rows: Array) -> None:
    kept = rows.copy()
    x = np.array(box.forward(rows))
    outside = (x < box.low) | (x > box.high)
    check.require(
        x.shape == rows.shape and not outside.any(),
        "candidates are inside",
        got=x[outside.any(axis=1)][:1],
        expected=f"between {box.low} and {box.high}",
        do="Clip at the end: rounding goes outside too.",
    )
    do = "Compute elementwise, and write to a new array."
    check.same("forward changes no argument", rows, bits(kept), do=do)
    alone = np.concatenate([box.forward(row[None]) for row in rows])
    check.same("the bits of a row do not depend on the other rows", alone, bits(x), do=do)
    check.same("forward takes a single row, (d,)", np.array(box.forward(rows[0])), bits(x[0].copy()), do=do)
    penalty = np.asarray(box.penalty(rows))
    check.require(
        penalty.shape == (len(rows),) and bool((penalty >= 0.0).all()) and (box.penalises or not penalty.any()),
        "the penalty is one number per row, not negative, and positive only if penalises",
        got=penalty[:4],
        expected=f"shape {(len(rows),)}",
        do="Return a squared distance, or zeros.",
    )
    there = penalty[(x == rows).all(axis=1)]
    check.require(
        not there.any(), "there is no penalty where T is x itself", got=there[:4], expected=0.0, do="Penalise outside."
    )


def _check_derivatives(check: Check, box: Map, rows: Array, steps: Array) -> None:
    """Compare with differences, coordinate by coordinate; a few rows may have a kink between the two."""
    ones = np.ones_like(rows)
    found = {"pullback": box.pullback(rows, ones), "slope": box.slope(rows)}
    curvature = getattr(box, "curvature", None)
    for j in range(rows.shape[1]):
        move = np.zeros(rows.shape[1])
        move[j] = steps[j]
        ahead, behind = rows + move, rows - move
        expected = {
            "pullback": (box.forward(ahead) - box.forward(behind))[:, j] / (2.0 * steps[j]),
            "slope": (box.penalty(ahead) - box.penalty(behind)) / (2.0 * steps[j]),
        }
        if curvature is not None:
            found["curvature"] = curvature(rows)
            expected["curvature"] = (box.pullback(ahead, ones) - box.pullback(behind, ones))[:, j] / (2.0 * steps[j])
        for name, numbers in expected.items():
            size = max(1.0, float(np.abs(numbers).max()))
            wrong = ~(np.abs(found[name][:, j] - numbers) < 1e-4 * size)
            check.require(
                np.count_nonzero(wrong) <= len(rows) // 100,
                f"{name} is the derivative",
                got=found[name][wrong, j][:3],
                expected=numbers[wrong][:3],
                do="Differentiate T (pullback, curvature) and the penalty (slope).",
            )
