"""Episodes of EnvPool: a function of parameters and seed alone, and of gymnasium's law."""

from __future__ import annotations

import importlib.util

import gymnasium as gym
import numpy as np
import pytest

import esopt
from esopt.rl import GymEngine, Policy, Rules, choose_engine, train
from esopt.rl.envpool import EnvPoolEngine

NEEDED = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="envpool is not installed")
BOX2D = pytest.mark.skipif(importlib.util.find_spec("Box2D") is None, reason="Box2D is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting")  # EnvPool's spaces
CARTPOLE = Policy.linear(gym.make("CartPole-v1"))


def some(policy: Policy, m: int, e: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((m, policy.dim)), rng.integers(0, 2**31, (m, e))


@NEEDED
def test_bits_depend_on_parameters_and_seeds_alone():
    thetas, seeds = some(CARTPOLE, 30, 4)
    engine = EnvPoolEngine("CartPole-v1", CARTPOLE, threads=1)
    whole = engine.play(thetas, seeds)
    again = EnvPoolEngine("CartPole-v1", CARTPOLE, threads=2).play(thetas[::-1], seeds[::-1])
    for first, second in zip(whole[:4], again[:4], strict=True):
        np.testing.assert_array_equal(first, second[::-1])
    alone = engine.play(thetas[7:8], seeds[7:8, 2:3])
    assert (alone.returns[0, 0], alone.lengths[0, 0]) == (whole.returns[7, 2], whole.lengths[7, 2])
    np.testing.assert_array_equal(whole.returns, whole.lengths)  # a reward of 1 a step, none of a next episode
    assert len(np.unique(whole.lengths)) > 20
    assert engine.play(thetas, seeds, longest=9).lengths.max() == 9


@NEEDED
def test_episodes_have_gymnasiums_law():
    rng = np.random.default_rng(1)
    thetas, seeds = np.repeat(rng.standard_normal((1, CARTPOLE.dim)), 300, axis=0), np.arange(300)[:, None]
    ours = EnvPoolEngine("CartPole-v1", CARTPOLE).play(thetas, seeds)
    theirs = GymEngine("CartPole-v1", CARTPOLE).play(thetas, seeds)
    for name in ("returns", "sums", "squares"):
        a, b = (getattr(played, name).reshape(300, -1) for played in (ours, theirs))
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 300)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4.0 * error).all()


@NEEDED
def test_noise_cut_and_sums():
    thetas, seeds = some(CARTPOLE, 8, 2)
    quiet = EnvPoolEngine("CartPole-v1", CARTPOLE).play(thetas, seeds)
    loud = EnvPoolEngine("CartPole-v1", CARTPOLE, rules=Rules(12, 2.0))
    assert loud.play(thetas, seeds).lengths.max() == 12
    assert not np.array_equal(loud.play(thetas, seeds).returns, np.minimum(quiet.returns, 12.0))
    np.testing.assert_array_equal(loud.play(thetas, seeds, quiet=True).returns, np.minimum(quiet.returns, 12.0))
    np.testing.assert_array_equal(quiet.counts, quiet.lengths.sum(axis=1))
    assert (np.square(quiet.sums) <= quiet.counts[:, None] * quiet.squares * (1.0 + 1e-12)).all()


@NEEDED
def test_training_with_it():
    settings = dict(path="envpool", generations=3, final_episodes=4, strategy=esopt.ars(n=8), seed=1)
    first, second = (train("CartPole-v1", workers=workers, **settings) for workers in (1, 2))
    assert first.path == "EnvPool, on threads: it was asked for"
    assert first.policy.parameters.tobytes() == second.policy.parameters.tobytes()


@NEEDED
def test_what_it_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"EnvPool has no environment 'CartPole-v7'. Did you mean CartPole-v1"):
        choose_engine("CartPole-v7", CARTPOLE, path="envpool")
    with pytest.raises(ValueError, match=r"EnvPool has no environment"):
        choose_engine(lambda: gym.make("CartPole-v1"), CARTPOLE, path="envpool")
    with pytest.raises(ValueError, match=r"but EnvPool's Acrobot-v1 has"):
        choose_engine("Acrobot-v1", CARTPOLE, path="envpool")


@NEEDED
@BOX2D
@pytest.mark.parametrize("env", ["LunarLanderContinuous-v3", "BipedalWalker-v3"])
def test_box2d(env: str):
    policy = Policy.linear(gym.make(env))
    thetas, seeds = np.zeros((40, policy.dim)), np.arange(40)[:, None]
    ours = EnvPoolEngine(env, policy).play(thetas, seeds)
    theirs = GymEngine(env, policy).play(thetas, seeds)
    assert np.isfinite(ours.returns).all()
    error = np.sqrt((ours.returns.var() + theirs.returns.var()) / 40)
    assert abs(ours.returns.mean() - theirs.returns.mean()) < 4.0 * error


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("esopt.rl.envpool.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \"pyesopt\[envpool\]\""):
        choose_engine("CartPole-v1", CARTPOLE, path="envpool")
