"""The thin mutable face of a strategy: ask and tell in one's own loop."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checkpoint
from ._constrained import mark
from ._describe import describe, differences
from ._injection import inject
from ._progress import Flight, Progress, Run, advance, advance_lap, count, pack, start, unpack
from ._told import as_array, check_constraints, check_derivatives, check_steps, check_values, count_failures, name_type
from .errors import CheckpointError
from .integers import Rounded, as_box
from .maps import Map
from .noise import check_seed
from .objective import Objective
from .protocols import State, Strategy
from .records import Evals, Info, Lap, Population
from .result import Point, Result
from .strategies._boxed import boxed
from .strategies.augmented_lagrangian import AugmentedLagrangian
from .strategies.bounded import Bounded
from .strategies.margin import Margin


def check_x0(x0: ArrayLike) -> NDArray[np.float64]:
    """Return ``x0`` as float64 in its own shape.

    Raises
    ------
    TypeError  if it does not hold real numbers.
    ValueError  if it is empty or not finite.
    """
    array = as_array(x0)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"x0 must hold real numbers, got {name_type(array)}. Pass for example x0=np.zeros(10).")
    if array.size == 0:
        raise ValueError(f"x0 is empty (shape {array.shape}). Pass at least one coordinate.")
    if not np.isfinite(array).all():
        raise ValueError(f"x0 has {int((~np.isfinite(array)).sum())} entries that are not finite. Pass a finite start.")
    return array.astype(np.float64)


def check_limit(name: str, limit: float | None, *, whole: bool = True) -> None:
    """Raise TypeError or ValueError unless ``limit`` is None or a positive number, ``whole`` or not."""
    if limit is None:
        return
    if isinstance(limit, (bool, np.bool_)) or not isinstance(limit, Real):
        raise TypeError(f"{name} must be a number, got {type(limit).__name__}. Leave it out for no limit.")
    if not limit > 0 or (whole and limit != np.inf and limit % 1 != 0):
        kind = "a positive whole number" if whole else "positive"
        raise ValueError(f"{name} must be {kind}, got {limit}. Leave it out for no limit.")


def check_target(target: float | None) -> None:
    """Raise ValueError unless ``target`` is None or a number."""
    if target is not None and (isinstance(target, bool) or not isinstance(target, Real) or target != target):
        raise ValueError(f"target must be a number, got {target!r}. Leave it out for no target.")


def _describe_objective(objective: Objective) -> str:
    about = describe(objective)
    del about["shape"]  # that of x0 is compared already
    for part in ("hess", "hvp", "jvp", "constraints", "equalities"):
        if about[part] is None:
            del about[part]  # files of earlier versions do not have them
    return json.dumps({"class": "Run", "objective": about}, allow_nan=False)


def _compare_objectives(there: str, here: str, name: str) -> None:
    lines = "\n  ".join(differences(json.loads(there), json.loads(here)))
    if lines:
        raise CheckpointError(
            f"{name} was written by a different configuration:\n  {lines}\n"
            "Build it with the saved settings, or start a new run with another file."
        )


def _name(strategy: Strategy) -> str:
    """Return the strategy's class; within bounds, constraints or on integers, in brackets that of the one inside."""
    name = type(strategy).__name__
    return f"{name}({_name(strategy.inner)})" if isinstance(strategy, (Bounded, AugmentedLagrangian, Margin)) else name


