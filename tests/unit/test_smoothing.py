"""smoothed_gradient and smoothed_value against closed forms."""

import numba
import numpy as np
import pytest

import esopt

X = np.array([0.4, -0.3, 0.8])
A = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]])


def quadratic(x):
    return 0.5 * x @ A @ x


def z_scores(estimate, stderr, truth):
    return np.abs((np.asarray(estimate) - truth) / np.asarray(stderr))


@pytest.mark.parametrize("sigma", [0.3, np.array([0.1, 0.3, 0.5])])
@pytest.mark.parametrize("baseline", [None, esopt.NoBaseline(), esopt.AtMean()])
def test_values_alone_estimate_mean_scale_and_value(sigma, baseline):
    g = esopt.smoothed_gradient(quadratic, X, sigma=sigma, n=20_000, seed=5, baseline=baseline)
    diagonal = np.diag(A)
    scale = sigma * diagonal.sum() if np.ndim(sigma) == 0 else sigma**2 * diagonal

    assert z_scores(g.mean, g.mean_stderr, A @ X).max() < 4
    assert z_scores(g.scale, g.scale_stderr, scale).max() < 4
    assert z_scores(g.value, g.value_stderr, quadratic(X) + 0.5 * (sigma**2 * diagonal).sum()) < 4
    assert np.linalg.norm(g.mean_stderr) < 0.1 * np.linalg.norm(A @ X)  # so that a factor of two is ten errors off
    assert g.blocks == 10_000


def test_gradients_are_exact_on_a_quadratic_in_pairs():
    g = esopt.smoothed_gradient(quadratic, X, sigma=0.3, n=16, grad=lambda x: A @ x)

    np.testing.assert_allclose(g.mean, A @ X, rtol=1e-13)
    np.testing.assert_allclose(g.mean_stderr, 0.0, atol=1e-15)


def test_a_baseline_asks_for_the_value_side_even_with_a_gradient():
    g = esopt.smoothed_gradient(quadratic, X, sigma=0.3, n=16, grad=lambda x: A @ x, baseline=esopt.LeaveOneOut())

    assert np.linalg.norm(g.mean - A @ X) > 1e-3


def test_every_way_to_call_gives_the_same_bits():
    python = lambda x: x[0] * x[0] + 2.0 * x[1] - x[2]  # noqa: E731
    expected = esopt.smoothed_gradient(python, X, n=64, seed=3)

    for f, settings in (
        (numba.njit(python), {}),
        (lambda x: x[:, 0] * x[:, 0] + 2.0 * x[:, 1] - x[:, 2], {"vectorized": True}),
        (esopt.Objective(python), {}),
        (lambda x: python(x.ravel()), {}),
    ):
        g = esopt.smoothed_gradient(f, X, n=64, seed=3, **settings)
        np.testing.assert_array_equal(g.mean, expected.mean)
        assert (g.scale, g.value_stderr) == (expected.scale, expected.value_stderr)


def test_shaped_x_and_value():
    estimate = esopt.smoothed_value(lambda x: float((x**2).sum()), np.zeros((2, 3)), sigma=0.5, n=10_000, seed=1)

    assert abs(estimate.value - 6 * 0.25) < 4 * estimate.stderr
    assert estimate.stderr < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": np.ones(2)}, "2 entries for x0 of size 3. Pass one positive number"),
        ({"n": 7}, "multiple of 2"),
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n": -2}, "n must be at least 1, got -2"),
        ({"estimator": esopt.Score(), "baseline": esopt.NoBaseline()}, "Set it in the estimator"),
        ({"estimator": esopt.Bonnet()}, "needs gradients"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        esopt.smoothed_gradient(quadratic, X, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 64.0}, "n must be a whole number, got 64.0"),
        ({"n": True}, "n must be a whole number, got True"),
        ({"n": "64"}, "n must be a whole number, got '64'"),
        ({"estimator": esopt.Score}, r"estimator must be an instance, got the class Score. Write Score\(\)"),
        ({"sampler": esopt.Antithetic}, r"sampler must be an instance, got the class Antithetic. Write Antithetic\(\)"),
        (
            {"baseline": esopt.LeaveOneOut},
            r"baseline must be an instance, got the class LeaveOneOut. Write LeaveOneOut",
        ),
        ({"sampler": "antithetic"}, r"sampler must follow esopt.protocols.Sampler, got 'antithetic'"),
    ],
)
def test_other_types_are_refused(settings, message):
    with pytest.raises(TypeError, match=message):
        esopt.smoothed_gradient(quadratic, X, **settings)


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (esopt.smoothed_gradient, {"grad": lambda x: A @ x}),
        (esopt.smoothed_gradient, {"args": (5,)}),
        (esopt.smoothed_value, {"seeded": True}),
        (esopt.smoothed_hessian, {"hess": lambda x: A}),
        (esopt.smoothed_hessian, {"hvp": lambda x, v: A @ v}),
        (esopt.smoothed_hessian, {"grad": lambda x: A @ x}),
    ],
)
def test_an_objective_has_its_own_settings(function, settings):
    with pytest.raises(TypeError, match=f"both an Objective and {next(iter(settings))}. Set them there"):
        function(esopt.Objective(quadratic), X, **settings)


def test_an_objective_takes_the_shape_of_x():
    def f(x):
        assert x.shape == (2, 3)
        return float((x**2).sum())

    objective = esopt.Objective(f, lambda x: 2 * x, hess=lambda x: 2.0 * np.eye(6).reshape(2, 3, 2, 3))
    h = esopt.smoothed_hessian(objective, np.ones((2, 3)))
    g = esopt.smoothed_gradient(objective, np.ones((2, 3)), estimator=esopt.Price())

    np.testing.assert_allclose(h.mean, 2.0 * np.eye(6), atol=1e-12)
    assert g.scale == pytest.approx(0.1 * 12.0)
    with pytest.raises(ValueError, match=r"the Objective has shape \(3, 3\), but x0 has \(2, 3\)"):
        esopt.smoothed_gradient(esopt.Objective(f, shape=(3, 3)), np.ones((2, 3)))


@pytest.mark.parametrize("sampler", [esopt.Rademacher(), esopt.Sphere(), esopt.Antithetic(esopt.Rademacher())])
def test_other_laws_leave_the_scale_out(sampler):
    g = esopt.smoothed_gradient(quadratic, X, sigma=0.3, n=20_000, seed=5, sampler=sampler)

    assert g.scale is None
    assert z_scores(g.mean, g.mean_stderr, A @ X).max() < 4
    assert np.linalg.norm(g.mean_stderr) < 0.1 * np.linalg.norm(A @ X)
