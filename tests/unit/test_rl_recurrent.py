"""Recurrent policies: Elman's equations, the same bits compiled and in numpy, a memory of one episode and no longer."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from gymnasium import spaces
from numba import njit

import esopt
from esopt.rl import CompiledEngine, GymEngine, Policy, Recipe, World, evaluate, render, train, uniform
from esopt.rl.gym_engine import plain_episode
from tests.reference.environments import Walk

SEEN = spaces.Box(-9.0, 9.0, (2,))


@njit
def cue_reset(state, seed, observation):
    state[0] = 2.0 * uniform(seed, 0) - 1.0
    state[1] = 0.0
    observation[0], observation[1] = state[0], 1.0


@njit
def cue_step(state, action, observation):
    """Say a number once, at the start; in the third step the action is to be that number."""
    state[1] += 1.0
    observation[0], observation[1] = 0.0, 1.0
    over = state[1] >= 3.0
    return (-((action[0] - state[0]) ** 2) if over else 0.0), over


CUE = World(
    name="cue",
    inputs=2,
    actions=1,
    max_steps=10,
    reset=cue_reset,
    step=cue_step,
    new_state=lambda: np.zeros(2),
    spaces=lambda: (SEEN, spaces.Box(-1.0, 1.0, (1,))),
)


def filled(width: int, actions: spaces.Space, scale: float = 1.0) -> Policy:
    rng = np.random.default_rng(width)
    policy = Policy.rnn(width).for_spaces(SEEN, actions)
    moved = policy.with_parameters(scale * rng.standard_normal(policy.dim))
    return moved.with_normalisation(rng.standard_normal(2), rng.uniform(0.5, 2.0, 2))


@pytest.mark.parametrize("width", [1, 3, 9])
def test_it_is_elmans_network(width: int):
    policy = filled(width, spaces.Box(-np.inf, np.inf, (2,), np.float64))
    (first, bias), (last, shift) = policy.layers
    assert first.shape == (width, 2 + width)
    assert policy.dim == width * (2 + width + 1) + 2 * (width + 1)
    for _ in range(2):
        policy.reset()
        memory = np.zeros(width)
        for seen in np.random.default_rng(1).standard_normal((30, 2)):
            inputs = (seen - policy.mean) / policy.std
            memory = np.tanh(first[:, :2] @ inputs + first[:, 2:] @ memory + bias)
            np.testing.assert_allclose(policy(seen), last @ memory + shift, rtol=1e-11, atol=1e-12)


def test_it_starts_with_outputs_of_zero_and_hidden_weights_of_one_scale():
    policy = Policy.rnn(64, seed=3).for_spaces(SEEN, spaces.Box(-1.0, 1.0, (1,)))
    (first, bias), (last, shift) = policy.layers
    assert first.var() * 66 == pytest.approx(1.0, rel=0.1)
    assert [array.any() for array in (bias, last, shift)] == [False] * 3


@pytest.mark.parametrize("width", [1, 5, 8])
@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_episodes_have_the_bits_of_numpy(width: int, threads: int):
    policy = filled(width, spaces.Box(-1.0, 1.0, (1,)), scale=0.5)
    thetas = np.random.default_rng(2).standard_normal((4, policy.dim))
    folded = policy.fold(thetas, policy.mean, policy.std)
    seeds = np.arange(40).reshape(4, 10)
    played = CompiledEngine(CUE, policy, threads=threads).play(folded, seeds)

    state, observation = np.zeros(2), np.zeros(2)
    for row, theta in enumerate(thetas):
        act, total = policy.with_parameters(theta), np.zeros(2)
        for episode, seed in enumerate(seeds[row]):
            act.reset()
            cue_reset(state, np.uint64(seed), observation)
            gained, over = 0.0, False
            while not over:
                total += observation
                reward, over = cue_step(state, act(observation).astype(np.float64), observation)
                gained += reward
            assert gained == played.returns[row, episode]
        np.testing.assert_array_equal(played.sums[row], total)
    assert (played.lengths == 3).all()
    assert len(np.unique(played.returns)) > 7


class Recall(Walk):
    """A walk that shows its seed's parity at the start alone."""

    def observe(self):
        return np.array([(-1.0) ** self.seed if self.time == 0 else 0.0, 1.0], np.float32)


