"""Closed forms: functions, the gradients of J(mean, sigma) = E f(mean + sigma * eps), variances of estimators.

Everything is per coordinate, in the coordinates scaled by sigma: a = sigma * grad f, H = D H D with D = diag(sigma),
taken at the mean; so y = c + a.eps + eps' H eps / 2, m = E y = c + tr H / 2. A scalar sigma is a diagonal one with
equal entries, and dJ/dsigma = sum_i dJ/dlog(sigma_i) / sigma. Derived from Stein's identities, E[phi eps_i^2] =
E[phi] + E[d_i^2 phi], not copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Polynomial:
    """f(x) = c + b.x + x' Q x / 2 + sum_i t_i x_i^3 / 6."""

    c: float
    b: Array
    q: Array
    t: Array

    def f(self, x: Array) -> Array:
        return self.c + x @ self.b + 0.5 * np.einsum("...i,ij,...j", x, self.q, x) + (x**3 @ self.t) / 6.0

    def grad(self, x: Array) -> Array:
        return self.b + x @ self.q + 0.5 * self.t * x**2

    def at(self, mean: Array, sigma: Array) -> tuple[float, Array, Array, Array]:
        """Value, gradient, Hessian and third derivatives at ``mean`` in scaled coordinates."""
        hessian = self.q + np.diag(self.t * mean)
        return float(self.f(mean)), sigma * self.grad(mean), sigma[:, None] * hessian * sigma, self.t * sigma**3

    def smoothed(self, mean: Array, sigma: Array) -> float:
        c, _, h, _ = self.at(mean, sigma)
        return c + 0.5 * float(np.trace(h))

    def mean_gradient(self, mean: Array, sigma: Array) -> Array:
        _, a, _, t = self.at(mean, sigma)
        return (a + 0.5 * t) / sigma

    def log_scale_gradient(self, mean: Array, sigma: Array) -> Array:
        return np.diag(self.at(mean, sigma)[2]).copy()


# Variances of one unit (a row, or a mirrored pair) for a quadratic y, with beta = m - baseline; entries are
# coordinates.


def score_mean(a: Array, h: Array, beta: float) -> Array:
    """(y - b) eps_i: E1 to E4 of the theory."""
    second = beta**2 + a @ a + 0.5 * (h * h).sum() + 2.0 * a**2 + 2.0 * np.diag(h @ h) + 2.0 * beta * np.diag(h)
    return second - a**2


def score_mean_pair(a: Array) -> Array:
    """(y+ - y-) eps_i / 2: E9."""
    return a @ a + a**2


def score_log_scale(a: Array, h: Array, beta: float, *, pair: bool = False) -> Array:
    """(y - b)(eps_i^2 - 1), or with the mean of a pair for y: D1, D2."""
    hii, hh = np.diag(h), np.diag(h @ h)
    odd = 0.0 if pair else 2.0 * (a @ a) + 8.0 * a**2
    return 2.0 * beta**2 + 8.0 * beta * hii + odd + (h * h).sum() + 5.0 * hii**2 + 8.0 * hh


def score_sigma(a: Array, h: Array, beta: float, *, pair: bool = False) -> float:
    """(y - b)(|eps|^2 - d), in units of 1 / sigma: S1, S3."""
    d, trace, square = a.size, float(np.trace(h)), float((h * h).sum())
    odd = 0.0 if pair else (2 * d + 8) * float(a @ a)
    return 2 * d * beta**2 + odd + 8.0 * beta * trace + (d + 12) * square + trace**2


def bonnet_mean(h: Array) -> Array:
    """sigma_i d_i f: E19."""
    return np.diag(h @ h).copy()


def bonnet_log_scale(a: Array, h: Array, *, pair: bool = False) -> Array:
    """sigma_i d_i f eps_i: D3, D4."""
    return (0.0 if pair else a**2) + np.diag(h @ h) + np.diag(h) ** 2


def bonnet_sigma(a: Array, h: Array, *, pair: bool = False) -> float:
    """grad f . eps, in units of 1 / sigma: S5, S6."""
    return (0.0 if pair else float(a @ a)) + 2.0 * float((h * h).sum())


def leave_one_out(
    single: Array | float, variance: float, weight: float, covariance: Array | float, units: int
) -> Array:
    """Variance of sum (y_b - mean of the others) T_b / B: single / B + (Var y E T^2 + Cov(y, T)^2) / (B (B - 1)).

    ``single`` is that of (y - m) T for one unit, ``weight`` = E T^2. E8, S4.
    """
    return np.asarray(single) / units + (variance * weight + np.square(covariance)) / (units * (units - 1))


def variance_of_value(a: Array, h: Array, *, pair: bool = False) -> float:
    """Variance of y, or of the mean of a pair."""
    return (0.0 if pair else float(a @ a)) + 0.5 * float((h * h).sum())


# The separable cubic at its centre: what tells pairs apart where quadratics cannot.


def cubic_mean_pair(a: Array, t: Array) -> float:
    """Total variance of (y+ - y-) eps / 2 for y = a.eps + sum t_i eps_i^3 / 6 (E9 on the cubic of the theory)."""
    d = a.size
    second = d * (a**2 + a * t + 5.0 / 12.0 * t**2) + 2.0 * a**2 + 4.0 * a * t + 2.5 * t**2
    return float(second.sum() - np.square(a + 0.5 * t).sum())


def cubic_bonnet_pair(t: Array) -> float:
    """Total variance of the average of the two gradients: E20 on the cubic."""
    return 0.5 * float(t @ t)


# Functions that are no polynomials.


@dataclass(frozen=True, eq=False)
class Exponential:
    """exp(b.x): every derivative under the smoothing is a power of b times J."""

    b: Array

    def f(self, x: Array) -> Array:
        return np.exp(x @ self.b)

    def grad(self, x: Array) -> Array:
        return self.f(x)[..., None] * self.b

    def smoothed(self, mean: Array, sigma: Array) -> float:
        return math.exp(float(self.b @ mean) + 0.5 * float(np.square(sigma * self.b).sum()))

    def mean_gradient(self, mean: Array, sigma: Array) -> Array:
        return self.smoothed(mean, sigma) * self.b

    def log_scale_gradient(self, mean: Array, sigma: Array) -> Array:
        return self.smoothed(mean, sigma) * np.square(sigma * self.b)


@dataclass(frozen=True, eq=False)
class Cosine:
    """cos(b.x): the smoothing multiplies it by exp(-|sigma b|^2 / 2)."""

    b: Array

    def f(self, x: Array) -> Array:
        return np.cos(x @ self.b)

    def grad(self, x: Array) -> Array:
        return -np.sin(x @ self.b)[..., None] * self.b

    def smoothed(self, mean: Array, sigma: Array) -> float:
        return math.cos(float(self.b @ mean)) * math.exp(-0.5 * float(np.square(sigma * self.b).sum()))

    def mean_gradient(self, mean: Array, sigma: Array) -> Array:
        return -math.tan(float(self.b @ mean)) * self.smoothed(mean, sigma) * self.b

    def log_scale_gradient(self, mean: Array, sigma: Array) -> Array:
        return -self.smoothed(mean, sigma) * np.square(sigma * self.b)
