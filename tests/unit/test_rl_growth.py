"""Populations that grow until their episodes took so many steps: the bits of a larger one that was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import esopt
from esopt.rl import CLASSIC_CONTROL, CompiledEngine, Policy, Recipe, Rollouts, read_progress, train
from esopt.rl.environments import TRAIN, episode_seeds
from tests.reference.environments import Troubled, Walk

WALKER = Recipe().for_spaces(Walk.observation_space, Walk.action_space)
CARTPOLE = CLASSIC_CONTROL["CartPole-v1"]()
LEAN = Policy.linear(CARTPOLE)


def population(n: int = 4, sampler=None, dim: int = WALKER.dim) -> esopt.Population:
    sampler = esopt.Antithetic() if sampler is None else sampler
    return esopt.Population(np.zeros(dim), 1.0, sampler.noise(esopt.Key(9), n, dim))


def lengths(made: esopt.Population, episodes: int) -> np.ndarray:
    return 3 + episode_seeds(made.seeds, episodes, TRAIN) % 4


@pytest.mark.parametrize("sampler", [esopt.Antithetic(), esopt.Gaussian(), esopt.Antithetic(esopt.Orthogonal(3))])
@pytest.mark.parametrize("episodes", [1, 3])
def test_grown_is_the_same_as_asked_for_at_once(sampler, episodes: int):
    made, log = population(6, sampler), []
    grown = Rollouts(lambda: Walk(log), WALKER, episodes=episodes, steps_per_generation=150 * episodes)
    evals, state = grown.evaluate(made, grown.init())
    n = len(evals.values)
    large = made.resize(n)
    plain = Rollouts(Walk, WALKER, episodes=episodes)
    expected, known = plain.evaluate(large, plain.init())

    assert log == episode_seeds(large.seeds, episodes, TRAIN).ravel().tolist()
    assert n % made.noise.block == 0
    assert evals.steps == expected.steps == lengths(large, episodes).sum() >= 150 * episodes
    np.testing.assert_array_equal(evals.values, expected.values)
    for name in ("sums", "squares", "count"):
        np.testing.assert_array_equal(getattr(state.moments, name), getattr(known.moments, name))
    assert (state.mean_return, state.top_return, state.steps) == (known.mean_return, known.top_return, known.steps)


def test_it_grows_no_more_than_it_must():
    made = population(6)
    taken = int(lengths(made, 1).sum())
    for wanted, sizes in ((1, {6}), (taken, {6}), (taken + 1, {8}), (2 * taken, {12, 14}), (1000, range(200, 260))):
        rollouts = Rollouts(Walk, WALKER, steps_per_generation=wanted)
        evals, _ = rollouts.evaluate(made, rollouts.init())
        assert len(evals.values) in sizes
        assert evals.steps >= wanted


@pytest.mark.parametrize("workers", [2])
def test_workers_grow_to_the_same_bits(workers: int):
    made = population(4)
    plain = Rollouts(Walk, WALKER, episodes=2, path="process", steps_per_generation=200)
    rollouts = replace(plain, path="workers", workers=workers)
    try:
        (first, a), (second, b) = (r.evaluate(made, r.init()) for r in (plain, rollouts))
    finally:
        rollouts.close()
    assert len(first.values) > 12
    np.testing.assert_array_equal(second.values, first.values)
    np.testing.assert_array_equal(b.moments.sums, a.moments.sums)
    assert second.steps == first.steps


def test_threads_grow_to_the_same_bits():
    made = population(4, dim=LEAN.dim)
    found = []
    for threads in (1, 3):
        rollouts = Rollouts(CARTPOLE, LEAN, engine=CompiledEngine(CARTPOLE, LEAN, threads=threads), episodes=2)
        found.append(replace(rollouts, steps_per_generation=3000).evaluate(made, rollouts.init())[0])
    assert len(found[0].values) > 20
    assert found[0].steps == found[1].steps >= 3000
    np.testing.assert_array_equal(found[0].values, found[1].values)


@pytest.mark.parametrize("path", ["process", "workers"])
def test_failures_in_added_rows_have_their_row_and_seed(path: str):
    made = population(2, esopt.Gaussian())
    seeds = [int(seed) for seed in made.resize(60).seeds]
    first = next(row for row, seed in enumerate(seeds) if seed % len(TRAIN) % 64 == 1)
    assert first >= 8
    rollouts = Rollouts(Fragile, WALKER, steps_per_generation=400, path=path, workers=2)
    with pytest.raises(esopt.EvaluationError, match=rf"candidate {first} of generation 0 ") as e:
        rollouts.evaluate(made, rollouts.init())
    rollouts.close()
    assert e.value.seed == seeds[first] % len(TRAIN)
    np.testing.assert_array_equal(e.value.x, made.resize(60)[first])

    lenient = Rollouts(Fragile, WALKER, steps_per_generation=400, on_error="nan")
    evals, _ = lenient.evaluate(made, lenient.init())
    failed = np.flatnonzero(np.isnan(evals.values)).tolist()
    assert failed == [row for row, seed in enumerate(seeds[: len(evals.values)]) if seed % len(TRAIN) % 64 == 1]
    assert evals.failures == {"exception": len(failed)}


class Fragile(Troubled):
    def __init__(self):
        super().__init__("raises", 64)


class Dead(Walk):
    def reset(self, **options):
        raise OSError("no such world")


def test_episodes_without_a_step_end_it():
    rollouts = Rollouts(Dead, WALKER, steps_per_generation=10, on_error="nan")
    evals, _ = rollouts.evaluate(population(4), rollouts.init())
    assert np.isnan(evals.values).tolist() == [True] * 4
    assert evals.failures == {"exception": 4}


@pytest.mark.parametrize(
    "strategy",
    [
        esopt.ars(n=4, sigma=0.3),
        esopt.openai_es(n=4, sigma=0.3, lr=0.1),
        esopt.pgpe(n=4),
        esopt.GradientES(n=8, sigma=0.3, estimator=esopt.Score(esopt.LeaveOneOut())),
    ],
    ids=["ars", "openai_es", "pgpe", "GradientES"],
)
def test_a_strategy_learns_from_all_rows_as_if_it_had_asked_for_them(strategy):
    state = strategy.init(np.zeros(5), 3)
    asked = strategy.ask(state)
    for n in (asked.n, 3 * asked.n):
        values = np.random.default_rng(n).normal(size=n)
        after, info = strategy.tell(state, esopt.Evals(values))
        given = GivenRows(asked.resize(n))
        other = replace(strategy, n=n, sampler=given)
        expected, known = other.tell(other.init(np.zeros(5), 3), esopt.Evals(values))
        np.testing.assert_allclose(after.mean, expected.mean, rtol=1e-5)
        np.testing.assert_allclose(info.gradient.mean_stderr, known.gradient.mean_stderr, rtol=1e-5)
        assert info.gradient.evaluations == n
        assert strategy.ask(after).n == asked.n


class GivenRows:
    """A sampler whose rows are those of a population, as they are."""

    separable, fused, law = False, False, esopt.Law.GAUSSIAN

    def __init__(self, made: esopt.Population):
        self.block, self.mirrored = made.noise.block, made.noise.mirrored
        self.rows = made.noise.rows().astype(np.float64)

    def noise(self, key, n, dim):
        return esopt.Given(self.rows, self.block, self.mirrored, key)

    def fill(self, key, row, column, dim, out):
        raise NotImplementedError


def test_the_best_candidate_of_an_optimizer_may_be_one_that_was_added():
    es = esopt.Optimizer(esopt.ars(n=4), np.zeros(3), seed=1)
    large = es.population().resize(10)
    es.learn(esopt.Evals(np.arange(10.0)[::-1] + 1.0))
    np.testing.assert_array_equal(es.result.best.x, large[9])
    assert (es.result.evaluations, es.result.best.value) == (10, 1.0)


def test_training_grows_resumes_and_counts(tmp_path):
    settings = dict(strategy=esopt.ars(n=4), steps_per_generation=700, final_episodes=3, check_every=2, seed=2)
    whole = train("CartPole-v1", generations=6, out=tmp_path / "whole", workers=1, **settings)
    train("CartPole-v1", generations=3, out=tmp_path / "parts", **settings)
    parts = train("CartPole-v1", generations=6, out=tmp_path / "parts", resume=True, workers=3, **settings)

    assert parts.policy.parameters.tobytes() == whole.policy.parameters.tobytes()
    history = read_progress(tmp_path / "whole" / "progress.csv")
    assert (np.diff(history["steps"], prepend=0.0) >= 700).all()
    assert history["evaluations"][0] > 8
    assert whole.result.evaluations == history["evaluations"][-1]
    for name in ("evaluations", "steps", "mean_return"):
        np.testing.assert_array_equal(parts.history[name], whole.history[name])
    with pytest.raises(esopt.CheckpointError, match="steps_per_generation"):
        train(
            "CartPole-v1", generations=7, out=tmp_path / "parts", resume=True, **{**settings, "steps_per_generation": 5}
        )


def test_what_cannot_grow_is_refused():
    with pytest.raises(ValueError, match=r"steps_per_generation=50 needs a strategy .* CMAES is none. .*openai_es"):
        train("CartPole-v1", strategy=esopt.CMAES(sigma=0.5), steps_per_generation=50)
    with pytest.raises(ValueError, match=r"steps_per_generation .*got 0"):
        Rollouts(Walk, WALKER, steps_per_generation=0)
    es = esopt.Optimizer(esopt.CMAES(sigma=0.5, n=4), np.zeros(3))
    with pytest.raises(ValueError, match=r"CMAES got evaluations of 6 rows for a population of 4. Use GradientES"):
        es.learn(esopt.Evals(np.arange(6.0)))
    with pytest.raises(ValueError, match=r"got evaluations of 3 rows for a population of 4 noise rows"):
        es.learn(esopt.Evals(np.arange(3.0)))
    explicit = esopt.GradientES(sigma=0.1, n=4, estimator=esopt.Score(esopt.AtMean()))
    with pytest.raises(ValueError, match=r"1 rows of this one are explicit.*AtMean"):
        train("CartPole-v1", strategy=explicit, steps_per_generation=50)
    with pytest.raises(ValueError, match=r"of 9 rows for a population of 4 noise rows and 1 explicit"):
        esopt.Optimizer(explicit, np.zeros(3)).learn(esopt.Evals(np.arange(9.0)))


def test_a_budget_buys_ranks_averages_and_gradients_generations():
    """1,200 of the longest episodes pay for twice as many of a candidate as 300."""
    gradient, ranks = esopt.GradientES(n=4, sigma=0.1, rule=esopt.SGD(0.05)), esopt.CMAES(n=4, share="generation")
    found = []
    for limit in (100, 0):
        for steps in (300 * 200, 1200 * 200):
            run = train(
                "Pendulum-v1",
                strategy=esopt.ByDimension(ranks, gradient, limit=limit),
                steps=steps,
                generations=2,
                episodes_per_candidate=None,
                check_episodes=1,
                check_every=9,
                final_episodes=1,
            )
            found.append((run.result.evaluations, run.steps))
    assert found == [(8, 1600), (8, 3200), (8, 1600), (8, 1600)]


def test_a_strategy_that_says_that_it_does_not_grow_gets_averages():
    class Fixed(esopt.GradientES):
        grows = False

    fixed = Fixed(n=4, sigma=0.1, rule=esopt.SGD(0.05), share="generation")
    few = dict(generations=1, check_every=9, check_episodes=1, final_episodes=1, episodes_per_candidate=None)
    assert train("Pendulum-v1", strategy=fixed, steps=1200 * 200, **few).steps == 4 * 2 * 200


def test_a_strategy_by_dimension_grows_where_the_one_that_searches_does():
    either = esopt.ByDimension(esopt.CMAES(), esopt.ars(n=4), limit=0)
    run = train("CartPole-v1", strategy=either, steps_per_generation=700, generations=1, final_episodes=1)
    assert run.steps >= 700
    with pytest.raises(ValueError, match="CMAES is none"):
        train("CartPole-v1", strategy=replace(either, limit=10), steps_per_generation=700, generations=1)
