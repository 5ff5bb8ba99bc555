"""Training: it learns, stops for the reasons it names, keeps its seeds apart, and repeats to the bit."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from scipy import stats

import esopt
from esopt.rl import Policy, Progress, draw_curve
from esopt.rl.rollout import CHECK, FINAL, TRAIN
from esopt.rl.training import PATIENCE, t_interval, train


class Aim(gym.Env):
    """One step: the reward is minus the squared distance of the action from 0.7, plus noise from the seed."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)

    def __init__(self, log: list, noise: float = 0.0, threshold: float | None = None):
        self.log, self.noise = log, noise
        self.spec = EnvSpec("Aim-v0", reward_threshold=threshold)

    def reset(self, *, seed=None, options=None):
        self.log.append(seed)
        self.shift = self.noise * ((seed * 2654435761) % 1000 / 999 - 0.5)
        return np.array([1.0]), {}

    def step(self, action):
        return np.array([1.0]), self.shift - float(action[0] - 0.7) ** 2, True, False, {}


def aim(**settings):
    """A factory of Aim environments and the seeds they were reset with."""
    log: list[int] = []
    return (lambda: Aim(log, **settings)), log


SMALL = dict(strategy=esopt.ars(n=8, sigma=0.1, lr=0.1), check_every=4, check_episodes=3, episodes=5)


def test_it_learns_and_counts():
    make, log = aim()
    shown: list[Progress] = []
    run = train(make, generations=40, callback=shown.append, **SMALL)

    assert run.mean > -0.01
    assert run.mean == pytest.approx(-((float(run.policy(np.array([1.0]))[0]) - 0.7) ** 2), rel=1e-12)
    assert run.history["mean_return"][1] < -0.4
    assert run.history["generation"].tolist() == list(range(41))
    assert run.history["evaluations"].tolist() == [8 * k for k in range(41)]
    assert run.history["steps"].tolist() == [16 + 8 * k for k in range(41)]  # 16 episodes of normalisation
    checked = np.isfinite(run.history["centre_return"])
    assert np.flatnonzero(checked).tolist() == [0, *range(1, 41, 4), 40]
    assert run.history["centre_return"][0] == pytest.approx(-0.49, rel=1e-12)  # where learning starts
    assert (run.steps, run.check_steps, run.evaluation_steps) == (16 + 320, 3 * 12, 5)
    assert len(log) == run.steps + run.check_steps + run.evaluation_steps + 1  # and the final mean of minimize()
    assert (run.history["best_return"][1:] >= run.history["mean_return"][1:]).all()
    assert [p.snr for p in shown] == run.history["snr"][1:].tolist()
    assert run.reason == {"generations": 40.0}
    assert np.isnan(run.target)


def test_seeds_of_training_checks_and_evaluation_never_meet():
    make, log = aim()
    train(make, generations=10, **SMALL)
    parts = {name: {seed for seed in log if seed in part} for name, part in (("t", TRAIN), ("c", CHECK), ("f", FINAL))}

    assert set(log) == parts["t"] | parts["c"] | parts["f"]
    assert log[-5:] == [seed for seed in log if seed in FINAL]
    assert len(parts["c"]) == 3 * 5  # generations 0, 1, 5, 9 and the end, other episodes each time
    assert len(parts["t"]) == 16 + 10 * 4 + 1  # a pair shares its seed


def test_centre_return_is_that_of_the_step_not_of_a_candidate():
    make, _ = aim()
    start = Policy.linear(make()).with_parameters([0.0, 0.2])
    seen = []
    run = train(make, policy=start, generations=1, callback=seen.append, **SMALL)
    centre = float(run.policy(np.array([1.0]))[0])

    assert seen[0].centre_return == pytest.approx(-((centre - 0.7) ** 2), rel=1e-12)
    assert run.steps == 8  # a policy that was given is not normalised again
    assert run.policy.mean.tolist() == [0.0]


def test_the_best_centre_is_returned_and_not_the_last():
    make, _ = aim()
    start = Policy.linear(make()).with_parameters([0.0, 0.7])  # the optimum; every step from here is a loss
    wild = dict(SMALL, strategy=esopt.ars(n=8, sigma=0.5, lr=0.5), check_every=1)
    run = train(make, policy=start, generations=12, **wild)
    centres = run.history["centre_return"]

    assert run.mean == pytest.approx(centres.max(), rel=1e-12)
    assert centres.max() > 2.0 * centres[-1]


