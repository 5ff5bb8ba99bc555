"""Constraints: known optima and multipliers, invariances, and the words for what cannot be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, NonlinearConstraint

import esopt
from esopt._constrained import as_constraints
from esopt._lagrangian import Terms, adapt, begin, penalty, violations
from esopt.records import Evals


def sphere(x):
    return 0.5 * float(x @ x)


def run(f, x0, seed=1, **settings):
    return esopt.minimize(f, x0, seed=seed, **settings)


def convergence(dim, constraints, optimum, seed, evaluations=6000):
    """Return the evaluations until |mean - optimum| was below 1e-3 and below 1e-6, and the state then."""
    es = esopt.Optimizer(esopt.AugmentedLagrangian(esopt.CMAES(sigma=1.0)), np.full(dim, 3.0), seed)
    reached = []
    for level in (1e-3, 1e-6):
        while np.linalg.norm(es.mean - optimum) > level:
            assert es.progress.evaluations < evaluations
            rows = es.ask()
            es.tell(0.5 * (rows**2).sum(axis=1), constraints=constraints(rows))
        reached.append(es.progress.evaluations)
    return (*reached, es.state)


def free(dim, seed):
    """Return the evaluations that the sphere takes without constraints, between the same two levels."""
    es = esopt.Optimizer(esopt.CMAES(sigma=1.0), np.full(dim, 3.0), seed)
    reached = []
    for level in (1e-3, 1e-6):
        while np.linalg.norm(es.mean) > level:
            es.tell(0.5 * (es.ask() ** 2).sum(axis=1))
        reached.append(es.progress.evaluations)
    return reached[1] - reached[0]


class TestKnownMultipliers:
    @pytest.mark.parametrize("dim", [2, 5, 10])
    def test_one_linear_constraint_is_as_fast_as_none(self, dim):
        # |x|^2 / 2 with 3 - x_0 - 2 x_1 <= 0: x = (0.6, 1.2, 0 ...), and the multiplier is 0.6.
        optimum = np.zeros(dim)
        optimum[:2] = 0.6, 1.2
        spent, without = [], []
        for seed in range(5):
            start, end, state = convergence(dim, lambda x: 3.0 - x[:, 0] - 2.0 * x[:, 1], optimum, seed)
            spent.append(end - start)
            without.append(free(dim, seed))
            assert state.multipliers == pytest.approx([0.6], abs=1e-3)  # where |mean - optimum| = 1e-6
        assert np.median(spent) < 1.6 * np.median(without)  # linear convergence, at nearly the same rate

    @pytest.mark.parametrize(("dim", "m", "within"), [(5, 3, 2e-4), (10, 5, 5e-3), (5, 5, 5e-2)])
    def test_several_active_ones(self, dim, m, within):
        # x_j >= (j + 1) / m for j < m: the multipliers are the x_j themselves.
        bound = np.arange(1.0, m + 1.0) / m
        strategy = esopt.AugmentedLagrangian(esopt.CMAES(sigma=1.0))
        result = run(
            sphere, np.full(dim, 3.0), strategy=strategy, constraints=lambda x: bound - x[:m], evaluations=6000
        )
        assert result.x == pytest.approx([*bound, *[0.0] * (dim - m)], abs=1e-6)
        assert result.multipliers == pytest.approx(bound, abs=within)

    def test_result_has_the_multipliers_of_its_point(self):
        result = run(sphere, [2.0, 2.0, 2.0], constraints=lambda x: 3.0 - x[0] - 2.0 * x[1], evaluations=3000)
        assert result.feasible
        assert result.violation == 0.0
        assert result.success
        assert result.value == pytest.approx(0.9, abs=1e-6)
        assert result.multipliers == pytest.approx([0.6], abs=1e-4)
        assert result.strategy == "AugmentedLagrangian(Restarts)"

    def test_equality_on_the_sphere(self):
        # a.x with |x|^2 = 1: x = -a / |a|, and the multiplier is |a| / 2.
        a = np.array([1.0, 2.0, -2.0])
        result = run(lambda x: float(a @ x), [1.0, 1.0, 1.0], equalities=lambda x: x @ x - 1.0, evaluations=4000)
        assert result.feasible
        assert result.x == pytest.approx(-a / 3.0, abs=1e-5)
        assert result.multipliers == pytest.approx([1.5], abs=1e-3)

    def test_negative_multiplier_of_an_equality(self):
        result = run(sphere, [2.0, 2.0], equalities=lambda x: x[0] - 1.0, evaluations=2000)
        assert result.multipliers == pytest.approx([-1.0], abs=1e-3)

    def test_both_kinds(self):
        result = run(
            sphere,
            [2.0, 2.0, 2.0],
            constraints=lambda x: np.array([1.0 - x[0], x[1] - 9.0]),
            equalities=lambda x: x[1] - 2.0,
            evaluations=4000,
        )
        assert result.x == pytest.approx([1.0, 2.0, 0.0], abs=1e-4)
        assert result.multipliers == pytest.approx([1.0, 0.0, -2.0], abs=1e-2)


def g24(x):
    return np.array([x[1] - x[0] / 3**0.5, x[0] + 3**0.5 * x[1] - 6.0, -x[0] - 3**0.5 * x[1], -x[0], -x[1]])


def f43(x):
    a, b, c, d = x
    return a * a + b * b + 2.0 * c * c + d * d - 5.0 * a - 5.0 * b - 21.0 * c + 7.0 * d


def g43(x):
    a, b, c, d = x
    return np.array(
        [
            a * a + b * b + c * c + d * d + a - b + c - d - 8.0,
            a * a + 2.0 * b * b + c * c + 2.0 * d * d - a - d - 10.0,
            2.0 * a * a + b * b + c * c + 2.0 * a - b - d - 5.0,
        ]
    )


def f09(x):
    return float(
        (x[0] - 10.0) ** 2
        + 5.0 * (x[1] - 12.0) ** 2
        + x[2] ** 4
        + 3.0 * (x[3] - 11.0) ** 2
        + 10.0 * x[4] ** 6
        + 7.0 * x[5] ** 2
        + x[6] ** 4
        - 4.0 * x[5] * x[6]
        - 10.0 * x[5]
        - 8.0 * x[6]
    )


def g09(x):
    return np.array(
        [
            2.0 * x[0] ** 2 + 3.0 * x[1] ** 4 + x[2] + 4.0 * x[3] ** 2 + 5.0 * x[4] - 127.0,
            7.0 * x[0] + 3.0 * x[1] + 10.0 * x[2] ** 2 + x[3] - x[4] - 282.0,
            23.0 * x[0] + x[1] ** 2 + 6.0 * x[5] ** 2 - 8.0 * x[6] - 196.0,
            4.0 * x[0] ** 2 + x[1] ** 2 - 3.0 * x[0] * x[1] + 2.0 * x[2] ** 2 + 5.0 * x[5] - 11.0 * x[6],
        ]
    )


class TestPublishedOptima:
    """Hock and Schittkowski (1981), and G06, G08, G09, G11 of Koziel and Michalewicz (1999)."""

    def check(self, f, x0, optimum, within, evaluations, sigma=1.0, **limits):
        result = run(f, x0, strategy=esopt.Restarts(esopt.CMAES(sigma=sigma)), evaluations=evaluations, **limits)
        assert result.feasible
        assert -1e-5 * max(1.0, abs(optimum)) < result.value - optimum < within

    def test_hs24(self):
        def f(x):
            return ((x[0] - 3.0) ** 2 - 9.0) * x[1] ** 3 / (27.0 * 3**0.5)

        self.check(f, [1.0, 0.5], -1.0, 1e-5, 2000, constraints=g24)

    def test_hs26(self):
        def f(x):
            return (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 4

        def h(x):
            return (1.0 + x[1] ** 2) * x[0] + x[2] ** 4 - 3.0

        self.check(f, [-2.6, 2.0, 2.0], 0.0, 1e-5, 6000, equalities=h)

    def test_hs43(self):
        self.check(f43, np.zeros(4), -44.0, 1e-5, 4000, constraints=g43)

    def test_g06(self):
        def f(x):
            return (x[0] - 10.0) ** 3 + (x[1] - 20.0) ** 3

        def g(x):
            a, b = (x[0] - 5.0) ** 2 + (x[1] - 5.0) ** 2, (x[0] - 6.0) ** 2 + (x[1] - 5.0) ** 2
            return np.array([100.0 - a, b - 82.81])

        self.check(f, [14.5, 1.5], -6961.81388, 1e-2, 6000, constraints=g)

    def test_g08(self):
        def f(x):
            return -(math.sin(2 * math.pi * x[0]) ** 3) * math.sin(2 * math.pi * x[1]) / (x[0] ** 3 * (x[0] + x[1]))

        def g(x):
            return np.array([x[0] ** 2 - x[1] + 1.0, 1.0 - x[0] + (x[1] - 4.0) ** 2])

        self.check(f, [1.2, 4.2], -0.095825, 1e-6, 2000, sigma=0.1, constraints=g, bounds=(0.1, 10.0))

    def test_g09(self):
        self.check(f09, np.ones(7), 680.6300573, 1e-4, 8000, constraints=g09)

    def test_g11(self):
        def f(x):
            return x[0] ** 2 + (x[1] - 1.0) ** 2

        self.check(f, [0.5, 0.5], 0.75, 1e-5, 2000, equalities=lambda x: x[1] - x[0] ** 2)


class TestInvariance:
    def means(self, strategy, f_by=1.0, g_by=1.0, generations=60):
        es = esopt.Optimizer(esopt.AugmentedLagrangian(strategy), [3.0, 3.0, 3.0], 1)
        found = []
        for _ in range(generations):
            rows = es.ask()
            es.tell(f_by * (rows**2).sum(axis=1), constraints=np.array(g_by) * (1.0 - rows[:, :2]))
            found.append(es.mean)
        return np.array(found)

    def test_units_of_f_and_of_each_constraint_change_no_bit(self):
        base = self.means(esopt.CMAES())
        assert np.array_equal(self.means(esopt.CMAES(), 2.0**-7, [2.0**9, 2.0**-5]), base)
        assert not np.array_equal(self.means(esopt.CMAES(), 1.0, [-1.0, 1.0]), base)

    def test_constraints_that_are_never_violated_change_no_bit(self):
        es = esopt.Optimizer(esopt.AugmentedLagrangian(esopt.CMAES()), [3.0, 3.0], 1)
        free = esopt.Optimizer(esopt.CMAES(), [3.0, 3.0], 1)
        for _ in range(80):
            rows = es.ask()
            es.tell((rows**2).sum(axis=1), constraints=rows - 100.0)
            free.tell((free.ask() ** 2).sum(axis=1))
        assert np.array_equal(es.mean, free.mean)
        assert np.array_equal(es.result.multipliers, [0.0, 0.0])

    @pytest.mark.parametrize("inner", [esopt.SepCMA(), esopt.snes(), esopt.xnes(), esopt.Restarts(esopt.CMAES())])
    def test_other_strategies(self, inner):
        result = run(sphere, [2.0, 2.0, 2.0], strategy=inner, constraints=lambda x: 1.0 - x[:2], evaluations=4000)
        assert result.feasible
        assert result.x == pytest.approx([1.0, 1.0, 0.0], abs=1e-2)


@dataclass(frozen=True)
class Brief:
    """A strategy that stops after five generations."""

    n: int = 6
    sigma: float = 0.5

    def init(self, x0, seed):
        return esopt.CMAES(self.sigma, self.n).init(x0, seed)

    def ask(self, state):
        return esopt.CMAES(self.sigma, self.n).ask(state)

    def tell(self, state, evals):
        return esopt.CMAES(self.sigma, self.n).tell(state, evals)

    def stop(self, state):
        return {"brief": 5.0} if state.generation >= 5 else {}


def start(multipliers, penalties, equal):
    return Terms(np.array(multipliers), np.array(penalties), np.array(equal))


class TestTerms:
    def test_penalty_is_that_of_the_formula(self):
        terms = start([0.5, 2.0, 0.0, -1.0], [4.0, 0.5, math.nan, 3.0], [False, False, False, True])
        g = np.random.default_rng(1).normal(0.0, 3.0, (50, 4))
        expected = []
        for row in g:
            total = 0.0
            for x, multiplier, r, equal in zip(row, terms.multipliers, [4.0, 0.5, 0.0, 3.0], terms.equal, strict=True):
                if not equal and r * x <= -multiplier:
                    total += -(multiplier**2) / (2.0 * r) if r else 0.0
                else:
                    total += multiplier * x + 0.5 * r * x * x
            expected.append(total)
        assert penalty(terms, g) == pytest.approx(expected)

    def test_step_of_the_multipliers(self):
        # Better half of 4 rows: the first two, with weights log(2.5) and log(2.5 / 2) to 1.
        terms = start([1.0, 1.0], [3.0, 3.0], [False, True])
        g = np.array([[0.2, -0.4], [0.1, -0.2], [-9.0, 9.0], [5.0, 5.0]])
        weights = np.log([2.5, 1.25])
        centre = weights @ g[:2] / weights.sum()
        after = adapt(terms, np.array([1.0, 2.0, 3.0, 4.0]), g, 9)
        assert after.multipliers == pytest.approx(1.0 + 3.0 * centre / (2.0 * 3.0))

    def test_penalty_grows_where_the_search_rests_away_from_the_constraint(self):
        rng = np.random.default_rng(1)
        g = 10.0 + rng.normal(size=(20, 1))
        terms, resting = start([1.0], [1.0], [False]), rng.normal(size=20)
        assert adapt(terms, resting, g, 4).penalties == pytest.approx([1.2])
        assert adapt(terms, 3.0 * g[:, 0], g, 4).penalties == [1.0]  # on its way

    def test_penalty_shrinks_where_it_is_all_there_is(self):
        g = np.random.default_rng(1).normal(size=(20, 1))
        terms = start([1.0], [100.0], [False])
        assert adapt(terms, g[:, 0], g, 4).penalties == pytest.approx([100.0 / 1.2])

    def test_rounding_teaches_nothing(self):
        terms = start([1.0], [1.0], [False])
        merits = 1.0 + 1e-15 * np.arange(6.0)
        assert adapt(terms, merits, np.ones((6, 1)), 3) is terms

    def test_begins_with_the_first_violation(self):
        terms = start([0.0, 0.0], [math.nan, math.nan], [False, False])
        g = np.array([[-1.0, 3.0], [-2.0, 4.0], [-3.0, 5.0], [-4.0, 6.0]])
        after = begin(terms, np.array([0.0, 1.0, 2.0, 3.0]), g, 2)
        assert np.array_equal(np.isnan(after.penalties), [True, False])
        spread = 1.5 / 1.349  # of both, and 4.5 is the median of g
        assert after.multipliers == pytest.approx([0.0, 0.5])
        assert after.penalties[1] == pytest.approx(spread / (spread * 4.5))

    def test_violations(self):
        evals = Evals(np.zeros(3), constraints=np.array([[1.0, 2.0], [-1.0, 0.0], [np.nan, 0.0]]))
        assert violations(evals, 0.0) == pytest.approx([3.0, 0.0, np.nan], nan_ok=True)
        evals = Evals(np.zeros(3), constraints=np.array([[-np.inf, -1.0], [np.inf, -1.0], [-1.0, -1.0]]))
        assert violations(evals, 0.0) == pytest.approx([np.nan, np.nan, 0.0], nan_ok=True)
        evals = Evals(np.zeros(2), equalities=np.array([[1e-7, -2.0], [-1e-7, 0.0]]))
        assert violations(evals, 1e-6) == pytest.approx([2.0, 0.0])


class TestResult:
    def test_target_counts_feasible_points_only(self):
        seen = []

        def g(x):
            seen.append((sphere(x), 1.0 - x[0]))
            return 1.0 - x[0]

        result = run(sphere, [3.0, 3.0], constraints=g, target=0.6, evaluations=4000)
        assert "target" in result.reason
        assert 0.5 <= result.value <= 0.6
        assert result.x[0] >= 1.0
        assert min(value for value, _ in seen) < 0.5  # others went lower

    def test_infeasible_problem_ends_at_the_least_violation(self):
        result = run(
            sphere, [3.0, 3.0], constraints=lambda x: np.array([1.0 - x[0], x[0] + 1.0]), evaluations=2000, target=9.0
        )
        assert not result.feasible
        assert not result.success
        assert result.violation == pytest.approx(2.0, abs=1e-9)
        assert result.value == sphere(result.x)
        assert result.best.value == math.inf
        assert "target" not in result.reason
        assert "no feasible point found" in str(result)

    def test_feasibility_problem(self):
        result = run(lambda x: 0.0, [9.0, -9.0], constraints=lambda x: x @ x - 1.0, evaluations=1500)
        assert result.feasible
        assert result.value == 0.0

    def test_far_infeasible_start(self):
        result = run(
            lambda x: float(x.sum()), [-50.0, -50.0, -50.0], constraints=lambda x: x @ x - 1.0, evaluations=5000
        )
        assert result.value == pytest.approx(-(3**0.5), abs=1e-4)

    def test_final_mean_is_taken_where_it_is_better(self):
        # The mean of a mirrored population of two is x0, which no candidate is.
        strategy = esopt.AugmentedLagrangian(esopt.openai_es(sigma=0.5, n=2, lr=1e-12))
        result = run(
            lambda x: float(x @ x),
            [1.0, 1.0],
            strategy=strategy,
            constraints=lambda x: abs(x[0] - 1.0) - 1e-9,
            evaluations=3,
        )
        assert result.feasible
        assert result.x == pytest.approx([1.0, 1.0])
        assert not np.shares_memory(result.x, result.mean)
        assert not np.shares_memory(result.x, result.best.x)

    @pytest.mark.parametrize("nothing", [math.inf, math.nan])
    def test_final_mean_without_a_value_is_not_taken(self, nothing):
        # x0, the mean of mirrored pairs, is the one point that is feasible, and f does not exist there.
        strategy = esopt.AugmentedLagrangian(esopt.openai_es(sigma=0.5, n=2, lr=1e-12))
        result = run(
            lambda x: nothing if abs(x[0] - 1.0) < 1e-9 else float(x @ x),
            [1.0, 1.0],
            strategy=strategy,
            constraints=lambda x: abs(x[0] - 1.0) - 1e-9,
            evaluations=3,
        )
        assert result.value == result.x @ result.x
        assert result.violation == pytest.approx(abs(result.x[0] - 1.0), abs=1e-8)
        assert result.violation > 0.0

    def test_minus_infinity_is_the_best_value_where_it_is_feasible(self):
        es = esopt.Optimizer(esopt.AugmentedLagrangian(esopt.CMAES(n=6)), [2.0, 2.0], target=-1.0)
        rows = es.ask()
        es.tell([-math.inf, 1.0, 2.0, math.inf, 3.0, 4.0], constraints=[[1.0], [-1.0], [-1.0], [-1.0], [0.0], [0.5]])
        assert (es.result.value, es.result.violation, es.stop()) == (1.0, 0.0, {})
        assert es.result.x == pytest.approx(rows[1])
        rows = es.ask()
        es.tell([5.0, 1.0, -math.inf, math.inf, 3.0, 4.0], constraints=-np.ones((6, 1)))
        assert es.result.value == es.result.best.value == -math.inf
        assert es.result.x == pytest.approx(rows[2])
        assert es.stop() == {"target": -math.inf}

    def test_final_mean_of_minus_infinity_is_taken(self):
        result = run(
            lambda x: -math.inf if abs(x[0] - 1.0) < 1e-9 else float(x @ x),
            [1.0, 1.0],
            strategy=esopt.AugmentedLagrangian(esopt.openai_es(sigma=0.5, n=2, lr=1e-12)),
            constraints=lambda x: x[1] - 9.0,
            evaluations=3,
        )
        assert (result.value, result.violation, result.failures) == (-math.inf, 0.0, {})

    def test_minus_infinity_is_a_failure_where_values_are_averaged(self):
        inner = esopt.GradientES(n=4, shaping=esopt.Raw(), sampler=esopt.Gaussian())
        es = esopt.Optimizer(esopt.AugmentedLagrangian(inner), [2.0, 2.0])
        es.ask()
        es.tell([-math.inf, 1.0, 2.0, 3.0], constraints=-np.ones((4, 1)))
        assert es.result.value == 1.0

    def test_history_and_callback(self):
        steps = []
        result = run(
            sphere, [3.0, 3.0], constraints=lambda x: 1.0 - x[0], generations=30, history=True, callback=steps.append
        )
        assert result.history is not None
        assert "violation" in result.history.trace.names
        assert steps[-1].best_value == result.history.trace.lowest[-1]
        assert {"feasible", "violation", "multiplier"} <= set(steps[-1].info.scalars)

    def test_bounds(self):
        result = run(
            sphere, [2.0, 2.0], constraints=lambda x: 1.0 - x[0] - x[1], bounds=([0.7, 0.0], 4.0), evaluations=3000
        )
        assert result.x == pytest.approx([0.7, 0.3], abs=1e-4)
        assert result.strategy == "AugmentedLagrangian(Bounded(Restarts))"

    def test_penalty_of_bounds_is_not_in_the_value(self):
        # Clip searches outside too, and adds how far that is: the first generations are full of it.
        for seed in range(4):
            seen = []

            def f(x, seen=seen):
                seen.append((sphere(x), 1.0 - x[0] - x[1]))
                return sphere(x)

            clip = esopt.Clip([0.7, 0.0], 4.0)
            result = run(f, [2.0, 2.0], constraints=lambda x: 1.0 - x[0] - x[1], bounds=clip, generations=3, seed=seed)
            assert result.value == sphere(result.x) == result.best.value
            assert result.value == min(value for value, g in seen if g <= 0.0)

    @pytest.mark.parametrize("strategy", [None, esopt.CMAES(), esopt.AugmentedLagrangian(esopt.SepCMA())])
    @pytest.mark.parametrize("bounds", [None, (-5.0, 5.0), esopt.Clip(-5.0, 5.0)])
    def test_integers(self, strategy, bounds):
        # |x - 0.3|^2 / 2 with x_0 + x_1 >= 1.5 and x_0 whole: (1, 0.5, 0.3) has 0.265, (0, 1.5, 0.3) has 0.765.
        result = run(
            lambda x: sphere(x - 0.3),
            [3.0, 3.0, 3.0],
            strategy=strategy,
            constraints=lambda x: 1.5 - x[0] - x[1],
            bounds=bounds,
            integer=[0],
            evaluations=2000,
        )
        assert result.feasible
        assert result.x == pytest.approx([1.0, 0.5, 0.3], abs=1e-3)
        assert result.x[0] == 1.0
        assert result.strategy.startswith("AugmentedLagrangian(Bounded(")

    def test_every_run_begins_with_new_multipliers(self):
        # Restarts after 5 generations each, alone, in bounds and around integers.
        def g(rows):
            return 1.0 - rows[:, :1] - rows[:, 1:2]

        for settings in ({}, {"bounds": (-9.0, 9.0)}, {"integer": [2]}):
            inner = esopt.Restarts(Brief())
            es = esopt.Optimizer(esopt.AugmentedLagrangian(inner), [3.0, 3.0, 3.0], 1, **settings)
            for generation in range(1, 13):
                es.tell((es.ask() ** 2).sum(axis=1), constraints=g(es.ask()))
                assert es.state.multipliers.size == (0 if generation % 5 == 0 else 1), settings


class TestEvaluators:
    def outcome(self, **settings):
        return run(settings.pop("f", sphere), [2.0, 2.0, 2.0], generations=25, **settings)

    def test_all_evaluators_agree(self):
        import numba

        def g(x):
            return np.array([1.0 - x[0], x[1] - 0.5])

        def h(x):
            return x[2] - 0.5

        reference = self.outcome(constraints=g, equalities=h)
        objective = esopt.Objective(sphere, constraints=g, equalities=h)
        pool = self.outcome(f=None, evaluator=esopt.Joblib(objective, workers=2, backend="threading"))
        rows = self.outcome(
            f=lambda x: 0.5 * np.array([row @ row for row in x]),
            constraints=lambda x: np.stack([1.0 - x[:, 0], x[:, 1] - 0.5], axis=1),
            equalities=lambda x: x[:, 2] - 0.5,
            vectorized=True,
        )

        @numba.njit
        def compiled(x):
            return 0.5 * (x[0] * x[0] + x[1] * x[1] + x[2] * x[2])

        jitted = self.outcome(f=compiled, constraints=g, equalities=h)
        assert jitted.evaluator == "Compiled"
        for other in (pool, rows):
            assert np.array_equal(other.x, reference.x)
            assert np.array_equal(other.multipliers, reference.multipliers)
        assert jitted.x == pytest.approx(reference.x, abs=1e-9)

    def test_worker_processes(self):
        reference = self.outcome(constraints=lambda x: 1.0 - x[0])
        assert np.array_equal(self.outcome(constraints=lambda x: 1.0 - x[0], workers=2).x, reference.x)

    def test_failures_are_counted_and_survived(self):
        def g(x):
            return math.nan if x[1] > 2.5 else 1.0 - x[0]

        result = self.outcome(constraints=g)
        assert result.failures["constraint"] > 0
        assert math.isfinite(result.value)

        def raising(x):
            raise ValueError("no")

        with pytest.raises(esopt.EvaluationError, match=r"in constraints.*\n.*constraints\(population"):
            self.outcome(constraints=raising)
        with pytest.raises(TypeError, match=r"constraints returned .*'no'.*an array \(m,\)"):
            self.outcome(constraints=lambda x: "no")
        with pytest.raises(TypeError, match=r"constraints returned .*bool.*not Booleans"):
            self.outcome(constraints=lambda x: x[0] >= 1.0)

    def test_number_of_constraints_must_not_change(self):
        with pytest.raises(TypeError, match="constraints returned 1 numbers for some"):
            self.outcome(constraints=lambda x: np.ones(1 if x[0] > 2.0 else 2))

    @pytest.mark.parametrize("vectorized", [False, True])
    def test_a_generation_without_values_ends_the_run_with_its_result(self, vectorized):
        # Nobody sees how many constraints there are in such a generation.
        def g(x):
            return np.stack([1.0 - x[..., 0], 1.0 - x[..., 1]], axis=-1)

        calls = []

        def raising(x):
            calls.append(1)
            if len(calls) > (10 if vectorized else 60):
                raise RuntimeError("the solver is gone")
            return g(x)

        def f(x):
            return 0.5 * np.square(x).sum(axis=-1)

        settings = {"vectorized": vectorized, "evaluations": 600}
        result = run(f, [3.0, 3.0], constraints=raising, on_error="nan", **settings)
        assert "failed" in result.reason
        assert result.feasible
        assert result.value == f(result.x)
        assert result.failures["exception"] >= (1 if vectorized else 6)
        calls.clear()

        def gone(x):
            calls.append(1)
            return f(x) * (np.nan if len(calls) > (10 if vectorized else 60) else 1.0)

        result = run(
            gone, [3.0, 3.0], constraints=lambda x: g(x)[..., 0], equalities=lambda x: g(x)[..., 1], **settings
        )
        assert "failed" in result.reason
        assert math.isfinite(result.value)

    def test_without_a_single_value(self):
        with pytest.raises(esopt.EvaluationError):
            self.outcome(constraints=lambda x: math.nan)


class TestAskAndTell:
    def optimizer(self, **settings):
        return esopt.Optimizer(esopt.AugmentedLagrangian(esopt.CMAES()), [2.0, 2.0], 1, **settings)

    def generations(self, es, count):
        for _ in range(count):
            rows = es.ask()
            es.tell((rows**2).sum(axis=1), constraints=1.0 - rows[:, 0], equalities=rows[:, 1] - 0.5)

    def test_saved_and_loaded(self, tmp_path):
        es = self.optimizer()
        self.generations(es, 12)
        es.save(tmp_path / "run.npz")
        self.generations(es, 12)
        other = self.optimizer()
        other.load(tmp_path / "run.npz")
        self.generations(other, 12)
        assert np.array_equal(other.mean, es.mean)
        assert np.array_equal(other.result.multipliers, es.result.multipliers)
        assert other.result.violation == es.result.violation

    def test_checkpoint_of_minimize(self, tmp_path):
        def g(x):
            return 1.0 - x[0]

        whole = run(sphere, [2.0, 2.0], constraints=g, generations=20)
        for generations in (10, 20):
            parts = run(sphere, [2.0, 2.0], constraints=g, generations=generations, checkpoint=tmp_path / "c.npz")
        assert np.array_equal(parts.x, whole.x)
        assert np.array_equal(parts.multipliers, whole.multipliers)
        with pytest.raises(esopt.CheckpointError, match="constraints"):
            run(sphere, [2.0, 2.0], constraints=sphere, generations=30, checkpoint=tmp_path / "c.npz")

    def test_nan_values_and_constraints(self):
        es = self.optimizer()
        rows = es.ask()
        values, g = (rows**2).sum(axis=1), 1.0 - rows[:, :1]
        values[0], g[1] = np.nan, np.nan
        es.tell(values, constraints=g)
        assert np.isfinite(es.mean).all()
        best = es.result.x
        assert not np.array_equal(best, rows[0])
        assert not np.array_equal(best, rows[1])

    def test_feasible_candidate_without_a_value_makes_no_other_feasible(self):
        es = self.optimizer(target=1e9)
        n = len(es.ask())
        values, g = np.arange(float(n)), np.ones((n, 1))
        values[0], g[0] = np.nan, -1.0
        es.tell(values, constraints=g)
        assert es.progress.best_value == math.inf
        assert es.stop() == {}
        assert es.result.violation == 1.0

    def test_refuses_what_does_not_fit(self):
        es = self.optimizer()
        n = len(es.ask())
        with pytest.raises(ValueError, match="neither constraints nor equalities"):
            es.tell(np.zeros(n))
        with pytest.raises(ValueError, match=rf"shape \(3,\).*\({n}, m\)"):
            es.tell(np.zeros(n), constraints=np.zeros(3))
        with pytest.raises(ValueError, match="does not use"):
            esopt.Optimizer(esopt.CMAES(n=6), [2.0, 2.0]).tell(np.zeros(6), constraints=np.zeros(6))
        es.tell(np.arange(n), constraints=np.ones((n, 2)))
        with pytest.raises(ValueError, match="told 3 constraints, before 2"):
            es.tell(np.zeros(n), constraints=np.ones((n, 3)))
        with pytest.raises(ValueError, match="told 1 constraints and 1 equalities, before 2 constraints"):
            es.tell(np.zeros(n), constraints=np.ones(n), equalities=np.ones(n))
        for truth in ({"constraints": np.ones((n, 2), bool)}, {"equalities": np.zeros(n, bool)}):
            with pytest.raises(ValueError, match=r"dtype bool.*real numbers"):
                es.tell(np.zeros(n), **truth)

    def test_infinite_and_nan_constraints_are_failures(self):
        es = self.optimizer()
        n = len(es.ask())
        g = np.ones((n, 2))
        g[0, 1], g[1, 0], g[2, 0] = -np.inf, np.inf, np.nan
        values = np.arange(float(n))
        values[4] = np.nan
        g[4] = np.nan  # without a value it is a failure of f
        info = es.tell(values, constraints=g, equalities=np.where(np.arange(n) == 3, np.nan, 0.0))
        assert info.failures == es.failures == {"nan": 1, "constraint": 3, "equality": 1}
        assert not es.result.feasible
        assert es.result.value == 5.0
        assert es.result.violation == 2.0


class TestRefusals:
    def test_strategies_that_compare_generations_or_need_gradients(self):
        refused = [
            *(esopt.Portfolio(), esopt.QuasiNewton(), esopt.RandomSearch(), esopt.Multistart()),
            *(esopt.OnePlusOneCMA(), esopt.OnePlusOneCMA(n=5), esopt.CoordinateSearch()),
        ]
        for inner in (*refused, esopt.Averaged(esopt.Portfolio(), 2), esopt.Restarts(esopt.OnePlusOneCMA(n=5))):
            for bounds in (None, (-5.0, 5.0)):
                with pytest.raises(ValueError, match="different generations"):
                    esopt.Optimizer(esopt.AugmentedLagrangian(inner), [1.0, 1.0], bounds=bounds)
        with pytest.raises(ValueError, match="needs grads"):
            esopt.Optimizer(esopt.AugmentedLagrangian(esopt.GradientES(estimator=esopt.Bonnet())), [1.0, 1.0])

    def test_wrappers_that_average_go_inside(self):
        def noisy(strategy):
            return esopt.minimize(
                sphere, [1.0, 1.0], strategy=strategy, constraints=lambda x: 1.0 - x[0], generations=3
            )

        assert noisy(esopt.AugmentedLagrangian(esopt.Averaged(esopt.CMAES(), 2))).generations == 3
        with pytest.raises(ValueError, match="inside"):
            noisy(esopt.Averaged(esopt.AugmentedLagrangian(esopt.CMAES()), 2))

    def test_arguments(self):
        with pytest.raises(ValueError, match="tolerance"):
            esopt.AugmentedLagrangian(tolerance=-1.0)
        with pytest.raises(TypeError, match="CMAES"):
            esopt.AugmentedLagrangian(3)
        with pytest.raises(ValueError, match="stochastic f"):
            run(sphere, [1.0], constraints=lambda x: x[0], noisy=True)
        with pytest.raises(TypeError, match="constraints must be a function"):
            run(sphere, [1.0], constraints=3)
        with pytest.raises(TypeError, match="equalities twice"):
            run(sphere, [1.0], constraints=LinearConstraint([[1.0]], 0.0, 0.0), equalities=lambda x: x[0])
        with pytest.raises(ValueError, match="leave grad out"):
            run(sphere, [1.0, 2.0], constraints=lambda x: x[0], grad=lambda x: x)
        with pytest.raises(TypeError, match="both evaluator and constraints"):
            esopt.minimize(None, [1.0], evaluator=esopt.Serial(sphere), constraints=lambda x: x[0])
        with pytest.raises(ValueError, match="needs constraints"):
            esopt.minimize(sphere, [1.0, 1.0], strategy=esopt.AugmentedLagrangian(), generations=3)


class TestLists:
    def test_several_functions(self, tmp_path):
        def g(x, shift):
            return 1.0 + shift - x[0]

        def other(x, shift):
            return np.array([0.5 - x[1], x[2] - 9.0])

        def f(x, shift):
            return sphere(x)

        def both(x, shift):
            return np.concatenate([[g(x, shift)], other(x, shift)])

        settings = {"args": (0.25,), "evaluations": 600}
        listed = run(f, [2.0, 2.0, 2.0], constraints=[g, other], checkpoint=tmp_path / "run.npz", **settings)
        single = run(f, [2.0, 2.0, 2.0], constraints=both, **settings)
        assert np.array_equal(listed.x, single.x)
        assert listed.multipliers.shape == (3,)
        with pytest.raises(esopt.CheckpointError, match="constraints"):
            run(f, [2.0, 2.0, 2.0], constraints=[other, g], checkpoint=tmp_path / "run.npz", **settings)
        with pytest.raises(esopt.EvaluationError, match="a constraint returned type bool"):
            run(sphere, [2.0, 2.0], constraints=[lambda x: x[0] > 1.0, lambda x: x[1]])

    def test_the_largest_numbers_make_no_noise(self):
        # Overflow is no warning: pytest makes errors of them.
        for f_by, g_by in ((1e300, 1.0), (1.0, 1e200), (1e150, 1e150)):
            result = run(
                lambda x, by=f_by: by * sphere(x), [3.0, 3.0], constraints=lambda x, by=g_by: by * (1.0 - x[0]),
                evaluations=300,
            )  # fmt: skip
            assert result.feasible


class TestScipy:
    def test_two_sided_constraints(self):
        matrix = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
        linear = LinearConstraint(matrix, [1.0, -np.inf, 2.0], [3.0, 0.5, 2.0])
        nonlinear = NonlinearConstraint(lambda x: x @ x, -np.inf, 4.0)
        older = {"type": "ineq", "fun": lambda x, a: x[0] - a, "args": (0.25,)}
        g, h = as_constraints([linear, nonlinear, older], None)
        x = np.array([0.75, 2.5])
        # Above: 3.25 - 3, 0.75 - 0.5, 6.8125 - 4; below: 1 - 3.25, 0.25 - 0.75; equal: 2.5 - 2.
        assert g is not None
        assert h is not None
        assert g(x) == pytest.approx([0.25, 0.25, 2.8125, -2.25, -0.5])
        assert h(x) == pytest.approx([0.5])

    def test_x_of_more_axes_and_rows(self):
        linear = LinearConstraint([[1.0, 2.0, 3.0, 4.0]], -np.inf, 5.0)
        flat = np.arange(4.0)
        g, _ = as_constraints(linear, None, (2, 2))
        assert g(flat.reshape(2, 2)) == pytest.approx([20.0 - 5.0])
        both = [linear, NonlinearConstraint(lambda x: x[0], 1.0, np.inf), lambda x: x.sum(axis=-1)]
        g, _ = as_constraints(both, None, (4,), vectorized=True)
        rows = np.stack([flat, flat + 1.0])
        assert g(rows) == pytest.approx(np.array([[6.0, 15.0, 1.0], [10.0, 25.0, 0.0]]))
        one = LinearConstraint([[1.0, 2.0]], 3.0, np.inf)
        several = run(
            lambda x: 0.5 * (x * x).sum(axis=1), [2.0, 2.0], constraints=one, vectorized=True, evaluations=600
        )
        assert np.array_equal(several.x, run(sphere, [2.0, 2.0], constraints=one, evaluations=600).x)

    def test_what_does_not_fit_is_said_early(self):
        def f(x):
            raise AssertionError("f is not called")

        with pytest.raises(ValueError, match=r"matrix of shape \(1, 3\) for x0 of shape \(2,\)"):
            run(f, [2.0, 2.0], constraints=LinearConstraint([[1.0, 2.0, 3.0]], 3.0, np.inf))
        for nothing in (LinearConstraint([[1.0, 2.0]], 3.0, 2.0), NonlinearConstraint(sphere, [0.0, 1.0], [1.0, 0.5])):
            with pytest.raises(ValueError, match="nothing satisfies them"):
                run(f, [2.0, 2.0], constraints=nothing)

    def test_in_minimize(self):
        result = run(sphere, [2.0, 2.0], constraints=LinearConstraint([[1.0, 2.0]], 3.0, np.inf), evaluations=2000)
        assert result.x == pytest.approx([0.6, 1.2], abs=1e-4)
        assert result.multipliers == pytest.approx([0.6], abs=1e-3)
