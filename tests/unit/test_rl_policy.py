"""Linear policies: the law from observation to action, and the file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from esopt.rl import BoxActions, DiscreteActions, Policy


class Spaces:
    """What Policy.linear() looks at."""

    def __init__(self, observation: spaces.Space, action: spaces.Space):
        self.observation_space, self.action_space = observation, action


def filled(inputs: int, actions: DiscreteActions | BoxActions, seed: int = 0) -> Policy:
    """A policy with normalisation and with parameters that have many digits."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((actions.outputs, inputs))
    bias, mean, std = rng.standard_normal(actions.outputs), rng.standard_normal(inputs), rng.uniform(0.5, 2.0, inputs)
    return Policy(weights, bias, actions, (inputs,), mean, std)


def outputs(policy: Policy, observation: np.ndarray) -> np.ndarray:
    return policy.weights @ ((observation.astype(np.float64).ravel() - policy.mean) / policy.std) + policy.bias


@pytest.mark.parametrize("inputs", [1, 4, 40])
def test_discrete_action_is_the_largest_output(inputs: int):
    policy = filled(inputs, DiscreteActions(3, start=-1))
    observations = np.random.default_rng(1).standard_normal((200, inputs)).astype(np.float32)
    actions = [policy(row) for row in observations]

    assert actions == [int(outputs(policy, row).argmax()) - 1 for row in observations]
    assert len(set(actions)) > 1
    assert type(actions[0]) is int


def test_first_of_equal_outputs_wins():
    policy = Policy.linear(Spaces(spaces.Box(-1, 1, (2,)), spaces.Discrete(3, start=5)))

    assert policy(np.array([0.3, 0.4])) == 5


@pytest.mark.parametrize("inputs", [1, 5, 40])
def test_box_action_maps_and_clips(inputs: int):
    low, high = np.array([-2.0, 0.0, -np.inf, -np.inf, 1.0]), np.array([4.0, 0.5, np.inf, 0.25, np.inf])
    policy = filled(inputs, BoxActions(low, high, "float64"))
    middle, half = np.array([1.0, 0.25, 0.0, 0.0, 0.0]), np.array([3.0, 0.25, 1.0, 1.0, 1.0])
    clipped = 0
    for row in np.random.default_rng(2).standard_normal((100, inputs)):
        expected = np.clip(middle + half * outputs(policy, row), low, high)
        clipped += int((expected == low).any() or (expected == high).any())
        np.testing.assert_allclose(policy(row), expected, rtol=1e-12, atol=1e-12)
    assert 10 < clipped


def test_box_action_has_the_shape_and_type_of_the_space():
    box = spaces.Box(np.full((2, 3), -0.4, np.float32), np.full((2, 3), 0.4, np.float32))
    policy = Policy.linear(Spaces(spaces.Box(-1, 1, (3, 2)), box)).with_parameters(np.full(42, 9.0))
    action = policy(np.ones((3, 2), np.float32))

    assert action.shape == (2, 3)
    assert action.dtype == np.float32
    assert (action == np.float32(0.4)).all()
    assert box.contains(action)


def test_parameters_are_weights_then_biases():
    policy = Policy.linear(Spaces(spaces.Box(-1, 1, (2,)), spaces.Discrete(2)))
    moved = policy.with_parameters([1, 2, 3, 4, 5, 6])

    assert policy.dim == 6
    assert not policy.parameters.any()
    assert moved.weights.tolist() == [[1, 2], [3, 4]]
    assert moved.bias.tolist() == [5, 6]
    assert moved.parameters.tolist() == [1, 2, 3, 4, 5, 6]


def test_arrays_are_the_policys_own():
    weights = np.ones((2, 3))
    policy = Policy(weights, np.zeros(2), DiscreteActions(2), (3,), np.zeros(3), np.ones(3))
    weights[:] = 7.0

    assert (policy.weights == 1.0).all()
    with pytest.raises(ValueError, match="read-only"):
        policy.weights[0, 0] = 7.0