def test_threshold_lets_it_settle():
    make, _ = aim(noise=0.2, threshold=-0.1)
    run = train(make, steps=100_000, **dict(SMALL, check_every=1))
    centres = run.history["centre_return"]
    best = int(centres.argmax())

    assert run.reason == {"settled": centres.max()}
    assert run.target == -0.1
    assert centres.max() >= -0.1
    assert len(centres) == best + 1 + PATIENCE  # the start is number 0


def test_target_stops_at_the_first_check_that_reaches_it():
    make, _ = aim(threshold=-1e-9)
    run = train(make, steps=100_000, target=-0.05, **dict(SMALL, check_every=1))
    centres = run.history["centre_return"]

    assert run.reason == {"target": centres[-1]}
    assert centres[-1] >= -0.05 > centres[:-1].max()


def test_steps_are_a_budget():
    make, _ = aim()
    run = train(make, steps=100, **SMALL)

    assert 100 <= run.steps < 100 + 8
    assert set(run.reason) == {"steps"}


@pytest.mark.parametrize(("error", "reason"), [(StopIteration, "callback"), (KeyboardInterrupt, "interrupted")])
def test_callback_may_stop_and_interrupts_keep_the_policy(error: type[BaseException], reason: str):
    make, _ = aim()

    def stop(progress: Progress) -> None:
        if progress.generation == 6:
            raise error

    run = train(make, generations=50, callback=stop, **SMALL)
    centres = run.history["centre_return"]

    assert set(run.reason) == {reason}
    assert run.history["generation"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert run.mean == pytest.approx(np.nanmax(centres), rel=1e-12)
    assert np.isnan(centres[6]) == (reason == "interrupted")  # who is waiting gets what is there


def interrupted(at: int, part: range, **settings):
    """A factory of Aim environments that interrupts when its ``at``-th episode of ``part`` begins."""
    log: list[int] = []

    class Interrupting(Aim):
        def reset(self, *, seed=None, options=None):
            if seed in part and sum(old in part for old in log) == at:
                log.append(seed)
                raise KeyboardInterrupt
            return super().reset(seed=seed, options=options)

    return lambda: Interrupting(log, **settings)


@pytest.mark.parametrize("played", [0, 1, 3])
def test_ctrl_c_in_the_final_evaluation_keeps_the_policy_and_what_was_evaluated(played: int, tmp_path):
    make, _ = aim(noise=0.2)
    whole = train(make, generations=5, **SMALL)
    run = train(interrupted(played, FINAL, noise=0.2), generations=5, **SMALL)

    assert run.policy.parameters.tolist() == whole.policy.parameters.tolist()
    assert run.returns.tolist() == whole.returns[:played].tolist()
    assert run.evaluation_steps == run.policy.about["episodes"] == played
    assert run.mean == pytest.approx(whole.returns[:played].mean() if played else np.nan, nan_ok=True)
    assert np.isnan(run.interval).all() == (played < 2)
    assert Policy.load(run.policy.save(tmp_path / "policy.npz")).about == run.policy.about


def test_ctrl_c_in_the_last_check_keeps_the_best_centre_so_far():
    run = train(interrupted(3 * 3, CHECK), generations=7, **SMALL)  # checks of generations 0, 1, 5, and 7 is the end
    centres = run.history["centre_return"]

    assert run.reason == {"generations": 7.0, "interrupted": 7.0}
    assert np.flatnonzero(np.isfinite(centres)).tolist() == [0, 1, 5]
    assert run.mean == pytest.approx(np.nanmax(centres), rel=1e-12)


def test_a_start_that_training_does_not_improve_on_is_returned():
    make, _ = aim()
    start = Policy.linear(make()).with_parameters([0.0, 0.7])
    wild = esopt.GradientES(sigma=0.5, n=8, sampler=esopt.Gaussian(), rule=esopt.SGD(1.0))
    run = train(make, policy=start, generations=3, **dict(SMALL, strategy=wild, check_every=1))

    assert run.policy.parameters.tolist() == [0.0, 0.7]
    assert run.history["centre_return"][0] == 0.0 > run.history["centre_return"][1:].max()


def test_equal_seeds_give_equal_bits():
    def bits(seed: int) -> tuple[bytes, bytes, bytes]:
        run = train("CartPole-v1", generations=4, episodes=4, check_episodes=2, seed=seed)
        return run.policy.parameters.tobytes(), run.returns.tobytes(), run.history["mean_return"].tobytes()

    first = bits(7)
    assert bits(7) == first
    assert all(a != b for a, b in zip(bits(8), first, strict=True))


def test_workers_change_no_bit():
    one, two = (train("CartPole-v1", generations=4, episodes=4, workers=w, seed=1) for w in (1, 2))

    assert two.result.evaluator == "Joblib"
    assert two.policy.parameters.tobytes() == one.policy.parameters.tobytes()
    assert two.returns.tobytes() == one.returns.tobytes()
    for name in set(Progress._fields) - {"seconds"}:
        assert two.history[name].tobytes() == one.history[name].tobytes(), name


def test_cartpole_reaches_500_from_scratch():
    """The main job, with nothing but defaults: every one of 100 episodes that it never saw lasts to the end."""
    run = train("CartPole-v1")

    assert run.returns.tolist() == [500.0] * 100
    assert run.interval == (500.0, 500.0)
    assert set(run.reason) == {"settled"}
    assert run.history["mean_return"][1] < 60.0
    assert run.history["centre_return"][0] < 20.0
    assert run.steps < 500_000
    assert run.policy.about["env"] == "CartPole-v1"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("Acrobot-v1", -100.0), ("MountainCarContinuous-v0", 90.0)])
