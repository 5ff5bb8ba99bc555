"""The strategies that are there to be beaten: random search, SPSA, finite differences with Adam."""

from __future__ import annotations

import numpy as np
import pytest

import esopt

D = 6
X0 = np.linspace(-1.0, 2.0, D)


def bent(x: np.ndarray) -> np.ndarray:
    return np.square(x - 0.3) @ np.linspace(0.2, 2.0, D) + np.sin(x).sum(axis=-1)


def slope(x: np.ndarray) -> np.ndarray:
    return 2.0 * (x - 0.3) * np.linspace(0.2, 2.0, D) + np.cos(x)


def test_spsa_is_that_of_the_paper() -> None:
    """Spall (1998), section III, with a = lr (A + 1)^0.602: twenty steps."""
    lr, c, stability = 0.03, 0.2, 50.0
    es, x = esopt.Optimizer(esopt.spsa(lr=lr, sigma=c, offset=stability), X0, seed=2), X0.copy()
    a = lr * (stability + 1.0) ** 0.602
    for k in range(20):
        delta = es.population().noise.rows().astype(np.float64)[0]
        assert set(np.abs(delta)) == {1.0}
        es.tell(bent(es.ask()))
        c_k = c / (k + 1) ** 0.101
        x = x - a / (stability + k + 1) ** 0.602 * (bent(x + c_k * delta) - bent(x - c_k * delta)) / (2 * c_k) / delta
        np.testing.assert_allclose(es.mean, x, rtol=1e-9)


def test_finite_differences_are_the_gradient() -> None:
    """Up to h^2 / 6 f''', here with |f'''| <= 1 and h = 1e-4, and rounding; then Adam as on exact gradients."""
    es, exact = (
        esopt.Optimizer(strategy, X0, seed=seed)
        for seed, strategy in (
            (1, esopt.finite_differences(D, lr=0.1)),
            (2, esopt.GradientES(sigma=1e-9, n=2, estimator=esopt.Bonnet(), rule=esopt.Adam(0.1))),
        )
    )
    for _ in range(10):
        here = es.mean
        info = es.tell(bent(es.ask()))
        np.testing.assert_allclose(info.gradient.mean, slope(here), atol=1e-8)
        rows = exact.ask()
        exact.tell(bent(rows), slope(rows))
    np.testing.assert_allclose(es.mean, exact.mean, atol=1e-6)
    with pytest.raises(ValueError, match="size of x0"):
        esopt.finite_differences(0)


def test_random_search_keeps_the_best_and_learns_nothing() -> None:
    es = esopt.Optimizer(esopt.RandomSearch(sigma=0.5, n=50), X0, seed=3)
    rows, values = [], []
    for _ in range(40):
        rows.append(es.ask())
        values.append(bent(rows[-1]))
        es.tell(values[-1])
    everything = np.concatenate(rows)

    np.testing.assert_array_equal(es.mean, everything[np.concatenate(values).argmin()])
    np.testing.assert_allclose(everything.mean(axis=0), X0, atol=4 * 0.5 / np.sqrt(2000))
    np.testing.assert_allclose(everything.std(axis=0), 0.5, rtol=4 / np.sqrt(4000))


def test_power_decay() -> None:
    decay = esopt.PowerDecay(0.5, 0.602, 9.0)
    assert decay(0) == 0.5
    assert decay(90) == pytest.approx(0.5 * 0.1**0.602)
    with pytest.raises(ValueError, match="power"):
        esopt.PowerDecay(0.5, -1.0)
