"""Closed forms behind which_side.py: second moments of both sides for waves, sigmoids and quadratics, and Fourier sums.

Variances are totals (traces), times sigma^2 for waves and sigmoids, and multiplied by the evaluations that they cost:
n values, or n gradients, each counted as 1. s = |omega| sigma. Expectations over a normal phase factor are
E[|eps|^2 cos(s eps_1)] = (d - s^2) exp(-s^2 / 2) and its relatives; waves are averaged over their phase.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1, ndtr

Array = NDArray[np.float64]

WAVES = ("values, no baseline", "values, f(mean)", "values, leave one out", "values, antithetic")
SLOPES = ("gradients", "gradients, antithetic")


def wave_signal(s: Any) -> Any:
    """W_1 = sigma^2 E_phase |grad J|^2, the squared length of what is estimated."""
    return 0.5 * s**2 * np.exp(-(s**2))


def wave(name: str, s: Any, d: int, n: int) -> Any:
    """sigma^2 x variance x evaluations of n rows on sin(omega . x + phase), averaged over the phase.

    Written with expm1, so that the powers of s that cancel at small s do so exactly.
    """
    half, one, two = np.exp(-0.5 * s**2), np.exp(-(s**2)), np.exp(-2.0 * s**2)
    signal = wave_signal(s)
    spread = -0.5 * np.expm1(-(s**2))
    if name == "values, no baseline":
        return 0.5 * d - signal
    if name == "values, f(mean)":
        return (1.0 + 1.0 / n) * (-d * np.expm1(-0.5 * s**2) + s**2 * half - signal)
    if name == "values, true mean":
        return d * spread + s**2 * one - signal
    if name == "values, leave one out":
        return wave("values, true mean", s, d, n) + (d * spread + signal) / (n - 1)
    if name == "values, antithetic":
        return 2.0 * (-0.25 * d * np.expm1(-2.0 * s**2) + s**2 * two - signal)
    if name == "gradients":
        return s**2 * spread
    if name == "gradients, antithetic":
        return 2.0 * s**2 * spread**2
    raise KeyError(name)


def crossover(values: str, slopes: str, d: int, n: int, cost: float = 1.0) -> float:
    """The s at which both have the same variance, with a gradient costing ``cost`` values."""
    from scipy.optimize import brentq

    def gap(log_s: float) -> float:
        s = float(np.exp(log_s))
        return float(np.log(cost * wave(slopes, s, d, n)) - np.log(wave(values, s, d, n)))

    return float(np.exp(brentq(gap, np.log(0.2), np.log(60.0), xtol=1e-13)))


def sigmoid_gradient(r: Any) -> Any:
    """sigma u . grad J of Phi(u . x / delta) at 0, with r = delta / sigma."""
    return 1.0 / np.sqrt(2.0 * np.pi * (1.0 + r**2))


def sigmoid_spread(r: Any) -> Any:
    """Var f of the same."""
    return np.arcsin(1.0 / (1.0 + r**2)) / (2.0 * np.pi)


def sigmoid(name: str, r: Any, d: int, n: int) -> Any:
    """sigma^2 x variance x n of n values with the leave-one-out mean, or of n gradients; r = delta / sigma.

    Gradients: for r > 0. At r = 0 their variance is 0 and so is their mean.
    """
    signal = sigmoid_gradient(r) ** 2
    if name == "gradients":
        return 1.0 / (2.0 * np.pi * r * np.sqrt(r**2 + 2.0)) - signal
    if name == "values, leave one out":
        spread = sigmoid_spread(r)
        # nu Var f = sigma dVar f / dsigma
        slope = r / (np.pi * (1.0 + r**2) * np.sqrt(2.0 + r**2))
        return d * spread + slope - signal + (d * spread + signal) / (n - 1)
    raise KeyError(name)


QUADRATICS = (
    "values, no baseline",
    "values, f(mean)",
    "values, leave one out",
    "values, antithetic",
    "values, antithetic orthogonal",
    "gradients",
    "gradients, antithetic",
)


def quadratic(
    name: str, a: Array, h: Array, c: float, sigma: float, n: int, noise: float = 0.0, grad_noise: float = 0.0
) -> float:
    """Variance x evaluations on c + a . x + x'Hx / 2 at 0.

    ``noise`` is the variance of independent noise on every value, ``grad_noise`` the total variance on every gradient.
    """
    d, a2, h1, h2 = a.size, float(a @ a), float(np.trace(h)), float(np.square(h).sum())
    q, m = sigma**2 * h2, c + 0.5 * sigma**2 * h1
    spread = sigma**2 * a2 + 0.5 * sigma**2 * q + noise
    fuzz = d * noise / sigma**2

    def score(b: float) -> float:
        return d * (m - b) ** 2 / sigma**2 + (d + 1) * a2 + (0.5 * d + 2.0) * q + 2.0 * (m - b) * h1 + fuzz

    if name == "values, no baseline":
        return score(0.0)
    if name == "values, f(mean)":
        # The noise of f(mean) is shared by all rows and counts once more.
        return (1.0 + 1.0 / n) * (score(c) + fuzz)
    if name == "values, leave one out":
        return score(m) + (a2 + d * spread / sigma**2) / (n - 1)
    if name == "values, antithetic":
        return 2.0 * (d + 1) * a2 + fuzz
    if name == "values, antithetic orthogonal":
        pair = (d + 1) * a2 + 0.5 * fuzz
        return 2.0 * d * (pair / d - (1.0 - 1.0 / d) * a2)
    if name == "gradients":
        return q + grad_noise
    if name == "gradients, antithetic":
        return grad_noise
    raise KeyError(name)


# Fourier: grad J(x) = (2 pi)^-d times the integral of i omega exp(-sigma^2 |omega|^2 / 2) F(omega) exp(i omega . x),
# F the transform of f. The integrand is smooth and ends soon, so that a sum over equal steps is exact to rounding.


def fourier_1d(transform: Callable[[Array], Array], x: Array, sigma: float) -> Array:
    """J'(x) of an f with the given Fourier transform, for |x| of a few units."""
    step = np.pi / (12.0 + 10.0 * sigma)
    omega = np.arange(-np.ceil(9.0 / sigma / step), np.ceil(9.0 / sigma / step) + 1.0) * step
    spectrum = 1j * omega * np.exp(-0.5 * (sigma * omega) ** 2) * transform(omega)
    return np.asarray((np.exp(1j * np.multiply.outer(x, omega)) @ spectrum).real * step / (2.0 * np.pi))


