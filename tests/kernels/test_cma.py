"""The CMA kernels against numpy: roots of the update, products, and a whole generation by the book."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import esopt
from esopt._kernels import cma, factor
from esopt.strategies._cma import Rates, constants

Array = np.ndarray[Any, Any]


def normals(*shape: int, seed: int = 1) -> Array:
    return np.asarray(esopt.Gaussian().noise(esopt.Key(seed), shape[0], shape[1]).rows(), np.float64)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (3, 4, 5), (9, 7, 11), (17, 66, 300), (8, 256, 513)])
def test_products_of_matrices(rows, inner, columns):
    a, b, start = normals(rows, inner), normals(inner, columns, seed=2), normals(rows, columns, seed=3)
    serial, parallel = start.copy(), start.copy()
    factor.accumulate(b, a, serial)
    factor.accumulate_parallel(b, a, parallel)

    np.testing.assert_allclose(serial, start + a @ b, rtol=0, atol=1e-12 * inner)
    np.testing.assert_array_equal(serial, parallel)


def test_the_bits_of_a_row_are_its_own():
    matrix, eps = normals(70, 70), normals(40, 70, seed=2)
    whole = factor.apply(matrix, eps)

    for first, last in ((0, 1), (3, 17), (39, 40)):
        np.testing.assert_array_equal(factor.apply(matrix, eps[first:last]), whole[first:last])


@pytest.mark.parametrize("dim", [1, 2, 7, 30])
def test_symmetric_roots(dim):
    half = normals(dim, dim)
    square = half @ half.T + 1e-3 * np.eye(dim)
    forth, back = cma.root(square)

    np.testing.assert_allclose(forth @ forth, square, rtol=1e-9, atol=1e-11 * np.abs(square).max())
    np.testing.assert_allclose(forth @ back, np.eye(dim), atol=1e-8)
    np.testing.assert_allclose(forth, forth.T, atol=1e-9)
    assert (np.linalg.eigvalsh(forth) > 0.0).all()


@pytest.mark.parametrize(("count", "dim"), [(1, 1), (5, 1), (11, 10), (5, 40), (40, 10), (41, 10), (200, 3)])
def test_the_factor_after_an_update(count, dim):
    """A R (A R)^T = A (alpha I + sum w z z^T) A^T, for both ways to make R; the path moves with it."""
    start, rows, path = normals(dim, dim) + 2.0 * np.eye(dim), normals(count, dim, seed=2), normals(1, dim, seed=3)[0]
    weights = 0.5 * np.linspace(1.0, -0.05, count) / count
    inside = 0.7 * np.eye(dim) + (rows.T * weights) @ rows
    assert np.linalg.eigvalsh(inside).min() > 0.05
    after, steps, ahead = cma.reshape(start, rows.copy(), weights, 0.7, path)

    np.testing.assert_allclose(after @ after.T, start @ inside @ start.T, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(steps, rows @ start.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(after @ ahead, start @ path, rtol=1e-9, atol=1e-10)


def test_a_part_that_is_not_definite_is_held_off():
    """Weights that would make C indefinite leave a factor that can be inverted."""
    rows = np.array([[3.0, 0.0, 0.0]])
    after, _, ahead = cma.reshape(np.eye(3), rows, np.array([-1.0]), 0.9, np.ones(3))

    assert np.isfinite(after).all()
    assert 0.0 < np.linalg.eigvalsh(after @ after.T).min() < 0.01
    np.testing.assert_allclose(after @ ahead, np.ones(3), rtol=1e-9)


@pytest.mark.parametrize("n", [4, 63, 64, 65, 200])
def test_order_is_stable_and_puts_failures_last(n):
    values = np.floor(3.0 * normals(1, n)[0])
    values[::5] = np.nan
    values[3] = np.inf

    np.testing.assert_array_equal(cma.order(values), np.argsort(values, kind="stable"))


def by_the_book(state: dict[str, Any], values: Array, weights: Array, rates: Any, eps: Array) -> dict[str, Any]:
    """Hansen (2016), figure 6, with C itself and p_c in the space of x; sigma's path is followed with A^-1."""
    dim, a = eps.shape[1], state["A"]
    rank = np.argsort(values, kind="stable")
    y = eps[rank] @ a.T
    mu = weights > 0.0
    step = weights[mu] @ y[mu]
    p_sigma = (1 - rates.sigma) * state["p_sigma"] + math.sqrt(
        rates.sigma * (2 - rates.sigma) * rates.mass
    ) * np.linalg.solve(a, step)
    chi = math.sqrt(dim) * (1 - 1 / (4 * dim) + 1 / (21 * dim**2))
    length = np.linalg.norm(p_sigma)
    unbiased = length / math.sqrt(1 - (1 - rates.sigma) ** (2 * (state["generation"] + 1)))
    h = float(unbiased < (1.4 + 2 / (dim + 1)) * chi)
    p_c = (1 - rates.path) * state["p_c"] + h * math.sqrt(rates.path * (2 - rates.path) * rates.mass) * step
    lengths = np.square(eps[rank]).sum(axis=1)
    own = np.where(weights >= 0.0, weights, weights * dim / lengths)
    delta = (1 - h) * rates.path * (2 - rates.path)
    cov = (1 + rates.one * delta - rates.one - rates.mu * weights.sum()) * state["C"]
    cov = cov + rates.one * np.outer(p_c, p_c) + rates.mu * (y.T * own) @ y
    return {
        "mean": state["mean"] + rates.mean * state["sigma"] * step,
        "sigma": state["sigma"] * math.exp(min(1.0, rates.sigma / rates.damping * (length / chi - 1))),
        "C": cov, "p_c": p_c, "p_sigma": p_sigma,
    }  # fmt: skip


@pytest.mark.parametrize(("dim", "n"), [(4, 8), (3, 30), (20, 12)])
def test_a_generation_by_the_book(dim, n):
    weights, rates = constants(dim, n, True, False)
    a, mean, history = np.diag(np.linspace(1.0, 3.0, dim)), np.ones(dim), np.full((2, 130), np.nan)
    sigma, p_sigma, path = 0.7, np.zeros(dim), np.zeros(dim)
    for generation in range(6):
        eps = normals(n, dim, seed=generation + 5)
        values = np.square(mean + sigma * eps @ a.T) @ np.linspace(1.0, 50.0, dim)
        state = {
            "A": a, "C": a @ a.T, "mean": mean, "sigma": sigma, "p_sigma": p_sigma, "p_c": a @ path,
            "generation": generation,
        }  # fmt: skip
        book = by_the_book(state, values, weights, Rates(*rates), eps)
        mean, sigma, a, p_sigma, path, history = cma.tell(
            eps, values, generation, mean, sigma, a, p_sigma, path, history, weights, rates
        )

        np.testing.assert_allclose(mean, book["mean"], rtol=1e-10)
        np.testing.assert_allclose(sigma, book["sigma"], rtol=1e-12)
        np.testing.assert_allclose(a @ a.T, book["C"], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(p_sigma, book["p_sigma"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(a @ path, book["p_c"], rtol=1e-9, atol=1e-10)
    assert history[0, 0] == values.min()
