"""Episodes that grow: the cut, the same bits on every path, what counts as a step, and that it pays."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from esopt.rl import GymEngine, Lengthening, Policy, Recipe, Rollouts, Rules, Workers, preset, train
from esopt.rl.budgets import default_steps, plan
from esopt.rl.classic_control import CLASSIC_CONTROL
from esopt.rl.engine import CompiledEngine
from tests.reference.environments import Walk

WALKER = Recipe().for_spaces(Walk.observation_space, Walk.action_space)


def test_the_cut_doubles_and_every_length_gets_the_same_share():
    lengths = Lengthening(50, 200, 900)

    assert [lengths.cut(used) for used in (0, 299, 300, 599, 600, 899, 5000)] == [50, 50, 100, 100, 200, 200, 200]
    assert [Lengthening(30, 100, 3).cut(used) for used in range(4)] == [30, 60, 100, 100]
    assert {Lengthening(7, 7, 10).cut(used) for used in range(30)} == {7}
    assert Lengthening.over(0.25, 1000, 300_000) == Lengthening(250, 1000, 300_000)
    assert Lengthening.over(0.001, 100, 1) == Lengthening(1, 100, 1)


def test_a_shorter_cut_for_one_call_on_every_path():
    """Walk ends by itself after 3 to 6 steps."""
    thetas, seeds = np.random.default_rng(2).standard_normal((4, 6)), np.arange(8).reshape(4, 2)
    own = 3 + seeds % 4
    workers = Workers(Walk, WALKER, 2)
    for rules in (Rules(), Rules(5)):
        here = GymEngine(Walk, WALKER, rules)
        most = rules.max_steps or 9
        for longest in (None, 4, 100):
            played = here.play(thetas, seeds, longest=longest)
            assert played.lengths.tolist() == np.minimum(own, min(most, longest or 9)).tolist()
            if rules.max_steps is None:
                theirs = workers.play(thetas, seeds, longest=longest)
                for a, b in zip(played[:4], theirs[:4], strict=True):
                    np.testing.assert_array_equal(a, b)
    workers.close()


def test_compiled_episodes_are_cut_for_one_call():
    world = CLASSIC_CONTROL["Pendulum-v1"]()
    policy = Policy.linear(world)
    thetas, seeds = np.random.default_rng(1).standard_normal((3, policy.dim)), np.arange(6).reshape(3, 2)
    whole, short = CompiledEngine(world, policy, threads=1), CompiledEngine(world, policy, threads=1, max_steps=30)
    cut, again = whole.play(thetas, seeds, longest=30), whole.play(thetas, seeds)

    for a, b in zip(cut[:4], short.play(thetas, seeds)[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (again.lengths == 200).all()
    assert (short.play(thetas, seeds, longest=99).lengths == 30).all()


@pytest.mark.parametrize("path", ["compiled", "process"])
def test_candidates_are_cut_and_checks_are_not(path: str):
    policy = Policy.linear(CLASSIC_CONTROL["Pendulum-v1"]())
    rollouts = Rollouts(
        "Pendulum-v1", policy, check_every=2, check_episodes=1, path=path, lengthening=Lengthening(100, 200, 1000)
    )
    state, strategy, used, cuts = rollouts.init(), esopt.ars(n=4), 0, []
    search = strategy.init(policy.parameters, 1)
    for _ in range(6):
        cuts.append(rollouts.lengthening.cut(used))
        before = state
        evals, state = rollouts.evaluate(strategy.ask(search), state)
        search, _ = strategy.tell(search, evals)
        assert state.steps - before.steps == 4 * cuts[-1]
        assert evals.steps == 4 * cuts[-1] + state.check_steps - before.check_steps
        used += evals.steps
    rollouts.close()

    assert cuts[0] == 100
    assert cuts == sorted(cuts)
    assert cuts[-1] == 200
    assert state.check_steps == 3 * 200


def test_train_takes_a_share_of_the_longest_episode_and_of_the_budget():
    settings = dict(
        lengthening=0.5, check_episodes=1, check_every=100, final_episodes=1, strategy=esopt.ars(n=2), seed=1
    )
    run = train("Pendulum-v1", steps=2000, **settings)
    rows = np.diff(run.history["steps"], prepend=0) / 2
    lengths = Lengthening(100, 200, 2000)

    assert rows.tolist() == [
        lengths.cut(used) for used in (0, *(run.history["steps"] + run.history["check_steps"])[:-1].astype(int))
    ]
    assert rows[0] == 100
    assert run.evaluation_steps == 200
    short = train("Pendulum-v1", generations=1, episode_steps=40, **settings)
    assert short.steps == 2 * 20
    assert default_steps("Pendulum-v1") == 200_000
    assert train(Walk, generations=2, **settings).steps > 0  # no limit is known: whole episodes


def test_episodes_of_a_candidate_follow_the_budget():
    settings = dict(episodes_per_candidate=None, check_episodes=1, check_every=100, final_episodes=1)
    strategy, played = esopt.CMAES(n=4, share="generation"), []
    for steps, episode_steps in ((4000, 10), (4000, 3), (16_000, 3), (None, 10)):
        budget = {"generations": 1, "steps": steps}
        run = train("Pendulum-v1", strategy=strategy, episode_steps=episode_steps, **budget, **settings)
        played.append(run.steps // (4 * episode_steps))

    assert played == [1, 2, 4, 1]
    alone = train("Pendulum-v1", strategy=esopt.CMAES(n=4), episode_steps=3, generations=1, steps=16_000, **settings)
    assert alone.steps == 4 * 3  # an average over candidates that play different episodes is one over episodes too


@pytest.mark.parametrize(
    ("env", "steps", "given", "checks"),
    [
        ("Pendulum-v1", 3_000_000, None, 27),  # 15,000 episodes of 200 steps, one of twenty for checks: 27 of 27
        ("Pendulum-v1", 30_000, None, 4),
        ("Pendulum-v1", None, None, 10),
        ("Pendulum-v1", 3_000_000, 5, 5),
        (lambda: Walk(), 3_000_000, None, 10),
    ],
)
def test_checks_get_more_episodes_from_a_richer_budget(env, steps: int | None, given: int | None, checks: int):
    planned = plan(env, (steps, 5, None, None), 1, given, None, None, None)

    assert planned.check_episodes == checks
    assert planned.names == (frozenset() if given else {"check_episodes"})


def test_a_lucky_check_does_not_decide_where_returns_scatter():
    """Half of Pendulum's starts are easy: with checks of four episodes this run kept a policy of -248."""
    settings = preset("default", "Pendulum-v1").settings() | {"target": np.inf, "steps": 3_000_000}
    run = train("Pendulum-v1", seed=100, **settings)

    assert run.mean > -200.0


