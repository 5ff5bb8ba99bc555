"""table(): what presets reach on environments over seeds, with intervals and with what it costs.

A run is one environment, preset and seed. Finished runs are kept in a file, one line each, if there is one: a table
that was interrupted, or is to have more seeds, trains only what is missing.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._describe import describe
from ..noise import check_seed
from ..protocols import Strategy
from . import presets as named
from .budgets import default_steps
from .engine import World
from .environments import EnvSource, env_name, env_spaces
from .presets import Preset
from .run_file import Run, RunFile
from .statistics import Estimate, bootstrap_interval
from .train_result import TrainResult
from .training import train

PresetSource = str | Preset | Strategy | Callable[[str], Preset]
"""A name from :data:`esopt.rl.presets.PRESETS`, a preset, a function from an environment's name to one, or a strategy
with everything else as :func:`esopt.rl.train` does it."""

THRESHOLDS: Mapping[str, float] = {"Pendulum-v1": -200.0}
"""Returns to reach where gymnasium names none."""

_RESERVED = ("callback", "checkpoint", "checkpoint_seconds", "out", "resume", "seed")
_NO_BITS = ("workers",)
_DEFAULTS: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(train).parameters.items()
    if parameter.default is not parameter.empty and name not in _RESERVED
}


class Row(NamedTuple):
    """One environment and preset; a return is a run's mean over its held-out episodes.

    ``returns`` are in the order of the seeds. ``interval`` is their interquartile mean with its 95 % bootstrap
    interval, ``share`` the share of runs that reached ``threshold`` (nan where there is none), ``steps`` the mean
    number of environment steps of a run with the checks of the centre included, ``seconds`` and ``cpu_seconds`` the
    medians over the runs.
    """

    env: str
    preset: str
    returns: tuple[float, ...]
    interval: Estimate
    mean: float
    median: float
    worst: float
    threshold: float
    share: float
    steps: float
    seconds: float
    cpu_seconds: float


class Aggregate(NamedTuple):
    """One preset over environments: the interquartile mean of normalised scores of all runs, with its 95 % interval.

    A score is 0 at the return of the untrained policy (mean over all runs of the environment) and 1 at the threshold.
    """

    preset: str
    envs: tuple[str, ...]
    runs: int
    interval: Estimate


@dataclass(frozen=True)
class Table:
    """Rows by environment and preset, aggregates by preset, and the runs that they are made of. Prints as Markdown."""

    rows: tuple[Row, ...]
    aggregates: tuple[Aggregate, ...]
    runs: tuple[Run, ...]

    def __str__(self) -> str:
        return markdown(self)


def table(
    envs: EnvSource | Sequence[EnvSource],
    presets: PresetSource | Sequence[str] | Mapping[str, PresetSource] = "default",
    seeds: int | Iterable[int] = 10,
    *,
    steps: int | Mapping[str, int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    file: str | os.PathLike[str] | None = None,
    callback: Callable[[Run], Any] | None = None,
    **settings: Any,
) -> Table:
    """Train every preset on every environment with every seed, and sum up the returns of the trained policies.

    Parameters
    ----------
    envs : environments, as in :func:`esopt.rl.train`.
    presets : names of presets, or a mapping from names of one's own to presets, functions that make one for an
        environment, or strategies.
    seeds : how many, from 0 on, or which. Settings are not to be tuned on the seeds that are reported.
    steps : budget of environment steps, the same for all or by environment; None for the preset's own, else as many as
        1000 episodes of the longest length.
    thresholds : returns to reach, by environment; others keep gymnasium's own.
    file : where finished runs are kept, one line of JSON each. Runs that are there are not trained again.
    callback : called with each :class:`Run` that was trained.
    settings : more arguments of :func:`esopt.rl.train` for every run, before those of the preset. Unless there is a
        ``target``, it is inf: every run uses its budget.

    Returns
    -------
    Table  that prints as Markdown.

    Raises
    ------
    ValueError, TypeError  for names twice or unknown, arguments that do not fit, a file with runs of other settings.
    KeyboardInterrupt  on Ctrl-C; the run that was going on is lost, those in ``file`` are not.

    Notes
    -----
    Seeds come in the outer loop, so that a table that is cut short has about as many of each row.

    Examples
    --------
    >>> from esopt.rl import table
    >>> found = table("CartPole-v1", seeds=2, steps=2_000, final_episodes=5)
    >>> len(found.rows), len(found.runs)
    (1, 2)
    """
    wrong = sorted(set(settings) & {*_RESERVED, "strategy"})
    if wrong:
        raise TypeError(f"table() got {', '.join(wrong)}=, which it sets itself. Pass presets=, seeds= and file=.")
    places = _named_envs(envs)
    chosen = _named_presets(presets)
    numbers = _seeds(seeds)
    plans = [_Plan(env, name, source, steps, settings) for env in places.values() for name, source in chosen.items()]
    goals = {name: _threshold(env, thresholds) for name, env in places.items()}
    store = RunFile(file)
    runs = {}
    for seed in numbers:
        for plan in plans:
            run = store.find(plan.env, plan.preset, seed, plan.description)
            if run is None:
                run = _train(plan, seed)
                store.add(run, plan.description)
                if callback is not None:
                    callback(run)
            runs[plan.env, plan.preset, seed] = run
    ordered = tuple(runs[plan.env, plan.preset, seed] for plan in plans for seed in numbers)
    return summarise(ordered, goals)


def summarise(runs: Sequence[Run], thresholds: Mapping[str, float]) -> Table:
    """Return the table of finished runs; ``thresholds`` are returns to reach, by environment, nan for none."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.env, run.preset), []).append(run)
    rows = tuple(_row(group, thresholds.get(env, np.nan)) for (env, _), group in groups.items())
    return Table(rows, tuple(_aggregates(groups, thresholds)), tuple(runs))