class Optimizer:
    """Ask and tell around a strategy.

    Parameters
    ----------
    strategy : for example ``GradientES(sigma=0.1)``.
    x0 : start, any shape; d is its size.
    seed : equal strategy, x0, seed and values give equal bits.
    evaluations, generations : budgets; a generation that does not fit is not begun.
    target : stop once a finite value at or below it was seen, of a feasible candidate.
    objective : what the values come from, if :meth:`load` is to refuse runs of another one.
    bounds : ``(low, high)``, numbers or arrays in the shape of x0, None for an open side; or a map, for example
        ``Reflect(low, high)``. Candidates, the mean and the result are always inside; see :class:`esopt.Bounded`.
    integer : coordinates that are whole numbers, indices of the flat x0 or a mask, in candidates, mean and result; for
        CMAES and its relatives, also in Restarts, Averaged and AugmentedLagrangian, and RandomSearch; see
        :class:`esopt.Margin`.

    Examples
    --------
    >>> import esopt
    >>> es = esopt.Optimizer(esopt.GradientES(sigma=0.1), [2.0, -1.0], seed=1, evaluations=1000)
    >>> while not es.stop():
    ...     X = es.ask()
    ...     info = es.tell([(x**2).sum() for x in X])
    >>> es.result.reason
    {'evaluations': 996.0}
    """

    def __init__(
        self,
        strategy: Strategy,
        x0: ArrayLike,
        seed: int = 0,
        *,
        evaluations: int | None = None,
        generations: int | None = None,
        target: float | None = None,
        objective: Objective | None = None,
        bounds: tuple[ArrayLike | None, ArrayLike | None] | Map | None = None,
        integer: ArrayLike | None = None,
    ) -> None:
        if isinstance(strategy, type) or not isinstance(strategy, Strategy):
            raise TypeError(
                f"strategy must have init, ask, tell and stop, got {type(strategy).__name__}. "
                "Pass for example GradientES()."
            )
        begin = check_x0(x0)
        box = as_box(bounds, integer, begin.shape)
        if box is not None:
            strategy = boxed(strategy, box)
        self.strategy = strategy
        self.shape = begin.shape
        self._limits = {"evaluations": evaluations, "generations": generations}
        for name, limit in self._limits.items():
            check_limit(name, limit)
        check_target(target)
        self._target = target
        self._configuration = {"strategy": strategy, "x0": begin, "seed": check_seed(seed)}
        flat = begin.reshape(-1)
        about = "" if objective is None else _describe_objective(objective)
        self._run = Run(
            strategy.init(flat, check_seed(seed)),
            (),
            start(box.nearest(flat) if isinstance(box, Rounded) else flat),
            about,
        )
        self.flight: Flight | None = None
        self._population: Population | None = None
        self._since = time.perf_counter()

    @property
    def state(self) -> State:
        """The strategy's state."""
        return self._run.strategy

    @property
    def progress(self) -> Progress:
        """What was used and found so far."""
        return self._run.progress

    @property
    def evaluator_state(self) -> State:
        """What the evaluator returned with the last generation; () before the first."""
        return self._run.evaluator

    @property
    def generation(self) -> int:
        """Number of generations told."""
        return self._run.progress.generation

    @property
    def seconds(self) -> float:
        """Wall-clock time until now, earlier parts of a resumed run included."""
        return self._run.progress.seconds + time.perf_counter() - self._since

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the search distribution, in the shape of x0."""
        return np.array(self._run.strategy.mean).reshape(self.shape)

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Evaluation seeds of this generation's candidates, (n,); antithetic pairs share theirs."""
        return self.population().seeds

    def population(self) -> Population:
        """Return this generation's population: a recipe that makes rows one by one or all at once."""
        if self._population is None:
            self._population = self.strategy.ask(self._run.strategy)
        return self._population

    def ask(self, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return this generation's candidates, (n, d), or (n, *shape of x0).

        Parameters
        ----------
        out : a C-contiguous float32 or float64 array of that shape, to be filled and returned.

        Notes
        -----
        Pure: asking twice gives the same rows.
        """
        population = self.population()
        shape = (len(population), *self.shape)
        if out is None:
            return population.rows().reshape(shape)
        if not isinstance(out, np.ndarray):
            raise TypeError(f"ask() got out of type {type(out).__name__}. Pass np.empty({shape}).")
        good = out.shape == shape and out.dtype in (np.float32, np.float64)
        if not (good and out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(
                f"ask() got out of shape {out.shape} and dtype {out.dtype}. "
                f"Pass a writeable C-contiguous float32 or float64 array of shape {shape}."
            )
        population.rows(out=out.reshape(len(population), -1))
        return out

    def tell(
        self,
        values: ArrayLike,
        grads: ArrayLike | None = None,
        *,
        hessians: ArrayLike | None = None,
        hvps: ArrayLike | None = None,
        jvps: ArrayLike | None = None,
        constraints: ArrayLike | None = None,
        equalities: ArrayLike | None = None,
        steps: int = 0,
    ) -> Info:
        """Learn from the values of this generation's candidates.

        Parameters
        ----------
        values : (n,)  one per row of :meth:`ask`, lower is better; nan marks a failed evaluation.
        grads : (n, d) or (n, *shape of x0)  gradients at the candidates, for estimators that use them.
        hessians : (n, d, d), or only the diagonals (n, d)  Hessians at the candidates.
        hvps, jvps : (m, d) and (m,)  products of the Hessian and of the gradient with the m directions
            ``es.population().probes.rows()``, at the first m candidates.
        constraints, equalities : (n, m) or (n,)  g and h at the candidates, g <= 0 and h = 0 being asked for, where the
            strategy is an :class:`esopt.AugmentedLagrangian`; nan and infinite ones mark a failed candidate.
        steps : cost units that the evaluations consumed.

        Returns
        -------
        Info  what was learned: ``gradient`` with its error bars, ``failures`` by kind.

        Raises
        ------
        ValueError, TypeError  for values or derivatives of the wrong number, shape or type; nothing is lost.
        EvaluationError  if nothing usable is among them; nothing is lost.
        """
        population = self.population()
        check_steps(steps)
        checked = check_values(values, population)
        told = {"grads": grads, "hessians": hessians, "hvps": hvps, "jvps": jvps}
        derivatives = check_derivatives(told, population, self.shape, type(self.strategy).__name__)
        derivatives |= check_constraints({"constraints": constraints, "equalities": equalities}, population)
        failures = count_failures(checked, derivatives)
        return self.learn(Evals(checked, **derivatives, steps=int(steps), failures=failures))

    def learn(self, evals: Evals, evaluator_state: State = (), news: tuple[Population, Evals] | None = None) -> Info:
        """Learn from what an evaluator returned for :meth:`population`; return what was learned.

        ``news`` is what was evaluated, if the candidates are not those of :meth:`population`.
        """
        progress = self._run.progress
        population, found = (self.population(), evals) if news is None else news
        state, info = self.strategy.tell(self._run.strategy, evals)
        if evals.failures:
            info = replace(info, failures={**evals.failures, **info.failures})
        now = time.perf_counter()
        after = advance(progress, population, found, info, progress.seconds + now - self._since)
        # One assignment, so that an interrupt cannot separate the state from its bookkeeping.
        self._run, self._population, self._since = Run(state, evaluator_state, after, self._run.objective), None, now
        return info

    def count(self, population: Population, evals: Evals) -> None:
        """Count evaluations that nothing is learned from; their best one may be the best of the run."""
        seconds, now = self.seconds, time.perf_counter()
        progress = count(self._run.progress, population, evals, seconds)
        self._run, self._since = replace(self._run, progress=progress), now

    def inject(self, x: ArrayLike | None = None, *, gradient: ArrayLike | None = None) -> None:
        """Put candidates from elsewhere, or the direction of a gradient, into the next population.

        Parameters
        ----------
        x : one candidate in the shape of x0, or several, (k, *shape of x0).
        gradient : a gradient of f at the mean, in the shape of x0: the candidate that lies against it joins.

        Notes
        -----
        Call it before :meth:`ask`: the population of this generation then has a row more at its end for each candidate,
        and :meth:`tell` expects their values too.

        Raises
        ------
        TypeError, ValueError  if the strategy cannot do that, or for candidates that do not fit.
        """
        state = inject(self.strategy, self._run.strategy, self.shape, x, gradient)
        self._run, self._population = replace(self._run, strategy=state), None

    def skip(self, state: State, lap: Lap) -> None:
        """Go on with what the strategy's ``run`` returned: its state after a lap, and what happened."""
        now = time.perf_counter()
        after = advance_lap(self._run.progress, lap, self._run.progress.seconds + now - self._since)
        self._run, self._population, self._since = replace(self._run, strategy=state, progress=after), None, now

    @property
    def generations_left(self) -> float:
        """How many generations the budgets leave room for, at the present size of the population."""
        progress, (evaluations, generations) = self._run.progress, self._limits.values()
        by_generation = math.inf if generations is None else generations - progress.generation
        by_evaluation = math.inf if evaluations is None else evaluations - progress.evaluations
        return float(min(by_generation, by_evaluation / len(self.population())))

    def stop(self) -> dict[str, float]:
        """Return reasons to stop with their numbers, for example ``{"evaluations": 20000.0}``; empty while running."""
        progress = self._run.progress
        reasons = dict(self.strategy.stop(self._run.strategy))
        if self._target is not None and progress.best_value <= self._target:
            reasons["target"] = progress.best_value
        evaluations, generations = self._limits["evaluations"], self._limits["generations"]
        if evaluations is not None and progress.evaluations + len(self.population()) > evaluations:
            reasons["evaluations"] = float(progress.evaluations)
        if generations is not None and progress.generation >= generations:
            reasons["generations"] = float(progress.generation)
        return reasons

    @property
    def failures(self) -> Mapping[str, int]:
        """Failed evaluations so far, by kind."""
        counts: dict[str, int] = json.loads(self._run.progress.failures)
        return counts

    @property
    def result(self) -> Result:
        """The outcome so far; ``x`` is the best point told, under constraints the best feasible one."""
        progress = self._run.progress
        best = Point(progress.best_x.reshape(self.shape).copy(), progress.best_value)
        result = Result(
            x=best.x.copy(),
            value=best.value,
            value_stderr=0.0,
            mean=self.mean,
            best=best,
            reason=self.stop(),
            evaluations=progress.evaluations,
            gradients=progress.gradients,
            generations=progress.generation,
            steps=progress.steps,
            seconds=progress.seconds,
            failures=self.failures,
            evaluator="ask/tell",
            strategy=_name(self.strategy),
        )
        return mark(result, self._run.strategy)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run to ``path`` (.npz), atomically; :meth:`load` continues it in the same bits."""
        tree, kind = pack(self._run, self.flight)
        checkpoint.save(path, tree, configuration=self._configuration, kind=kind)

    def load(self, path: str | os.PathLike[str], evaluator_state: State = ()) -> State:
        """Continue the run saved at ``path`` by an optimizer with the same strategy, x0 and seed; budgets may differ.

        Where both know their objective, it must be the same; functions are compared by name.

        Returns
        -------
        The evaluator's saved state, in the form of ``evaluator_state``.

        Raises
        ------
        CheckpointError  if the file is damaged, foreign, or of another configuration; nothing is lost.
        """
        template = replace(self._run, evaluator=evaluator_state)
        tree, kind = pack(template, self.flight)
        loaded, self.flight = unpack(checkpoint.load(path, tree, configuration=self._configuration, kind=kind))
        own = self._run.objective
        if own and loaded.objective:
            _compare_objectives(loaded.objective, own, os.path.basename(os.fspath(path)))
        self._run = replace(loaded, objective=own or loaded.objective)
        self._population, self._since = None, time.perf_counter()
        return self._run.evaluator
