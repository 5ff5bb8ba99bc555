"""Functions written in jax: values and derivatives, compiled, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..objective import Objective
from ._autodiff import PARTS, check_function, load, objective


def from_jax(f: Callable[..., Any], *, batched: bool = False, seeded: bool = False) -> Objective:
    """Return the objective of a function written in jax, with gradient, Hessian, and products with directions.

    Every function is compiled when it is first called with an x of some shape, and computes in float64 whatever jax is
    set to elsewhere.

    Parameters
    ----------
    f : ``f(x)``, or ``f(x, seed)`` if ``seeded``, of one x, a jax array in the shape of x0; returns a scalar, and does
        only what ``jax.jit`` allows. The seed is an int64 scalar, for example for ``jax.random.key(seed)``.
    batched : True for functions of many x at once, (m, *shape), for ``vectorized=True``; ``f`` is one of one x still.
    seeded : whether f is stochastic and takes the candidate's seed.

    Returns
    -------
    Objective  with f, grad, hess, hvp and jvp of numpy arrays. It can be sent to worker processes if f can.

    Raises
    ------
    ImportError  if jax is missing. The extra "jax" brings it.

    Notes
    -----
    jvp is forward mode (about two values), grad reverse mode (two to four values), hvp forward over reverse (about two
    gradients), hess d of those. A call costs some dozens of microseconds of overhead: prefer ``batched`` for an f that
    takes less.

    Examples
    --------
    >>> import esopt
    >>> def f(x):
    ...     return (x**2).sum()
    >>> objective = esopt.from_jax(f)  # doctest: +SKIP
    >>> objective.grad(np.ones(2))  # doctest: +SKIP
    array([2., 2.])
    """
    check_function(f, "from_jax", "jax")
    load("jax", "from_jax")
    return objective((_Jax(f, part, batched, seeded) for part in PARTS), seeded=seeded)


@dataclass(frozen=True)
class _Jax:
    """One of PARTS of a function. What jax compiled stays in this process: copies compile for themselves."""

    function: Callable[..., Any]
    part: str
    batched: bool
    seeded: bool

    def __call__(self, x: NDArray[Any], *rest: Any) -> Any:
        """Return a float, or a float64 array."""
        call, context = self.__dict__.get("_compiled") or self._compile()
        with context(True):
            result = call(x, *rest)
            return float(result) if result.ndim == 0 else np.array(result, np.float64)

    def _compile(self) -> tuple[Any, Any]:
        """Keep and return the compiled function, and the context in which it computes in float64."""
        jax = load("jax", "from_jax")
        found = _derive(jax, self.function, self.part)
        if self.batched:
            found = jax.vmap(found)
        # The context has had this name since jax 0.8.
        context = jax.enable_x64 if hasattr(jax, "enable_x64") else load("jax.experimental", "from_jax").enable_x64
        self.__dict__["_compiled"] = jax.jit(found), context
        return self.__dict__["_compiled"]  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        return _Jax, (self.function, self.part, self.batched, self.seeded)


def _derive(jax: Any, f: Callable[..., Any], part: str) -> Callable[..., Any]:
    def jvp(x: Any, v: Any, *seed: Any) -> Any:
        return jax.jvp(lambda y: f(y, *seed), (x,), (v,))[1]

    def hvp(x: Any, v: Any, *seed: Any) -> Any:
        return jax.jvp(lambda y: jax.grad(f)(y, *seed), (x,), (v,))[1]

    parts: dict[str, Callable[..., Any]] = {"f": f, "grad": jax.grad(f), "hess": jax.hessian(f), "hvp": hvp, "jvp": jvp}
    return parts[part]
