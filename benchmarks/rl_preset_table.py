"""Print the table of results/rl_preset.jsonl: presets on environments over seeds, with intervals and what they cost.

    python benchmarks/rl_preset_table.py [default ars ...]

The interquartile mean has its 95 % bootstrap interval over seeds (Agarwal et al. 2021). Steps are those of candidates
and checks together, the most that a seed took; times are medians over seeds, on a machine that did other things beside.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import Any

import numpy as np
from rl_preset import FILE

from esopt.rl import bootstrap_interval

REACH = {
    "CartPole-v1": 475.0,
    "Acrobot-v1": -100.0,
    "MountainCarContinuous-v0": 90.0,
    "Pendulum-v1": -200.0,
    "InvertedPendulum-v5": 950.0,
    "LunarLanderContinuous-v3": 200.0,
    "Swimmer-v5": 340.0,
    "Hopper-v5": 3000.0,
    "HalfCheetah-v5": 4000.0,
    "Walker2d-v5": 3000.0,
}
COLUMNS = (
    "environment",
    "preset",
    "budget",
    "seeds",
    "IQM [95 % interval]",
    "worst",
    "median",
    "best",
    "reached",
)


def line(env: str, preset: str, rows: list[dict[str, Any]]) -> str:
    """One row of the table."""
    returns = np.array([row["mean_return"] for row in rows])
    seeds = [row["seed"] for row in rows]
    spread = bootstrap_interval([returns])
    interval = f" [{spread.low:,.1f}, {spread.high:,.1f}]" if len(rows) > 1 else ""
    reached = f"{(returns >= REACH[env]).sum()} of {len(rows)} ≥ {REACH[env]:g}"
    cells = (
        env,
        preset,
        f"{rows[0]['budget']:,}",
        f"{min(seeds)}-{max(seeds)}" if len(rows) > 1 else str(seeds[0]),
        f"{spread.value:,.1f}{interval}",
        *(f"{number:,.1f}" for number in (returns.min(), np.median(returns), returns.max())),
        reached,
        f"{max(row['steps'] for row in rows):,}",
        *(f"{np.median([row[name] for row in rows]):.0f}" for name in ("seconds", "cpu_seconds")),
    )
    return f"| {' | '.join(cells)} |"


def main(presets: list[str]) -> None:
    """Print the rows of ``presets``, all of them if there are none."""
    groups = defaultdict(list)
    for row in map(json.loads, FILE.read_text().splitlines()):
        if not presets or row["preset"] in presets:
            groups[row["env"], row["preset"], row["budget"]].append(row)
    columns = (*COLUMNS, "steps", "seconds", "CPU seconds")
    print(f"| {' | '.join(columns)} |\n| {' | '.join('---' for _ in columns)} |")
    known = list(REACH)
    for (env, preset, _), rows in sorted(groups.items(), key=lambda item: (known.index(item[0][0]), item[0][1:])):
        print(line(env, preset, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
