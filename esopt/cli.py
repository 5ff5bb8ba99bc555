"""The command line: ``esopt train ENV`` trains a policy and says where it left it.

Needs the extra ``cli``; typer, rich and matplotlib are imported when a command runs. The only module that prints.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import typer
    from rich.console import Console

    from .protocols import Strategy
    from .rl.training import Progress, TrainResult

_EXTRA = ("typer", "rich", "matplotlib")
_REASONS = {
    "target": "the target was reached",
    "settled": "checks beyond the target got no better",
    "steps": "the budget of steps is used up",
    "generations": "the budget of generations is used up",
    "interrupted": "it was interrupted",
}


def main() -> None:
    """Run the command line; the entry point of ``esopt`` and of ``python -m esopt.cli``."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        print(
            f'esopt: the command line needs {", ".join(missing)}. Install the extra "cli": pip install "pyesopt[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(1)
    build_app()(prog_name="esopt")


def named_strategy(name: str, n: int, sigma: float) -> Strategy:
    """Return the strategy called ``name``: "ars", "openai_es" or "pgpe", with step sizes in proportion to ``sigma``."""
    from .strategies.named import ars, openai_es, pgpe

    if name == "ars":
        return ars(n=n, sigma=sigma, lr=sigma)
    if name == "openai_es":
        return openai_es(n=n, sigma=sigma, lr=0.3 * sigma)
    if name == "pgpe":
        return replace(pgpe(n=n, max_speed=0.25 * sigma), sigma=sigma)
    raise ValueError(f"--strategy got {name!r}. Pass ars, openai_es or pgpe.")


def build_app() -> typer.Typer:
    """Return the typer application."""
    import typer

    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
    env_argument = typer.Argument("CartPole-v1", help="A gymnasium id with Box observations.", show_default=True)
    seed_option = typer.Option(0, help="Equal seeds give equal policies.", min=0)
    steps_option = typer.Option(
        None,
        help="Budget of environment steps for training. The 16 random episodes that normalise observations count and "
        "are always played; a generation that is begun is finished. (default: 1000 episodes of full length)",
        min=1,
    )
    generations_option = typer.Option(None, help="Budget of generations.", min=1)
    n_option = typer.Option(16, "--n", help="Candidates per generation, an even number.", min=2)
    sigma_option = typer.Option(
        1.0, help="Standard deviation of the search; normalised inputs and outputs have about 1."
    )
    workers_option = typer.Option(1, help="Processes that play; changes no result.", min=1)
    episodes_option = typer.Option(100, help="Episodes of the final evaluation.", min=1)
    strategy_option = typer.Option("ars", help="ars, openai_es or pgpe.")
    target_option = typer.Option(
        None,
        help="Stop when the mean return of a check reaches this. (default: go on beyond the environment's own "
        "threshold until checks get no better)",
    )
    out_option = typer.Option(None, help="Folder for policy.npz and curve.png. (default: runs/ENV)")

    @app.callback()
    def esopt() -> None:
        """Evolution strategies from the command line."""

    @app.command()
    def train(
        env: str = env_argument,
        seed: int = seed_option,
        steps: int | None = steps_option,
        generations: int | None = generations_option,
        n: int = n_option,
        sigma: float = sigma_option,
        strategy: str = strategy_option,
        target: float | None = target_option,
        workers: int = workers_option,
        episodes: int = episodes_option,
        out: Path | None = out_option,
    ) -> None:
        """Train a linear policy on ENV, evaluate it on episodes it never saw, and save it with its learning curve."""
        settings = {"seed": seed, "steps": steps, "generations": generations, "target": target, "workers": workers}
        folder = Path("runs", env.replace("/", "-")) if out is None else out
        raise typer.Exit(_guarded(env, folder, (strategy, n, sigma), {**settings, "episodes": episodes}))

    file_argument = typer.Argument(help="What minimize(history=FILE) wrote.")
    picture_option = typer.Option(None, help="The picture. (default: FILE with the suffix .png)")

    @app.command()
    def plot(file: Path = file_argument, out: Path | None = picture_option) -> None:
        """Draw a run: values, sigma and axis ratio, mean, eigenvalues, standard deviations."""
        raise typer.Exit(_plot(file, file.with_suffix(".png") if out is None else out))

    return app


def _plot(file: Path, out: Path) -> int:
    """Draw the history in ``file`` and return the exit status."""
    from .errors import EsoptError
    from .history import History

    try:
        print(History.load(file).plot(out, title=file.name))
    except (EsoptError, ValueError, OSError) as error:
        print(f"esopt: {error}", file=sys.stderr)
        return 2
    return 0


