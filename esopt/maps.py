"""Maps from the space that a strategy searches to the box that the user's function sees.

A strategy under bounds searches without any: it minimises F(y) = f(T(y)) + penalty(y), and T never leaves the box. With
the derivative of T, gradients of f become gradients of F, so that every estimator stays what it is, for F.
:class:`Smooth` is the default, :class:`Reflect` and :class:`Clip` are the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._kernels import box as kernels
from .noise import Array

UNBOUNDED = 1e20
"""Bounds from here on are as good as none, by the convention of other solvers: nobody searches there."""


@runtime_checkable
class Map(Protocol):
    """A map T from search coordinates, rows (m, d), to a box.

    Laws: ``forward`` is inside for every finite row, continuous, and elementwise: a row's bits do not depend on the
    others; ``forward(inverse(x)) == x`` up to rounding for x inside; ``pullback`` multiplies by the derivative of T,
    where it has one; ``slope`` is the gradient of ``penalty``, which is zero inside. A map whose derivative is
    continuous may have ``curvature(rows)``, the second derivative, (m, d); estimators that need Hessians need that.
    """

    @property
    def low(self) -> Array:
        """Lower bounds, () or of the size of x; -inf for none."""
        ...

    @property
    def high(self) -> Array:
        """Upper bounds, () or of the size of x; inf for none."""
        ...

    @property
    def penalises(self) -> bool:
        """Whether ``penalty`` is ever positive."""
        ...

    def forward(self, rows: Array) -> Array:
        """Return T of every row, (m, d) or (d,)."""
        ...

    def inverse(self, x: Array) -> Array:
        """Return where T is x, (d,), for x inside."""
        ...

    def pullback(self, rows: Array, grads: Array) -> Array:
        """Return gradients of f(T(y)) at the ``rows`` y, from ``grads`` of f at T(y); both (m, d)."""
        ...

    def penalty(self, rows: Array) -> Array:
        """Return a squared distance outside the box, (m,), as a share of its size."""
        ...

    def slope(self, rows: Array) -> Array:
        """Return the gradient of the penalty, (m, d)."""
        ...


def _check_bound(name: str, bound: ArrayLike | None, none: float) -> Array:
    """Return a bound as float64 in its own shape, ``none`` where it is None."""
    try:
        given = np.asarray(bound if bound is not None else none)
        if given.dtype == object:
            given = np.array([none if b is None else float(b) for b in given.flat]).reshape(given.shape)
    except (TypeError, ValueError):
        given = np.asarray([], object)
    if given.dtype.kind not in "fiu" or given.size == 0:
        raise TypeError(f"{name} must be a number, or one per coordinate (None for no bound), got {bound!r}.")
    given = given.astype(np.float64)
    if np.isnan(given).any() or (given == -none).any():
        raise ValueError(f"{name} must be numbers, or {none} for no bound, got {bound!r}. Pass None for no bound.")
    given.setflags(write=False)
    return given


def where_in(index: int, shape: tuple[int, ...]) -> str:
    """Return the flat ``index`` in words of an array of that shape: ``[3]``, ``[0, 2]``, or nothing."""
    return f"[{', '.join(str(int(i)) for i in np.unravel_index(index, shape))}]" if shape else ""


@dataclass(frozen=True, eq=False)
class _Box:
    """Bounds, checked, and flat for rows; sides that have none are infinite."""

    low: Any = None
    high: Any = None
    _low: Array = field(init=False, repr=False)
    _high: Array = field(init=False, repr=False)
    _sizes: tuple[Array, Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = _check_bound("low", self.low, -np.inf), _check_bound("high", self.high, np.inf)
        try:
            below, above = np.broadcast_arrays(low, high)
        except ValueError:
            raise ValueError(
                f"low has shape {low.shape} and high {high.shape}. Pass one number or one per coordinate for each."
            ) from None
        if not (below < above).all():
            i = int(np.argmin(below < above))
            at, a, b = where_in(i, below.shape), below.reshape(-1)[i], above.reshape(-1)[i]
            raise ValueError(
                f"low{at} = {a:.17g} is not below high{at} = {b:.17g}. bounds=(low, high) takes all lower bounds "
                "first, then all upper ones. Leave a coordinate that is fixed out of x0."
            )
        # Kernels are compiled for contiguous and writeable arrays.
        flat = np.array(below.reshape(-1)), np.array(above.reshape(-1))
        keep = {"low": low, "high": high, "_low": flat[0], "_high": flat[1], "_sizes": _sizes(*flat)}
        for name, array in keep.items():
            object.__setattr__(self, name, array)


def _sizes(low: Array, high: Array) -> tuple[Array, Array]:
    """Return the length that matters at either bound: the width of the box, or max(1, |bound|) if it is open."""
    below, above = low > -UNBOUNDED, high < UNBOUNDED
    width = np.where(below & above, np.where(above, high, 1.0) - np.where(below, low, 0.0), np.inf)
    sizes = [np.where(np.isfinite(width), width, np.maximum(1.0, np.abs(b))) for b in (low, high)]
    return np.where(below, sizes[0], np.inf), np.where(above, sizes[1], np.inf)


def _elementwise(kernel: Any, rows: Array, *box: Array) -> Array:
    """Return what a kernel of :mod:`esopt._kernels.box` makes of ``rows`` (m, d) or (d,)."""
    plain = np.array(rows, np.float64, order="C", ndmin=2)
    kernel(plain, *box, plain)
    return plain.reshape(np.shape(rows))


@dataclass(frozen=True, eq=False)
class Smooth(_Box):
    """Identity inside, a parabola near each bound: continuously differentiable, and one-to-one up to the bound.

    With a = ``margin`` times the width of the box, T(y) = low + (y - low + a)^2 / (4 a) for low - a <= y <= low + a,
    T(y) = y in the middle, and the same at ``high``; further out T is mirrored, with period 2 (high - low + 2 a). Its
    derivative is (y - low + a) / (2 a) on the parabola: 1 where it meets the identity, 0 at the bound. A minimum on the
    bound is a smooth minimum of f(T(y)), at y = low - a.

    Parameters
    ----------
    low, high : numbers, or arrays in the shape of x; None or infinite for no bound.
    margin : a as a share of the width, at most 0.5; where the other side is open, of max(1, |bound|).

    References
    ----------
    The idea is that of the boundary handling of pycma (Hansen), ``BoxConstraintsLinQuadTransformation``; there a
    depends on |low| and |high|, here on the width, so that moving and scaling the box changes nothing.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> box = esopt.Smooth(0.0, 10.0)
    >>> box.forward(np.array([-0.5, 0.0, 5.0, 10.5, 11.0]))
    array([ 0.   ,  0.125,  5.   , 10.   ,  9.875])
    """

    margin: float = 0.05
    _margins: tuple[Array, Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.margin <= 0.5:
            raise ValueError(f"margin must be in (0, 0.5], got {self.margin}. The default is 0.05.")
        # Where there is no bound, any margin will do.
        margins = [np.where(np.isfinite(s), self.margin * s, 1.0) for s in self._sizes]
        object.__setattr__(self, "_margins", tuple(np.maximum(m, np.finfo(np.float64).tiny) for m in margins))

    @property
    def penalises(self) -> bool:
        """False."""
        return False

    def forward(self, rows: Array) -> Array:
        """Return T of every row."""
        return _elementwise(kernels.forward, rows, self._low, self._high, *self._margins)

    def inverse(self, x: Array) -> Array:
        """Return the y in [low - a, high + a] that is mapped to x."""
        a, b = self._margins
        with np.errstate(invalid="ignore", over="ignore"):
            low, high = x - self._low, self._high - x
            y = np.where(low < a, self._low - a + 2.0 * np.sqrt(a * np.clip(low, 0.0, a)), x)
            return np.where(high < b, self._high + b - 2.0 * np.sqrt(b * np.clip(high, 0.0, b)), y)

    def pullback(self, rows: Array, grads: Array) -> Array:
        """Return ``grads`` times the derivative of T."""
        return grads * self.derivative(rows)

    def derivative(self, rows: Array) -> Array:
        """Return dT/dy, elementwise."""
        return _elementwise(kernels.derivative, rows, self._low, self._high, *self._margins)

    def curvature(self, rows: Array) -> Array:
        """Return the second derivative of T, elementwise: 1 / (2 a) on the parabola at ``low``, 0 in the middle."""
        a, b = self._margins
        x = self.forward(rows)
        # x - low is the parabola where it is below a, and so is high - x.
        bent = np.where(x - self._low < a, 0.5 / a, 0.0)
        return np.where(self._high - x < b, -0.5 / b, bent)

    def penalty(self, rows: Array) -> Array:
        """Return zeros."""
        return np.zeros(len(rows))

    def slope(self, rows: Array) -> Array:
        """Return zeros."""
        return np.zeros_like(rows)


@dataclass(frozen=True, eq=False)
class Reflect(_Box):
    """Mirror at the bounds: T(y) = 2 low - y below, periodic with twice the width of the box.

    An isometry piece by piece: sigma means the same everywhere, at the price of a kink of f(T(y)) wherever f has a
    slope at the bound. A minimum on the bound is like that of |y|: rank-based strategies reach it more slowly, and an
    adapted covariance may become too ill-conditioned first, where other coordinates are like y^2.

    Parameters
    ----------
    low, high : numbers, or arrays in the shape of x; None or infinite for no bound.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> esopt.Reflect(0.0, 10.0).forward(np.array([-1.0, 5.0, 12.0, 21.0]))
    array([1., 5., 8., 1.])
    """

    @property
    def penalises(self) -> bool:
        """False."""
        return False

    def forward(self, rows: Array) -> Array:
        """Return T of every row."""
        return _elementwise(kernels.forward, rows, self._low, self._high, *self._none)

    def inverse(self, x: Array) -> Array:
        """Return x."""
        return x

    def pullback(self, rows: Array, grads: Array) -> Array:
        """Return ``grads`` with their signs changed where an odd number of mirrors was passed."""
        return grads * _elementwise(kernels.derivative, rows, self._low, self._high, *self._none)

    @property
    def _none(self) -> tuple[Array, Array]:
        zero = np.zeros(self._low.size)
        return zero, zero

    def penalty(self, rows: Array) -> Array:
        """Return zeros."""
        return np.zeros(len(rows))

    def slope(self, rows: Array) -> Array:
        """Return zeros."""
        return np.zeros_like(rows)


@dataclass(frozen=True, eq=False)
class Clip(_Box):
    """Project into the box, and add a penalty for the distance: F(y) = f(clip(y)) + weight * sum_i (out_i / size_i)^2.

    ``size_i`` is the width of the box, or max(1, |bound|) where the other side is open. f is evaluated on the bounds
    themselves, and without the penalty F would be flat outside.

    Parameters
    ----------
    low, high : numbers, or arrays in the shape of x; None or infinite for no bound.
    weight : of the penalty, in units of f; None to take it from the first generation whose values differ: the
        interquartile range of its values, per squared sigma of distance. It stays the same from then on, so that values
        of different generations compare, raw or ranked. The value that is reported is always that of f.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> box = esopt.Clip(0.0, 10.0)
    >>> box.forward(np.array([-1.0, 5.0])), box.penalty(np.array([[-1.0, 5.0]]))
    (array([0., 5.]), array([0.01]))
    """

    weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight is not None and not 0.0 < self.weight < np.inf:
            raise ValueError(f"weight must be positive, got {self.weight!r}. Leave it out to have it chosen.")

    @property
    def penalises(self) -> bool:
        """True."""
        return True

    @property
    def sizes(self) -> Array:
        """The length that distances outside are measured with, (d,) or (1,)."""
        return np.where(np.isfinite(self._sizes[0]), self._sizes[0], self._sizes[1])

    def forward(self, rows: Array) -> Array:
        """Return the nearest point of the box for every row."""
        return np.minimum(np.maximum(rows, self._low), self._high)

    def inverse(self, x: Array) -> Array:
        """Return x."""
        return x

    def pullback(self, rows: Array, grads: Array) -> Array:
        """Return ``grads``, zero where a coordinate is outside: without the gradient of the penalty."""
        return np.where((rows < self._low) | (rows > self._high), 0.0, grads)

    def penalty(self, rows: Array) -> Array:
        """Return sum_i (out_i / size_i)^2 for every row."""
        out = (rows - self.forward(rows)) / self.sizes
        return np.asarray(np.einsum("ij,ij->i", out, out))

    def slope(self, rows: Array) -> Array:
        """Return the gradient of the penalty, 2 out_i / size_i^2."""
        return np.asarray(2.0 * ((rows - self.forward(rows)) / self.sizes) / self.sizes)


def as_map(bounds: Any) -> Map:
    """Return ``bounds`` as a map: (low, high) as :class:`Smooth`; maps, and scipy's ``Bounds``, as they are."""
    if isinstance(bounds, Map) and not isinstance(bounds, type):
        return bounds
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        return Smooth(bounds.lb, bounds.ub)
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise TypeError(
            f"bounds must be (low, high), got {bounds!r:.80}. Pass two numbers or two arrays in the shape of x0, None "
            "for an open side; or Reflect(low, high), Clip(low, high). Pairs for each coordinate: tuple(zip(*pairs))."
        ) from None
    return Smooth(low, high)


def fill_inside(rows: Array, box: Map, out: NDArray[Any]) -> None:
    """Write rows that are in the box into ``out``; where its type is narrower, round into the box."""
    out[...] = rows
    if out.dtype == np.float64:
        return
    inward = ((np.ravel(box.low), np.less, np.inf), (np.ravel(box.high), np.greater, -np.inf))
    with np.errstate(over="ignore"):
        ends = []
        for bound, beyond, towards in inward:
            end = bound.astype(out.dtype)
            ends.append(np.where(beyond(end, bound), np.nextafter(end, out.dtype.type(towards)), end))
    np.clip(out, *ends, out=out)