def test_a_resumed_run_goes_on_with_the_bits_of_a_whole_one(tmp_path):
    settings = dict(lengthening=0.25, steps=4000, check_episodes=2, confirm=2, final_episodes=2, seed=3)

    def stop(row):
        if row.generation == 5:
            raise StopIteration

    whole = train("Pendulum-v1", **settings)
    train("Pendulum-v1", callback=stop, out=tmp_path, **settings)
    resumed = train("Pendulum-v1", out=tmp_path, resume=True, **settings)

    assert resumed.policy.folded.tobytes() == whole.policy.folded.tobytes()
    assert (resumed.steps, resumed.check_steps) == (whole.steps, whole.check_steps)


def test_a_run_goes_on_with_a_larger_budget_and_the_episodes_that_it_pays_for(tmp_path):
    settings = dict(
        strategy=esopt.Endless(esopt.CMAES(n=4, share="generation")),
        lengthening=0.5,
        episode_steps=4,
        check_every=100,
        final_episodes=1,
    )
    planned, file = settings | {"episodes_per_candidate": None, "check_episodes": None}, tmp_path / "run.npz"
    train("Pendulum-v1", steps=600, checkpoint=file, **planned)
    longer = train("Pendulum-v1", steps=12_000, checkpoint=file, **planned)

    assert np.diff(longer.history["steps"])[0] == 4 * 3 * 2  # four candidates, three episodes, half of four steps
    assert np.diff(longer.checks["check_steps"])[-1] == 12 * 4  # 3,000 episodes, half of a tenth for checks
    assert longer.reason.keys() == {"steps"}
    for name in ("episodes_per_candidate", "check_episodes"):
        with pytest.raises(esopt.CheckpointError, match="episodes"):
            train("Pendulum-v1", steps=20_000, checkpoint=file, **planned | {name: 3})


def test_what_does_not_fit_is_said():
    for arguments in ((0, 5, 5), (1, 5, 0), (1, 5.0, 5), (True, 5, 5)):
        with pytest.raises(ValueError, match="Pass a positive whole number"):
            Lengthening(*arguments)
    with pytest.raises(ValueError, match="first <= last"):
        Lengthening(6, 5, 5)
    with pytest.raises(ValueError, match=r"lengthening must be in \(0, 1\], got 2"):
        train("CartPole-v1", lengthening=2, generations=1)
    with pytest.raises(ValueError, match=r"lengthening must be in \(0, 1\], got 'half'"):
        train("CartPole-v1", lengthening="half", generations=1)
    with pytest.raises(ValueError, match="averaging must be None, 0 or a positive number, got 'polyak'"):
        train("CartPole-v1", averaging="polyak", generations=1)
    with pytest.raises(TypeError, match="lengthening must be a Lengthening or None, got 0"):
        Rollouts("CartPole-v1", WALKER, lengthening=0.25)
    with pytest.raises(ValueError, match="confirm must be a whole number, 0 or more"):
        Rollouts(Walk, WALKER, confirm=-1)
