"""The learning table: what presets reach on environments over seeds, with intervals, steps and times.

Change the arguments below, then run it in the environment that scripts/run makes: .venv/bin/python scripts/table.py

It goes on where it was interrupted: every finished run is a line of ``runs.jsonl`` in the folder, and ``table.md``
is written at the end. ``esopt table`` is the same with one budget for all environments.
"""

from dataclasses import dataclass, field
from pathlib import Path

from esopt.rl import Run, table


@dataclass(frozen=True)
class Arguments:
    """What is trained. Seeds from 100 on: the settings were tuned on others."""

    presets: tuple[str, ...] = ("default", "ars", "pgpe", "openai-es")
    seeds: range = range(100, 110)
    out: Path = Path("runs/table")
    workers: int = 2  # processes for environments that have no compiled world; changes no return
    steps: dict[str, int] = field(
        default_factory=lambda: {
            "CartPole-v1": 200_000,
            "Acrobot-v1": 500_000,
            "Pendulum-v1": 2_000_000,
            "MountainCarContinuous-v0": 500_000,
            "InvertedPendulum-v5": 200_000,
            "Swimmer-v5": 300_000,
            "Hopper-v5": 3_000_000,
            "HalfCheetah-v5": 5_000_000,
            "LunarLanderContinuous-v3": 1_000_000,
        }
    )
    thresholds: dict[str, float] = field(  # in place of gymnasium's own
        default_factory=lambda: {"Swimmer-v5": 340.0, "Hopper-v5": 3000.0, "HalfCheetah-v5": 4000.0}
    )


def main(arguments: Arguments) -> None:
    file = arguments.out / "runs.jsonl"
    counts = {"all": len(arguments.steps) * len(arguments.presets) * len(arguments.seeds), "now": 0}

    def show(run: Run) -> None:
        counts["now"] += 1
        what = f"{counts['now']}: {run.env}, {run.preset}, seed {run.seed}: {run.mean_return:.1f}"
        cost = f"{run.steps + run.check_steps:,} steps, {run.seconds:.1f} s, {run.cpu_seconds:.1f} CPU seconds"
        print(f"{what} after {cost}; {run.path}", flush=True)

    print(f"{counts['all']} runs, those in {file} included.", flush=True)
    found = table(
        list(arguments.steps),
        arguments.presets,
        arguments.seeds,
        steps=arguments.steps,
        thresholds=arguments.thresholds,
        file=file,
        callback=show,
        workers=arguments.workers,
    )
    (arguments.out / "table.md").write_text(f"{found}\n", encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main(Arguments())
