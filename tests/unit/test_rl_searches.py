"""Several searches on one budget of steps: who gets which share, fresh starts, resumed runs, and that it pays."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from esopt.noise import child
from esopt.rl import Lengthening, Searches, preset, train
from esopt.rl.budgets import plan
from esopt.rl.searches import SearchesState
from esopt.strategies._layers import keeps_values
from esopt.testing import check_strategy

INNER = esopt.CMAES(sigma=0.5, n=6)


def follow(strategy: Searches, generations: int, steps: int) -> list[SearchesState]:
    """Return the states of generations that take ``steps`` each, on the sphere around 1."""
    states = [strategy.init(np.zeros(3), 7)]
    for _ in range(generations):
        rows = strategy.ask(states[-1]).rows()
        evals = esopt.Evals(np.square(rows - 1.0).sum(axis=1), steps=steps)
        states.append(strategy.tell(states[-1], evals)[0])
    return states


def test_a_search_begins_at_the_start_when_the_one_before_has_had_its_share():
    states = follow(Searches(INNER, 250), 9, 100)

    assert [state.number for state in states] == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    fresh = [k for k in range(10) if not states[k].mean.any()]
    assert fresh == [0, 3, 5, 8]
    seeds = {int(Searches(INNER).ask(states[k]).noise.key.seed) for k in fresh}
    assert len(seeds) == 4


def test_the_first_search_has_the_bits_of_the_inner_strategy():
    alone, one = INNER.init(np.zeros(3), 7), follow(Searches(INNER), 5, 10**9)
    for state in one[:-1]:
        assert INNER.ask(alone).rows().tobytes() == INNER.ask(state.inner).rows().tobytes()
        values = np.square(INNER.ask(alone).rows() - 1.0).sum(axis=1)
        alone, _ = INNER.tell(alone, esopt.Evals(values))
    assert one[-1].mean.tobytes() == alone.mean.tobytes()


def test_it_keeps_the_laws_and_the_claims_of_the_inner_strategy():
    check_strategy(Searches(INNER), rank_based=True)
    assert not Searches(INNER).grows
    assert Searches(esopt.openai_es()).grows
    assert keeps_values(Searches(esopt.OnePlusOneCMA()))
    assert not keeps_values(Searches(INNER))


@pytest.mark.parametrize(
    ("steps", "searches", "search", "episodes"),
    [
        (3_000_000, None, None, 7),  # 50 units of 300 episodes of 200 steps
        (5_999_999, None, None, 10),
        (6_000_000, None, 3_000_000, 7),
        (10_000_000, None, 3_333_334, 7),
        (10_000_000, 1, None, 13),
        (600_000, 3, 200_000, 2),
    ],
)
def test_budgets_are_shared(steps: int, searches: int | None, search: int | None, episodes: int):
    planned = plan("Pendulum-v1", (steps, None, None, None), None, None, None, 0.25, searches)

    assert (planned.steps, planned.search, planned.episodes) == (steps, search, episodes)
    assert planned.lengthening == Lengthening(50, 200, search or steps, search is not None)


def test_every_search_begins_with_short_episodes():
    once, again = Lengthening(50, 200, 900), Lengthening(50, 200, 900, again=True)

    assert [again.cut(used) for used in (0, 300, 600, 899, 900, 1200, 1799, 1800)] == [
        50,
        100,
        200,
        200,
        50,
        100,
        200,
        50,
    ]
    assert [once.cut(used) for used in (900, 1200)] == [200, 200]


def test_bad_numbers_are_refused():
    for wrong in (0, 1.5, True, "3"):
        with pytest.raises(ValueError, match="searches must be a positive whole number or None"):
            train("CartPole-v1", steps=1000, searches=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"searches=2 share a budget of steps, and there is none\. Pass steps="):
        train("CartPole-v1", generations=3, searches=2)


def test_a_run_of_several_searches_resumes_in_the_same_bits_on_any_threads(tmp_path):
    settings = preset("default", "CartPole-v1").settings() | {
        "searches": 3, "steps": 30_000, "target": np.inf, "seed": 3, "final_episodes": 3,
    }  # fmt: skip
    once = train("CartPole-v1", **settings, workers=1)
    train("CartPole-v1", **settings, generations=once.result.generations // 2, checkpoint=tmp_path / "run.npz")
    resumed = train("CartPole-v1", **settings, workers=3, checkpoint=tmp_path / "run.npz")

    assert once.result.evaluator_state.search in {child(child(3, 2), start) for start in range(3)}
    assert once.policy.folded.tobytes() == resumed.policy.folded.tobytes()
    assert once.result.mean.tobytes() == resumed.result.mean.tobytes()
    assert {k: v.tobytes() for k, v in once.checks.items()} == {k: v.tobytes() for k, v in resumed.checks.items()}


def test_the_default_preset_may_go_on_with_a_budget_of_more_searches(tmp_path):
    settings = preset("default", "CartPole-v1").settings() | {"target": np.inf, "seed": 3, "final_episodes": 3}
    settings |= {"episode_steps": 2, "checkpoint": tmp_path / "run.npz"}  # 15,000 episodes are 30,000 steps
    first, longer = (train("CartPole-v1", **settings | {"steps": steps}) for steps in (1_000, 61_000))

    assert first.steps < 2_000
    assert longer.steps + longer.check_steps >= 61_000
    assert longer.result.evaluator_state.search in {child(child(3, 1), start) for start in range(3)}


def test_another_start_finds_what_the_first_one_missed():
    """One long search with this seed ends at -398, the best of three short ones near -170."""
    settings = preset("default", "Pendulum-v1").settings() | {"target": np.inf, "steps": 1_500_000, "seed": 105}
    one, several = (train("Pendulum-v1", **settings | {"searches": count}).mean for count in (1, 3))

    assert one < -300.0
    assert several > -200.0
