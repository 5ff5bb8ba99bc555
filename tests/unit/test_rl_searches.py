"""Several searches on one budget of steps: who gets which share, fresh starts, resumed runs, and that it pays."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from esopt.noise import child
from esopt.rl import Lengthening, Searches, preset, train
from esopt.rl.budgets import plan
from esopt.rl.outline import planned_for
from esopt.rl.searches import SearchesState
from esopt.strategies._layers import keeps_values
from esopt.testing import check_strategy

INNER = esopt.CMAES(sigma=0.5, n=6)


def follow(strategy: Searches, generations: int, steps: int, start: SearchesState | None = None) -> list[SearchesState]:
    """Return the states of generations that take ``steps`` each, on the sphere around 1."""
    states = [start or strategy.init(np.zeros(3), 7)]
    for _ in range(generations):
        rows = strategy.ask(states[-1]).rows()
        evals = esopt.Evals(np.square(rows - 1.0).sum(axis=1), steps=steps)
        states.append(strategy.tell(states[-1], evals)[0])
    return states


def own_seed(seed: int, number: int) -> int:
    """Return the seed of a search after the first one: no start of that one has it, as child(seed, number) would be."""
    return child(child(seed, number), 2**32 - 1)


def numbers(states: list[SearchesState]) -> list[int]:
    return [state.number for state in states]


def test_a_search_begins_at_the_start_when_the_one_before_has_had_its_share():
    states = follow(Searches(INNER, 250, 4), 12, 100)

    assert numbers(states) == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]
    fresh = [k for k in range(13) if not states[k].mean.any()]
    assert fresh == [0, 3, 5, 8]
    assert len({int(Searches(INNER).ask(states[k]).noise.key.seed) for k in fresh}) == 4


def test_the_last_search_is_what_is_left_when_the_budget_is_used_up():
    last = follow(Searches(INNER, 250, 2), 9, 100)[-1]

    assert (last.number, last.used) == (1, 900)
    assert last.mean.any()


def test_with_a_larger_budget_the_search_that_is_on_goes_on_to_the_end_of_its_new_share():
    states = follow(Searches(INNER, 250, 2), 5, 100)
    assert numbers(states)[-1] == 1
    states = follow(Searches(INNER, 400, 3), 7, 100, states[-1])

    assert numbers(states) == [1, 1, 1, 2, 2, 2, 2, 2]
    assert [Lengthening(50, 200, 400, again=True).cut(state.used) for state in states[2:4]] == [200, 50]


def test_a_search_that_stops_is_followed_by_the_next_one_but_the_last():
    flat = esopt.CMAES(sigma=0.5, n=6)
    strategy = Searches(flat, 10_000, 2)
    state = strategy.init(np.zeros(3), 7)
    seen = []
    while not strategy.stop(state):
        state, _ = strategy.tell(state, esopt.Evals(np.zeros(6), steps=100))
        seen.append(state.number)

    assert seen.index(1) < 10
    assert set(seen) >= {0, 1, 2}
    assert state.used >= 10_000  # in the last share
    assert strategy.stop(state).keys() == {"flat"}


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


def test_every_second_search_is_of_the_other_kind():
    strategy = Searches(INNER, 250, 4, other=esopt.ars(n=4, sigma=0.1, lr=0.1))
    states = follow(strategy, 12, 100)
    rows = [len(strategy.ask(state)) for state in states]

    assert rows == [{0: 6, 1: 4}[number % 2] for number in numbers(states)]
    assert numbers(states) == numbers(follow(Searches(INNER, 250, 4), 12, 100))
    second = strategy.other.init(np.zeros(3), own_seed(7, 1))
    for state in states[3:5]:
        assert strategy.ask(state).rows().tobytes() == strategy.other.ask(second).rows().tobytes()
        second, _ = strategy.other.tell(second, esopt.Evals(np.square(strategy.ask(state).rows() - 1.0).sum(axis=1)))
    assert states[4].mean.any()


def test_no_two_searches_share_noise():
    """Whichever start of the first one is left: a new average of the centres begins where the noise has a new seed."""
    strategy = Searches(esopt.Halving(INNER, starts=3, generations=1), 600, 3, other=esopt.ars(n=4))
    states = follow(strategy, 18, 100)
    seeds: dict[int, set[int]] = {}
    for state in states:
        seeds.setdefault(state.number, set()).add(int(strategy.ask(state).noise.key.seed))

    assert [len(seeds[number]) for number in range(3)] == [3, 1, 3]
    assert len(set.union(*seeds.values())) == 7


def test_two_kinds_claim_what_both_do_and_warn_of_what_one_does():
    growing, keeping = esopt.openai_es(), esopt.OnePlusOneCMA()
    assert Searches(growing, other=esopt.ars()).grows
    assert not Searches(growing, other=INNER).grows
    assert not Searches(INNER, other=growing).grows
    assert keeps_values(Searches(INNER, other=keeping))
    assert not keeps_values(Searches(INNER, other=INNER))
    with pytest.raises(TypeError, match="other must"):
        Searches(INNER, other=esopt.CMAES)


def test_a_budget_buys_a_search_of_each_kind_before_it_buys_two_of_one():
    def searches(steps: int, wanted: int | None = None) -> int:
        return plan("Pendulum-v1", (steps, None, None, None), None, None, None, 0.25, wanted, kinds=2).searches

    assert [searches(steps) for steps in (200, 399_999, 400_000, 8_999_999, 9_000_000)] == [1, 1, 2, 2, 3]
    assert [searches(3_000_000, wanted) for wanted in (1, 5)] == [1, 5]


def test_train_buys_what_the_plan_says():
    settings = preset("default", "CartPole-v1").settings() | {"target": np.inf, "seed": 3, "final_episodes": 1}
    few, both = (train("CartPole-v1", **settings | {"episode_steps": 2, "steps": k}) for k in (3_998, 4_000))
    alone = train("CartPole-v1", **settings | {"episode_steps": 2, "steps": 4_000, "searches": 1})
    own = train("CartPole-v1", strategy=Searches(INNER, 500, 2), steps=1_000, searches=None, final_episodes=1, seed=3)
    by_episodes = train(
        "Pendulum-v1",
        strategy=esopt.CMAES(n=4),
        episodes=40,
        steps=100_000,
        episode_steps=3,
        final_episodes=1,
        **{"episodes_per_candidate": None, "check_every": 10**6},
    )

    assert few.result.evaluator_state.search in {child(3, start) for start in range(3)}
    assert alone.result.evaluator_state.search in {child(3, start) for start in range(3)}
    assert both.result.evaluator_state.search == own_seed(3, 1)
    assert both.policy.about["strategy"] == "Searches(Halving(Endless(Elitist(CMAES))), GradientES)"
    assert own.result.evaluator_state.search == own_seed(3, 1)
    assert by_episodes.steps == 40 * 3


def test_a_run_goes_on_with_another_kind_of_budget(tmp_path):
    settings = preset("default", "CartPole-v1").settings() | {"target": np.inf, "seed": 3, "final_episodes": 1}
    for first, then in (({"steps": 1500}, {"episodes": 300}), ({"episodes": 60}, {"steps": 8000})):
        kept = settings | {"checkpoint": tmp_path / f"{next(iter(first))}.npz", "episode_steps": 20}
        begun, longer = train("CartPole-v1", **kept | first), train("CartPole-v1", **kept | then)
        assert longer.result.generations > begun.result.generations > 0


def test_shares_of_one_s_own_are_one_kind():
    own = Searches(INNER, 500, 2, other=esopt.ars(n=4))
    budgets, counts = (400_000, None, None, None), (None, None, None)
    assert planned_for("Pendulum-v1", own, budgets, counts, None, None).searches == 1
    assert planned_for("Pendulum-v1", Searches(INNER, other=own.other), budgets, counts, None, None).searches == 2


def test_averages_by_budget_are_for_candidates_that_play_the_same_episodes():
    both = Searches(esopt.CMAES(sigma=0.5, n=4, share="generation"), other=esopt.ars(n=6, sigma=0.1, lr=0.1))
    settings = {"strategy": both, "steps": 2000, "check_every": 10**6, "check_episodes": 1, "episode_steps": 20}
    run = train("Pendulum-v1", **settings, episodes_per_candidate=None, searches=2, final_episodes=1, seed=3)
    used = np.diff([0, *run.history["steps"]])
    given = train("Pendulum-v1", **settings, episodes_per_candidate=2, searches=2, final_episodes=1, seed=3)

    assert set(used) == {4 * 20, 6 * 20}  # 50 episodes for a search: no average yet
    assert set(np.diff([0, *given.history["steps"]])) == {4 * 2 * 20, 6 * 2 * 20}
    more = train("Pendulum-v1", **settings | {"steps": 50_000}, episodes_per_candidate=None, searches=2, seed=3)
    assert set(np.diff([0, *more.history["steps"]])) == {4 * 2 * 20, 6 * 20}


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

    assert [again.cut(used) for used in (0, 300, 899, 900, 1200, 1799, 1800)] == [50, 100, 200, 50, 100, 200, 50]
    assert [once.cut(used) for used in (900, 1200)] == [200, 200]


def test_bad_numbers_are_refused():
    for wrong in (0, 1.5, True, "3"):
        with pytest.raises(ValueError, match="searches must be a positive integer or None"):
            train("CartPole-v1", steps=1000, searches=wrong)  # type: ignore[arg-type]
    for wrong in (-5, 1.5, "a"):
        with pytest.raises((ValueError, TypeError), match=r"steps must be a (positive whole )?number, got"):
            train("CartPole-v1", steps=wrong, searches=None, check_episodes=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="searches=100 leave 300 of 30000 steps to each, less than an episode of 500"):
        train("CartPole-v1", steps=30_000, searches=100)
    with pytest.raises(ValueError, match="_steps must be a positive integer"):
        Searches(INNER, 0)
    with pytest.raises(TypeError, match="inner must"):
        Searches(esopt.CMAES)
    with pytest.raises(ValueError, match=r"searches=2 share a budget of steps, and there is none\. Pass steps="):
        train("CartPole-v1", generations=3, searches=2)
    with pytest.raises(ValueError, match=r"and Searches\(Halving\(Endless\(Elitist\(CMAES\)\)\), GradientES\) is none"):
        train("CartPole-v1", strategy=preset("default", "CartPole-v1").strategy, steps_per_generation=100)


def test_a_run_of_several_searches_resumes_in_the_same_bits_on_any_threads(tmp_path):
    settings = preset("default", "CartPole-v1").settings() | {
        "searches": 3, "steps": 30_000, "target": np.inf, "seed": 3, "final_episodes": 3,
    }  # fmt: skip
    once = train("CartPole-v1", **settings, workers=1)
    train("CartPole-v1", **settings, generations=once.result.generations // 2, checkpoint=tmp_path / "run.npz")
    resumed = train("CartPole-v1", **settings, workers=3, checkpoint=tmp_path / "run.npz")

    assert once.result.evaluator_state.search in {child(own_seed(3, 2), start) for start in range(3)}
    assert once.checks["mean_return"][-1] > 30.0  # of the last search, not of a new one: 9.5
    assert once.policy.folded.tobytes() == resumed.policy.folded.tobytes()
    assert once.result.mean.tobytes() == resumed.result.mean.tobytes()
    assert {k: v.tobytes() for k, v in once.checks.items()} == {k: v.tobytes() for k, v in resumed.checks.items()}


def test_the_default_preset_may_go_on_with_a_budget_of_more_searches(tmp_path):
    settings = preset("default", "CartPole-v1").settings() | {"target": np.inf, "seed": 3, "final_episodes": 3}
    settings |= {"episode_steps": 2, "checkpoint": tmp_path / "run.npz"}  # 15,000 episodes are 30,000 steps
    first, longer = (train("CartPole-v1", **settings | {"steps": steps}) for steps in (1_000, 61_000))
    third = train("CartPole-v1", **settings | {"steps": 91_000, "checkpoint": None})

    assert first.steps < 2_000
    assert longer.steps + longer.check_steps >= 61_000
    assert longer.result.evaluator_state.search == own_seed(3, 1)  # pairs
    assert third.result.evaluator_state.search in {child(own_seed(3, 2), start) for start in range(3)}


def test_another_start_finds_what_the_first_one_missed():
    """One long search with this seed ends at -398, the best of three short ones near -170."""
    settings = preset("default", "Pendulum-v1").settings() | {"target": np.inf, "steps": 1_500_000, "seed": 105}
    one, several = (train("Pendulum-v1", **settings | {"searches": count}).mean for count in (1, 3))

    assert one < -300.0
    assert several > -200.0
