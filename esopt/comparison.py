"""Which estimator is the most precise for a function, here, at this sigma: measured, per unit of cost."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._told import check_x0
from .baselines.at_mean import AtMean
from .baselines.leave_one_out import LeaveOneOut
from .baselines.none import NoBaseline
from .estimators.bonnet import Bonnet
from .estimators.hybrid import Hybrid
from .estimators.regression import Regression
from .estimators.score import Score
from .noise import Array, Key
from .objective import Objective, as_objective
from .protocols import Estimator, Sampler
from .records import Gradient, Population
from .samplers.antithetic import Antithetic
from .samplers.gaussian import Gaussian
from .samplers.orthogonal import Orthogonal
from .smoothing import check_size, smoothed_gradient
from .strategies.gradient_es import check_sigma, fit_sigma

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BY_VALUES = ("Score", "Regression")

_ROUNDING = 1e-24
"""Variance below which an estimate is exact, relative to its squared length."""

_BLOCKS = 16
"""A variance is read off at least so many independent blocks."""


class Row(NamedTuple):
    """One estimator: its estimate, what it cost in evaluations, and its total variance for one unit of that cost."""

    name: str
    gradient: Gradient
    cost: float
    variance: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Estimators in the order of ``variance``, the total variance of the mean's gradient times what it cost.

    Prints as a table. ``jump_z`` is the z-score of the test for jumps, nan without gradients or where
    :class:`esopt.Hybrid`, which makes the test, cannot use the sigma: above 3, estimators that
    use gradients alone are biased, and the advice leaves them out.
    """

    rows: tuple[Row, ...]
    jump_z: float

    @property
    def best(self) -> Row:
        """The most precise row that is not biased by a jump."""
        return next(row for row in self.rows if not (self.jump_z > 3.0 and row.name.startswith("Bonnet")))

    @property
    def advice(self) -> str:
        """What to use, in a sentence."""
        values = [row for row in self.rows if row.name.startswith(_BY_VALUES)]
        text = f"Use {self.best.name}."
        if self.jump_z > 3.0:
            text += f" The gradients miss a jump (z = {self.jump_z:.1f}): Bonnet is biased here."
        elif not self.best.name.startswith(_BY_VALUES) and self.best.variance > 0.0:
            text += f" Values alone need {values[0].variance / self.best.variance:.3g} times its cost."
        if self.best.gradient.snr < 1.0:
            text += " Its estimate is more noise than signal: use a larger n."
        return text

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'estimator':<{width}}  variance x cost      cost       snr"]
        for name, gradient, cost, variance in self.rows:
            lines.append(f"{name:<{width}}  {variance:15.4g}  {cost:8.0f}  {gradient.snr:8.3g}")
        return "\n".join([*lines, self.advice])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return a picture of variance times cost of every estimator as bars, also written to ``path`` if there is one.

        Needs matplotlib, and no display.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 0.6 + 0.4 * len(self.rows)), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        floor = 1e-6 * max(row.variance for row in self.rows)
        names, variances = [row.name for row in self.rows], [max(row.variance, floor) for row in self.rows]
        axes.barh(names, variances, color=["#c4441c" if row is self.best else "#5b8db8" for row in self.rows])
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel="total variance x cost in evaluations")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if path is not None:
            figure.savefig(path)
        return figure


def compare_estimators(
    f: Callable[..., Any] | Objective,
    x: ArrayLike,
    *,
    sigma: float | Array = 0.1,
    n: int = 1024,
    seed: int = 0,
    grad: Callable[..., Any] | None = None,
    grad_cost: float = 2.0,
    **settings: Any,
) -> Comparison:
    """Measure the variance of the mean's gradient per unit of cost, for estimators with values and with gradients.

    Parameters
    ----------
    f, x, sigma, seed, grad : as in :func:`esopt.smoothed_gradient`, as are further ``settings``.
        Estimators that cannot use a factor as sigma are left out.
    n : evaluations for each estimator, at least 64 and a multiple of 32.
    grad_cost : cost of a gradient in evaluations of f. An estimator by gradients alone is not charged for values.

    Returns
    -------
    Comparison  with ``rows``, ``best``, ``advice``, ``plot()``; prints as a table.

    Notes
    -----
    A variance from B blocks is itself uncertain by about sqrt(2 / (B d_eff)), d_eff the number of coordinates that
    share it.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> found = esopt.compare_estimators(lambda x: (x**4).sum(), np.ones(20), grad=lambda x: 4.0 * x**3)
    >>> found.best.name
    'Bonnet, antithetic'
    """
    check_size("n", n)
    if n < 64 or n % 32:
        raise ValueError(f"n must be a multiple of 32 and at least 64, got {n}. Pass for example n=1024.")
    if not (isinstance(grad_cost, Real) and grad_cost > 0.0):
        raise ValueError(f"grad_cost must be positive, got {grad_cost}. Pass the cost of a gradient in evaluations.")
    point = check_x0(x)
    given = {name: settings.pop(name) for name in ("args", "seeded") if name in settings}
    objective = as_objective("compare_estimators", f, point.shape, grad=grad, **given)
    rows, spread = [], fit_sigma(check_sigma(sigma), point.size)
    for name, estimator, sampler in _candidates(point.size, n, gradients=objective.grad is not None):
        if np.ndim(spread) == 2 and not _takes(
            Population(point.reshape(-1), spread, sampler.noise(Key(0), n, point.size)), estimator
        ):
            continue
        gradient = smoothed_gradient(
            objective, point, sigma=sigma, n=n, seed=seed, estimator=estimator, sampler=sampler, **settings
        )
        values = 0 if name.startswith("Bonnet") else gradient.evaluations
        slopes = n if isinstance(estimator, (Bonnet, Hybrid)) else 0
        cost = values + grad_cost * slopes
        variance = float(gradient.mean_stderr @ gradient.mean_stderr)
        exact = variance <= _ROUNDING * float(gradient.mean @ gradient.mean)
        rows.append(Row(name, gradient, cost, 0.0 if exact else variance * cost))
    jumps = [float(row.gradient.notes["jump_z"]) for row in rows if "jump_z" in row.gradient.notes]
    return Comparison(tuple(sorted(rows, key=lambda row: (row.variance, row.cost))), jumps[0] if jumps else np.nan)


def _takes(population: Population, estimator: Estimator) -> bool:
    """Whether the estimator can use the scale of the population."""
    try:
        estimator.prepare(population, estimator.init(population.dim))
    except ValueError:
        return False
    return True


def _candidates(dim: int, n: int, *, gradients: bool) -> list[tuple[str, Estimator, Sampler]]:
    pairs, rows = Antithetic(), Gaussian()
    k = max(k for k in range(1, n // (2 * _BLOCKS) + 1) if (n // 2) % k == 0 and k <= dim)
    found: list[tuple[str, Estimator, Sampler]] = [
        ("Score, no baseline", Score(NoBaseline()), rows),
        ("Score, baseline f(x)", Score(AtMean()), rows),
        ("Score, leave-one-out", Score(LeaveOneOut()), rows),
        ("Score, antithetic", Score(), pairs),
    ]
    if k > 1:
        found.append((f"Score, antithetic in {k} orthogonal directions", Score(), Antithetic(Orthogonal(k))))
    if n >= 4 * dim:
        found.append(("Regression, antithetic", Regression(), pairs))
    if gradients:
        found += [
            ("Bonnet", Bonnet(), rows),
            ("Bonnet, antithetic", Bonnet(), pairs),
            ("Hybrid, antithetic", Hybrid(), pairs),
        ]
    return found
