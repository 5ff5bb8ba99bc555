"""minimize(): the only loop. Budgets, targets, callbacks, checkpoints; everything else is in the parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._async import Flights, check_mode
from ._constrained import as_constraints
from ._defaults import choose_strategy
from ._generations import run
from ._limits import Limits, count_final
from ._parts import check_flags
from ._told import check_x0
from .evaluators.serial import Serial
from .integers import as_box
from .maps import Map
from .noise import Array
from .objective import DERIVATIVES, Objective, as_objective
from .optimizer import Optimizer
from .protocols import Evaluator, Strategy
from .records import Step
from .result import Result


def choose_evaluator(objective: Objective, *, vectorized: bool, workers: int | None, **failures: Any) -> Evaluator:
    """Return Vectorized or Joblib if asked for, Compiled for a numba function (and gradient), else Serial.

    The function is never called to find out. ``failures``: on_error, and max_failures and timeout if there are any.
    """
    functions = (objective.f,) if objective.grad is None else (objective.f, objective.grad)
    compiled = all(hasattr(f, "py_func") and type(f).__module__.partition(".")[0] == "numba" for f in functions)
    if vectorized and workers is not None:
        raise ValueError("vectorized=True and workers= exclude each other. Give one of them.")
    if workers is not None:
        from .evaluators.joblib import Joblib

        return Joblib(objective, workers=workers, **failures)
    if failures.get("timeout") is not None:
        raise ValueError(
            f"minimize() got timeout={failures['timeout']!r} without workers=, but a call of f in this process cannot "
            "be ended. Pass workers=1 or more for processes, which can."
        )
    if vectorized:
        from .evaluators.vectorized import Vectorized

        return Vectorized(objective, **failures)
    if compiled:
        from .evaluators.compiled import Compiled

        return Compiled(objective, **failures)
    return Serial(objective, **failures)


def minimize(
    f: Callable[..., Any] | Objective | None,
    x0: ArrayLike,
    *,
    strategy: Strategy | None = None,
    sigma: float | Array | None = None,
    bounds: tuple[ArrayLike | None, ArrayLike | None] | Map | None = None,
    constraints: Any = None,
    equalities: Callable[..., Any] | None = None,
    integer: ArrayLike | None = None,
    grad: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    seeded: bool = False,
    noisy: bool = False,
    vectorized: bool = False,
    workers: int | None = None,
    evaluator: Evaluator | None = None,
    evaluations: int | None = None,
    generations: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    target: float | None = None,
    seed: int = 0,
    callback: Callable[[Step], Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    history: bool | str | os.PathLike[str] = False,
    on_error: str = "raise",
    max_failures: float | None = None,
    timeout: float | None = None,
    final_evaluations: int = 30,
    mode: str = "sync",
    max_lag: int = 20,
    arrivals: NDArray[np.void] | None = None,
) -> Result:
    """Minimise ``f`` from ``x0``.

    Parameters
    ----------
    f : ``f(x, *args)``, or ``f(x, seed, *args)`` if ``seeded``; x in the shape of x0. Returns a number or an
        :class:`esopt.Outcome`. A numba function is evaluated in parallel compiled code. An :class:`esopt.Objective`
        has derivatives, ``args`` and ``seeded`` of its own. None if ``evaluator`` knows the objective.
    x0 : start, any shape; d is its size.
    strategy : None for :class:`esopt.Portfolio` to d = 640 and :class:`esopt.SepCMA` to 10,000, with restarts for as
        long as the budget lasts; if f is stochastic CMAES with n = 4 d to d = 40; and
        :func:`esopt.snes` beyond. ``Result.strategy`` says which; its generations may be single candidates. With
        ``grad``, Bonnet gradients with Adam(0.05): that moves about 0.05 per generation and coordinate at most, so
        scale x to about 1, or pass ``GradientES(estimator=Bonnet(), rule=Adam(1.0))`` where the optimum may be hundreds
        away.
    sigma : initial standard deviation of the default strategy, one number or one per coordinate; None for 0.5 (with
        ``grad``, where it does not adapt: 0.1, halved every 100 generations). With two ``bounds``, at most a fifth of
        the least width. Where units differ each coordinate has its own (not with ``grad``): a fifth of its width, at
        most 0.5 or a fifth of abs(x0), 0.5 without two bounds; that is where these are more than tenfold apart.
    bounds : ``(low, high)``, numbers or arrays in the shape of x0, None or infinite for an open side; all candidates,
        the mean and ``result.x`` are inside. Or a map that says how: ``Smooth(low, high)`` is what a pair means,
        ``Reflect(low, high)`` and ``Clip(low, high)`` are others; see :class:`esopt.Bounded`.
    constraints, equalities : g and h, with the arguments of f, each returning a number or (m,): ``result.x`` is the
        best candidate with g(x) <= 0 and |h(x)| <= 1e-6, and ``target`` counts only there. An evaluation is one of f,
        g and h. scipy's NonlinearConstraint and LinearConstraint, or a list of them and of functions, do too. The
        strategy becomes an :class:`esopt.AugmentedLagrangian`; None is restarts of CMAES inside one.
    integer : coordinates that are whole numbers, indices of the flat x0 or a mask in its shape; binary with bounds 0
        and 1. The default is then :class:`esopt.CMAES` to d = 200 and SepCMA beyond, with restarts (LRACMAES, or CMAES
        with n = 100, if f is stochastic); its sigma is a quarter of the number of values of an integer between bounds,
        1 for other integers. See :class:`esopt.Margin`.
    grad : gradient of f, with the same arguments; used by :class:`esopt.Bonnet`.
    seeded : f is stochastic and takes the candidate's seed; antithetic pairs share theirs.
    noisy : f is stochastic without a seed.
    vectorized : f takes all candidates at once, (n, d) -> (n,).
    workers : number of worker processes (joblib).
    evaluator : an evaluator of one's own in place of f.
    evaluations, generations, steps, seconds : budgets. A generation that does not fit into ``evaluations`` is not
        begun; steps and seconds are known only after one. Without any budget, 1000 (d + 10) evaluations.
    target : stop once a value at or below it was seen; for a noisy objective, once the generation's estimate of J is.
    seed : equal arguments and seed give equal bits, whatever evaluates.
    callback : called with a :class:`esopt.Step` after each generation; stops the run by raising StopIteration.
    checkpoint : a file to resume from if it exists and to save to every ``checkpoint_seconds`` and at the end. It must
        be of the same f, by name, and the same args. The one before is kept as ``FILE.previous``. The evaluation of the
        final mean is not in it: a run that goes on later ends in the bits of one that never stopped, and its result may
        be above what that evaluation had found. What cannot be written is logged and counted in ``failures``, and the
        run goes on. SIGTERM and SIGHUP save the run, close the workers, and then have the effect that they would have
        had.
    history : True to keep what :meth:`esopt.Result.plot` draws, in ``result.history``; the name of a file (.npz) to
        save it there too, with every checkpoint and at the end, for ``esopt plot FILE``.
    on_error : "raise" when f raises; "nan" to mark the candidate as failed and go on; "retry(k)" to evaluate it again
        first, up to k times.
    max_failures : how many candidates of a generation may fail before :class:`esopt.EvaluationError` ends the run: a
        whole number, or a share between 0 and 1; None for any number.
    timeout : seconds for one evaluation, with ``workers``: its process is ended then, and the candidate has failed.
    final_evaluations : how often a noisy objective is evaluated at the final mean, within the budget of evaluations.
        Where the budget of steps or seconds ended the run, at most as often as in one generation. With 0 the value
        is the last generation's estimate.
    mode : "sync", or "async" to keep all ``workers`` busy where evaluations differ in time: a generation is then the
        next n results to arrive, in an order that ``result.arrivals`` keeps. No :class:`esopt.Portfolio` by default.
        Values count as exact unless ``noisy`` or ``seeded``.
    max_lag : with "async", how many generations old a candidate may be when it arrives; older ones are "outdated".
    arrivals : with "async", the arrivals of an earlier result, to be replayed bit for bit, whatever evaluates.

    Returns
    -------
    Result  ``x``, ``value``, ``reason``, ``evaluations`` ...; prints as a table. Ctrl-C returns the result so far, and
        so do a generation without any usable value, unless it is the first, and, with ``checkpoint``, SIGTERM where the
        caller's own handler returns. An exception at the final mean is counted in ``failures``.

    Raises
    ------
    ValueError, TypeError  for arguments that do not fit.
    EvaluationError  if f raises, or if the whole first generation fails; ``error.result`` is the result so far.
    CheckpointError  if ``checkpoint`` is damaged, foreign, or of another configuration.

    Examples
    --------
    >>> import esopt
    >>> result = esopt.minimize(lambda x: ((x - 3.0) ** 2).sum(), [0.0] * 10, evaluations=20_000)
    >>> bool(result.value < 1e-12)
    True
    """
    check_flags(seeded=seeded, noisy=noisy, vectorized=vectorized)
    start = check_x0(x0)
    shape = start.shape
    check_mode(mode, max_lag, arrivals, checkpoint)
    limits_of_x = as_constraints(constraints, equalities, shape, vectorized=vectorized)
    given = {"f": f, "grad": grad, "args": args, **limits_of_x._asdict()}
    ways: dict[str, Any] = {"vectorized": vectorized, "workers": workers, "on_error": on_error}
    ways |= {"max_failures": max_failures, "timeout": timeout}
    evaluator, objective = _evaluator_and_objective(evaluator, given, ways, shape, seeded=seeded)
    box = as_box(bounds, integer, shape)
    stochastic = seeded or noisy or (objective is not None and objective.seeded)
    strategy = choose_strategy(strategy, sigma, objective, box, start.reshape(-1), stochastic, mode == "async")
    if evaluations is None and generations is None and steps is None and seconds is None:
        evaluations = 1000 * (start.size + 10)
    final = count_final(final_evaluations, evaluations, stochastic=stochastic)
    limits = Limits(steps, seconds, target, stochastic, callback, checkpoint, checkpoint_seconds)
    left, own = None if evaluations is None else evaluations - final, None if checkpoint is None else objective
    budgets: dict[str, Any] = {"evaluations": left, "generations": generations, "target": target}
    es = Optimizer(strategy, x0, seed, **budgets, noisy=stochastic, objective=own, bounds=box)
    check_start(es, objective, evaluations, grad=grad is not None)
    flights = None if mode == "sync" else Flights(es, evaluator, max_lag, arrivals, exact=not stochastic)
    return run(es, evaluator, flights, limits, history, final)


def _evaluator_and_objective(
    evaluator: Evaluator | None, given: dict[str, Any], ways: dict[str, Any], shape: tuple[int, ...], *, seeded: bool
) -> tuple[Evaluator, Objective | None]:
    """Return the user's evaluator and its objective, if it shows one, or those of the arguments of :func:`minimize`."""
    if evaluator is not None:
        return evaluator, _own_objective(evaluator, {**given, **ways}, seeded=seeded)
    objective = _make_objective(seeded, shape, **given)
    return choose_evaluator(objective, **ways), objective