def test_other_environments_reach_their_threshold(name: str, least: float):
    run = train(name, seed=3)

    assert run.target == least
    assert run.mean > least


def test_interval_is_students():
    sample = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    expected = stats.t.interval(0.95, 4, loc=sample.mean(), scale=stats.sem(sample))

    np.testing.assert_allclose(t_interval(sample), expected, rtol=1e-12)
    assert t_interval(np.full(9, 2.0)) == (2.0, 2.0)
    assert np.isnan(t_interval(np.ones(1))).all()


class Reading(gym.Env):
    """An observation that no policy can use."""

    observation_space, action_space = gym.spaces.Text(5), gym.spaces.Discrete(2)


def test_bad_arguments():
    make, _ = aim()
    for name in ("workers", "episodes", "check_every", "check_episodes"):
        for value in (0, 1.5, True):
            with pytest.raises(ValueError, match=f"{name} must be a positive whole number, got {value!r}"):
                train(make, **{name: value})
    for seed, kind in ((-1, ValueError), (2**64, ValueError), (0.5, TypeError)):
        with pytest.raises(kind, match="seed must be"):
            train(make, seed=seed)
    with pytest.raises(gym.error.NameNotFound, match="Did you mean: `CartPole`"):
        train("CartPol-v1")
    with pytest.raises(ValueError, match=r"observation space is, or contains, Text"):
        train(Reading)


def test_a_failing_environment_is_an_error_that_names_the_candidate():
    class Broken(Aim):
        def step(self, action):
            if len(self.log) > 30:
                raise RuntimeError("no physics today")
            return super().step(action)

    log: list[int] = []
    with pytest.raises(esopt.EvaluationError, match="no physics today"):
        train(lambda: Broken(log), generations=50, policy=Policy.linear(Aim(log)), **SMALL)


def test_curve_draws_the_history(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (figures.append(self), save(self, path)))
    history = {
        "steps": np.array([10.0, 20.0, 30.0]),
        "mean_return": np.array([1.0, 2.0, 3.0]),
        "best_return": np.array([4.0, 5.0, 6.0]),
        "centre_return": np.array([1.5, np.nan, 3.5]),
    }
    path = draw_curve(history, tmp_path / "curve.png", title="a title", target=2.5)
    axes = figures[0].axes[0]
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}

    assert path.read_bytes().startswith(b"\x89PNG")
    assert drawn["mean of the candidates"] == ([10, 20, 30], [1, 2, 3])
    assert drawn["best candidate"] == ([10, 20, 30], [4, 5, 6])
    assert drawn["centre, held out"] == ([10, 30], [1.5, 3.5])
    assert drawn["target 2.5"][1] == [2.5, 2.5]
    assert axes.get_title() == "a title"
    draw_curve(history, tmp_path / "again.png", title="a title", target=2.5)
    assert (tmp_path / "again.png").read_bytes() == path.read_bytes()


def test_face_of_the_package():
    import esopt.rl

    assert esopt.rl.__all__ == sorted(esopt.rl._HOMES)
    for name, home in esopt.rl._HOMES.items():
        assert getattr(esopt.rl, name).__module__ == f"esopt.rl.{home}"
    with pytest.raises(AttributeError, match="has no attribute 'Polcy'"):
        esopt.rl.Polcy
