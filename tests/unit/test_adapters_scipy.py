"""The faces of scipy and pycma."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

import esopt

Array = NDArray[np.float64]


def bowl(x: Array, at: float = 2.0) -> float:
    return float(((x - at) ** 2).sum())


@pytest.mark.parametrize("name", ["cmaes", "sep_cma", "snes", "bipop", "portfolio"])
def test_a_method_of_scipy(name: str):
    found = optimize.minimize(bowl, [0.0, 0.5], args=(1.5,), method=esopt.scipy_method(name), options={"maxfev": 1500})

    assert isinstance(found, optimize.OptimizeResult)
    converges = name in ("cmaes", "sep_cma")  # the others use up what they were given
    assert (found.success, found.status) == (converges, 0 if converges else 1)
    assert found.nfev <= 1500
    np.testing.assert_allclose(found.x, 1.5, atol=1e-5)
    assert found.fun == bowl(found.x, 1.5)
    assert isinstance(found.esopt, esopt.Result)


@pytest.mark.parametrize("bounds", [[(-1.0, 1.0), (None, 3.0)], optimize.Bounds([-1.0, -np.inf], [1.0, 3.0])])
def test_scipys_bounds(bounds: Any):
    method = esopt.scipy_method(esopt.CMAES())
    found = optimize.minimize(bowl, [0.0, 0.5], method=method, bounds=bounds, options={"maxiter": 150, "seed": 3})

    assert found.nit <= 150
    np.testing.assert_allclose(found.x, [1.0, 2.0], atol=1e-5)


@pytest.mark.parametrize("jac", [True, False])
def test_gradients_go_to_strategies_that_use_them(jac: bool):
    def both(x: Array) -> Any:
        return (bowl(x), 2.0 * (x - 2.0)) if jac else bowl(x)

    method = esopt.scipy_method(esopt.GradientES(estimator=esopt.Bonnet(), rule=esopt.SGD(0.2), n=4))
    found = optimize.minimize(
        both, [0.0, 0.5], jac=jac or (lambda x: 2.0 * (x - 2.0)), method=method, options={"maxiter": 60}
    )

    assert found.njev > 0
    np.testing.assert_allclose(found.esopt.mean, 2.0, atol=0.1)


def test_both_kinds_of_callback():
    seen: list[Any] = []
    method = esopt.scipy_method("cmaes")

    def modern(intermediate_result: Any) -> None:
        seen.append(intermediate_result)
        if len(seen) == 3:
            raise StopIteration

    found = optimize.minimize(bowl, [0.0, 0.5], method=method, callback=modern)
    assert found.nit == 3
    assert [step.nit for step in seen] == [1, 2, 3]
    assert seen[-1].fun >= found.fun
    found = optimize.minimize(bowl, [0.0, 0.5], method=method, callback=lambda x: x.shape == (2,))
    assert found.nit == 1


def test_what_the_method_refuses():
    method = esopt.scipy_method("cmaes")
    with pytest.raises(ValueError, match=r"tol=0\.001 is for scipy_method\('cmaes'\)"):
        optimize.minimize(bowl, [0.0], method=esopt.scipy_method("bipop"), tol=1e-3)
    with pytest.raises(ValueError, match="does not use hess of scipy"):
        optimize.minimize(bowl, [0.0], method=method, hess=bowl)
    with pytest.raises(ValueError, match=r"'cma'.*'cmaes'"):
        esopt.scipy_method("cma")


@pytest.mark.parametrize(
    "constraints",
    [
        {"type": "ineq", "fun": lambda x: 1.0 - x[0]},
        optimize.LinearConstraint([[1.0, 0.0]], -np.inf, 1.0),
        [optimize.NonlinearConstraint(lambda x: x[0], -np.inf, 1.0)],
    ],
)
def test_scipys_constraints(constraints: Any):
    method = esopt.scipy_method("cmaes")
    found = optimize.minimize(bowl, [0.0, 0.5], method=method, constraints=constraints, options={"maxfev": 2000})

    np.testing.assert_allclose(found.x, [1.0, 2.0], atol=1e-3)
    assert found.x[0] <= 1.0


def test_scipys_tolerance():
    method = esopt.scipy_method("cmaes")
    fine, coarse = (optimize.minimize(bowl, [0.0, 0.5], method=method, tol=tol) for tol in (None, 1e-3))

    assert coarse.nfev < 0.6 * fine.nfev
    assert {"tolfun", "tolfunhist", "tolx"} & set(coarse.esopt.reason)
    assert coarse.fun < 1e-2


def test_fmin_is_what_users_of_pycma_expect():
    found = esopt.fmin(bowl, [0.0] * 3, 0.5, {"bounds": [0.0, 1.0], "seed": 3, "verbose": -9, "ftarget": 3.0 + 1e-9})

    np.testing.assert_allclose(found[0], 1.0, atol=1e-8)
    assert found[1] == bowl(found.xbest)
    assert found.stop["target"] == found.fbest
    assert 0 < found.evals_best <= found.evaluations == found.es.result.evaluations
    assert found.iterations == found.es.generation
    assert found.stds.shape == found.xfavorite.shape == (3,)
    assert (found.stds < 0.5).all()


def test_evals_best_is_the_evaluation_of_the_best():
    values: list[float] = []

    def counted(x: Array) -> float:
        values.append(bowl(x))
        return values[-1]

    found = esopt.fmin(counted, [0.0] * 3, 0.5, {"maxfevals": 100, "popsize": 8})

    assert len(values) == found.evaluations == 96
    assert found.evals_best == int(np.argmin(values)) + 1
    assert found.fbest == min(values)


def test_options_of_fmin():
    sep = esopt.fmin(bowl, [0.0] * 3, 0.5, {"CMA_diagonal": True, "CMA_stds": [1.0, 2.0, 3.0], "maxiter": 1})
    assert sep.es.result.strategy == "SepCMA"
    again = esopt.fmin(bowl, [0.0] * 3, 0.5, restarts=2, bipop=True)
    assert again.es.result.strategy == "Restarts"
    assert again.es.state.runs.runs == 2
    soon = esopt.fmin(bowl, [0.0] * 3, 0.5, {"tolx": 1e-2})
    assert soon.stop["tolx"] < 1e-2
    assert esopt.fmin(bowl, [0.0] * 3, 0.5, {"tolfun": 1e-2}).stop["tolfun"] < 1e-2
    with pytest.raises(ValueError, match="unknown options: tolflatfitness"):
        esopt.fmin(bowl, [0.0] * 3, 0.5, {"tolflatfitness": 1})


def test_more_of_fmin():
    seen: list[int] = []
    found = esopt.fmin(
        objective_function=bowl, x0=[0.0] * 3, sigma0=0.5, options={"maxiter": 3, "CMA_diagonal": 0},
        callback=lambda es: seen.append(es.generation),
    )  # fmt: skip
    assert seen == [1, 2, 3]
    assert found.es.result.strategy == "CMAES"
    late = esopt.fmin(bowl, [0.0] * 3, 0.5, {"timeout": 1e-9})
    assert (list(late.stop), late.iterations) == (["timeout"], 1)

    def fails(x: Array) -> float:
        if x[0] > 0.0:
            raise RuntimeError("no")
        return bowl(x)

    assert esopt.fmin(fails, [0.0] * 3, 0.5, {"maxiter": 3}, on_error="nan").es.failures["exception"] > 0


def test_what_fmin_refuses():
    with pytest.raises(ValueError, match="CMA_diagonal=100, but"):
        esopt.fmin(bowl, [0.0] * 3, 0.5, {"CMA_diagonal": 100})
    with pytest.raises(ValueError, match="timeout must be positive"):
        esopt.fmin(bowl, [0.0] * 3, 0.5, {"timeout": 0.0})
    with pytest.raises(TypeError, match=r"fmin\(\) got noise_handler, n_jobs, which it does not have"):
        esopt.fmin(bowl, [0.0] * 3, 0.5, noise_handler=None, n_jobs=4)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cmaes", {"maxfev": 50}, (False, 1)),
        ("cmaes", {"maxiter": 3}, (False, 2)),
        ("portfolio", {"maxfev": 100}, (False, 1)),
        ("portfolio", {"seconds": 1e-9}, (False, 1)),
        ("portfolio", {"maxfev": 500, "target": 1e-6}, (True, 0)),
        ("portfolio", {}, (True, 0)),
    ],
)
def test_a_budget_that_was_used_up_is_no_success(name: str, options: dict[str, Any], expected: tuple[bool, int]):
    x0 = [-1.0] if not options else [-1.0] * 8
    found = optimize.minimize(bowl, x0, method=esopt.scipy_method(name), options=options)
    assert (found.success, found.status) == expected
    assert ("budget" in found.message or "time is up" in found.message) == (expected[0] is False or not options)


def test_disp_goes_to_the_log(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]):
    for disp in (False, True):
        with caplog.at_level("INFO", "esopt"):
            optimize.minimize(
                bowl, [0.0, 0.5], method=esopt.scipy_method("cmaes"), options={"maxiter": 2, "disp": disp}
            )
        assert [record.name for record in caplog.records] == ["esopt.run"] * disp
    assert "generations" in caplog.text
    assert capsys.readouterr().out == ""
