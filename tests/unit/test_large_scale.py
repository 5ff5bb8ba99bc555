"""Large-scale strategies at small sizes: evaluations to a target beside peers' figures, rotations, memory, settings."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt

Array = NDArray[np.float64]


def sphere(x: Array) -> Array:
    return np.asarray(np.square(x).sum(axis=-1))


def ellipsoid(x: Array) -> Array:
    return np.asarray(np.square(x) @ 1e6 ** np.linspace(0.0, 1.0, x.shape[-1]))


def cigar(x: Array) -> Array:
    return np.asarray(x[..., 0] ** 2 + 1e6 * np.square(x[..., 1:]).sum(axis=-1))


def discus(x: Array) -> Array:
    return np.asarray(1e6 * x[..., 0] ** 2 + np.square(x[..., 1:]).sum(axis=-1))


def evaluations(strategy: Any, f: Callable[[Array], Array], dim: int, seed: int, limit: int = 30_000) -> float:
    """Evaluations to 1e-8 from (1, ..., 1)."""
    es, best = esopt.Optimizer(strategy, np.ones(dim), seed=seed), np.inf
    while best > 1e-8:
        values = f(es.ask())
        es.tell(values)
        best = min(best, float(values.min()))
        if es.result.evaluations > limit:
            return np.inf
    return float(es.result.evaluations)


# Medians of runs of pypop7 0.0.82 (Rm-ES, dd-CMA) and crfmnes 1.0.0 with sigma = 0.5. The latter keeps its rank-one
# term and lets sigma shrink in all phases, which the paper does not.
FIGURES = [
    (esopt.RMES(), sphere, 40, 3869),
    (esopt.RMES(), cigar, 40, 13367),
    (esopt.CRFMNES(), sphere, 40, 3232),
    (esopt.CRFMNES(), ellipsoid, 40, 7504),
    (esopt.CRFMNES(), cigar, 40, 7072),
    (esopt.CRFMNES(), discus, 40, 4528),
    (esopt.DDCMA(), sphere, 20, 2381),
    (esopt.DDCMA(), ellipsoid, 20, 4261),
    (esopt.DDCMA(), cigar, 20, 4491),
    (esopt.DDCMA(), discus, 20, 3366),
]


@pytest.mark.parametrize(("strategy", "f", "dim", "expected"), FIGURES)
def test_evaluations_are_those_of_peers(strategy: Any, f: Callable[[Array], Array], dim: int, expected: int) -> None:
    found = np.median([evaluations(strategy, f, dim, seed) for seed in (1, 2, 3)])

    assert abs(found / expected - 1.0) < 0.15


def test_lm_ma_es_on_a_sphere() -> None:
    """pypop7's takes 11,660 evaluations."""
    assert abs(evaluations(esopt.LMMAES(), sphere, 128, 1) / 11_660.0 - 1.0) < 0.1


@pytest.mark.parametrize("strategy", [esopt.LMMAES(n=16), esopt.RMES(n=16)])
def test_rotations(strategy: Any) -> None:
    """With the noise turned like f, every mean turns with it: what is learned has no axes of its own."""
    dim = 24
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))
    means = []
    for rotation in (np.eye(dim), turn):
        eps = np.random.default_rng(1).normal(size=(12, 16, dim)) @ rotation.T
        state = strategy.init(rotation @ np.ones(dim), 1)
        for rows in eps:
            told = _turned(strategy, rows)
            values = cigar(told.ask(state).rows() @ rotation)
            state, _ = told.tell(state, esopt.Evals(values))
        means.append(state.mean @ rotation)

    assert np.abs(means[0] - 1.0).max() > 0.3
    assert np.abs(means[0] - means[1]).max() < 1e-5


def test_cr_fm_nes_that_diverged_is_no_error() -> None:
    """Its v may become an axis, whose gradient has a singular matrix: on a cigar turned in 100 dimensions, say."""
    strategy = esopt.CRFMNES(n=10)
    state = strategy.init(np.ones(20), 1)
    state = replace(state, vector=1e10 * np.eye(20)[0] + 1e-3)
    after, _ = strategy.tell(state, esopt.Evals(sphere(strategy.ask(state).rows())))

    assert after.generation == 1


def _turned(strategy: Any, rows: Array) -> Any:
    return replace(strategy, sampler=esopt.Replay(rows))


