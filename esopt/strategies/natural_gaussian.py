"""One natural-gradient step for a Gaussian: NES from ranks, variational inference from derivatives, same update.

Minimises E f(x) - temperature * entropy over q = N(mean, L L^T). In the coordinates in which q is N(0, I) the
covariance moves along its natural gradient, whichever estimator measured it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import get_args

import numpy as np

from .._blas import serial
from .._parts import check_instance
from ..estimators.score import Score
from ..noise import Array, Key, Share, check_seed
from ..protocols import Estimator, Sampler, Shaping, State
from ..records import Evals, Gradient, Info, Population
from ..samplers.antithetic import Antithetic
from ..schedules import Schedule, at, check_nonnegative, check_positive
from ..shaping import Raw, RecombinationWeights
from ._log_normal import add_log_normal
from .gradient_es import Radius, check_sigma, fit_sigma

_TINY, _HUGE = 1e-150, 1e150
_ROUNDING = 2.0**-57
_CONDITION = 1e12
_VARIATIONAL_RATE = 0.1
# Precisions that shrink to less than this share in a step are believed only as far as their standard errors go.
_SAFE, _LEAST = 0.1, 1e-6


@dataclass(frozen=True, eq=False)
class NaturalGaussianState:
    """State of :class:`NaturalGaussian`: ``scale`` is one sigma per coordinate, (d,), or a factor, (d, d)."""

    seed: int
    generation: int
    mean: Array
    scale: Array
    estimator: State


@dataclass(frozen=True, eq=False)
class NaturalGaussian:
    """Natural gradient descent of E f(x) - temperature * entropy over Gaussians, diagonal or full.

    With H the estimate of L^T E[Hessian] L (its diagonal, for a vector of sigmas) and temperature 0 this is NES:
    mean -= mean_rate * Sigma grad and L <- L exp(-1/2 rate H). With a positive temperature tau it is variational
    inference: the precision becomes L^-T (I + rate (H / tau - I)) L^-1, and mean -= mean_rate / tau * Sigma grad with
    the new Sigma. At rate 1 that is Newton's step: on a quadratic f, with exact derivatives, one step is the answer. In
    both cases ``scale_rate`` is for the mean of the eigenvalues of the change and ``shape_rate`` for the rest.

    Parameters
    ----------
    sigma : start: a number, (d,) numbers, a factor L of the covariance, (d, d), or a :class:`esopt.Radius`.
    full : learn a full covariance from any start; a factor is one in any case. Else one sigma per coordinate.
    n : rows per generation, a multiple of the sampler's block; None for about 4 + 3 log d.
    temperature : weight tau of the entropy, in the units of f; 1 for f = -log density.
    sampler : joint law of the noise rows.
    shaping : values to utilities; None for :class:`esopt.RecombinationWeights`, or :class:`esopt.Raw` with a
        temperature or an estimator that needs the values.
    estimator : any one ``with_scale``, from values, gradients or Hessians.
    mean_rate : a number or a schedule; None for 1, or 0.1 with a temperature.
    scale_rate : None for (3 + log d) / (5 sqrt d), with a full covariance 3 (3 + log d) / (5 d sqrt d); or 0.1 with a
        temperature.
    shape_rate : None for ``scale_rate``.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

    Notes
    -----
    With a temperature, estimators see f + tau log q instead of f, its gradients and its Hessians. The expected gradient
    of that, with q held fixed, is the gradient of the whole objective, and its variance vanishes where q is the answer
    (sticking the landing). ``Info.gradient`` is about it: ``value`` estimates E f - tau * entropy.

    1 + t of the precision's eigenvalues is kept while it is above a floor of 0.1, less where the standard errors are
    small, and goes over into floor / 2 (1 + exp(2 (1 + t) / floor - 2)), which is positive for any t. Lin et al. take
    1 + t + t^2 / 2 instead, which is positive too, and not exact at rate 1.

    References
    ----------
    Glasmachers et al. (2010), Exponential natural evolution strategies; Wierstra et al. (2014), Natural evolution
    strategies; Khan, Rue (2023), The Bayesian learning rule, section 4; Lin, Schmidt, Khan (2020), Handling the
    positive-definite constraint in the Bayesian learning rule; Roeder, Wu, Duvenaud (2017), Sticking the landing.

    Examples
    --------
    >>> import esopt
    >>> def f(x): return 0.5 * (x[0] - 3.0) ** 2 + 2.0 * x[1] ** 2
    >>> def grad(x): return [x[0] - 3.0, 4.0 * x[1]]
    >>> strategy = esopt.NaturalGaussian(sigma=0.5, n=8, temperature=1.0, estimator=esopt.Bonnet(with_scale=True))
    >>> es = esopt.Optimizer(strategy, [0.0, 0.0], seed=1, generations=300)
    >>> while not es.stop():
    ...     info = es.tell([f(x) for x in es.ask()], [grad(x) for x in es.ask()])
    >>> (abs(es.mean) + 1e-6).round(3), es.state.scale.round(3)
    (array([3., 0.]), array([1. , 0.5]))
    """

    sigma: float | Array | Radius = 0.5
    full: bool = False
    n: int | None = None
    temperature: float = 0.0
    sampler: Sampler = field(default_factory=Antithetic)
    shaping: Shaping | None = None
    estimator: Estimator = field(default_factory=lambda: Score(with_scale=True))
    mean_rate: Schedule | None = None
    scale_rate: Schedule | None = None
    shape_rate: Schedule | None = None
    share: Share = "pair"

    def __post_init__(self) -> None:
        check_instance("sampler", self.sampler, Sampler, "Antithetic()")
        check_instance("estimator", self.estimator, Estimator, "Score(with_scale=True)")
        if self.shaping is not None:
            check_instance("shaping", self.shaping, Shaping, "Raw()")
        object.__setattr__(self, "sigma", check_sigma(self.sigma))
        check_nonnegative("temperature", self.temperature)
        block = self.sampler.block
        whole = isinstance(self.n, (int, np.integer)) and not isinstance(self.n, bool)
        if self.n is not None and not (whole and self.n >= 1 and self.n % block == 0):
            raise ValueError(
                f"n must be a positive multiple of {block} with the sampler {type(self.sampler).__name__}, "
                f"got n={self.n!r}. Pass for example n={-(-32 // block) * block}."
            )
        for name in ("mean_rate", "scale_rate", "shape_rate"):
            rate = getattr(self, name)
            if rate is not None:
                check_positive(name, rate)
            if self.temperature and isinstance(rate, Real) and float(rate) > 1.0:
                raise ValueError(f"{name} must be at most 1 with a temperature, got {rate}: 1 is Newton's step.")
        if self.share not in get_args(Share):
            raise ValueError(f"share must be one of {get_args(Share)}, got {self.share!r}.")
        if not self.estimator.with_scale:
            raise ValueError(
                f"NaturalGaussian needs the gradient of the scale, and got {self.estimator}. Pass for example "
                "Score(with_scale=True)."
            )
        if not self._shaping.raw and (self.temperature or self.estimator.raw_only):
            why = "temperature weighs them against the entropy" if self.temperature else "the estimator needs them"
            raise ValueError(f"shaping={self.shaping} changes the values, but {why}. Leave shaping out.")

    @property
    def _shaping(self) -> Shaping:
        if self.shaping is not None:
            return self.shaping
        return Raw() if self.temperature or self.estimator.raw_only else RecombinationWeights()

    def init(self, x0: Array, seed: int) -> NaturalGaussianState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        scale = np.asarray(fit_sigma(self.sigma, x0.size))
        if scale.ndim == 0:
            scale = np.full(x0.size, float(scale))
        if self.full and scale.ndim == 1:
            scale = np.diag(scale)
        return NaturalGaussianState(check_seed(seed), 0, np.array(x0, np.float64), scale, self.estimator.init(x0.size))

    def rows(self, dim: int) -> int:
        """Return the population size in ``dim``: ``n``, or 4 + 3 log d rounded up to whole blocks, at least two."""
        if self.n is not None:
            return int(self.n)
        block = self.sampler.block
        return block * max(2, -(-(4 + int(3.0 * math.log(dim))) // block))

    def ask(self, state: NaturalGaussianState) -> Population:
        """Return this generation's population."""
        dim = state.mean.size
        noise = self.sampler.noise(Key(state.seed, state.generation), self.rows(dim), dim)
        return self.estimator.prepare(Population(state.mean, state.scale, noise, share=self.share), state.estimator)

    @serial
    def tell(self, state: NaturalGaussianState, evals: Evals) -> tuple[NaturalGaussianState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if no block of rows is free of failures; the state is as before.
        """
        population = self.ask(state)
        n, shaping = population.n, self._shaping
        failures = _failures(evals, n, shaping)
        if self.temperature:
            evals = add_log_normal(population, evals, self.temperature)
        values = evals.values[:n]
        if not (shaping.ranks and np.isnan(values).all()):
            evals = replace(evals, utilities=shaping.shape(values, population))
        gradient, estimator = self.estimator.estimate(population, evals, state.estimator)
        mean, scale = self._step(state, gradient)
        notes = gradient.notes.items()
        choices = {name: note for name, note in notes if isinstance(note, str)}
        scalars = {name: note for name, note in notes if not isinstance(note, str)}
        after = NaturalGaussianState(state.seed, state.generation + 1, mean, scale, estimator)
        return after, Info(state.generation, gradient, failures, scalars, choices)

    def stop(self, state: NaturalGaussianState) -> dict[str, float]:
        """Return reasons to stop.

        "diverged" (mean not finite), "scale" (sigma unusable, or lost in rounding), "condition" (of a factor).
        """
        if not np.isfinite(state.mean).all():
            return {"diverged": float(np.count_nonzero(~np.isfinite(state.mean)))}
        sigma = deviations(state.scale)
        largest, least = float(sigma.max()), float(sigma.min())
        if not _TINY < largest < _HUGE:
            return {"scale": largest}
        if least <= 0.0 or (sigma <= _ROUNDING * np.abs(state.mean)).all():
            return {"scale": least if least <= 0.0 else largest}
        if state.scale.ndim == 2:
            condition = float(np.linalg.cond(state.scale))
            if not condition < _CONDITION:
                return {"condition": condition}
        return {}

    def _rates(self, dim: int, generation: int, full: bool) -> tuple[float, float, float]:
        """Return the rates of the mean, the scale and the shape."""
        if self.temperature:
            first, second = _VARIATIONAL_RATE, _VARIATIONAL_RATE
        else:
            first, second = 1.0, (3.0 + math.log(dim)) / (5.0 * math.sqrt(dim))
            second *= 3.0 / dim if full else 1.0
        mean = first if self.mean_rate is None else at(self.mean_rate, generation)
        scale = second if self.scale_rate is None else at(self.scale_rate, generation)
        return mean, scale, scale if self.shape_rate is None else at(self.shape_rate, generation)

    def _step(self, state: NaturalGaussianState, gradient: Gradient) -> tuple[Array, Array]:
        """Return the next mean and scale; not finite where the gradient or the step is not."""
        before = state.scale
        mean_rate, scale_rate, shape_rate = self._rates(state.mean.size, state.generation, before.ndim == 2)
        unit = self.temperature or 1.0
        change = local_change(gradient, unit)
        if not (np.isfinite(change).all() and np.isfinite(gradient.mean).all()):
            return np.full_like(state.mean, np.nan), np.full_like(before, np.nan)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            eigenvalues, vectors = (change, None) if change.ndim == 1 else np.linalg.eigh(change)
            average = float(eigenvalues.mean())
            steps = scale_rate * average + shape_rate * (eigenvalues - average)
            if self.temperature:
                error = float(np.linalg.norm(np.asarray(gradient.scale_stderr))) * max(scale_rate, shape_rate) / unit
                shrink = 1.0 / np.sqrt(_kept_positive(steps, 4.0 * error))
            else:
                shrink = np.exp(-0.5 * steps)
            after = before * shrink if vectors is None else before @ (vectors * shrink) @ vectors.T
            # VON moves with the new covariance, NES with the old one.
            metric = after if self.temperature else before
            step = metric * metric * gradient.mean if metric.ndim == 1 else metric @ (metric.T @ gradient.mean)
            return state.mean - mean_rate / unit * step, after


def local_change(gradient: Gradient, unit: float) -> Array:
    """Return L^T E[Hessian] L / unit, symmetric (d, d), or its diagonal, (d,), from a gradient of the scale."""
    scale = np.asarray(gradient.scale)
    # A factor's gradient is half of it, those of log sigma_i are the whole diagonal.
    return np.asarray((scale + scale.T) / unit if scale.ndim == 2 else scale / unit)


def deviations(scale: Array) -> Array:
    """Return the standard deviations of the coordinates, (d,)."""
    return np.abs(scale) if scale.ndim == 1 else np.sqrt(np.einsum("ij,ij->i", scale, scale))


def _kept_positive(steps: Array, error: float) -> Array:
    """Return 1 + steps above a floor that follows ``error``, continued smoothly and above half of the floor below."""
    floor = min(max(error, _LEAST), _SAFE) if math.isfinite(error) else _SAFE
    inside = 1.0 + steps
    below = 0.5 * floor * (1.0 + np.exp(2.0 * np.minimum(inside / floor, 1.0) - 2.0))
    return np.where(inside >= floor, inside, below)


def _failures(evals: Evals, n: int, shaping: Shaping) -> Mapping[str, int]:
    """Return the evaluator's counts, and how many infinite values a shaping that is not rank-based left out."""
    infinite = 0 if shaping.ranks else int(np.isinf(evals.values[:n]).sum())
    return {**evals.failures, "infinite": infinite} if infinite else evals.failures
