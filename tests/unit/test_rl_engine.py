"""Compiled episodes against a plain loop over the same functions; their bits, their errors, their failures."""

from __future__ import annotations

import ctypes
import gc
import itertools
import math
import os
import signal
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numba import njit
from scipy import stats

from esopt.rl import CLASSIC_CONTROL, CompiledEngine, Engine, Played, Policy, World, normal, uniform
from esopt.rl import engine as engine_module
from esopt.rl.engine import _entries
from esopt.testing import ConformanceError, check_world
from tests.reference.noise import box_muller32, philox_arrays, philox_words


@njit
def walk_reset(state, seed, observation):
    """A point on a line; its episode has a length of its own."""
    state[0] = uniform(seed, 0)
    state[1] = 2.0 + np.floor(30.0 * uniform(seed, 1))
    observation[0], observation[1] = state[0], 1.0


@njit
def walk_step(state, action, observation):
    state[0] += 0.1 * action[0]
    state[1] -= 1.0
    observation[0], observation[1] = state[0], state[1]
    return -(state[0] ** 2), state[1] <= 0.0


def box(size: int, dtype: type = np.float64) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), dtype)


def world(reset=walk_reset, step=walk_step, **changes) -> World:
    """A walk, or what becomes of it."""
    settings = {
        "name": "walk",
        "inputs": 2,
        "actions": 1,
        "max_steps": 20,
        "new_state": lambda: np.zeros(2),
        "spaces": lambda: (box(2), box(1)),
    }
    return World(reset=reset, step=step, **settings | changes)


def naive(world: World, policy: Policy, theta, seeds, max_steps: int, noise: float = 0.0) -> tuple:
    """Play one row in Python, with the policy's numpy form and the walk undecorated; the definition of the engine."""
    step = world.step.py_func if world.name == "walk" else world.step
    actor, state, observation = policy.actor(theta), world.new_state(), np.zeros(world.inputs)
    returns, lengths, total = [], [], np.zeros((2, world.inputs))
    for seed in seeds.tolist():
        world.reset(state, np.uint64(seed % 2**64), observation)
        gained, length, ended, sums = 0.0, 0, False, np.zeros((2, world.inputs))
        while not ended and length < max_steps:
            sums[0] += observation
            sums[1] += observation * observation
            outputs = actor.outputs(observation)
            if noise:
                outputs = [u + noise * kick(seed, length, j) for j, u in enumerate(outputs)]
            action = np.array(policy.actions.act(outputs), np.float64).ravel()
            reward, ended = step(state, action, observation)
            gained += float(reward)
            length += 1
        returns.append(gained)
        lengths.append(length)
        total += sums
    return returns, lengths, total[0], total[1]


def kick(seed: int, step: int, output: int) -> float:
    """The action noise of one output at one step, from the reference noise."""
    words = philox_words(output, step, 2, 0, seed % 2**64)
    a, b = (np.array([word], np.uint32) for word in words[:2])
    return float(box_muller32(a, b)[0][0])


def population(policy: Policy, m: int, e: int, seed: int = 0, size: float = 1.0) -> tuple:
    rng = np.random.default_rng(seed)
    return size * rng.standard_normal((m, policy.dim)), rng.integers(-(2**62), 2**62, (m, e))


def same(a: Played, b: Played) -> bool:
    return all(np.array_equal(x, y, equal_nan=True) for x, y in list(zip(a, b, strict=False))[:4])


@njit
def sparing_reset(state, seed, observation):
    observation[0] = 1.0


@njit
def sparing_step(state, action, observation):
    if observation[1] < 3.0:
        observation[1] += 1.0
    return 10.0 * observation[1] + observation[0], False


@pytest.mark.parametrize("recipe", [Policy.linear(), Policy.mlp(2), Policy.mlp(5, 4), Policy.mlp(2, 3, 4)])
def test_what_a_world_does_not_write_stays_until_the_episode_ends(recipe):
    sparing = world(sparing_reset, sparing_step)
    policy = recipe.of(sparing)
    thetas, seeds = population(policy, 4, 3)
    played = CompiledEngine(sparing, policy, threads=1, max_steps=5).play(thetas, seeds)

    assert np.array_equal(played.returns, np.full((4, 3), 10.0 * (1 + 2 + 3 + 3 + 3) + 5.0))
    assert np.array_equal(played.sums, np.tile([15.0, 3.0 * (0 + 1 + 2 + 3 + 3)], (4, 1)))


