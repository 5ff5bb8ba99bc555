"""esopt as a method of ``scipy.optimize.minimize``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._constrained import as_constraints
from .._log import log
from ..loop import minimize
from ..maps import Map, as_map
from ..noise import Array
from ..objective import Objective
from ..protocols import Strategy
from ..records import Step
from ..result import Result
from ..strategies.cmaes import CMAES
from ..strategies.named import snes
from ..strategies.portfolio import Portfolio
from ..strategies.restarts import BIPOP, Restarts
from ..strategies.sep_cma import SepCMA

_NAMED: dict[str, Callable[[Any], Any]] = {
    "cmaes": lambda sigma: CMAES(sigma=sigma),
    "sep_cma": lambda sigma: SepCMA(sigma=sigma),
    "snes": lambda sigma: snes(sigma=sigma),
    "bipop": lambda sigma: Restarts(CMAES(sigma=sigma), BIPOP()),
    "portfolio": lambda sigma: Portfolio(sigma),
}
_RENAMED = {"maxfev": "evaluations", "maxiter": "generations"}
_BUDGETS = {"evaluations": 1, "seconds": 1, "generations": 2}
"""Budgets, and scipy's status of a run that they ended."""
_OPTIONS = frozenset(
    {"evaluations", "generations", "seconds", "target", "seed", "noisy", "vectorized", "workers", "on_error"}
)


def scipy_method(strategy: Strategy | str | None = None) -> Callable[..., Any]:
    """Return a ``method=`` for :func:`scipy.optimize.minimize`.

    Parameters
    ----------
    strategy : "cmaes", "sep_cma", "snes", "bipop", "portfolio", a strategy, or None for the default of
        :func:`esopt.minimize`.

    Returns
    -------
    A function for ``method=``. It takes ``bounds``, as scipy's ``Bounds`` or pairs, ``jac``, for strategies that use
    gradients, ``constraints``, ``callback``, ``tol`` (for "cmaes" and "sep_cma": tolfun and tolx), and in ``options``:
    ``maxfev`` (or ``evaluations``), ``maxiter`` (or ``generations``), ``seconds``, ``target``, ``seed``, ``workers``,
    ``vectorized``, ``noisy``, ``on_error`` as in :func:`esopt.minimize`, and ``sigma`` for a strategy that is given by
    its name; None for 0.5, or a fifth of the width of the bounds if that is less. ``disp`` sends the result to the
    logger "esopt.run" at level INFO: nothing is printed. What scipy gets back is an ``OptimizeResult``, with the
    :class:`esopt.Result` as ``result.esopt``. Where nothing but a budget that was given ended the run, or a budget a
    run of "cmaes" or "sep_cma", success is False and status 1 (evaluations, seconds) or 2 (iterations).

    Raises
    ------
    ValueError  for other names and options, for ``hess``, and for ``tol`` where a run has no tolerance to set.

    Examples
    --------
    >>> import esopt, scipy.optimize
    >>> method = esopt.scipy_method("cmaes")
    >>> found = scipy.optimize.minimize(scipy.optimize.rosen, [0.0] * 4, method=method, bounds=[(-2.0, 0.5)] * 4)
    >>> found.x.round(3).tolist(), found.success
    ([0.5, 0.262, 0.078, 0.006], True)
    """
    if isinstance(strategy, str) and strategy not in _NAMED:
        raise ValueError(f"scipy_method() got {strategy!r}. Pass a strategy, or one of {', '.join(map(repr, _NAMED))}.")
    return _Method(strategy)


@dataclass(frozen=True)
class _Method:
    """What scipy calls."""

    strategy: Strategy | str | None

    def __call__(
        self,
        fun: Callable[..., Any],
        x0: Array,
        args: tuple[Any, ...] = (),
        *,
        jac: Callable[..., Any] | None = None,
        hess: Any = None,
        hessp: Any = None,
        bounds: Any = None,
        constraints: Any = (),
        callback: Callable[..., Any] | None = None,
        sigma: Any = None,
        tol: float | None = None,
        **options: Any,
    ) -> Any:
        from scipy.optimize import OptimizeResult

        refused = [name for name, given in (("hess", hess), ("hessp", hessp)) if given]
        if refused:
            raise ValueError(f"esopt does not use {', '.join(refused)} of scipy. Leave it out.")
        disp = options.pop("disp", False)
        settings = {_RENAMED.get(name, name): value for name, value in options.items() if value is not None}
        unknown = sorted(set(settings) - _OPTIONS)
        if unknown:
            known = ", ".join(sorted(_OPTIONS | {"sigma", "disp", *_RENAMED}))
            raise ValueError(f"unknown options: {', '.join(unknown)}. Those of esopt are {known}.")
        box = None if bounds is None else _box(bounds)
        strategy = self.strategy
        if isinstance(strategy, str):
            strategy, sigma = _NAMED[strategy](_spread(box, len(np.ravel(x0))) if sigma is None else sigma), None
        if tol is not None:
            strategy = _until(strategy, tol)
        limits = as_constraints(constraints or None, None, np.shape(x0))
        objective = Objective(fun, jac if callable(jac) else None, args, **limits._asdict())
        result = minimize(
            objective, x0, strategy=strategy, sigma=sigma, bounds=box, callback=_listener(callback), **settings
        )
        if disp:
            log.info("%s", result)
        return OptimizeResult({**dict(result), **_exhausted(result, strategy, settings), "esopt": result})


def _exhausted(result: Result, strategy: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return success and status of scipy where a budget ended the run; nothing where its end was another.

    That is no success where the budget was given, or where the strategy might have converged.
    """
    limited = bool(_BUDGETS.keys() & settings.keys()) or isinstance(strategy, (CMAES, SepCMA))
    if not (result.success and limited and result.reason and result.reason.keys() <= _BUDGETS.keys()):
        return {}
    return {"success": False, "status": min(_BUDGETS[name] for name in result.reason)}


def _until(strategy: Any, tol: float) -> Any:
    """Return the strategy that ends at ``tol``."""
    if not isinstance(strategy, (CMAES, SepCMA)):
        raise ValueError(
            f"tol={tol} is for scipy_method('cmaes') and scipy_method('sep_cma'); other runs go on until a budget or "
            "the target ends them. Leave it out, or pass options={'target': ..., 'maxfev': ...}."
        )
    return replace(strategy, tolfun=tol, tolx=tol)


def _box(bounds: Any) -> Map:
    """Return scipy's bounds, or pairs for each coordinate, as a map."""
    if isinstance(bounds, Map) or hasattr(bounds, "lb"):
        return as_map(bounds)
    low, high = zip(*bounds, strict=True)
    return as_map((low, high))


def _spread(box: Map | None, dim: int) -> Array:
    """Return a sigma for each coordinate that fits into the box."""
    width = np.full(dim, np.inf) if box is None else np.broadcast_to(np.subtract(box.high, box.low), dim)
    return np.minimum(0.5, 0.2 * width)


def _listener(callback: Callable[..., Any] | None) -> Callable[[Step], Any] | None:
    """Return scipy's callback, which takes x, or an OptimizeResult as ``intermediate_result``, as one of a Step."""
    if callback is None:
        return None
    from scipy.optimize import OptimizeResult

    modern = set(inspect.signature(callback).parameters) == {"intermediate_result"}

    def listen(step: Step) -> None:
        if modern:
            stop = callback(intermediate_result=OptimizeResult(x=step.mean, fun=step.best_value, nit=step.generation))
        else:
            stop = callback(step.mean)
        if stop is True:
            raise StopIteration

    return listen
