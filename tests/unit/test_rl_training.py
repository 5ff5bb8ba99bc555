"""Training: it learns, stops for the reasons it names, keeps its seeds apart, resumes, and repeats to the bit."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

import esopt
from esopt.noise import child
from esopt.rl import CLASSIC_CONTROL, Moments, Policy, Progress, draw_curve, evaluate, preset, read_progress
from esopt.rl.environments import CHECK, FINAL, TRAIN, episode_seeds
from esopt.rl.evaluation import t_interval
from esopt.rl.training import PATIENCE, train
from tests.reference.environments import Aim, Troubled, Walk, pyramid

ROOT = Path(__file__).resolve().parents[2]


def aim(**settings):
    """A factory of Aim environments and the seeds they were reset with."""
    log: list[int] = []
    return (lambda: Aim(log, **settings)), log


SMALL = dict(
    strategy=esopt.ars(n=8, sigma=0.1, lr=0.1), check_every=4, check_episodes=3, final_episodes=5, normalise="off"
)


def test_it_learns_and_counts():
    make, log = aim()
    shown: list[Progress] = []
    run = train(make, generations=40, callback=shown.append, **SMALL)

    assert run.mean > -0.01
    assert run.mean == pytest.approx(-((float(run.policy(np.array([1.0]))[0]) - 0.7) ** 2), rel=1e-12)
    assert run.history["mean_return"][0] < -0.4
    assert run.history["generation"].tolist() == list(range(1, 41))
    assert run.history["evaluations"].tolist() == [8 * k for k in range(1, 41)]
    assert run.history["steps"].tolist() == [8 * k for k in range(1, 41)]
    checked = np.isfinite(run.history["centre_return"])
    assert np.flatnonzero(checked).tolist() == list(range(0, 40, 4))
    assert run.checks["generation"].tolist() == [*range(0, 40, 4), 40]
    assert run.checks["mean_return"][:-1].tolist() == run.history["centre_return"][checked].tolist()
    assert run.checks["mean_return"][0] == pytest.approx(-0.49, rel=1e-12)  # where learning starts
    assert (run.steps, run.check_steps, run.evaluation_steps) == (320, 3 * 11, 5)
    assert len(log) == run.steps + run.check_steps + run.evaluation_steps
    assert (run.history["best_return"] >= run.history["mean_return"]).all()
    assert [p.snr for p in shown] == run.history["snr"].tolist()
    assert run.reason == {"generations": 40.0}
    assert np.isnan(run.target)
    assert run.path.startswith("gymnasium, in this process: it is a function")


def test_seeds_of_training_checks_and_evaluation_never_meet():
    make, log = aim()
    train(make, generations=10, **SMALL)
    parts = {name: {seed for seed in log if seed in part} for name, part in (("t", TRAIN), ("c", CHECK), ("f", FINAL))}

    assert set(log) == parts["t"] | parts["c"] | parts["f"]
    assert log[-5:] == [seed for seed in log if seed in FINAL]
    assert len(parts["c"]) == 3 * 4  # generations 0, 4, 8 and the end, other episodes each time
    assert len(parts["t"]) == 10 * 4  # a pair shares its seed


def test_the_best_centre_is_returned_and_not_the_last():
    make, _ = aim()
    start = Policy.linear(make()).with_parameters([0.0, 0.7])  # the optimum; every step from here is a loss
    wild = dict(SMALL, strategy=esopt.ars(n=8, sigma=0.5, lr=0.5), check_every=1)
    run = train(make, policy=start, generations=12, **wild)
    centres = run.checks["mean_return"]

    assert run.mean == pytest.approx(centres.max(), rel=1e-12)
    assert centres.max() > 2.0 * centres[-1]


def test_it_prints_as_a_table():
    make, _ = aim(threshold=-10.0)
    run = train(make, generations=30, **dict(SMALL, check_every=1))
    lines = dict(line.strip().split(": ", 1) for line in str(run).splitlines())

    assert lines["mean"] == f"{run.mean:.6g}, 95 % interval [{run.mean:.6g}, {run.mean:.6g}], over 5 held-out episodes"
    assert lines["reason"].startswith("checks beyond the target got no better (settled=")
    assert lines["steps"] == f"{run.steps}, {run.check_steps} of checks, 5 of the final evaluation"
    assert (lines["strategy"], lines["path"]) == (run.policy.about["strategy"], run.path)
    assert "failures" not in lines
    cut = replace(run, returns=run.returns[:0], interval=(np.nan, np.nan))
    assert "mean: nan, over 0 held-out episodes" in str(cut)


def test_threshold_lets_it_settle():
    make, _ = aim(noise=0.2, threshold=-0.1)
    run = train(make, steps=100_000, **dict(SMALL, check_every=1))
    centres = run.checks["mean_return"][:-1]  # the last centre is looked at after the decision
    best = int(centres.argmax())

    assert run.reason == {"settled": centres.max()}
    assert run.target == -0.1
    assert centres.max() >= -0.1
    assert len(centres) == best + 1 + PATIENCE


def test_target_stops_at_the_first_check_that_reaches_it():
    make, _ = aim(threshold=-1e-9)
    run = train(make, steps=100_000, target=-0.05, **dict(SMALL, check_every=1))
    centres = run.checks["mean_return"][:-1]

    assert run.reason == {"target": centres[-1]}
    assert centres[-1] >= -0.05 > centres[:-1].max()


def test_an_infinite_target_leaves_it_to_the_budget():
    make, _ = aim(threshold=-10.0)

    assert set(train(make, generations=30, target=np.inf, **dict(SMALL, check_every=1)).reason) == {"generations"}
    assert set(train(make, generations=30, **dict(SMALL, check_every=1)).reason) == {"settled"}


def test_budgets():
    make, _ = aim()
    run = train(make, steps=100, **SMALL)
    assert 100 <= run.history["steps"][-1] + run.history["check_steps"][-1] < 100 + 8 + 3  # checks are paid for
    assert set(run.reason) == {"steps"}

    run = train(make, episodes=100, episodes_per_candidate=2, **SMALL)
    assert (run.steps, set(run.reason)) == (96, {"evaluations"})

    run = train(make, seconds=0.05, **SMALL)
    assert set(run.reason) == {"seconds"}


def test_options_reach_the_episodes():
    start = dict(policy=Policy.linear(Walk()), strategy=esopt.ars(n=4), generations=2, final_episodes=3)
    settings = dict(start, episodes_per_candidate=3, episode_steps=2, bonus=1.0, check_episodes=4, check_every=1)
    run = train(lambda: gym.wrappers.TimeLimit(Walk(), 10), **settings)

    assert (run.steps, run.check_steps) == (2 * 4 * 3 * 2, 3 * 4 * 2)
    assert run.evaluation_steps > 3 * 2  # the final evaluation is of whole episodes
    assert run.history["best_return"].max() <= pyramid(2)
    assert run.result.evaluator == "Rollouts"


def test_an_environment_without_an_end_is_cut_in_the_final_evaluation_too():
    class Endless(Walk):
        def step(self, action):
            return np.zeros(2, np.float32), 1.0, False, False, {}

    run = train(Endless, episode_steps=20, generations=2, final_episodes=3)
    limited = train(lambda: gym.wrappers.TimeLimit(Endless(), 30), episode_steps=20, generations=2, final_episodes=3)

    assert run.returns.tolist() == [200.0] * 3
    assert limited.returns.tolist() == [30.0] * 3


def test_the_normalisation_comes_with_the_policy():
    run = train("Pendulum-v1", generations=4, check_episodes=2, final_episodes=4, check_every=1, seed=2)
    at = int(run.checks["mean_return"].argmax())
    seeds = episode_seeds([child(2, int(run.checks["generation"][at]))], 2, CHECK)[0]
    act, env = run.policy, gym.make("Pendulum-v1")
    again = train("Pendulum-v1", generations=4, check_episodes=2, final_episodes=4, check_every=1, seed=2)

    assert at > 0
    assert (act.std != 1.0).all()
    assert again.policy.folded.tobytes() == act.folded.tobytes()
    assert seeds.size == 2
    env.close()
    given = Moments.of(np.array([[0.0, 0.0, 0.0], [2.0, 4.0, 6.0]]))
    run = train("Pendulum-v1", generations=1, check_episodes=1, final_episodes=1, normalise=given)
    assert (run.policy.mean.tolist(), run.policy.std.tolist()) == ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(("error", "reason"), [(StopIteration, "callback"), (KeyboardInterrupt, "interrupted")])
def test_callback_may_stop_and_interrupts_keep_the_policy(error: type[BaseException], reason: str):
    make, _ = aim()

    def stop(progress: Progress) -> None:
        if progress.generation == 6:
            raise error

    run = train(make, generations=50, callback=stop, **SMALL)
    centres = run.checks["generation"].tolist()

    assert run.reason == {reason: 6.0}
    assert centres == ([0, 4, 6] if reason == "callback" else [0, 4])  # nobody waits for a look at the last centre
    assert run.returns.size == 5
    assert run.mean == pytest.approx(run.checks["mean_return"].max(), rel=1e-12)


def bits(run) -> tuple:
    history = {name: run.history[name].tobytes() for name in Progress._fields if name != "seconds"}
    return run.policy.folded.tobytes(), run.returns.tobytes(), history, {k: v.tobytes() for k, v in run.checks.items()}


SHORT = dict(generations=4, final_episodes=4, check_episodes=2)


def test_equal_seeds_give_equal_bits():
    first = bits(train("CartPole-v1", seed=7, **SHORT))

    assert bits(train("CartPole-v1", seed=7, **SHORT)) == first
    assert all(a != b for a, b in zip(bits(train("CartPole-v1", seed=8, **SHORT))[:3], first, strict=False))


@pytest.mark.parametrize("path", ["compiled", "workers"])
def test_workers_change_no_bit(path: str):
    runs = [train("CartPole-v1", workers=w, path=path, seed=1, **SHORT) for w in (1, 2, 3)]
    if path == "workers":
        runs.append(train("CartPole-v1", path="process", seed=1, **SHORT))
        assert runs[1].path == "gymnasium, in 2 worker processes: it was asked for"

    for run in runs[1:]:
        assert bits(run) == bits(runs[0])


def test_a_finished_run_can_go_on(tmp_path):
    short, whole = tmp_path / "short", tmp_path / "whole"
    train("CartPole-v1", out=short, **SHORT)
    resumed = train("CartPole-v1", out=short, resume=True, **SHORT | {"generations": 8})
    once = train("CartPole-v1", out=whole, **SHORT | {"generations": 8})

    assert bits(resumed) == bits(once)
    for name in ("policy.npz", "curve.png"):
        assert (short / name).read_bytes() == (whole / name).read_bytes()
    written = read_progress(short / "progress.csv")
    assert {name: written[name].tobytes() for name in written} == {k: v.tobytes() for k, v in resumed.history.items()}
    assert {path.name for path in whole.iterdir()} == {"policy.npz", "curve.png", "progress.csv", "checkpoint.npz"}


def test_what_a_finished_run_ended_with_is_not_lost_when_it_goes_on(tmp_path):
    make, _ = aim()
    wild = dict(SMALL, strategy=esopt.ars(n=8, sigma=0.5, lr=0.5), check_every=100)
    short, whole = (train(make, generations=generations, **wild) for generations in (5, 8))
    train(make, generations=5, out=tmp_path, **wild)
    resumed = train(make, generations=8, out=tmp_path, resume=True, **wild)
    again = train(make, generations=8, out=tmp_path, resume=True, **wild)

    assert short.checks["mean_return"][-1] > whole.checks["mean_return"].max()
    assert resumed.mean == short.mean > whole.mean
    assert Policy.load(tmp_path / "policy.npz").about["check_return"] == short.checks["mean_return"][-1]
    assert resumed.result.mean.tobytes() == whole.result.mean.tobytes()
    assert bits(again) == bits(resumed)
    assert bits(resumed)[2:] == bits(whole)[2:]


def test_averages_of_centres_survive_a_restart_and_depend_on_no_thread(tmp_path):
    settings = preset("orthogonal", "CartPole-v1").settings() | {"check_every": 3, "target": np.inf, "seed": 4}
    once = train("CartPole-v1", **settings, generations=8, final_episodes=3, workers=1)
    train("CartPole-v1", **settings, generations=5, final_episodes=3, out=tmp_path)
    resumed = train("CartPole-v1", **settings, generations=8, final_episodes=3, workers=3, out=tmp_path, resume=True)
    averages = [run.result.evaluator_state.average for run in (once, resumed)]

    assert bits(resumed) == bits(once)
    assert averages[0].tobytes() == averages[1].tobytes()
    assert np.abs(averages[0] - once.result.mean).max() > 1e-3


def test_a_new_run_keeps_all_of_the_ones_before_and_says_so(tmp_path, caplog):
    def contents(mark: str) -> dict[str, bytes]:
        return {name: (tmp_path / name.replace(".", f"{mark}.", 1)).read_bytes() for name in names}

    train("CartPole-v1", out=tmp_path, seed=3, checkpoint_seconds=0.0, **SHORT)
    assert not caplog.records
    names = [path.name for path in tmp_path.iterdir()]
    first = contents("")
    assert {"checkpoint.npz", "checkpoint.npz.previous", "policy.npz", "progress.csv", "curve.png"} == set(names)
    train("CartPole-v1", out=tmp_path, seed=2, checkpoint_seconds=0.0, **SHORT)
    assert "held another run. It is kept there, as checkpoint.old.npz, checkpoint.old.npz.previous, pol" in caplog.text
    second = contents("")
    train("CartPole-v1", out=tmp_path, seed=1, **SHORT)

    assert "as checkpoint.old2.npz, checkpoint.old2.npz.previous, policy.old2.npz," in caplog.text
    assert (contents(".old"), contents(".old2")) == (first, second)
    assert len(read_progress(tmp_path / "progress.csv")["generation"]) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")
def test_a_folder_is_for_one_run_at_a_time(tmp_path):
    settings = SHORT | {"generations": 2, "out": tmp_path / "run"}
    before = []

    def second(row) -> None:
        before.append({path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()})
        for resume in (False, True):
            with pytest.raises(ValueError, match=r"a run is writing to .*run at this moment.*another folder"):
                train("CartPole-v1", seed=1, resume=resume, **settings)
        assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before[-1]

    train("CartPole-v1", callback=second, checkpoint_seconds=0.0, **settings)
    assert len(before) == 2

    def fails(row) -> None:
        raise RuntimeError("of the callback's own")

    with pytest.raises(RuntimeError, match="callback's own"):
        train("CartPole-v1", seed=2, callback=fails, **settings)
    train("CartPole-v1", seed=1, **settings)  # neither an end nor a failure leaves the folder locked
    assert (tmp_path / "run" / "policy.old.npz").exists()


def test_a_run_has_no_policy_of_another_one_that_came_into_its_folder(tmp_path):
    other = []

    def meanwhile(progress):
        if not other:
            settings = SHORT | {"generations": 60, "strategy": esopt.ars(n=8)}
            other.append(train("CartPole-v1", **settings).policy)
            other[0].save(tmp_path / "policy.npz")

    slow = SHORT | {"strategy": esopt.ars(n=8, sigma=1e-9, lr=1e-9)}
    run = train("CartPole-v1", out=tmp_path, callback=meanwhile, **slow)

    assert run.policy.about["check_return"] < 200.0 < other[0].about["check_return"]


def test_a_run_that_a_checkpoint_of_its_own_continues_keeps_its_folder(tmp_path):
    file, out = tmp_path / "own.npz", tmp_path / "run"
    train("CartPole-v1", out=out, checkpoint=file, **SHORT)
    run = train("CartPole-v1", out=out, checkpoint=file, **SHORT | {"generations": 8})

    assert run.history["generation"].tolist() == list(range(1, 9))
    assert sorted(path.name for path in out.iterdir()) == ["curve.png", "policy.npz", "progress.csv"]


def test_only_the_run_of_a_folder_is_resumed(tmp_path):
    train("CartPole-v1", out=tmp_path, seed=1, **SHORT)
    with pytest.raises(esopt.CheckpointError, match="seed: 1 in the file, 2 here"):
        train("CartPole-v1", out=tmp_path, seed=2, resume=True, **SHORT)
    with pytest.raises(ValueError, match="holds a run of CartPole-v1, which cannot go on with Pendulum-v1"):
        train("Pendulum-v1", out=tmp_path, resume=True, **SHORT)
    with pytest.raises(FileNotFoundError, match="there is no run to resume in"):
        train("CartPole-v1", out=tmp_path / "none", resume=True, **SHORT)
    with pytest.raises(ValueError, match="resume=True needs out="):
        train("CartPole-v1", resume=True, **SHORT)


KILLED = """
import sys
from esopt.rl import train
train("CartPole-v1", path="process", generations=14, check_episodes=2, final_episodes=4, seed=3, out=sys.argv[1],
      checkpoint_seconds=0.0, callback=lambda progress: print(progress.generation, flush=True))
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_run_that_was_killed_resumes_to_the_same_bits(tmp_path, how: str):
    settings = dict(path="process", generations=14, check_episodes=2, final_episodes=4, seed=3)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path
    ) as run:
        for line in run.stdout:
            if int(line) == 5:
                break
        run.send_signal(getattr(signal, how))
        run.stdout.read()
    assert run.returncode == (-signal.SIGKILL if how == "SIGKILL" else 0)
    resumed = train("CartPole-v1", out=tmp_path / "killed", resume=True, **settings)
    whole = train("CartPole-v1", **settings)

    assert 5 <= len(resumed.history["generation"]) <= 14
    assert resumed.history["generation"][-1] == 14
    assert (resumed.policy.folded.tobytes(), resumed.returns.tobytes()) == (
        whole.policy.folded.tobytes(),
        whole.returns.tobytes(),
    )
    assert {k: v.tobytes() for k, v in resumed.checks.items()} == {k: v.tobytes() for k, v in whole.checks.items()}


