"""What people see of a run: a live table on a terminal, lines elsewhere, and a few sentences at the end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rich.console import Console

    from ..rl.progress import Progress
    from ..rl.train_result import TrainResult

_REASONS = {
    "target": "the target was reached",
    "settled": "checks beyond the target got no better",
    "steps": "the budget of steps is used up",
    "evaluations": "the budget of episodes is used up",
    "generations": "the budget of generations is used up",
    "seconds": "the time is up",
    "interrupted": "it was interrupted",
    "terminated": "a signal asked it to end",
    "failed": "a whole generation failed",
    "diverged": "the parameters are not finite any more",
}
_FILES = {"checkpoint", "history"}
"""Failures that are of a disk, not of an episode."""


def summary(returns: NDArray[np.float64], interval: tuple[float, float]) -> str:
    """Return the mean return, its interval and its range in words."""
    low, high = interval
    between = "" if np.isnan(low) else f", 95 % confidence interval [{low:.2f}, {high:.2f}]"
    return (
        f"mean return {returns.mean():.2f} over {returns.size} held-out episodes{between}, "
        f"lowest {returns.min():.2f}, highest {returns.max():.2f}"
    )


def report(result: TrainResult, seconds: float, episodes: int) -> list[str]:
    """Return what a person wants to know at the end, line by line; ``episodes`` were to be evaluated."""
    reasons = ", ".join(_REASONS.get(key, key) for key in result.reason)
    run, steps = result.result, result.steps + result.check_steps
    lines = [
        f"{run.generations} generations, {run.evaluations:,} evaluations, {steps:,} environment steps "
        f"({result.check_steps:,} of them in checks) in {seconds:.1f} s; ended because {reasons}.",
        f"Played by {result.path}.",
    ]
    returns = result.returns
    failed = ", ".join(f"{count} {kind}" for kind, count in run.failures.items() if kind not in _FILES)
    if failed:
        lines.append(f"Failed episodes: {failed}.")
    if _FILES & run.failures.keys():
        lines.append(f"Checkpoints that could not be written: {run.failures.get('checkpoint', 0)}.")
    if returns.size < episodes:
        lines.append(f"The final evaluation was cut short after {returns.size} of {episodes} episodes.")
    if not returns.size:
        return lines
    lines.append(summary(returns, result.interval))
    if result.mean < result.target < np.inf:
        lines.append(
            f"The target, {result.target:g}, was not reached: more --steps, another --seed or --sigma may help."
        )
    return lines


class Display(AbstractContextManager["Display"]):
    """Progress of a run: one live table on a terminal, else a line per check.

    Parameters
    ----------
    console : where to.
    limits : budgets of "steps", "generations", "seconds", None for none; what time is left is guessed from them.
    """

    def __init__(self, console: Console, limits: Mapping[str, float | None] | None = None) -> None:
        self.console, self.limits = console, {} if limits is None else limits
        self.centre, self.best = np.nan, -np.inf
        self._first: tuple[float, float] | None = None  # seconds and share of the budget, when this process began
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
        self.best = max(self.best, progress.best_return)
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
        steps = progress.steps + progress.check_steps
        seconds = progress.seconds - self._mark[1]
        left = self.seconds_left(progress)
        return {
            "generation": f"{progress.generation:4d}",
            "centre": f"{self.centre:8.1f}" if np.isfinite(self.centre) else "       -",
            "mean": f"{progress.mean_return:8.1f}",
            "best": f"{self.best:8.1f}" if np.isfinite(self.best) else "       -",
            "steps": f"{steps:9,}",
            "steps/s": f"{(steps - self._mark[0]) / max(seconds, 1e-9):9,.0f}",
            "snr": f"{progress.snr:5.2f}" if np.isfinite(progress.snr) else "    -",
            "left": f"{duration(left):>6s}",
        }

    def seconds_left(self, progress: Progress) -> float:
        """Return the seconds until the first budget is used up, at the pace so far; nan without a budget."""
        used = {
            "steps": progress.steps + progress.check_steps,
            "generations": progress.generation,
            "seconds": progress.seconds,
        }
        share = max((used[name] / limit for name, limit in self.limits.items() if limit), default=np.nan)
        if self._first is None:
            self._first = (progress.seconds, share)
            return np.nan
        begun, before = self._first
        return max(0.0, 1.0 - share) * (progress.seconds - begun) / (share - before) if share > before else np.nan


def duration(seconds: float) -> str:
    """Return seconds as people write them: 42s, 3m07s, 2h05m."""
    if not np.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