@pytest.mark.parametrize("episodes", [1, 3])
@pytest.mark.parametrize("recipe", [Policy.linear(), Policy.mlp(5, 3), Policy.mlp(6, activation="relu")])
@pytest.mark.parametrize("name", [*sorted(CLASSIC_CONTROL), "walk"])
def test_engine_plays_what_a_plain_loop_plays(name: str, recipe, episodes: int):
    where = world() if name == "walk" else CLASSIC_CONTROL[name]()
    policy = recipe.of(where)
    thetas, seeds = population(policy, 5, episodes)
    engine = CompiledEngine(where, policy, threads=2, max_steps=40)
    played = engine.play(thetas, seeds)
    for row in range(len(thetas)):
        returns, lengths, sums, squares = naive(where, policy, thetas[row], seeds[row], min(40, where.max_steps))
        assert played.lengths[row].tolist() == lengths
        np.testing.assert_allclose(played.returns[row], returns, rtol=1e-10)
        np.testing.assert_allclose(played.sums[row], sums, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(played.squares[row], squares, rtol=1e-9, atol=1e-12)
    assert (played.counts == played.lengths.sum(axis=1)).all()
    engine.close()


def test_walks_have_the_bits_of_the_plain_loop():
    policy = Policy.linear(world())
    thetas, seeds = population(policy, 40, 2, size=0.1)
    played = CompiledEngine(world(), policy, action_noise=0.5).play(thetas, seeds)
    for row in range(len(thetas)):
        returns, lengths, sums, squares = naive(world(), policy, thetas[row], seeds[row], 20, 0.5)
        assert (played.returns[row].tolist(), played.lengths[row].tolist()) == (returns, lengths)
        assert (played.sums[row] == sums).all()
        assert (played.squares[row] == squares).all()
    assert len(set(played.lengths.ravel().tolist())) > 10
    assert played.lengths.max() == 20


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1"])
def test_bits_do_not_depend_on_threads_or_on_how_rows_are_split(name: str, noise: float):
    where = CLASSIC_CONTROL[name]()
    policy = Policy.linear(where)
    thetas, seeds = population(policy, 301, 2)
    engines = [CompiledEngine(where, policy, threads=k, action_noise=noise) for k in (1, 2, 3)]
    first = engines[0].play(thetas, seeds)
    for engine in engines:
        assert same(engine.play(thetas, seeds), first)
        for start, stop in ((0, 1), (1, 17), (17, 301)):
            part = engine.play(thetas[start:stop], seeds[start:stop])
            assert same(part, Played(*(array[start:stop] for array in first[:4])))
        engine.close()
        assert same(engine.play(thetas[:9], seeds[:9]), Played(*(array[:9] for array in first[:4])))


def in_turn(monkeypatch, lanes: int) -> None:
    """Let every thread have ``lanes`` episodes at a time from an engine's second call on, however long a step takes."""
    monkeypatch.setattr(engine_module, "_SHORT_STEP", math.inf)
    monkeypatch.setattr(engine_module, "_LANES", lanes)


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("recipe", [Policy.linear(), Policy.mlp(2)])
@pytest.mark.parametrize("actions", [spaces.Discrete(2, start=-1), spaces.Discrete(3), box(1)])
def test_episodes_in_turn_have_the_bits_of_one_after_the_other(actions, recipe, noise: float, monkeypatch):
    made = []

    def new_state():
        made.append(np.zeros(2))
        return made[-1]

    where = world(spaces=lambda: (box(2), actions), new_state=new_state)
    policy = recipe.of(where)
    thetas, seeds = population(policy, 31, 2)
    rows = [naive(where, policy, theta, own, 20, noise) for theta, own in zip(thetas, seeds, strict=True)]
    expected = Played(*map(np.array, zip(*rows, strict=True)))
    assert len(set(expected.lengths.ravel().tolist())) > 10
    turns = recipe == Policy.linear() and actions == spaces.Discrete(2, start=-1) and noise == 0.0
    for most in (1, 2, 3):
        in_turn(monkeypatch, most)
        lanes = most if turns else 1
        for threads in (1, 2):
            made.clear()
            engine = CompiledEngine(where, policy, threads=threads, action_noise=noise)
            assert same(engine.play(thetas, seeds), expected)
            assert same(engine.play(thetas, seeds), expected)
            assert lanes <= len(made) <= threads * lanes
            assert engine.play(thetas, seeds, longest=4).lengths.max() == 4
            assert (engine.play(thetas, seeds, longest=0).lengths == 0).all()
            engine.close()


def test_few_episodes_are_not_played_in_turn(monkeypatch):
    """With fewer than two rounds of turns a thread could be left alone with the last ones."""
    in_turn(monkeypatch, 2)
    made = []
    where = world(new_state=lambda: made.append(0) or np.zeros(2), spaces=lambda: (box(2), spaces.Discrete(2)))
    policy = Policy.linear(where)
    engine = CompiledEngine(where, policy, threads=1)
    for episodes in (3, 3, 4):
        assert len(made) == 1
        engine.play(np.zeros((1, policy.dim)), np.arange(episodes)[None, :])
    assert len(made) == 2


def test_threads_share_the_work():
    """Two threads finish episodes that wait, without the interpreter, in less than the sum of their times."""
    where, idle = world(step=busy, max_steps=40), np.zeros((24, 3))
    policy = Policy.linear(where)
    took = []
    for threads in (1, 2):
        engine = CompiledEngine(where, policy, threads=threads)
        engine.play(idle, np.ones((24, 1), np.int64))
        used = []
        for _ in range(5):
            began = time.process_time(), time.thread_time()
            engine.play(idle, np.ones((24, 1), np.int64))
            used.append((time.process_time() - began[0], time.thread_time() - began[1]))
        whole, own = min(used, key=lambda pair: pair[1] / pair[0])
        took.append(own / whole)
        engine.close()
    assert took[0] > 0.9
    assert took[1] < 0.8


@njit
def busy(state, action, observation):
    x = 1.0
    for i in range(3000):
        x = math.sin(x + i)
    observation[0] = x
    return x, False


def test_ctrl_c_stops_all_threads_and_leaves_the_engine_usable():
    where = world(step=busy, max_steps=40)
    engine = CompiledEngine(where, Policy.linear(where), threads=2)
    few, many = np.ones((4, 1), np.int64), np.ones((20_000, 1), np.int64)
    first = engine.play(np.zeros((4, 3)), few)
    began = time.process_time()
    timer = threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.play(np.zeros((20_000, 3)), many)
    assert time.process_time() - began < 5.0  # all episodes take many times that
    timer.join()
    assert same(engine.play(np.zeros((4, 3)), few), first)


@njit
def waiting_reset(state, seed, observation):
    state[0] = np.float64(seed)
    observation[0] = 1.0


@njit
def waiting_step(state, action, observation):
    if state[0] >= 500.0 and state[2] == 1.0:
        while state[1] == 0.0:
            short_sleep(1000)
    short_sleep(100)
    observation[0] += 1.0
    return 1.0, False


short_sleep = None if sys.platform == "win32" else ctypes.CDLL(None).usleep
if short_sleep is not None:
    short_sleep.argtypes, short_sleep.restype = [ctypes.c_uint], ctypes.c_int


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_ctrl_c_while_others_still_play_leaves_them_what_they_play_with():
    """Two helpers wait in the middle of an episode; the next call has threads and states of its own."""
    made = []

    def new_state():
        made.append(np.zeros(3))
        return made[-1]

    where = World("waiting", 1, 1, 20, waiting_reset, waiting_step, new_state, lambda: (box(1), box(1)))
    policy = Policy.linear(where)
    engine = CompiledEngine(where, policy, threads=3)
    thetas, seeds = np.zeros((60, policy.dim)), np.arange(60)[:, None]
    expected = engine.play(thetas, seeds)
    assert (expected.lengths == 20).all()
    assert len(made) == 3
    for state in made[1:]:
        state[2] = 1.0
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.play(thetas[:3], np.full((3, 1), 1000))
    timer.join()
    again = threading.Timer(0.02, lambda: [state.__setitem__(1, 1.0) for state in made[1:3]])
    again.start()
    assert same(engine.play(thetas, seeds), expected)
    again.join()
    assert len(made) == 6
    assert same(engine.play(thetas, seeds), expected)


def test_an_interrupt_while_states_are_made_leaves_no_half_seat(monkeypatch):
    in_turn(monkeypatch, 2)
    made = []

    def new_state():
        made.append(np.zeros(2))
        if len(made) == 2:
            raise KeyboardInterrupt
        return made[-1]

    where = world(new_state=new_state, spaces=lambda: (box(2), spaces.Discrete(2)))
    policy = Policy.linear(where)
    engine = CompiledEngine(where, policy, threads=1)
    thetas, seeds = np.zeros((9, policy.dim)), np.arange(9)[:, None]
    first = engine.play(thetas, seeds)
    with pytest.raises(KeyboardInterrupt):
        engine.play(thetas, seeds)
    assert same(engine.play(thetas, seeds), first)


def test_how_long_a_step_takes_is_measured_by_calls_that_take_long_enough(monkeypatch):
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: unit * next(ticks))
    where, policy = world(), Policy.linear(world())
    engine = CompiledEngine(where, policy, threads=1)
    monkeypatch.setattr(engine_module, "time", clock)
    thetas, seeds = np.zeros((8, policy.dim)), np.arange(8)[:, None]
    unit = 1e-6
    first, rest = (engine.play(thetas[:1], seeds[:1]).lengths, engine.play(thetas, seeds).lengths)
    assert engine._step_seconds == pytest.approx(1e-6 / first.sum())
    unit = 1e-3
    engine.play(thetas, seeds)
    assert engine._step_seconds == pytest.approx(1e-3 / rest.sum())