def test_every_engine_starts_every_episode_anew(tmp_path):
    policy = filled(3, Recall.action_space, scale=2.0)
    env, seeds = Recall(), np.tile(np.arange(6), (1, 3))
    expected = []
    for seed in range(6):
        policy.reset()
        observation, over, total = env.reset(seed=seed)[0], False, 0.0
        while not over:
            observation, reward, _, over, _ = env.step(policy(observation))
            total += float(reward)
        expected.append(total)
    assert len(set(expected)) > 2

    played = GymEngine(Recall, policy).play(policy.folded[None], seeds)
    assert played.returns[0].tolist() == expected * 3
    policy(np.ones(2))
    assert [plain_episode(Recall(), policy, seed, None, tuple) for seed in range(6)] == expected
    assert plain_episode(Recall(), lambda seen: 1, 5, None, tuple) == 30.0  # 1 + 4 + 9 + 16: length 4

    class Drawn(Recall):
        metadata = {"render_fps": 20}  # noqa: RUF012
        render_mode = "rgb_array"

        def render(self):
            return np.zeros((8, 8, 3), np.uint8)

    _, returns = render(policy, Drawn, tmp_path / "a.gif", episodes=4, seed=3)
    np.testing.assert_array_equal(returns, evaluate(policy, Recall, 4, seed=3)[0])


def test_it_learns_what_needs_a_memory():
    settings = dict(
        strategy=esopt.ars(n=32, sigma=0.2, lr=0.2), generations=120, episodes_per_candidate=8, normalise="off", seed=1
    )
    with_memory = train(CUE, policy=Policy.rnn(4), **settings)
    without = train(CUE, policy=Policy.mlp(4), **settings)

    assert with_memory.mean > -0.03
    assert without.mean < -0.23  # -1/3 is the best without: 100 episodes have a standard error of 0.03
    assert with_memory.path.startswith("compiled episodes")


def test_the_file_keeps_it(tmp_path):
    policy = filled(5, spaces.Discrete(3))
    path = policy.save(tmp_path / "policy.npz")
    loaded = Policy.load(path)
    assert (loaded.memory, loaded.activation, loaded.hidden) == (5, "elman", (5,))
    for name in ("parameters", "mean", "std", "folded"):
        assert getattr(loaded, name).tobytes() == getattr(policy, name).tobytes()
    rows = np.random.default_rng(0).standard_normal((20, 2))
    assert [loaded(row) for row in rows] == [policy(row) for row in rows]
    with zipfile.ZipFile(path) as archive:
        header = json.loads(np.lib.format.read_array(archive.open("header.npy")).tobytes())
    assert header["activation"] == "elman"  # versions before it know no such activation, and say so


def test_the_model_of_onnx_hands_its_memory_over(tmp_path):
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    policy = filled(4, spaces.Box(-2.0, 2.0, (3,), np.float64))
    session = ReferenceEvaluator(str(policy.to_onnx(tmp_path / "policy.onnx")))
    rows = np.random.default_rng(0).standard_normal((15, 2, 2))
    expected = []
    for k in range(2):
        policy.reset()
        expected.append([policy(row) for row in rows[:, k]])
    memory = np.zeros((2, 4))
    for t, row in enumerate(rows):
        action, _, memory = session.run(None, {"observation": row, "memory": memory})
        np.testing.assert_allclose(action, [expected[0][t], expected[1][t]], rtol=1e-11, atol=1e-12)


def test_what_is_no_recurrent_policy_is_refused():
    with pytest.raises(ValueError, match=r"one hidden layer, got \(3, 4\).*Policy.rnn\(16\)"):
        Recipe((3, 4), "elman")
    with pytest.raises(ValueError, match="one hidden layer"):
        Recipe((), "elman")
    with pytest.raises(ValueError, match="positive whole numbers"):
        Policy.rnn(0)
    with pytest.raises(ValueError, match="the policy takes 2 numbers and gives 2, but cue has observations of 2"):
        CompiledEngine(CUE, Policy.rnn(3).for_spaces(SEEN, spaces.Box(-1.0, 1.0, (2,))))
