"""Nonlinear least squares as an objective: f = |r|^2 / 2 with the Gauss-Newton matrix in place of the Hessian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .noise import Array
from .objective import Objective


def gauss_newton(
    residuals: Callable[..., Any],
    jacobian: Callable[..., Any],
    args: tuple[Any, ...] = (),
    *,
    seeded: bool = False,
    shape: tuple[int, ...] | None = None,
) -> Objective:
    """Return f(x) = |r(x)|^2 / 2 as an objective with gradient J^T r, and J^T J for its Hessian.

    Parameters
    ----------
    residuals : ``r(x, *args)``, (m,) or any shape with m entries.
    jacobian : ``J(x, *args)``, the derivatives of the residuals, (m, d) or with the shapes of the residuals and then
        of ``x``.
    args : further arguments of both.
    seeded : whether both take the candidate's seed after ``x``.
    shape : shape of ``x`` as the functions see it; None for (d,).

    Returns
    -------
    Objective  with ``grad``, ``hess``, (d, d), ``hvp`` and ``jvp``. It can be sent to workers if both functions can.

    Raises
    ------
    TypeError  if one of them is no function.

    Notes
    -----
    J^T J is never indefinite and leaves out sum_i r_i Hessian(r_i): the covariance gradient of
    :class:`esopt.Price` from it is biased by the average of that, which is small where the residuals are small or
    nearly linear. The gradient of the mean has no bias.

    References
    ----------
    Schraudolph (2002), Fast curvature matrix-vector products for second-order gradient descent.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> t = np.arange(4.0)
    >>> model = esopt.gauss_newton(
    ...     lambda x: np.exp(x[0] * t) - x[1], lambda x: np.stack([t * np.exp(x[0] * t), -np.ones(4)], axis=1)
    ... )
    >>> x = np.array([0.1, 2.0])
    >>> bool(np.allclose(model.hess(x) @ x, model.hvp(x, x)))
    True
    """
    for name, function in (("residuals", residuals), ("jacobian", jacobian)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, got {type(function).__name__}. Pass a callable.")
    parts = _LeastSquares(residuals, jacobian)
    return Objective(
        parts.value, parts.grad, args, seeded=seeded, shape=shape, hess=parts.hess, hvp=parts.hvp, jvp=parts.jvp
    )


@dataclass(frozen=True, eq=False)
class _LeastSquares:
    """The functions of the objective; their bound methods can be pickled where the two functions can."""

    residuals: Callable[..., Any]
    jacobian: Callable[..., Any]

    def _flat(self, x: Any, args: tuple[Any, ...]) -> tuple[Array, Array]:
        """Return the residuals (m,) and their Jacobian (m, d)."""
        return np.asarray(self.residuals(x, *args), np.float64).reshape(-1), self._matrix(x, args)

    def _matrix(self, x: Any, args: tuple[Any, ...]) -> Array:
        """Return the Jacobian, (m, d)."""
        jacobian = np.asarray(self.jacobian(x, *args), np.float64)
        if jacobian.ndim < 2 or jacobian.size % max(1, np.size(x)):
            raise ValueError(
                f"the jacobian of gauss_newton() returned shape {jacobian.shape} for x of shape {np.shape(x)}. "
                "Return one row of derivatives for each residual, (m, d)."
            )
        return jacobian.reshape(-1, np.size(x))

    def value(self, x: Any, *args: Any) -> float:
        residuals = np.asarray(self.residuals(x, *args), np.float64).reshape(-1)
        return 0.5 * float(residuals @ residuals)

    def grad(self, x: Any, *args: Any) -> NDArray[np.float64]:
        residuals, jacobian = self._flat(x, args)
        if residuals.size != len(jacobian):
            raise ValueError(
                f"gauss_newton() got {residuals.size} residuals and a jacobian of {len(jacobian)} rows. "
                "Return one row of derivatives for each residual."
            )
        return (residuals @ jacobian).reshape(np.shape(x))

    def hess(self, x: Any, *args: Any) -> NDArray[np.float64]:
        jacobian = self._matrix(x, args)
        return np.asarray(jacobian.T @ jacobian)

    def hvp(self, x: Any, v: Any, *args: Any) -> NDArray[np.float64]:
        jacobian = self._matrix(x, args)
        return np.asarray((jacobian @ np.reshape(v, -1)) @ jacobian).reshape(np.shape(x))

    def jvp(self, x: Any, v: Any, *args: Any) -> float:
        return float(np.vdot(self.grad(x, *args), v))
