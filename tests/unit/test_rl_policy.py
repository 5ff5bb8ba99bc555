"""Policies: the law from observation to action, its compiled form, the normalisation, the start."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numba import njit

from esopt._kernels import policy as compiled
from esopt.rl import (
    BoxActions,
    DiscreteActions,
    MultiBinaryActions,
    MultiDiscreteActions,
    Policy,
    Recipe,
    actions,
    network,
)
from esopt.rl.observations import ArrayObservations


class Spaces:
    """What Policy.linear() looks at."""

    def __init__(self, observation: spaces.Space, action: spaces.Space):
        self.observation_space, self.action_space = observation, action


def box(inputs: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (inputs,), np.float64)


def filled(inputs: int, kind, hidden=(), activation: str = "tanh", seed: int = 0) -> Policy:
    """A policy with normalisation and with parameters that have many digits."""
    rng = np.random.default_rng(seed)
    mean, std = rng.standard_normal(inputs), rng.uniform(0.5, 2.0, inputs)
    dim = network.count((inputs, *hidden, kind.outputs))
    theta = rng.standard_normal(dim)
    return Policy(theta, kind, ArrayObservations((inputs,)), mean, std, hidden, activation)


def outputs(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """The definition, with BLAS and without folding."""
    x = (observation.astype(np.float64).ravel() - policy.mean) / policy.std
    *hidden, last = policy.layers
    for weights, bias in hidden:
        x = weights @ x + bias
        x = np.tanh(x) if policy.activation == "tanh" else np.maximum(x, 0.0)
    return last[0] @ x + last[1]


def naive(policy: Policy, observation: list[float]) -> list[float]:
    """The same with Python floats, one operation after the other, the normalisation folded into the first layer."""
    values, layers = observation, [(w.tolist(), b.tolist()) for w, b in policy.layers]
    mean, std = policy.mean.tolist(), policy.std.tolist()
    weights, bias = layers[0]
    for j, row in enumerate(weights):
        for i in range(len(row)):
            row[i] = row[i] / std[i]
            bias[j] = bias[j] - row[i] * mean[i]
    for index, (weights, bias) in enumerate(layers):
        sums = []
        for row, total in zip(weights, bias, strict=True):
            for weight, value in zip(row, values, strict=True):
                total = total + weight * value
            if index < len(layers) - 1:
                total = math.tanh(total) if policy.activation == "tanh" else max(0.0, total)
            sums.append(total)
        values = sums
    return values


NETWORKS = [
    (1, (), "tanh"),
    (4, (), "tanh"),
    (40, (), "tanh"),
    (3, (1,), "tanh"),
    (3, (2,), "tanh"),
    (3, (3,), "relu"),
    (3, (5,), "tanh"),
    (17, (64, 64), "tanh"),
    (17, (32, 8, 16), "relu"),
]


@pytest.mark.parametrize(("inputs", "hidden", "activation"), NETWORKS)
@pytest.mark.parametrize("count", [1, 3, 6])
def test_outputs_are_those_of_the_definition(inputs: int, hidden, activation: str, count: int):
    policy = filled(inputs, BoxActions(np.full(count, -np.inf), np.full(count, np.inf), "float64"), hidden, activation)
    for row in np.random.default_rng(1).standard_normal((20, inputs)):
        found = policy(row)
        np.testing.assert_allclose(found, outputs(policy, row), rtol=1e-10, atol=1e-10)
        assert found.tolist() == naive(policy, row.tolist())


@pytest.mark.parametrize("inputs", [1, 4, 40])
def test_discrete_action_is_the_largest_output(inputs: int):
    policy = filled(inputs, DiscreteActions(3, start=-1))
    observations = np.random.default_rng(1).standard_normal((200, inputs)).astype(np.float32)
    chosen = [policy(row) for row in observations]

    assert chosen == [int(outputs(policy, row).argmax()) - 1 for row in observations]
    assert len(set(chosen)) > 1
    assert type(chosen[0]) is int


def test_multidiscrete_action_is_the_largest_of_each_group():
    space = spaces.MultiDiscrete(np.array([[2, 3], [1, 4]]), start=np.array([[0, 5], [-2, 1]]), dtype=np.int32)
    policy = Policy.linear(Spaces(box(3), space))
    policy = policy.with_parameters(np.random.default_rng(2).standard_normal(policy.dim))
    seen = set()
    for row in np.random.default_rng(3).standard_normal((100, 3)):
        split = np.split(outputs(policy, row), [2, 5, 6])
        found = policy(row)
        assert (found == np.array([group.argmax() for group in split]).reshape(2, 2) + space.start).all()
        assert space.contains(found)
        seen.add(tuple(found.ravel().tolist()))
    assert len(seen) > 10


@pytest.mark.parametrize("shape", [3, (2, 3)])
def test_multibinary_action_is_one_where_an_output_is_positive(shape):
    space = spaces.MultiBinary(shape)
    policy = Policy.linear(Spaces(box(3), space))
    policy = policy.with_parameters(np.random.default_rng(2).standard_normal(policy.dim))
    for row in np.random.default_rng(3).standard_normal((50, 3)):
        found = policy(row)
        assert (found == (outputs(policy, row) > 0.0).reshape(space.shape)).all()
        assert space.contains(found)


def test_first_of_equal_outputs_wins():
    equal = Policy.linear(Spaces(box(2), spaces.Discrete(3, start=5)))
    groups = Policy.linear(Spaces(box(2), spaces.MultiDiscrete([3, 2])))

    assert equal(np.array([0.3, 0.4])) == 5
    assert equal.with_parameters([0.0] * 6 + [1.0, 2.0, 2.0])(np.zeros(2)) == 6
    assert groups(np.array([0.3, 0.4])).tolist() == [0, 0]
    assert Policy.linear(Spaces(box(2), spaces.MultiBinary(2)))(np.zeros(2)).tolist() == [0, 0]


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


def test_tanh_action_fills_the_box():
    low, high = np.array([-2.0, 0.0]), np.array([4.0, 0.5])
    policy = filled(3, BoxActions(low, high, "float64", squash="tanh"))
    for row in np.random.default_rng(2).standard_normal((100, 3)):
        expected = np.array([1.0, 0.25]) + np.array([3.0, 0.25]) * np.tanh(outputs(policy, row))
        np.testing.assert_allclose(policy(row), expected, rtol=1e-12, atol=1e-12)
    assert policy(np.full(3, 1e9)).tolist() in [[a, b] for a in (-2.0, 4.0) for b in (0.0, 0.5)]
    with pytest.raises(ValueError, match='"tanh" where all bounds are finite'):
        BoxActions(low, np.array([1.0, np.inf]), squash="tanh")


def test_box_action_has_the_shape_and_type_of_the_space():
    space = spaces.Box(np.full((2, 3), -0.4, np.float32), np.full((2, 3), 0.4, np.float32))
    policy = Policy.linear(Spaces(spaces.Box(-1, 1, (3, 2)), space)).with_parameters(np.full(42, 9.0))
    action = policy(np.ones((3, 2), np.float32))

    assert action.shape == (2, 3)
    assert action.dtype == np.float32
    assert (action == np.float32(0.4)).all()
    assert space.contains(action)


@njit
def play(theta, sizes, activation, kind, layout, observations, work, chosen):
    """What an engine does, for one observation after the other."""
    for i in range(len(observations)):
        for j in range(observations.shape[1]):
            work[j] = observations[i, j]
        wide = len(work) // 3
        row = compiled.forward(theta, sizes, activation, work, wide)
        compiled.choose(kind, layout, work[row * wide : (row + 1) * wide], chosen[i])
    return work[: observations.shape[1]]


KINDS = [
    DiscreteActions(3, start=-1),
    MultiDiscreteActions((2, 3, 1, 4), (0, 5, -2, 1)),
    MultiBinaryActions((5,)),
    BoxActions(np.full(6, -0.4), np.full(6, 0.4)),
    BoxActions(np.full(1, -0.4), np.full(1, 0.4), "float64"),
    BoxActions(np.array([-np.inf, -np.inf, 0.1]), np.array([np.inf, 0.3, np.inf])),
    BoxActions(np.array([-0.1, 2.0]), np.array([0.7, 3.3]), squash="tanh"),
    BoxActions(np.array([-0.1, 2.0]), np.array([0.7, 3.3]), "float64", squash="tanh"),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{type(kind).__name__}{kind.kind}")
@pytest.mark.parametrize(("inputs", "hidden", "activation"), NETWORKS)
def test_compiled_form_chooses_the_same_bits(kind, inputs: int, hidden, activation: str):
    policy = filled(inputs, kind, hidden, activation)
    rng = np.random.default_rng(5)
    observations = rng.standard_normal((400, inputs)) * 10.0 ** rng.uniform(-6, 4, (400, 1))
    observations[::40] = 0.0
    observations[1::40] = rng.choice([np.inf, -np.inf, np.nan, 1e308, -1e308, 5e-324, -0.0, 1.0], (10, inputs))
    form, work = policy.form, np.full(3 * max(policy.sizes), 7.0)
    found = np.full((400, len(form.layout)), 7.0)
    kept = play(policy.folded.copy(), form.sizes, form.activation, form.kind, form.layout, observations, work, found)
    expected = np.array([np.ravel(policy(row)) for row in observations], np.float64)
    same_sign = (np.signbit(expected) == np.signbit(found)) | np.isnan(expected)

    assert np.array_equal(found, expected, equal_nan=True)
    assert same_sign.all()
    assert len(np.unique(found, axis=0)) > 1
    assert np.array_equal(kept, observations[-1])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{type(kind).__name__}{kind.kind}")
def test_compiled_choice_is_the_same_for_ties_and_for_what_is_no_number(kind):
    values = np.array([0.0, -0.0, 1.0, np.nextafter(1.0, 2.0), -1.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324])
    rows = np.random.default_rng(6).choice(values, (3000, kind.outputs))
    for row in rows:
        found = np.full(len(kind.layout), 7.0)
        choose(kind, row, found)
        assert np.array_equal(found, np.ravel(kind.act(row.tolist())).astype(np.float64), equal_nan=True)


def choose(kind, row: np.ndarray, out: np.ndarray) -> None:
    compiled.choose(kind.kind, kind.layout, row, out)


def test_float32_actions_are_rounded_once():
    kind = BoxActions(np.full(1, -np.inf), np.full(1, np.inf))
    middle = 1.0 + 2.0**-24  # halfway between two numbers of float32: to the even one, as IEEE 754 says
    for output, rounded in (
        (middle, 1.0),
        (np.nextafter(middle, 2.0), 1.0 + 2.0**-23),
        (1.0 + 3 * 2.0**-24, 1.0 + 2.0**-22),
        (1e300, float(np.finfo(np.float32).max)),
        (-np.inf, -float(np.finfo(np.float32).max)),
    ):
        found = np.zeros(1)
        choose(kind, np.array([output]), found)
        assert found[0] == rounded == kind.act([output])[0]


def test_numbers_of_kinds_and_activations_are_those_of_the_kernels():
    for name in ("LARGEST", "POSITIVE", "BOX", "SINGLE", "SQUASHED"):
        assert getattr(actions, name) == getattr(compiled, name)
    assert network.ACTIVATIONS[compiled.TANH] == "tanh"
    assert network.ACTIVATIONS[compiled.RELU] == "relu"


def test_parameters_are_weights_then_biases():
    policy = Policy.linear(Spaces(box(2), spaces.Discrete(2)))
    moved = policy.with_parameters([1, 2, 3, 4, 5, 6])
    ((weights, bias),) = moved.layers
    deep = Policy.mlp(3).of(Spaces(box(2), spaces.Discrete(2)))
    shapes = [(w.tolist(), b.tolist()) for w, b in deep.with_parameters(np.arange(17)).layers]

    assert policy.dim == 6
    assert not policy.parameters.any()
    assert weights.tolist() == [[1, 2], [3, 4]]
    assert bias.tolist() == [5, 6]
    assert moved.parameters.tolist() == [1, 2, 3, 4, 5, 6]
    assert shapes == [([[0, 1], [2, 3], [4, 5]], [6, 7, 8]), ([[9, 10, 11], [12, 13, 14]], [15, 16])]


def test_arrays_are_the_policys_own():
    theta = np.ones(8)
    policy = Policy(theta, DiscreteActions(2), ArrayObservations((3,)), np.zeros(3), np.ones(3))
    theta[:] = 7.0

    assert (policy.parameters == 1.0).all()
    for array in (policy.parameters, policy.mean, policy.std, policy.folded):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7.0


def test_linear_starts_at_zero_and_an_mlp_with_outputs_zero():
    spaces_of = Spaces(box(200), spaces.Box(-1, 1, (3,)))
    for activation, variance in (("tanh", 1.0), ("relu", 2.0)):
        policy = Policy.mlp(100, 50, activation=activation, seed=3).of(spaces_of)
        first, second, last = policy.layers
        assert not any(bias.any() for _, bias in policy.layers)
        assert not last[0].any()
        for weights, inputs in ((first[0], 200), (second[0], 100)):  # 20,000 and 5,000 normals: 1 and 2 % of a variance
            assert abs(weights.var() * inputs / variance - 1.0) < 0.08
            assert abs(weights.mean()) * math.sqrt(inputs * weights.size / variance) < 4.0
        assert policy(np.ones(200)).tolist() == [0.0, 0.0, 0.0]
    again, other = (Policy.mlp(100, 50, seed=seed).of(spaces_of) for seed in (3, 4))

    assert Policy.mlp(100, 50, seed=3).of(spaces_of).parameters.tobytes() == again.parameters.tobytes()
    assert abs(np.corrcoef(again.layers[0][0].ravel(), other.layers[0][0].ravel())[0, 1]) < 0.03
    rows = [again.layers[0][0].ravel()[:5000], again.layers[1][0].ravel()]
    assert abs(np.corrcoef(rows)[0, 1]) < 0.06
    assert not Policy.linear().of(spaces_of).parameters.any()


def test_recipes_are_completed_by_an_environment():
    env = Spaces(box(4), spaces.Box(-1, 1, (2,)))
    recipe = Policy.mlp(8, activation="relu", squash="tanh")
    policy = recipe.of(env)

    assert (policy.hidden, policy.activation, policy.actions.squash) == ((8,), "relu", "tanh")
    assert policy.sizes == (4, 8, 2)
    assert policy.dim == 4 * 8 + 8 + 8 * 2 + 2
    assert (
        recipe.for_spaces(env.observation_space, env.action_space).parameters.tobytes() == policy.parameters.tobytes()
    )
    assert Policy.linear(env).hidden == Policy.linear().of(env).hidden == ()
    assert Policy.linear(squash="tanh").of(env).actions.squash == "tanh"
    assert recipe == Policy.mlp(8, activation="relu", squash="tanh")


@pytest.mark.parametrize("hidden", [(), (5, 3)])
def test_fold_has_the_same_bits_for_one_row_and_for_many(hidden, monkeypatch):
    policy = filled(7, DiscreteActions(3), hidden)
    rng = np.random.default_rng(8)
    thetas = rng.standard_normal((50, policy.dim))
    before = thetas.copy()
    folded = policy.fold(thetas, policy.mean, policy.std)
    monkeypatch.setattr(network, "_CHUNK", 50)
    cut = policy.fold(thetas, policy.mean, policy.std)
    rows = np.array([policy.with_parameters(theta).folded for theta in thetas])

    assert (thetas == before).all()
    assert folded.tobytes() == cut.tobytes() == rows.tobytes()
    for theta, row in zip(thetas[:5], folded[:5], strict=True):
        exact, plain = policy.with_parameters(theta), policy.with_normalisation(np.zeros(7), np.ones(7))
        for x in rng.standard_normal((20, 7)):
            at = exact.actor(row).outputs(x)
            assert at == plain.with_parameters(row)._actor.outputs(x) == naive(exact, x.tolist())
    assert policy.fold(thetas[:0], policy.mean, policy.std).shape == (0, policy.dim)


@pytest.mark.parametrize("outputs", [1, 2])
def test_folding_keeps_the_sign_of_zero(outputs: int):
    policy = Policy.linear(Spaces(box(2), box(outputs)))
    thetas = np.zeros((3, policy.dim))
    thetas[:, 2 * outputs :] = -0.0
    folded = policy.fold(thetas, np.ones(2), np.full(2, 2.0))

    assert np.signbit(folded[:, 2 * outputs :]).all()
    assert folded[0].tobytes() == policy.fold(thetas[:1], np.ones(2), np.full(2, 2.0)).tobytes()


def test_without_a_normalisation_folding_is_a_copy():
    policy = filled(3, DiscreteActions(2))
    thetas = np.random.default_rng(9).standard_normal((4, policy.dim))
    folded = policy.fold(thetas, np.zeros(3), np.ones(3))

    assert folded.tobytes() == thetas.tobytes()
    assert not np.shares_memory(folded, thetas)


def test_with_normalisation_keeps_the_parameters():
    policy = filled(3, BoxActions(np.full(2, -9.0), np.full(2, 9.0), "float64"))
    mean, std = np.array([1.0, 2.0, 3.0]), np.array([0.1, 1.0, 10.0])
    moved = policy.with_normalisation(mean, std)
    x = np.array([0.3, -0.2, 5.0])

    assert moved.parameters.tobytes() == policy.parameters.tobytes()
    assert moved.mean.tolist() == mean.tolist()
    np.testing.assert_allclose(moved(x), policy.with_normalisation([0] * 3, [1] * 3)((x - mean) / std), rtol=1e-12)


@pytest.mark.parametrize(("inputs", "count"), [(1, 1), (3, 1), (1, 2), (200, 1), (200, 2)])
def test_an_actor_keeps_its_own_parameters(inputs: int, count: int):
    policy = filled(inputs, BoxActions(np.full(count, -np.inf), np.full(count, np.inf)))
    theta = np.random.default_rng(7).standard_normal(policy.dim)
    actor, x = policy.actor(theta), np.linspace(0.1, 0.2, inputs)
    before = actor(x).tolist()
    theta[:] = 0.0

    assert actor(x).tolist() == before


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_policy_survives_pickling(hidden):
    policy = filled(3, BoxActions(np.full(2, -9.0), np.full(2, 9.0)), hidden)
    copy = pickle.loads(pickle.dumps(policy))

    for row in np.random.default_rng(4).standard_normal((20, 3)):
        assert copy(row).tobytes() == policy(row).tobytes()


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_observations_of_any_real_type(hidden):
    policy = filled(4, BoxActions(np.full(2, -9.0), np.full(2, 9.0), "float64"), hidden)
    whole = np.array([0, 1, 200, 3])
    expected = policy(whole.astype(np.float64)).tobytes()

    for kind in (np.uint8, np.int64, np.float32, np.float16):
        assert policy(whole.astype(kind)).tobytes() == expected
    assert policy(whole.tolist()).tobytes() == expected
    assert policy(np.array([True, False, True, True])).tobytes() == policy([1, 0, 1, 1]).tobytes()


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Text(5), spaces.Discrete(2), "observation space is, or contains, Text.*serves Box, Discrete"),
        (spaces.Dict(a=box(1), b=spaces.Sequence(box(1))), spaces.Discrete(2), "contains, Sequence"),
        (box(2), spaces.Tuple([spaces.Discrete(2)]), "action space is Tuple.*serves Box of float32 or float64, Disc"),
        (box(2), spaces.Box(0, 255, (2,), np.uint8), "dtype uint8"),
        (spaces.Box(0, 1, (0,)), spaces.Discrete(2), "got spaces of 0 inputs|positive whole"),
    ],
)
def test_unsupported_spaces(observation, action, message: str):
    with pytest.raises(ValueError, match=message):
        Policy.linear(Spaces(observation, action))


def test_bad_arguments():
    good = dict(parameters=np.zeros(8), observations=ArrayObservations((3,)), mean=np.zeros(3), std=np.ones(3))
    policy = Policy(actions=DiscreteActions(2), **good)
    for change in ({"parameters": np.zeros((2, 4))}, {"mean": np.zeros(2)}, {"std": np.ones((3, 1))}):
        with pytest.raises(ValueError, match=f"got {next(iter(change))} of shape"):
            replace(policy, **change)
    for std in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="std > 0"):
            policy.with_normalisation(np.zeros(3), np.array([1.0, std, 1.0]))
    for thetas, mean in ((np.zeros(8), np.zeros(3)), (np.zeros((1, 7)), np.zeros(3)), (np.zeros((1, 8)), np.zeros(2))):
        with pytest.raises(ValueError, match=r"fold\(\) got"):
            policy.fold(thetas, mean, np.ones(3))
    with pytest.raises(ValueError, match="8 parameters"):
        policy.with_parameters(np.zeros(7))
    with pytest.raises(ValueError, match="8 parameters"):
        policy.actor(np.zeros(7))
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        policy(np.zeros(4))
    for hidden in ((0,), (2.0,), (True,)):
        with pytest.raises(ValueError, match="positive whole numbers"):
            Policy.mlp(*hidden)
    with pytest.raises(ValueError, match="got no hidden layers"):
        Policy.mlp()
    with pytest.raises(ValueError, match="activation must be one of tanh, relu"):
        Policy.mlp(4, activation="gelu")
    with pytest.raises(ValueError, match="squash must be"):
        Policy.linear(squash="sin")


def test_bad_actions():
    with pytest.raises(ValueError, match="low <= high"):
        BoxActions(np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match="float32 or float64"):
        BoxActions(np.zeros(2), np.ones(2), "float16")
    for bad in ((0,), (1, -1), (2.0,), (2**53,), ()):
        with pytest.raises(ValueError, match="positive whole numbers"):
            MultiDiscreteActions(bad)
    with pytest.raises(ValueError, match="as many starts as counts"):
        MultiDiscreteActions((2, 2), (1,))
    with pytest.raises(ValueError, match="positive whole numbers"):
        MultiDiscreteActions((2, 2), shape=(2.0,))
    with pytest.raises(ValueError, match="integer type"):
        MultiDiscreteActions((2, 2), dtype="float32")
    with pytest.raises(ValueError, match="positive whole numbers"):
        DiscreteActions(0)
    with pytest.raises(ValueError, match="positive whole numbers"):
        MultiBinaryActions((2, 0))


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0", "FrozenLake-v1"]
)
def test_actions_belong_to_the_environments_space(name: str):
    env = gym.make(name)
    rng = np.random.default_rng(6)
    for recipe in (Policy.linear(), Policy.mlp(4, activation="relu")):
        policy = recipe.of(env)
        for _ in range(50):
            observation = env.observation_space.sample()
            assert env.action_space.contains(policy.with_parameters(rng.standard_normal(policy.dim) * 3)(observation))
    env.close()


def test_a_recipe_may_be_linear_where_that_has_parameters_enough():
    recipe = Recipe(hidden=(8,), linear_from=16)
    assert [recipe.of(gym.make(name)).hidden for name in ("Pendulum-v1", "CartPole-v1", "Acrobot-v1")] == [
        (8,),
        (8,),
        (),
    ]
    acrobot = gym.make("Acrobot-v1")  # (6 + 1) * 3 parameters
    assert [Recipe(hidden=(4,), linear_from=least).of(acrobot).hidden for least in (21, 22)] == [(), (4,)]
    with pytest.raises(ValueError, match="linear_from must be a positive whole number or None, got 0"):
        Recipe(linear_from=0)
