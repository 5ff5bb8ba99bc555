"""A learned gait for README.md: train a policy, draw its learning curve, and film an episode that training never saw.

Change the arguments below, then run it in the environment that scripts/run makes: .venv/bin/python scripts/gait.py

Training is left out where the folder of the run has a policy already. Pictures need Pillow, and a library that draws
without a display (EGL or OSMesa); where they are missing the script says so before it trains.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esopt.rl import Policy, draw_curve, evaluate, make_env, preset, read_progress, render, train
from esopt.rl.video import check_rendering

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"


@dataclass(frozen=True)
class Arguments:
    """What is trained and filmed."""

    env: str = "HalfCheetah-v5"
    preset: str = "ars"
    steps: int = 2_000_000
    seed: int = 1
    workers: int | None = None  # threads; changes no bit
    frames: int = 60  # 20 a second
    width: int = 400
    height: int = 180
    camera: str = "track"
    run: Path = Path("runs/gait")
    film: Path = FIGURES / "gait.gif"
    curve: Path = FIGURES / "gait_curve.png"


def filmed(arguments: Arguments) -> Any:
    return make_env(
        arguments.env,
        render_mode="rgb_array",
        width=arguments.width,
        height=arguments.height,
        camera_name=arguments.camera,
    )


def main(arguments: Arguments) -> None:
    check_rendering(lambda: filmed(arguments))
    file = arguments.run / "policy.npz"
    if not file.exists():
        settings = {**preset(arguments.preset, arguments.env).settings(), "steps": arguments.steps}
        train(arguments.env, seed=arguments.seed, workers=arguments.workers, out=arguments.run, **settings)
    policy = Policy.load(file)
    returns, _ = evaluate(policy, arguments.env, seed=arguments.seed, workers=arguments.workers)
    what = f"{arguments.env}, {arguments.preset}, seed {arguments.seed}: {returns.mean():.0f}"
    title = f"{what} ± {np.std(returns, ddof=1):.0f} over {returns.size} held-out episodes"
    draw_curve(read_progress(arguments.run / "progress.csv"), arguments.curve, title=title)
    render(policy, lambda: filmed(arguments), arguments.film, max_steps=arguments.frames)
    for path in (arguments.curve, arguments.film):
        print(f"{path} {path.stat().st_size / 1e6:.2f} MB")
    print(title)


if __name__ == "__main__":
    try:
        main(Arguments())
    except (ModuleNotFoundError, RuntimeError) as error:
        sys.exit(f"gait.py: {error}")