def _make_objective(
    seeded: bool,
    shape: tuple[int, ...],
    f: Callable[..., Any] | Objective | None,
    args: tuple[Any, ...],
    **parts: Callable[..., Any] | None,
) -> Objective:
    """Return the objective of the arguments of :func:`minimize`."""
    if f is None:
        raise TypeError("minimize() got neither f nor evaluator. Pass a function to minimise.")
    return as_objective("minimize", f, shape, args=args, seeded=seeded, **parts)


def _own_objective(evaluator: Evaluator, given: dict[str, Any], *, seeded: bool) -> Objective | None:
    """Return the objective that a user's evaluator shows, if it does; refuse arguments that it would not see."""
    if isinstance(evaluator, type) or not isinstance(evaluator, Evaluator):
        raise TypeError(
            f"evaluator must have init, evaluate and close, got {type(evaluator).__name__}. "
            "Pass for example Serial(Objective(f))."
        )
    ignored = [name for name, value in given.items() if not (value is None or value is False or value in ((), "raise"))]
    if ignored:
        raise TypeError(
            f"minimize() got both evaluator and {', '.join(ignored)}, but an evaluator has its own objective. "
            "Set them there, and pass f=None."
        )
    objective = getattr(evaluator, "objective", None)
    if not isinstance(objective, Objective):
        return None
    if seeded and not objective.seeded:
        raise ValueError(
            "minimize() got seeded=True, but the evaluator's objective takes no seed. "
            "Give the evaluator Objective(f, seeded=True), or pass noisy=True."
        )
    return objective


def check_start(es: Optimizer, objective: Objective | None, evaluations: int | None, *, grad: bool) -> None:
    """Refuse a strategy that needs more than the objective has, or less than was given as ``grad=``."""
    population = es.population()
    if grad and "grads" not in population.needs:
        raise ValueError(
            "grad= is given, but the strategy makes no use of it. "
            "Use GradientES(estimator=Bonnet()), or leave grad out."
        )
    for need, (part, words, _) in DERIVATIVES.items():
        if objective is not None and need in population.needs and getattr(objective, part) is None:
            advice = f"Pass Objective(f, {part}=...) as f."
            if part == "grad":
                advice = (
                    "Pass grad=, the gradient of f, or use values alone: Score(), Auto((Score(), Score(Linear())))."
                )
            raise ValueError(f"the strategy needs {words}. {advice}")
    if es.stop().get("evaluations") == 0.0:
        raise ValueError(
            f"evaluations={evaluations} is less than one generation of {len(population)} and the final mean. "
            "Give a larger budget, or a smaller n to the strategy."
        )
