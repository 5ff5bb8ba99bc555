"""smoothed_hessian against closed forms, from every source."""

from __future__ import annotations

import numpy as np
import pytest

import esopt

A = np.array([[2.0, 0.5, -0.3], [0.5, -1.0, 0.2], [-0.3, 0.2, 0.7]])
X = np.array([0.3, -0.2, 0.5])
B = np.array([0.9, -0.6, 0.4])


def f(x):
    return 0.5 * x @ A @ x + np.cos(B @ x)


def grad(x):
    return A @ x - np.sin(B @ x) * B


def hess(x):
    return A - np.cos(B @ x) * np.outer(B, B)


def hvp(x, v):
    return hess(x) @ v


def truth(sigma, x=X):
    along = B @ sigma if np.ndim(sigma) == 2 else sigma * B
    return A - np.cos(B @ x) * np.exp(-0.5 * np.square(along).sum()) * np.outer(B, B)


SOURCES = {
    "values": {},
    "gradients": {"grad": grad},
    "Hessian-vector products": {"hvp": hvp, "grad": grad},
    "Hessians": {"hess": hess, "hvp": hvp, "grad": grad},
}
SIZES = {"values": 14_000, "gradients": 4000, "Hessian-vector products": 4000, "Hessians": 400}


FACTOR = np.array([[0.5, 0.0, 0.1], [0.3, -0.6, 0.0], [0.2, 0.25, 0.7]])


