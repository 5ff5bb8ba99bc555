"""Gaussian variational inference: the Gaussian that is closest to a density, from the parts of the library.

Maximises the evidence lower bound ELBO(q) = E_q[log p] + entropy(q) over q = N(mean, L L^T) by natural gradients
(:class:`esopt.NaturalGaussian`), with whatever p has: Hessians, their products, gradients, or values alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._ascent import Search
from ._parts import check_instance
from ._told import check_x0
from .estimators._blocks import mean_value
from .estimators.bonnet import Bonnet
from .estimators.price import Price
from .estimators.score import Score
from .loop import choose_evaluator
from .noise import Array, Key, check_seed, child
from .objective import Objective, as_objective
from .protocols import Estimator
from .records import Population
from .samplers.antithetic import Antithetic
from .samplers.rademacher import Rademacher
from .schedules import check_positive
from .smoothing import check_size
from .strategies._log_normal import log_normal
from .strategies.natural_gaussian import NaturalGaussian


@dataclass(frozen=True, eq=False)
class GaussianFit:
    """A Gaussian fitted to a density.

    ``mean`` is in the shape of x0; ``cov`` is the covariance (d, d), or the variances (d,) of a diagonal fit, and
    ``factor`` its lower Cholesky factor, or the standard deviations. ``elbo``, a lower bound of the log of the
    density's integral, was estimated with its standard error from ``final_evaluations`` fresh candidates. ``reason``
    in words why the search ended. ``generations`` counts those that were not taken back, and ``history`` has their
    estimates of the ELBO, (generations,). ``failures`` count evaluations by kind: those with an infinite log density
    are left out of the search, as failed ones are.

    Where the density is zero at one of the final candidates, ``elbo`` is -inf, its error nan, and the fit has not
    converged: no Gaussian keeps within the support, and the average over the rest is no bound.
    """

    mean: NDArray[np.float64]
    cov: Array
    factor: Array
    elbo: float
    elbo_stderr: float
    converged: bool
    reason: str
    generations: int
    evaluations: int
    failures: Mapping[str, int]
    history: Array

    def __str__(self) -> str:
        deviations = np.sqrt(self.cov if self.cov.ndim == 1 else np.diag(self.cov))
        shown = 6
        more = " ..." if self.mean.size > shown else ""
        rows = {
            "mean": " ".join(f"{x:.6g}" for x in self.mean.reshape(-1)[:shown]) + more,
            "sd": " ".join(f"{x:.6g}" for x in deviations[:shown]) + more,
            "elbo": f"{self.elbo:.8g} +- {self.elbo_stderr:.2g}",
            "reason": self.reason,
            "evaluations": f"{self.evaluations} in {self.generations} generations",
        }
        if self.failures:
            rows["failures"] = ", ".join(f"{count} {kind}" for kind, count in self.failures.items())
        return "\n".join(f"{name:<12} {text}" for name, text in rows.items())


def fit_gaussian(
    log_density: Callable[..., Any] | Objective,
    x0: ArrayLike,
    *,
    grad: Callable[..., Any] | None = None,
    hess: Callable[..., Any] | None = None,
    hvp: Callable[..., Any] | None = None,
    full: bool = True,
    sigma: float | Array = 1.0,
    n: int | None = None,
    rate: float | None = None,
    estimator: Estimator | None = None,
    tolerance: float = 1e-3,
    generations: int = 1000,
    final_evaluations: int = 1000,
    args: tuple[Any, ...] = (),
    seeded: bool = False,
    vectorized: bool = False,
    workers: int | None = None,
    on_error: str = "raise",
    seed: int = 0,
) -> GaussianFit:
    """Fit a Gaussian to a density, which need not be normalised: maximise E_q[log p] + entropy(q).

    Steps are as long as the estimates are precise, and are taken back where the ELBO falls by more than its error. Once
    successive natural gradients no longer agree, the search is at the answer but for noise: steps shrink and the
    natural parameters are averaged until what the noise costs is below ``tolerance``.

    Parameters
    ----------
    log_density : log p up to a constant, of one x in the shape of ``x0``; or an :class:`esopt.Objective` of it. See
        :func:`esopt.minimize` for ``args``, ``seeded``, ``vectorized``, ``workers`` and ``on_error``.
    x0 : where the mean starts, any shape; d is its size.
    grad, hess, hvp : derivatives of log_density; see :class:`esopt.Objective`. With ``grad``, the estimator is
        ``Price()`` for ``hess`` too, ``Price(Rademacher())`` for ``hvp``, else ``Bonnet(with_scale=True)``; without it
        ``Score(with_scale=True)``, which needs of order d^2 values per generation for a full covariance.
    full : fit a full covariance, (d, d), or else independent coordinates.
    sigma : standard deviation to start with, a number, one per coordinate, or a factor (d, d).
    n : candidates per generation, a multiple of 2 and at least 4; None for at least 32 with Hessians, 64 with
        gradients and 256 with values alone, more by d; where the budget runs out, a larger n helps more than it costs.
    rate : longest step, in (0, 1]; 1 is Newton's. None for the rate at which noise and progress balance.
    estimator : one of your own, ``with_scale``.
    tolerance : what the noise of the search may cost of the ELBO, in nats.
    generations : budget.
    final_evaluations : values for the ELBO at the end.
    seed : equal arguments give equal bits.

    Returns
    -------
    GaussianFit  ``mean``, ``cov``, ``factor``, ``elbo`` with ``elbo_stderr``, ``converged``, ``reason`` ...

    Raises
    ------
    ValueError, TypeError  for arguments that do not fit, as are derivatives beside an Objective.
    EvaluationError  if log_density raises, or is never finite in the first generation.

    Notes
    -----
    Where p is Gaussian the error vanishes: in one step with Hessians, geometrically without. Where it is not, q is the
    Gaussian of the least KL(q || p), which tends to be too narrow, a diagonal one in particular.

    References
    ----------
    Khan, Rue (2023), The Bayesian learning rule; Opper, Archambeau (2009), The variational Gaussian approximation
    revisited; Polyak, Juditsky (1992), Acceleration of stochastic approximation by averaging.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> P = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> fit = esopt.fit_gaussian(lambda x: -0.5 * x @ P @ x, [4.0, -1.0], grad=lambda x: -P @ x, hess=lambda x: -P)
    >>> np.allclose(fit.cov, np.linalg.inv(P)), round(fit.elbo, 6)  # log(2 pi / sqrt(5))
    (True, 1.033158)
    """
    point = check_x0(x0)
    objective = as_objective(
        "fit_gaussian", log_density, point.shape, grad=grad, hess=hess, hvp=hvp, args=args, seeded=seeded
    )
    for name, size in (("generations", generations), ("final_evaluations", final_evaluations)):
        check_size(name, size)
    check_positive("tolerance", tolerance)
    if estimator is None:
        estimator = _default_estimator(objective)
    check_instance("estimator", estimator, Estimator, "Bonnet(with_scale=True)")
    pairs = _pairs(n, point.size, estimator, full)
    if rate is not None and not 0.0 < rate <= 1.0:
        raise ValueError(f"rate must be in (0, 1], got {rate}. Pass 1.0 for Newton's step, or leave it out.")
    if rate is None:
        rate = pairs / (pairs + _noise(point.size, estimator, full))
    strategy = NaturalGaussian(sigma, full, 2 * pairs, 1.0, estimator=estimator, mean_rate=rate, scale_rate=rate)
    evaluator = choose_evaluator(objective, vectorized=vectorized, workers=workers, on_error=on_error)
    search = Search(strategy, evaluator, rate, tolerance)
    try:
        search.run(point.reshape(-1), check_seed(seed), generations)
        return _result(search, point.shape, child(seed, 0), 2 * -(-final_evaluations // 2))
    finally:
        evaluator.close()


def _default_estimator(objective: Objective) -> Estimator:
    if objective.grad is None:
        if objective.hess is not None or objective.hvp is not None:
            raise ValueError("fit_gaussian() got hess or hvp without grad. Pass grad= too, or values alone.")
        return Score(with_scale=True)
    if objective.hess is not None:
        return Price()
    return Bonnet(with_scale=True) if objective.hvp is None else Price(Rademacher())


def _noise(dim: int, estimator: Estimator, full: bool) -> float:
    """Return the variance of a pair's estimate of the covariance's gradient, over its squared length (theory: F, D)."""
    if isinstance(estimator, Price) and estimator.probes is None:
        return 0.0
    if isinstance(estimator, (Bonnet, Price)):
        return dim + 1.0 if full else 2.0
    return 0.5 * (dim + 2.0) * (dim + 7.0) if full else dim + 13.0


def _pairs(n: int | None, dim: int, estimator: Estimator, full: bool) -> int:
    """Return the number of antithetic pairs."""
    if n is None:
        noise = _noise(dim, estimator, full)
        least = 16 if noise == 0.0 else 32 if isinstance(estimator, (Bonnet, Price)) else 128
        return max(least, math.ceil(0.5 * noise))
    check_size("n", n)
    if n < 4 or n % 2:
        raise ValueError(f"n must be a multiple of 2 and at least 4, got {n}. Pass for example n=32.")
    return int(n) // 2


def _result(search: Search, shape: tuple[int, ...], seed: int, count: int) -> GaussianFit:
    """Return what was found, with the ELBO from ``count`` fresh candidates."""
    mean, scale = search.found()
    if scale.ndim == 2:
        lower = np.linalg.qr(scale.T)[1].T
        scale = lower * np.sign(np.diag(lower))
    population = Population(mean, scale, Antithetic().noise(Key(seed), count, mean.size))
    values = search.evaluate(population).values + log_normal(population)
    energy, error = mean_value(values, population.noise.block)
    converged, reason, zeros = search.converged, search.reason, int(np.isposinf(values).sum())
    if zeros:
        energy, error, converged = np.inf, np.nan, False
        reason = (
            f"the density is zero at {zeros} of {count} final candidates: the ELBO of a Gaussian is -inf there; "
            "transform x so that its support is the whole space"
        )
    return GaussianFit(
        mean=mean.reshape(shape).copy(),
        cov=np.square(scale) if scale.ndim == 1 else scale @ scale.T,
        factor=scale,
        elbo=-energy,
        elbo_stderr=error,
        converged=converged,
        reason=reason,
        generations=len(search.energies),
        evaluations=search.evaluations,
        failures=dict(search.failures),
        history=-np.array(search.energies).reshape(-1, 2)[:, 0],
    )
