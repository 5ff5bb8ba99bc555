"""Functions whose smoothed value and gradients have a closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..records import Evals, Population


@dataclass(frozen=True, eq=False)
class Problem:
    """f of rows (n, d), its gradients, and the gradients of J(mean, sigma) = E f(mean + sigma * eps).

    ``mean_gradient(mean, sigma)`` is dJ/dmean and ``log_scale_gradient(mean, sigma)`` dJ/dlog(sigma_i), (d,) each,
    for sigma (d,).
    """

    name: str
    f: Callable[[Array], Array]
    grad: Callable[[Array], Array]
    mean_gradient: Callable[[Array, Array], Array]
    log_scale_gradient: Callable[[Array, Array], Array]

    def evaluate(self, population: Population) -> Evals:
        """Return the values of all rows, and the gradients if they are needed."""
        rows = population.rows()
        return Evals(self.f(rows), self.grad(rows) if "grads" in population.needs else None)


def linear(a: Array, c: float = 0.0) -> Problem:
    """Return c + a . x."""
    return Problem(
        "c + a.x",
        lambda x: c + x @ a,
        lambda x: np.tile(a, (len(x), 1)),
        lambda mean, sigma: a,
        lambda mean, sigma: np.zeros_like(a),
    )


def quadratic(a: Array, hessian: Array, c: float = 0.0) -> Problem:
    """Return c + a . x + x' H x / 2."""
    return Problem(
        "c + a.x + x'Hx/2",
        lambda x: c + x @ a + 0.5 * np.einsum("ij,jk,ik->i", x, hessian, x),
        lambda x: a + x @ hessian,
        lambda mean, sigma: a + hessian @ mean,
        lambda mean, sigma: np.square(sigma) * np.diag(hessian),
    )


def exponential(a: Array) -> Problem:
    """Return exp(a . x): J = exp(a . mean + |sigma a|^2 / 2)."""

    def smoothed(mean: Array, sigma: Array) -> float:
        return float(np.exp(a @ mean + 0.5 * np.square(sigma * a).sum()))

    return Problem(
        "exp(a.x)",
        lambda x: np.exp(x @ a),
        lambda x: np.exp(x @ a)[:, None] * a,
        lambda mean, sigma: smoothed(mean, sigma) * a,
        lambda mean, sigma: smoothed(mean, sigma) * np.square(sigma * a),
    )


def cosine(a: Array) -> Problem:
    """Return cos(a . x): J = cos(a . mean) exp(-|sigma a|^2 / 2)."""

    def damping(sigma: Array) -> float:
        return float(np.exp(-0.5 * np.square(sigma * a).sum()))

    return Problem(
        "cos(a.x)",
        lambda x: np.cos(x @ a),
        lambda x: -np.sin(x @ a)[:, None] * a,
        lambda mean, sigma: -np.sin(a @ mean) * damping(sigma) * a,
        lambda mean, sigma: -np.cos(a @ mean) * damping(sigma) * np.square(sigma * a),
    )


def closed_forms(dim: int) -> list[Problem]:
    """Return one of each in ``dim`` dimensions, none of them symmetric in the coordinates."""
    a = np.linspace(0.6, -1.0, dim)
    hessian = np.diag(np.linspace(1.5, 0.4, dim)) + 0.3
    return [linear(a, 0.5), quadratic(a, hessian, 1.0), exponential(0.8 * a), cosine(1.2 * a)]


def sphere(center: float | Array = 0.0, offset: float = 0.0) -> Problem:
    """Return |x - center|^2 + offset."""
    return Problem(
        "|x - center|^2",
        lambda x: np.square(x - center).sum(axis=1) + offset,
        lambda x: 2.0 * (x - center),
        lambda mean, sigma: 2.0 * (mean - center),
        lambda mean, sigma: 2.0 * np.square(sigma),
    )


def constant(value: float = 1.0) -> Problem:
    """Return the same value everywhere."""
    return Problem(
        "constant",
        lambda x: np.full(len(x), value),
        np.zeros_like,
        lambda mean, sigma: np.zeros_like(mean),
        lambda mean, sigma: np.zeros_like(mean),
    )
