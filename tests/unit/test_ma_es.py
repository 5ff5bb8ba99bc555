"""MA-ES: beside a transcription of the paper, and beside peers' figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from tests.reference import full as twins
from tests.unit.test_large_scale import cigar, discus, ellipsoid, evaluations, sphere

Array = NDArray[np.float64]

D = 9
X0 = np.linspace(-1.0, 2.0, D)


def wavy(x: Array) -> Array:
    """Curved differently in every direction, with a wave: no symmetry hides a mistake."""
    return np.square(x - 0.3) @ np.linspace(1.0, 20.0, D) + np.sin(3.0 * x).sum(axis=-1) + 1.5 * x[..., 0] * x[..., 1]


@pytest.mark.parametrize("n", [8, 11, 50])
def test_the_paper(n: int) -> None:
    es, twin = esopt.Optimizer(esopt.MAES(sigma=0.1, n=n), X0, seed=3), twins.MAES(X0, 0.1, n)
    for _ in range(50):
        eps = es.population().noise.rows().astype(np.float64)
        rows, x = twin.sample(eps), es.ask()
        np.testing.assert_allclose(x, rows, rtol=0.0, atol=1e-9)
        twin.update(eps, wavy(rows))
        es.tell(wavy(x))
        assert es.state.sigma == pytest.approx(twin.sigma, rel=1e-9)
        np.testing.assert_allclose(es.state.factor, twin.M, rtol=0.0, atol=1e-9)

    assert np.linalg.cond(twin.M) > 1.3
    np.testing.assert_allclose(es.state.cov, twin.sigma**2 * twin.M @ twin.M.T, rtol=1e-8, atol=1e-12)


# f, evaluations: medians of three runs of MAES of pypop7 0.0.82 with sigma = 0.5, in ten dimensions.
FIGURES = [(sphere, 1308), (cigar, 3635), (ellipsoid, 5424), (discus, 5526)]


@pytest.mark.parametrize(("f", "expected"), FIGURES)
def test_evaluations_are_those_of_a_peer(f: Callable[[Array], Array], expected: int) -> None:
    found = np.median([evaluations(esopt.MAES(), f, 10, seed) for seed in (1, 2, 3)])

    assert abs(found / expected - 1.0) < 0.12


def test_it_stops_and_restarts() -> None:
    strategy = esopt.Restarts(esopt.MAES(), esopt.IPOP(), limit=1)
    result = esopt.minimize(lambda x: float(ellipsoid(x)) + 1.0, np.ones(4), strategy=strategy, evaluations=30_000)

    assert set(result.reason) <= {"tolfun", "tolfunhist"}
    assert result.value == pytest.approx(1.0, abs=1e-10)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="n must be at least 2"):
        esopt.MAES(n=1)
