"""Presets: the published settings, and strategies whose unit is sigma."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import esopt
from esopt.rl import Policy, Preset, make_env, preset, train
from esopt.rl.presets import PRESETS, parse_policy, resized, with_strategy
from esopt.rl.searches import SearchesState

# alpha, nu, N, b of RL Baselines3 Zoo, and what a step without a fall is worth.
ZOO = {
    "Swimmer-v5": (0.02, 0.01, 1, 1, 0.0),
    "Hopper-v5": (0.01, 0.025, 8, 4, 1.0),
    "HalfCheetah-v5": (0.02, 0.03, 32, 4, 0.0),
    "Walker2d-v5": (0.03, 0.025, 40, 30, 1.0),
    "Ant-v5": (0.015, 0.025, 60, 20, 1.0),
    "Humanoid-v5": (0.02, 0.0075, 256, 256, 5.0),
    "Pendulum-v1": (0.018, 0.1, 4, 1, 0.0),
    "BipedalWalker-v3": (0.02, 0.0075, 64, 32, 0.1),
    "BipedalWalkerHardcore-v3": (0.02, 0.0075, 64, 32, 0.1),
    # Others: the defaults of sb3-contrib.
    "CartPole-v1": (0.02, 0.05, 8, 8, 0.0),
    "LunarLanderContinuous-v3": (0.02, 0.05, 8, 8, 0.0),
}


@pytest.mark.parametrize("env", ZOO)
def test_ars_is_that_of_the_zoo(env: str):
    lr, sigma, pairs, top, bonus = ZOO[env]
    found = preset("ars", env)

    assert repr(found.strategy) == repr(esopt.ars(n=2 * pairs, top=top, sigma=sigma, lr=lr))
    assert found.bonus == bonus
    assert found.normalise == ("off" if env == "Swimmer-v5" else "running")
    hidden = env.startswith(("Pendulum", "BipedalWalker"))
    assert found.policy == (Policy.mlp(16, activation="relu", squash="tanh") if hidden else Policy.linear())


def test_speed_limits_of_clipup():
    slow, others = ("Walker2d-v5", "Swimmer-v5", "HalfCheetah-v5"), ("CartPole-v1", "Pendulum-v1", "BipedalWalker-v3")
    for env in (*slow, "LunarLanderContinuous-v3", *others):
        speed = 0.015 if env in slow else 0.15 if env in others else 0.3
        rule = preset("pgpe", env).strategy.rule
        assert (rule.max_speed, rule.lr, rule.momentum) == (speed, None, 0.9)


def test_orthogonal_is_ars_with_directions_that_are():
    found, rows = preset("orthogonal", "Hopper-v5"), esopt.ars(n=16, sigma=1.0, lr=0.7)
    noise = found.strategy.ask(found.strategy.init(np.zeros(36), 3)).noise.rows()

    assert repr(found.strategy) == repr(replace(rows, sampler=esopt.Antithetic(esopt.Orthogonal())))
    np.testing.assert_allclose(noise[::2] @ noise[::2].T, np.diag((noise[::2] ** 2).sum(axis=1)), atol=1e-4)
    assert (found.bonus, preset("orthogonal", "Swimmer-v5").bonus) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("env", "hidden", "kind"),
    [
        ("CartPole-v1", (8,), "HalvingState"),
        ("Pendulum-v1", (8,), "HalvingState"),
        ("Swimmer-v5", (), "HalvingState"),
        ("HalfCheetah-v5", (), "GradientState"),
        ("Hopper-v5", (), "GradientState"),
        ("Walker2d-v5", (), "GradientState"),
    ],
)
def test_the_default_goes_by_the_number_of_parameters(env: str, hidden: tuple[int, ...], kind: str):
    found, made = preset("default", env), make_env(env)
    policy = found.policy.of(made)
    state = found.strategy.init(policy.parameters, 1)
    first = found.strategy.ask(state)
    search = state.inner if isinstance(state, SearchesState) else state
    made.close()

    assert (policy.hidden, type(search).__name__) == (hidden, kind)
    assert len(set(first.seeds)) == (1 if kind == "HalvingState" else len(first) // 2)
    assert len(first) == {"HalvingState": 14, "GradientState": 16 if env == "Hopper-v5" else 32}[kind]


def test_the_default_differs_by_the_alive_bonus_alone():
    fragile = {"bonus", "strategy", "lengthening"}
    falls, stays = ([preset("default", name) for name in names] for names in (("Hopper-v5", "Humanoid-v5"), ("A", "B")))
    for pair, expected in ((falls, {"bonus"}), (stays, set()), ((falls[0], stays[0]), fragile)):
        first, second = (found.settings() for found in pair)
        assert {name for name in first if repr(first[name]) != repr(second[name])} == expected
    assert [found.strategy.many.sigma for found in (falls[0], stays[0])] == [0.03, 0.1]
    assert [preset("default", name).bonus for name in ("gymnasium:Hopper-v5", "x:y/Ant-v5", "Ant")] == [1.0] * 3


def test_the_default_learns_within_a_small_budget():
    run = train("CartPole-v1", **preset("default", "CartPole-v1").settings() | {"steps": 60_000}, seed=1)

    assert run.checks["mean_return"][0] < 50.0
    assert run.mean > 400.0


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains(name: str):
    found = preset(name, "CartPole-v1")
    run = train("CartPole-v1", **found.settings() | {"steps": 3000, "check_episodes": 1}, final_episodes=2)

    assert isinstance(found, Preset)
    assert found.source
    assert set(run.reason) == {"steps"}
    assert run.policy.hidden == found.policy.hidden


@pytest.mark.parametrize("name", ["ars", "cmaes", "openai_es", "pgpe"])
def test_strategies_have_sigma_as_their_unit(name: str):
    """Twice the sigma is the same search on twice the scale, weight decay aside."""
    means, base = [], preset("default", "CartPole-v1")
    for sigma in (0.5, 1.0):
        es = esopt.Optimizer(with_strategy(base, name, 16, sigma).strategy, np.zeros(6), seed=2)
        for _ in range(5):
            es.tell([((x / sigma - 1.0) ** 2).sum() for x in es.ask()])
        means.append(es.mean)

    assert np.abs(means[0]).max() > 0.05
    np.testing.assert_allclose(means[1], 2.0 * means[0], rtol=0.02)


@pytest.mark.parametrize("dim", [6, 101])
def test_the_default_with_another_size_and_width_is_the_same_search(dim: int):
    """Still by dimension, and twice the sigma is the same search on twice the scale."""
    means, default = [], preset("default", "CartPole-v1").strategy
    for sigma in (0.2, 0.4):
        es = esopt.Optimizer(resized(default, 12, sigma), np.zeros(dim), seed=2)
        assert es.ask().shape == (12, dim)
        for _ in range(5):
            es.tell([((x / sigma - 1.0) ** 2).sum() for x in es.ask()])
        means.append(es.mean)

    assert type(es.state.inner if dim == 6 else es.state).__name__ == ("HalvingState" if dim == 6 else "GradientState")
    assert np.abs(means[0]).max() > 0.02
    np.testing.assert_allclose(means[1], 2.0 * means[0], rtol=1e-6)
    assert repr(resized(default, None, None)) == repr(default)
    assert (resized(default, 12, 0.2).few.other.n, resized(default, 12, 0.2).few.other.sigma) == (12, 0.2)


def test_policies_by_name():
    assert parse_policy("linear") == Policy.linear()
    assert parse_policy("mlp:64,32") == Policy.mlp(64, 32)
    assert parse_policy("mlp:8:relu") == Policy.mlp(8, activation="relu")
    assert parse_policy("rnn:16") == Policy.rnn(16)
    for bad in ("", "mlp", "mlp:", "mlp:a", "mlp:8:elu", "linear:3", "mlp:0", "rnn", "rnn:4,4", "rnn:4:tanh"):
        with pytest.raises(ValueError, match=r"Pass linear, mlp:64,64 .*, or rnn:16"):
            parse_policy(bad)