def test_cap_of_the_engine_and_of_the_world():
    policy = Policy.linear(world())
    thetas, seeds = population(policy, 50, 1)
    whole, cut = (CompiledEngine(world(), policy, max_steps=k).play(thetas, seeds) for k in (None, 7))
    assert whole.lengths.max() == 20
    assert (cut.lengths == np.minimum(whole.lengths, 7)).all()
    assert CompiledEngine(world(), policy, max_steps=1000).max_steps == 20


@njit
def echo_step(state, action, observation):
    state[1] += 1.0
    return action[0], False


def test_action_noise_is_gaussian_of_the_given_size_and_belongs_to_seed_and_step():
    where = world(step=echo_step, max_steps=2000)
    policy = Policy.linear(where)
    zeros, seeds = np.zeros((40, policy.dim)), np.arange(40)[:, None]
    played = CompiledEngine(where, policy, action_noise=0.5).play(zeros, seeds)
    means = played.returns[:, 0] / 2000
    assert stats.kstest(means / (0.5 / np.sqrt(2000)), "norm").pvalue > 1e-3
    assert (CompiledEngine(where, policy).play(zeros, seeds).returns == 0.0).all()
    engine = CompiledEngine(where, policy, action_noise=0.5, max_steps=1)
    one = engine.play(zeros, seeds).returns[:, 0]
    assert one.tolist() == [0.5 * kick(seed, 0, 0) for seed in range(40)]
    assert (engine.play(zeros[:3], seeds[[5, 5, 6]]).returns[:, 0] == one[[5, 5, 6]]).all()


