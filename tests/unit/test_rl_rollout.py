"""Episodes as an objective: values, steps, seeds, environments that are made once and closed."""

from __future__ import annotations

import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from esopt.noise import child
from esopt.rl import DiscreteActions, Episodes, Policy, evaluate, normalise
from esopt.rl.rollout import CHECK, FINAL, TRAIN, episode_seeds, make_env, play


class Walk(gym.Env):
    """Counts right (+1) and left (-1); ends after 3 to 6 steps, said by the seed; reward position * step."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, log: list | None = None):
        self.log = [] if log is None else log
        self.closed = False
        self.thread = threading.get_ident()

    def reset(self, *, seed=None, options=None):
        self.log.append(seed)
        self.length, self.position, self.time = 3 + seed % 4, 0, 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.time, 7.0], np.float32)

    def step(self, action):
        if threading.get_ident() != self.thread:
            raise RuntimeError("an environment was used by another thread")
        self.time += 1
        self.position += 1 if action == 1 else -1
        done = self.time >= self.length
        return self.observe(), np.float32(self.position * self.time), done and seed_even(self.length), done, {}

    def close(self):
        self.closed = True


def seed_even(length: int) -> bool:
    """Half of the episodes are terminated and truncated at once, half only truncated."""
    return length % 2 == 0


WALKER = Policy(np.zeros(6), DiscreteActions(2), ArrayObservations((2,)), np.zeros(2), np.ones(2))
RIGHT, LEFT = np.array([0, 0, 0, 0, 0, 1.0]), np.zeros(6)


def pyramid(length: int) -> int:
    """The return of going right all the time: 1 + 4 + 9 + ..."""
    return sum(k * k for k in range(1, length + 1))


def test_value_is_minus_the_mean_return():
    objective = Episodes(Walk, WALKER, episodes=3)  # seeds 5, 6, 7: lengths 4, 5, 6
    right, left = objective(RIGHT, 5), objective(LEFT, 5)

    assert right.value == -(pyramid(4) + pyramid(5) + pyramid(6)) / 3
    assert left.value == -right.value
    assert right.steps == left.steps == 4 + 5 + 6


def test_max_steps_cuts_episodes():
    assert Episodes(Walk, WALKER, 2, max_steps=4)(RIGHT, 2) == (-(pyramid(4) + pyramid(4)) / 2, 8)
    assert Episodes(Walk, WALKER, 1, max_steps=1)(RIGHT, 2) == (-1.0, 1)


def test_the_parts_of_the_seeds_never_meet():
    assert TRAIN.stop <= CHECK.start < CHECK.stop <= FINAL.start < FINAL.stop <= 2**31
    for seed in (0, 1, 2**30 - 1, 2**32 - 1, 2**64 - 1):
        for part in (TRAIN, CHECK, FINAL):
            found = episode_seeds(seed, 5, part)
            assert len(set(found)) == 5
            assert set(found) <= set(part[:10]) | set(part[-10:])
    assert episode_seeds(3, 4) == [3, 4, 5, 6]


@pytest.mark.parametrize("part", [TRAIN, CHECK, FINAL])
def test_episodes_are_reset_with_seeds_of_their_part(part: range):
    log: list[int] = []
    Episodes(lambda: Walk(log), WALKER, 3, part=part)(RIGHT, 2**31 + 11)

    assert log == episode_seeds(2**31 + 11, 3, part)
    assert all(seed in part for seed in log)


def test_an_environment_is_made_once_kept_and_closed():
    made: list[Walk] = []

    def make() -> Walk:
        made.append(Walk())
        return made[-1]

    objective = Episodes(make, WALKER)
    assert made == []
    for seed in range(5):
        objective(RIGHT, seed)
    assert len(made) == 1
    assert not made[0].closed
    objective.close()
    objective.close()
    assert made[0].closed
    objective(RIGHT, 0)
    assert len(made) == 2


def test_each_thread_has_its_own_environment():
    objective = Episodes(Walk, WALKER)
    barrier = threading.Barrier(3)

    def work(seed: int) -> float:
        barrier.wait()
        return objective(RIGHT, seed).value

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [-pyramid(3), -pyramid(4), -pyramid(5)]
    assert len(objective._open) == 3
    objective.close()


def test_pickled_objective_takes_no_environment_along():
    objective = Episodes("CartPole-v1", Policy.linear(make_env("CartPole-v1")), 2)
    theta = np.linspace(-1.0, 1.0, 10)
    first = objective(theta, 9)
    data = pickle.dumps(objective)

    class Strict(pickle.Unpickler):
        def find_class(self, module, name):
            assert not module.startswith("gymnasium")
            return super().find_class(module, name)

    copy = Strict(io.BytesIO(data)).load()
    assert copy(theta, 9) == first
    copy.close()
    objective.close()


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0"])
def test_equals_a_plain_loop_over_gymnasium(name: str):
    env = gym.make(name)
    policy = Policy.linear(env)
    theta = np.random.default_rng(1).standard_normal(policy.dim)
    act = policy.with_parameters(theta)
    totals, steps = [], 0
    for seed in (40, 41):
        observation, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
        totals.append(total)
    objective = Episodes(name, policy, 2)
    objective(theta[::-1], 7)  # what was played before leaves no trace

    assert objective(theta, 40) == (-np.mean(totals), steps)
    objective.close()
    env.close()


def test_evaluation_is_held_out_and_repeatable():
    log: list[int] = []
    policy = WALKER.with_parameters(RIGHT)
    returns, steps = evaluate(policy, lambda: Walk(log), episodes=20, seed=4)

    assert log == episode_seeds(child(4, 0), 20, FINAL)
    assert returns.tolist() == [pyramid(3 + seed % 4) for seed in log]
    assert steps == sum(3 + seed % 4 for seed in log)
    np.testing.assert_array_equal(evaluate(policy, Walk, 20, 4)[0], returns)
    other: list[int] = []
    evaluate(policy, lambda: Walk(other), episodes=20, seed=5)
    assert set(other).isdisjoint(log)


def test_normalise_takes_the_moments_of_random_play():
    seen: list[np.ndarray] = []

    class Watched(gym.ObservationWrapper):
        def observation(self, observation):
            seen.append(observation)
            return observation

    def make() -> gym.Env:
        return Watched(gym.make("CartPole-v1"))

    policy, steps = normalise(Policy.linear(make()), make, episodes=8, seed=3)

    assert len(seen) == steps + 8  # what the last step of an episode shows is never acted upon
    repeated, again = normalise(Policy.linear(make()), "CartPole-v1", episodes=8, seed=3)
    assert again == steps
    assert repeated.mean.tobytes() == policy.mean.tobytes()
    assert repeated.std.tobytes() == policy.std.tobytes()
    world, rows = make_env("CartPole-v1"), []
    starts = episode_seeds(child(3, 1), 8)
    world.action_space.seed(starts[0])
    for start in starts:
        play(world, lambda observation: (rows.append(observation), world.action_space.sample())[1], start)
    np.testing.assert_allclose(policy.mean, np.mean(rows, axis=0, dtype=np.float64), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(policy.std, np.std(rows, axis=0, dtype=np.float64), rtol=1e-12)
    assert normalise(Policy.linear(world), "CartPole-v1", 8, seed=4)[0].mean.tobytes() != policy.mean.tobytes()
    world.close()


def test_normalise_only_centres_what_does_not_vary():
    policy, steps = normalise(WALKER, Walk, episodes=4, seed=0)

    assert 12 <= steps <= 24
    assert policy.mean[1] == 7.0
    assert policy.std[1] == 1.0
    assert policy.std[0] > 0.5


@pytest.mark.parametrize(("name", "count"), [("episodes", 0), ("max_steps", 0)])
def test_bad_counts(name: str, count: int):
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Episodes(Walk, WALKER, **{name: count})