@pytest.mark.parametrize("sigma", [0.5, np.array([0.3, 0.6, 0.9]), FACTOR], ids=["scalar", "diagonal", "factor"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_estimates_the_hessian(source, sigma):
    h = esopt.smoothed_hessian(f, X, sigma=sigma, n=SIZES[source], seed=2, **SOURCES[source])
    expected = truth(sigma)
    cov = sigma @ sigma.T if np.ndim(sigma) == 2 else np.square(sigma) * np.eye(3)
    value = 0.5 * X @ A @ X + 0.5 * (cov * A).sum() + np.cos(B @ X) * np.exp(-0.5 * B @ cov @ B)

    assert h.notes["source"] == source
    assert (np.abs(h.mean - expected) < 4.5 * h.stderr).all()
    assert np.linalg.norm(h.stderr) < 0.1 * np.linalg.norm(expected)  # a factor of two is ten errors off
    assert abs(h.value - value) < 4.0 * h.value_stderr
    assert (h.blocks, h.evaluations) == (SIZES[source] // 2, SIZES[source])
    np.testing.assert_array_equal(h.mean, h.mean.T)
    np.testing.assert_array_equal(h.stderr, h.stderr.T)


@pytest.mark.parametrize("sampler", [esopt.Antithetic(), esopt.Gaussian()], ids=["pairs", "rows"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_diagonal_factor_is_one_sigma_per_coordinate(source, sampler):
    sigma = np.array([0.3, 0.6, 0.9])
    one, factor = (
        esopt.smoothed_hessian(f, X, sigma=s, n=60, sampler=sampler, **SOURCES[source]) for s in (sigma, np.diag(sigma))
    )

    np.testing.assert_allclose(factor.mean, one.mean, rtol=1e-9)
    np.testing.assert_allclose(factor.stderr, one.stderr, rtol=1e-7)


@pytest.mark.parametrize("sampler", [esopt.Antithetic(), esopt.Antithetic(esopt.Orthogonal(3)), esopt.Gaussian()])
@pytest.mark.parametrize("source", ["values", "gradients"])
def test_errors_with_a_factor_are_those_of_the_blocks(source, sampler):
    """The Hessian of each block by itself, and their deviation."""
    noise = sampler.noise(esopt.Key(3), 24, 3)
    eps = noise.rows().astype(np.float64)
    x, e = X + eps @ FACTOR.T, eps @ np.linalg.inv(FACTOR)
    if source == "values":
        values = np.array([f(row) for row in x])
        values -= 2.0  # the known baseline
        terms = values[:, None, None] * (np.einsum("ij,ik->ijk", e, e) - np.linalg.inv(FACTOR @ FACTOR.T))
    else:
        terms = np.einsum("ij,ik->ijk", [grad(row) for row in x], e)
    blocks = terms.reshape(-1, noise.block, 3, 3).mean(axis=1)
    blocks = 0.5 * (blocks + blocks.transpose(0, 2, 1))
    shifted = {"values": {}, "gradients": {"grad": grad}}[source]
    h = esopt.smoothed_hessian(
        lambda x: f(x) - 2.0, X, sigma=FACTOR, n=24, seed=3, sampler=sampler,
        baseline=esopt.NoBaseline() if source == "values" else None, **shifted,
    )  # fmt: skip

    np.testing.assert_allclose(h.mean, blocks.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(h.stderr, blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks)), rtol=1e-9)


@pytest.mark.parametrize("source", ["Hessian-vector products", "Hessians"])
def test_second_derivatives_need_no_gradient(source):
    kinds = {"hess": hess} if source == "Hessians" else {"hvp": hvp}
    alone = esopt.smoothed_hessian(f, X, seed=2, **kinds)
    both = esopt.smoothed_hessian(f, X, seed=2, grad=grad, **kinds)

    np.testing.assert_array_equal(alone.mean, both.mean)
    np.testing.assert_array_equal(alone.stderr, both.stderr)


def test_hessians_of_a_quadratic_are_exact():
    h = esopt.smoothed_hessian(lambda x: 0.5 * x @ A @ x, X, sigma=0.3, hess=lambda x: A)

    np.testing.assert_allclose(h.mean, A, rtol=1e-14)
    np.testing.assert_allclose(h.stderr, 0.0, atol=1e-14)
    assert h.evaluations == 64


@pytest.mark.parametrize("source", SOURCES)
def test_errors_are_calibrated(source):
    """Variance of z over 200 seeds; errors off by a factor of two would make it 4 or 1/4."""
    a, b = A[:2, :2], B[:2]
    kinds = {
        "grad": lambda x: x @ a - np.sin(x @ b)[:, None] * b,
        "hess": lambda x: a - np.cos(x @ b)[:, None, None] * np.outer(b, b),
        "hvp": lambda x, v: v @ a - (np.cos(x @ b) * (v @ b))[:, None] * b,
    }
    wanted = {name: kinds[name] for name in SOURCES[source]}
    sigma = np.array([0.5, 0.9])
    expected = a - np.exp(-0.5 * np.square(sigma * b).sum()) * np.outer(b, b)

    def rows(x):
        return 0.5 * np.einsum("ij,jk,ik->i", x, a, x) + np.cos(x @ b)

    n, found = 4000 if source == "values" else 400, []  # the terms of values have a long tail
    for seed in range(200):
        h = esopt.smoothed_hessian(rows, np.zeros(2), sigma=sigma, n=n, seed=seed, vectorized=True, **wanted)
        found.append(np.stack([h.mean - expected, h.stderr])[:, [0, 0, 1], [0, 1, 1]])
    off, stderr = np.array(found).transpose(1, 0, 2)
    z = off / stderr

    assert (np.abs(off.mean(axis=0)) < 4.0 * off.std(axis=0) / np.sqrt(200)).all()
    assert ((z.var(axis=0) > 0.7) & (z.var(axis=0) < 1.4)).all()


@pytest.mark.parametrize("source", ["values", "gradients", "Hessian-vector products"])
def test_default_size_gives_a_quarter_of_the_norm(source):
    for dim in (1, 3, 8):
        a = np.diag(np.linspace(-1.0, 2.0, dim) + 0.2)
        kinds = {"gradients": {"grad": lambda x, a=a: x @ a}, "values": {}}.get(
            source, {"hvp": lambda x, v, a=a: v @ a}
        )
        h = esopt.smoothed_hessian(
            lambda x, a=a: 0.5 * (x @ a * x).sum(axis=1), np.zeros(dim), vectorized=True, seed=1, **kinds
        )
        least = {"values": 20 * (dim + 2) * (dim + 7)}.get(source, 20 * (dim + 2))

        assert h.evaluations == max(128, least)
        assert np.linalg.norm(h.stderr) < 0.4 * np.linalg.norm(a)


@pytest.mark.parametrize("source", ["values", "gradients", "Hessian-vector products"])
def test_default_size_makes_an_error_of_about_a_quarter(source):
    """On a quadratic, against its Hessian: the root of the mean squared error over seeds, and half or twice is out.

    Products with signs have no noise on the diagonal of theirs, which halves it.
    """
    dim, lost = 6, []
    a = np.diag(np.linspace(-1.0, 1.4, dim)) + 0.1
    kinds = {"values": {}, "gradients": {"grad": lambda x: x @ a}}.get(source, {"hvp": lambda x, v: v @ a})
    for seed in range(30):
        h = esopt.smoothed_hessian(
            lambda x: 0.5 * np.einsum("ij,ij->i", x @ a, x), np.zeros(dim), vectorized=True, seed=seed, **kinds
        )
        lost.append(np.square(h.mean - a).sum() / np.square(a).sum())

    about = 0.125 if source == "Hessian-vector products" else 0.25
    assert 0.6 * about < np.sqrt(np.mean(lost)) < 1.6 * about


def test_shapes_samplers_baselines_and_objectives():
    shaped = esopt.smoothed_hessian(lambda x: float((x**2).sum()), np.zeros((2, 1)), sigma=0.5, n=4000)
    rows = esopt.smoothed_hessian(f, X, n=60, grad=grad, sampler=esopt.Gaussian())
    value = esopt.smoothed_hessian(f, X, n=60, grad=grad, baseline=esopt.NoBaseline())
    given = esopt.smoothed_hessian(esopt.Objective(f, grad=grad, hess=hess), X, n=8)

    assert (np.abs(shaped.mean - 2.0 * np.eye(2)) < 4.0 * shaped.stderr).all()
    assert (rows.blocks, rows.notes["source"]) == (60, "gradients")
    assert value.notes["source"] == "values"
    assert given.notes["source"] == "Hessians"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": np.eye(3) + 0.1, "baseline": esopt.OptimalPerCoordinate()}, "got the scale a factor"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"n": 7}, "multiple of 2"),
        ({"n": 0}, "n must be at least 1"),
        ({"sampler": esopt.Sphere()}, r"needs rows that are N\(0, I\)"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        esopt.smoothed_hessian(f, X, grad=grad, **settings)
