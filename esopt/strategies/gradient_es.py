"""Stochastic gradient descent on the smoothed objective J(mean, scale) = E f(mean + scale * eps)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar, get_args

import numpy as np

from .._kernels import vectors
from ..estimators._reweighted import check_reweightable
from ..estimators.score import Score
from ..noise import Array, Key, Share, check_seed
from ..protocols import Estimator, Rate, Rule, Sampler, Shaping, Sizing, State
from ..records import Evals, Goal, Gradient, Info, Lap, Population, Scale
from ..rules.adam import Adam
from ..samplers.antithetic import Antithetic
from ..samplers.paired import Paired
from ..schedules import at
from ..shaping import Raw
from ._delayed import arrived
from ._snes import HUGE, ROUNDING, TINY, lap


@dataclass(frozen=True)
class Radius:
    """A scale given by its norm: sigma_i = norm / sqrt(d)."""

    norm: float


def check_sigma(sigma: float | Array | Radius) -> float | Array | Radius:
    """Return ``sigma`` as a float, (d,) floats, a square matrix, or the radius it was; :func:`fit_sigma` knows d.

    Raises
    ------
    TypeError, ValueError  unless it is finite and, but for a square matrix, positive.
    """
    try:
        start = np.asarray(sigma.norm if isinstance(sigma, Radius) else sigma)
    except ValueError:
        start = np.asarray([], object)
    if start.dtype.kind not in "fiu" or (isinstance(sigma, Radius) and start.ndim):
        raise TypeError(f"sigma must be a number or one per coordinate, got {sigma!r}. Pass for example sigma=0.1.")
    square = start.ndim == 2 and start.shape[0] == start.shape[1]
    if not (start.size and np.isfinite(start).all() and (square or (start > 0.0).all())):
        raise ValueError(f"sigma must be positive and finite, got {sigma}. Pass for example sigma=0.1.")
    if isinstance(sigma, Radius):
        return sigma
    if not start.ndim:
        return float(start)
    return np.array(start, np.float64) if square else start.reshape(-1).astype(np.float64)


def fit_sigma(sigma: float | Array | Radius, dim: int) -> Scale:
    """Return a checked ``sigma`` as the scale of a population in ``dim``: a float, (d,) floats or a factor (d, d).

    Raises
    ------
    ValueError  for another number of entries, or a factor that is singular.
    """
    if isinstance(sigma, Radius):
        return sigma.norm / math.sqrt(dim)
    if isinstance(sigma, float):
        return sigma
    if sigma.size == dim and (sigma > 0.0).all():
        return sigma.reshape(-1).copy()
    if sigma.shape != (dim, dim):
        raise ValueError(
            f"sigma has {sigma.size} entries for x0 of size {dim}. Pass one positive number, one per coordinate, or a "
            f"factor of the covariance, {(dim, dim)}."
        )
    if not np.linalg.cond(sigma) < 1.0 / np.finfo(np.float64).eps:
        raise ValueError("sigma is a singular matrix. Pass a factor L of the covariance L L^T that can be inverted.")
    return sigma.copy()


def start_factor(sigma: float | Array | Radius, dim: int) -> tuple[float, Array]:
    """Return the root mean square of the deviations in ``sigma``, and their covariance's factor (d, d).

    Raises
    ------
    ValueError  as :func:`fit_sigma`.
    """
    spread = np.asarray(fit_sigma(sigma, dim))
    factor = spread if spread.ndim == 2 else np.diag(np.broadcast_to(spread, dim))
    return math.sqrt(float(np.square(factor).sum()) / dim), factor


_PARTS: dict[str, tuple[type, str]] = {
    "sampler": (Sampler, "Antithetic()"),
    "shaping": (Shaping, "CenteredRanks()"),
    "estimator": (Estimator, "Score()"),
    "rule": (Rule, "Adam(0.01)"),
    "scale_rule": (Rule, "Exponential()"),
    "sizing": (Sizing, "NormTest(most=1024)"),
    "rate": (Rate, "SNRRate()"),
}


def _check_part(name: str, part: object) -> None:
    """Raise TypeError unless ``part`` is an instance that has the members of its protocol."""
    kind, example = _PARTS[name]
    if part is None and name in ("scale_rule", "sizing"):
        return
    if isinstance(part, type):
        raise TypeError(f"{name} must be an instance, got the class {part.__name__}. Write {name}={part.__name__}().")
    if not isinstance(part, kind):
        raise TypeError(
            f"{name} must follow esopt.protocols.{kind.__name__}, got {part!r}. Pass for example {name}={example}."
        )


@dataclass(frozen=True, eq=False)
class GradientState:
    """State of :class:`GradientES`: the address of the noise, the search distribution, and the parts' own states.

    ``n`` is the number of rows of this generation.
    """

    seed: int
    generation: int
    mean: Array
    scale: Scale
    n: int
    estimator: State
    rule: State
    scale_rule: State
    rates: tuple[State, ...]
    sizing: State


@dataclass(frozen=True, eq=False)
class GradientES:
    """Sample, shape, estimate the gradient of the smoothed objective, step.

    One generation: utilities = shaping(values); gradient = estimator(utilities or gradients); mean += rule(gradient);
    scale *= 1 + scale_rule(dJ/dlog scale).

    Parameters
    ----------
    sigma : standard deviation of the search: a number, (d,) numbers, a factor L of the covariance L L^T, (d, d), a
        :class:`Radius`, or a schedule of the generation.
    n : rows per generation, a multiple of the sampler's block; None for about 4 + 3 log d.
    sampler : joint law of the noise rows; None for :class:`esopt.Paired` under a Score by itself, and for
        :class:`esopt.Antithetic`, which has more blocks, under other estimators, ``rates`` or ``sizing``.
    shaping : values to utilities.
    estimator : evaluations to gradient, with its baseline: ``Score(baseline=LeaveOneOut())``, ``Bonnet()``.
    rule : gradient to step of the mean.
    scale_rule : gradient of log scale (for a single sigma, its average over coordinates) to relative step of the
        scale; None keeps the scale. Needs an estimator ``with_scale``.
    diagonal : keep one sigma per coordinate even if ``sigma`` is a single number.
    natural : follow sigma^2 * gradient, the natural gradient of the mean, so that steps are measured in sigmas.
    weight_decay : added to the gradient: weight_decay * mean (the L2 penalty weight_decay / 2 |mean|^2).
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".
    rates : factors of the rule's step that the run finds out: ``(SNRRate(),)``, ``(CurvatureRate(), SNRRate())``.
        Their product is "rate" in :attr:`Info.scalars`.
    sizing : chooses n after each generation, in whole blocks, with ``n`` as start: ``NormTest(most=1024)``. None keeps
        n. The next n is "n" in :attr:`Info.scalars`.

    Notes
    -----
    Unbiased for the gradient of J with :class:`esopt.Raw` shaping; the smoothing itself biases it against grad f by
    sigma^2 / 2 grad(Laplacian f) + O(sigma^4).

    References
    ----------
    Salimans et al. (2017); Wierstra et al. (2014), Natural evolution strategies.

    Examples
    --------
    >>> import esopt
    >>> es = esopt.Optimizer(esopt.GradientES(sigma=0.1), [1.0, 2.0], seed=1, generations=400)
    >>> while not es.stop():
    ...     info = es.tell([(x**2).sum() for x in es.ask()])
    >>> bool(es.result.value < 1e-3)
    True
    """

    sigma: float | Array | Radius | Callable[[int], float] = 0.1
    n: int | None = None
    sampler: Sampler = None  # type: ignore[assignment]  # never None once the strategy is made
    shaping: Shaping = field(default_factory=Raw)
    estimator: Estimator = field(default_factory=Score)
    rule: Rule = field(default_factory=Adam)
    scale_rule: Rule | None = None
    diagonal: bool = False
    natural: bool = False
    weight_decay: float = 0.0
    share: Share = "pair"
    rates: tuple[Rate, ...] = ()
    sizing: Sizing | None = None
    grows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.sampler is None:
            alone = type(self.estimator) is Score and not self.rates and self.sizing is None
            object.__setattr__(self, "sampler", Paired() if alone else Antithetic())
        for name in _PARTS:
            if name != "rate":
                _check_part(name, getattr(self, name))
        if not isinstance(self.rates, tuple):
            raise TypeError(f"rates must be a tuple, got {self.rates!r}. Pass for example rates=(SNRRate(),).")
        for rate in self.rates:
            _check_part("rate", rate)
        if not callable(self.sigma):
            object.__setattr__(self, "sigma", check_sigma(self.sigma))
        elif self.scale_rule is not None:
            raise ValueError("sigma is a schedule and scale_rule would change it too. Give one of them.")
        block = self.sampler.block
        whole = isinstance(self.n, (int, np.integer)) and not isinstance(self.n, bool)
        if self.n is not None and not (whole and self.n >= 1 and self.n % block == 0):
            sampler, example = type(self.sampler).__name__, -(-32 // block) * block
            raise ValueError(
                f"n must be a positive multiple of {block} with the sampler {sampler}, got n={self.n!r}. "
                f"Pass for example n={example}."
            )
        if not (isinstance(self.weight_decay, Real) and 0.0 <= self.weight_decay < math.inf):
            raise ValueError(f"weight_decay must be 0 or a positive number, got {self.weight_decay!r}.")
        if self.share not in get_args(Share):
            raise ValueError(f"share must be one of {get_args(Share)}, got {self.share!r}.")
        if self.estimator.raw_only and not self.shaping.raw:
            raise ValueError(
                f"the estimator {self.estimator} needs the values as they are, but the shaping is {self.shaping}. "
                "Use shaping=Raw(), or Score with another baseline."
            )
        if self.scale_rule is not None and not self.estimator.with_scale:
            kind = type(self.estimator)
            name = kind.__name__ if "with_scale" in getattr(kind, "__dataclass_fields__", ()) else "Score"
            raise ValueError(f"scale_rule needs the gradient of the scale. Pass {name}(with_scale=True).")

    @property
    def asynchronous(self) -> bool:
        """Whether :meth:`tell` takes :attr:`Evals.arrivals`: with gradients from values alone, and a fixed n."""
        return type(self.estimator) is Score and self.sizing is None

    def init(self, x0: Array, seed: int) -> GradientState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        if callable(self.sigma):
            scale: Scale = at(self.sigma, 0)
            if not (isinstance(scale, float) and 0.0 < scale < math.inf):
                raise ValueError(f"sigma must be positive and finite, but the schedule starts with {scale}.")
        else:
            scale = fit_sigma(self.sigma, dim)
        if np.ndim(scale) == 2 and self.scale_rule is not None:
            raise ValueError("scale_rule moves one sigma or one per coordinate, and sigma is a factor. Leave one out.")
        if self.diagonal and np.ndim(scale) == 0:
            scale = np.full(dim, scale)
        scale_state = None if self.scale_rule is None else self.scale_rule.init(int(np.size(scale)))
        return GradientState(
            check_seed(seed),
            0,
            np.array(x0, np.float64),
            scale,
            self.rows(dim),
            self.estimator.init(dim),
            self.rule.init(dim),
            scale_state,
            tuple(rate.init(dim) for rate in self.rates),
            None if self.sizing is None else self.sizing.init(dim),
        )

    def rows(self, dim: int) -> int:
        """Return the size of the first population: ``n``, or 4 + 3 log d in whole blocks, at least two."""
        if self.n is not None:
            return int(self.n)
        block = self.sampler.block
        return block * max(2, -(-(4 + int(3.0 * math.log(dim))) // block))

    def ask(self, state: GradientState) -> Population:
        """Return this generation's population."""
        key = Key(state.seed, state.generation)
        noise = self.sampler.noise(key, state.n, state.mean.size)
        return self.estimator.prepare(Population(state.mean, state.scale, noise, share=self.share), state.estimator)

    def tell(self, state: GradientState, evals: Evals) -> tuple[GradientState, Info]:
        """Return the state after the update, and what was learned; ``evals`` may be of more rows than were asked for.

        Raises
        ------
        EvaluationError  if no block of rows is free of failures; the state is as before.
        """
        population = self.ask(state)
        if evals.arrivals is None:
            population = population.evaluated(evals)
        else:
            population, evals = arrived(population, evals, evals.arrivals)
        if not self.shaping.raw or not np.isfinite(evals.values[: population.n]).all():
            utilities = self._utilities(evals.values[: population.n], population)
            derivatives = evals.hessians, evals.hvps, evals.jvps
            about = evals.steps, evals.failures
            evals = Evals(evals.values, evals.grads, utilities, *derivatives, *about, stale=evals.stale)
        gradient, estimator = self.estimator.estimate(population, evals, state.estimator)
        step, rule = self.rule.step(self._direction(gradient, state), state.rule)
        generation = state.generation + 1
        scale, scale_rule = self._next_scale(gradient, state, generation)
        n, rates, sizing = state.n, state.rates, state.sizing
        notes: Mapping[str, float | str] = gradient.notes
        if rates or self.sizing is not None:
            factor, rates = self._rate(gradient, population, state)
            n, sizing = self._size(gradient, population, state)
            step = step * factor
            notes = {**notes, "rate": factor, "n": float(n)}
        mean = state.mean + step
        after = GradientState(state.seed, generation, mean, scale, n, estimator, rule, scale_rule, rates, sizing)
        choices = {name: note for name, note in notes.items() if isinstance(note, str)} if notes else {}
        scalars = {name: note for name, note in notes.items() if not isinstance(note, str)} if notes else {}
        return after, Info(state.generation, gradient, self._failures(evals, population.n), scalars, choices)

    def check_stale(self, state: GradientState) -> None:
        """Raise TypeError unless values of earlier generations can be used with importance weights."""
        baseline = self.estimator.baseline if type(self.estimator) is Score else None
        check_reweightable(self.shaping, baseline, self.ask(state))

    def recall(self, state: GradientState, generation: int, n: int, mean: Array, scale: Scale) -> Population:
        """Return the population of an earlier ``generation`` of ``n`` rows, around ``mean`` with ``scale``."""
        return self.ask(replace(state, generation=generation, n=n, mean=mean, scale=scale))

    def run(self, state: GradientState, address: Any, goal: Goal) -> tuple[GradientState, Lap]:
        """Return the state after generations in compiled code, and what happened: for :func:`esopt.snes` alone."""
        return lap(self, state, address, goal)

    def stop(self, state: GradientState) -> dict[str, float]:
        """Return reasons to stop: "diverged" (mean not finite), "scale" (sigma unusable, or lost in rounding)."""
        furthest = vectors.furthest(state.mean)
        if not math.isfinite(furthest):
            return {"diverged": float(np.count_nonzero(~np.isfinite(state.mean)))}
        if np.ndim(state.scale) == 2:
            return {}
        largest = state.scale if isinstance(state.scale, float) else float(state.scale.max())
        least = state.scale if isinstance(state.scale, float) else float(state.scale.min())
        if not TINY < largest < HUGE:
            return {"scale": largest}
        if least <= 0.0:
            return {"scale": least}
        if least < ROUNDING * furthest and (state.scale <= ROUNDING * np.abs(state.mean)).all():
            return {"scale": largest}
        return {}

    def _failures(self, evals: Evals, n: int) -> Mapping[str, int]:
        """Return the evaluator's counts, and how many infinite values a shaping that is not rank-based left out."""
        values = evals.values[:n]
        if self.shaping.ranks or np.isfinite(values).all():
            return evals.failures
        infinite = int(np.isinf(values).sum())
        return {**evals.failures, "infinite": infinite} if infinite else evals.failures

    def _utilities(self, values: Array, population: Population) -> Array:
        if self.shaping.ranks and np.isnan(values).all():
            return values
        return self.shaping.shape(values, population)

    def _direction(self, gradient: Gradient, state: GradientState) -> Array:
        direction = gradient.mean
        if self.natural:
            scale = np.asarray(state.scale)
            direction = scale @ (scale.T @ direction) if scale.ndim == 2 else direction * np.square(state.scale)
        if self.weight_decay:
            direction = direction + self.weight_decay * state.mean
        return direction

    def _rate(
        self, gradient: Gradient, population: Population, state: GradientState
    ) -> tuple[float, tuple[State, ...]]:
        """Return the product of the rates' factors, and their states."""
        product, after = 1.0, []
        for rate, own in zip(self.rates, state.rates, strict=True):
            factor, learned = rate.factor(gradient, population, own)
            product *= factor
            after.append(learned)
        return product, tuple(after)

    def _size(self, gradient: Gradient, population: Population, state: GradientState) -> tuple[int, State]:
        """Return the next population's size, in whole blocks, and the state of the sizing."""
        if self.sizing is None:
            return state.n, None
        size, after = self.sizing.size(gradient, population, self.rows(state.mean.size), state.sizing)
        block = self.sampler.block
        return block * max(1, -(-size // block)), after

    def _next_scale(self, gradient: Gradient, state: GradientState, generation: int) -> tuple[Scale, State]:
        if self.scale_rule is None or gradient.scale is None:
            return (at(self.sigma, generation) if callable(self.sigma) else state.scale), state.scale_rule
        if isinstance(state.scale, float):
            # The average over coordinates, so that a rule is as fast as with one sigma for each.
            by_log = state.scale * float(gradient.scale) / state.mean.size
            relative, after = self.scale_rule.step(np.array([by_log]), state.scale_rule)
            return state.scale * (1.0 + float(relative[0])), after
        relative, after = self.scale_rule.step(np.asarray(gradient.scale), state.scale_rule)
        return state.scale * (1.0 + relative), after