def test_evaluation_is_held_out_and_repeatable():
    log: list[int] = []
    policy = Policy.linear(Walk()).with_parameters([0, 0, 0, 0, 0, 1.0])
    returns, steps = evaluate(policy, lambda: Walk(log), episodes=25, seed=4)

    assert log == episode_seeds([child(4, 0)], 25, FINAL)[0].tolist()
    assert returns.tolist() == [pyramid(3 + seed % 4) for seed in log]
    assert steps == sum(3 + seed % 4 for seed in log)
    np.testing.assert_array_equal(evaluate(policy, Walk, 25, 4)[0], returns)
    other: list[int] = []
    evaluate(policy, lambda: Walk(other), episodes=20, seed=5)
    assert set(other).isdisjoint(log)


def test_cartpole_reaches_500_from_scratch():
    """The main job, with nothing but defaults: every one of 100 episodes that it never saw lasts to the end."""
    run = train("CartPole-v1")

    assert run.returns.tolist() == [500.0] * 100
    assert run.interval == (500.0, 500.0)
    assert set(run.reason) == {"settled"}
    assert run.history["mean_return"][0] < 60.0
    assert run.checks["mean_return"][0] < 20.0
    assert run.steps + run.check_steps < 520_000
    assert run.policy.about["env"] == "CartPole-v1"
    assert run.path.startswith("compiled episodes")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("Acrobot-v1", -100.0), ("MountainCarContinuous-v0", 90.0)])
