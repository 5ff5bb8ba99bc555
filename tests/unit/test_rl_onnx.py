"""Policies as ONNX models: the same actions, in every runtime that is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from esopt.rl import BoxActions, DiscreteActions, MultiBinaryActions, MultiDiscreteActions, Policy

onnx = pytest.importorskip("onnx")

RUNTIMES = ["reference"] + ["onnxruntime"] * (importlib.util.find_spec("onnxruntime") is not None)
ACTIONS = [
    DiscreteActions(3, -1),
    MultiDiscreteActions((2, 3, 1, 4), (0, 5, -2, 1), (2, 2), "int32"),
    MultiDiscreteActions((3,)),
    MultiBinaryActions((2, 3)),
    BoxActions(np.full((2, 3), -0.4), np.full((2, 3), 0.4)),
    BoxActions(np.array([-np.inf, -np.inf, 0.1]), np.array([np.inf, 0.3, np.inf]), "float64"),
    BoxActions(np.array([-0.1, 2.0]), np.array([0.7, 3.3]), squash="tanh"),
]
NETWORKS = [((3,), (), "tanh"), ((2, 3), (8, 5), "tanh"), ((), (8,), "relu")]


def filled(space: spaces.Space, actions, hidden, activation: str) -> Policy:
    rng = np.random.default_rng(0)
    recipe = Policy.mlp(*hidden, activation=activation) if hidden else Policy.linear()
    policy = replace(recipe.for_spaces(space, spaces.Discrete(actions.outputs)), actions=actions)
    inputs = policy.sizes[0]
    return policy.with_parameters(rng.standard_normal(policy.dim)).with_normalisation(
        rng.standard_normal(inputs), rng.uniform(0.5, 2.0, inputs)
    )


def run(path, runtime: str, observations: np.ndarray) -> list[np.ndarray]:
    if runtime == "reference":
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(str(path)).run(None, {"observation": observations})
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"observation": observations})


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("actions", ACTIONS, ids=lambda a: f"{type(a).__name__}-{a.outputs}")
@pytest.mark.parametrize(("shape", "hidden", "activation"), NETWORKS)
def test_the_model_acts_like_the_policy(tmp_path, runtime: str, shape, hidden, activation: str, actions):
    policy = filled(spaces.Box(-9, 9, shape), actions, hidden, activation)
    observations = 3.0 * np.random.default_rng(1).standard_normal((100, *shape))
    found, outputs = run(policy.to_onnx(tmp_path / "policy.onnx"), runtime, observations)
    expected = np.array([policy(row) for row in observations])

    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(outputs, [policy.actor(policy.folded).outputs(row) for row in observations], atol=1e-9)
    assert len(np.unique(found.reshape(100, -1), axis=0)) > 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_first_of_equal_outputs_wins(tmp_path, runtime: str):
    policy = Policy.linear().for_spaces(spaces.Box(-1, 1, (2,)), spaces.Discrete(3, start=5))
    found, _ = run(policy.to_onnx(tmp_path / "policy.onnx"), runtime, np.ones((4, 2)))

    assert found.tolist() == [5, 5, 5, 5]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("actions", [ACTIONS[4], ACTIONS[5]], ids=["float32", "float64"])
def test_single_precision(tmp_path, runtime: str, actions):
    policy = filled(spaces.Box(-9, 9, (3,)), actions, (8,), "tanh")
    observations = np.random.default_rng(1).standard_normal((100, 3)).astype(np.float32)
    found, outputs = run(policy.to_onnx(tmp_path / "policy.onnx", dtype="float32"), runtime, observations)

    assert outputs.dtype == np.float32
    np.testing.assert_allclose(found, [policy(row) for row in observations], atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_other_observations_come_flat(tmp_path, runtime: str):
    space = spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-1, 1, (2,)))
    policy = filled(space, DiscreteActions(3), (4,), "tanh")
    space.seed(2)
    seen = [space.sample() for _ in range(20)]
    flat = np.array([policy.observations.flat(observation) for observation in seen])
    found, _ = run(policy.to_onnx(tmp_path / "policy.onnx"), runtime, flat)

    assert found.tolist() == [policy(observation) for observation in seen]


def test_the_model_says_what_it_is(tmp_path):
    policy = replace(filled(spaces.Box(-9, 9, (3,)), ACTIONS[0], (), "tanh"), about={"env": "CartPole-v1"})
    path = policy.to_onnx(tmp_path / "policy.onnx")
    model = onnx.load(path)

    assert model.producer_name == "esopt"
    assert json.loads(model.metadata_props[0].value) == {"env": "CartPole-v1"}
    assert policy.to_onnx(tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="float32 or float64"):
        policy.to_onnx(path, dtype="float16")


def test_without_onnx_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pyesopt\[onnx\]"):
        filled(spaces.Box(-9, 9, (3,)), ACTIONS[0], (), "tanh").to_onnx(tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []
