"""Functions written in torch: values and derivatives, in float64, on the processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..objective import Objective
from ._autodiff import PARTS, check_function, load, objective


def from_torch(f: Callable[..., Any], *, batched: bool = False, seeded: bool = False) -> Objective:
    """Return the objective of a function written in torch, with gradient, Hessian, and products with directions.

    Parameters
    ----------
    f : ``f(x)``, or ``f(x, seed)`` if ``seeded``, of one x, a float64 tensor in the shape of x0; returns a scalar. What
        else it uses should be float64 too: torch makes float32 unless it is told. The seed is an int, or an int64
        scalar if ``batched``.
    batched : True for functions of many x at once, (m, *shape), for ``vectorized=True``; ``f`` is one of one x still,
        and does only what ``torch.func.vmap`` allows.
    seeded : whether f is stochastic and takes the candidate's seed.

    Returns
    -------
    Objective  with f, grad, hess, hvp and jvp of numpy arrays. It can be sent to worker processes if f can.

    Raises
    ------
    ImportError  if torch is missing. The extra "torch" brings it.

    Notes
    -----
    grad is reverse mode (about three values), hvp reverse over reverse (two to three gradients), hess d of those. jvp
    is grad times v: torch's forward mode is slower than that, and only one thread at a time can use it. A gradient has
    some hundred microseconds of overhead: prefer ``batched`` for an f that takes less.

    Examples
    --------
    >>> import esopt
    >>> def f(x):
    ...     return (x**2).sum()
    >>> objective = esopt.from_torch(f)  # doctest: +SKIP
    >>> objective.grad(np.ones(2))  # doctest: +SKIP
    array([2., 2.])
    """
    check_function(f, "from_torch", "torch")
    load("torch", "from_torch")
    return objective((_Torch(f, part, batched, seeded) for part in PARTS), seeded=seeded)


@dataclass(frozen=True)
class _Torch:
    """One of PARTS of a function. What torch prepared stays in this process: copies prepare for themselves."""

    function: Callable[..., Any]
    part: str
    batched: bool
    seeded: bool

    def __call__(self, x: NDArray[Any], *rest: Any) -> Any:
        """Return a float, or a float64 array."""
        torch, call = self.__dict__.get("_prepared") or self._prepare()
        tensors = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in (x, *rest)]
        with torch.no_grad():
            result = call(*tensors).detach()
        return result.item() if result.ndim == 0 else np.array(result.numpy(), np.float64)

    def _prepare(self) -> tuple[Any, Any]:
        """Keep and return torch and the function."""
        torch = load("torch", "from_torch")
        if self.batched:
            call = torch.func.vmap(_transform(torch, self.function, self.part))
        else:
            call = _trace(torch, self.function, self.part)
        self.__dict__["_prepared"] = torch, call
        return torch, call

    def __reduce__(self) -> Any:
        return _Torch, (self.function, self.part, self.batched, self.seeded)


def _trace(torch: Any, f: Callable[..., Any], part: str) -> Callable[..., Any]:
    """Return a part of f by autograd, which takes less than half the time of function transforms for one x."""

    def slope(x: Any, *seed: Any, again: bool = False) -> tuple[Any, Any]:
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            return x, _grad(torch, f(x, *seed), x, None, create_graph=again)

    def hvp(x: Any, v: Any, *seed: Any) -> Any:
        x, found = slope(x, *seed, again=True)
        return _grad(torch, found, x, v)

    def jvp(x: Any, v: Any, *seed: Any) -> Any:
        return (slope(x, *seed)[1] * v).sum()

    parts: dict[str, Callable[..., Any]] = {"f": f, "hvp": hvp, "jvp": jvp}
    parts["grad"] = lambda x, *seed: slope(x, *seed)[1]
    parts["hess"] = torch.func.jacrev(torch.func.grad(f))
    return parts[part]


def _grad(torch: Any, y: Any, x: Any, v: Any, **settings: Any) -> Any:
    """Return the gradient of y . v in x; zero where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(y, x, v, materialize_grads=True, **settings)[0]


def _transform(torch: Any, f: Callable[..., Any], part: str) -> Callable[..., Any]:
    """Return a part of f by function transforms, which can be batched; reverse mode only."""
    slope = torch.func.grad(f)

    def hvp(x: Any, v: Any, *seed: Any) -> Any:
        return torch.func.grad(lambda y: (slope(y, *seed) * v).sum())(x)

    def jvp(x: Any, v: Any, *seed: Any) -> Any:
        return (slope(x, *seed) * v).sum()

    parts: dict[str, Callable[..., Any]] = {"f": f, "grad": slope, "hvp": hvp, "jvp": jvp}
    parts["hess"] = torch.func.jacrev(slope)
    return parts[part]
