"""The large-scale strategies are those of the papers: generations beside a naive transcription with the same noise.

Only the order of the values matters, so the twin ranks its own candidates and the means agree to the precision of the
noise, float32. Populations are also compared row by row, through the kernels and through ``apply``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt.strategies import _cma
from tests.reference import large as twins

Array = NDArray[np.float64]

D = 60
X0 = np.linspace(-1.0, 2.0, D)


def wavy(x: Array) -> Array:
    """Curved differently in every direction, with a wave: no symmetry hides a mistake."""
    return np.square(x - 0.3) @ np.linspace(0.2, 20.0, D) + np.sin(3.0 * x).sum(axis=-1) + 9.0 * x[..., 0] * x[..., 1]


def side_by_side(strategy: Any, twin: Any, generations: int) -> tuple[float, float, float]:
    """Return the largest relative differences of mean, sigma and candidates in a run."""
    es = esopt.Optimizer(strategy, X0, seed=3)
    apart = np.zeros(3)
    for _ in range(generations):
        population = es.population()
        eps = population.noise.rows().astype(np.float64)
        rows, x = twin.sample(eps), es.ask()
        twin.update(eps, wavy(rows))
        es.tell(wavy(x))
        apart[2] = max(apart[2], np.abs(x - rows).max() / np.abs(rows - population.mean).max())
        apart[0] = max(apart[0], np.abs(es.mean - twin.mean).max())
        apart[1] = max(apart[1], abs(es.state.sigma / twin.sigma - 1.0))
    return float(apart[0] / np.abs(twin.mean - X0).max()), float(apart[1]), float(apart[2])


@pytest.mark.parametrize(("n", "m"), [(16, 16), (11, 3), (30, 1)])
def test_lm_ma_es(n: int, m: int) -> None:
    twin = twins.LMMAES(X0, 0.5, n, m)

    assert max(side_by_side(esopt.LMMAES(n=n, m=m), twin, 40)) < 3e-6
    assert max(c * v @ v for c, v in zip(twin.c_d, twin.m, strict=True)) > 0.2


@pytest.mark.parametrize("n", [16, 60])
def test_cr_fm_nes(n: int) -> None:
    strategy = esopt.CRFMNES(n=n, sigma=0.4)
    v = strategy.init(X0, 3).vector
    twin = twins.CRFMNES(X0, 0.4, n, v)

    assert 0.5 < v @ v < 2.0
    assert max(side_by_side(strategy, twin, 40)) < 3e-6
    assert 5 < twin.moved < 40


@pytest.mark.parametrize(("m", "gap"), [(2, 5), (4, 3), (1, 0), (2, None)])
def test_rm_es(m: int, gap: int | None) -> None:
    twin = twins.RMES(X0, 0.5, 16, m, D if gap is None else gap)

    assert max(side_by_side(esopt.RMES(n=16, m=m, gap=gap), twin, 40)) < 3e-6


@pytest.mark.parametrize("n", [16, 31, 200])
def test_dd_cma(n: int) -> None:
    """Every number comes from float64 noise and sums here."""
    twin = twins.DDCMA(X0, 0.5, n)

    assert max(side_by_side(esopt.DDCMA(n=n), twin, 40)) < 1e-9
    assert np.linalg.cond(twin.A) > 1.3


@pytest.mark.parametrize(
    "strategy", [esopt.SepCMA(n=20), esopt.SepCMA(n=21, active=False), esopt.SepCMA(n=16, sampler=esopt.Antithetic())]
)
def test_sep_cma_from_sums_of_the_noise(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large populations are not held: the same update from weighted sums, to the precision of float32."""
    ends = []
    for limit in (_cma._LARGE, 0):
        monkeypatch.setattr(_cma, "_LARGE", limit)
        state = strategy.init(X0, 3)
        for generation in range(40):
            values = wavy(strategy.ask(state).rows())
            values[:generation:9] = np.nan
            state, _ = strategy.tell(state, esopt.Evals(values))
        ends.append(state)

    assert np.abs(ends[0].mean - ends[1].mean).max() < 2e-6
    assert np.abs(ends[0].scale / ends[1].scale - 1.0).max() < 2e-6
    assert np.abs(ends[0].variances / strategy.init(X0, 3).variances - 1.0).max() > 0.25


@pytest.mark.parametrize("strategy", [esopt.LMMAES(n=12), esopt.CRFMNES(n=12), esopt.RMES(n=12)], ids=str)
@pytest.mark.parametrize("sampler", [esopt.Gaussian(), esopt.Antithetic(), esopt.Orthogonal(2)], ids=str)
def test_rows_do_not_depend_on_the_cut(strategy: Any, sampler: Any) -> None:
    """One row, some rows, all of them, threads or none: the same bits; and ``apply`` gives the same numbers."""
    strategy = dataclasses.replace(strategy, sampler=sampler)
    state = strategy.init(X0, 3)
    for _ in range(8):
        state, _ = strategy.tell(state, esopt.Evals(wavy(strategy.ask(state).rows())))
    population = strategy.ask(state)
    rows = population.rows()

    assert np.array_equal(rows, np.concatenate([population.rows(i, i + 1) for i in range(12)]))
    assert np.array_equal(rows[3:10], population.rows(3, 10))
    out = np.empty((12, D), np.float32)
    assert np.array_equal(population.rows(out=out), rows.astype(np.float32))
    applied = population.scale.apply(population.noise.rows().astype(np.float64))
    assert np.abs(rows - population.mean - applied).max() < 2e-6 * np.abs(applied).max()
