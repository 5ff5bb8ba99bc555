"""Simultaneous perturbation stochastic approximation, as a setting of GradientES: a baseline for comparisons."""

from __future__ import annotations

from ..baselines.none import NoBaseline
from ..estimators.score import Score
from ..rules.sgd import SGD
from ..samplers.antithetic import Antithetic
from ..samplers.rademacher import Rademacher
from ..schedules import PowerDecay
from .gradient_es import GradientES


def spsa(*, n: int = 2, sigma: float = 0.1, lr: float = 0.05, offset: float = 100.0) -> GradientES:
    """Return SPSA: two evaluations along random signs, gains that decay as Spall proposes.

    mean -= a_k (v(+) - v(-)) / (2 c_k) delta, with a_k = lr ((A + 1) / (A + 1 + k))^0.602 and
    c_k = sigma / (k + 1)^0.101.

    Parameters
    ----------
    n : rows per generation, even; more than 2 average gradients.
    sigma : perturbation of the first generation, c in the paper: about the noise of f where there is any.
    lr : gain of the first generation, a / (A + 1)^0.602 in the paper; below 2 / (L d) for a curvature L.
    offset : A, about a tenth of the generations planned.

    References
    ----------
    Spall (1998), Implementation of the simultaneous perturbation algorithm for stochastic optimization, IEEE
    Transactions on Aerospace and Electronic Systems 34, section III.

    Examples
    --------
    >>> import esopt
    >>> result = esopt.minimize(lambda x: float(x @ x), [1.0] * 5, strategy=esopt.spsa(), evaluations=1000)
    >>> bool(result.value < 1e-6)
    True
    """
    return GradientES(
        sigma=PowerDecay(sigma, 0.101),
        n=n,
        sampler=Antithetic(Rademacher()),
        estimator=Score(NoBaseline()),
        rule=SGD(PowerDecay(lr, 0.602, offset)),
    )
