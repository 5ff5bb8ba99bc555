"""The compiled classic control against gymnasium's: every step, from equal states."""

from __future__ import annotations

import math
import sys

import gymnasium as gym
import numpy as np
import pytest
from numba import njit
from scipy import stats

from esopt._kernels.sincos import JOINT, sincos
from esopt.rl import CLASSIC_CONTROL
from esopt.testing import ConformanceError, check_world

IDS = sorted(CLASSIC_CONTROL)
CHANGING = {"Acrobot-v1": 4, "CartPole-v1": 4, "MountainCar-v0": 2, "MountainCarContinuous-v0": 2, "Pendulum-v1": 2}

EPISODES = {"Acrobot-v1": 4, "CartPole-v1": 100, "MountainCar-v0": 8, "MountainCarContinuous-v0": 2, "Pendulum-v1": 8}
# numpy's float32 power is not always the rounded product.
REWARDS = {name: 1e-9 if name == "Pendulum-v1" else 1e-12 for name in IDS}


def put(env: gym.Env, state: np.ndarray):
    """Put gymnasium's environment into a world's state."""
    name = env.spec.id
    single = name == "MountainCarContinuous-v0" and state[3] != 0.0
    env.state = np.array(state[: CHANGING[name]], np.float32 if single else np.float64)
    env.steps_beyond_terminated = None


def spread(name: str, count: int) -> np.ndarray:
    """States from all over the space, walls and goals included."""
    rng = np.random.default_rng(3)
    limits = {
        "Acrobot-v1": [np.pi, np.pi, 4 * np.pi, 9 * np.pi],
        "CartPole-v1": [2.4, 3.0, 0.21, 3.0],
        "MountainCar-v0": [1.0, 0.07],
        "MountainCarContinuous-v0": [1.0, 0.07],
        "Pendulum-v1": [15.0, 8.0],
    }
    states = np.tile(CLASSIC_CONTROL[name]().new_state(), (count, 1))
    states[:, : CHANGING[name]] = rng.uniform(-1.0, 1.0, (count, CHANGING[name])) * limits[name]
    if name.startswith("MountainCar"):
        states[:, 0] = np.where(rng.random(count) < 0.3, rng.uniform(0.4, 0.6, count), states[:, 0] * 0.9 - 0.3)
    return states


@pytest.mark.parametrize("name", IDS)
def test_every_step_of_whole_episodes_is_gymnasiums(name: str):
    world = CLASSIC_CONTROL[name]()
    check_world(world, name, put, episodes=EPISODES[name], follow=True, reward_rtol=REWARDS[name])


@pytest.mark.parametrize("name", IDS)
def test_nothing_grows_where_nothing_is_put_right(name: str):
    steps = 40 if name == "Acrobot-v1" else None  # chaos doubles a rounding error in half a second
    check_world(CLASSIC_CONTROL[name](), name, put, episodes=2, steps=steps, rtol=1e-5, reward_rtol=1e-6)


@pytest.mark.parametrize("name", IDS)
def test_single_steps_from_anywhere_are_gymnasiums(name: str):
    world, states = CLASSIC_CONTROL[name](), spread(name, 500)
    check_world(world, name, put, states=states, episodes=0, steps=2, follow=True, reward_rtol=REWARDS[name])


@pytest.mark.parametrize("name", ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0"])
def test_some_of_these_states_end_episodes(name: str):
    world, ends = CLASSIC_CONTROL[name](), []
    for state in spread(name, 500):
        ends.append(world.step(state, np.ones(1), np.zeros(world.inputs))[1])
    assert 20 < sum(ends) < 480


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CartPole-v1", {"sutton_barto_reward": True}),
        ("MountainCar-v0", {"goal_velocity": 0.02}),
        ("MountainCarContinuous-v0", {"goal_velocity": 0.02}),
        ("Pendulum-v1", {"g": 9.81}),
    ],
)
def test_options_are_gymnasiums(name: str, options: dict):
    world = CLASSIC_CONTROL[name](**options)
    states = spread(name, 100)
    states[:, CHANGING[name] :] = world.new_state()[CHANGING[name] :]
    limits = {"follow": True, "steps": 20, "reward_rtol": REWARDS[name]}
    check_world(world, lambda: gym.make(name, **options), put, states=states, episodes=2, **limits)
    with pytest.raises(ConformanceError, match=r"(observations|rewards|ends) agree"):
        check_world(world, name, put, states=states, episodes=0, **limits)


