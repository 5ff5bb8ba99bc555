"""A user's function and how it wants to be called."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Derivative(NamedTuple):
    """A derivative that a population may need: the function it comes from, and its names for people."""

    part: str
    words: str
    failure: str


DERIVATIVES = {
    "grads": Derivative("grad", "gradients", "gradient"),
    "hessians": Derivative("hess", "Hessians", "hessian"),
    "hvps": Derivative("hvp", "Hessian-vector products", "hvp"),
    "jvps": Derivative("jvp", "directional derivatives", "jvp"),
}
"""By the names of ``Population.needs``, in the order in which they are computed."""

CONSTRAINTS = {
    "constraints": Derivative("constraints", "constraints", "constraint"),
    "equalities": Derivative("equalities", "equalities", "equality"),
}
"""What a population that needs "constraints" gets, of those that the objective has; evaluated before derivatives."""

PARTS = {**CONSTRAINTS, **DERIVATIVES}

ALONG_PROBES = ("hvps", "jvps")


class Outcome(NamedTuple):
    """What an objective may return instead of a number: a value and the cost units it consumed."""

    value: float
    steps: int = 0


@dataclass(frozen=True, eq=False)
class Objective:
    """A function to minimise and how to call it.

    Parameters
    ----------
    f : ``f(x, *args)`` or, ``seeded``, ``f(x, seed, *args)``; returns a number or an :class:`Outcome`.
    grad : gradient of ``f`` with the same arguments, or None; returns the shape of ``x``.
    hess : Hessian of ``f`` with the same arguments, (d, d), or only its diagonal, (d,); or None.
    hvp : ``hvp(x, v, ...)``, the Hessian times a direction ``v`` in the shape of ``x``; returns that shape; or None.
    jvp : ``jvp(x, v, ...)``, the gradient times a direction ``v``, a number; or None.
    constraints, equalities : g and h with the same arguments, each returning a number or (m,), for g(x) <= 0 and
        h(x) = 0; or None.
    args : further arguments of all of them, last.
    seeded : whether ``f`` is stochastic and takes the candidate's seed, an int in [0, 2**32).
    shape : shape of ``x`` as the function sees it; None for (d,).
    """

    f: Callable[..., Any]
    grad: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    seeded: bool = False
    shape: tuple[int, ...] | None = None
    hess: Callable[..., Any] | None = None
    hvp: Callable[..., Any] | None = None
    jvp: Callable[..., Any] | None = None
    constraints: Callable[..., Any] | None = None
    equalities: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        for name in ("f", *(part.part for part in PARTS.values())):
            function = getattr(self, name)
            if not callable(function) and (name == "f" or function is not None):
                raise TypeError(f"{name} must be a function, got {type(function).__name__}. Pass a callable.")
        if not isinstance(self.args, tuple):
            raise TypeError(f"args must be a tuple, got {type(self.args).__name__}. Write args=(a,) for one argument.")

    def arguments(self, x: NDArray[np.float64], seed: int) -> tuple[Any, ...]:
        """Return the arguments of one call for the row ``x`` (d,)."""
        shaped = x if self.shape is None else x.reshape(self.shape)
        return (shaped, seed, *self.args) if self.seeded else (shaped, *self.args)


def as_objective(
    user: str,
    f: Callable[..., Any] | Objective,
    shape: tuple[int, ...],
    *,
    args: tuple[Any, ...] = (),
    seeded: bool = False,
    **derivatives: Callable[..., Any] | None,
) -> Objective:
    """Return the objective of the arguments of ``user``, for x of ``shape``.

    Raises
    ------
    TypeError  for an Objective beside arguments that it would not see.
    ValueError  for an Objective of another shape.
    """
    seen = shape if len(shape) != 1 else None
    if not isinstance(f, Objective):
        return Objective(f, args=args, seeded=seeded, shape=seen, **derivatives)
    given = {**{name: part is not None for name, part in derivatives.items()}, "args": args != (), "seeded": seeded}
    if any(given.values()):
        names = ", ".join(name for name, there in given.items() if there)
        raise TypeError(f"{user}() got both an Objective and {names}. Set them there: Objective(f, ...).")
    if f.shape is not None and math.prod(f.shape) != math.prod(shape):
        raise ValueError(f"the Objective has shape {f.shape}, but x0 has {shape}. Leave shape out to take that of x0.")
    return f if f.shape is not None else replace(f, shape=seen)
