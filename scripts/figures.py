"""Draw the figures of README.md and docs/ into docs/figures/.

Run it in the environment that scripts/run makes: .venv/bin/python scripts/figures.py
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import esopt
from esopt.rl import draw_curve, train

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "figures"


@dataclass(frozen=True)
class Arguments:
    """What is drawn."""

    seeds: int = 5
    evaluations: int = 20_000
    dim: int = 10


def cartpole() -> None:
    run = train("CartPole-v1", seed=0)
    title = f"CartPole-v1, linear policy: {run.mean:.0f} over {run.returns.size} held-out episodes"
    draw_curve(run.history, FOLDER / "cartpole.png", checks=run.checks, title=title, target=run.target)


def convergence(arguments: Arguments) -> None:
    """f(mean) against evaluations for the named settings, all seeds, on two functions."""
    settings = {
        "openai_es(sigma=0.1)": esopt.openai_es(n=20, sigma=0.1, lr=0.03, weight_decay=0.0),
        "ars(sigma=0.1)": esopt.ars(n=20, sigma=0.1, lr=0.1),
        "pgpe()": esopt.pgpe(n=20, max_speed=0.1),
        "snes()": esopt.snes(),
    }
    problems = {"sum of squares": lambda x: (x**2).sum(), "sum of absolute values": lambda x: np.abs(x).sum()}
    figure = Figure(figsize=(9.0, 3.6), dpi=150, layout="constrained")
    for axes, (title, f) in zip(figure.subplots(1, 2), problems.items(), strict=True):
        for color, (name, strategy) in zip(("C0", "C1", "C2", "C3"), settings.items(), strict=True):
            for seed in range(arguments.seeds):
                steps: list[tuple[int, float]] = []
                esopt.minimize(
                    f,
                    np.full(arguments.dim, 3.0),
                    strategy=strategy,
                    evaluations=arguments.evaluations,
                    seed=seed,
                    callback=lambda step, f=f, steps=steps: steps.append((step.evaluations, f(step.mean))),
                )
                evaluations, values = np.array(steps).T
                axes.plot(evaluations, values, color=color, linewidth=0.8, label=None if seed else name)
        axes.set(yscale="log", ylim=(1e-12, None), title=f"{title}, d = {arguments.dim}", xlabel="evaluations")
        axes.set_xticks(np.linspace(0, arguments.evaluations, 5))
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("f(mean)")
    figure.axes[0].legend(frameon=False, fontsize="small")
    figure.savefig(FOLDER / "convergence.png")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    cartpole()
    convergence(Arguments())
