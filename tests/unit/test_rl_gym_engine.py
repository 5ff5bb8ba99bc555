"""Episodes of gymnasium environments in this process: returns, lengths, moments, seeds, failures."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import Autoreset

import esopt
from esopt.rl import GymEngine, Policy, Recipe, Rules, make_env
from esopt.rl.environments import CHECK, FINAL, TRAIN, env_name, episode_seeds
from esopt.rl.gym_engine import EpisodeError
from tests.reference.environments import Aim, Troubled, Walk, plain_episode, pyramid

WALKER = Recipe().for_spaces(Walk.observation_space, Walk.action_space)
RIGHT, LEFT = [0, 0, 0, 0, 0, 1.0], [0.0] * 6


def folded(*thetas) -> np.ndarray:
    return np.array(thetas, np.float64)


def test_returns_lengths_and_moments_of_a_walk():
    played = GymEngine(Walk, WALKER).play(folded(RIGHT, LEFT), np.array([[5, 6, 7], [5, 6, 7]]))

    assert played.returns.tolist() == [[pyramid(k) for k in (4, 5, 6)], [-pyramid(k) for k in (4, 5, 6)]]
    assert played.lengths.tolist() == [[4, 5, 6]] * 2
    assert played.counts.tolist() == [15, 15]
    # What was acted on: times 0 ... length - 1; the observation after the last step is not among them.
    assert played.sums.tolist() == [[6 + 10 + 15, 7 * 15]] * 2
    assert played.squares.tolist() == [[14 + 30 + 55, 49 * 15]] * 2
    assert played.failures == {}


SHOWN = {
    "list": lambda row: row.tolist(),
    "float64": lambda row: row.astype(np.float64),
    "whole numbers": lambda row: row.astype(np.int16),
    "big-endian": lambda row: row.astype(">f4"),
    "every other number": lambda row: np.repeat(row, 2)[::2],
    "a subclass": lambda row: row.view(np.recarray),
    "a masked array": lambda row: np.ma.masked_array(row, [False, False]),
    "numbers as objects": lambda row: row.astype(object),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_observations_of_any_kind_are_the_same_numbers(kind: str):
    class Shown(Walk):
        def observe(self):
            return SHOWN[kind](super().observe())

    seeds = np.array([[5, 6, 7]])
    played, expected = (GymEngine(env, WALKER).play(folded(RIGHT), seeds) for env in (Shown, Walk))
    for a, b in zip(played[:4], expected[:4], strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 2), (2, 1)])
def test_observations_of_another_shape_are_refused(shape: tuple[int, ...]):
    class Odd(Walk):
        def observe(self):
            return np.ones(shape, np.float32)

    with pytest.raises(EpisodeError, match=r"an observation of shape .* Pass one of shape \(2,\)"):
        GymEngine(Odd, WALKER).play(folded(RIGHT), np.array([[5]]))


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0"])
def test_equals_a_plain_loop_over_gymnasium(name: str):
    env = gym.make(name)
    policy = Policy.linear(env)
    rng = np.random.default_rng(1)
    thetas, seeds = rng.standard_normal((2, policy.dim)), np.array([[40, 41], [7, 40]])
    mean, std = rng.normal(size=env.observation_space.shape), 1.0 + rng.random(env.observation_space.shape)
    engine = GymEngine(name, policy, Rules(max_steps=150))
    played = engine.play(policy.fold(thetas, mean, std), seeds)
    engine.close()

    for row, theta in enumerate(thetas):
        act = policy.with_parameters(theta).with_normalisation(mean, std)
        found = [plain_episode(gym.wrappers.TimeLimit(env, 150), act, int(seed)) for seed in seeds[row]]
        assert played.returns[row].tolist() == [total for total, _, _ in found]
        assert played.lengths[row].tolist() == [steps for _, steps, _ in found]
        seen = np.concatenate([rows for _, _, rows in found])
        np.testing.assert_allclose(played.sums[row], seen.sum(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(played.squares[row], (seen**2).sum(axis=0), rtol=1e-12)
    env.close()


def test_a_time_limit_counts_wherever_it_is():
    class Other(gym.wrappers.TimeLimit):
        def step(self, action):
            *found, _ = super().step(action)
            return *found, {"steps": self._elapsed_steps}

    class Patched(Walk):
        def reset(self, *, seed=None, options=None):
            self.step = lambda action: Walk.step(self, action)
            return super().reset(seed=seed, options=options)

    def given_another_step():
        env = limit(Walk(), 3)
        env.step = lambda action: (*limit.step(env, action)[:3], env._elapsed_steps == 2, {})
        return env

    limit, order = gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing
    for make, length, counted in (  # by the outermost layer: nothing where it is left out
        (lambda: limit(order(Walk()), 3), 3, 0),
        (lambda: limit(order(limit(Walk(), 2)), 3), 2, 0),
        (lambda: limit(order(limit(Walk(), 3)), 2), 2, 0),
        (lambda: Other(limit(Walk(), 3), 2), 2, 2),
        (lambda: limit(Other(Walk(), 2), 3), 2, 0),
        (lambda: limit(gym.wrappers.TransformReward(limit(Walk(), 3), float), 9), 3, 0),
        (lambda: limit(Patched(), 3), 3, 0),
        (given_another_step, 2, 2),
    ):
        made = []
        engine = GymEngine(lambda make=make, made=made: made.append(make()) or made[-1], WALKER)
        assert engine.play(folded(RIGHT), np.array([[5, 6]])).lengths.tolist() == [[length, length]]
        assert made[0]._elapsed_steps == counted
        again = GymEngine(make, WALKER, Rules(max_steps=2)).play(folded(RIGHT), np.array([[5, 6]]))
        assert again.lengths.tolist() == [[2, 2]]


def test_dict_observations_and_multi_binary_actions():
    class Lights(gym.Env):
        observation_space = spaces.Dict({"lamp": spaces.Discrete(3), "level": spaces.Box(0.0, 1.0, (2,))})
        action_space = spaces.MultiBinary(2)

        def reset(self, *, seed=None, options=None):
            self.time = 0
            return {"lamp": 2, "level": np.array([0.25, 0.5], np.float32)}, {}

        def step(self, action):
            self.time += 1
            return {"lamp": 0, "level": np.zeros(2, np.float32)}, float(action[1]), self.time == 2, False, {}

    policy = Policy.linear(Lights())
    theta = np.zeros((1, policy.dim))
    theta[0, -1] = 1.0  # the bias of the second action
    played = GymEngine(Lights, policy).play(theta, np.array([[0]]))

    assert played.returns.tolist() == [[2.0]]
    assert played.sums.tolist() == [[1.0, 0.0, 1.0, 0.25, 0.5]]  # in the order of gymnasium.spaces.flatten


@pytest.mark.parametrize("cut", [1, 4])
def test_max_steps_cuts_episodes(cut: int):
    played = GymEngine(Walk, WALKER, Rules(max_steps=cut)).play(folded(RIGHT), np.array([[2, 3]]))

    assert played.lengths.tolist() == [[min(5, cut), min(6, cut)]]
    assert played.returns.tolist() == [[pyramid(cut), pyramid(cut)]]


def test_a_wrapper_that_resets_by_itself_leaks_no_step():
    """NEXT_STEP autoreset: after an end, step() is a reset with reward 0 whose action is ignored."""
    plain = GymEngine(Walk, WALKER).play(folded(RIGHT, RIGHT), np.array([[5, 6], [7, 8]]))
    log: list = []
    wrapped = GymEngine(lambda: Autoreset(Walk(log)), WALKER).play(folded(RIGHT, RIGHT), np.array([[5, 6], [7, 8]]))

    for ours, theirs in zip(wrapped[:4], plain[:4], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert log == [5, 6, 7, 8]  # and it never reset by itself


def test_vector_environments_are_refused():
    with pytest.raises(ValueError, match=r"made a vector environment of 2. Pass what makes a single one"):
        GymEngine(lambda: gym.make_vec("CartPole-v1", 2), WALKER).play(folded(RIGHT), np.array([[1]]))


def test_an_environment_is_made_once_kept_and_closed():
    made: list[Walk] = []

    def make() -> Walk:
        made.append(Walk())
        return made[-1]

    engine = GymEngine(make, WALKER)
    assert made == []
    for seed in range(5):
        engine.play(folded(RIGHT), np.array([[seed]]))
    assert len(made) == 1
    assert not made[0].closed
    engine.close()
    engine.close()
    assert made[0].closed
    engine.play(folded(RIGHT), np.array([[0]]))
    assert len(made) == 2


class OldReset(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class NoInfo(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], None


class Inner(Walk):
    def reset(self, *, seed=None, options=None):
        return (lambda: None)(seed=seed)


class Seedless(Walk):
    def reset(self):
        return super().reset(seed=0)


class OldStep(Walk):
    def step(self, action):
        return super().step(action)[:4]


class ArrayReward(Walk):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, np.array([reward]), *rest


WRONG = {
    OldReset: r"step 0: reset\(\) must return \(observation, info\), got a ndarray. Return observation, {}, as gymn",
    Seedless: r"step 0: reset\(\) takes no seed. Expected reset\(\*, seed=None, options=None\), as gymnasium.Env has",
    Inner: r"step 0: .*<lambda>\(\) got an unexpected keyword argument 'seed'",
    OldStep: r"step 1: step\(\) must return \(observation, reward, .*\), got a tuple of 4. Return all five",
    ArrayReward: r"step 1: step\(\) must return a number as the reward, got array\(\[1.\].*\). Return float\(reward\)",
}


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_what_is_no_gymnasium_environment_is_told_what_one_is(kind: type):
    with pytest.raises(EpisodeError, match=WRONG[kind]):
        GymEngine(kind, WALKER).play(folded(RIGHT), np.array([[5]]))
    assert np.isfinite(GymEngine(NoInfo, WALKER).play(folded(RIGHT), np.array([[5]])).returns).all()


TROUBLES = {
    "raises": ("exception", "raised ZeroDivisionError in step 2: no physics today"),
    "nan": ("nan", "returned a reward that is nan within 2 steps"),
    "blind": ("nan", r"returned an observation that is not finite within \d steps"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_failures_stop_with_the_seed_that_reproduces_them(trouble: str):
    kind, what = TROUBLES[trouble]
    engine = GymEngine(lambda: Troubled(trouble), WALKER)
    with pytest.raises(EpisodeError, match=rf"the episode with seed 9 \(row 1, episode 2\) {what}\.") as caught:
        engine.play(folded(RIGHT, RIGHT), np.array([[2, 3, 4], [6, 8, 9]]))

    error = caught.value
    assert isinstance(error, esopt.EvaluationError)
    assert (error.row, error.episode, error.seed, error.kind) == (1, 2, 9, kind)
    assert isinstance(error.__cause__, ZeroDivisionError if trouble == "raises" else type(None))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_failures_are_counted_and_leave_no_trace(trouble: str):
    seeds = np.array([[4, 5, 6], [7, 8, 9]])
    played = GymEngine(lambda: Troubled(trouble), WALKER, on_error="nan").play(folded(RIGHT, RIGHT), seeds)
    good = GymEngine(Walk, WALKER)

    assert np.argwhere(np.isnan(played.returns)).tolist() == [[0, 1], [1, 2]]
    assert played.failures == {TROUBLES[trouble][0]: 2}
    assert (played.lengths > 0).all()  # what was played was paid for
    for row, kept in ((0, [4, 6]), (1, [7, 8])):
        alone = good.play(folded(RIGHT), np.array([kept]))
        assert played.counts[row] == alone.counts[0]
        np.testing.assert_array_equal(played.sums[row], alone.sums[0])
        np.testing.assert_array_equal(played.squares[row], alone.squares[0])


def test_an_environment_that_raised_is_made_anew():
    made: list[Troubled] = []

    def make() -> Troubled:
        made.append(Troubled("raises"))
        return made[-1]

    GymEngine(make, WALKER, on_error="nan").play(folded(RIGHT), np.array([[4, 5, 6]]))

    assert [env.closed for env in made] == [True, False]
    assert made[1].log == [6]


def test_action_noise_is_gaussian_of_the_seed_and_left_out_when_quiet():
    seen: list[float] = []

    class Watch(Aim):
        def step(self, action):
            seen.append(float(action[0]))
            return super().step(action)

    policy = Policy.linear(Aim([]))
    engine = GymEngine(lambda: Watch([]), policy, Rules(action_noise=0.5))
    seeds = np.arange(2000)[None, :]
    first = engine.play(folded([0.0, 2.0]), seeds).returns
    noise = np.array(seen) - 2.0
    again = engine.play(folded([0.0, 2.0]), seeds).returns
    quiet = engine.play(folded([0.0, 2.0]), seeds, quiet=True).returns

    np.testing.assert_array_equal(first, again)
    assert abs(noise.mean()) < 4.0 * 0.5 / np.sqrt(2000)
    assert noise.std() == pytest.approx(0.5, rel=0.08)
    np.testing.assert_allclose(quiet, -(1.3**2), rtol=1e-12)


def test_the_parts_of_the_seeds_never_meet():
    assert TRAIN.stop <= CHECK.start < CHECK.stop <= FINAL.start < FINAL.stop <= 2**31
    for seed in (0, 1, 2**30 - 1, 2**32 - 1, 2**64 - 1):
        for part in (TRAIN, CHECK, FINAL):
            found = episode_seeds([seed], 5, part)[0].tolist()
            assert len(set(found)) == 5
            assert set(found) <= set(part[:10]) | set(part[-10:])
    assert episode_seeds([3, 9], 2).tolist() == [[3, 4], [9, 10]]


UNKNOWN = {
    "HalfChetah-v5": "Did you mean .*HalfCheetah-v5",
    "CartPole-v7": "Did you mean .*CartPole-v1",
    "Nothing like it": "Pass a registered id, import the package",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_ids_get_suggestions(name: str):
    with pytest.raises(ValueError, match=f"no environment {name} is registered with gymnasium: .*{UNKNOWN[name]}"):
        make_env(name)


def test_what_is_no_environment():
    with pytest.raises(TypeError, match=r"the environment is of type int. Pass a gymnasium id"):
        make_env(3)
    with pytest.raises(TypeError, match="made a list, which has no reset"):
        make_env(list)


def test_names():
    assert env_name("CartPole-v1") == env_name(gym.spec("CartPole-v1")) == "CartPole-v1"
    assert env_name(Walk) == "Walk"
    assert env_name(lambda: Walk()) == "environment"
    assert make_env(gym.spec("CartPole-v1")).spec.id == "CartPole-v1"


def test_bad_rules():
    for steps in (0, 1.5, True):
        with pytest.raises(ValueError, match="max_steps must be a positive whole number"):
            Rules(max_steps=steps)
    with pytest.raises(ValueError, match="action_noise must be 0 or more"):
        Rules(action_noise=-1.0)


def test_bipedal_walker_forgets_earlier_episodes():
    pytest.importorskip("Box2D")
    policy = Policy.linear(make_env("BipedalWalker-v3"))
    thetas = np.random.default_rng(0).normal(scale=0.3, size=(6, policy.parameters.size))
    seeds = np.arange(6)[:, None]
    alone = []
    for k in range(6):
        engine = GymEngine("BipedalWalker-v3", policy)
        alone.append(engine.play(thetas[k : k + 1], seeds[k : k + 1]).returns[0, 0])
        engine.close()
    engine = GymEngine("BipedalWalker-v3", policy)

    assert engine.play(thetas, seeds).returns[:, 0].tolist() == alone
    assert engine.play(thetas[::-1], seeds[::-1]).returns[:, 0].tolist() == alone[::-1]
    engine.close()
