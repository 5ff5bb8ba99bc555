"""Integer coordinates for the CMA family: no integer next to the mean becomes impossible (CMA-ES with margin)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import cma
from .._parts import check_instance
from ..integers import Rounded
from ..noise import Array, Share
from ..protocols import Sampler, Strategy
from ..records import Evals, Info, Population
from ._cma import axis_lengths, constants, units
from ._layers import keeps_values
from .averaged import Averaged
from .cmaes import CMAES
from .random_search import RandomSearch
from .restarts import Restarts

_FADE = 0.9
"""What is left of a stretch after a generation, unless it is still needed."""

_FIELDS = ("mean", "sigma", "scale", "history", "latest")


@dataclass(frozen=True, eq=False)
class MarginState:
    """State of :class:`Margin`: that of the inner strategy, and how much wider each coordinate is sampled, (d,)."""

    inner: Any
    stretch: Array

    @property
    def generation(self) -> int:
        """Generations told."""
        return int(self.inner.generation)

    @property
    def mean(self) -> Array:
        """Mean of the search, (d,), before it is rounded."""
        mean: Array = self.inner.mean
        return mean

    @property
    def scale(self) -> Array:
        """Factor (d, d) or standard deviations (d,) that candidates are made with."""
        return _widen(self.stretch, self.inner.scale)

    @property
    def cov(self) -> Array:
        """Covariance of the search, (d, d), or its diagonal, (d,)."""
        scale = self.scale
        return scale @ scale.T if scale.ndim == 2 else np.square(scale)


@dataclass(frozen=True, eq=False)
class Margin:
    """A member of the CMA family on integers: ``integer=`` of :func:`esopt.minimize` and :class:`esopt.Optimizer`.

    A search whose standard deviation is small next to 1 would only see one integer, and stay. So mean and deviation of
    an integer coordinate are corrected after each update: the next smaller and the next larger integer each keep a
    probability of alpha / 2 or more, and at a bound, binary variables included, the integer beside it keeps alpha.
    The covariance and sigma of the inner strategy are not touched.

    Two things are not in the paper. Where the correction has widened a coordinate, the mean follows the weighted
    integers of the better half as well: the update itself, made for deviations that may be 1e-3 by then, would hardly
    move it. And what was widened shrinks by 10 % in each generation, as far as the probabilities allow.

    Candidates of this strategy are not rounded yet: that is for :class:`esopt.Rounded`, the map around it.

    Parameters
    ----------
    inner : :class:`esopt.CMAES`, :class:`esopt.SepCMA`, :class:`esopt.DDCMA`, :class:`esopt.LRACMAES`,
        :class:`esopt.MAES` or :class:`esopt.DXNESIC`.
    integer : indices of the coordinates that are integers, (k,); None to leave that to ``integer=`` of the run.
    low, high : whole numbers, one or (k,), infinite for no bound.
    alpha : probability that is kept; None for 1 / (n d), about one candidate in each generation.

    Notes
    -----
    O(k) time for each generation beyond that of ``inner`` and another ``ask``. Of the inner stop rules, "flat" and
    "noeffectaxis" do not apply, nor "tolx" if all coordinates are integers: integers settle, and the search goes on.
    "noeffectcoord" and "condition" look at the other coordinates; "tolfun" and "tolfunhist" at 120 + 30 d / n
    generations.

    References
    ----------
    Hamano, Saito, Nomura, Shirakawa (2022), CMA-ES with margin: lower-bounding marginal probability for mixed-integer
    black-box optimization, arXiv:2205.13482. Marty, Hansen, Auger, Semet, Heron (2024), LB+IC-CMA-ES: two simple
    modifications of CMA-ES to handle mixed-integer problems, also moves the mean by whole numbers, in another way.

    Examples
    --------
    >>> import esopt
    >>> def f(x): return (x[0] - 0.3) ** 2 + (x[1] - 3.0) ** 2 + 10.0 * abs(x[2] - 1.0)
    >>> result = esopt.minimize(f, [5.0, 9.0, 0.0], integer=[1, 2], strategy=esopt.CMAES(), target=1e-9, seed=1)
    >>> result.x.round(3)
    array([0.3, 3. , 1. ])
    """

    inner: Any = field(default_factory=CMAES)
    integer: Any = None
    low: Any = -np.inf
    high: Any = np.inf
    alpha: float | None = None

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        if self.alpha is not None and not 0.0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be in (0, 0.5), got {self.alpha!r}. Leave it out for 1 / (n d).")
        if self.integer is None:
            return
        integer = np.array(self.integer)
        if integer.dtype.kind not in "iu" or integer.ndim != 1 or integer.size == 0 or (integer < 0).any():
            raise TypeError(f"integer must be indices from 0 on, got {self.integer!r:.80}. Pass for example [2, 3].")
        low, high = (np.asarray(bound, np.float64) for bound in (self.low, self.high))
        if not (np.rint(low) == low).all() or not (np.rint(high) == high).all() or not (low < high).all():
            raise ValueError(
                f"bounds of integers must be whole numbers, low < high, got {self.low!r:.60} and {self.high!r:.60}. "
                "Pass infinite ones for no bound."
            )
        low, high = (np.array(np.broadcast_to(bound, integer.shape)) for bound in (low, high))
        for name, array in {"integer": integer.astype(np.int64), "low": low, "high": high}.items():
            object.__setattr__(self, name, array)

    @property
    def n(self) -> int | None:
        """Population size of the inner strategy."""
        n: int | None = self.inner.n
        return n

    @property
    def sigma(self) -> float | Array:
        """Initial standard deviation of the inner strategy."""
        sigma: float | Array = self.inner.sigma
        return sigma

    @property
    def share(self) -> Share:
        """Which candidates of the inner strategy share an evaluation seed."""
        share: Share = self.inner.share
        return share

    @property
    def sampler(self) -> Sampler:
        """Sampler of the inner strategy."""
        sampler: Sampler = self.inner.sampler
        return sampler

    def resized(self, n: int, spread: float) -> Margin:
        """Return the strategy with population ``n`` and sigma times ``spread``, as :class:`esopt.Restarts` wants it."""
        return replace(self, inner=replace(self.inner, n=n, sigma=self.inner.sigma * spread))

    def init(self, x0: Array, seed: int) -> MarginState:
        """Return the state before the first generation, around ``x0`` (d,).

        Raises
        ------
        TypeError  if the inner strategy has no normal distribution whose mean and deviations can be corrected.
        ValueError  if there are no integer coordinates, or not as many coordinates.
        """
        if self.integer is None or self.integer.max() >= x0.size:
            raise ValueError(
                f"Margin() got integer={self.integer!r:.80} for x0 of size {x0.size}. Pass integer=[...] to minimize() "
                "or Optimizer(), or the indices to Margin()."
            )
        inner = self.inner.init(x0, seed)
        served = all(hasattr(inner, name) for name in _FIELDS) and isinstance(inner.scale, np.ndarray)
        if not served or keeps_values(self.inner) or self.inner.ask(inner).n < 2:
            raise TypeError(
                f"{type(self.inner).__name__} cannot search integers. Use CMAES(), SepCMA(), DDCMA(), LRACMAES(), "
                "MAES() or DXNESIC(), also inside Restarts() or Averaged(); or RandomSearch()."
            )
        return self._correct(inner, np.ones(x0.size))

    def ask(self, state: MarginState) -> Population:
        """Return this generation's population, the integer coordinates not rounded yet."""
        population: Population = self.inner.ask(state.inner)
        return replace(population, scale=_widen(state.stretch, np.asarray(population.scale)))

    def tell(self, state: MarginState, evals: Evals) -> tuple[MarginState, Info]:
        """Return the state after the update of the inner strategy and the correction, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        inner, info = self.inner.tell(state.inner, evals)
        return self._correct(self._follow(state, evals, inner), np.maximum(1.0, _FADE * state.stretch)), info

    def stop(self, state: MarginState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers: those of the inner strategy that mean something here."""
        reasons: dict[str, float] = dict(self.inner.stop(state.inner))
        if not reasons or "diverged" in reasons:
            return reasons
        for name in ("flat", "noeffectaxis", "noeffectcoord"):
            reasons.pop(name, None)
        best = state.inner.history[0]
        if not float(np.ptp(best)) < 1e-12:  # nan while there are fewer generations
            reasons.pop("tolfun", None)
            reasons.pop("tolfunhist", None)
        scale, free = state.inner.scale, np.delete(np.arange(state.mean.size, dtype=np.int64), self.integer)
        if not free.size:
            reasons.pop("tolx", None)
            return reasons
        if "condition" in reasons:
            own = units(getattr(self.inner, "sigma", 1.0), state.mean.size)[free]
            lengths = scale[free] / own if scale.ndim == 1 else axis_lengths(scale[free], own)
            if lengths.max() <= 1e7 * lengths.min():
                del reasons["condition"]
        mean = state.mean[free]
        lost = mean == mean + 0.2 * _deviations(scale, free)
        if lost.any():
            reasons["noeffectcoord"] = float(free[np.argmax(lost)])
        return reasons

    def _follow(self, state: MarginState, evals: Evals, inner: Any) -> Any:
        """Return the state after the update, its mean moved to the integers of the better candidates.

        The update moves the mean by what it would be without stretch: nothing, where a large one is all that reaches
        the next integer.
        """
        own, stretch = self.integer, state.stretch[self.integer]
        if not (stretch > 1.0).any():
            return inner
        population = self.ask(state)
        order = cma.order(evals.values[: population.n])
        weights = np.maximum(constants(population.dim, population.n, False, False)[0], 0.0)
        weights = np.where(np.isnan(evals.values[order]), 0.0, weights)
        rows = self._round(population.rows(0, population.n)[:, own][order])
        step = (weights[:, None] * (rows - self._round(state.mean[own]))).sum(axis=0)
        after = inner.mean.copy()
        after[own] += (1.0 - 1.0 / np.maximum(stretch, 1.0)) * step
        return replace(inner, mean=after)

    def _round(self, rows: Array) -> Array:
        return np.rint(np.clip(rows, self.low, self.high))

    def _correct(self, inner: Any, stretch: Array) -> MarginState:
        """Return the state with means and deviations of integer coordinates such that both neighbours are possible.

        Hamano et al. (2022): one correction at the bounds, where two integers are left, another one elsewhere.
        """
        from scipy.special import ndtr, ndtri

        own = self.integer
        plain, mean = _deviations(inner.scale, own), inner.mean[own]
        alpha = 1.0 / (inner.mean.size * inner.latest.size) if self.alpha is None else self.alpha
        spread, moved = stretch[own] * plain, mean.copy()
        # Where the integer nearest to the mean begins and ends, or twice the last place where there are two to choose.
        nearest = self._round(mean)
        below = np.clip(nearest - 1.0, self.low, self.high - 1.0) + 0.5
        above = np.clip(nearest, self.low, self.high - 1.0) + 0.5
        far = -ndtri(alpha) * spread
        edge = below == above
        moved[edge] = np.clip(mean[edge], (above - far)[edge], (above + far)[edge])
        lower, upper = ndtr((below - mean) / spread), ndtr((mean - above) / spread)
        half = 0.5 * alpha
        rare = ~edge & ((lower < half) | (upper < half))
        if rare.any():
            lower, upper = lower[rare], upper[rare]
            middle = 1.0 - lower - upper
            lower, upper = np.maximum(lower, half), np.maximum(upper, half)
            # What was added is taken from the three, in proportion to what they have above alpha / 2.
            total = lower + middle + upper
            taken = (1.0 - total) / (total - 3.0 * half)
            left = -ndtri(lower + taken * (lower - half))
            right = -ndtri(upper + taken * (upper - half))
            moved[rare] = (below[rare] * right + above[rare] * left) / (left + right)
            stretch = stretch.copy()
            stretch[own[rare]] = 1.0 / ((left + right) * plain[rare])
        after = inner.mean.copy()
        after[own] = moved
        return MarginState(replace(inner, mean=after), stretch)


def _widen(stretch: Array, scale: Array) -> Array:
    return stretch[:, None] * scale if scale.ndim == 2 else stretch * scale


def _deviations(scale: Array, own: NDArray[np.int64]) -> Array:
    """Return the standard deviations of some coordinates, from a factor (d, d) or deviations (d,)."""
    rows: Array = scale[own]
    return rows if rows.ndim == 1 else np.asarray(np.sqrt(np.square(rows).sum(axis=1)))


def with_margin(strategy: Any, box: Any) -> Any:
    """Return ``strategy`` with a :class:`Margin` where the map ``box`` rounds; as it is for other maps.

    The margin goes inside :class:`esopt.Restarts` and :class:`esopt.Averaged`. :class:`esopt.RandomSearch` needs none.
    """
    if not isinstance(box, Rounded) or isinstance(strategy, RandomSearch):
        return strategy
    if isinstance(strategy, (Restarts, Averaged)):
        return replace(strategy, inner=with_margin(strategy.inner, box))
    margin = strategy if isinstance(strategy, Margin) else Margin(strategy)
    own = np.flatnonzero(box.rounds)
    return replace(margin, integer=own, low=box.low.reshape(-1)[own], high=box.high.reshape(-1)[own])
