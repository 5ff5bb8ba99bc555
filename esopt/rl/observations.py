"""Observations: how what the environment shows becomes the inputs of a policy, one flat vector of float64.

The order is that of ``gymnasium.spaces.flatten``: arrays row by row, choices one-hot, the parts of a Dict or Tuple one
after the other in the order of the space. The records here say it without gymnasium, and a policy file keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEPTH = 32
"""How deep Dict and Tuple may be nested."""


@dataclass(frozen=True)
class ArrayObservations:
    """Arrays of numbers of one shape: Box and MultiBinary spaces."""

    shape: tuple[int, ...]
    kind: ClassVar[str] = "array"

    def __post_init__(self) -> None:
        _check_whole("ArrayObservations", self.shape, at_least=1)

    @property
    def inputs(self) -> int:
        """Number of inputs of the policy."""
        return math.prod(self.shape)

    def flat(self, observation: Any) -> Array:
        """Return the inputs for an observation, (inputs,)."""
        array = np.asarray(observation, np.float64)
        if array.shape != self.shape:
            raise ValueError(f"the policy got an observation of shape {array.shape}. Pass one of shape {self.shape}.")
        return array.ravel()


@dataclass(frozen=True)
class ChoiceObservations:
    """Whole numbers, each one-hot: Discrete and MultiDiscrete spaces.

    Parameters
    ----------
    counts : entry k is one of ``counts[k]`` numbers.
    start : the first of them.
    shape : of an observation; () for a single number.
    """

    counts: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...] = ()
    kind: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        _check_whole("ChoiceObservations", self.counts, at_least=1)
        _check_whole("ChoiceObservations", self.shape, at_least=1)
        _check_whole("ChoiceObservations", self.start)
        if not len(self.counts) == len(self.start) == math.prod(self.shape):
            raise ValueError(
                f"ChoiceObservations() got {len(self.counts)} counts, {len(self.start)} starts and shape {self.shape}. "
                "Pass one of each for every entry of an observation."
            )

    @property
    def inputs(self) -> int:
        """Number of inputs of the policy."""
        return sum(self.counts)

    def flat(self, observation: Any) -> Array:
        """Return the inputs for an observation, (inputs,)."""
        array, inputs, at = np.asarray(observation), np.zeros(self.inputs), 0
        if array.shape != self.shape:
            raise ValueError(f"the policy got an observation of shape {array.shape}. Pass one of shape {self.shape}.")
        for number, count, start in zip(array.ravel().tolist(), self.counts, self.start, strict=True):
            if not start <= number < start + count or number != int(number):
                raise ValueError(
                    f"the policy got {number} in an observation. "
                    f"Pass a whole number from {start} to {start + count - 1}."
                )
            inputs[at + int(number) - start] = 1.0
            at += count
        return inputs


@dataclass(frozen=True)
class GroupObservations:
    """Several observations at once: Dict spaces, with the names of the parts, and Tuple spaces, without."""

    parts: tuple[Observations, ...]
    names: tuple[str, ...] | None = None
    kind: ClassVar[str] = "group"

    def __post_init__(self) -> None:
        names = self.names
        if names is not None and not (len(set(names)) == len(self.parts) == len(names) and _all(names, str)):
            raise ValueError(
                f"GroupObservations() got names {names} for {len(self.parts)} parts. Pass one string for each, or None."
            )

    @property
    def inputs(self) -> int:
        """Number of inputs of the policy."""
        return sum(part.inputs for part in self.parts)

    def flat(self, observation: Any) -> Array:
        """Return the inputs for an observation, (inputs,)."""
        if self.names is None:
            if not isinstance(observation, (tuple, list)) or len(observation) != len(self.parts):
                raise ValueError(
                    f"the policy got an observation of type {type(observation).__name__}. "
                    f"Pass a tuple of {len(self.parts)}."
                )
            values = observation
        else:
            if not isinstance(observation, Mapping) or not set(self.names) <= set(observation):
                got = sorted(map(str, observation)) if isinstance(observation, Mapping) else type(observation).__name__
                raise ValueError(f"the policy got an observation with {got}. Pass a dict with {sorted(self.names)}.")
            values = [observation[name] for name in self.names]
        return np.concatenate([np.zeros(0), *(part.flat(v) for part, v in zip(self.parts, values, strict=True))])


Observations = ArrayObservations | ChoiceObservations | GroupObservations


def observations_of(space: Any) -> Observations:
    """Return the observations for a gymnasium observation space.

    Raises
    ------
    ValueError  for spaces that a policy does not serve.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box) and space.dtype is not None and _plain(space.dtype):
        return ArrayObservations(tuple(space.shape))
    if isinstance(space, spaces.MultiBinary):
        return ArrayObservations(tuple(space.shape))
    if isinstance(space, spaces.Discrete):
        return ChoiceObservations((int(space.n),), (int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        counts, start = (tuple(np.ravel(a).tolist()) for a in (space.nvec, space.start))
        return ChoiceObservations(counts, start, tuple(space.nvec.shape))
    if isinstance(space, spaces.Dict):
        return GroupObservations(tuple(map(observations_of, space.values())), tuple(space.keys()))
    if isinstance(space, spaces.Tuple):
        return GroupObservations(tuple(map(observations_of, space.spaces)))
    raise ValueError(
        f"the observation space is, or contains, {space}. A policy serves Box, Discrete, MultiDiscrete, MultiBinary, "
        "and Dict and Tuple of them: wrap the environment, for example with gymnasium.wrappers.TransformObservation."
    )


def described(observations: Observations) -> dict[str, Any]:
    """Return what :func:`restored` needs, in lists, strings and numbers."""
    if isinstance(observations, ArrayObservations):
        return {"kind": observations.kind, "shape": list(observations.shape)}
    if isinstance(observations, ChoiceObservations):
        fields = {"counts": observations.counts, "start": observations.start, "shape": observations.shape}
        return {"kind": observations.kind, **{name: list(value) for name, value in fields.items()}}
    names = None if observations.names is None else list(observations.names)
    return {"kind": observations.kind, "names": names, "parts": [described(part) for part in observations.parts]}


def restored(description: Any, depth: int = 0) -> Observations:
    """Return the observations that :func:`described` described.

    Raises
    ------
    ValueError, TypeError, KeyError  for anything else.
    """
    kind = description["kind"]
    if kind == ArrayObservations.kind:
        return ArrayObservations(tuple(description["shape"]))
    if kind == ChoiceObservations.kind:
        return ChoiceObservations(*(tuple(description[name]) for name in ("counts", "start", "shape")))
    if kind == GroupObservations.kind and depth < DEPTH:
        names = description["names"]
        parts = tuple(restored(part, depth + 1) for part in description["parts"])
        return GroupObservations(parts, None if names is None else tuple(names))
    raise ValueError(f"it describes observations of kind {kind!r} at depth {depth}")


def _plain(dtype: Any) -> bool:
    """Whether numbers of this type become float64 as Python's own do."""
    return np.dtype(dtype).kind in "biuf" and np.dtype(dtype).itemsize <= 8


def _all(values: tuple[Any, ...], kind: type) -> bool:
    return all(type(value) is kind for value in values)


def _check_whole(name: str, values: tuple[Any, ...], at_least: int | None = None) -> None:
    if not _all(values, int) or (at_least is not None and min(values, default=at_least) < at_least):
        raise ValueError(f"{name}() got {values}. Pass a tuple of positive whole numbers.")