@pytest.mark.parametrize("strategy", [esopt.LMMAES(n=64), esopt.RMES(n=64), esopt.CRFMNES(n=64), esopt.SepCMA(n=64)])
def test_tell_holds_no_population(strategy: Any) -> None:
    dim = 20_000
    state = strategy.init(np.ones(dim), 1)
    values = np.random.default_rng(0).normal(size=64)
    state, _ = strategy.tell(state, esopt.Evals(values))
    vectors = getattr(state, "vectors", np.empty(0)).nbytes
    tracemalloc.start()
    try:
        strategy.tell(state, esopt.Evals(values))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2 * vectors + 40 * 8 * dim < 64 * 8 * dim + 2 * vectors


def test_the_transform_is_picklable() -> None:
    strategy = esopt.LMMAES(n=8)
    state = strategy.init(np.ones(30), 1)
    for _ in range(5):
        state, _ = strategy.tell(state, esopt.Evals(sphere(strategy.ask(state).rows())))
    population = strategy.ask(state)

    assert np.array_equal(pickle.loads(pickle.dumps(population)).rows(), population.rows())


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from esopt._kernels import threads

    strategy = esopt.LMMAES(n=40, sampler=esopt.Antithetic())
    state = strategy.init(np.ones(3000), 1)
    for _ in range(5):
        state, _ = strategy.tell(state, esopt.Evals(sphere(strategy.ask(state).rows())))
    found = []
    for wanted in (True, False):
        monkeypatch.setattr(threads, "parallel", lambda work, wanted=wanted: wanted)
        found.append(strategy.ask(state).rows(3, 38))

    assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: esopt.LMMAES(m=0), "m must be a positive number of vectors, got 0"),
        (lambda: esopt.RMES(m=0), "m must be a positive number of paths, got 0"),
        (lambda: esopt.RMES(gap=-1), "gap must be a number of generations, got -1"),
        (lambda: esopt.CRFMNES(n=7), "multiple of 2 with the sampler Antithetic"),
        (lambda: esopt.LMMAES(sigma=np.eye(3)).init(np.ones(3), 0), "LMMAES.. got a factor as sigma"),
        (lambda: esopt.RMES(sigma=np.eye(3)).init(np.ones(3), 0), "RMES.. got a factor as sigma"),
        (lambda: esopt.CRFMNES(sigma=np.eye(3)).init(np.ones(3), 0), "CRFMNES.. got a factor as sigma"),
        (lambda: esopt.DDCMA(sigma=np.eye(3)).init(np.ones(3), 0), "DDCMA.. got a factor as sigma"),
    ],
)
def test_bad_settings(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("strategy", [esopt.LMMAES, esopt.RMES, esopt.CRFMNES, esopt.DDCMA])
def test_one_sigma_per_coordinate(strategy: Any) -> None:
    """The first population has the deviations that were asked for, but for the random v of CR-FM-NES."""
    sigma = np.array([0.1, 1.0, 10.0] * 20)
    es = strategy(sigma=sigma, n=2000)
    rows = es.ask(es.init(np.zeros(60), 1)).rows()
    wanted = sigma * np.sqrt(1.0 + es.init(np.zeros(60), 1).vector ** 2) if strategy is esopt.CRFMNES else sigma
    if strategy is esopt.RMES:
        wanted = sigma * (1.0 - 1.0 / (3.0 * np.sqrt(60.0) + 5.0))

    assert np.abs(rows.std(axis=0) / wanted - 1.0).max() < 0.08


@pytest.mark.parametrize(
    "make",
    [esopt.VkDCMA, esopt.CRFMNES, esopt.DXNESIC, esopt.LRACMAES, esopt.DDCMA, esopt.SepCMA, esopt.LMMAES, esopt.RMES],
)
def test_stop_rules_of_sigma_compare_with_the_largest_deviation(make: Any) -> None:
    """One coordinate in units a million times larger: its deviation did not grow, and the run goes on."""
    units = np.where(np.arange(12) < 11, 1e-3, 1e3)
    es = esopt.Optimizer(make(sigma=0.3 * units), 2.0 * units, seed=4)
    for _ in range(30):
        es.tell(ellipsoid(es.ask() / units))
        assert es.stop() == {}
