"""Rollouts as an evaluator: values, seeds, moments, checks of the centre, failures, the choice of the path."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest

import esopt
from esopt.noise import child
from esopt.rl import GymEngine, Moments, Policy, Recipe, Rollouts, Running, Workers, choose_engine, make_env
from esopt.rl.budgets import longest_episode
from esopt.rl.classic_control import CLASSIC_CONTROL
from esopt.rl.engine import CompiledEngine
from esopt.rl.environments import CHECK, TRAIN, episode_seeds
from esopt.rl.training import train
from tests.reference.environments import Aim, Troubled, Walk, plain_episode, pyramid

WALKER = Recipe().for_spaces(Walk.observation_space, Walk.action_space)
CARTPOLE = Policy.linear(gym.make("CartPole-v1"))


def population(dim: int, n: int = 6, generation: int = 0, sigma: float = 1.0) -> esopt.Population:
    return esopt.Population(np.zeros(dim), sigma, esopt.Antithetic().noise(esopt.Key(9, generation), n, dim))


def test_values_are_minus_the_mean_return_of_the_candidates_own_episodes():
    log: list[int] = []
    made = population(6)
    rollouts = Rollouts(lambda: Walk(log), WALKER, episodes=3)
    evals, state = rollouts.evaluate(made, rollouts.init())

    seeds = episode_seeds(made.seeds, 3, TRAIN)
    assert log == seeds.ravel().tolist()
    assert (seeds[0::2] == seeds[1::2]).all()  # common random numbers within a pair
    expected = []
    for theta, row in zip(made.rows(), seeds, strict=True):
        act = WALKER.with_parameters(theta)
        expected.append(-np.mean([plain_episode(Walk(), act, int(seed))[0] for seed in row]))
    np.testing.assert_array_equal(evals.values, expected)
    assert evals.steps == state.steps == sum(3 + seed % 4 for seed in log)
    assert state.mean_return == pytest.approx(-np.mean(expected), rel=1e-14)
    assert state.top_return == -min(expected)


def test_the_bonus_is_removed_from_every_step_of_candidates_only():
    plain, less = (Rollouts(Walk, WALKER, episodes=2, bonus=b, check_episodes=2) for b in (0.0, 0.75))
    made = population(6)
    (first, known), (second, state) = (r.evaluate(made, r.init()) for r in (plain, less))
    lengths = 3 + episode_seeds(made.seeds, 2, TRAIN) % 4

    np.testing.assert_allclose(second.values, first.values + 0.75 * lengths.mean(axis=1), rtol=1e-13)
    assert state.mean_return == known.mean_return
    np.testing.assert_array_equal(state.checks, known.checks)


def test_normalisation_is_frozen_in_a_generation_and_merged_in_order_after_it():
    rollouts = Rollouts("CartPole-v1", CARTPOLE, path="process", episodes=2)
    state, env, seen = rollouts.init(), gym.make("CartPole-v1"), []
    for generation in range(3):
        made = population(CARTPOLE.dim, generation=generation)
        mean = np.mean(seen, axis=0) if seen else np.zeros(4)
        std = np.std(seen, axis=0) if seen else np.ones(4)
        evals, state = rollouts.evaluate(made, state)
        values = []
        for theta, row in zip(made.rows(), episode_seeds(made.seeds, 2), strict=True):
            act = CARTPOLE.with_parameters(theta).with_normalisation(mean, std)
            found = [plain_episode(env, act, int(seed)) for seed in row]
            values.append(-np.mean([total for total, _, _ in found]))
            seen += [observation for _, _, rows in found for observation in rows]
        np.testing.assert_array_equal(evals.values, values)
        assert state.moments.count == len(seen)
        np.testing.assert_allclose(state.moments.mean, np.mean(seen, axis=0), rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(state.moments.std(), np.std(seen, axis=0), rtol=1e-10)
    env.close()
    rollouts.close()


def test_normalisation_off_given_and_late():
    made, walk = population(6), Rollouts(Walk, WALKER)
    given = Moments.of(np.array([[0.0, 5.0], [4.0, 9.0]]))
    fixed = Rollouts(Walk, WALKER, normalise=given)
    own = Rollouts(Walk, WALKER.with_normalisation([2.0, 7.0], [2.0, 2.0]), normalise="off")
    late = Rollouts(Walk, WALKER, normalise=Running(after=1))

    values, state = fixed.evaluate(made, fixed.init())
    np.testing.assert_array_equal(values.values, own.evaluate(made, own.init())[0].values)
    assert state.moments is given
    assert not np.array_equal(values.values, walk.evaluate(made, walk.init())[0].values)
    assert own.evaluate(made, own.init())[1].moments.count == 0
    _, state = late.evaluate(made, late.init())
    assert state.moments.count == 0
    assert late.normalisation(state)[1].tolist() == [1.0, 1.0]
    _, state = late.evaluate(made, state)
    assert state.moments.count == Rollouts(Walk, WALKER).evaluate(made, walk.init())[1].moments.count > 0
    with pytest.raises(ValueError, match="moments of 3 inputs, but the policy has 2"):
        Rollouts(Walk, WALKER, normalise=Moments.none(3))


def test_checks_look_at_the_centre_on_seeds_of_their_own():
    log: list[int] = []
    mean = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    rollouts = Rollouts(lambda: Walk(log), WALKER, check_every=2, check_episodes=3, seed=4)
    made, state = population(6), rollouts.init()
    for generation in range(3):
        before = len(log)
        evals, state = rollouts.evaluate(esopt.Population(mean, 1.0, made.noise), state)
        checks = [seed for seed in log[before:] if seed in CHECK]
        assert checks == ([] if generation == 1 else episode_seeds([child(4, generation)], 3, CHECK)[0].tolist())
        assert evals.steps == sum(3 + seed % 4 for seed in log[before:])  # checks are paid for
    seeds = episode_seeds([child(4, 0), child(4, 2)], 3, CHECK)
    returns = [np.mean([pyramid(3 + seed % 4) for seed in row]) for row in seeds.tolist()]

    assert state.checks[:, 0].tolist() == [0, 2]
    assert state.checks[:, 3].tolist() == returns
    assert state.best_return == max(returns)
    assert state.best.tolist() == mean.tolist()
    assert state.check_steps == int((3 + seeds % 4).sum())
    assert state.steps == sum(3 + seed % 4 for seed in log if seed in TRAIN)


def test_checks_by_themselves_take_about_a_tenth():
    rollouts, state = Rollouts("CartPole-v1", CARTPOLE, check_episodes=3), None
    state = rollouts.init()
    for generation in range(60):
        _, state = rollouts.evaluate(population(CARTPOLE.dim, generation=generation), state)

    assert 0.07 < state.check_steps / state.steps < 0.12
    assert state.checks[0, 0] == 0


def test_the_best_centre_is_kept_with_its_normalisation():
    rollouts = Rollouts(lambda: Aim([]), Policy.linear(Aim([])), check_every=1, check_episodes=1)
    state = rollouts.init()
    for generation, bias in enumerate((0.0, 0.7, 5.0)):
        noise = esopt.Antithetic().noise(esopt.Key(1, generation), 4, 2)
        _, state = rollouts.evaluate(esopt.Population(np.array([0.0, bias]), 1e-3, noise), state)

    assert state.best.tolist() == [0.0, 0.7]
    assert state.best_mean.tolist() == [1.0]
    assert state.checks[:, 3] == pytest.approx([-0.49, 0.0, -(4.3**2)], abs=1e-15)


@pytest.mark.parametrize("averaging", [0.0, 3.0])
def test_averages_of_the_centres_are_checked(averaging: float):
    """With 0 they are plain means; with k the weights of Shamir and Zhang are (t + 1)(t + 2)...(t + k) for centre t."""
    rollouts = Rollouts(
        lambda: Aim([]), Policy.linear(Aim([])), check_every=1, check_episodes=1, averaging=averaging, normalise="off"
    )
    state, centres, averages = rollouts.init(), [0.4, 1.1, -0.2, 0.9, 3.0, 0.8], []
    for generation, bias in enumerate(centres[:-1]):
        noise = esopt.Antithetic().noise(esopt.Key(1, generation), 4, 2)
        _, state = rollouts.evaluate(esopt.Population(np.array([0.0, bias]), 1e-3, noise), state)
        averages.append(state.average[1])
    state = rollouts.look(np.array([0.0, centres[-1]]), state)
    averages.append(state.average[1])
    weights = np.prod([np.arange(6) + i for i in range(1, int(averaging) + 1)], axis=0) * np.ones(6)
    expected = np.cumsum(weights * centres) / np.cumsum(weights)

    np.testing.assert_allclose(averages, expected, rtol=1e-13)
    np.testing.assert_allclose(state.checks[:, 3], -((expected - 0.7) ** 2), rtol=1e-10)
    assert state.best[1] == averages[int(np.argmax(state.checks[:, 3]))]


def test_another_search_begins_another_average():
    rollouts = Rollouts(
        lambda: Aim([]), Policy.linear(Aim([])), check_every=1, check_episodes=1, averaging=9.0, normalise="off"
    )
    state, averages = rollouts.init(), []
    for generation, (seed, bias) in enumerate([(1, 0.4), (1, 1.1), (2, -0.2), (2, 0.9), (2, 3.0)]):
        noise = esopt.Antithetic().noise(esopt.Key(seed, generation), 4, 2)
        _, state = rollouts.evaluate(esopt.Population(np.array([0.0, bias]), 1e-3, noise), state)
        averages.append(state.average[1])
    state = rollouts.look(np.array([0.0, 2.0]), state)

    second = -0.2 + 10.0 / 11.0 * 1.1
    third = second + 10.0 / 12.0 * (3.0 - second)
    expected = [0.4, 0.4 + 10.0 / 11.0 * 0.7, -0.2, second, third, third + 10.0 / 13.0 * (2.0 - third)]
    np.testing.assert_allclose([*averages, state.average[1]], expected, rtol=1e-13)


@pytest.mark.parametrize("trouble", ["raises", "nan"])
def test_failures_stop_with_a_message_that_reproduces_them(trouble: str):
    made = population(6, generation=7)
    rollouts = Rollouts(lambda: Troubled(trouble, every=2), WALKER, episodes=2)
    state = rollouts.init()
    with pytest.raises(
        esopt.EvaluationError, match=r"candidate \d of generation 7 \(run with seed 9\): episode"
    ) as caught:
        rollouts.evaluate(made, state)
    error = caught.value
    line = str(error).split("Reproduce it with: ")[1].split(", where")[0]

    assert f"of seed {error.seed}, " in str(error)
    with pytest.raises(esopt.EvaluationError, match=f"the episode with seed {error.seed} "):
        eval(line, {"esopt": esopt, "env": rollouts.env, "error": error})
    np.testing.assert_array_equal(error.x, made[int(str(error).split()[1])])


def test_the_line_that_reproduces_a_failure_runs_after_train():
    def fragile():
        class Fragile(gym.Wrapper):
            def step(self, action):
                observation, *rest = self.env.step(action)
                if abs(observation[0]) > 2.0:
                    raise RuntimeError(f"at {observation[0]!r}")
                return observation, *rest

        return Fragile(gym.make("CartPole-v1"))

    with pytest.raises(esopt.EvaluationError) as caught:
        train(fragile, generations=60, action_noise=0.1, path="process", seed=2)
    line = str(caught.value).split("Reproduce it with: ")[1].split(", where")[0]
    assert "error.policy, path='process', action_noise=0.1)" in line
    with pytest.raises(esopt.EvaluationError) as again:
        eval(line, {"esopt": esopt, "env": fragile, "error": caught.value})
    assert str(caught.value.__cause__) == str(again.value.__cause__)
    assert " of generation 0 " not in str(caught.value)  # normalised by what earlier generations saw


def test_failures_are_nan_counted_and_not_observed():
    made = population(6)
    rollouts = Rollouts(lambda: Troubled("raises", every=2), WALKER, episodes=2, on_error="nan")
    evals, state = rollouts.evaluate(made, rollouts.init())  # every second episode fails
    bad = episode_seeds(made.seeds, 2) % 2 == 1

    np.testing.assert_array_equal(np.isnan(evals.values), bad.any(axis=1))
    assert evals.failures == {"exception": int(bad.sum())}
    assert state.moments.count == int((3 + episode_seeds(made.seeds, 2) % 4)[~bad].sum())


@pytest.mark.parametrize("count", [1, 2])
def test_workers_and_this_process_agree_to_the_bit(count: int):
    rows = []
    for settings in ({"path": "process"}, {"path": "workers", "workers": count}):
        rollouts = Rollouts("Pendulum-v1", Policy.linear(make_env("Pendulum-v1")), max_steps=20, **settings)
        state = rollouts.init()
        for generation in range(2):
            evals, state = rollouts.evaluate(population(4, generation=generation), state)
        rollouts.close()
        rows.append(
            (evals.values.tobytes(), state.moments.sums.tobytes(), state.moments.squares.tobytes(), state.steps)
        )

    assert rows[0] == rows[1]


def test_threads_change_no_bit():
    rows = []
    for workers in (1, 2, 3):
        rollouts = Rollouts("Acrobot-v1", Policy.linear(make_env("Acrobot-v1")), workers=workers, action_noise=0.1)
        evals, state = rollouts.evaluate(population(21, n=32), rollouts.init())
        rollouts.close()
        rows.append((evals.values.tobytes(), state.moments.sums.tobytes(), state.steps))

    assert rows[0] == rows[1] == rows[2]


def test_the_path_is_chosen_said_and_can_be_forced():
    def chosen(env, **settings):
        choice = choose_engine(env, CARTPOLE, **settings)
        choice.engine.close()
        return type(choice.engine), choice.law, choice.why

    assert chosen("CartPole-v1") == (CompiledEngine, "compiled", "this id has a compiled world")
    assert chosen(CLASSIC_CONTROL["CartPole-v1"]())[:2] == (CompiledEngine, "compiled")
    assert chosen(gym.spec("CartPole-v1"))[0] is CompiledEngine
    assert chosen("CartPole-v1", path="process")[:2] == (GymEngine, "gymnasium")
    assert chosen("CartPole-v1", path="workers", workers=2)[:2] == (Workers, "gymnasium")
    other = copy.deepcopy(gym.spec("CartPole-v1"))  # the registry keeps its own
    other.max_episode_steps = 100
    assert chosen(other) == (
        GymEngine,
        "gymnasium",
        "its episodes have another length than those of the compiled world",
    )
    assert chosen(lambda: gym.make("CartPole-v1"))[2].startswith("it is a function or wrapped")
    assert chosen(Walk, workers=2)[0] is chosen(Walk, episode_timeout=3.0)[0] is Workers
    for name in ("CartPole", "gymnasium:CartPole-v1", "gymnasium:CartPole"):  # as gymnasium.make takes them
        assert chosen(name) == chosen("CartPole-v1")
        assert longest_episode(name) == 500
    for name in ("FrozenLake-v1", "gymnasium:FrozenLake-v1", "Nowhere-v0"):
        assert chosen(name)[2] == "there is no compiled world for it"
    with pytest.raises(ValueError, match="Walk cannot be played with path='compiled': it is a function"):
        chosen(Walk, path="compiled")
    with pytest.raises(ValueError, match="path must be one of auto, compiled, workers, process, envpool, got 'fast'"):
        chosen(Walk, path="fast")
    with pytest.raises(ValueError, match="episode_timeout= needs processes"):
        chosen(Walk, path="process", episode_timeout=1.0)


def test_rollouts_are_an_objective_for_checkpoints(tmp_path):
    file, search = tmp_path / "run.npz", dict(strategy=esopt.ars(n=4), final_evaluations=0)

    def run(generations: int, **settings):
        rollouts = Rollouts(Walk, WALKER, episodes=2, check_episodes=1, **settings)
        return esopt.minimize(None, np.zeros(6), evaluator=rollouts, generations=generations, checkpoint=file, **search)

    run(2)
    resumed = run(5)
    file.unlink()
    whole = run(5)

    assert resumed.x.tobytes() == whole.x.tobytes()
    for ours, theirs in zip(*(vars(r.evaluator_state).items() for r in (resumed, whole)), strict=True):
        if isinstance(ours[1], np.ndarray):
            np.testing.assert_array_equal(ours[1], theirs[1])
    with pytest.raises(esopt.CheckpointError, match=r"bonus: 0.0 in the file, 1.0 here"):
        run(6, bonus=1.0)
    assert run(6, workers=2, path="workers").generations == 6  # how it is played may change


def test_the_objective_can_be_called():
    rollouts = Rollouts(Walk, WALKER, episodes=3)

    assert rollouts.objective.f(np.array([0, 0, 0, 0, 0, 1.0]), 5) == (-(pyramid(4) + pyramid(5) + pyramid(6)) / 3, 15)


def test_bad_arguments():
    for settings, message in (
        ({"episodes": 0}, "episodes must be a positive integer"),
        ({"check_every": 0}, "check_every must be a positive integer"),
        ({"averaging": -1.0}, "averaging must be None, 0 or a positive number"),
        ({"check_episodes": -1}, "check_episodes must be a whole number"),
        ({"bonus": np.nan}, "bonus must be a finite number"),
        ({"on_error": "ignore"}, 'on_error must be "raise" or "nan"'),
    ):
        with pytest.raises(ValueError, match=message):
            Rollouts(Walk, WALKER, **settings)
    with pytest.raises(TypeError, match="policy must be a Policy for the spaces of Walk, got Recipe"):
        Rollouts(Walk, Policy.linear())
    with pytest.raises(ValueError, match="the population needs grads, but episodes have no derivatives"):
        Rollouts(Walk, WALKER).evaluate(population(6).needing("grads"), Rollouts(Walk, WALKER).init())


class Luck(Walk):
    """One step, whose reward is the bias of the policy and normal noise from the seed."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        self.noise = luck(int(seed))
        return observation, info

    def step(self, action):
        observation, _, _, truncated, info = super().step(action)
        return observation, self.noise, True, truncated, info


