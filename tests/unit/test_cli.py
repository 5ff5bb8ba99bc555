"""The command line: what it writes, what it says, and how it fails."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import esopt
from esopt import cli
from esopt.cli.app import app
from esopt.cli.display import Display, duration
from esopt.rl import Policy, Progress, evaluate, read_progress
from esopt.rl.training import train

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--generations", "2", "--final-episodes", "3", "--seed", "5"]
FILES = {"policy.npz", "curve.png", "progress.csv", "checkpoint.npz", "run.json"}


def run(*arguments: str, command: str = "train") -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command line in this process."""
    result = CliRunner().invoke(app, [command, *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_module_trains_writes_and_says_where(tmp_path):
    command = [sys.executable, "-m", "esopt.cli", "train", *QUICK]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "COLUMNS": "60", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    folder = tmp_path / "runs" / "CartPole-v1"
    policy = Policy.load(folder / "policy.npz")
    returns, _ = evaluate(policy, "CartPole-v1", 3, seed=5)

    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == FILES
    assert f"mean return {returns.mean():.2f} over 3 held-out episodes, 95 % confidence interval [" in done.stdout
    assert f"lowest {returns.min():.2f}" in done.stdout
    assert "Played by compiled episodes: this id has a compiled world." in done.stdout
    assert re.search(r"^policy +runs/CartPole-v1/policy\.npz$", done.stdout, re.MULTILINE)
    assert re.search(r"^curve +runs/CartPole-v1/curve\.png$", done.stdout, re.MULTILINE)
    assert re.search(r"^generation +1  centre .* mean .* best .* steps .* steps/s .* snr .* left", done.stdout, re.M)
    assert policy.about["seed"] == 5
    assert read_progress(folder / "progress.csv")["generation"].tolist() == [1.0, 2.0]


def test_equal_seeds_write_equal_files(tmp_path):
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert run("CartPole-v1", *QUICK[:-1], seed, "--out", str(tmp_path / name))[0] == 0
    files = {name: (tmp_path / name / "policy.npz").read_bytes() for name in "abc"}

    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


def test_resume_goes_on_to_the_bits_of_one_run(tmp_path):
    first, whole = tmp_path / "first", tmp_path / "whole"
    rest = ["--final-episodes", "3", "--seed", "5"]
    assert run(*QUICK, "--out", str(first))[0] == 0
    assert run("--generations", "5", *rest, "--out", str(first), "--resume")[0] == 0
    assert run("--generations", "5", *rest, "--out", str(whole))[0] == 0

    assert (first / "policy.npz").read_bytes() == (whole / "policy.npz").read_bytes()
    status, _, error = run("--generations", "5", *rest, "--out", str(tmp_path / "none"), "--resume")
    assert (status, "there is no run to resume" in error) == (2, True)


def test_resume_needs_no_option_twice(tmp_path):
    first, whole = str(tmp_path / "first"), str(tmp_path / "whole")
    options = ["Pendulum-v1", "--final-episodes", "3", "--seed", "5", "--preset", "ars", "--n", "4"]
    assert run(*options, "--steps", "2000", "--out", first)[0] == 0
    status, out, _ = run("--out", first, "--resume")
    assert (status, "There was nothing left to train." in out, "seed 5" in out) == (0, True, True)
    assert run("--out", first, "--resume", "--generations", "5")[0] == 0
    assert run("--out", first, "--resume", "--steps", "9000")[0] == 0
    assert run(*options, "--steps", "9000", "--out", whole)[0] == 0

    assert (tmp_path / "first" / "policy.npz").read_bytes() == (tmp_path / "whole" / "policy.npz").read_bytes()
    status, _, error = run("CartPole-v1", "--out", first, "--resume")
    assert (status, "holds a run of Pendulum-v1, which cannot go on with CartPole-v1" in error) == (2, True)
    (tmp_path / "first" / "run.json").write_text("[1]")
    status, _, error = run("--out", first, "--resume")
    assert (status, "does not hold the options of a run. Remove it, and repeat" in error) == (2, True)


def test_a_second_run_says_where_the_first_one_is(tmp_path, caplog):
    for _ in range(2):
        assert run(*QUICK, "--out", str(tmp_path))[0] == 0
    assert "held another run. It is kept there, as checkpoint.old.npz, policy.old.npz" in caplog.text
    assert (tmp_path / "run.old.json").read_bytes() == (tmp_path / "run.json").read_bytes()


def test_options_reach_the_run(tmp_path, monkeypatch):
    seen = {}

    def spy(env, **settings):
        seen.update(settings, env=env)
        return train(env, **settings)

    monkeypatch.setattr("esopt.rl.training.train", spy)
    status, out, _ = run(
        *("Pendulum-v1", "--seed", "3", "--steps", "3.3e3", "--n", "6", "--sigma", "0.5", "--workers", "2"),
        *("--final-episodes", "2", "--strategy", "openai_es", "--target", "-1", "--out", str(tmp_path / "x")),
        *("--policy", "mlp:8,4:relu", "--no-normalise", "--bonus", "0.5", "--episodes-per-candidate", "2"),
        *("--episode-steps", "50", "--action-noise", "0.1", "--path", "compiled"),
        *("--check-episodes", "3", "--searches", "2"),
    )

    assert status == 0
    assert (seen["env"], seen["seed"], seen["steps"], seen["workers"]) == ("Pendulum-v1", 3, 3300, 2)
    assert (seen["final_episodes"], seen["target"], "generations" in seen) == (2, -1.0, False)
    assert (seen["normalise"], seen["bonus"], seen["episodes_per_candidate"]) == ("off", 0.5, 2)
    assert (seen["episode_steps"], seen["action_noise"], seen["path"]) == (50, 0.1, "compiled")
    assert (seen["check_episodes"], seen["searches"]) == (3, 2)
    assert seen["policy"] == Policy.mlp(8, 4, activation="relu")
    assert repr(seen["strategy"]) == repr(esopt.openai_es(n=6, sigma=0.5, lr=0.15))
    assert Policy.load(tmp_path / "x" / "policy.npz").hidden == (8, 4)
    assert "The target, -1, was not reached" in out


def test_growing_episodes_are_announced(tmp_path):
    """A best candidate of 50 steps below a centre of 200 is no contradiction."""
    small = ["--steps", "100", "--final-episodes", "1", "--out", str(tmp_path)]
    said = [run("Pendulum-v1", *small, *more)[1] for more in ((), ("--episode-steps", "40"), ("--preset", "ars"))]

    assert "Candidates play episodes of 50 steps at first, of 200 in the end" in said[0]
    assert "Candidates play episodes of 10 steps at first, of 40 in the end" in said[1]
    assert "Candidates play" not in said[2]


def test_presets_reach_the_run(tmp_path, monkeypatch):
    seen = {}

    def spy(env, **settings):
        seen.update(settings)
        raise ValueError("far enough")

    monkeypatch.setattr("esopt.rl.training.train", spy)
    assert run("Hopper-v5", "--preset", "ars", "--steps", "10", "--out", str(tmp_path / "x"))[0] == 2
    assert repr(seen["strategy"]) == repr(esopt.ars(n=16, top=4, sigma=0.025, lr=0.01))
    assert (seen["bonus"], seen["normalise"], seen["steps"]) == (1.0, "running", 10)
    assert run("Hopper-v5", "--preset", "ars", "--n", "32", "--bonus", "0", "--out", str(tmp_path / "x"))[0] == 2
    assert repr(seen["strategy"]) == repr(esopt.ars(n=32, top=8, sigma=0.025, lr=0.01))
    assert seen["bonus"] == 0.0


def test_evaluate_plays_what_training_never_saw(tmp_path):
    assert run(*QUICK, "--out", str(tmp_path))[0] == 0
    policy = Policy.load(tmp_path / "policy.npz")
    returns, steps = evaluate(policy, "CartPole-v1", 20, seed=1)
    for place in (tmp_path, tmp_path / "policy.npz"):
        status, out, _ = run(str(place), "--episodes", "20", "--seed", "1", command="evaluate")
        assert status == 0
        assert f"CartPole-v1: mean return {returns.mean():.2f} over 20 held-out episodes, 95 % conf" in out
        assert f"{steps:,} environment steps in " in out

    status, _, error = run(str(tmp_path / "nowhere"), command="evaluate")
    assert (status, "there is no policy at" in error) == (2, True)
    (tmp_path / "policy.npz").write_bytes(b"PK but no policy")
    status, _, error = run(str(tmp_path), command="evaluate")
    assert (status, "is no policy that this version can read" in error) == (2, True)
    policy.save(tmp_path / "policy.npz")
    status, _, error = run(str(tmp_path), "--env", "Pendulum-v1", "--episodes", "2", command="evaluate")
    assert (status, "Pendulum-v1" in error) == (2, True)


def test_render_says_what_it_needs(tmp_path, monkeypatch):
    assert run(*QUICK, "--out", str(tmp_path))[0] == 0
    monkeypatch.setattr("esopt.rl.video.find_spec", lambda name: None)
    status, _, error = run(str(tmp_path), command="render")

    assert status == 2
    assert 'a .mp4 file needs moviepy. Install the extra "render"' in error
    assert run(str(tmp_path), "--out", "video.avi", command="render")[2].startswith("esopt: render() got video.avi.")


ERRORS = {
    "unknown id": (["CartPol-v1"], r"Did you mean CartPole-v1"),
    "unsupported space": (["Blackjack-v9"], r"no environment Blackjack-v9"),
    "odd n": (["--strategy", "ars", "--n", "7"], "even number, got n=7"),
    "bad sigma": (["--sigma", "-1"], "sigma must be "),
    "huge seed": (["--seed", str(10**23)], r"seed must be in \[0, 2\*\*64\)"),
    "bad strategy": (["--strategy", "cma"], "Pass ars, cmaes, openai_es or pgpe"),
    "bad preset": (["--preset", "arz"], "there is no preset 'arz'. Did you mean ars"),
    "bad policy": (["--policy", "mlp"], "Pass linear, mlp:64,64"),
    "bad path": (["--path", "fast"], "path must be one of auto, compiled, workers, process, envpool"),
    "sigma of a preset": (["--preset", "pgpe", "--sigma", "1"], "--sigma goes with --strategy"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_users_can_mend_is_one_message(tmp_path, monkeypatch, case: str):
    monkeypatch.chdir(tmp_path)
    arguments, message = ERRORS[case]
    status, _, error = run(*arguments)

    assert status == 2
    assert re.search(message, error)
    assert error.startswith("esopt: ")
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_counts_may_be_written_with_an_exponent():
    status, _, error = run("--steps", "1.5")

    assert (status, "1.5 is no positive whole number" in error) == (2, True)


def test_out_is_checked_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("esopt.rl.training.train", lambda *a, **k: pytest.fail("trained for nothing"))
    (tmp_path / "file").write_text("")
    status, _, error = run("--out", str(tmp_path / "file" / "deeper"))

    assert status == 2
    assert "is a file" in error


def test_interrupt_before_the_end_is_said(tmp_path, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("esopt.rl.training.train", interrupted)
    status, _, error = run("--out", str(tmp_path / "x"))

    assert status == 130
    assert "nothing was written" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pieces", [0, 2])
def test_interrupt_in_the_final_evaluation_keeps_the_policy(tmp_path, monkeypatch, pieces: int):
    from esopt.rl.engine import CompiledEngine
    from esopt.rl.environments import FINAL

    count = 0

    def play(self, thetas, seeds, **how):
        nonlocal count
        count += int(seeds[0, 0]) in FINAL
        if count > pieces:
            raise KeyboardInterrupt
        return real(self, thetas, seeds, **how)

    real = CompiledEngine.play
    monkeypatch.setattr(CompiledEngine, "play", play)
    status, out, _ = run("--generations", "2", "--final-episodes", "35", "--out", str(tmp_path))
    policy = Policy.load(tmp_path / "policy.npz")

    assert status == 0
    assert f"The final evaluation was cut short after {10 * pieces} of 35 episodes." in out
    assert ("mean return" in out) == (pieces > 0)
    assert "2 generations, 28 evaluations," in out
    assert (tmp_path / "curve.png").exists()
    assert (policy.about["episodes"], policy.about["mean_return"] is None) == (10 * pieces, pieces == 0)


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
import esopt

def f(x, parent=os.getpid(), folder=sys.argv[1], busy=sys.argv[2] == "busy"):
    if os.getpid() != parent:
        open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(60.0 if busy else 0.05)  # so that both workers get something to do
    return 0.0

def pause(step):
    try:
        time.sleep(60.0)
    finally:
        time.sleep(0.5)  # for what idle workers may have to say

def interrupt():
    while len(os.listdir(sys.argv[1])) < 2:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(0, signal.SIGINT)

if __name__ == "__main__":  # workers import this file
    threading.Thread(target=interrupt, daemon=True).start()
    print(sorted(esopt.minimize(f, np.ones(3), workers=2, callback=pause).reason))
    for name in os.listdir(sys.argv[1]):
        try:
            os.kill(int(name), 0)
            print("alive", name)
        except ProcessLookupError:
            pass
"""


@pytest.mark.parametrize("workers", ["busy", "idle"])
def test_ctrl_c_in_a_terminal_ends_the_workers_at_once_and_silently(tmp_path, workers: str):
    """A terminal sends SIGINT to every process; the workers leave it to the first."""
    (tmp_path / "pids").mkdir()
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "pids"), workers],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == ("['interrupted']\n", "")
    assert time.perf_counter() - begun < 50.0


def test_missing_extra_is_one_message(monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name in ("rich", "matplotlib") else True)
    with pytest.raises(SystemExit) as stopped:
        cli.main()

    assert stopped.value.code == 1
    assert 'needs rich, matplotlib. Install the extra "cli"' in capsys.readouterr().err


def shown(terminal: bool) -> str:
    """What the display writes for three generations, the first with a check."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, soft_wrap=True)
    with Display(console, {"steps": 29_000, "generations": None}) as display:
        display.show(Progress(1, 16, 4_000, 1_000, 2.0, 21.5, 99.25, 33.5, 0.75))
        display.show(Progress(2, 32, 8_000, 1_000, 3.0, 25.5, 199.0, np.nan, np.inf))
        display.show(Progress(3, 48, 12_000, 1_000, 4.0, 25.5, 188.0, np.nan, np.inf))
    return console.file.getvalue()


def test_display_without_a_terminal_is_a_line_per_check():
    (line,) = shown(terminal=False).splitlines()

    assert line.split() == (
        "generation 1 centre 33.5 mean 21.5 best 99.2 steps 5,000 steps/s 2,500 snr 0.75 left -".split()
    )


def test_display_on_a_terminal_is_live():
    text = shown(terminal=True)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).strip().splitlines()[-1].split()

    assert "\x1b[?25l" in text  # hides the cursor while the table is redrawn
    # 8,000 of 29,000 steps in the 2 seconds since the first generation; 16,000 are left
    assert last == ["3", "33.5", "25.5", "199.0", "13,000", "4,000", "-", "4s"]


def test_durations():
    assert [duration(s) for s in (0.2, 59.4, 187.0, 7500.0, np.nan)] == ["0s", "59s", "3m07s", "2h05m", "-"]