@pytest.mark.parametrize("path", ["auto", "process"])
def test_other_environments_reach_their_threshold(name: str, least: float, path: str):
    run = train(name, seed=3, path=path)

    assert run.target == least
    assert run.mean > least


def test_interval_is_students():
    sample = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    expected = stats.t.interval(0.95, 4, loc=sample.mean(), scale=stats.sem(sample))

    np.testing.assert_allclose(t_interval(sample), expected, rtol=1e-12)
    assert t_interval(np.full(9, 2.0)) == (2.0, 2.0)
    assert np.isnan(t_interval(np.ones(1))).all()


def test_bad_arguments():
    make, _ = aim()
    for name in ("check_episodes", "final_episodes"):
        for value in (0, 1.5, True):
            with pytest.raises(ValueError, match=f"{name} must be a positive whole number, got {value!r}"):
                train(make, **{name: value})
    for name, value in (("workers", 0), ("check_every", 0), ("steps", 0), ("episodes", 0), ("seconds", 0.0)):
        with pytest.raises(ValueError, match=f"{name} must be (a )?positive"):
            train(make, **{name: value})
    for seed, kind in ((-1, ValueError), (2**64, ValueError), (0.5, TypeError)):
        with pytest.raises(kind, match="seed must be"):
            train(make, seed=seed)
    with pytest.raises(ValueError, match="Did you mean CartPole-v1"):
        train("CartPol-v1")
    with pytest.raises(TypeError, match="policy must be a Policy, got str"):
        train(make, policy="linear")