@njit
def late_step(state, action, observation):
    """Ends after three steps, and then goes wild."""
    state[1] = min(state[1], 3.0) - 1.0
    observation[0] = 1e9 if state[1] <= 0.0 else 5.0
    return 1.0, state[1] == 0.0


def test_nothing_after_an_end_is_counted():
    where = world(step=late_step)
    policy = Policy.linear(where)
    seeds = np.arange(30)[:, None]
    played = CompiledEngine(where, policy).play(np.zeros((30, 3)), seeds)
    starts = np.array([uniform(seed, 0) for seed in range(30)])
    steps = np.array([min(3, 2 + int(30 * uniform(seed, 1))) for seed in range(30)])
    assert (played.returns[:, 0] == steps).all()
    assert (played.lengths[:, 0] == steps).all()
    np.testing.assert_allclose(played.sums[:, 0], starts + 5.0 * (steps - 1), rtol=1e-15)
    np.testing.assert_allclose(played.squares[:, 1], steps)


@njit
def bad_reset(state, seed, observation):
    walk_reset(state, seed, observation)
    if seed == 3:
        raise ValueError("no such start")
    if seed == 4:
        observation[1] = np.nan


@njit
def bad_step(state, action, observation):
    reward, ended = walk_step(state, action, observation)
    if 0.5 < state[0] < 0.6:
        raise ZeroDivisionError("a hole")
    if 0.6 < state[0] < 0.7:
        return np.nan, ended
    if 0.7 < state[0] < 0.8:
        observation[0] = np.inf
    if 0.8 < state[0] < 0.9:
        observation[0] = 1e200  # its square is not finite
    return reward, ended


