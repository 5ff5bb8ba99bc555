"""Policies that need numpy alone: observation in, action out, one ``.npz`` file on disk.

A policy is a frozen record of arrays. Its parameters are one vector theta (dim,), which is what a strategy searches over; the law from
observation to action does not depend on the library that trained it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_FORMAT = "esopt policy"
_VERSION = 1
_SMALL = 24  # up to so many weights a loop over Python floats beats three calls into numpy


@dataclass(frozen=True)
class Discrete:
    """Actions ``start``, ..., ``start + n - 1``; the largest of ``n`` outputs wins, the first of equal ones."""

    n: int
    start: int = 0

    @property
    def outputs(self) -> int:
        """Number of outputs that the policy must have."""
        return self.n

    def act(self, outputs: list[float]) -> int:
        """Return the action of the ``n`` outputs."""
        return self.start + outputs.index(max(outputs))


@dataclass(frozen=True, eq=False)
class Box:
    """Actions between ``low`` and ``high``, both of the action's shape; infinite bounds are none.

    Output u becomes clip(u, -1, 1) mapped onto [low, high] where both bounds are finite, and clip(u, low, high) elsewhere, so
    that the parameters have no unit.
    """

    low: Array
    high: Array
    dtype: str = "float32"
    _middle: Array = field(init=False, repr=False)
    _half: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low, np.float64), np.asarray(self.high, np.float64)
        if low.shape != high.shape or not (low <= high).all():
            raise ValueError(f"Box() got bounds {low} and {high}. Pass two arrays of one shape with low <= high.")
        both = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore", over="ignore"):
            middle, half = np.where(both, 0.5 * low + 0.5 * high, 0.0), np.where(both, 0.5 * high - 0.5 * low, 1.0)
        for name, value in (("low", low), ("high", high), ("_middle", middle.ravel()), ("_half", half.ravel())):
            object.__setattr__(self, name, value)

    @property
    def outputs(self) -> int:
        """Number of outputs that the policy must have."""
        return int(self.low.size)

    def act(self, outputs: list[float]) -> NDArray[Any]:
        """Return the action of the outputs, in the space's shape and type."""
        action = (self._middle + self._half * outputs).reshape(self.low.shape)
        return np.minimum(np.maximum(action, self.low), self.high).astype(self.dtype)


@dataclass(frozen=True, eq=False)
class Policy:
    """A linear policy: outputs = weights @ (observation - mean) / std + bias.

    Parameters
    ----------
    weights : (outputs, inputs)
    bias : (outputs,)
    action : how outputs become an action.
    shape : shape of an observation, flattened to ``inputs`` numbers.
    mean, std : (inputs,)  normalisation of observations; no parameters.
    about : what a person may want to know later: names, numbers, strings.
    """

    weights: Array
    bias: Array
    action: Discrete | Box
    shape: tuple[int, ...]
    mean: Array
    std: Array
    about: Mapping[str, Any] = field(default_factory=dict)
    _rows: list[tuple[list[float], float]] = field(init=False, repr=False)
    _gain: Array = field(init=False, repr=False)
    _offset: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        inputs = int(np.prod(self.shape, dtype=np.int64))
        wanted = {"weights": (self.action.outputs, inputs), "bias": (self.action.outputs,), "mean": (inputs,), "std": (inputs,)}
        for name, shape in wanted.items():
            array = np.ascontiguousarray(getattr(self, name), np.float64)
            if array.shape != shape:
                raise ValueError(f"Policy() got {name} of shape {array.shape}. Pass {shape} for {self.action}.")
            object.__setattr__(self, name, array)
        if not (self.std > 0.0).all():
            raise ValueError(f"Policy() got std {self.std}. Pass positive numbers.")
        gain = self.weights / self.std
        object.__setattr__(self, "_gain", gain)
        object.__setattr__(self, "_offset", self.bias - gain @ self.mean)
        rows = list(zip(gain.tolist(), self._offset.tolist(), strict=True)) if gain.size <= _SMALL else []
        object.__setattr__(self, "_rows", rows)

    @classmethod
    def linear(cls, env: Any) -> Policy:
        """Return the linear policy with all parameters 0 for the spaces of a gymnasium environment.

        Observations with finite bounds on both sides are normalised to [-1, 1]; other ones are taken as they are.

        Raises
        ------
        ValueError  for spaces other than Box observations and Discrete or Box actions.
        """
        observation, action = env.observation_space, _action_space(env.action_space)
        if type(observation).__name__ != "Box":
            raise ValueError(f"the observation space is {observation}. Wrap the environment so that it is a Box.")
        inputs, outputs = int(np.prod(observation.shape, dtype=np.int64)), action.outputs
        bounds = Box(observation.low, observation.high)
        return cls(
            np.zeros((outputs, inputs)), np.zeros(outputs), action, tuple(observation.shape), bounds._middle, bounds._half
        )

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return self.weights.size + self.bias.size

    @property
    def parameters(self) -> Array:
        """The weights row by row, then the biases, (dim,)."""
        return np.concatenate([self.weights.ravel(), self.bias])

    def with_parameters(self, theta: ArrayLike) -> Policy:
        """Return the policy with parameters ``theta`` (dim,)."""
        vector = np.asarray(theta, np.float64)
        if vector.shape != (self.dim,):
            raise ValueError(f"the policy has {self.dim} parameters, got an array of shape {vector.shape}. Pass ({self.dim},).")
        split = self.weights.size
        return replace(self, weights=vector[:split].reshape(self.weights.shape), bias=vector[split:])

    def __call__(self, observation: ArrayLike) -> Any:
        """Return the action for one observation: an int for Discrete, an array for Box."""
        flat = np.asarray(observation, np.float64).ravel()
        if not self._rows:
            return self.action.act((self._gain @ flat + self._offset).tolist())
        inputs, outputs = flat.tolist(), []
        for row, total in self._rows:
            for weight, value in zip(row, inputs, strict=True):
                total += weight * value
            outputs.append(total)
        return self.action.act(outputs)
