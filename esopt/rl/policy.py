"""Policies that need numpy alone: observation in, action out, one ``.npz`` file on disk.

A policy is a frozen record of arrays. Its parameters are one vector theta (dim,), which is what a strategy searches
over; the law from observation to action does not depend on what trained it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_FORMAT, _VERSION = "esopt policy", 1
_SMALL = 24
"""Up to so many weights, a loop over Python floats is faster than calls into numpy."""


@dataclass(frozen=True)
class DiscreteActions:
    """Whole numbers from ``start`` to ``start + n - 1``; the largest of ``n`` outputs wins, the first of equal ones."""

    n: int
    start: int = 0

    @property
    def outputs(self) -> int:
        """Number of outputs of the policy."""
        return self.n

    def act(self, outputs: list[float]) -> int:
        """Return the action for ``n`` outputs."""
        return self.start + outputs.index(max(outputs))


@dataclass(frozen=True, eq=False)
class BoxActions:
    """Arrays between ``low`` and ``high``, both of the shape of an action; bounds may be infinite.

    An output u becomes clip(middle + half * u, low, high). Where both bounds are finite, ``middle`` is halfway between
    them and ``half`` the distance to either, so that parameters have no unit; elsewhere they are 0 and 1.
    """

    low: Array
    high: Array
    dtype: str = "float32"
    _affine: list[tuple[float, float, float, float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low, np.float64), np.asarray(self.high, np.float64)
        if low.shape != high.shape or not (low <= high).all():
            raise ValueError(f"BoxActions() got bounds {low} and {high}. Pass arrays of one shape, low <= high.")
        if np.dtype(self.dtype).kind != "f":
            raise ValueError(f"BoxActions() got dtype {self.dtype}. Pass a floating type, or wrap the environment.")
        bounds = list(zip(low.ravel().tolist(), high.ravel().tolist(), strict=True))
        finite = [bool(np.isfinite(a) and np.isfinite(b)) for a, b in bounds]
        affine = [
            (0.5 * a + 0.5 * b, 0.5 * b - 0.5 * a, a, b) if both else (0.0, 1.0, a, b)
            for (a, b), both in zip(bounds, finite, strict=True)
        ]
        for name, value in (("low", low), ("high", high), ("_affine", affine)):
            object.__setattr__(self, name, value)

    @property
    def outputs(self) -> int:
        """Number of outputs of the policy."""
        return self.low.size

    def act(self, outputs: list[float]) -> NDArray[Any]:
        """Return the action for the outputs, in the shape and type of the space."""
        clipped = [min(max(m + h * u, a), b) for u, (m, h, a, b) in zip(outputs, self._affine, strict=True)]
        return np.array(clipped, self.dtype).reshape(self.low.shape)


@dataclass(frozen=True, eq=False)
class Policy:
    """A linear policy: outputs = weights @ (observation - mean) / std + bias.

    Parameters
    ----------
    weights : (outputs, inputs)
    bias : (outputs,)
    actions : how outputs become an action.
    shape : shape of an observation, which is flattened to ``inputs`` numbers.
    mean, std : (inputs,)  normalisation of observations; no parameters, nothing changes them.
    about : names, numbers and strings that people may want to know later.
    """

    weights: Array
    bias: Array
    actions: DiscreteActions | BoxActions
    shape: tuple[int, ...]
    mean: Array
    std: Array
    about: Mapping[str, Any] = field(default_factory=dict)
    _gain: Array = field(init=False, repr=False)
    _offset: Array = field(init=False, repr=False)
    _rows: list[tuple[list[float], float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        inputs, outputs = int(np.prod(self.shape, dtype=np.int64)), self.actions.outputs
        wanted = {"weights": (outputs, inputs), "bias": (outputs,), "mean": (inputs,), "std": (inputs,)}
        for name, shape in wanted.items():
            array = np.array(getattr(self, name), np.float64)
            if array.shape != shape:
                raise ValueError(
                    f"Policy() got {name} of shape {array.shape}. Pass {shape}: {inputs} inputs, {outputs} outputs."
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0.0).all()):
            raise ValueError(f"Policy() got mean {self.mean} and std {self.std}. Pass finite numbers, and std > 0.")
        gain = self.weights / self.std
        offset = self.bias - gain @ self.mean
        rows = list(zip(gain.tolist(), offset.tolist(), strict=True)) if gain.size <= _SMALL else []
        for name, value in (("_gain", gain), ("_offset", offset), ("_rows", rows)):
            object.__setattr__(self, name, value)

    @classmethod
    def linear(cls, env: Any) -> Policy:
        """Return the policy for the spaces of a gymnasium environment with every parameter 0 and no normalisation.

        Raises
        ------
        ValueError  for spaces other than Box observations and Discrete or Box actions.
        """
        from gymnasium import spaces

        observation, action = env.observation_space, env.action_space
        if not isinstance(observation, spaces.Box):
            raise ValueError(f"the observation space is {observation}. A policy needs a Box: wrap the environment.")
        actions: DiscreteActions | BoxActions
        if isinstance(action, spaces.Discrete):
            actions = DiscreteActions(int(action.n), int(action.start))
        elif isinstance(action, spaces.Box):
            actions = BoxActions(np.asarray(action.low), np.asarray(action.high), str(action.dtype))
        else:
            raise ValueError(f"the action space is {action}. A policy needs Discrete or Box: wrap the environment.")
        inputs, outputs = int(np.prod(observation.shape, dtype=np.int64)), actions.outputs
        flat = np.zeros((outputs, inputs)), np.zeros(outputs)
        return cls(*flat, actions, tuple(observation.shape), np.zeros(inputs), np.ones(inputs))

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
            raise ValueError(f"the policy has {self.dim} parameters, got shape {vector.shape}. Pass ({self.dim},).")
        split = self.weights.size
        return replace(self, weights=vector[:split].reshape(self.weights.shape), bias=vector[split:])

    def __call__(self, observation: ArrayLike) -> Any:
        """Return the action for one observation: an int for discrete actions, an array for a box.

        Raises
        ------
        ValueError  if the observation does not have the policy's shape.
        """
        array = observation if isinstance(observation, np.ndarray) else np.asarray(observation)
        if array.shape != self.shape:
            raise ValueError(f"the policy got an observation of shape {array.shape}. Pass one of shape {self.shape}.")
        if not self._rows:
            return self.actions.act((self._gain @ array.ravel() + self._offset).tolist())
        inputs, outputs = array.tolist() if array.ndim == 1 else array.ravel().tolist(), []
        for row, total in self._rows:
            for weight, value in zip(row, inputs):  # noqa: B905  (the shape was checked; strict= costs a tenth of the call)
                total += weight * value
            outputs.append(total)
        return self.actions.act(outputs)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the policy to ``path``, all or nothing, and return the path; equal policies give equal bytes."""
        actions: dict[str, Any] = {"kind": "discrete"}
        arrays = {name: getattr(self, name) for name in ("weights", "bias", "mean", "std")}
        if isinstance(self.actions, DiscreteActions):
            actions |= {"n": self.actions.n, "start": self.actions.start}
        else:
            actions = {"kind": "box", "dtype": self.actions.dtype}
            arrays |= {"low": self.actions.low, "high": self.actions.high}
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "policy": "linear",
            "observation": {"shape": list(self.shape)},
            "actions": actions,
            "about": dict(self.about),
        }
        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                np.savez(file, header=np.array(json.dumps(header)), **arrays)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Return the policy in the file ``path``.

        Raises
        ------
        FileNotFoundError  if there is no such file.
        ValueError  if it is damaged, no policy, or of a newer version.
        """
        data = io.BytesIO(Path(path).read_bytes())
        try:
            with np.load(data, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                arrays = {name: file[name] for name in file.files if name != "header"}
            if header["format"] != _FORMAT:
                raise KeyError("format")
            if header["version"] != _VERSION or header["policy"] != "linear":
                raise ValueError(f"it holds a {header['policy']} policy in version {header['version']}")
            actions: DiscreteActions | BoxActions
            if header["actions"]["kind"] == "discrete":
                actions = DiscreteActions(header["actions"]["n"], header["actions"]["start"])
            else:
                actions = BoxActions(arrays.pop("low"), arrays.pop("high"), header["actions"]["dtype"])
            return cls(**arrays, actions=actions, shape=tuple(header["observation"]["shape"]), about=header["about"])
        except Exception as error:  # a damaged archive raises whatever it likes, far down in zipfile or numpy
            raise ValueError(
                f"{os.fspath(path)} is no policy that this version can read: {error}. Pass what Policy.save() wrote."
            ) from error
