"""Observations become the vector that gymnasium's own flattening gives, without gymnasium."""

from __future__ import annotations

import json
from collections import OrderedDict

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from esopt.rl import Policy
from esopt.rl.observations import (
    DEPTH,
    ArrayObservations,
    ChoiceObservations,
    GroupObservations,
    described,
    observations_of,
    restored,
)

PIXELS = spaces.Box(0, 255, (2, 3, 2), np.uint8)
SPACES = [
    spaces.Box(-1, 1, (3,)),
    spaces.Box(-1, 1, (), np.float64),
    spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    spaces.Box(-5, 5, (3,), np.int64),
    PIXELS,
    spaces.Discrete(5),
    spaces.Discrete(3, start=-1),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 3)),
    spaces.MultiDiscrete([2, 5, 1]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 1]]), start=np.array([[0, -3], [5, 1]])),
    spaces.Dict(z=spaces.Discrete(3), a=spaces.Box(-1, 1, (2,))),
    spaces.Dict(OrderedDict(z=spaces.Discrete(3), a=spaces.Box(-1, 1, (2,)))),
    spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)]),
    spaces.Dict(
        goal=spaces.Tuple([spaces.Box(-1, 1, (2,), np.float64), spaces.MultiBinary(3)]),
        body=spaces.Dict(q=spaces.Box(-1, 1, (2, 2)), contact=spaces.MultiDiscrete([2, 2])),
        image=PIXELS,
    ),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_flat_is_gymnasiums_flattening(space: spaces.Space):
    found = observations_of(space)
    again = restored(json.loads(json.dumps(described(found))))
    space.seed(3)

    assert again == found
    assert found.inputs == spaces.flatdim(space)
    for _ in range(30):
        observation = space.sample()
        flat = found.flat(observation)
        assert flat.dtype == np.float64
        assert flat.tolist() == spaces.flatten(space, observation).astype(np.float64).tolist()


leaves = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)),
    st.builds(lambda n: spaces.MultiBinary(n), st.integers(1, 4)),
    st.builds(lambda counts: spaces.MultiDiscrete(counts), st.lists(st.integers(1, 4), min_size=1, max_size=3)),
    st.builds(lambda shape: spaces.Box(-1, 1, tuple(shape)), st.lists(st.integers(1, 3), max_size=3)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(trees, st.integers(0, 2**31 - 1))
def test_any_tree_of_spaces(space: spaces.Space, seed: int):
    found = observations_of(space)
    space.seed(seed)
    observation = space.sample()

    assert restored(json.loads(json.dumps(described(found)))) == found
    assert found.flat(observation).tolist() == spaces.flatten(space, observation).astype(np.float64).tolist()


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_policies_act_on_them(space: spaces.Space):
    policy = Policy.mlp(3).for_spaces(space, spaces.Discrete(3))
    theta = np.random.default_rng(1).standard_normal(policy.dim)
    plain = Policy.mlp(3).for_spaces(spaces.Box(-9, 9, (policy.sizes[0],)), spaces.Discrete(3)).with_parameters(theta)
    policy = policy.with_parameters(theta)
    space.seed(4)
    for _ in range(20):
        observation = space.sample()
        assert policy(observation) == plain(spaces.flatten(space, observation).astype(np.float64))


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (spaces.Box(-1, 1, (3,)), np.zeros((1, 3)), r"shape \(1, 3\). Pass one of shape \(3,\)"),
        (spaces.Discrete(3, start=2), 5, "got 5 in an observation. Pass a whole number from 2 to 4"),
        (spaces.Discrete(3, start=2), 1, "got 1 in an observation"),
        (spaces.Discrete(3), 1.5, "got 1.5 in an observation"),
        (spaces.Discrete(3), np.nan, "got nan in an observation"),
        (spaces.Discrete(3), [1], r"shape \(1,\)"),
        (spaces.MultiDiscrete([2, 2]), [0, 2], "got 2 in an observation"),
        (spaces.Tuple([spaces.Discrete(3)] * 2), (1,), "Pass a tuple of 2"),
        (spaces.Tuple([spaces.Discrete(3)] * 2), 1, "of type int. Pass a tuple of 2"),
        (spaces.Dict(a=spaces.Discrete(3)), {"b": 1}, r"with \['b'\]. Pass a dict with \['a'\]"),
        (spaces.Dict(a=spaces.Discrete(3)), np.zeros(3), "with ndarray. Pass a dict"),
    ],
)
def test_observations_that_do_not_fit(space, observation, message: str):
    with pytest.raises(ValueError, match=message):
        Policy.linear().for_spaces(space, spaces.Discrete(2))(observation)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ArrayObservations((0,)),
        lambda: ArrayObservations((2.0,)),
        lambda: ChoiceObservations((2, 0), (0, 0), (2,)),
        lambda: ChoiceObservations((2, 2), (0,), (2,)),
        lambda: ChoiceObservations((2, 2), (0, 0)),
        lambda: GroupObservations((ArrayObservations((1,)),), ("a", "b")),
        lambda: GroupObservations((ArrayObservations((1,)),) * 2, ("a", "a")),
        lambda: GroupObservations((ArrayObservations((1,)),), (1,)),
        lambda: restored({"kind": "graph"}),
    ],
)
def test_descriptions_that_make_no_sense(make):
    with pytest.raises(ValueError, match=r"Pass|describes"):
        make()


def test_nesting_has_an_end():
    description = {"kind": "array", "shape": [1]}
    for _ in range(DEPTH):
        description = {"kind": "group", "names": None, "parts": [description]}
    assert restored(description).inputs == 1
    with pytest.raises(ValueError, match=f"at depth {DEPTH}"):
        restored({"kind": "group", "names": None, "parts": [description]})