def fourier_2d(transform: Callable[[Array, Array], Array], points: Array, sigma: float) -> Array:
    """grad J at the (m, 2) points."""
    step = np.pi / (8.0 + 10.0 * sigma)
    omega = np.arange(-np.ceil(9.0 / sigma / step), np.ceil(9.0 / sigma / step) + 1.0) * step
    u, v = np.meshgrid(omega, omega, indexing="ij")
    spectrum = np.exp(-0.5 * sigma**2 * (u**2 + v**2)) * transform(u, v) * (step / (2.0 * np.pi)) ** 2
    left, right = np.exp(1j * np.multiply.outer(points.T, omega))
    return np.stack([np.einsum("mi,ij,mj->m", left, 1j * w * spectrum, right, optimize=True).real for w in (u, v)], 1)


def boxcar_transform(omega: Array) -> Array:
    """1 on |x| < 1."""
    return 2.0 * np.sinc(omega / np.pi)


def triangle_transform(omega: Array) -> Array:
    """max(0, 1 - |x|)."""
    return np.asarray(np.sinc(omega / (2.0 * np.pi)) ** 2)


def bump_transform(omega: Array) -> Array:
    """exp(-x^2 / 2)."""
    return np.asarray(np.sqrt(2.0 * np.pi) * np.exp(-0.5 * omega**2))


def disc_transform(u: Array, v: Array) -> Array:
    """1 on |x| < 1 in the plane."""
    length = np.maximum(np.hypot(u, v), 1e-12)
    return np.asarray(2.0 * np.pi * j1(length) / length)


def ridge_transform(u: Array, v: Array) -> Array:
    """exp(-x'Ax / 2) with A = [[2, 1], [1, 1]], whose inverse is [[1, -1], [-1, 2]]."""
    return np.asarray(2.0 * np.pi * np.exp(-0.5 * (u**2 - 2.0 * u * v + 2.0 * v**2)))


def pieces(f: Callable[[Array], Array], edges: tuple[float, ...], x: Array, sigma: float) -> Array:
    """E f(x + sigma eps), by 80 Gauss-Legendre nodes on each smooth piece of an f that is 0 outside the edges."""
    nodes, weights = np.polynomial.legendre.leggauss(80)
    total = np.zeros_like(x)
    for low, high in pairwise(edges):
        at = low + 0.5 * (high - low) * (nodes + 1.0)
        eps = (at - x[:, None]) / sigma
        density = np.exp(-0.5 * eps**2) / (sigma * np.sqrt(2.0 * np.pi))
        total += (f(at) * density) @ weights * 0.5 * (high - low)
    return total


def pieces_score(f: Callable[[Array], Array], edges: tuple[float, ...], x: Array, sigma: float) -> Array:
    """E f(x + sigma eps) eps / sigma in the same way."""
    out = [pieces(lambda y, at=at: f(y) * (y - at) / sigma**2, edges, np.array([at]), sigma)[0] for at in x]
    return np.array(out)


def hermite(f: Callable[[Array], Array], x: Array, sigma: float, *, score: bool = False) -> Array:
    """E f(x + sigma eps), or E f eps / sigma, of a smooth f, by Gauss-Hermite with 120 nodes."""
    eps, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum() * (eps / sigma if score else 1.0)
    return np.asarray(f(x[:, None] + sigma * eps) @ weights)