@pytest.mark.parametrize("actions", [box(1), spaces.Discrete(2)])
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_failures_are_nan_and_touch_nothing_else(actions, lanes: int, monkeypatch):
    in_turn(monkeypatch, lanes)
    kind = {"spaces": lambda: (box(2), actions)}
    where, whole = world(bad_reset, bad_step, **kind), world(**kind)
    policy = Policy.linear(where)
    zeros, seeds = np.zeros((20, policy.dim)), np.arange(40).reshape(20, 2)
    fine = CompiledEngine(whole, policy).play(zeros, seeds)
    for threads in (1, 2):
        engine = CompiledEngine(where, policy, threads=threads)
        engine.play(zeros, seeds)
        played = engine.play(zeros, seeds)
        starts = np.array([uniform(seed, 0) for seed in seeds.ravel()]).reshape(seeds.shape)
        lengths = np.array([2 + int(30 * uniform(seed, 1)) for seed in seeds.ravel()]).reshape(seeds.shape)
        failed = ((starts > 0.5) & (starts < 0.9)) | (seeds == 3) | (seeds == 4)
        assert (np.isnan(played.returns) == failed).all()
        assert 5 < failed.sum() < 35
        assert (played.returns[~failed] == fine.returns[~failed]).all()
        assert (played.lengths[~failed] == fine.lengths[~failed]).all()
        assert played.lengths[1, 1] == played.lengths[2, 0] == 0
        holes = (starts > 0.5) & (starts < 0.6) & (seeds != 3) & (seeds != 4)
        assert (played.lengths[holes] == 1).all()
        assert (played.counts == np.where(failed, 0, np.minimum(lengths, 20)).sum(axis=1)).all()
        assert (played.sums[failed.all(axis=1)] == 0.0).all()
        both = ~failed.any(axis=1)
        assert (played.squares[both] == fine.squares[both]).all()
        assert np.isfinite(played.squares).all()


@njit
def large_step(state, action, observation):
    observation[:] = 1.2e154
    state[0] += 1.0
    return 1.0, state[0] >= 2.0


@pytest.mark.parametrize("actions", [box(1), spaces.Discrete(2)])
def test_squares_may_be_large_one_by_one(actions):
    where = world(step=large_step, new_state=lambda: np.full(2, -9.0), spaces=lambda: (box(2), actions))
    policy = Policy.linear(where)
    played = CompiledEngine(where, policy).play(np.zeros((1, policy.dim)), np.ones((1, 1), np.int64))
    assert played.returns[0, 0] == played.lengths[0, 0] == 2
    assert np.isfinite(played.squares).all()


