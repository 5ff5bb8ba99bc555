"""Named settings of NaturalGaussian: xNES."""

from __future__ import annotations

from ..baselines.none import NoBaseline
from ..estimators.score import Score
from ..noise import Array
from ..samplers.gaussian import Gaussian
from ..schedules import Schedule
from ..shaping import RecombinationWeights
from .natural_gaussian import NaturalGaussian


def xnes(
    *,
    n: int | None = None,
    sigma: float | Array = 0.5,
    mean_rate: Schedule = 1.0,
    scale_rate: Schedule | None = None,
    shape_rate: Schedule | None = None,
) -> NaturalGaussian:
    """Return exponential natural evolution strategies: a full covariance, rank weights, natural gradient.

    mean += mean_rate L sum_k u_k eps_(k) and L <- L exp(1/2 G), G = sum_k u_k (eps_(k) eps_(k)^T - I), best first, with
    the trace of G times ``scale_rate`` and the rest times ``shape_rate``.

    Parameters
    ----------
    n : rows per generation; None for 4 + 3 log d.
    sigma : initial standard deviation, one or per coordinate, or a factor of the covariance.
    mean_rate : learning rate of the mean.
    scale_rate, shape_rate : None for 3 (3 + log d) / (5 d sqrt d).

    References
    ----------
    Glasmachers, Schaul, Yi, Sun, Schmidhuber (2010), Exponential natural evolution strategies, algorithm 1, table 1.

    Examples
    --------
    >>> import esopt
    >>> def f(x): return (x[0] + x[1] - 1.0) ** 2 + 100.0 * (x[0] - x[1]) ** 2
    >>> found = esopt.minimize(f, [3.0, -2.0], strategy=esopt.xnes(), evaluations=2000)
    >>> found.value < 1e-12
    True
    """
    return NaturalGaussian(
        sigma=sigma,
        full=True,
        n=n,
        sampler=Gaussian(),
        shaping=RecombinationWeights(),
        estimator=Score(NoBaseline(), with_scale=True),
        mean_rate=mean_rate,
        scale_rate=scale_rate,
        shape_rate=shape_rate,
    )
