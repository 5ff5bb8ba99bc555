"""What the commands do; each returns the exit status. What users can mend is one message, not a traceback."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..rl.policy import Policy
    from ..rl.progress import Progress
    from ..rl.tensorboard import TensorBoard


_BUDGETS = {"steps", "episodes", "generations", "seconds"}


class TrainOptions(NamedTuple):
    """What changes the preset; None for its own."""

    preset: str
    strategy: str | None
    policy: str | None
    n: int | None
    sigma: float | None
    normalise: bool | None

    def settings(self, env: str) -> dict[str, Any]:
        """Return keyword arguments of :func:`esopt.rl.train`."""
        from ..rl.presets import parse_policy, preset, resized, with_strategy

        base = preset(self.preset, env)
        if self.strategy is not None:
            base = with_strategy(base, self.strategy, self.n, self.sigma)
        elif self.sigma is not None and self.preset not in ("default", "orthogonal"):
            raise ValueError(
                f"--sigma goes with --strategy; the preset {self.preset} has its own. Pass --strategy ars."
            )
        else:
            base = replace(base, strategy=resized(base.strategy, self.n, self.sigma))
        settings = base.settings()
        if self.policy is not None:
            settings["policy"] = parse_policy(self.policy)
        if self.normalise is not None:
            settings["normalise"] = "running" if self.normalise else "off"
        return settings


def train(options: dict[str, Any], chosen: set[str], *, out: Path | None, events: Path | None, resume: bool) -> int:
    """Train and write the run, and for TensorBoard to the folder ``events``.

    ``options`` are those of the command line by name, None for a preset's own. A resumed run has those that nobody has
    ``chosen`` from its folder.
    """

    def work() -> None:
        folder = Path("runs", options["env"].replace("/", "-").replace(":", "-")) if out is None else out
        _check_folder(folder)
        asked = _remembered(folder, options, chosen) if resume else options
        watched = nullcontext() if events is None else _board(events)
        with watched as board:
            _train(asked, folder, board, resume=resume)

    return _guarded(work, "interrupted before there was a policy; nothing was written.")


def evaluate(run: Path, env: str | None, episodes: int, seed: int, workers: int | None, path: str) -> int:
    """Play a policy and print its mean return."""

    def work() -> None:
        from ..rl.evaluation import evaluate, t_interval
        from .display import summary

        policy, name = _load(run, env)
        begun = time.perf_counter()
        returns, steps = evaluate(policy, name, episodes, seed, workers=workers, path=path)
        print(f"{name}: {summary(returns, t_interval(returns))}")
        print(f"{steps:,} environment steps in {time.perf_counter() - begun:.1f} s, seed {seed}")

    return _guarded(work, "interrupted; nothing was evaluated.")


def render(run: Path, env: str | None, out: Path | None, episodes: int, seed: int, steps: int | None) -> int:
    """Write a video of a policy and print where."""

    def work() -> None:
        from ..rl.video import render

        policy, name = _load(run, env)
        folder = run if run.is_dir() else run.parent
        path, returns = render(
            policy, name, folder / "video.mp4" if out is None else out, episodes=episodes, seed=seed, max_steps=steps
        )
        print(f"{path}\n{name}, seed {seed}: return {', '.join(f'{value:.1f}' for value in returns)}")

    return _guarded(work, "interrupted; no video was written.")


def plot(file: Path, out: Path) -> int:
    """Draw the history in ``file`` and print where."""

    def work() -> None:
        from ..history import History

        print(History.load(file).plot(out, title=file.name))

    return _guarded(work, "interrupted; nothing was drawn.")


def _guarded(work: Callable[[], None], interrupted: str) -> int:
    """Do ``work`` and return the exit status."""
    from ..errors import EsoptError

    try:
        work()
    except (EsoptError, ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        print(f"esopt: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"esopt: {interrupted}", file=sys.stderr)
        return 130
    return 0


def _check_folder(folder: Path, option: str = "--out") -> None:
    """Raise OSError before the work is done, rather than after it, if ``folder`` cannot be written."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{option} {folder} needs a folder, and {there} is a file. Pass another one.")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{option} {folder} cannot be written: no permission in {there}. Pass another one.")