def test_engine_is_an_engine_and_empty_calls_are_empty():
    policy = Policy.linear(world())
    engine: Engine = CompiledEngine(world(), policy)
    assert engine.name
    played = engine.play(np.zeros((0, 3)), np.zeros((0, 4), np.int64))
    assert (played.returns.shape, played.sums.shape, played.counts.shape) == ((0, 4), (0, 2), (0,))
    played = engine.play(np.zeros((5, 3)), np.zeros((5, 0), np.int64))
    assert (played.lengths.shape, played.squares.tolist()) == ((5, 0), [[0.0, 0.0]] * 5)
    engine.close()
    engine.close()


def test_second_engine_of_a_world_compiles_nothing():
    where, policy = world(), Policy.linear(world())
    CompiledEngine(where, policy)
    before = _entries.cache_info().misses
    CompiledEngine(world(max_steps=5), policy)
    assert _entries.cache_info().misses == before


def test_memory_of_a_thread_reaches_no_other():
    """Every thread plays with a state of its own, which lives as long as the engine plays with it."""
    made = []

    def new_state():
        made.append(np.zeros(2))
        return made[-1]

    where = world(step=busy, new_state=new_state, max_steps=5)
    engine = CompiledEngine(where, Policy.linear(where), threads=3)
    engine.play(np.zeros((30, 3)), np.ones((30, 1), np.int64))
    assert 1 < len(made) <= 3
    assert len({state.ctypes.data for state in made}) == len(made)


def test_every_state_is_a_new_one():
    state = np.zeros(2)
    where = world(new_state=lambda: state)
    engine = CompiledEngine(where, Policy.linear(where), threads=2)
    with pytest.raises(TypeError, match=r"new_state\(\) of walk returned an array that it had returned before"):
        engine.play(np.zeros((20_000, 3)), np.ones((20_000, 1), np.int64))


def test_states_are_given_back_with_the_threads():
    made = []
    where = world(new_state=lambda: made.append(np.zeros(2)) or made[-1])
    engine = CompiledEngine(where, Policy.linear(where), threads=1)
    kept = weakref.ref(made.pop())
    gc.collect()
    assert kept() is not None
    engine.close()
    gc.collect()
    assert kept() is None


def f_reset(state, seed, observation):
    observation[:] = 0.0


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"reset": f_reset}, TypeError, r"got a plain function as reset.*@numba.njit"),
        ({"step": 3}, TypeError, r"got a plain int as step"),
        ({"step": njit(lambda state, action: (0.0, True))}, TypeError, r"step\(state, action\).*three arguments"),
        ({"inputs": 0}, ValueError, r"inputs=0. Pass a positive"),
        ({"max_steps": 2.5}, ValueError, r"max_steps=2.5"),
        ({"new_state": np.zeros(2)}, TypeError, r"ndarray as new_state.*Pass a function"),
    ],
)
def test_worlds_that_cannot_be(changes: dict, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        world(**changes)


@njit
def returns_something(state, seed, observation):
    return state


@njit
def returns_five(state, action, observation):
    return observation, 0.0, True, False, 1


@njit
def returns_words(state, action, observation):
    return "high", True


@njit
def has_no_type(state, action, observation):
    return state.nothing, True


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"reset": returns_something}, TypeError, r"reset\(state, seed, observation\) does not fit.*return nothing"),
        ({"step": returns_five}, TypeError, r"(?s)step\(.*not a pair \(reward, terminated\).*return two numbers"),
        ({"step": returns_words}, TypeError, r"(?s)not a pair"),
        ({"step": has_no_type}, TypeError, r"(?s)numba cannot compile it.*nothing"),
        ({"inputs": 3}, ValueError, r"policy takes 2 numbers and gives 1, but walk has observations of 3"),
        ({"new_state": lambda: np.zeros((2, 2))}, TypeError, r"float64 of shape \(2, 2\). Return a one-dim"),
        ({"new_state": lambda: [0.0]}, TypeError, r"returned list"),
    ],
)
def test_worlds_that_do_not_fit_are_refused_before_anything_is_played(changes, error, words):
    with pytest.raises(error, match=f"(?s){words}"):
        CompiledEngine(world(**changes), Policy.linear(world()))


