"""Functions whose smoothed value and gradients have a closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..records import Evals, Population, Scale


@dataclass(frozen=True, eq=False)
class Problem:
    """f of rows (n, d), its derivatives, and those of J(mean, scale) = E f(mean + scale * eps).

    ``grad`` and ``hess`` return (n, d) and (n, d, d). ``mean_gradient(mean, scale)`` is dJ/dmean, (d,), and
    ``mean_hessian(mean, scale)`` the average Hessian E[Hessian f], (d, d), for any scale of a population.
    ``constraint`` returns g of the rows, (n, 1), for strategies that need one.
    """

    name: str
    f: Callable[[Array], Array]
    grad: Callable[[Array], Array]
    hess: Callable[[Array], Array]
    mean_gradient: Callable[[Array, Scale], Array]
    mean_hessian: Callable[[Array, Scale], Array]
    constraint: Callable[[Array], Array] = lambda x: x[:, :1]

    def scale_gradient(self, mean: Array, scale: Scale) -> Scale:
        """Return the gradient of J in the scale, as :class:`esopt.Gradient` has it, by Price's theorem."""
        hessian = self.mean_hessian(mean, scale)
        if isinstance(scale, float):
            return scale * float(np.trace(hessian))
        return np.square(scale) * np.diag(hessian) if scale.ndim == 1 else 0.5 * scale.T @ hessian @ scale

    def evaluate(self, population: Population) -> Evals:
        """Return the values of all rows and every derivative that the population needs."""
        rows, needs = population.rows(), population.needs
        values, grads = self.f(rows), self.grad(rows)
        hessians = self.hess(rows) if needs & {"hessians", "hvps"} else None
        hvps = jvps = None
        if population.probes is not None:
            n, probes = population.n, population.probes.rows().astype(np.float64)
            hvps = np.einsum("ijk,ik->ij", hessians[:n], probes) if hessians is not None else None
            jvps = np.einsum("ij,ij->i", grads[:n], probes)
        return Evals(
            values,
            grads if "grads" in needs else None,
            hessians=hessians if "hessians" in needs else None,
            hvps=hvps if "hvps" in needs else None,
            jvps=jvps if "jvps" in needs else None,
            constraints=self.constraint(rows) if "constraints" in needs else None,
        )


def linear(a: Array, c: float = 0.0) -> Problem:
    """Return c + a . x."""
    return Problem(
        "c + a.x",
        lambda x: c + x @ a,
        lambda x: np.tile(a, (len(x), 1)),
        lambda x: np.zeros((len(x), a.size, a.size)),
        lambda mean, scale: a,
        lambda mean, scale: np.zeros((a.size, a.size)),
    )


def quadratic(a: Array, hessian: Array, c: float = 0.0) -> Problem:
    """Return c + a . x + x' H x / 2."""
    return Problem(
        "c + a.x + x'Hx/2",
        lambda x: c + x @ a + 0.5 * np.einsum("ij,jk,ik->i", x, hessian, x),
        lambda x: a + x @ hessian,
        lambda x: np.tile(hessian, (len(x), 1, 1)),
        lambda mean, scale: a + hessian @ mean,
        lambda mean, scale: hessian,
    )


def exponential(a: Array) -> Problem:
    """Return exp(a . x): J = exp(a . mean + |L' a|^2 / 2)."""

    def smoothed(mean: Array, scale: Scale) -> float:
        return float(np.exp(a @ mean + 0.5 * _squared_length(a, scale)))

    return Problem(
        "exp(a.x)",
        lambda x: np.exp(x @ a),
        lambda x: np.exp(x @ a)[:, None] * a,
        lambda x: np.exp(x @ a)[:, None, None] * np.outer(a, a),
        lambda mean, scale: smoothed(mean, scale) * a,
        lambda mean, scale: smoothed(mean, scale) * np.outer(a, a),
    )


def cosine(a: Array) -> Problem:
    """Return cos(a . x): J = cos(a . mean) exp(-|L' a|^2 / 2)."""

    def damping(scale: Scale) -> float:
        return float(np.exp(-0.5 * _squared_length(a, scale)))

    return Problem(
        "cos(a.x)",
        lambda x: np.cos(x @ a),
        lambda x: -np.sin(x @ a)[:, None] * a,
        lambda x: -np.cos(x @ a)[:, None, None] * np.outer(a, a),
        lambda mean, scale: -np.sin(a @ mean) * damping(scale) * a,
        lambda mean, scale: -np.cos(a @ mean) * damping(scale) * np.outer(a, a),
    )


def _squared_length(a: Array, scale: Scale) -> float:
    """Return the variance of a . x, |L' a|^2, for x = L eps."""
    local = scale.T @ a if isinstance(scale, np.ndarray) and scale.ndim == 2 else scale * a
    return float(local @ local)


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
        lambda x: np.tile(2.0 * np.eye(x.shape[1]), (len(x), 1, 1)),
        lambda mean, scale: 2.0 * (mean - center),
        lambda mean, scale: 2.0 * np.eye(mean.size),
        lambda x: (x - center)[:, :1],
    )


def constant(value: float = 1.0) -> Problem:
    """Return the same value everywhere."""
    return Problem(
        "constant",
        lambda x: np.full(len(x), value),
        np.zeros_like,
        lambda x: np.zeros((*x.shape, x.shape[1])),
        lambda mean, scale: np.zeros_like(mean),
        lambda mean, scale: np.zeros((mean.size, mean.size)),
    )
