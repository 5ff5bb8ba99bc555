"""Train presets on environments over seeds, and keep each finished run as a line of results/rl_preset.jsonl.

    python benchmarks/rl_preset.py Swimmer-v5 default 0 20 --steps 275e3 --final 20

trains seeds 0 to 19, but for those that the file already has for this preset, environment and budget: what was cut off
goes on when it is started again. Steps that checks of the centre take are part of a run; the last check comes after the
budget, so that one of 275,000 keeps a run on Swimmer below 300,000 steps in all.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

from _bench import fingerprint

from esopt.rl import preset, train

FILE = Path(__file__).parent / "results" / "rl_preset.jsonl"
KEYS = ("env", "preset", "budget", "seed")


def main() -> None:
    """Train what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env")
    parser.add_argument("preset")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--steps", type=float, required=True)
    parser.add_argument("--final", type=int, default=100, help="episodes of the final evaluation")
    parser.add_argument("--file", type=Path, default=FILE)
    args = parser.parse_args()
    settings = preset(args.preset, args.env).settings() | {"steps": int(args.steps), "target": math.inf}
    lines = args.file.read_text().splitlines() if args.file.exists() else []
    done = {tuple(row.get(name) for name in KEYS) for row in map(json.loads, lines)}
    commit = str(fingerprint()["commit"])
    for seed in range(args.first, args.last):
        if (args.env, args.preset, int(args.steps), seed) in done:
            continue
        began, cpu = time.perf_counter(), time.process_time()
        run = train(args.env, **settings, seed=seed, final_episodes=args.final, workers=1)
        row = {
            "env": args.env,
            "preset": args.preset,
            "seed": seed,
            "budget": int(args.steps),
            "mean_return": round(run.mean, 3),
            "std": round(float(run.returns.std()), 3),
            "episodes": run.returns.size,
            "steps": run.steps + run.check_steps,
            "check_steps": run.check_steps,
            "generations": run.result.generations,
            "reason": ", ".join(run.reason),
            "settings": str(settings["strategy"]),
            "commit": commit,
            "hidden": list(run.policy.hidden),
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
        }
        with args.file.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