@pytest.mark.parametrize("changes", [{"threads": 0}, {"threads": True}, {"max_steps": 0}, {"max_steps": 1.5}])
def test_counts_are_checked(changes: dict):
    with pytest.raises(ValueError, match="Pass a positive whole number"):
        CompiledEngine(world(), Policy.linear(world()), **changes)


@pytest.mark.parametrize("noise", [-0.1, np.nan, np.inf])
def test_action_noise_is_checked(noise: float):
    with pytest.raises(ValueError, match="action_noise"):
        CompiledEngine(world(), Policy.linear(world()), action_noise=noise)


@pytest.mark.parametrize(("thetas", "seeds"), [((4, 2), (4, 1)), ((4, 3), (3, 1)), ((3,), (1, 1)), ((4, 3), (4,))])
def test_shapes_are_checked(thetas: tuple, seeds: tuple):
    engine = CompiledEngine(world(), Policy.linear(world()))
    with pytest.raises(ValueError, match=r"Pass \(m, 3\) and \(m, episodes\)"):
        engine.play(np.zeros(thetas), np.zeros(seeds, np.int64))


def test_world_without_spaces_says_so():
    with pytest.raises(ValueError, match="walk has no spaces"):
        Policy.linear(world(spaces=None))


def test_uniform_numbers_are_the_53_bits_of_their_counter():
    for seed, index in ((0, 0), (1, 0), (0, 1), (2**63 + 5, 2**33 + 7)):
        a, b, _, _ = philox_words(index % 2**32, index >> 32, 0, 0, seed)
        assert uniform(np.uint64(seed), index) == ((a * 2**32 + b) >> 11) / 2**53
    numbers = np.array([uniform(7, index) for index in range(5000)])
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / np.sqrt(5000)


def test_normal_numbers_are_those_of_their_counter():
    index = np.arange(5000)
    a, b, _, _ = philox_arrays(index.astype(np.uint64), 0, 1, 0, 11).T
    numbers = np.array([normal(11, i) for i in index])
    assert (numbers == box_muller32(a, b)[0]).all()
    assert stats.kstest(numbers, "norm").pvalue > 1e-3


class Line(gym.Env):
    """The walk as a gymnasium environment."""

    observation_space, action_space, spec = box(2), spaces.Box(-1.0, 1.0, (1,)), None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([0.5, 9.0])
        return np.array([0.5, 1.0]), {}

    def step(self, action):
        self.state = self.state + np.array([0.1 * float(action[0]), -1.0])
        return self.state.copy(), -(float(self.state[0]) ** 2), bool(self.state[1] <= 0.0), False, {}


def limited() -> gym.Env:
    return gym.wrappers.TimeLimit(Line(), 20)


def set_line(env: Line, state: np.ndarray):
    env.state = state.copy()


@njit
def forgetful_reset(state, seed, observation):
    state[0] += uniform(seed, 0)
    state[1] = 5.0
    observation[0], observation[1] = state[0], 1.0


@njit
def constant_reset(state, seed, observation):
    state[0], state[1] = 0.5, 9.0
    observation[0], observation[1] = 0.5, 1.0


@njit
def generous_step(state, action, observation):
    reward, ended = walk_step(state, action, observation)
    return reward + 1e-9, ended


@njit
def endless_step(state, action, observation):
    return walk_step(state, action, observation)[0], False


@njit
def fast_step(state, action, observation):
    return walk_step(state, 1.1 * action, observation)


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"inputs": 3}, "inputs, actions and max_steps agree"),
        ({"reset": forgetful_reset}, "equal seeds give equal episodes after another"),
        ({"reset": constant_reset}, "different seeds"),
        ({"step": fast_step}, "observations agree"),
        ({"step": generous_step}, "rewards agree"),
        ({"step": endless_step}, "ends agree"),
        ({"max_steps": 12}, "episodes are cut at max_steps"),
    ],
)
def test_check_world_can_fail(changes: dict, law: str):
    check_world(world(), limited, set_line)
    with pytest.raises(ConformanceError, match=law):
        check_world(world(**changes), limited, set_line)