def _guarded(env: str, folder: Path, strategy: tuple[str, int, float], settings: dict[str, Any]) -> int:
    """Train and return the exit status; what users can mend is one message, not a traceback."""
    import gymnasium

    from .errors import EsoptError

    try:
        _check_folder(folder)
        _train(env, folder, named_strategy(*strategy), settings)
    except (EsoptError, ValueError, TypeError, ImportError, OSError, gymnasium.error.Error) as error:
        print(f"esopt: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("esopt: interrupted before there was a policy; nothing was written.", file=sys.stderr)
        return 130
    return 0


def _check_folder(folder: Path) -> None:
    """Raise OSError before the work is done, rather than after it, if ``folder`` cannot be written."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"--out {folder} needs a folder, and {there} is a file. Pass another one.")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"--out {folder} cannot be written: no permission in {there}. Pass another one.")


def _train(env: str, folder: Path, strategy: Strategy, settings: dict[str, Any]) -> None:
    from rich.console import Console

    from .rl.curve import draw_curve
    from .rl.training import train

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Training a linear policy on {env}, seed {settings['seed']}.")
    begun = time.perf_counter()
    display = Display(console)
    with display:
        result = train(env, strategy=strategy, callback=display.show, **settings)
    folder.mkdir(parents=True, exist_ok=True)
    policy = result.policy.save(folder / "policy.npz")
    title = f"{env}, seed {settings['seed']}"
    if result.returns.size:
        title += f": {result.mean:.1f} over {result.returns.size} held-out episodes"
    curve = draw_curve(result.history, folder / "curve.png", title=title, target=result.target)
    for line in report(result, time.perf_counter() - begun, settings["episodes"]):
        console.print(line)
    console.print(f"policy  {policy}\ncurve   {curve}")


def report(result: TrainResult, seconds: float, episodes: int) -> list[str]:
    """Return what a person wants to know at the end, line by line; ``episodes`` were to be evaluated."""
    reasons = ", ".join(_REASONS.get(key, key) for key in result.reason)
    evaluations = int(result.history["evaluations"][-1])  # result.result counts one at the end too
    lines = [
        f"{result.result.generations} generations, {evaluations:,} evaluations, {result.steps:,} "
        f"environment steps (checks: {result.check_steps:,} more) in {seconds:.1f} s; ended because {reasons}."
    ]
    returns, (low, high) = result.returns, result.interval
    if returns.size < episodes:
        lines.append(f"The final evaluation was cut short after {returns.size} of {episodes} episodes.")
    if not returns.size:
        return lines
    interval = "" if np.isnan(low) else f", 95 % confidence interval [{low:.2f}, {high:.2f}]"
    lines.append(
        f"mean return {result.mean:.2f} over {returns.size} held-out episodes{interval}, "
        f"lowest {returns.min():.2f}, highest {returns.max():.2f}"
    )
    if result.mean < result.target:
        lines.append(
            f"The target, {result.target:g}, was not reached: more --steps, another --seed or --sigma may help."
        )
    return lines


class Display(AbstractContextManager["Display"]):
    """Progress of a run: one live table on a terminal, else a line per check."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.centre = np.nan
        self._mark = (0, 0.0)  # steps and seconds at the last check
        self._live: Any = nullcontext()
        if console.is_terminal:
            from rich.live import Live

            self._live = Live(console=console, refresh_per_second=8)

    def __enter__(self) -> Display:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def show(self, progress: Progress) -> None:
        """Show the generation; the callback of :func:`esopt.rl.train`."""
        checked = not np.isnan(progress.centre_return)
        self.centre = progress.centre_return if checked else self.centre
        cells = self.cells(progress)
        if checked:
            self._mark = (progress.steps + progress.check_steps, progress.seconds)
        if self.console.is_terminal:
            from rich.table import Table

            table = Table(*cells, box=None, padding=(0, 2, 0, 0))
            table.add_row(*cells.values())
            self._live.update(table)
        elif checked:
            self.console.print("  ".join(f"{name} {text}" for name, text in cells.items()))

    def cells(self, progress: Progress) -> dict[str, str]:
        """Return the names and the texts of what is shown; the rate is the one since the last check."""
        played, seconds = progress.steps + progress.check_steps - self._mark[0], progress.seconds - self._mark[1]
        return {
            "generation": f"{progress.generation:4d}",
            "best": f"{progress.best_return:8.1f}",
            "mean": f"{progress.mean_return:8.1f}",
            "centre": f"{self.centre:8.1f}" if np.isfinite(self.centre) else "       -",
            "evaluations": f"{progress.evaluations:6,}",
            "steps": f"{progress.steps:9,}",
            "steps/s": f"{played / max(seconds, 1e-9):8,.0f}",
            "snr": f"{progress.snr:5.2f}" if np.isfinite(progress.snr) else "    -",
        }


if __name__ == "__main__":
    main()