BAD = {
    "seconds": [np.nan, -1, 0.0],
    "steps": ["x", 1.5, np.nan],
    "generations": [0, 1.5],
    "episodes": [-1, "x"],
    "checkpoint_seconds": [-1],
    "strategy": ["x", esopt.GradientES(sigma=0.1, estimator=esopt.Bonnet())],
    "target": ["475", np.nan],
    "callback": [3],
    "checkpoint": [3, ""],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_a_bad_argument_leaves_the_folder_as_it_is(tmp_path, name: str, value: object):
    for file in ("checkpoint.npz", "policy.npz", "progress.csv"):
        (tmp_path / file).write_text("of an earlier run")
    with pytest.raises((TypeError, ValueError), match=f"{name} (is|must)|the strategy needs gradients"):
        train("CartPole-v1", out=tmp_path, **SHORT | {name: value})
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.npz", "policy.npz", "progress.csv"}
    assert {path.read_text() for path in tmp_path.iterdir()} == {"of an earlier run"}


def test_a_checkpoint_of_another_run_leaves_the_folder_as_it_is(tmp_path):
    train("CartPole-v1", out=tmp_path / "a", **SHORT)
    train("CartPole-v1", out=tmp_path / "b", **SHORT)
    with pytest.raises(esopt.CheckpointError, match="seed: 0 in the file, 1 here"):
        train("CartPole-v1", out=tmp_path / "a", seed=1, checkpoint=tmp_path / "b" / "checkpoint.npz", **SHORT)
    assert len(list((tmp_path / "a").iterdir())) == 4


def test_budgets_may_be_whole_floats():
    make, _ = aim()
    settings = SMALL | {"check_every": None}
    assert train(make, steps=1e2, episodes=1e3, generations=50.0, **settings).reason.keys() == {"steps"}
    assert train(make, steps=np.inf, episodes=np.inf, generations=3, **settings).reason == {"generations": 3.0}


def test_unsupported_spaces_and_policies_of_other_environments():
    class Words(Aim):
        observation_space = gym.spaces.Text(5)

    with pytest.raises(ValueError, match="the observation space is, or contains, Text"):
        train(lambda: Words([]))
    with pytest.raises(ValueError, match=r"the policy is for .* but Pendulum-v1 has .* made for this environment"):
        train("Pendulum-v1", policy=Policy.linear(gym.make("CartPole-v1")))


def test_a_failing_environment_is_an_error_that_names_the_seed_or_is_counted():
    settings = dict(generations=5, final_episodes=2, check_episodes=2, seed=1)
    with pytest.raises(
        esopt.EvaluationError, match=r"of seed \d+, raised ZeroDivisionError in step 2: no physics today"
    ):
        train(lambda: Troubled("raises", every=5), **settings)
    run = train(lambda: Troubled("raises", every=5), on_error="nan", **settings)

    assert 0 < run.result.failures["exception"] < 30
    assert run.reason == {"generations": 5.0}


def test_a_failure_in_the_final_evaluation_does_not_lose_the_policy(tmp_path):
    class Late(Walk):
        def step(self, action):
            if self.seed in FINAL:
                raise RuntimeError("no more")
            return super().step(action)

    with pytest.raises(esopt.EvaluationError, match="raised RuntimeError in step 1: no more"):
        train(Late, generations=3, out=tmp_path)
    policy = Policy.load(tmp_path / "policy.npz")

    assert (policy.about["episodes"], policy.about["generations"], policy.about["mean_return"]) == (0, 3, None)


def test_curve_draws_the_history(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (figures.append(self), save(self, path)))
    history = {
        "steps": np.array([10.0, 20.0, 30.0]),
        "check_steps": np.array([0.0, 1.0, 1.0]),
        "mean_return": np.array([1.0, 2.0, 3.0]),
        "best_return": np.array([4.0, 5.0, 6.0]),
        "centre_return": np.array([1.5, np.nan, 3.5]),
    }
    path = draw_curve(history, tmp_path / "curve.png", title="a title", target=2.5)
    axes = figures[0].axes[0]
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}

    assert path.read_bytes().startswith(b"\x89PNG")
    assert drawn["mean of the candidates"] == ([10, 21, 31], [1, 2, 3])
    assert drawn["best candidate"] == ([10, 21, 31], [4, 5, 6])
    assert drawn["centre, held out"] == ([10, 31], [1.5, 3.5])
    assert drawn["target 2.5"][1] == [2.5, 2.5]
    assert axes.get_title() == "a title"
    draw_curve(history, tmp_path / "again.png", title="a title", target=2.5)
    assert (tmp_path / "again.png").read_bytes() == path.read_bytes()
    draw_curve(history, tmp_path / "growing.png", growing=True)
    labels = [line.get_label() for line in figures[-1].axes[0].lines]
    assert ["shorter episodes at first" in label for label in labels] == [True, True, False]


