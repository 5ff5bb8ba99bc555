"""train(): a policy for a gymnasium environment, by evolution strategies.

The centre of the search is looked at every few generations, on episodes that candidates never play; the best centre is
evaluated at the end on episodes that nothing has seen.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._limits import Limits
from ..loop import check_start, minimize
from ..noise import check_seed
from ..optimizer import Optimizer
from ..protocols import Strategy
from ..records import Step
from ..result import Result
from ..strategies._layers import name_layers
from .checks import Check, RolloutState
from .environments import EnvSource, env_name, has_limit
from .evaluation import check_counts, final_returns, t_interval
from .normalisation import Normalise
from .outline import beginning, chosen, planned_for, shared
from .policy import Policy, Recipe
from .progress import Progress, ProgressFile
from .rollouts import Rollouts
from .run_folder import CHECKPOINT, CURVE, POLICY, PROGRESS, earlier_policy, open_folder
from .train_result import TrainResult

Array = NDArray[np.float64]

_FAR = 10
PATIENCE = 8
"""Checks in a row without a better mean return, after the environment's threshold was reached, that end a run."""


def train(
    env: EnvSource,
    *,
    strategy: Strategy | None = None,
    policy: Policy | Recipe | None = None,
    steps: int | None = None,
    episodes: int | None = None,
    generations: int | None = None,
    seconds: float | None = None,
    target: float | None = None,
    normalise: Normalise = "running",
    bonus: float = 0.0,
    action_noise: float = 0.0,
    episodes_per_candidate: int | None = 1,
    steps_per_generation: int | None = None,
    episode_steps: int | None = None,
    check_every: int | None = None,
    check_episodes: int | None = 10,
    confirm: int = 0,
    lengthening: float | None = None,
    averaging: float | None = None,
    searches: int | None = 1,
    final_episodes: int = 100,
    workers: int | None = None,
    path: str = "auto",
    on_error: str = "raise",
    episode_timeout: float | None = None,
    retries: int = 0,
    seed: int = 0,
    callback: Callable[[Progress], Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train a policy and evaluate it.

    Parameters
    ----------
    env : a gymnasium id, an EnvSpec, a function that makes an environment, or a :class:`esopt.rl.World`.
    strategy : None for ``esopt.ars(n=16, sigma=1.0, lr=1.0)``.
    policy : what to train, and where to start: ``Policy.linear()``, ``Policy.mlp(64, 64)``, a policy with parameters;
        None for a linear one.
    steps : budget of environment steps, those of checks included.
    episodes : budget of episodes of candidates.
    generations, seconds : more budgets; the first that is used up ends the run, and a generation that is begun is
        finished. Without any, as many steps as 1000 episodes of the longest length, or 1,000,000 without a limit.
    target : stop when the mean return of a check reaches it. None stops where the environment's own threshold is
        reached and the next 8 checks bring nothing better; inf, and None where there is no threshold, leave it to the
        budget.
    normalise, bonus, action_noise : see :class:`esopt.rl.Rollouts`.
    episodes_per_candidate : whose returns are averaged. None for the square root of what the budget of steps pays for,
        in units of 300 of the longest episodes: a richer budget pays for more generations and for averages alike. One
        where candidates play different episodes and for strategies that grow, since an average over candidates is one
        over episodes too, and where there is a budget of episodes.
    steps_per_generation : None for populations of n; else each grows, by whole blocks of further rows, until its
        episodes took so many steps, as in Salimans et al. (2017). For ``openai_es``, ``ars``, ``pgpe``, GradientES.
    episode_steps : cut of an episode in training and checks, besides the environment's own. Where that has none, in no
        spec and no TimeLimit, the final evaluation cuts after ten times as many. Environments that never end need it.
    check_every : generations from one check of the centre to the next; None keeps checks below a tenth of the steps.
    check_episodes : episodes of a check; None for about as many as there would be checks with ``check_every=None``, at
        least 4: a richer budget of steps pays for more checks, and for less luck in each. 10 without such a budget.
    confirm : further rounds of as many, at most, before a check counts as the best; see :class:`esopt.rl.Rollouts`.
    lengthening : episodes of candidates are at first cut after this share of the longest length, which doubles until it
        is 1, each for an equal part of the budget of steps (without one, of 1000 of the longest episodes); None for
        whole episodes from the beginning, as there are where no limit is known. See :class:`esopt.rl.Lengthening`.
    averaging : None to check the centre itself, else an average of the centres; see :class:`esopt.rl.Rollouts`.
    searches : one after another, from the start each time, with equal shares of the budget of steps; the best centre of
        all is kept. None for one per 15,000 of the longest episodes, at least one, and for two from 2,000 on if the
        strategy is a :class:`esopt.rl.Searches` of two kinds.
    final_episodes : of the final evaluation.
    workers : threads of compiled environments, None for one per core; or processes, None for none but this one (more of
        them are refused on Windows).
    path : how episodes are played: "auto", "compiled", "workers", "process" or "envpool"; see
        :func:`esopt.rl.choose_engine`.
    on_error : "raise" when an environment raises, hangs or returns nan, or "nan" to let the candidate fail and go on.
    episode_timeout, retries : see :class:`esopt.rl.Workers`.
    seed : in [0, 2**64); equal arguments and seed give equal bits, whatever the number of workers.
    callback : called with a :class:`Progress` after each generation; stops the run by raising StopIteration.
    checkpoint : a file to resume from if it exists, and to save to every ``checkpoint_seconds`` and at the end. A run
        that was killed and resumed ends in the bits of one that was not.
    out : a folder for policy.npz, progress.csv, curve.png (with matplotlib) and checkpoint.npz. A new run replaces
        what was there: what another run left there is kept as checkpoint.old.npz, policy.old.npz and so on (old2
        where that name is taken), and a warning says so. One run at a time: another one is refused (not on Windows).
    resume : go on with the run in ``out``. A finished one goes on with a larger budget; the policy that it ended with
        stays the best if no later check finds a better mean return.

    Returns
    -------
    TrainResult  with the policy and its returns. Ctrl-C while training ends it, and goes on to the final evaluation;
    Ctrl-C there ends that. What was found is returned.

    Raises
    ------
    ValueError, TypeError  for unknown ids, spaces that a policy does not serve, and arguments that do not fit.
    EvaluationError  if an environment fails and ``on_error`` is "raise"; it has the seed that reproduces it.
    CheckpointError  if the checkpoint is damaged, or of another run.
    """
    check_counts(final_episodes=final_episodes, check_episodes=10 if check_episodes is None else check_episodes)
    start, spec = beginning(env, policy)
    strategy = chosen(strategy, start.parameters.size, steps_per_generation)
    budgets, counts = (steps, episodes, generations, seconds), (episodes_per_candidate, check_episodes, episode_steps)
    planned = planned_for(env if spec is None else spec, strategy, budgets, counts, lengthening, searches)
    rollouts = Rollouts(
        *(env, start, planned.episodes, episode_steps, bonus, action_noise, normalise, check_every),
        *(planned.check_episodes, confirm, planned.lengthening, averaging, check_seed(seed), path, workers, on_error),
        *(episode_timeout, retries, steps_per_generation, None, planned.names),
    )
    search: dict[str, Any] = {
        "strategy": strategy if searches == 1 else shared(strategy, planned),
        "evaluations": episodes if episodes in (None, math.inf) else episodes // rollouts.episodes,
        **{"generations": generations, "steps": planned.steps, "seconds": seconds, "seed": check_seed(seed)},
        **{"checkpoint": checkpoint, "checkpoint_seconds": checkpoint_seconds},
    }
    _check(rollouts, search, target, callback)  # whatever does not fit is said before a folder is touched
    resume = resume or (checkpoint is not None and os.path.exists(checkpoint))
    with ExitStack() as held:
        folder, file = _open(out, env_name(env), search, held, resume=resume)
        trained = _train(rollouts, search, _Watch(_aim(target, spec), file, callback), final_episodes, folder, resume)
        if folder is not None:
            _write(trained, folder, env_name(env), growing=rollouts.lengthening is not None)
        return trained


def _check(rollouts: Rollouts, search: dict[str, Any], target: float | None, callback: Any) -> None:
    """Raise what :func:`esopt.minimize` would: for budgets, for a strategy, for a checkpoint of another run."""
    own, objective = dict(search), rollouts.objective
    names = "steps", "seconds", "checkpoint", "checkpoint_seconds"
    steps, seconds, checkpoint, checkpoint_seconds = (own.pop(name) for name in names)
    Limits(steps, seconds, target, True, callback, checkpoint, checkpoint_seconds)
    es = Optimizer(x0=rollouts.policy.parameters, objective=objective, **own)
    check_start(es, objective, own["evaluations"], grad=False)
    if checkpoint is not None and os.path.exists(checkpoint):
        es.load(checkpoint, rollouts.init())


@dataclass(frozen=True)
class _Aim:
    """A mean return to reach, if any, and how many checks in a row without anything better then end the run."""

    target: float | None
    patience: int


def _aim(target: float | None, spec: Any) -> _Aim:
    """Return the given target, else the environment's own threshold."""
    return _Aim(getattr(spec, "reward_threshold", None), PATIENCE) if target is None else _Aim(target, 0)


class _Watch:
    """The callback of the run: keeps the history, says when to stop."""

    def __init__(self, aim: _Aim, file: ProgressFile, callback: Callable[[Progress], Any] | None) -> None:
        self.aim, self.file, self.callback = aim, file, callback
        self.reason: dict[str, float] = {}

    def __call__(self, step: Step) -> None:
        state: RolloutState = step.evaluator_state
        checked = len(state.checks) > 0 and state.checks[-1, 0] == step.generation - 1
        row = Progress(
            step.generation,
            step.evaluations,
            state.steps,
            state.check_steps,
            step.seconds,
            state.mean_return,
            state.top_return,
            float(state.checks[-1, -1]) if checked else np.nan,
            np.nan if step.info.gradient is None else float(step.info.gradient.snr),
        )
        self.file.add(row)
        if self.callback is not None:
            self.callback(row)
        if self.aim.target is not None and state.best_return >= self.aim.target and checked:
            since = len(state.checks) - 1 - int(np.nanargmax(state.checks[:, -1]))
            if since >= self.aim.patience:
                self.reason = {"settled" if self.aim.patience else "target": state.best_return}
                raise StopIteration


def _train(
    rollouts: Rollouts, search: dict[str, Any], watch: _Watch, final_episodes: int, folder: Path | None, resume: bool
) -> TrainResult:
    """Search, look at the last centre, and evaluate the best one on episodes that nothing has seen."""
    seed, path, cut = int(search["seed"]), str(rollouts.choice), rollouts.max_steps
    whose = {"env": env_name(rollouts.env), "strategy": name_layers(search["strategy"]), "seed": seed}
    earlier = earlier_policy(folder, whose) if resume else None
    whole = rollouts if cut is None else replace(rollouts, max_steps=None if has_limit(rollouts.env) else _FAR * cut)
    try:
        start = rollouts.policy.parameters
        result = minimize(None, start, evaluator=rollouts.kept(), callback=watch, final_evaluations=0, **search)
        state, reason = _conclude(rollouts, result, watch.reason or result.reason)
        best, seen = _best(rollouts, result, state, earlier)
        about = {
            **whose,
            "generations": result.generations,
            "steps": state.steps + state.check_steps,
            "check_return": seen if np.isfinite(seen) else None,
            "episodes": 0,
            "mean_return": None,
        }
        policy = replace(best, about=about)
        if folder is not None:
            policy.save(folder / POLICY)  # an environment that fails from here on costs no more than its evaluation
        try:
            returns, evaluation_steps = final_returns(whole, policy, final_episodes, seed, keep=True)
        finally:
            whole.close()
    finally:
        rollouts.close()
    about |= {"episodes": returns.size, "mean_return": float(returns.mean()) if returns.size else None}
    target = watch.aim.target
    return TrainResult(
        replace(policy, about=about),
        returns,
        t_interval(returns),
        watch.file.history(),
        {name: state.checks[:, k].copy() for k, name in enumerate(Check._fields)},
        state.steps,
        state.check_steps,
        evaluation_steps,
        np.nan if target is None else float(target),
        reason,
        path,
        result,
    )


def _conclude(
    rollouts: Rollouts, result: Result, reason: Mapping[str, float]
) -> tuple[RolloutState, Mapping[str, float]]:
    """Return what is known at the end, the last centre included, unless the user is waiting; and why it is the end."""
    state: RolloutState = result.evaluator_state if result.generations else rollouts.init()
    if "interrupted" in reason or "terminated" in reason:
        return state, reason
    try:
        return rollouts.look(result.mean, state), reason
    except KeyboardInterrupt:
        return state, {**reason, "interrupted": float(result.generations)}


def _best(rollouts: Rollouts, result: Result, state: RolloutState, earlier: Policy | None) -> tuple[Policy, float]:
    """Return the best centre that a check saw, else the last one, and the mean return that the check found.

    The check at the end of an ``earlier`` part of the run is in no checkpoint: what the search does must not depend on
    where it was cut. But its policy counts.
    """
    seen = -np.inf if earlier is None else float(earlier.about["check_return"])
    if earlier is not None and seen > state.best_return:
        return earlier, seen
    if np.isfinite(state.best_return):
        best = rollouts.policy.with_parameters(state.best).with_normalisation(state.best_mean, state.best_std)
        return best, state.best_return
    last = rollouts.policy.with_parameters(result.mean).with_normalisation(*rollouts.normalisation(state))
    return last, -np.inf


def _open(
    out: str | os.PathLike[str] | None, env: str, search: dict[str, Any], held: ExitStack, *, resume: bool
) -> tuple[Path | None, ProgressFile]:
    """Return the folder of the run and the file of its progress; a checkpoint without another place is there."""
    folder = open_folder(out, env, search["checkpoint"], held, resume=resume)
    if folder is None:
        return None, ProgressFile(None)
    if search["checkpoint"] is None:
        search["checkpoint"] = folder / CHECKPOINT
    return folder, ProgressFile(folder / PROGRESS, resume=resume)


def _write(trained: TrainResult, folder: Path, name: str, *, growing: bool) -> None:
    """Write the policy and, where matplotlib is installed, the learning curve."""
    trained.policy.save(folder / POLICY)
    if find_spec("matplotlib") is None:
        return
    from .curve import draw_curve

    title = f"{name}, seed {trained.policy.about['seed']}"
    if trained.returns.size:
        title += f": {trained.mean:.1f} over {trained.returns.size} held-out episodes"
    file = folder / CURVE
    draw_curve(trained.history, file, checks=trained.checks, title=title, target=trained.target, growing=growing)
