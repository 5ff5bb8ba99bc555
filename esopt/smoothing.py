"""The smoothed function itself: its value, gradient and Hessian at a point, for any function, with error bars.

J(x) = E f(x + sigma * eps), eps ~ N(0, I).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._parts import check_instance
from ._told import check_x0
from .estimators._curvature import curvature
from .estimators.bonnet import Bonnet
from .estimators.price import Price
from .estimators.score import Score
from .loop import choose_evaluator
from .noise import Array, Key, Law, check_seed
from .objective import Objective, as_objective
from .protocols import Baseline, Estimator, Evaluator, Sampler, State
from .records import Evals, Gradient, Population, Scale
from .samplers.antithetic import Antithetic
from .samplers.rademacher import Rademacher
from .strategies.gradient_es import check_sigma, fit_sigma


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    stderr: float


def smoothed_gradient(
    f: Callable[..., Any] | Objective,
    x: ArrayLike,
    *,
    sigma: float | Array = 0.1,
    n: int = 256,
    seed: int = 0,
    grad: Callable[..., Any] | None = None,
    estimator: Estimator | None = None,
    sampler: Sampler | None = None,
    baseline: Baseline | None = None,
    args: tuple[Any, ...] = (),
    seeded: bool = False,
    vectorized: bool = False,
    workers: int | None = None,
    on_error: str = "raise",
) -> Gradient:
    """Estimate the gradient of J(x, sigma) = E f(x + sigma * eps) in the mean and in the scale.

    Parameters
    ----------
    f : function of one x in the shape of ``x``, or an :class:`esopt.Objective`; see :func:`esopt.minimize` for the
        ways to call it (``args``, ``seeded``, ``vectorized``, ``workers``, ``on_error``; numba functions are compiled).
    x : where, any shape; d is its size.
    sigma : standard deviation, a number, one per coordinate, or a factor L of the covariance L L^T, (d, d).
    n : evaluations, a positive multiple of the sampler's block.
    seed : equal arguments give equal bits.
    grad : gradient of f. With it the default estimator is :class:`esopt.Bonnet`.
    estimator : None for ``Bonnet(with_scale=True)`` with ``grad``, else ``Score(baseline, with_scale=True)``; without
        scale if the sampler's law is not Gaussian, where values say nothing about it.
    sampler : joint law of the noise rows; None for antithetic pairs.
    baseline : control variate of the default Score; None for the leave-one-out mean.

    Returns
    -------
    Gradient  ``mean`` (d,) with ``mean_stderr``, ``scale`` with ``scale_stderr``, ``value`` of J with
    ``value_stderr``, ``snr``, ``blocks``, ``evaluations``. The scale's gradient is dJ/dsigma for a number,
    dJ/dlog sigma_i, (d,), for one per coordinate, and the local matrix L^T (dJ/dSigma) L = 1/2 L^T E[Hessian f] L,
    (d, d), for a factor L of Sigma.

    Notes
    -----
    Unbiased for the gradient of J, not of f: they differ by sigma^2 / 2 grad(Laplacian f) + O(sigma^4).

    Examples
    --------
    >>> import esopt, numpy as np
    >>> g = esopt.smoothed_gradient(lambda x: (x**2).sum(), np.ones(3), sigma=0.1, n=2000)
    >>> bool((np.abs(g.mean - 2.0) < 4 * g.mean_stderr).all())
    True
    """
    point = check_x0(x)
    objective = as_objective("smoothed_gradient", f, point.shape, grad=grad, args=args, seeded=seeded)
    check_size("n", n)
    sampler = Antithetic() if sampler is None else sampler
    check_instance("sampler", sampler, Sampler, "Antithetic()")
    if baseline is not None:
        check_instance("baseline", baseline, Baseline, "LeaveOneOut()")
    if estimator is None:
        scale = sampler.law is Law.GAUSSIAN
        if objective.grad is not None and baseline is None:
            estimator = Bonnet(with_scale=True)
        else:
            estimator = Score(with_scale=scale) if baseline is None else Score(baseline, with_scale=scale)
    elif baseline is not None:
        raise ValueError("baseline= is for the default estimator. Set it in the estimator: Score(baseline=...).")
    check_instance("estimator", estimator, Estimator, "Score()")
    evaluator = choose_evaluator(objective, vectorized=vectorized, workers=workers, on_error=on_error)
    spread = fit_sigma(check_sigma(sigma), point.size)
    return _estimate(evaluator, point.reshape(-1), spread, n, check_seed(seed), estimator, sampler)


@dataclass(frozen=True, eq=False)
class Hessian:
    """An estimate of the Hessian of J(x) = E f(x + sigma * eps), with its error bars.

    ``mean`` and ``stderr`` are (d, d) and symmetric; ``value`` estimates J. Standard errors are nan where fewer than
    two independent blocks are left. ``notes`` say by name where the estimate came from.
    """

    mean: Array
    stderr: Array
    blocks: int
    value: float
    value_stderr: float
    evaluations: int
    notes: Mapping[str, float | str] = field(default_factory=dict)


def smoothed_hessian(
    f: Callable[..., Any] | Objective,
    x: ArrayLike,
    *,
    sigma: float | Array = 0.1,
    n: int | None = None,
    seed: int = 0,
    grad: Callable[..., Any] | None = None,
    hess: Callable[..., Any] | None = None,
    hvp: Callable[..., Any] | None = None,
    sampler: Sampler | None = None,
    baseline: Baseline | None = None,
    args: tuple[Any, ...] = (),
    seeded: bool = False,
    vectorized: bool = False,
    workers: int | None = None,
    on_error: str = "raise",
) -> Hessian:
    """Estimate the Hessian of J(x) = E f(x + sigma * eps) from values, gradients or second derivatives.

    Parameters
    ----------
    f, x, seed, sampler, args, seeded, vectorized, workers, on_error : as in :func:`smoothed_gradient`.
    sigma : standard deviation, a number, one per coordinate, or a factor L of the covariance L L^T, (d, d).
    n : evaluations, a positive multiple of the sampler's block; None for as many as give an error of about a quarter
        of the Hessian's Frobenius norm on a quadratic: 20 (d + 2) (d + 7) from values, 20 (d + 2) from gradients or
        products, whose error is about half of that, at least 128; 64 with Hessians.
    grad, hess, hvp : gradient, Hessian and Hessian-vector product ``hvp(x, v)`` of f. The estimate is made of the first
        that is there of ``hess``, ``hvp`` and ``grad``, else of values.
    baseline : control variate of the estimate from values, which it asks for; None for the leave-one-out mean.

    Returns
    -------
    Hessian  ``mean`` (d, d) with ``stderr``, ``value`` of J with ``value_stderr``, ``blocks``, ``evaluations``.

    Notes
    -----
    Unbiased for the Hessian of J, the average of f's own where f is smooth enough: continuous for gradients, with
    continuous gradients for Hessians and products; values serve any f. With H = E[Hessian f] and pairs of rows, the
    total variance on a quadratic is (d + 2) (d + 7) |H|^2 / 2 + 2 (tr H)^2 per pair from values and
    ((d + 2) |H|^2 + (tr H)^2) / 2 from gradients, whatever sigma; zero with Hessians. Products are taken with random
    signs, one for each row.

    References
    ----------
    Price (1958), A useful theorem for nonlinear devices having Gaussian inputs; Stein (1981), Estimation of the mean of
    a multivariate normal distribution.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> h = esopt.smoothed_hessian(lambda x: x[0] * x[1] + x[0]**2, np.zeros(2), n=4000)
    >>> bool((np.abs(h.mean - [[2.0, 1.0], [1.0, 0.0]]) < 4 * h.stderr).all())
    True
    """
    point = check_x0(x)
    objective = as_objective(
        "smoothed_hessian", f, point.shape, grad=grad, hess=hess, hvp=hvp, args=args, seeded=seeded
    )
    sampler = Antithetic() if sampler is None else sampler
    check_instance("sampler", sampler, Sampler, "Antithetic()")
    if baseline is not None:
        check_instance("baseline", baseline, Baseline, "LeaveOneOut()")
    if sampler.law is not Law.GAUSSIAN:
        raise ValueError(
            f"smoothed_hessian() got noise that is {sampler.law.value}; it needs rows that are N(0, I). "
            "Use a sampler with Law.GAUSSIAN."
        )
    dim, spread = point.size, fit_sigma(check_sigma(sigma), point.size)
    source, estimator, size = _second_order(objective, baseline, dim)
    if isinstance(estimator, Price) and objective.grad is None:
        objective = replace(objective, grad=_no_slope)  # the gradient of the mean is not asked for
    if n is None:
        n = -(-size // sampler.block) * sampler.block
    check_size("n", n)
    evaluator = choose_evaluator(objective, vectorized=vectorized, workers=workers, on_error=on_error)
    at, seed = point.reshape(-1), check_seed(seed)
    if isinstance(spread, np.ndarray) and spread.ndim == 2:
        found, by = _estimate(evaluator, at, spread, n, seed, estimator, sampler, curvature), np.full((dim, dim), 2.0)
    else:
        # H = 2 L^-T S L^-1, entry by entry for a diagonal L.
        sigmas = np.broadcast_to(spread, dim)
        found = _estimate(evaluator, at, np.diag(sigmas), n, seed, estimator, sampler)
        by = 2.0 / np.outer(sigmas, sigmas)
    return Hessian(
        np.asarray(found.scale) * by,
        np.asarray(found.scale_stderr) * by,
        found.blocks,
        found.value,
        found.value_stderr,
        found.evaluations,
        {**found.notes, "source": source},
    )


def _second_order(objective: Objective, baseline: Baseline | None, dim: int) -> tuple[str, Estimator, int]:
    """Return what the Hessian comes from, its estimator, and the number of rows for an error of about a quarter."""
    if baseline is not None:
        return "values", Score(baseline, with_scale=True), max(128, 20 * (dim + 2) * (dim + 7))
    if objective.hess is not None:
        return "Hessians", Price(), 64
    if objective.hvp is not None:
        return "Hessian-vector products", Price(Rademacher()), max(128, 20 * (dim + 2))
    if objective.grad is not None:
        return "gradients", Bonnet(with_scale=True), max(128, 20 * (dim + 2))
    return "values", Score(with_scale=True), max(128, 20 * (dim + 2) * (dim + 7))


def _no_slope(x: Array, *args: Any) -> Array:
    """Return a zero for every entry of one x, or of a batch of them."""
    return np.zeros_like(x)


def smoothed_value(f: Callable[..., Any] | Objective, x: ArrayLike, **settings: Any) -> Estimate:
    """Estimate J(x) = E f(x + sigma * eps) with its standard error; settings as in :func:`smoothed_gradient`.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> round(esopt.smoothed_value(lambda x: (x**2).sum(), np.zeros(4), sigma=0.5, n=4000).value, 1)
    1.0
    """
    gradient = smoothed_gradient(f, x, **settings)
    return Estimate(gradient.value, gradient.value_stderr)


def check_size(name: str, size: object) -> None:
    """Raise unless ``size`` is a positive integer.

    Raises
    ------
    TypeError, ValueError  for anything else.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, got {size!r}. Pass for example {name}=256.")
    if size < 1:
        raise ValueError(f"{name} must be at least 1, got {size}. Pass for example {name}=256.")


def _estimate(
    evaluator: Evaluator,
    point: Array,
    scale: Scale,
    n: int,
    seed: int,
    estimator: Estimator,
    sampler: Sampler,
    by: Callable[[Population, Evals, Estimator, State], Gradient] | None = None,
) -> Gradient:
    """Return the estimator's estimate, or with ``by`` what that makes of its population."""
    state = estimator.init(point.size)
    population = estimator.prepare(Population(point, scale, sampler.noise(Key(seed), n, point.size)), state)
    try:
        evals, _ = evaluator.evaluate(population, evaluator.init())
    finally:
        evaluator.close()
    return estimator.estimate(population, evals, state)[0] if by is None else by(population, evals, estimator, state)