def test_face_of_the_package():
    import esopt.rl

    assert esopt.rl.__all__ == sorted(esopt.rl._HOMES)
    for name, home in esopt.rl._HOMES.items():
        found, at = getattr(esopt.rl, name), f"esopt.rl.{home}"
        assert found is getattr(importlib.import_module(at), name)
        assert getattr(found, "__module__", at) in (at, "esopt._kernels.draws")
    with pytest.raises(AttributeError, match="has no attribute 'Polcy'"):
        esopt.rl.Polcy


def test_a_world_trains_like_its_id():
    settings = dict(generations=3, check_episodes=2, final_episodes=3, workers=1)
    world, name = (train(env, **settings) for env in (CLASSIC_CONTROL["Pendulum-v1"](), "Pendulum-v1"))

    assert world.path == "compiled episodes: it is a World"
    assert bits(world) == bits(name)
    assert world.policy.about["env"] == "Pendulum-v1"
    blind = replace(CLASSIC_CONTROL["Pendulum-v1"](), spaces=None)
    with pytest.raises(ValueError, match="the World Pendulum-v1 does not say its spaces"):
        train(blind, **settings)
    start = Policy.linear(gym.make("Pendulum-v1"))
    assert bits(train(blind, policy=start, **settings)) == bits(name)


def test_mujoco_is_compiled_and_normalised():
    pytest.importorskip("mujoco")
    settings = dict(generations=2, check_episodes=1, final_episodes=1, episode_steps=20, strategy=esopt.ars(n=4))
    compiled, plain = (train("Swimmer-v5", path=path, **settings) for path in ("auto", "process"))

    assert compiled.path.startswith("compiled episodes: ")
    assert compiled.steps == plain.steps == 2 * 4 * 20
    assert (compiled.policy.std != 1.0).any()
