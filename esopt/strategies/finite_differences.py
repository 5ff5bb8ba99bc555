"""Gradient descent with central differences, as a setting of GradientES: a baseline for comparisons."""

from __future__ import annotations

import math

import numpy as np

from ..baselines.none import NoBaseline
from ..estimators.score import Score
from ..rules.adam import Adam
from ..samplers.antithetic import Antithetic
from ..samplers.coordinates import Coordinates
from ..schedules import Schedule, check_positive
from .gradient_es import GradientES


def finite_differences(dim: int, *, step: float = 1e-4, lr: Schedule = 0.05) -> GradientES:
    """Return gradient descent with Adam on central differences: 2 d evaluations for each step.

    Parameters
    ----------
    dim : d, the size of x0.
    step : h of (f(x + h e_i) - f(x - h e_i)) / (2 h); the error is O(h^2), and that of rounding O(1e-16 |f| / h).
    lr : learning rate of Adam, a number or a schedule of the generation.

    Examples
    --------
    >>> import esopt
    >>> descent = esopt.finite_differences(5, lr=esopt.ExponentialDecay(0.1, 0.5, every=30))
    >>> result = esopt.minimize(lambda x: float(x @ x), [1.0] * 5, strategy=descent, generations=200)
    >>> bool(result.value < 1e-4), result.evaluations
    (True, 2001)
    """
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
        raise ValueError(f"dim must be the size of x0, got {dim!r}. Pass for example finite_differences(10).")
    check_positive("step", step)
    # Rows are +-sqrt(d) e_i.
    return GradientES(
        sigma=step / math.sqrt(dim),
        n=2 * int(dim),
        sampler=Antithetic(Coordinates()),
        estimator=Score(NoBaseline()),
        rule=Adam(lr),
    )
