"""``fmin``, for those who know ``cma.fmin``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._told import check_limit
from ..evaluators.serial import Serial
from ..noise import Array
from ..objective import Objective
from ..optimizer import Optimizer
from ..strategies.cmaes import CMAES
from ..strategies.restarts import BIPOP, IPOP, Restarts
from ..strategies.sep_cma import SepCMA

_RENAMED = {"popsize": "n", "CMA_active": "active", "tolfun": "tolfun"}
_OPTIONS = frozenset(
    {"bounds", "seed", "ftarget", "maxfevals", "maxiter", "CMA_diagonal", "CMA_stds", "tolx", *_RENAMED}
)
_OPTIONS |= {"integer_variables", "timeout"}


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
    objective_function: Callable[..., Any],
    x0: ArrayLike,
    sigma0: float,
    options: Mapping[str, Any] | None = None,
    args: tuple[Any, ...] = (),
    *,
    restarts: int = 0,
    bipop: bool = False,
    callback: Callable[[Optimizer], Any] | None = None,
    on_error: str = "raise",
    **others: Any,
) -> Found:
    """Minimise a function with CMA-ES in the manner of ``cma.fmin``; :func:`esopt.minimize` can do more.

    Parameters
    ----------
    objective_function : f of ``f(x, *args)``; nan marks a failed evaluation.
    x0, sigma0 : start, and initial standard deviation.
    options : ``bounds`` ([low, high], numbers or lists), ``popsize``, ``seed`` (0 unless given: runs are repeatable),
        ``ftarget``, ``maxfevals``, ``maxiter``, ``timeout`` (seconds, looked at after each generation), ``CMA_active``,
        ``CMA_diagonal`` (True for sep-CMA-ES), ``CMA_stds`` (factors of sigma0), ``integer_variables`` (indices),
        ``tolfun``, ``tolx`` (in the units of x). Names that begin with "verb" are ignored: nothing is printed and no
        file is written.
    restarts : how often to begin again, with twice the population each time, or as BIPOP.
    callback : called with the :class:`esopt.Optimizer` after each generation.
    on_error : "raise", "nan" or "retry(k)" where the function raises, as in :func:`esopt.minimize`.
    others : refused in words.

    Returns
    -------
    Found  xbest, fbest, evals_best, evaluations, iterations, xfavorite, stds, stop, es.

    Raises
    ------
    ValueError  for other options.
    TypeError  for other arguments of ``cma.fmin``.

    Examples
    --------
    >>> import esopt
    >>> x, fbest, *_ = esopt.fmin(lambda x: ((x - 3.0) ** 2).sum(), [0.0] * 4, 0.5)
    >>> x.round(5).tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    if others:
        raise TypeError(
            f"fmin() got {', '.join(others)}, which it does not have. Use esopt.minimize(), with vectorized=True, "
            "workers= or noisy=True for functions of many x, of more processes, or with noise."
        )
    given = {
        name: value for name, value in (options or {}).items() if not name.startswith("verb") and value is not None
    }
    unknown = sorted(set(given) - _OPTIONS)
    if unknown:
        raise ValueError(
            f"unknown options: {', '.join(unknown)}. fmin() knows {', '.join(sorted(_OPTIONS))}; see esopt.minimize()."
        )
    diagonal = given.get("CMA_diagonal", False)
    if not isinstance(diagonal, (bool, np.bool_)) and diagonal != 0:
        raise ValueError(
            f"fmin() got CMA_diagonal={diagonal!r}, but a covariance that is diagonal for some generations is not "
            "there. Pass True for a diagonal one (SepCMA), or leave it out."
        )
    check_limit("timeout", given.get("timeout"), whole=False)
    sigma = sigma0 * np.asarray(given.get("CMA_stds", 1.0), np.float64)
    settings = {"sigma": sigma, **{here: given[name] for name, here in _RENAMED.items() if name in given}}
    if "tolx" in given:
        settings["tolx"] = given["tolx"] / float(np.sqrt(np.mean(np.square(sigma))))
    strategy: Any = SepCMA(**settings) if diagonal else CMAES(**settings)
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
    evaluator = Serial(Objective(objective_function, args=args, shape=es.shape), on_error=on_error)
    evals_best, stop = _run(es, evaluator, callback, given.get("timeout", np.inf))
    result, stds = es.result, es.population().deviations.reshape(es.shape)
    return Found(
        result.x, result.value, evals_best, result.evaluations, result.generations, result.mean, stds, stop, es
    )


def _run(
    es: Optimizer, evaluator: Serial, callback: Callable[[Optimizer], Any] | None, timeout: float
) -> tuple[int, dict[str, float]]:
    """Run generations until there is a reason to stop; return the number of the best evaluation, and the reasons."""
    best, evals_best = np.inf, 0
    while not (stop := es.stop()):
        before, evals = es.progress.evaluations, evaluator.evaluate(es.population(), ())[0]
        es.learn(evals)
        if es.progress.best_value < best:
            best, evals_best = es.progress.best_value, before + 1 + int(np.nanargmin(evals.values))
        if callback is not None:
            callback(es)
        if es.seconds >= timeout:
            return evals_best, {**es.stop(), "timeout": es.seconds}
    return evals_best, stop
