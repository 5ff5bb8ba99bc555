"""The smoothed function itself: its value and gradient at a point, for any function, with error bars.

J(x) = E f(x + sigma * eps), eps ~ N(0, I).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._parts import check_instance
from .estimators.bonnet import Bonnet
from .estimators.score import Score
from .loop import choose_evaluator
from .noise import Array, Key, Law, check_seed
from .objective import Objective
from .optimizer import check_x0
from .protocols import Baseline, Estimator, Evaluator, Sampler
from .records import Gradient, Population
from .samplers.antithetic import Antithetic
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
    Gradient  ``mean`` (d,) with ``mean_stderr``, ``scale`` with ``scale_stderr`` (dJ/dsigma for a number,
    dJ/dlog sigma_i per coordinate), ``value`` of J with ``value_stderr``, ``snr``, ``blocks``, ``evaluations``.

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
    objective = (
        f if isinstance(f, Objective) else Objective(f, grad, args, seeded, None if point.ndim == 1 else point.shape)
    )
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
    return _estimate(evaluator, point.reshape(-1), sigma, n, check_seed(seed), estimator, sampler)


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
    sigma: float | Array,
    n: int,
    seed: int,
    estimator: Estimator,
    sampler: Sampler,
) -> Gradient:
    scale = fit_sigma(check_sigma(sigma), point.size)
    state = estimator.init(point.size)
    population = estimator.prepare(Population(point, scale, sampler.noise(Key(seed), n, point.size)), state)
    try:
        evals, _ = evaluator.evaluate(population, evaluator.init())
    finally:
        evaluator.close()
    return estimator.estimate(population, evals, state)[0]
