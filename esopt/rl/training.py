"""train(): a linear policy for a gymnasium environment, by evolution strategies.

The centre of the search is looked at every few generations, on episodes that candidates never play; the best centre is
evaluated at the end on episodes that nothing has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..loop import minimize
from ..noise import check_seed, child
from ..protocols import Strategy
from ..records import Step
from ..result import Result
from ..strategies.named import ars
from .policy import Policy
from .rollout import CHECK, FINAL, EnvSource, Episodes, make_env, normalise

Array = NDArray[np.float64]

PATIENCE = 8
"""Checks in a row without a better mean return, after the environment's threshold was reached, that end a run."""


class Progress(NamedTuple):
    """What a callback sees after each generation; returns are sums of rewards, higher is better.

    ``mean_return`` and ``best_return`` are those of the generation's candidates, ``centre_return`` is the mean over the
    episodes of a check, nan in generations without one; ``steps`` and ``check_steps`` are what either took so far.
    """

    generation: int
    evaluations: int
    steps: int
    check_steps: int
    seconds: float
    mean_return: float
    best_return: float
    centre_return: float
    snr: float


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A trained policy and how it came about.

    Parameters
    ----------
    policy : the best centre that a check saw.
    returns : (episodes,)  its returns over the final evaluation; fewer, or none, if Ctrl-C cut that short.
    interval : 95 % t interval of their mean.
    history : one array per field of :class:`Progress`: first the start, generation 0, of which nothing but the centre's
        return is known, then one entry per generation.
    steps, check_steps, evaluation_steps : environment steps of training, of checks, of the final evaluation.
    target : the mean return that training was after; nan if there was none.
    reason : why training ended, each with its number: "target" (a check reached the given target), "settled" (checks
        beyond the environment's threshold got no better), or what :func:`esopt.minimize` says: "steps", "generations",
        "callback", "interrupted".
    result : what :func:`esopt.minimize` returned.
    """

    policy: Policy
    returns: Array
    interval: tuple[float, float]
    history: Mapping[str, Array]
    steps: int
    check_steps: int
    evaluation_steps: int
    target: float
    reason: Mapping[str, float]
    result: Result

    @property
    def mean(self) -> float:
        """Mean return over the final evaluation; nan if no episode of it was played."""
        return float(self.returns.mean()) if self.returns.size else np.nan


def train(
    env: EnvSource,
    *,
    strategy: Strategy | None = None,
    policy: Policy | None = None,
    steps: int | None = None,
    generations: int | None = None,
    target: float | None = None,
    workers: int = 1,
    episodes: int = 100,
    check_every: int = 5,
    check_episodes: int = 20,
    seed: int = 0,
    callback: Callable[[Progress], Any] | None = None,
) -> TrainResult:
    """Train a linear policy and evaluate it.

    Parameters
    ----------
    env : a gymnasium id, or a function that makes an environment.
    strategy : None for ``esopt.ars(n=16, sigma=1.0, lr=1.0)``.
    policy : where to start; None for zeros, with the observations normalised as :func:`normalise` finds them.
    steps, generations : budgets; steps of :func:`normalise` count, a generation that is begun is finished. Without
        either, as many steps as 1000 episodes of the longest length, or 1,000,000 where episodes have no limit.
    target : stop when the mean return of a check reaches it. None stops where the environment's own threshold is
        reached and the next 8 checks bring nothing better; without a threshold the budget decides.
    workers : processes that play; with 1, this one.
    episodes : of the final evaluation.
    check_every : generations from one check to the next; the first two are of the start and after generation 1.
    check_episodes : episodes of a check.
    seed : in [0, 2**64); equal arguments and seed give equal bits, whatever the number of workers.
    callback : called with a :class:`Progress` after each generation; stops the run by raising StopIteration.

    Returns
    -------
    TrainResult  with the policy and its returns. Ctrl-C while training ends it, and goes on to the final evaluation;
    Ctrl-C there ends that. What was found is returned.

    Raises
    ------
    ValueError, TypeError  for spaces that a policy does not serve, and arguments that do not fit.
    gymnasium.error.Error  for an unknown id.
    """
    _check_counts(workers=workers, episodes=episodes, check_every=check_every, check_episodes=check_episodes)
    seed = check_seed(seed)
    world = make_env(env)
    try:
        spec, start, used = world.spec, policy, 0
        if start is None:
            start, used = normalise(Policy.linear(world), env, seed=seed)
    finally:
        world.close()
    if steps is None and generations is None:
        steps = 1000 * (getattr(spec, "max_episode_steps", None) or 1000)
    threshold = getattr(spec, "reward_threshold", None)
    aim = _Aim(threshold, PATIENCE) if target is None else _Aim(target, 0)
    objective = Episodes(env, start)
    watch = _Watch(Episodes(env, start, check_episodes, part=CHECK), aim, check_every, seed, used, callback)
    try:
        watch.look(start.parameters)
        result = minimize(
            objective,
            start.parameters,
            strategy=ars(n=16, sigma=1.0, lr=1.0) if strategy is None else strategy,
            seeded=True,
            workers=None if workers == 1 else workers,
            generations=generations,
            steps=None if steps is None else max(1, steps - used),
            seed=seed,
            callback=watch,
            final_evaluations=1,
        )
        best = watch.conclude(result)
    finally:
        objective.close()
        watch.centre.close()
    return _finish(env, episodes, seed, best, watch, result)


def t_interval(sample: Array) -> tuple[float, float]:
    """Return the 95 % t interval of the mean of ``sample`` (n,); (nan, nan) for a single number."""
    from scipy.special import stdtrit

    if sample.size < 2:
        return np.nan, np.nan
    mean = float(sample.mean())
    half = float(stdtrit(sample.size - 1, 0.975) * sample.std(ddof=1) / np.sqrt(sample.size))
    return mean - half, mean + half


@dataclass(frozen=True)
class _Aim:
    """A mean return to reach, if any, and how many checks in a row without anything better then end the run."""

    target: float | None
    patience: int


class _Watch:
    """The callback of the run: keeps the history, looks at the centre, remembers the best one, says when to stop."""

    def __init__(
        self,
        centre: Episodes,
        aim: _Aim,
        every: int,
        seed: int,
        used: int,
        callback: Callable[[Progress], Any] | None,
    ) -> None:
        self.centre, self.aim, self.every, self.seed, self.callback = centre, aim, every, seed, callback
        self.rows: list[Progress] = []
        self.steps, self.check_steps = used, 0
        self.best, self.best_return, self.since = centre.policy.parameters, -np.inf, 0
        self.reason: dict[str, float] = {}
        self._used = used

    def look(self, start: Array) -> None:
        """Check the start, which is where the learning curve begins."""
        unknown = np.nan
        centre = self._check(start, 0)
        self.rows.append(Progress(0, 0, self.steps, self.check_steps, 0.0, unknown, unknown, centre, unknown))

    def __call__(self, step: Step) -> None:
        self.steps = self._used + step.steps
        due = step.generation % self.every == 1 % self.every
        centre = self._check(step.mean, step.generation) if due else np.nan
        finite = step.values[np.isfinite(step.values)]
        row = Progress(
            step.generation,
            step.evaluations,
            self.steps,
            self.check_steps,
            step.seconds,
            -step.value,
            -float(finite.min()) if finite.size else np.nan,
            centre,
            np.nan if step.info.gradient is None else step.info.gradient.snr,
        )
        self.rows.append(row)
        if self.callback is not None:
            self.callback(row)
        reached = self.aim.target is not None and self.best_return >= self.aim.target
        if reached and self.since >= self.aim.patience:
            self.reason = {"settled" if self.aim.patience else "target": self.best_return}
            raise StopIteration

    def conclude(self, result: Result) -> Policy:
        """Return the best centre; the last one counts too, unless the user is waiting."""
        if np.isnan(self.rows[-1].centre_return) and "interrupted" not in result.reason:
            try:
                centre = self._check(result.mean, result.generations)
                self.rows[-1] = self.rows[-1]._replace(centre_return=centre, check_steps=self.check_steps)
            except KeyboardInterrupt:
                self.reason = {**(self.reason or result.reason), "interrupted": float(result.generations)}
        return self.centre.policy.with_parameters(self.best)

    def _check(self, mean: Array, generation: int) -> float:
        returns, steps = self.centre.returns(mean, child(self.seed, generation))
        self.check_steps += steps
        found = float(returns.mean())
        self.since = 0 if found > self.best_return else self.since + 1
        if found >= self.best_return:
            self.best, self.best_return = np.array(mean, np.float64), found
        return found


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise ValueError(f"{name} must be a positive whole number, got {count!r}. Pass for example {name}=10.")


def _finish(env: EnvSource, episodes: int, seed: int, policy: Policy, watch: _Watch, result: Result) -> TrainResult:
    """Evaluate the policy on episodes that nothing has seen, and put everything together."""
    returns, evaluation_steps = _evaluate(env, episodes, seed, policy)
    about = {
        "env": env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__),
        "strategy": result.strategy,
        "seed": seed,
        "generations": result.generations,
        "steps": watch.steps,
        "episodes": returns.size,
        "mean_return": float(returns.mean()) if returns.size else None,
    }
    columns = zip(*watch.rows, strict=True)
    history = {name: np.array(column, np.float64) for name, column in zip(Progress._fields, columns, strict=True)}
    return TrainResult(
        replace(policy, about=about),
        returns,
        t_interval(returns),
        history,
        watch.steps,
        watch.check_steps,
        evaluation_steps,
        np.nan if watch.aim.target is None else watch.aim.target,
        watch.reason or result.reason,
        result,
    )


def _evaluate(env: EnvSource, episodes: int, seed: int, policy: Policy) -> tuple[Array, int]:
    """Return what :func:`evaluate` does, or what there is of it when Ctrl-C comes: a trained policy is not lost."""
    objective = Episodes(env, policy, episodes, part=FINAL)
    returns, total = [], 0
    try:
        for found, steps in objective.played(policy.parameters, child(seed, 0)):
            returns.append(found)
            total += steps
    except KeyboardInterrupt:
        pass
    finally:
        objective.close()
    return np.array(returns, np.float64), total
