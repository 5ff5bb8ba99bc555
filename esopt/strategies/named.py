"""Named settings of GradientES: OpenAI-ES, ARS, PGPE, SNES."""

from __future__ import annotations

from numbers import Real

import numpy as np

from ..baselines.none import NoBaseline
from ..estimators.score import Score
from ..noise import Array
from ..rules.adam import Adam
from ..rules.clipped import Clipped
from ..rules.clipup import ClipUp
from ..rules.exponential import Exponential
from ..rules.sgd import SGD
from ..samplers.antithetic import Antithetic
from ..samplers.gaussian import Gaussian
from ..schedules import check_nonnegative, check_positive
from ..shaping import CenteredRanks, RecombinationWeights, TopFraction
from .gradient_es import GradientES, Radius, check_sigma


def openai_es(
    *, n: int | None = None, sigma: float | Array = 0.02, lr: float = 0.01, weight_decay: float = 0.005
) -> GradientES:
    """Return OpenAI-ES: antithetic pairs, centred ranks, Adam, L2 decay.

    Parameters
    ----------
    n : rows per generation, even.
    sigma : standard deviation of the search.
    lr : learning rate of Adam.
    weight_decay : L2 coefficient, relative to a gradient without its factor 1 / sigma, as in the authors' code.

    References
    ----------
    Salimans, Ho, Chen, Sidor, Sutskever (2017), Evolution strategies as a scalable alternative to reinforcement
    learning, algorithm 2; defaults of the published code.
    """
    start = check_sigma(sigma)
    if isinstance(start, Radius):
        raise TypeError(
            f"openai_es() got sigma={sigma!r}. Pass a number or one per coordinate, for example sigma=0.02."
        )
    check_nonnegative("weight_decay", weight_decay)
    return GradientES(
        sigma=sigma,
        n=n,
        sampler=Antithetic(),
        shaping=CenteredRanks(),
        estimator=Score(NoBaseline()),
        rule=Adam(lr),
        weight_decay=weight_decay / float(np.max(start)),
    )


def ars(*, n: int = 16, top: int | None = None, sigma: float = 0.03, lr: float = 0.02) -> GradientES:
    """Return augmented random search: the best ``top`` antithetic pairs, divided by the deviation of their values.

    mean += lr / (top * s) * sum over the kept pairs of (v(-) - v(+)) eps, s the standard deviation of the 2 ``top``
    kept values.

    Parameters
    ----------
    n : rows per generation, even: twice the number of directions N of the paper.
    top : pairs kept, b in the paper; None keeps all.
    sigma : standard deviation of the search, nu in the paper.
    lr : step size, alpha in the paper.

    References
    ----------
    Mania, Guy, Recht (2018), algorithm 1 (V1, V1-t); V2 adds the normalisation of observations.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 2 or n % 2:
        raise ValueError(f"n must be a positive even number, got n={n!r}. Pass for example n=16.")
    check_positive("sigma", sigma)
    check_positive("lr", lr)
    kept = n // 2 if top is None else top
    if isinstance(kept, bool) or not isinstance(kept, (int, np.integer)) or not 1 <= kept <= n // 2:
        raise ValueError(
            f"top must be a whole number in [1, n / 2 = {n // 2}], got {top!r}. Leave it out to keep all pairs."
        )
    # Score averages (v+ - v-) eps / (2 sigma) over all pairs; the factor undoes 1 / (2 sigma).
    return GradientES(
        sigma=sigma,
        n=n,
        sampler=Antithetic(),
        shaping=TopFraction(kept / (n // 2)),
        estimator=Score(NoBaseline()),
        rule=SGD(2.0 * sigma * lr),
    )


def pgpe(
    *,
    n: int | None = None,
    max_speed: float = 0.15,
    radius: float | None = None,
    lr: float | None = None,
    momentum: float = 0.9,
    sigma_lr: float = 0.1,
    sigma_max_change: float = 0.2,
) -> GradientES:
    """Return PGPE with ClipUp: one sigma per coordinate, learned; centred ranks; normalised steps with a speed limit.

    Parameters
    ----------
    n : rows per generation, even.
    max_speed : longest step of the mean.
    radius : norm of the initial vector of sigmas, so that sigma_i = radius / sqrt(d); None for 15 * max_speed.
    lr : length of a normalised step; None for max_speed / 2.
    momentum : of ClipUp.
    sigma_lr : learning rate of log sigma.
    sigma_max_change : largest relative change of a sigma in one generation, in (0, 1).

    References
    ----------
    Sehnke et al. (2010), Parameter-exploring policy gradients; Toklu, Liskowski, Srivastava (2020), ClipUp, section 3
    and algorithm 1.
    """
    check_positive("max_speed", max_speed)
    if not (isinstance(sigma_max_change, Real) and 0.0 < sigma_max_change < 1.0):
        raise ValueError(
            f"sigma_max_change must be in (0, 1), got {sigma_max_change!r}: a sigma that changes by more may become "
            "negative. Pass for example 0.2."
        )
    return GradientES(
        sigma=Radius(15.0 * max_speed if radius is None else radius),
        n=n,
        sampler=Antithetic(),
        shaping=CenteredRanks(),
        estimator=Score(with_scale=True),
        rule=ClipUp(max_speed, lr, momentum),
        scale_rule=Clipped(SGD(sigma_lr), sigma_max_change),
        diagonal=True,
        natural=True,
    )


def snes(*, n: int | None = None, sigma: float | Array = 0.5, sigma_lr: float | None = None) -> GradientES:
    """Return separable natural evolution strategies: one sigma per coordinate, rank weights, natural gradient.

    mean += sigma * sum_k u_k eps_(k); sigma *= exp(sigma_lr / 2 * sum_k u_k (eps_(k)^2 - 1)), best first.

    Parameters
    ----------
    n : rows per generation; None for 4 + 3 log d.
    sigma : initial standard deviation, one or per coordinate.
    sigma_lr : learning rate; None for (3 + log d) / (5 sqrt d).

    References
    ----------
    Wierstra, Schaul, Glasmachers, Sun, Peters, Schmidhuber (2014), Natural evolution strategies, algorithm 6, table 1.
    """
    return GradientES(
        sigma=sigma,
        n=n,
        sampler=Gaussian(),
        shaping=RecombinationWeights(),
        estimator=Score(NoBaseline(), with_scale=True),
        rule=SGD(1.0),
        scale_rule=Exponential(sigma_lr),
        diagonal=True,
        natural=True,
    )
