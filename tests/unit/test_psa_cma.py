"""PSA-CMA-ES: beside a naive transcription, where n grows and where it does not, and its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt import CMAES, PSACMA, SepCMA
from esopt.strategies import psa_cma
from esopt.strategies._cma import white_step
from tests.reference.psa import PSA

Array = NDArray[np.float64]
Function = Callable[[Array], Array]


def sphere(x: Array) -> Array:
    return np.asarray(np.square(x).sum(axis=1))


def ellipsoid(x: Array) -> Array:
    return np.asarray(np.square(x) @ 1e6 ** np.linspace(0.0, 1.0, x.shape[1]))


def rastrigin(x: Array) -> Array:
    return 10.0 * x.shape[1] + (x * x - 10.0 * np.cos(2.0 * np.pi * x)).sum(axis=1)


def schaffer(x: Array) -> Array:
    square = x[:, :-1] ** 2 + x[:, 1:] ** 2
    return (square**0.25 * (np.sin(50.0 * square**0.1) ** 2 + 1.0)).sum(axis=1)


def run(
    strategy: Any, f: Function, x0: Array, seed: int, *, target: float, limit: int = 300_000
) -> tuple[float, Array]:
    """Return the best value of a run and the size of every generation."""
    state, best, sizes = strategy.init(x0, seed), np.inf, []
    while best > target and sum(sizes) < limit and not strategy.stop(state):
        values = f(strategy.ask(state).rows())
        sizes.append(values.size)
        best = min(best, float(values.min()))
        state, _ = strategy.tell(state, esopt.Evals(values))
    return best, np.array(sizes)


def naive(f: Function, x0: Array, sigma: float, seed: int, target: float) -> Array:
    twin, sizes, best = PSA(x0, sigma, seed), [], np.inf
    while best > target:
        sizes.append(twin.n)
        best = twin.generation(f)
    return np.array(sizes)


@pytest.mark.parametrize("f", [sphere, ellipsoid])
@pytest.mark.parametrize("dim", [5, 10])
def test_sizes_are_those_of_the_paper(f: Function, dim: int) -> None:
    """Medians over runs of the typical population and of the evaluations; other noise, so that nothing is equal."""
    x0, ours, twins = np.full(dim, 3.0), [], []
    for seed in range(7):
        sizes = run(PSACMA(CMAES(sigma=2.0, active=False)), f, x0, seed, target=1e-8)[1]
        twin = naive(f, x0, 2.0, seed, 1e-8)
        ours.append((np.median(sizes), sizes.sum()))
        twins.append((np.median(twin), twin.sum()))

    assert np.median(ours, axis=0) == pytest.approx(np.median(twins, axis=0), rel=0.15)


@pytest.mark.parametrize("make", [CMAES, SepCMA])
@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize(("dim", "n"), [(5, 8), (10, 10), (10, 100)])
def test_the_expected_move_is_that_of_random_selection(make: Any, active: bool, dim: int, n: int) -> None:
    strategy, rng, found = make(n=n, active=active), np.random.default_rng(2), []
    state = strategy.init(np.zeros(dim), 1)
    for generation in range(900):
        after, _ = strategy.tell(state, esopt.Evals(rng.standard_normal(n)))
        move, white = psa_cma._change(state, after), white_step(strategy, state, after)
        if generation >= 100:
            found.append(white @ white + 0.5 * np.vdot(move, move))
        state = replace(after, mean=state.mean)

    assert np.mean(found) == pytest.approx(psa_cma.expected(dim, n, active, make is SepCMA), rel=0.12)


@pytest.mark.parametrize("dim", [2, 10])
def test_the_change_is_that_of_the_covariance(dim: int) -> None:
    """Squared lengths are traces of Sigma^-1 Sigma' however the factor is turned."""
    for strategy in (CMAES(sigma=0.7), SepCMA(sigma=0.7)):
        state = strategy.init(np.ones(dim), 3)
        for _ in range(10):
            before = state
            state, _ = strategy.tell(state, esopt.Evals(ellipsoid(strategy.ask(state).rows())))
        old, new = (np.diag(s.cov) if s.cov.ndim == 1 else s.cov for s in (before, state))
        ratio = np.linalg.solve(old, new) - np.eye(dim)
        white = white_step(strategy, before, state)
        step = state.mean - before.mean

        assert np.square(psa_cma._change(before, state)).sum() == pytest.approx(np.trace(ratio @ ratio), rel=1e-6)
        assert white @ white == pytest.approx(step @ np.linalg.solve(old, step), rel=1e-6)