def markdown(table: Table) -> str:
    """Return the table as Markdown."""
    head = ("environment", "preset", "seeds", "IQM [95 % interval]", "mean", "median", "worst", "reached")
    lines = [_line((*head, "steps", "seconds", "CPU seconds")), "|" + " --- |" * 11]
    for row in table.rows:
        count = len(row.returns)
        reached = "" if np.isnan(row.share) else f"{round(row.share * count)} of {count} ≥ {row.threshold:g}"
        returns = (_number(value) for value in (row.mean, row.median, row.worst))
        cells = (row.env, row.preset, str(count), _estimate(row.interval), *returns, reached)
        costs = (f"{row.steps:,.0f}", _seconds(row.seconds), _seconds(row.cpu_seconds))
        lines.append(_line((*cells, *costs)))
    if table.aggregates:
        lines += ["", _line(("preset", "environments", "runs", "IQM of scores [95 % interval]")), "|" + " --- |" * 4]
        for preset, envs, count, interval in table.aggregates:
            value, low, high = interval
            cell = f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
            lines.append(_line((preset, str(len(envs)), str(count), cell)))
    return "\n".join(lines)


class _Plan:
    """What is trained: an environment and the arguments of train()."""

    def __init__(
        self,
        env: EnvSource,
        preset: str,
        source: PresetSource,
        steps: int | Mapping[str, int] | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.source, self.env, self.preset = env, env_name(env), preset
        own = _settings(source, self.env)
        budget = steps.get(self.env) if isinstance(steps, Mapping) else steps
        self.settings: dict[str, Any] = {**_DEFAULTS, **own, **settings}
        if settings.get("target") is None:
            self.settings["target"] = np.inf
        others = (settings.get(name) for name in ("episodes", "generations", "seconds"))
        if budget is not None:
            self.settings["steps"] = budget
        elif self.settings.get("steps") is None and all(other is None for other in others):
            self.settings["steps"] = default_steps(env)
        self.description = describe({k: v for k, v in self.settings.items() if k not in _NO_BITS})


def _train(plan: _Plan, seed: int) -> Run:
    began, cpu_began = time.perf_counter(), _cpu_seconds()
    result: TrainResult = train(plan.source, seed=seed, **plan.settings)
    if "interrupted" in result.reason or result.returns.size < plan.settings["final_episodes"]:
        raise KeyboardInterrupt
    starts = result.checks["mean_return"]
    return Run(
        env=plan.env,
        preset=plan.preset,
        seed=seed,
        mean_return=result.mean,
        start_return=float(starts[0]) if len(starts) else np.nan,
        episodes=int(result.returns.size),
        generations=int(result.result.generations),
        steps=int(result.steps),
        check_steps=int(result.check_steps),
        evaluation_steps=int(result.evaluation_steps),
        seconds=time.perf_counter() - began,
        cpu_seconds=_cpu_seconds() - cpu_began,
        reason=", ".join(result.reason),
        path=result.path,
    )


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return time.process_time() + sum(os.times()[2:4])


def _row(runs: Sequence[Run], threshold: float) -> Row:
    returns = np.array([run.mean_return for run in runs])
    if not np.isfinite(returns).all():
        run = runs[int(np.argmin(np.isfinite(returns)))]
        raise ValueError(
            f"{run.env}, {run.preset}, seed {run.seed} has the mean return {run.mean_return}. Expected a finite "
            "number: look for the reason in this run; a table without it would be too good."
        )
    return Row(
        runs[0].env,
        runs[0].preset,
        tuple(returns.tolist()),
        bootstrap_interval([returns]),
        float(returns.mean()),
        float(np.median(returns)),
        float(returns.min()),
        threshold,
        np.nan if np.isnan(threshold) else float(np.mean(returns >= threshold)),
        float(np.mean([run.steps + run.check_steps for run in runs])),
        float(np.median([run.seconds for run in runs])),
        float(np.median([run.cpu_seconds for run in runs])),
    )


def _aggregates(
    groups: Mapping[tuple[str, str], Sequence[Run]], thresholds: Mapping[str, float]
) -> Iterator[Aggregate]:
    """Yield the aggregate of each preset that was run on all environments which have a scale, if those are several."""
    scales = {}
    for env in dict.fromkeys(env for env, _ in groups):
        starts = [run.start_return for (name, _), runs in groups.items() if name == env for run in runs]
        low, high = float(np.mean(starts)), thresholds.get(env, np.nan)
        if low < high:
            scales[env] = low, high - low
    for preset in dict.fromkeys(preset for _, preset in groups):
        if len(scales) < 2 or not all((env, preset) in groups for env in scales):
            continue
        scores = [
            (np.array([run.mean_return for run in groups[env, preset]]) - low) / width
            for env, (low, width) in scales.items()
        ]
        yield Aggregate(preset, tuple(scales), sum(map(len, scores)), bootstrap_interval(scores))


def _named_envs(envs: EnvSource | Sequence[EnvSource]) -> dict[str, EnvSource]:
    listed = list(envs) if isinstance(envs, Sequence) and not isinstance(envs, str) else [envs]
    places = {env_name(env): env for env in listed}
    if not listed or len(places) < len(listed):
        raise ValueError(
            f"envs= got {', '.join(map(env_name, listed)) or 'nothing'}. Pass one or more environments, "
            "each with a name of its own (that of a function is its __name__)."
        )
    return places


def _named_presets(presets: PresetSource | Sequence[str] | Mapping[str, PresetSource]) -> dict[str, PresetSource]:
    if isinstance(presets, Mapping):
        chosen = dict(presets)
    elif isinstance(presets, Sequence):
        names = [presets] if isinstance(presets, str) else list(presets)
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise TypeError(
                f"presets= got {names!r}. Pass names of presets, each once, or a mapping from names to them."
            )
        chosen = {name: name for name in names}
    else:
        raise TypeError(
            f"presets= got {type(presets).__name__}, which has no name. Pass a mapping, for example "
            '{"mine": esopt.ars(n=16)}.'
        )
    if not chosen:
        raise ValueError('presets= got nothing. Pass for example presets=["default", "ars"].')
    return chosen


def _settings(source: PresetSource, env: str) -> dict[str, Any]:
    if isinstance(source, str):
        source = named.preset(source, env)
    if isinstance(source, Preset):
        return source.settings()
    if hasattr(source, "ask"):
        return {"strategy": source}
    if not callable(source):
        raise TypeError(
            f"a preset got {type(source).__name__}. Pass a name, a Preset, a strategy, or a function from an "
            "environment's name to a Preset."
        )
    made = source(env)
    if not isinstance(made, Preset):
        raise TypeError(f"a preset's function returned {type(made).__name__} for {env}. Return a Preset.")
    return made.settings()


def _seeds(seeds: int | Iterable[int]) -> list[int]:
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        seeds = range(int(seeds))
    if not isinstance(seeds, Iterable):
        raise TypeError(f"seeds= got {type(seeds).__name__}. Pass how many, for example 10, or which: range(100, 110).")
    numbers = [check_seed(seed) for seed in seeds]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds= got {numbers or 'none'}. Pass one or more seeds, each once.")
    return numbers


def _threshold(env: EnvSource, given: Mapping[str, float] | None) -> float:
    name = env_name(env)
    for source in (given or {}, THRESHOLDS):
        if name in source:
            return float(source[name])
    found = None if isinstance(env, World) else getattr(env_spaces(env)[2], "reward_threshold", None)
    return np.nan if found is None else float(found)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.1f}"


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"


def _estimate(estimate: Estimate) -> str:
    value, low, high = estimate
    return _number(value) if np.isnan(low) else f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
