"""``fmin``, for those who know ``cma.fmin``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..evaluators.serial import Serial
from ..noise import Array
from ..objective import Objective
from ..optimizer import Optimizer
from ..strategies.cmaes import CMAES
from ..strategies.restarts import BIPOP, IPOP, Restarts
from ..strategies.sep_cma import SepCMA

_OPTIONS = frozenset(
    {"bounds", "popsize", "seed", "ftarget", "maxfevals", "maxiter", "CMA_active", "CMA_diagonal", "CMA_stds"}
) | {"integer_variables"}


class Found(NamedTuple):
    """What ``cma.fmin`` returns, in its order, as far as ``stop``; then the optimizer itself."""

    xbest: Array
    fbest: float
    evals_best: int
    evaluations: int
    iterations: int
    xfavorite: Array
    stds: Array
    stop: Mapping[str, float]
    es: Optimizer


def fmin(
    f: Callable[..., Any],
    x0: ArrayLike,
    sigma0: float,
    options: Mapping[str, Any] | None = None,
    args: tuple[Any, ...] = (),
    *,
    restarts: int = 0,
    bipop: bool = False,
) -> Found:
    """Minimise ``f`` with CMA-ES in the manner of ``cma.fmin``; :func:`esopt.minimize` can do more.

    Parameters
    ----------
    f : ``f(x, *args)``; nan marks a failed evaluation.
    x0, sigma0 : start, and initial standard deviation.
    options : ``bounds`` ([low, high], numbers or lists), ``popsize``, ``seed`` (0 unless given: runs are repeatable),
        ``ftarget``, ``maxfevals``, ``maxiter``, ``CMA_active``, ``CMA_diagonal`` (True for sep-CMA-ES), ``CMA_stds``
        (factors of sigma0), ``integer_variables`` (indices). Names that begin with "verb" are ignored: nothing is
        printed and no file is written.
    restarts : how often to begin again, with twice the population each time, or as BIPOP.

    Returns
    -------
    Found  xbest, fbest, evals_best, evaluations, iterations, xfavorite, stds, stop, es.

    Raises
    ------
    ValueError  for other options.

    Examples
    --------
    >>> import esopt
    >>> x, fbest, *_ = esopt.fmin(lambda x: ((x - 3.0) ** 2).sum(), [0.0] * 4, 0.5)
    >>> x.round(5).tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    given = {
        name: value for name, value in (options or {}).items() if not name.startswith("verb") and value is not None
    }
    unknown = sorted(set(given) - _OPTIONS)
    if unknown:
        raise ValueError(
            f"unknown options: {', '.join(unknown)}. fmin() knows {', '.join(sorted(_OPTIONS))}; see esopt.minimize()."
        )
    sigma = sigma0 * np.asarray(given.get("CMA_stds", 1.0), np.float64)
    settings = {"sigma": sigma, "n": given.get("popsize"), "active": given.get("CMA_active", True)}
    strategy: Any = SepCMA(**settings) if given.get("CMA_diagonal", False) is True else CMAES(**settings)
    if restarts:
        strategy = Restarts(strategy, BIPOP() if bipop else IPOP(), limit=restarts)
    es = Optimizer(
        strategy,
        x0,
        given.get("seed", 0),
        evaluations=given.get("maxfevals"),
        generations=given.get("maxiter"),
        target=given.get("ftarget"),
        bounds=given.get("bounds"),
        integer=given.get("integer_variables"),
    )
    evaluator, best, evals_best = Serial(Objective(f, args=args, shape=es.shape)), np.inf, 0
    while not (stop := es.stop()):
        before, evals = es.progress.evaluations, evaluator.evaluate(es.population(), ())[0]
        es.learn(evals)
        if es.progress.best_value < best:
            best, evals_best = es.progress.best_value, before + 1 + int(np.nanargmin(evals.values))
    result, stds = es.result, es.population().deviations.reshape(es.shape)
    return Found(
        result.x, result.value, evals_best, result.evaluations, result.generations, result.mean, stds, stop, es
    )