def test_the_best_sigma_on_a_sphere() -> None:
    """Of n normal numbers and one dimension less: c from simulated order statistics."""
    rng, n, dim = np.random.default_rng(1), 12, 10
    weights = np.maximum(0.0, np.log(6.5) - np.log(np.arange(1, n + 1)))
    weights /= weights.sum()
    mass = 1.0 / (weights @ weights)
    c = -float((np.sort(rng.standard_normal((100_000, n)), axis=1) @ weights).mean())

    assert psa_cma.best_sigma(dim, n) == pytest.approx(dim * c * mass / (dim - 1.0 + c * c * mass), rel=0.01)


@pytest.mark.parametrize(
    ("f", "x0", "sigma", "target"),
    [(rastrigin, 3.0, 2.0, 1e-8), (schaffer, 55.0, 45.0, 1e-3)],
    ids=["rastrigin", "schaffer"],
)
def test_it_solves_what_the_default_population_does_not(f: Function, x0: float, sigma: float, target: float) -> None:
    """d = 10, eight starts: none of them with CMAES, five or more with n adapted."""
    solved = np.zeros(2)
    largest = []
    for seed in range(8):
        start = x0 * (1.0 + 0.6 * np.random.default_rng(seed).uniform(-1.0, 1.0, 10))
        for i, strategy in enumerate((CMAES(sigma=sigma), PSACMA(CMAES(sigma=sigma, active=False)))):
            best, sizes = run(strategy, f, start, seed, target=target)
            solved[i] += best <= target
        largest.append(sizes.max())

    assert solved[0] == 0
    assert solved[1] >= 6
    assert min(largest) > 100


def test_noise_of_constant_size_is_overcome() -> None:
    """|mean|^2 under noise of standard deviation 1, ten times smaller than that of CMA-ES; n has grown."""

    def left(strategy: Any, seed: int) -> tuple[float, int]:
        rng, used = np.random.default_rng(seed), 0
        state = strategy.init(np.full(10, 3.0), seed)
        while used < 20_000:
            rows = strategy.ask(state).rows()
            used += len(rows)
            state, _ = strategy.tell(state, esopt.Evals(sphere(rows) + rng.standard_normal(len(rows))))
        return float(state.mean @ state.mean), len(rows)

    adapted = [left(PSACMA(CMAES(sigma=2.0)), seed) for seed in range(3)]
    plain = [left(CMAES(sigma=2.0), seed) for seed in range(3)]

    assert np.median([d for d, _ in adapted]) < 0.1 * np.median([d for d, _ in plain])
    assert min(n for _, n in adapted) > 500


def test_n_stays_small_on_a_slope_and_moderate_on_a_sphere() -> None:
    """The sphere costs up to three times the evaluations of CMA-ES in ten dimensions."""
    state = PSACMA().init(np.zeros(10), 1)
    for _ in range(100):
        state, _ = PSACMA().tell(state, esopt.Evals(PSACMA().ask(state).rows()[:, 0]))
    best, sizes = run(PSACMA(CMAES(sigma=2.0)), sphere, np.full(10, 3.0), 1, target=1e-8)

    assert len(PSACMA().ask(state)) == 10
    assert best <= 1e-8
    assert 20 < np.median(sizes) < 70
    assert sizes.sum() < 3.5 * run(CMAES(sigma=2.0), sphere, np.full(10, 3.0), 1, target=1e-8)[1].sum()


