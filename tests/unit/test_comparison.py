"""compare_estimators against the variances of theory.md."""

import numpy as np
import pytest

import esopt

D = 20
A = np.linspace(0.5, 1.5, D)


def rows(found):
    return {row.name: row for row in found.rows}


VALUES = {"Score, antithetic", "Score, antithetic in 16 orthogonal directions", "Regression, antithetic"}


def test_variances_are_those_of_theory_on_a_linear_function():
    found = rows(esopt.compare_estimators(lambda x: A @ x, np.zeros(D), grad=lambda x: A, n=8192, seed=2))
    unit = (D + 1) * (A @ A)

    for name, expected in {
        "Score, leave-one-out": unit,  # E4
        "Score, baseline f(x)": unit,  # E3
        "Score, antithetic": 2 * unit,  # E9, two evaluations a pair
        "Score, antithetic in 16 orthogonal directions": 2 * 16 * ((D + 2) / 16 - 1) * (A @ A),  # E15
        "Bonnet": 0.0,  # E19
        "Bonnet, antithetic": 0.0,
    }.items():
        assert found[name].variance == pytest.approx(expected, rel=0.1, abs=1e-20), name


def test_gradients_win_on_a_smooth_function_and_values_on_a_rough_one():
    smooth = esopt.compare_estimators(lambda x: (x**4).sum(), A, grad=lambda x: 4 * x**3, n=256)
    rough = esopt.compare_estimators(
        lambda x: np.sin(50 * x).sum(), A, grad=lambda x: 50 * np.cos(50 * x), sigma=0.5, n=256
    )

    assert smooth.best.name == "Bonnet, antithetic"
    assert rough.best.name.startswith("Score")
    assert "more noise than signal" in rough.advice


def test_regression_is_offered_where_its_rows_suffice():
    def cubic(x):
        return x @ x + x[0] ** 3

    many, few = (rows(esopt.compare_estimators(cubic, A, n=n)) for n in (128, 64))

    assert D == 20
    assert many["Regression, antithetic"].variance < 0.01 * many["Score, antithetic"].variance
    assert "Regression, antithetic" not in few


def test_a_jump_rules_the_gradients_out():
    found = esopt.compare_estimators(lambda x: x @ x + 10.0 * (x[0] > 0), np.zeros(D), grad=lambda x: 2 * x)

    assert found.jump_z > 10
    assert found.rows[0].name.startswith("Bonnet")
    assert found.best.name in VALUES
    assert "miss a jump" in found.advice


def test_values_alone_and_what_it_costs():
    found = esopt.compare_estimators(lambda x: A @ x, np.zeros(D), n=64, grad_cost=5.0)
    with_gradients = rows(esopt.compare_estimators(lambda x: A @ x, np.zeros(D), grad=lambda x: A, n=64, grad_cost=5.0))

    assert {row.cost for row in found.rows} == {64, 65}
    assert np.isnan(found.jump_z)
    assert (with_gradients["Bonnet"].cost, with_gradients["Hybrid, antithetic"].cost) == (320, 64 + 320)


def test_prints_a_table_and_draws(tmp_path):
    found = esopt.compare_estimators(lambda x: float((x**2).sum()), np.ones((4, 5)), n=64)
    found.plot(tmp_path / "bars.png")

    lines = str(found).splitlines()
    assert [line.split("  ")[0] for line in lines[1:-1]] == [row.name for row in found.rows]
    assert lines[-1] == found.advice
    assert (tmp_path / "bars.png").read_bytes()[:4] == b"\x89PNG"
    assert len(found.plot().axes[0].patches) == len(found.rows)


def test_a_factor_leaves_out_what_cannot_use_it():
    factor = 0.1 * (np.eye(D) + 0.2 * np.eye(D, k=-1))
    found = rows(esopt.compare_estimators(lambda x: A @ x, np.zeros(D), sigma=factor, grad=lambda x: A, n=4096))
    local, inverse = A @ factor, np.linalg.inv(factor)
    unit = (local @ local) * np.square(inverse).sum() + A @ A  # of L^-T (a . L eps) eps

    assert {"Bonnet, antithetic", *VALUES - {"Score, antithetic in 16 orthogonal directions"}} <= set(found)
    assert found["Score, antithetic"].variance == pytest.approx(2 * unit, rel=0.15)


def test_an_objective_has_its_own_settings():
    for settings in ({"grad": lambda x: A}, {"args": (1,)}, {"seeded": True}):
        with pytest.raises(TypeError, match="both an Objective and"):
            esopt.compare_estimators(esopt.Objective(lambda x: A @ x), np.zeros(D), **settings)


@pytest.mark.parametrize("settings", [{"n": 48}, {"n": 100}, {"n": 0}, {"grad_cost": 0.0}, {"grad_cost": "2"}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="got"):
        esopt.compare_estimators(lambda x: A @ x, np.zeros(D), **settings)
