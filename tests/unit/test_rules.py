"""Rules against their papers' formulas, written out here over ten steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import esopt
from esopt.protocols import Rule

STEPS, DIM = 10, 7
GRADIENTS = np.random.default_rng(5).standard_normal((STEPS, DIM)) * np.logspace(-3, 3, DIM)
DECAY = esopt.ExponentialDecay(0.1, 0.9)


def steps_of(rule: Rule, gradients: Any = GRADIENTS) -> np.ndarray[Any, Any]:
    state, out = rule.init(gradients.shape[1]), []
    for gradient in gradients:
        step, state = rule.step(gradient.copy(), state)
        out.append(step)
    return np.array(out)


@pytest.mark.parametrize("lr", [0.1, DECAY])
def test_sgd(lr: Any):
    rates = [0.1 * 0.9**t if callable(lr) else 0.1 for t in range(STEPS)]

    np.testing.assert_allclose(steps_of(esopt.SGD(lr)), -np.array(rates)[:, None] * GRADIENTS, rtol=1e-14)


@pytest.mark.parametrize("lr", [0.1, DECAY])
def test_momentum_is_the_weighted_sum_of_all_gradients(lr: Any):
    rates = [0.1 * 0.9**t if callable(lr) else 0.1 for t in range(STEPS)]
    expected = [-sum(0.8 ** (t - s) * rates[s] * GRADIENTS[s] for s in range(t + 1)) for t in range(STEPS)]

    np.testing.assert_allclose(steps_of(esopt.Momentum(lr, beta=0.8)), expected, rtol=1e-12)


@pytest.mark.parametrize(("beta1", "beta2", "epsilon"), [(0.9, 0.999, 1e-8), (0.0, 0.5, 1e-3), (0.5, 0.0, 1.0)])
def test_adam_is_algorithm_1_with_explicit_bias_correction(beta1: float, beta2: float, epsilon: float):
    m, v, expected = np.zeros(DIM), np.zeros(DIM), []
    for t, g in enumerate(GRADIENTS, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        expected.append(-0.05 * m_hat / (np.sqrt(v_hat) + epsilon))

    np.testing.assert_allclose(steps_of(esopt.Adam(0.05, beta1, beta2, epsilon)), expected, rtol=1e-12)


def test_adam_starts_with_steps_of_length_lr_whatever_the_scale():
    step = steps_of(esopt.Adam(0.05), np.array([[1e6, -3.0, 1e-3]]))[0]

    np.testing.assert_allclose(step, [-0.05, 0.05, -0.05], rtol=1e-4)


def test_adam_follows_a_schedule():
    fixed, decaying = steps_of(esopt.Adam(1.0)), steps_of(esopt.Adam(DECAY))

    np.testing.assert_allclose(decaying, fixed * (0.1 * 0.9 ** np.arange(STEPS))[:, None], rtol=1e-12)


@pytest.mark.parametrize(("lr", "momentum"), [(None, 0.9), (0.2, 0.5), (0.01, 0.0)])
def test_clipup_is_algorithm_2(lr: float | None, momentum: float):
    velocity, expected, clipped = np.zeros(DIM), [], 0
    for g in GRADIENTS:
        velocity = momentum * velocity - (0.15 / 2 if lr is None else lr) * g / np.linalg.norm(g)
        if np.linalg.norm(velocity) > 0.15:
            velocity = velocity * 0.15 / np.linalg.norm(velocity)
            clipped += 1
        expected.append(velocity)

    np.testing.assert_allclose(steps_of(esopt.ClipUp(0.15, lr, momentum)), expected, rtol=1e-12)
    assert (lr == 0.01) == (clipped == 0)


@given(st.integers(-1020, 1000))
def test_clipup_does_not_see_the_scale_of_the_gradient(power: int):
    gradients = np.random.default_rng(1).standard_normal((3, 4))
    scaled = np.ldexp(gradients, power)

    np.testing.assert_allclose(steps_of(esopt.ClipUp(), scaled), steps_of(esopt.ClipUp(), gradients), rtol=1e-12)


def test_clipup_bits_do_not_depend_on_the_threads_of_blas():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    gradient = np.random.default_rng(2).standard_normal((1, 100_003))
    found = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            found.append(steps_of(esopt.ClipUp(), gradient).tobytes())

    assert found[0] == found[1]


def test_clipped_limits_each_coordinate_of_the_inner_rule():
    inner = steps_of(esopt.Momentum(0.1))
    expected = np.where(np.abs(inner) > 0.02, np.sign(inner) * 0.02, inner)

    np.testing.assert_array_equal(steps_of(esopt.Clipped(esopt.Momentum(0.1), 0.02)), expected)
    assert 0 < np.count_nonzero(np.abs(inner) > 0.02) < inner.size


@pytest.mark.parametrize("lr", [None, 0.3])
def test_exponential_multiplies_sigma_by_the_exponential(lr: float | None):
    gradients = GRADIENTS[:, 2:5]
    rate = (3 + math.log(3)) / (5 * math.sqrt(3)) if lr is None else lr
    sigma = np.prod(1.0 + steps_of(esopt.Exponential(lr), gradients), axis=0)

    np.testing.assert_allclose(sigma, np.exp(-0.5 * rate * gradients.sum(axis=0)), rtol=1e-12)


def test_exponential_keeps_the_digits_of_small_steps():
    step = steps_of(esopt.Exponential(1.0), np.array([[1e-12, -2e-12]]))[0]

    np.testing.assert_allclose(step, [-5e-13, 1e-12], rtol=1e-11)


RULES = [
    esopt.SGD(0.1),
    esopt.Momentum(0.1),
    esopt.Adam(0.1),
    esopt.ClipUp(),
    esopt.Clipped(esopt.Adam(0.1), 0.05),
    esopt.Exponential(),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rules_leave_their_arguments_alone(rule: Rule):
    gradient, state = GRADIENTS[0].copy(), rule.init(DIM)
    _, state = rule.step(gradient, state)
    first, _ = rule.step(GRADIENTS[1], state)
    again, _ = rule.step(GRADIENTS[1], state)

    np.testing.assert_array_equal(gradient, GRADIENTS[0])
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: esopt.SGD(0.0), "lr must be a positive number"),
        (lambda: esopt.SGD("0.1"), "lr must be a positive number"),
        (lambda: esopt.SGD(True), "lr must be a positive number"),
        (lambda: esopt.Adam(-0.1), "lr must be a positive number"),
        (lambda: esopt.Adam(math.nan), "lr must be a positive number"),
        (lambda: esopt.Adam(beta1=1.0), r"beta1 must be in \[0, 1\), got 1.0"),
        (lambda: esopt.Adam(beta2="0.9"), r"beta2 must be in \[0, 1\), got '0.9'"),
        (lambda: esopt.Adam(epsilon=0.0), "epsilon must be a positive number"),
        (lambda: esopt.Adam(epsilon=lambda g: 1.0), "epsilon must be a positive number"),
        (lambda: esopt.Momentum(beta=-0.1), r"beta must be in \[0, 1\), got -0.1"),
        (lambda: esopt.ClipUp(momentum=1.5), r"momentum must be in \[0, 1\), got 1.5"),
        (lambda: esopt.ClipUp(max_speed=0.0), "max_speed must be a positive number"),
        (lambda: esopt.ClipUp(lr=-1.0), "lr must be a positive number"),
        (lambda: esopt.Clipped(esopt.SGD(), 0.0), "limit must be a positive number"),
        (lambda: esopt.Clipped(esopt.SGD(), None), "limit must be a positive number"),
        (lambda: esopt.Exponential(math.inf), "lr must be a positive number"),
    ],
)
def test_bad_settings_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("rule", [esopt.SGD, 0.1, None])
def test_clipped_wants_an_instance(rule: object):
    with pytest.raises(TypeError, match=r"Clipped\(\) got the rule .* Pass an instance"):
        esopt.Clipped(rule, 0.1)