@pytest.mark.parametrize("sampler", [esopt.Gaussian(), esopt.Antithetic(), esopt.Orthogonal(3)], ids=str)
def test_n_stays_in_its_limits_in_whole_blocks(sampler: Any) -> None:
    inner = SepCMA(n=6, sampler=sampler)
    strategy, rng, sizes = PSACMA(inner, n_max=32), np.random.default_rng(1), []
    state = strategy.init(np.zeros(9), 1)
    for generation in range(190):
        rows = strategy.ask(state).rows()
        sizes.append(len(rows))
        values = rows[:, 0] if generation >= 150 else rng.standard_normal(len(rows))
        state, info = strategy.tell(state, esopt.Evals(values))
        assert info.scalars["n"] == len(strategy.ask(state))

    assert min(sizes) == sizes[-1] == 6
    assert max(sizes) in (30, 32)
    assert all(n % sampler.block == 0 for n in sizes)


def test_stagnation_counts_at_the_largest_population_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CMAES, "stop", lambda self, state: {"stagnation": 1.0})
    strategy = PSACMA(n_max=20)
    state = strategy.init(np.zeros(4), 1)

    assert strategy.stop(state) == {}
    assert strategy.stop(replace(state, size=20.0)) == {"stagnation": 1.0}


def test_a_run_goes_on_from_a_checkpoint_with_another_n(tmp_path: Path) -> None:
    es = esopt.Optimizer(PSACMA(CMAES(sigma=2.0)), np.full(6, 3.0), seed=1)
    for _ in range(12):
        es.tell(rastrigin(es.ask()))
    es.save(tmp_path / "run.npz")
    other = esopt.Optimizer(PSACMA(CMAES(sigma=2.0)), np.full(6, 3.0), seed=1)
    other.load(tmp_path / "run.npz")

    assert len(es.ask()) > 12
    np.testing.assert_array_equal(other.ask(), es.ask())
    assert es.state.cov.shape == (6, 6)
    np.testing.assert_allclose(es.state.scale @ es.state.scale.T, es.state.cov)
    assert es.state.sigma == es.state.inner.sigma


def test_constants_of_the_latest_populations_are_kept() -> None:
    """Of every n that a run visits there are weights (n,): not all of them stay in memory."""
    for n in range(2, 600):
        psa_cma.expected(3, n, False, False)
        psa_cma.best_sigma(3, n)

    for cached in (psa_cma.expected, psa_cma.best_sigma, psa_cma.constants):
        assert cached.cache_info().currsize <= 256


@pytest.mark.parametrize(("dim", "seed"), [(2, 1), (3, 3)])
def test_a_covariance_that_becomes_singular_leaves_the_path(dim: int, seed: int) -> None:
    """A constant function, far beyond the generation where "flat" ends a run."""
    strategy = PSACMA(n_max=40)
    state, lost = strategy.init(np.ones(dim), seed), 0
    for _ in range(1500):
        after, _ = strategy.tell(state, esopt.Evals(np.zeros(len(strategy.ask(state)))))
        if np.isnan(psa_cma._change(state.inner, after.inner)).any():
            lost += 1
            assert np.array_equal(after.path_cov, state.path_cov)
            assert np.array_equal(after.path_mean, state.path_mean)
            assert after.known == state.known
        state = after

    assert lost > 0
    assert np.isfinite(state.path_cov).all()
    assert np.isfinite(state.mean).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PSACMA(esopt.LMMAES()), TypeError, "inner must be CMAES or SepCMA"),
        (lambda: PSACMA(CMAES(step_size=esopt.TPA())), TypeError, r"with step_size=CSA\(\), got CMAES"),
        (lambda: PSACMA(CMAES), TypeError, "inner must be CMAES or SepCMA"),
        (lambda: PSACMA(CMAES(n=20), n_max=10), ValueError, "n_max must be a number of at least n, got 10"),
        (lambda: PSACMA(n_max=1.5), ValueError, "n_max must be a number"),
        (lambda: PSACMA(n_max=9).init(np.ones(10), 1), ValueError, "smallest population, 10 in 10 dimensions, got 9"),
    ],
)
def test_messages(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
