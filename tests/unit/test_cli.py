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
from esopt.rl import Policy, Progress, evaluate
from esopt.rl.training import train

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--generations", "2", "--episodes", "3", "--seed", "5"]


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command line in this process."""
    result = CliRunner().invoke(cli.build_app(), ["train", *arguments])
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
    assert {path.name for path in folder.iterdir()} == {"policy.npz", "curve.png"}
    assert f"mean return {returns.mean():.2f} over 3 held-out episodes, 95 % confidence interval [" in done.stdout
    assert f"lowest {returns.min():.2f}" in done.stdout
    assert re.search(r"^policy +runs/CartPole-v1/policy\.npz$", done.stdout, re.MULTILINE)
    assert re.search(r"^curve +runs/CartPole-v1/curve\.png$", done.stdout, re.MULTILINE)
    assert re.search(r"^generation +1  best .* mean .* evaluations +16 .* steps/s .* snr ", done.stdout, re.MULTILINE)
    assert policy.about["seed"] == 5


def test_equal_seeds_write_equal_files(tmp_path):
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert run("CartPole-v1", *QUICK[:-1], seed, "--out", str(tmp_path / name))[0] == 0
    files = {name: (tmp_path / name / "policy.npz").read_bytes() for name in "abc"}

    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


def test_options_reach_the_run(tmp_path, monkeypatch):
    seen = {}

    def spy(env, **settings):
        seen.update(settings, env=env)
        return train(env, **settings | {"workers": 1})

    monkeypatch.setattr("esopt.rl.training.train", spy)
    status, out, _ = run(
        *("Pendulum-v1", "--seed", "3", "--steps", "3300", "--n", "6", "--sigma", "0.5", "--workers", "2"),
        *("--episodes", "2", "--strategy", "openai_es", "--target", "-1", "--out", str(tmp_path / "x")),
    )

    assert status == 0
    assert (seen["env"], seen["seed"], seen["steps"], seen["workers"]) == ("Pendulum-v1", 3, 3300, 2)
    assert (seen["episodes"], seen["target"], seen["generations"]) == (2, -1.0, None)
    assert repr(seen["strategy"]) == repr(esopt.openai_es(n=6, sigma=0.5, lr=0.15))
    assert (tmp_path / "x" / "policy.npz").exists()
    assert "The target, -1, was not reached" in out


@pytest.mark.parametrize("name", ["ars", "openai_es", "pgpe"])
def test_strategies_have_sigma_as_their_unit(name: str):
    """Twice the sigma is the same search on twice the scale, weight decay aside."""
    means = []
    for sigma in (0.5, 1.0):
        es = esopt.Optimizer(cli.named_strategy(name, 16, sigma), np.zeros(6), seed=2)
        for _ in range(5):
            es.tell([((x / sigma - 1.0) ** 2).sum() for x in es.ask()])
        means.append(es.mean)

    assert np.abs(means[0]).max() > 0.05
    np.testing.assert_allclose(means[1], 2.0 * means[0], rtol=0.02)


ERRORS = {
    "unknown id": (["CartPol-v1"], r"Did you mean: `CartPole`"),
    "unsupported space": (["FrozenLake-v1"], r"observation space is Discrete\(16\)"),
    "odd n": (["--n", "7"], "even number, got n=7"),
    "bad sigma": (["--sigma", "-1"], "sigma must be "),
    "huge seed": (["--seed", str(10**23)], r"seed must be in \[0, 2\*\*64\)"),
    "bad strategy": (["--strategy", "cma"], "Pass ars, openai_es or pgpe"),
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


@pytest.mark.parametrize("played", [0, 2])
def test_interrupt_in_the_final_evaluation_keeps_the_policy(tmp_path, monkeypatch, played: int):
    from esopt.rl import rollout

    count = 0

    def play(env, act, seed, max_steps=None):
        nonlocal count
        count += seed in rollout.FINAL
        if count > played:
            raise KeyboardInterrupt
        return real(env, act, seed, max_steps)

    real = rollout.play
    monkeypatch.setattr(rollout, "play", play)
    status, out, _ = run(*QUICK, "--out", str(tmp_path))
    policy = Policy.load(tmp_path / "policy.npz")

    assert status == 0
    assert f"The final evaluation was cut short after {played} of 3 episodes." in out
    assert ("mean return" in out) == (played > 0)
    assert "2 generations, 32 evaluations," in out
    assert (tmp_path / "curve.png").exists()
    assert (policy.about["episodes"], policy.about["mean_return"] is None) == (played, played == 0)


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
    """What the display writes for two generations, the first with a check."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, soft_wrap=True)
    with cli.Display(console) as display:
        display.show(Progress(1, 16, 4_000, 1_000, 2.0, 21.5, 99.25, 33.5, 0.75))
        display.show(Progress(2, 32, 8_000, 1_000, 3.0, 25.5, 199.0, np.nan, np.inf))
    return console.file.getvalue()


def test_display_without_a_terminal_is_a_line_per_check():
    (line,) = shown(terminal=False).splitlines()

    assert line.split() == (
        "generation 1 best 99.2 mean 21.5 centre 33.5 evaluations 16 steps 4,000 steps/s 2,500 snr 0.75".split()
    )


def test_display_on_a_terminal_is_live():
    text = shown(terminal=True)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).strip().splitlines()[-1].split()

    assert "\x1b[?25l" in text  # hides the cursor while the table is redrawn
    assert last == ["2", "199.0", "25.5", "33.5", "32", "8,000", "4,000", "-"]