@pytest.mark.parametrize(
    "actions", [DiscreteActions(4, 2), BoxActions(np.array([-1.0, -np.inf]), np.array([np.pi, 3.0]))]
)
@pytest.mark.parametrize("inputs", [3, 60])
def test_file_keeps_every_bit(tmp_path, inputs: int, actions):
    policy = replace(filled(inputs, actions), about={"env": "Some/Env-v0", "seed": 3, "mean_return": -0.1})
    loaded = Policy.load(policy.save(tmp_path / "policy.npz"))

    assert loaded.parameters.tobytes() == policy.parameters.tobytes()
    assert loaded.mean.tobytes() == policy.mean.tobytes()
    assert loaded.std.tobytes() == policy.std.tobytes()
    assert loaded.about == policy.about
    for row in np.random.default_rng(4).standard_normal((100, inputs)).astype(np.float32):
        assert np.asarray(loaded(row)).tobytes() == np.asarray(policy(row)).tobytes()
    assert loaded.save(tmp_path / "again").read_bytes() == (tmp_path / "policy.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "policy.npz"]


def test_failed_save_leaves_the_old_file(tmp_path):
    policy = filled(2, DiscreteActions(2))
    path = policy.save(tmp_path / "policy.npz")
    before = path.read_bytes()
    with pytest.raises(TypeError, match="JSON"):
        replace(policy, about={"env": object()}).save(path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def header(path, **changes) -> None:
    """Rewrite a policy file with another header."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["header"] = np.array(json.dumps({**json.loads(str(arrays["header"])), **changes}))
    np.savez(path, **arrays)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:700]),
    "flipped": lambda path: path.write_bytes(bytes(255 - b if i > 200 else b for i, b in enumerate(path.read_bytes()))),
    "one array": lambda path: np.save(path.open("wb"), np.zeros(3)),
    "foreign": lambda path: np.savez(path, weights=np.zeros((2, 2))),
    "pickled": lambda path: np.savez(path, header=np.array([{}], object)),
    "not ours": lambda path: header(path, format="other"),
    "newer": lambda path: header(path, version=2),
    "other kind": lambda path: header(path, policy="mlp"),
    "misfit": lambda path: header(path, observation={"shape": [5]}),
    "misfit actions": lambda path: header(path, actions={"kind": "discrete", "n": 3, "start": 0}),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_one_clear_error(tmp_path, damage: str):
    path = filled(2, DiscreteActions(2)).save(tmp_path / "policy.npz")
    DAMAGE[damage](path)
    with pytest.raises(ValueError, match=r"policy\.npz is no policy that this version can read"):
        Policy.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Policy.load(tmp_path / "policy.npz")


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gymnasium", "numba", "llvmlite", "joblib", "scipy", "matplotlib", "rich"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
import numpy as np
from esopt.rl import Policy

policy = Policy.load(sys.argv[1])
print([policy(np.array(row, np.float32)) for row in eval(sys.argv[2])], policy.about["env"])
"""


def test_loaded_policy_needs_numpy_alone(tmp_path):
    policy = replace(filled(4, DiscreteActions(2)), about={"env": "CartPole-v1"})
    path = policy.save(tmp_path / "policy.npz")
    rows = np.random.default_rng(5).standard_normal((20, 4)).astype(np.float32)
    command = [sys.executable, "-c", BLOCKED, str(path), repr(rows.tolist())]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert printed.strip() == f"{[policy(row) for row in rows]} CartPole-v1"


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Discrete(16), spaces.Discrete(2), r"observation space is Discrete\(16\)"),
        (spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2), r"action space is MultiBinary\(2\)"),
        (spaces.Box(-1, 1, (2,)), spaces.Box(0, 255, (2,), np.uint8), "dtype uint8"),
    ],
)
def test_unsupported_spaces(observation, action, message: str):
    with pytest.raises(ValueError, match=message):
        Policy.linear(Spaces(observation, action))


def test_bad_arguments():
    good = dict(weights=np.zeros((2, 3)), bias=np.zeros(2), shape=(3,), mean=np.zeros(3), std=np.ones(3))
    policy = Policy(actions=DiscreteActions(2), **good)
    for change in (
        {"weights": np.zeros((3, 2))},
        {"bias": np.zeros(3)},
        {"mean": np.zeros(2)},
        {"std": np.ones((3, 1))},
    ):
        with pytest.raises(ValueError, match=f"got {next(iter(change))} of shape"):
            replace(policy, **change)
    for std in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="std > 0"):
            replace(policy, std=np.array([1.0, std, 1.0]))
    with pytest.raises(ValueError, match="8 parameters"):
        policy.with_parameters(np.zeros(7))
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        policy(np.zeros(4))
    with pytest.raises(ValueError, match="low <= high"):
        BoxActions(np.ones(2), np.zeros(2))


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0"])
def test_actions_belong_to_the_environments_space(name: str):
    env = gym.make(name)
    policy = Policy.linear(env)
    rng = np.random.default_rng(6)
    for _ in range(50):
        observation = env.observation_space.sample()
        assert env.action_space.contains(policy.with_parameters(rng.standard_normal(policy.dim) * 3)(observation))
    env.close()
