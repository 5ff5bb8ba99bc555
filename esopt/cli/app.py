"""The commands and their options; needs typer, so that :func:`esopt.cli.main` imports it when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import commands
from .tables import SeveralValues
from .tables import table as print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _whole(text: str) -> int:
    """Return a positive whole number, which may be written as 5e6."""
    number = float(text)
    if number != int(number) or number < 1:
        raise typer.BadParameter(f"{text} is no positive whole number.")
    return int(number)


def _option(help: str, *names: str, least: float | None = None) -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(*names, help=help, min=least)
    return info


ENV = typer.Argument(help="A gymnasium id.", show_default=True)
RUN = typer.Argument(help="A folder that train wrote, or a policy.npz.")
POLICY = _option("linear, mlp:64,64, mlp:64,64:relu or rnn:16. (default: what the preset says)")
STRATEGY = _option("ars, cmaes, openai_es or pgpe, with --n and --sigma, in place of the preset's.")
N = _option("Candidates per generation, an even number.", "--n", least=2)
SIGMA = _option("Standard deviation of the search, with --strategy or the presets default and orthogonal.")
STEPS = typer.Option(
    parser=_whole,
    metavar="N",
    help="Budget of environment steps, those of checks included; a generation that is begun is finished. "
    "(default: 1000 episodes of full length)",
)
EPISODES = typer.Option(parser=_whole, metavar="N", help="Budget of episodes of candidates.")
TARGET = _option(
    "Stop when the mean return of a check reaches this; inf for never. (default: go on beyond the environment's own "
    "threshold until checks get no better)"
)
BONUS = _option("Subtracted from the reward of every step in training. (default: the preset's)")
NORMALISE = typer.Option("--normalise/--no-normalise", help="Normalise observations. (default: the preset's)")
TIMEOUT = _option("Seconds after which an episode counts as hung; its worker process is killed.")
WORKERS = _option("Threads or processes that play; changes no result. (default: all cores, or no process)", least=1)
WAY = _option("auto, compiled, workers, process or envpool.", "--path")
OUT = _option("Folder for policy.npz, curve.png, progress.csv, checkpoint.npz and run.json. (default: runs/ENV)")
CHECKS = _option("Episodes of a check of the centre. (default: the preset's, by budget in the preset default)", least=1)
SEARCHES = _option("Searches that share the steps, one after another. (default: the preset's)", least=1)
CUT = _option(
    "Cut of an episode in training and checks; ten times that in the evaluation if there is no other limit.", least=1
)
RUNS = _option("File for finished runs, one line each; those that are there are not trained again.")
GROW = _option("Let each population grow until its episodes took so many steps.", least=1)
EVENTS = _option("Folder for event files of TensorBoard; needs the extra tensorboard.")
RESUME = typer.Option(
    "--resume", help="Go on with the run in the folder, bit for bit, with its options where none are given."
)


@app.callback()
def esopt() -> None:
    """Evolution strategies from the command line."""


@app.command()
def train(
    ctx: typer.Context,
    env: Annotated[str, ENV] = "CartPole-v1",
    preset: Annotated[
        str, _option("default, ars, orthogonal, pgpe or openai-es: settings with their sources.")
    ] = "default",
    strategy: Annotated[str | None, STRATEGY] = None,
    policy: Annotated[str | None, POLICY] = None,
    n: Annotated[int | None, N] = None,
    sigma: Annotated[float | None, SIGMA] = None,
    seed: Annotated[int, _option("Equal seeds give equal policies.", least=0)] = 0,
    steps: Annotated[int | None, STEPS] = None,
    episodes: Annotated[int | None, EPISODES] = None,
    generations: Annotated[int | None, _option("Budget of generations.", least=1)] = None,
    seconds: Annotated[float | None, _option("Budget of seconds.")] = None,
    target: Annotated[float | None, TARGET] = None,
    bonus: Annotated[float | None, BONUS] = None,
    normalise: Annotated[bool | None, NORMALISE] = None,
    action_noise: Annotated[float, _option("Standard deviation of noise on the policy's outputs in training.")] = 0.0,
    episodes_per_candidate: Annotated[int | None, _option("Episodes whose returns are averaged.", least=1)] = None,
    check_episodes: Annotated[int | None, CHECKS] = None,
    searches: Annotated[int | None, SEARCHES] = None,
    steps_per_generation: Annotated[int | None, GROW] = None,
    episode_steps: Annotated[int | None, CUT] = None,
    final_episodes: Annotated[int, _option("Episodes of the final evaluation.", least=1)] = 100,
    workers: Annotated[int | None, WORKERS] = None,
    path: Annotated[str, WAY] = "auto",
    episode_timeout: Annotated[float | None, TIMEOUT] = None,
    out: Annotated[Path | None, OUT] = None,
    tensorboard: Annotated[Path | None, EVENTS] = None,
    resume: Annotated[bool, RESUME] = False,
) -> None:
    """Train a policy on ENV, evaluate it on episodes it never saw, and save it with its learning curve."""
    options = {name: value for name, value in ctx.params.items() if name not in ("out", "tensorboard", "resume")}
    chosen = {name for name in options if getattr(ctx.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"}
    raise typer.Exit(commands.train(options, chosen, out=out, events=tensorboard, resume=resume))


@app.command()
def evaluate(
    run: Annotated[Path, RUN],
    episodes: Annotated[int, _option("Episodes.", least=1)] = 100,
    seed: Annotated[int, _option("Of the episodes; training never plays them.", least=0)] = 0,
    env: Annotated[str | None, _option("A gymnasium id. (default: what the policy was trained on)")] = None,
    workers: Annotated[int | None, WORKERS] = None,
    path: Annotated[str, WAY] = "auto",
) -> None:
    """Play a trained policy on episodes that training never saw: mean return and its 95 % interval."""
    raise typer.Exit(commands.evaluate(run, env, episodes, seed, workers, path))


@app.command()
def render(
    run: Annotated[Path, RUN],
    out: Annotated[Path | None, _option("A file .mp4 or .gif. (default: RUN/video.mp4)")] = None,
    episodes: Annotated[int, _option("Episodes, one after the other.", least=1)] = 1,
    seed: Annotated[int, _option("Of the episodes.", least=0)] = 0,
    steps: Annotated[int | None, _option("Cut of an episode.", least=1)] = None,
    env: Annotated[str | None, _option("A gymnasium id. (default: what the policy was trained on)")] = None,
) -> None:
    """Write a video of a trained policy; no display is needed."""
    raise typer.Exit(commands.render(run, env, out, episodes, seed, steps))


@app.command(cls=SeveralValues)
def table(
    envs: Annotated[list[str], _option("Gymnasium ids, one or more.", "--envs")],
    presets: Annotated[list[str], _option("Names of presets, one or more.", "--presets")] = ["default"],  # noqa: B006
    seeds: Annotated[int, _option("Seeds of each environment and preset.", least=1)] = 10,
    first_seed: Annotated[int, _option("The first of them.", least=0)] = 0,
    steps: Annotated[int | None, STEPS] = None,
    final_episodes: Annotated[int, _option("Episodes of the evaluation of a run.", least=1)] = 100,
    workers: Annotated[int | None, WORKERS] = None,
    path: Annotated[str, WAY] = "auto",
    out: Annotated[Path, RUNS] = Path("runs/table.jsonl"),
) -> None:
    """Train presets on environments with several seeds, and print the returns with their intervals as Markdown."""
    settings = {"final_episodes": final_episodes, "workers": workers, "path": path}
    raise typer.Exit(print_table(envs, presets, range(first_seed, first_seed + seeds), steps, out, settings))


@app.command()
def plot(
    file: Annotated[Path, typer.Argument(help="What minimize(history=FILE) wrote.")],
    out: Annotated[Path | None, _option("The picture. (default: FILE with the suffix .png)")] = None,
) -> None:
    """Draw a run: values, sigma and axis ratio, mean, eigenvalues, standard deviations."""
    raise typer.Exit(commands.plot(file, file.with_suffix(".png") if out is None else out))


@app.command()
def inspect(
    files: Annotated[list[Path], typer.Argument(help="Checkpoints, histories, policies, or folders that train wrote.")],
) -> None:
    """Say what files are: kind, versions, configuration, generation, best value, sizes. 1 if one is damaged."""
    from .inspection import inspect

    raise typer.Exit(inspect(files))