def _remembered(folder: Path, options: dict[str, Any], chosen: set[str]) -> dict[str, Any]:
    """Return the options, where nobody has ``chosen`` them those of the run in ``folder``; one budget replaces all."""
    from ..rl.run_folder import OPTIONS

    file = folder / OPTIONS
    if not file.exists():
        return options
    try:
        earlier = dict(json.loads(file.read_text("utf-8")))
    except (TypeError, ValueError):
        raise ValueError(
            f"{file} does not hold the options of a run. Remove it, and repeat the options of the run with --resume."
        ) from None
    fixed = chosen | (_BUDGETS if chosen & _BUDGETS else set())
    return options | {name: earlier[name] for name in options.keys() & earlier.keys() - fixed}


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments of :func:`esopt.rl.train`."""
    given = {name: value for name, value in options.items() if value is not None}
    changes = TrainOptions(*(options[name] for name in TrainOptions._fields))
    rest = given.keys() - {"env", *TrainOptions._fields}
    return changes.settings(options["env"]) | {name: given[name] for name in rest}


def _board(folder: Path) -> TensorBoard:
    from ..rl.tensorboard import TensorBoard

    _check_folder(folder, "--tensorboard")
    return TensorBoard(folder)


def _train(options: dict[str, Any], folder: Path, board: Callable[[Progress], None] | None, *, resume: bool) -> None:
    from rich.console import Console

    from ..rl import training
    from ..rl.outline import outline
    from ..rl.run_folder import write_options
    from .display import Display, report

    env, settings, unsaved = options["env"], _settings(options), [json.dumps(options, indent=2)]
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Training on {env}, seed {settings['seed']}.")
    begun = time.perf_counter()
    generations, seconds = settings.get("generations"), settings.get("seconds")
    planned = outline(
        env,
        **{name: settings[name] for name in ("policy", "strategy", "lengthening", "searches")},
        budgets=(settings.get("steps"), settings.get("episodes"), generations, seconds),
        counts=(settings["episodes_per_candidate"], settings["check_episodes"], settings.get("episode_steps")),
    )
    if planned.searches > 1:
        console.print(
            f"Up to {planned.searches} searches, one after another, share the steps; the best centre of all is kept."
        )
    lengths = planned.lengthening
    if lengths is not None and lengths.first < lengths.last:
        console.print(
            f"Candidates play episodes of {lengths.first} steps at first, of {lengths.last} in the end, and 'mean' and "
            "'best' are returns of these; 'centre' is of whole episodes."
        )
    display = Display(console, {"steps": planned.steps, "generations": generations, "seconds": seconds})
    with display:

        def show(progress: Progress) -> None:
            if unsaved:
                write_options(folder, f"{unsaved.pop()}\n")
            display.show(progress)
            if board is not None:
                board(progress)

        result = training.train(env, callback=show, out=folder, resume=resume, **settings)
    if unsaved and "interrupted" not in result.reason:
        console.print("There was nothing left to train. A larger budget, such as --steps, lets the run go on.")
    for line in report(result, time.perf_counter() - begun, settings["final_episodes"]):
        console.print(line)
    for name in ("policy.npz", "curve.png", "progress.csv"):
        console.print(f"{name.partition('.')[0]:9s} {folder / name}")


def _load(run: Path, env: str | None) -> tuple[Policy, str]:
    """Return the policy of a run, and the environment that it acts in."""
    from ..rl.policy import Policy

    file = run / "policy.npz" if run.is_dir() else run
    if not file.exists():
        raise FileNotFoundError(
            f"there is no policy at {file}. Pass the folder that esopt train wrote, or a policy.npz."
        )
    policy = Policy.load(file)
    name = env or policy.about.get("env")
    if not name:
        raise ValueError(f"{file} does not say what it was trained on. Pass --env, a gymnasium id.")
    return policy, str(name)