def luck(seed: int) -> float:
    return float(np.random.default_rng(seed).standard_normal())


@pytest.mark.parametrize("confirm", [0, 4])
def test_a_new_best_centre_has_to_hold_up(confirm: int):
    """All centres are equally good: the naive rule is recomputed, and more episodes make the best one less lucky."""
    log: list[int] = []
    rollouts = Rollouts(lambda: Luck(log), WALKER, check_every=1, check_episodes=3, confirm=confirm, seed=2)
    state, best, means = rollouts.init(), -np.inf, []
    for generation in range(40):
        del log[:]
        _, state = rollouts.evaluate(population(6, generation=generation), state)
        played = [seed for seed in log if seed in CHECK]
        seeds = episode_seeds([child(2, generation)], 3 * (1 + confirm), CHECK)[0].tolist()
        returns = np.array([luck(seed) for seed in seeds])
        count = 3
        while count < len(seeds) and np.isfinite(best):
            lead = returns[:count].mean() - best
            if lead < 0.0 or lead > 3.0 * returns[:count].std(ddof=1) / count**0.5:
                break
            count += 3
        assert played == seeds[:count]
        means.append(returns[:count].mean())
        best = max(best, means[-1])
        assert state.best_return == pytest.approx(best, rel=1e-13)
    np.testing.assert_allclose(state.checks[:, 3], means, rtol=1e-12)
    assert (best > 1.0) == (confirm == 0)  # the best of 40 means of 3 is near 2.16 / sqrt(3) = 1.25


def test_confirming_stays_within_the_tenth_of_the_steps():
    rollouts, state = Rollouts(Luck, WALKER, check_episodes=2, confirm=50), None
    state = rollouts.init()
    for generation in range(300):
        _, state = rollouts.evaluate(population(6, generation=generation), state)

    assert 0.045 < state.check_steps / state.steps < 0.11
    assert len(state.checks) > 25