@pytest.mark.parametrize("action", [-3.0, -1.0, 0.3, 1.0, 2.5])
def test_actions_beyond_the_bounds_are_clipped_where_gymnasium_clips(action: float):
    world, env = CLASSIC_CONTROL["MountainCarContinuous-v0"](), gym.make("MountainCarContinuous-v0").unwrapped
    env.reset(seed=0)
    state, observation = world.new_state(), np.zeros(2)
    world.reset(state, np.uint64(5), observation)
    put(env, state)
    for _ in range(300):
        reward, ended = world.step(state, np.array([np.float32(action)], np.float64), observation)
        seen, expected, terminated, _, _ = env.step(np.array([action], np.float32))
        assert ended == terminated
        np.testing.assert_allclose(observation, seen, rtol=3e-6, atol=1e-9)
        assert reward == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", IDS)
def test_start_states_have_gymnasiums_law(name: str):
    world, env, changing = CLASSIC_CONTROL[name](), gym.make(name).unwrapped, CHANGING[name]
    state, observation = world.new_state(), np.zeros(world.inputs)
    starts, seen, theirs = np.empty((4000, changing)), np.empty((4000, world.inputs)), np.empty((1500, changing))
    for seed in range(len(starts)):
        world.reset(state, np.uint64(seed), observation)
        starts[seed], seen[seed] = state[:changing], observation
    for seed in range(len(theirs)):
        env.reset(seed=seed)
        theirs[seed] = env.state
    for j in range(changing):
        assert stats.ks_2samp(starts[:, j], theirs[:, j]).pvalue > 1e-3
        width = np.ptp(theirs[:, j])
        assert starts[:, j].min() == pytest.approx(theirs[:, j].min(), abs=0.01 * width)
        assert starts[:, j].max() == pytest.approx(theirs[:, j].max(), abs=0.01 * width)
    moving = starts[:, np.ptp(starts, axis=0) > 0.0]
    correlation = np.corrcoef(moving.T) if moving.shape[1] > 1 else np.eye(1)
    assert np.abs(correlation - np.eye(moving.shape[1])).max() < 4 / np.sqrt(len(starts))
    assert (seen == seen.astype(np.float32)).all()


@pytest.mark.parametrize("name", IDS)
def test_spaces_are_gymnasiums(name: str):
    world, env = CLASSIC_CONTROL[name](), gym.make(name)
    assert (world.observation_space, world.action_space) == (env.observation_space, env.action_space)
    assert (world.name, world.max_steps) == (name, env.spec.max_episode_steps)


def test_sine_and_cosine_of_one_call_have_the_bits_of_two():
    assert JOINT or sys.platform != "linux"
    rng = np.random.default_rng(0)
    sizes = rng.choice([1e-9, 0.1, 1.0, 10.0, 1e6, 1e300], 20_000)
    numbers = np.concatenate([sizes * rng.standard_normal(20_000), [0.0, -0.0, 5e-324, np.inf, -np.inf, np.nan]])
    found = np.array([both(number) for number in numbers])
    expected = np.array([apart(number) for number in numbers])
    np.testing.assert_array_equal(found, expected)
    finite = np.isfinite(numbers)
    np.testing.assert_array_equal(np.signbit(found[finite]), np.signbit(expected[finite]))


@njit
def both(x):
    return sincos(x)


@njit
def apart(x):
    return math.sin(x), math.cos(x)
