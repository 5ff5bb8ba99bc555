"""Actions: how the outputs of a policy become an action of the environment.

Each record serves one kind of action space and has two forms of the same law. ``act`` takes a list of floats and
returns what the environment's ``step`` wants. ``kind`` and ``layout`` (numbers of an action, 4) say the same to
compiled code (``esopt._kernels.policy.choose``), which returns the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LARGEST, POSITIVE, BOX, SINGLE, SQUASHED = 0, 1, 2, 1, 2
"""Kinds in compiled code: BOX plus SINGLE for float32 actions plus SQUASHED for tanh."""

_EXACT = 2**53
SQUASHES = ("clip", "tanh")


@dataclass(frozen=True)
class DiscreteActions:
    """Whole numbers from ``start`` to ``start + n - 1``; the largest of ``n`` outputs wins, the first of equal ones."""

    n: int
    start: int = 0

    def __post_init__(self) -> None:
        _check_counts("DiscreteActions", (self.n,), (self.start,))

    @property
    def outputs(self) -> int:
        """Number of outputs of the policy."""
        return self.n

    @property
    def kind(self) -> int:
        """Law in compiled code."""
        return LARGEST

    @property
    def layout(self) -> Array:
        """(first output, number of outputs, first action, 0), (1, 4)."""
        return np.array([[0.0, self.n, self.start, 0.0]])

    def act(self, outputs: list[float]) -> int:
        """Return the action for ``n`` outputs."""
        return self.start + outputs.index(max(outputs))


@dataclass(frozen=True)
class MultiDiscreteActions:
    """Several choices at once: entry k is a whole number from ``start[k]`` to ``start[k] + counts[k] - 1``.

    The outputs come in groups of ``counts[k]``; the largest of a group wins, the first of equal ones.

    Parameters
    ----------
    counts : numbers of choices, in the order of the flattened action.
    start : first number of each; empty for zeros.
    shape : of an action; empty for (len(counts),).
    dtype : of an action, an integer type.
    """

    counts: tuple[int, ...]
    start: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = "int64"

    def __post_init__(self) -> None:
        start = self.start or (0,) * len(self.counts)
        shape = self.shape or (len(self.counts),)
        _check_counts("MultiDiscreteActions", self.counts, start)
        _check_counts("MultiDiscreteActions", shape, ())
        if len(start) != len(self.counts) or math.prod(shape) != len(self.counts):
            raise ValueError(
                f"MultiDiscreteActions() got {len(self.counts)} counts, {len(start)} starts and shape {shape}. "
                "Pass as many starts as counts, and a shape with as many entries."
            )
        _check_dtype("MultiDiscreteActions", self.dtype, "iu", "an integer type")
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "shape", shape)

    @property
    def outputs(self) -> int:
        """Number of outputs of the policy."""
        return sum(self.counts)

    @property
    def kind(self) -> int:
        """Law in compiled code."""
        return LARGEST

    @property
    def layout(self) -> Array:
        """(first output, number of outputs, first action, 0) of each group, (k, 4)."""
        counts = np.array(self.counts, np.float64)
        return np.stack([np.cumsum(counts) - counts, counts, np.array(self.start, np.float64), 0.0 * counts], axis=1)

    def act(self, outputs: list[float]) -> NDArray[Any]:
        """Return the action for the outputs, in the shape and type of the space."""
        chosen, at = [], 0
        for count, start in zip(self.counts, self.start, strict=True):
            group = outputs[at : at + count]
            chosen.append(start + group.index(max(group)))
            at += count
        return np.array(chosen, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class MultiBinaryActions:
    """Arrays of zeros and ones: an entry is 1 where its output is positive.

    Parameters
    ----------
    shape : of an action.
    dtype : of an action.
    """

    shape: tuple[int, ...]
    dtype: str = "int8"

    def __post_init__(self) -> None:
        _check_counts("MultiBinaryActions", self.shape, ())
        _check_dtype("MultiBinaryActions", self.dtype, "iub", "an integer type")

    @property
    def outputs(self) -> int:
        """Number of outputs of the policy."""
        return math.prod(self.shape)

    @property
    def kind(self) -> int:
        """Law in compiled code."""
        return POSITIVE

    @property
    def layout(self) -> Array:
        """Zeros (k, 4): only their number counts."""
        return np.zeros((self.outputs, 4))

    def act(self, outputs: list[float]) -> NDArray[Any]:
        """Return the action for the outputs, in the shape and type of the space."""
        return np.array([output > 0.0 for output in outputs], self.dtype).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class BoxActions:
    """Arrays between ``low`` and ``high``, both of the shape of an action; bounds may be infinite.

    An output u becomes clip(middle + half * u, low, high), and then a number of type ``dtype``. Where both bounds are
    finite, ``middle`` is halfway between them and ``half`` the distance to either, so that parameters have no unit;
    elsewhere they are 0 and 1. An infinite bound clips at the largest number of ``dtype``.

    Parameters
    ----------
    low, high : bounds, of one shape; rounded to ``dtype``.
    dtype : float32 or float64.
    squash : "clip", or "tanh" for tanh(u) in place of u, which needs finite bounds.
    """

    low: Array
    high: Array
    dtype: str = "float32"
    squash: str = "clip"
    layout: Array = field(init=False, repr=False)
    _affine: list[tuple[float, float, float, float]] = field(init=False, repr=False)
    _type: np.dtype[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise ValueError(
                f"BoxActions() got dtype {self.dtype}. Pass float32 or float64, or wrap the environment, for example "
                "with gymnasium.wrappers.TransformAction."
            )
        with np.errstate(over="ignore"):
            low, high = (np.array(np.asarray(a, self.dtype), np.float64) for a in (self.low, self.high))
        if low.shape != high.shape or not (low <= high).all():
            raise ValueError(f"BoxActions() got bounds {low} and {high}. Pass arrays of one shape, low <= high.")
        finite = np.isfinite(low) & np.isfinite(high)
        if self.squash not in SQUASHES or (self.squash == "tanh" and not finite.all()):
            raise ValueError(
                f"BoxActions() got squash {self.squash!r} for bounds {low} and {high}. "
                'Pass "clip", or "tanh" where all bounds are finite.'
            )
        below, above = np.where(finite, low, 0.0), np.where(finite, high, 0.0)
        middle, half = 0.5 * below + 0.5 * above, np.where(finite, 0.5 * above - 0.5 * below, 1.0)
        most = float(np.finfo(self.dtype).max)
        layout = np.stack([np.ravel(a) for a in (middle, half, low.clip(-most, most), high.clip(-most, most))], axis=1)
        for array in (low, high, layout):
            array.setflags(write=False)
        affine = list(map(tuple, layout.tolist()))
        for name, value in (("low", low), ("high", high), ("layout", layout), ("_affine", affine)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_type", np.dtype(self.dtype))

    @property
    def outputs(self) -> int:
        """Number of outputs of the policy."""
        return self.low.size

    @property
    def kind(self) -> int:
        """Law in compiled code."""
        return BOX + SINGLE * (self.dtype == "float32") + SQUASHED * (self.squash == "tanh")

    def act(self, outputs: list[float]) -> NDArray[Any]:
        """Return the action for the outputs, in the shape and type of the space."""
        if self.squash == "tanh":
            outputs = [math.tanh(u) for u in outputs]
        clipped = []
        for u, (middle, half, low, high) in zip(outputs, self._affine, strict=True):
            value = middle + half * u
            if low > value:
                value = low
            if high < value:
                value = high
            clipped.append(value)
        action = np.array(clipped, self._type)
        return action if self.low.ndim == 1 else action.reshape(self.low.shape)


Actions = DiscreteActions | BoxActions | MultiDiscreteActions | MultiBinaryActions


def actions_of(space: Any, squash: str = "clip") -> Actions:
    """Return the actions for a gymnasium action space.

    Raises
    ------
    ValueError  for spaces that a policy does not serve.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return DiscreteActions(int(space.n), int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        counts, start = (tuple(np.ravel(a).tolist()) for a in (space.nvec, space.start))
        return MultiDiscreteActions(counts, start, tuple(space.nvec.shape), str(space.dtype))
    if isinstance(space, spaces.MultiBinary):
        return MultiBinaryActions(tuple(space.shape), str(space.dtype))
    if isinstance(space, spaces.Box) and space.dtype in (np.float32, np.float64):
        return BoxActions(space.low, space.high, str(space.dtype), squash)
    what = f"{space} of dtype {space.dtype}" if isinstance(space, spaces.Box) else str(space)
    raise ValueError(
        f"the action space is {what}. A policy serves Box of float32 or float64, Discrete, MultiDiscrete and "
        "MultiBinary: wrap the environment, for example with gymnasium.wrappers.TransformAction."
    )


def _check_counts(name: str, counts: tuple[int, ...], start: tuple[int, ...]) -> None:
    whole = all(type(number) is int for number in (*counts, *start))
    if not (whole and counts and min(counts) >= 1 and all(abs(number) < _EXACT for number in (*counts, *start))):
        raise ValueError(
            f"{name}() got counts {counts}" + f" and starts {start}" * bool(start) + ". "
            "Pass positive whole numbers, and starts below 2**53 in size."
        )


def _check_dtype(name: str, dtype: str, kinds: str, wanted: str) -> None:
    if np.dtype(dtype).kind not in kinds:
        raise ValueError(f"{name}() got dtype {dtype}. Pass {wanted}.")
