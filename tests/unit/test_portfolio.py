"""Coordinate search, quasi-Newton, multistart, and the portfolio of them with CMA-ES."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt

Array = NDArray[np.float64]
ROTATION, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(5, 5)))


def rastrigin(x: Array) -> float:
    return 10.0 * x.size + float((x * x - 10.0 * np.cos(2.0 * np.pi * x)).sum())


def rosenbrock(x: Array) -> float:
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def ellipsoid(x: Array) -> float:
    return float(10.0 ** (6.0 * np.arange(x.size) / max(1, x.size - 1)) @ (x * x))


def run(strategy: Any, f: Callable[[Array], float], x0: Any, evaluations: int, seed: int = 1) -> tuple[Any, list[Any]]:
    es, infos = esopt.Optimizer(strategy, x0, seed, evaluations=evaluations), []
    while not es.stop():
        infos.append(es.tell([f(x) for x in es.ask()]))
    return es, infos


@pytest.mark.parametrize("dim", [1, 2, 10])
def test_coordinate_search_finds_the_best_of_many_optima(dim: int):
    result = esopt.minimize(
        lambda x: rastrigin(x - 0.3) + 7.0, np.full(dim, 3.0), strategy=esopt.CoordinateSearch(1.0), target=7.0 + 1e-8,
        evaluations=100 * dim,
    )  # fmt: skip
    assert set(result.reason) == {"target"}
    np.testing.assert_allclose(result.x, 0.3, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3, 8])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_coordinate_search_gives_up_after_four_evaluations(dim: int, scale: float):
    def f(x: Array) -> float:
        return scale * (rastrigin(x) + 0.01 * float(x.sum()) ** 2)

    es, _ = run(esopt.CoordinateSearch(), f, np.full(dim, 3.0), 1000)
    assert es.progress.evaluations == 4
    assert set(es.stop()) == {"not additive"}


def test_coordinate_search_goes_where_the_function_falls():
    es, _ = run(esopt.CoordinateSearch(0.1), lambda x: float(((x - 500.0) ** 2).sum()), np.zeros(3), 120)
    np.testing.assert_allclose(es.result.x, 500.0, atol=1e-3)


def test_coordinate_search_is_content_with_rounding_errors_and_large_offsets():
    es, _ = run(esopt.CoordinateSearch(2.0), lambda x: ellipsoid(x - 1.0) - 1e5, np.full(10, 3.0), 500)
    assert not set(es.stop()) & {"not additive"}
    assert es.result.value < -1e5 + 1e-6


def test_a_function_that_is_a_sum_only_at_first_is_left():
    """Agrees around x0, but has a product farther out: the best point of all coordinates gives it away."""

    def f(x: Array) -> float:
        return float(((x - 6.0) ** 2).sum()) + max(0.0, x.min() - 4.0)

    es, _ = run(esopt.CoordinateSearch(), f, np.zeros(3), 1000)
    assert set(es.stop()) == {"not additive"}
    assert es.progress.evaluations < 100


@pytest.mark.parametrize(("f", "dim", "bound"), [(rosenbrock, 5, 450), (ellipsoid, 8, 450), (rosenbrock, 10, 1200)])
def test_quasi_newton_is_fast_where_f_is_smooth(f: Callable[[Array], float], dim: int, bound: int):
    result = esopt.minimize(f, np.full(dim, -1.2), strategy=esopt.QuasiNewton(), target=1e-8, evaluations=bound)
    assert set(result.reason) == {"target"}


def test_quasi_newton_says_why_it_stops():
    bowl, _ = run(esopt.QuasiNewton(), lambda x: float(((x - 2.0) ** 2).sum()) + 1.0, np.zeros(4), 400)
    flat, _ = run(esopt.QuasiNewton(), lambda x: 1.0, np.zeros(4), 400)
    assert [set(es.stop()) for es in (bowl, flat)] == [{"converged"}, {"gradient"}]
    assert bowl.result.value == pytest.approx(1.0, abs=1e-12)


def test_a_failed_point_of_a_line_is_a_step_too_long():
    def barrier(x: Array) -> float:
        return math.nan if x.min() <= 0.0 else float((x - np.log(x)).sum())

    result = esopt.minimize(barrier, np.full(4, 3.0), strategy=esopt.QuasiNewton(20.0), evaluations=300)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-4)
    assert result.failures["nan"] > 0


def test_multistart_begins_elsewhere_and_keeps_the_best():
    def f(x: Array) -> float:
        return float((0.05 * x * x - np.cos(x)).sum())

    es, infos = run(esopt.Multistart(esopt.QuasiNewton(3.0)), f, [9.0, 9.0], 2000)
    ends = [info.choices["restart"] for info in infos if "restart" in info.choices]
    assert len(ends) > 10
    assert any("hopeless" in end for end in ends)
    assert es.result.value == pytest.approx(-2.0, abs=1e-9)
    np.testing.assert_array_equal(es.mean, es.result.x)


def test_multistart_leaves_a_start_without_a_value():
    es, _ = run(esopt.Multistart(), lambda x: math.nan if x[0] > 0.99 else float(x @ x), np.ones(2), 100)
    assert es.state.runs > 0
    assert es.result.value < 1e-9


def contributions(infos: list[Any]) -> dict[str, int]:
    return {name: int(infos[-1].choices[name].split()[0]) for name in ("coordinates", "local", "cma")}


def test_the_portfolio_says_who_asked_and_what_each_found():
    def f(x: Array) -> float:
        return rastrigin(ROTATION @ x)

    es, infos = run(esopt.Portfolio(2.0), f, np.full(5, 3.0), 3000)
    used = contributions(infos)
    assert sum(used.values()) == es.progress.evaluations
    assert used["coordinates"] == 4
    assert 0.1 < used["local"] / es.progress.evaluations < 0.6
    assert {info.choices["arm"] for info in infos} == {"coordinates", "local", "cma"}
    lowest = min(float(infos[-1].choices[name].split()[-1]) for name in used)
    assert lowest == pytest.approx(es.result.value, rel=1e-5)
    np.testing.assert_array_equal(es.mean, es.result.x)


def test_the_portfolio_lets_coordinates_go_on_where_f_is_a_sum():
    es, infos = run(esopt.Portfolio(2.0), rastrigin, np.linspace(2.0, 3.3, 10), 600)
    assert contributions(infos) == {"coordinates": es.progress.evaluations, "local": 0, "cma": 0}
    assert es.result.value < 1e-8


def test_arms_have_seeds_of_their_own():
    state = esopt.Portfolio().init(np.ones(3), 7)
    seeds = [state.coordinates.seed, state.local.seed, state.cma.seed]
    assert len({7, *seeds}) == 4
    assert seeds == [esopt.noise.child(7, index) for index in range(3)]


def test_a_flat_function_and_a_failing_half_space_do_no_harm():
    flat, _ = run(esopt.Portfolio(), lambda x: 3.0, np.ones(3), 2000)
    assert np.isfinite(flat.mean).all()
    half, _ = run(esopt.Portfolio(), lambda x: math.nan if x[0] < 0.5 else rosenbrock(x), np.full(3, 2.0), 4000)
    assert half.result.value < 1e-6


def test_the_portfolio_refuses_a_factor():
    with pytest.raises(ValueError, match="got a factor as sigma"):
        esopt.Portfolio(np.eye(3)).init(np.zeros(3), 0)


def test_the_first_large_run_comes_after_the_first_run():
    state = esopt.Restarts(policy=esopt.Opening(large=3.0)).init(np.zeros(2), 1).runs
    assert esopt.Opening(large=3.0).next(state, (0.5, 0.5)) == esopt.Plan(3.0, 1.0, False, 0)


@pytest.mark.parametrize(("dim", "share"), [(1, 0.3), (2, 0.1), (3, 0.3)])
def test_evaluations_that_fail_now_and_then_do_not_end_the_run(dim: int, share: float) -> None:
    """Generations of one or two candidates fail as a whole often; the arms then try elsewhere."""
    for seed in range(4):
        rng = np.random.default_rng(seed)

        def f(x: np.ndarray, rng: np.random.Generator = rng) -> float:
            return math.nan if rng.random() < share else float(np.square(x - 0.3).sum())

        result = esopt.minimize(f, np.zeros(dim), on_error="nan", evaluations=2000, seed=seed)
        assert result.evaluations > 1900
        assert result.value < 1e-6


def test_an_objective_that_always_fails_ends_soon() -> None:
    with pytest.raises(esopt.EvaluationError, match="failed"):
        esopt.minimize(lambda x: math.nan, np.zeros(4), evaluations=500)

    single = esopt.minimize(lambda x: math.nan, np.zeros(1), evaluations=500)
    assert "failed" in single.reason
    assert single.evaluations < 20
