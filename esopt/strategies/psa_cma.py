"""PSA-CMA-ES: as many candidates as it takes to see the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any, cast

import numpy as np

from .._blas import serial
from ..noise import Array
from ..records import Evals, Info, Population
from ..step_sizes import CSA
from ._cma import Family, Rates, constants, population_size, white_step
from .cmaes import CMAES

# Table 1 of the paper: the threshold, the memory of the path, and the largest population over the smallest.
_ALPHA, _BETA, _MOST = 1.4, 0.4, 512


@dataclass(frozen=True, eq=False)
class PSAState:
    """State of :class:`PSACMA`: the inner one, the population before rounding, and the path of the distribution.

    ``path_mean`` (d,) and ``path_cov`` (d, d), or (d,) for variances, are in the coordinates in which the distribution
    is N(0, I); ``known`` is the expected squared length of the path under random selection, which goes to 1.
    """

    inner: Any
    size: float
    path_mean: Array
    path_cov: Array
    known: float

    @property
    def generation(self) -> int:
        """Number of generations told."""
        return int(self.inner.generation)

    @property
    def mean(self) -> Array:
        """Mean of the search distribution, (d,)."""
        return cast(Array, self.inner.mean)

    @property
    def sigma(self) -> float:
        """Step size of the search distribution."""
        return float(self.inner.sigma)

    @property
    def cov(self) -> Array:
        """Covariance of the search, (d, d), or variances, (d,)."""
        return cast(Array, self.inner.cov)

    @property
    def scale(self) -> Array:
        """What candidates are made with: a factor of the covariance, (d, d), or standard deviations, (d,)."""
        return cast(Array, self.inner.scale)


@dataclass(frozen=True, eq=False)
class PSACMA:
    """CMA-ES that adapts its population: for many optima or noise, where no good n is known.

    The moves of the distribution, of mean and covariance together, are averaged over generations, in units of what
    random selection would make of them. While the average is hardly longer than chance n grows, by up to half in a
    generation, and where the moves agree n shrinks. With every change of n sigma goes to where it is best for the
    new n on a sphere. Functions that are neither noisy nor multimodal cost two to four times the evaluations of
    :class:`CMAES` with its own n.

    Parameters
    ----------
    inner : :class:`CMAES` or :class:`SepCMA`; its n is the smallest population and the first one. The paper has
        ``active=False``, which finds the global optimum of Rastrigin's function more often.
    n_max : largest population; None for 512 times the smallest.

    Notes
    -----
    O(d^3) time for each generation beside that of :class:`CMAES`. The paths of ``inner`` are not normalised in the
    first generations, as those of the paper are. The expected move under random selection is that of the weights in
    use. The stop rule "stagnation" counts at the largest population only.

    References
    ----------
    Nishida, Akimoto (2018), PSA-CMA-ES: CMA-ES with population size adaptation, GECCO 2018, algorithm 1; sigma after
    Akimoto, Auger, Hansen (2017), Quality gain analysis of the weighted recombination evolution strategy on general
    convex quadratic functions.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> def rastrigin(x): return 10.0 * len(x) + float((x * x - 10.0 * np.cos(2.0 * np.pi * x)).sum())
    >>> psa = esopt.PSACMA(esopt.CMAES(sigma=2.0, active=False))
    >>> result = esopt.minimize(rastrigin, [3.0] * 10, strategy=psa, target=1e-8, seed=1, evaluations=100_000)
    >>> bool(result.value <= 1e-8)
    True
    """

    inner: Any = field(default_factory=lambda: CMAES(active=False))
    n_max: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Family) or type(self.inner.step_size) is not CSA:
            raise TypeError(
                f"inner must be CMAES or SepCMA with step_size=CSA(), got {self.inner!r}. Pass for example CMAES()."
            )
        whole = isinstance(self.n_max, (int, np.integer)) and not isinstance(self.n_max, bool)
        if self.n_max is not None and not (whole and self.n_max >= (self.inner.n or 2)):
            raise ValueError(f"n_max must be a number of at least n, got {self.n_max!r}. Pass for example n_max=1000.")

    def init(self, x0: Array, seed: int) -> PSAState:
        """Return the state before the first generation, around ``x0`` (d,).

        Raises
        ------
        ValueError  if ``n_max`` is smaller than the first population.
        """
        inner, least = self.inner.init(x0, seed), self._least(x0.size)
        if self.n_max is not None and self.n_max < least:
            raise ValueError(
                f"n_max must be at least the smallest population, {least} in {x0.size} dimensions, got {self.n_max}. "
                f"Pass n_max={least} or more, or a smaller n of inner."
            )
        return PSAState(inner, float(least), np.zeros(x0.size), np.zeros(inner.shape.shape), 0.0)

    def ask(self, state: PSAState) -> Population:
        """Return this generation's population."""
        return cast(Population, self._strategy(state).ask(state.inner))

    @serial
    def tell(self, state: PSAState, evals: Evals) -> tuple[PSAState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        strategy = self._strategy(state)
        inner, info = strategy.tell(state.inner, evals)
        dim, separable = state.mean.size, inner.shape.ndim == 1
        move = _change(state.inner, inner)
        unit = math.sqrt(_BETA * (2.0 - _BETA) / expected(dim, strategy.n, strategy.active, separable))
        path_mean, path_cov, known = state.path_mean, state.path_cov, state.known
        if np.isfinite(move).all():
            path_mean = (1.0 - _BETA) * path_mean + unit * white_step(strategy, state.inner, inner)
            path_cov = (1.0 - _BETA) * path_cov + unit * math.sqrt(0.5) * move
            known = (1.0 - _BETA) ** 2 * known + _BETA * (2.0 - _BETA)
        length = float(np.vdot(path_mean, path_mean) + np.vdot(path_cov, path_cov))
        least = self._least(dim)
        size = state.size * math.exp(_BETA * (known - length / _ALPHA))
        size = min(max(size, float(least)), float(self._most(least)))
        after = PSAState(inner, size, path_mean, path_cov, known)
        ratio = best_sigma(dim, self._strategy(after).n) / best_sigma(dim, strategy.n)
        inner = replace(inner, sigma=inner.sigma * ratio)
        scalars = {**info.scalars, "sigma": inner.sigma, "n": float(self._strategy(after).n)}
        return replace(after, inner=inner), replace(info, scalars=scalars)

    def stop(self, state: PSAState) -> dict[str, float]:
        """Return the reasons of ``inner``, "stagnation" only at the largest population."""
        reasons = dict(self.inner.stop(state.inner))
        if state.size < self._most(self._least(state.mean.size)):
            reasons.pop("stagnation", None)
        return reasons

    def _least(self, dim: int) -> int:
        return population_size(self.inner.n, dim, self.inner.sampler)

    def _most(self, least: int) -> int:
        block = self.inner.sampler.block
        return _MOST * least if self.n_max is None else int(self.n_max) // block * block

    def _strategy(self, state: PSAState) -> Any:
        block = self.inner.sampler.block
        return _sized(self.inner, max(2, round(state.size / block) * block))


@lru_cache(maxsize=64)
def _sized(inner: Any, n: int) -> Any:
    return replace(inner, n=n)


def _change(state: Any, after: Any) -> Array:
    """Return Sigma^-1/2 (Sigma' - Sigma) Sigma^-1/2, (d, d), or its diagonal, (d,), for Sigma with sigma^2.

    It is nan where rounding has made Sigma singular: such a move has no length, and the path stays as it is.
    """
    grown = (after.sigma / state.sigma) ** 2
    if after.shape.ndim == 1:
        return np.asarray(grown * after.shape / np.maximum(state.shape, 1e-300) - 1.0)
    try:
        root = np.linalg.solve(state.shape, after.shape)
    except np.linalg.LinAlgError:
        return np.full(state.shape.shape, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(grown * (root @ root.T) - np.eye(len(root)))


@lru_cache(maxsize=256)
def expected(dim: int, n: int, active: bool, separable: bool) -> float:
    """Return the expected squared length of a move of the distribution under random selection.

    The Fisher metric |A^-1 dm|^2 + |A^-1 dSigma A^-T|^2 / 2, as eq. 13 of the paper, for negative weights as well.
    """
    weights, plain = constants(dim, n, active, separable)
    rates = Rates(*plain)
    expectation = math.sqrt(dim) * (1.0 - 1.0 / (4.0 * dim) + 1.0 / (21.0 * dim * dim))
    log_sigma = (rates.sigma / rates.damping) ** 2 * (dim / expectation**2 - 1.0)
    # E |z z^T - I|^2 for z ~ N(0, I), and for z on the sphere of radius sqrt(d), where negative weights have it.
    free, bound = dim * (dim + 1.0), dim * (dim - 1.0)
    if separable:
        free, bound = 2.0 * dim, 2.0 * dim * (dim - 1.0) / (dim + 2.0)
    best, worst = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    spread = rates.mu**2 * (free * float(best @ best) + bound * float(worst @ worst)) + rates.one**2 * free
    shared = rates.path * (2.0 - rates.path) * rates.mass * float((best**3).sum())
    spread += 2.0 * rates.one * rates.mu * free * shared
    return dim / rates.mass + 2.0 * dim * log_sigma + 0.5 * (1.0 + 8.0 * log_sigma) * spread


@lru_cache(maxsize=256)
def best_sigma(dim: int, n: int) -> float:
    """Return the sigma of the fastest progress on a sphere, over |x| / d: d c mu_eff / (d - 1 + c^2 mu_eff).

    c is the weighted mean of the expected order statistics of n normal numbers, here by Blom's approximation.
    """
    weights, plain = constants(dim, n, False, False)
    normal, mass = NormalDist(), Rates(*plain).mass
    c = -sum(w * normal.inv_cdf((i + 0.625) / (n + 0.25)) for i, w in enumerate(weights[: n // 2]))
    return float(dim * c * mass / (dim - 1.0 + c * c * mass))
