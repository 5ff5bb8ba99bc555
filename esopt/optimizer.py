"""The thin mutable face of a strategy: ask and tell in one's own loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _late, _progress, _told, checkpoint
from ._injection import inject
from ._open import NO_PAST, NOTHING, Gathering, thaw, without_half_pairs
from ._parts import check_flags
from ._progress import Flight, Progress, Run
from ._summary import summarise
from .errors import EvaluationError
from .integers import Rounded, as_box
from .maps import Map
from .noise import check_seed
from .objective import Objective
from .protocols import State, Strategy
from .records import Evals, Info, Lap, Part, Population
from .result import Result
from .strategies._boxed import boxed


class Optimizer:
    """Ask and tell around a strategy.

    Parameters
    ----------
    strategy : for example ``GradientES(sigma=0.1)``.
    x0 : start, any shape; d is its size.
    seed : equal strategy, x0, seed and values give equal bits.
    evaluations, generations : budgets; a generation that does not fit is not begun.
    target : stop once a value at or below it was seen, of a feasible candidate; if ``noisy``, once the last
        generation's estimate is.
    noisy : values of one x differ: ``result`` is then the mean, with the last generation's estimate of its value.
    objective : what the values come from, if :meth:`load` is to refuse runs of another one.
    bounds : ``(low, high)``, numbers or arrays in the shape of x0, None for an open side; or a map, for example
        ``Reflect(low, high)``. Candidates, the mean and the result are always inside; see :class:`esopt.Bounded`.
    integer : coordinates that are whole numbers, indices of the flat x0 or a mask, in candidates, mean and result; for
        CMAES and its relatives, also in Restarts, Averaged and AugmentedLagrangian, and RandomSearch; see
        :class:`esopt.Margin`.
    stale : what becomes of values that come after their generation was closed: "refuse" them, or "reweight", use them
        with importance weights in the next update, for a :class:`esopt.GradientES` with raw shaping.

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
        noisy: bool = False,
        objective: Objective | None = None,
        bounds: tuple[ArrayLike | None, ArrayLike | None] | Map | None = None,
        integer: ArrayLike | None = None,
        stale: Literal["refuse", "reweight"] = "refuse",
    ) -> None:
        _told.check_strategy(strategy)
        begin = _told.check_x0(x0)
        box = as_box(bounds, integer, begin.shape)
        strategy = strategy if box is None else boxed(strategy, box)
        self.strategy, self.shape = strategy, begin.shape
        _told.check_budgets(evaluations, generations, target)
        self._limits = {"evaluations": evaluations, "generations": generations}
        check_flags(noisy=noisy)
        self._target, self._noisy = target, noisy
        own = {} if stale == "refuse" else {"stale": stale}
        self._configuration = {"strategy": strategy, "x0": begin, "seed": check_seed(seed), **own}
        flat = begin.reshape(-1)
        about = "" if objective is None else _progress.describe_objective(objective)
        first = box.nearest(flat) if isinstance(box, Rounded) else flat
        self._run = Run(strategy.init(flat, check_seed(seed)), (), _progress.start(first), about)
        self._stale = stale
        _late.check_policy(stale, strategy, self._run.strategy)
        self.flight: Flight | None = None
        self._population: Population | None = None
        self._asked: Population | None = None
        self._open: Gathering | None = None
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
        """Return this generation's candidates, (n, d), or (n, *shape of x0); asking twice gives the same rows.

        Parameters
        ----------
        out : a C-contiguous float32 or float64 array of that shape, to be filled and returned.
        """
        population = self._asked = self.population()
        shape = (len(population), *self.shape)
        if out is None:
            return population.rows().reshape(shape)
        _told.check_out(out, shape)
        population.rows(out=out.reshape(len(population), -1))
        return out

    @property
    def pending(self) -> NDArray[np.int64]:
        """Rows of this generation that were not told yet, (m,)."""
        return np.flatnonzero(~(self._open or Gathering(self.population())).told)

    @overload
    def tell(
        self, values: ArrayLike, grads: ArrayLike | None = None, *, hessians: ArrayLike | None = None,
        hvps: ArrayLike | None = None, jvps: ArrayLike | None = None, constraints: ArrayLike | None = None,
        equalities: ArrayLike | None = None, steps: int = 0, rows: None = None, generation: None = None,
    ) -> Info: ...  # fmt: skip
    @overload
    def tell(
        self, values: ArrayLike, grads: ArrayLike | None = None, *, hessians: ArrayLike | None = None,
        hvps: ArrayLike | None = None, jvps: ArrayLike | None = None, constraints: ArrayLike | None = None,
        equalities: ArrayLike | None = None, steps: int = 0, rows: ArrayLike | None = None,
        generation: int | None = None,
    ) -> Info | None: ...  # fmt: skip
    def tell(
        self, values: ArrayLike, grads: ArrayLike | None = None, *, hessians: ArrayLike | None = None,
        hvps: ArrayLike | None = None, jvps: ArrayLike | None = None, constraints: ArrayLike | None = None,
        equalities: ArrayLike | None = None, steps: int = 0, rows: ArrayLike | None = None,
        generation: int | None = None,
    ) -> Info | None:  # fmt: skip
        """Learn from the values of this generation's candidates, told at once or in pieces.

        Parameters
        ----------
        values : (n,)  one per row of :meth:`ask`, or (m,) per row of ``rows``, lower is better; nan marks a failed
            evaluation.
        grads : (n, d) or (n, *shape of x0)  gradients at the candidates, for estimators that use them.
        hessians : (n, d, d), or only the diagonals (n, d)  Hessians at the candidates.
        hvps, jvps : (m, d) and (m,)  products of the Hessian and of the gradient with the m directions
            ``es.population().probes.rows()``, at the first m candidates.
        constraints, equalities : (n, m) or (n,)  g and h at the candidates, g <= 0 and h = 0 being asked for, where the
            strategy is an :class:`esopt.AugmentedLagrangian`; nan and infinite ones mark a failed candidate.
        steps : cost units that the evaluations consumed.
        rows : (m,)  which candidates these are, in any order; None for all. What is missing is in :attr:`pending`.
        generation : when they were asked for, :attr:`generation` as it was then; None for now. Of an earlier one, only
            with ``stale="reweight"`` are values of use.

        Returns
        -------
        Info  what was learned: ``gradient`` with its error bars, ``failures`` by kind. None while rows are missing.

        Raises
        ------
        ValueError, TypeError  for values or derivatives of the wrong number, shape or type; nothing is lost.
        EvaluationError  if nothing usable is among them; nothing is lost.
        """
        told = _told.given(grads, hessians, hvps, jvps, constraints, equalities)
        if generation is not None and generation != self.generation:
            _late.refuse(generation, self.generation, self._stale, told)
            self._run = _late.take(self._run, self.strategy, values, rows, generation, steps)
            return None
        population, name = self.population(), type(self.strategy).__name__
        if rows is None and self._open is None:
            try:
                return self.learn(_told.read(values, told, steps, population, self.shape, name))
            except EvaluationError:
                self._asked = None  # inject() may change what failed as a whole
                raise
        gathering = self._open or Gathering(population)
        chosen = _told.check_rows(rows, gathering.told, self.generation)
        part = Part(chosen, _told.read(values, told, steps, population, self.shape, name, chosen))
        gathering.check(part)
        if chosen.size:
            self.collect(part)
        if self.pending.size:
            return None
        try:
            evals = self.collected()
            _told.check_some_usable(evals.values, self.generation)
            return self.learn(evals)
        except BaseException:
            if self._open is not None:
                self._open.take_back(part)
                self._asked = None
            raise

    def close_generation(self, min_fraction: float = 0.5) -> Info:
        """Learn from the values that were told, without waiting for the others.

        Parameters
        ----------
        min_fraction : share of the candidates, in (0, 1], that must have been told.

        Returns
        -------
        Info  as of :meth:`tell`; ``failures["late"]`` counts the candidates without a value.

        Notes
        -----
        A candidate without a value counts as a failed one, and so does the mirror image of one: where values are ranked
        both come last, elsewhere their whole block is left out. This is no bias where lateness does not depend on x.

        Raises
        ------
        ValueError  if fewer were told; nothing is lost.
        EvaluationError  if nothing usable is among them; nothing is lost.
        """
        told = (self._open or Gathering(self.population())).told.copy()
        _told.check_fraction(min_fraction, told, self.generation)
        evals = self.collected()
        _told.check_some_usable(evals.values, self.generation)
        return self.learn(_late.known(evals, told), self._run.evaluator, told)

    def collect(self, part: Part) -> None:
        """Keep what is known of some candidates, without learning from it yet."""
        self._open = self._open or Gathering(self.population())
        self._open.parts.append(part)

    def collected(self) -> Evals:
        """Return what is known of this generation's candidates; nan where nothing is."""
        return (self._open or Gathering(self.population())).evals()

    def learn(
        self, evals: Evals, evaluator_state: State = (), told: NDArray[np.bool_] | None = None,
        news: tuple[Population, Evals] | None = None,
    ) -> Info:  # fmt: skip
        """Learn from what an evaluator found about :meth:`population`, of the rows ``told`` (n,), None for all.

        ``news`` is what was evaluated, if the candidates are not those of :meth:`population`.

        Raises
        ------
        ValueError  for evaluations of more rows, unless the strategy is one that ``grows``; or of fewer.
        """
        run, past = self._run, self._run.past
        population, found = news or (_told.evaluated(self.population(), evals, self.strategy), evals)
        used = evals if told is None else without_half_pairs(evals, told, population)
        if past.generation.size or past.lost:
            used, past = _late.join(used, past, population, self.strategy, run.strategy)
        state, info = self.strategy.tell(run.strategy, used)
        if used.failures:
            info = replace(info, failures={**used.failures, **info.failures})
        if told is not None and self._stale == "reweight":
            past = _late.close(past, population, used, evals, told)
        now = time.perf_counter()
        after = _progress.advance(run.progress, population, found, info, run.progress.seconds + now - self._since)
        run = Run(state, evaluator_state, after, run.objective, past=past)
        # One assignment, so that an interrupt cannot separate the state from its bookkeeping.
        self._run, self._population, self._open, self._since = run, None, None, now
        return info

    def count(self, population: Population, evals: Evals) -> None:
        """Count evaluations that nothing is learned from; their best one may be the best of the run."""
        progress = _progress.count(self._run.progress, population, evals, self.seconds)
        self._run, self._since = replace(self._run, progress=progress), time.perf_counter()

    def inject(self, x: ArrayLike | None = None, *, gradient: ArrayLike | None = None) -> None:
        """Put candidates from elsewhere, or the direction of a gradient, into the next population.

        Parameters
        ----------
        x : one candidate in the shape of x0, or several, (k, *shape of x0).
        gradient : a gradient of f at the mean, in the shape of x0: the candidate that lies against it joins.

        Notes
        -----
        Call it before :meth:`ask`: the population of this generation then has a row more at its end for each candidate,
        and :meth:`tell` expects their values too. After one that failed as a whole, call it and ask again.

        Raises
        ------
        TypeError, ValueError  if the strategy cannot do that, or for candidates that do not fit.
        """
        if (self._open is not None and self._open.parts) or self._asked is self._population is not None:
            at = f"after ask() or tell() of generation {self.generation}"
            raise ValueError(f"inject() got candidates {at}, whose size is settled. Call it before ask().")
        state = inject(self.strategy, self._run.strategy, self.shape, x, gradient)
        self._run, self._population, self._open = replace(self._run, strategy=state), None, None

    def skip(self, state: State, lap: Lap) -> None:
        """Go on with what the strategy's ``run`` returned: its state after a lap, and what happened."""
        now = time.perf_counter()
        after = _progress.advance_lap(self._run.progress, lap, self._run.progress.seconds + now - self._since)
        run = replace(self._run, strategy=state, progress=after)
        self._run, self._population, self._open, self._since = run, None, None, now

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
        found = progress.value if self._noisy else progress.best_value
        if self._target is not None and found <= self._target:
            reasons["target"] = found
        evaluations, generations = self._limits["evaluations"], self._limits["generations"]
        if evaluations is not None and progress.evaluations + len(self.population()) > evaluations:
            reasons["evaluations"] = float(progress.evaluations)
        if generations is not None and progress.generation >= generations:
            reasons["generations"] = float(progress.generation)
        return reasons

    @property
    def failures(self) -> Mapping[str, int]:
        """Failed evaluations so far, by kind."""
        return _progress.failures_of(self._run.progress)

    @property
    def result(self) -> Result:
        """The outcome so far; ``x`` is the best point told, under constraints the best feasible one; or the mean."""
        return summarise(self._run, self.strategy, self.shape, self.stop(), noisy=self._noisy)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run and the values of an open generation to ``path`` (.npz), atomically; keep ``PATH.previous``."""
        run = self._run if self._open is None else _progress.freeze(self._run, self._open, self.seconds)
        tree, kind = _progress.pack(run, self.flight)
        checkpoint.save(path, tree, configuration=self._configuration, kind=kind, previous=True)

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
        template = replace(self._run, evaluator=evaluator_state, past=NO_PAST)
        tree, kind = _progress.pack(template, self.flight)
        tree = checkpoint.load(path, tree, configuration=self._configuration, kind=kind, added=("open", "past"))
        loaded, self.flight = _progress.unpack(tree)
        own, name = self._run.objective, os.path.basename(os.fspath(path))
        if own and loaded.objective:
            _progress.compare_objectives(loaded.objective, own, name)
        _late.check_past(loaded.past, loaded.strategy, name)
        told = thaw(loaded.open, self.strategy.ask(loaded.strategy), name)
        self._run = replace(loaded, objective=own or loaded.objective, open=NOTHING)
        self._population, self._open, self._since = None, told, time.perf_counter()
        return self._run.evaluator
