"""Integer coordinates: a map that rounds them, and how users say which they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .maps import Map, Reflect, as_map, where_in
from .noise import Array


@dataclass(frozen=True, eq=False)
class Rounded:
    """Whole numbers in some coordinates, inside bounds; a :class:`esopt.maps.Map` in the others.

    T(y) is the nearest whole number within the bounds where ``rounds`` is set, and ``box.forward(y)`` elsewhere. Unlike
    other maps it has jumps: the strategies that :class:`esopt.Margin` serves know how to search on it, and
    ``integer=`` of :func:`esopt.minimize` and :class:`esopt.Optimizer` makes both.

    Parameters
    ----------
    rounds : booleans in the shape of x0, True for coordinates that are integers.
    box : bounds of all coordinates, for example ``Smooth(low, high)``; None for none. Bounds of integers that are not
        whole are moved inward.

    Raises
    ------
    ValueError  if bounds do not fit, or have fewer than two whole numbers between them.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> grid = esopt.Rounded([False, True, True], esopt.Clip(0.0, [10.0, 5.0, np.inf]))
    >>> grid.forward(np.array([7.3, 7.3, 7.3]))
    array([7.3, 5. , 7. ])
    """

    rounds: Any
    box: Any = None
    low: Array = field(init=False, repr=False)
    high: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rounds = np.array(self.rounds)
        if rounds.dtype != np.bool_:
            raise TypeError(f"rounds must be booleans in the shape of x0, got {self.rounds!r:.80}. Pass a mask.")
        box = Reflect() if self.box is None else as_map(self.box)
        low, high = _shaped("low", box.low, rounds.shape), _shaped("high", box.high, rounds.shape)
        low, high = np.where(rounds, np.ceil(low), low), np.where(rounds, np.floor(high), high)
        fixed = rounds & ~(low < high)
        if fixed.any():
            at = where_in(int(np.argmax(fixed)), rounds.shape)
            raise ValueError(
                f"the bounds of the integer coordinate {at} have fewer than two whole numbers between them. "
                "Leave a coordinate that is fixed out of x0."
            )
        for name, array in {"rounds": rounds, "box": box, "low": low, "high": high}.items():
            object.__setattr__(self, name, array)

    @property
    def penalises(self) -> bool:
        """Whether the box has a penalty, for its own coordinates."""
        return bool(self.box.penalises)

    @property
    def weight(self) -> float | None:
        """Weight of the penalty, as that of :class:`esopt.Clip`."""
        weight: float | None = getattr(self.box, "weight", None)
        return weight

    @property
    def sizes(self) -> Array:
        """The length that distances outside are measured with, infinite for integers."""
        return np.where(self._flat, np.inf, getattr(self.box, "sizes", 1.0))

    @property
    def _flat(self) -> NDArray[np.bool_]:
        flat: NDArray[np.bool_] = self.rounds.reshape(-1)
        return flat

    def nearest(self, x: Array) -> Array:
        """Return rows with their integer coordinates rounded, and nothing else done."""
        out, flat = np.array(x, np.float64), self._flat
        # Adding zero turns -0.0 into 0.0.
        out[..., flat] = np.rint(np.clip(out[..., flat], self.low.reshape(-1)[flat], self.high.reshape(-1)[flat])) + 0.0
        return out

    def forward(self, rows: Array) -> Array:
        """Return T of every row."""
        return self.nearest(np.where(self._flat, rows, self.box.forward(rows)))

    def inverse(self, x: Array) -> Array:
        """Return where T is x."""
        return np.where(self._flat, x, self.box.inverse(x))

    def pullback(self, rows: Array, grads: Array) -> Array:
        """Return the gradients of the box, zero for integers."""
        return np.where(self._flat, 0.0, self.box.pullback(rows, grads))

    def penalty(self, rows: Array) -> Array:
        """Return the penalty of the box, integers left out."""
        return np.asarray(self.box.penalty(self._inside(rows)))

    def slope(self, rows: Array) -> Array:
        """Return the gradient of the penalty, zero for integers."""
        return np.asarray(self.box.slope(self._inside(rows)))

    def _inside(self, rows: Array) -> Array:
        return np.where(self._flat, self.box.forward(rows), rows)


def _shaped(name: str, bound: Array, shape: tuple[int, ...]) -> Array:
    if np.size(bound) not in (1, int(np.prod(shape))):
        raise ValueError(
            f"{name} has {np.size(bound)} entries for x0 of shape {shape}. Pass one number, or that shape."
        )
    return np.array(np.broadcast_to(np.reshape(bound, shape) if np.size(bound) > 1 else np.ravel(bound)[0], shape))


def as_box(bounds: Any, integer: ArrayLike | None, shape: tuple[int, ...]) -> Map | None:
    """Return ``bounds`` as a map, which rounds the ``integer`` coordinates if there are any; None for neither.

    Parameters
    ----------
    bounds : as of :class:`esopt.Optimizer`.
    integer : indices of the flat x0, or booleans in its shape; True for all, None for none.
    shape : that of x0.

    Raises
    ------
    TypeError, ValueError  for anything else, and for indices that are out of range or given twice.
    """
    rounds = np.False_ if integer is None else as_mask(integer, shape)
    if rounds.any():
        return Rounded(rounds, bounds)
    return None if bounds is None else as_map(bounds)


def as_mask(integer: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which coordinates are integers, in the shape of x0; see :func:`as_box`."""
    given, dim = np.asarray(integer), int(np.prod(shape))
    if given.dtype == np.bool_:
        if given.shape not in ((), shape):
            raise ValueError(f"integer has shape {given.shape} for x0 of shape {shape}. Pass a mask in that shape.")
        return np.array(np.broadcast_to(given, shape))
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(
            f"integer must be indices, or booleans in the shape of x0, got {integer!r:.80}. Pass for example [2, 3]."
        )
    indices = given.reshape(-1).astype(np.int64)
    if ((indices < -dim) | (indices >= dim)).any():
        raise ValueError(f"integer has indices out of range, {integer!r:.80}. They go from 0 to {dim - 1}, in flat x0.")
    rounds = np.zeros(dim, np.bool_)
    rounds[indices] = True
    if rounds.sum() != indices.size:
        raise ValueError(
            f"integer has indices twice, {integer!r:.80}. Pass each once; a mask must be of booleans, [True, ...]."
        )
    return rounds.reshape(shape)