def boxcar_gradient(x: Array, sigma: float) -> Array:
    """J' of the boxcar."""
    z = np.stack([x + 1.0, x - 1.0]) / sigma
    density = np.exp(-0.5 * z**2) / (sigma * np.sqrt(2.0 * np.pi))
    return np.asarray(density[0] - density[1])


def triangle_gradient(x: Array, sigma: float) -> Array:
    """J' of the triangle: E f' = P(-1 < y < 0) - P(0 < y < 1)."""
    below = ndtr((np.array([[-1.0], [0.0], [1.0]]) - x) / sigma)
    return np.asarray((below[1] - below[0]) - (below[2] - below[1]))


def disc_gradient(points: Array, sigma: float) -> Array:
    """grad J of the disc, by the divergence theorem: minus the density times the outward normal along the circle."""
    angle = 2.0 * np.pi * np.arange(400) / 400
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    square = np.square(circle - points[:, None, :]).sum(axis=2)
    density = np.exp(-0.5 * square / sigma**2) / (2.0 * np.pi * sigma**2)
    return -(density @ circle) * (2.0 * np.pi / 400)


def disc_score(points: Array, sigma: float) -> Array:
    """E f eps / sigma of the disc, by quadrature over its area in polar coordinates."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    radius, angle = 0.5 * (nodes + 1.0), 2.0 * np.pi * np.arange(128) / 128
    area = np.outer(0.5 * weights * radius, np.full(128, 2.0 * np.pi / 128)).ravel()
    at = np.stack([np.outer(radius, np.cos(angle)).ravel(), np.outer(radius, np.sin(angle)).ravel()], 1)
    shift = at - points[:, None, :]
    density = np.exp(-0.5 * np.square(shift).sum(axis=2) / sigma**2) / (2.0 * np.pi * sigma**2)
    return np.asarray(np.einsum("mk,mkj,k->mj", density, shift, area) / sigma**2)


RIDGE = np.array([[2.0, 1.0], [1.0, 1.0]])


def ridge_sides(points: Array, sigma: float) -> tuple[Array, Array]:
    """E grad f and E f eps / sigma of the ridge, each (m, 2), by Gauss-Hermite in the plane."""
    nodes, w = np.polynomial.hermite_e.hermegauss(60)
    eps = np.stack([g.ravel() for g in np.meshgrid(nodes, nodes, indexing="ij")], 1)
    weights = np.outer(w, w).ravel() / w.sum() ** 2
    y = points[:, None, :] + sigma * eps
    f = np.exp(-0.5 * np.einsum("mki,ij,mkj->mk", y, RIDGE, y))
    left = np.einsum("k,mk,mki->mi", weights, f, -(y @ RIDGE))
    return left, np.asarray((f * weights) @ eps / sigma)


def fourier_table() -> list[dict[str, Any]]:
    """Largest distance of each exact side from the multiplier, relative to the largest |grad J|."""
    x = np.linspace(-2.0, 2.0, 41)
    points = np.stack([g.ravel() for g in np.meshgrid(np.linspace(-1.5, 1.5, 7), np.linspace(-1.5, 1.5, 7))], 1)
    rows: list[dict[str, Any]] = []

    def add(f: str, d: int, sigma: float, multiplier: Array, left: Array, right: Array) -> None:
        size = float(np.abs(multiplier).max())
        far = [float(np.abs(side - multiplier).max() / size) for side in (left, right)]
        rows.append({"f": f, "d": d, "sigma": sigma, "left": far[0], "right": far[1]})

    def tent(y: Array) -> Array:
        return np.maximum(0.0, 1.0 - np.abs(y))

    for sigma in (0.3, 1.0):
        bump = hermite(lambda y: -y * np.exp(-0.5 * y**2), x, sigma)
        bump_score = hermite(lambda y: np.exp(-0.5 * y**2), x, sigma, score=True)
        add("bump exp(-x²/2)", 1, sigma, fourier_1d(bump_transform, x, sigma), bump, bump_score)
        left = pieces(lambda y: -np.sign(y), (-1.0, 0.0, 1.0), x, sigma)
        right = pieces_score(tent, (-1.0, 0.0, 1.0), x, sigma)
        add("triangle", 1, sigma, fourier_1d(triangle_transform, x, sigma), left, right)
        right = pieces_score(np.ones_like, (-1.0, 1.0), x, sigma)
        add("boxcar", 1, sigma, fourier_1d(boxcar_transform, x, sigma), np.zeros_like(x), right)
    add("ridge exp(-x'Ax/2)", 2, 0.5, fourier_2d(ridge_transform, points, 0.5), *ridge_sides(points, 0.5))
    disc = disc_score(points, 0.5)
    add("disc", 2, 0.5, fourier_2d(disc_transform, points, 0.5), np.zeros_like(disc), disc)
    return rows
