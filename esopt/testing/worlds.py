"""Laws of compiled worlds: the same numbers as the environment that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..rl.engine import Array, World
from ..rl.observations import observations_of
from ._check import Check

_DO = "Write the expressions in the order of the environment's own, and round where it rounds."


def check_world(
    world: World,
    env: str | Callable[[], Any],
    set_state: Callable[[Any, Array], None],
    *,
    states: ArrayLike | None = None,
    episodes: int = 10,
    steps: int | None = None,
    follow: bool = False,
    rtol: float = 1.2e-7,
    reward_rtol: float = 1e-12,
) -> None:
    """Check that a world is the gymnasium environment that it stands for, step by step.

    Sizes and the time limit agree. Equal seeds give equal episodes, different seeds different ones, and nothing of an
    episode reaches the next. From equal states, equal actions give equal observations, rewards and ends, episode after
    episode, under random actions.

    Parameters
    ----------
    world : what to check.
    env : a gymnasium id, or a function that makes the environment.
    set_state : ``set_state(env, state)`` puts the environment without its wrappers into the world's ``state``.
    states : (k, s)  further states from which episodes start; those of ``reset`` come first.
    episodes : how many start from ``reset``.
    steps : checked in each episode at most; None for the time limit.
    follow : put the environment into the world's state at every step, so that rounding does not grow in chaos.
    rtol : of observations, relative to the largest entry of an observation, or to 1; float32's last place unless given.
    reward_rtol : of rewards, likewise.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> import numpy as np
    >>> from esopt.rl import CLASSIC_CONTROL
    >>> from esopt.testing import check_world
    >>> def put(env, state):
    ...     env.state = state[:4].copy()
    >>> check_world(CLASSIC_CONTROL["CartPole-v1"](), "CartPole-v1", put)
    """
    import gymnasium

    check = Check(world)
    made = gymnasium.make(env) if isinstance(env, str) else env()
    try:
        _check_sizes(check, world, made)
        _check_seeds(check, world, made)
        pair = _Pair(check, world, made, set_state, rtol, reward_rtol)
        limit = world.max_steps if steps is None else min(steps, world.max_steps)
        made.action_space.seed(1)
        for seed in range(episodes):
            world.reset(pair.state, np.uint64(seed), pair.observation)
            pair.play(limit, follow, f"the episode of seed {seed}")
        for index, state in enumerate([] if states is None else np.asarray(states, np.float64)):
            pair.state[:] = state
            pair.play(limit, follow, f"the episode from states[{index}]")
    finally:
        made.close()


def flat_action(action: Any) -> Array:
    """Return an action of a Box, Discrete, MultiDiscrete or MultiBinary space as a world takes it."""
    return np.array(action, np.float64).ravel()


class _Pair:
    """A world and its environment, which do the same."""

    def __init__(
        self,
        check: Check,
        world: World,
        env: Any,
        set_state: Callable[[Any, Array], None],
        rtol: float,
        reward_rtol: float,
    ) -> None:
        self.check, self.world, self.env, self.set_state = check, world, env, set_state
        self.flat = observations_of(env.observation_space).flat
        self.rtol, self.reward_rtol = rtol, reward_rtol
        self.state, self.observation = world.new_state(), np.zeros(world.inputs)

    def play(self, limit: int, follow: bool, where: str) -> None:
        """Play one episode from the world's state."""
        self.env.reset(seed=0)
        self.set_state(self.env.unwrapped, self.state)
        for step in range(limit):
            if follow and step:
                self.set_state(self.env.unwrapped, self.state)
            action = self.env.action_space.sample()
            reward, ended = self.world.step(self.state, flat_action(action), self.observation)
            seen, expected_reward, terminated, truncated, _ = self.env.step(action)
            at = f" (step {step + 1} of {where}, action {action})"
            self._close(f"observations agree{at}", self.observation, self.flat(seen), self.rtol)
            self._close(f"rewards agree{at}", [reward], [expected_reward], self.reward_rtol)
            self.check.require(
                bool(ended) == bool(terminated), f"ends agree{at}", got=ended, expected=terminated, do=_DO
            )
            last = step + 1 == self.world.max_steps
            self.check.require(
                bool(truncated) == last,
                f"episodes are cut at max_steps{at}",
                got=f"a cut in the environment: {truncated}",
                expected=last,
                do="Pass the environment's time limit as max_steps.",
            )
            if ended:
                break

    def _close(self, law: str, got: Any, expected: Any, rtol: float) -> None:
        size = max(1.0, float(np.abs(expected).max()))
        self.check.close(law, got, expected, do=_DO, tolerance=rtol, size=size)


def _check_sizes(check: Check, world: World, env: Any) -> None:
    found = world.inputs, world.actions, world.max_steps
    wanted = (
        observations_of(env.observation_space).inputs,
        flat_action(env.action_space.sample()).size,
        getattr(env.spec, "max_episode_steps", None) or world.max_steps,
    )
    do = "Take them from the environment's spaces and its spec."
    check.require(found == wanted, "inputs, actions and max_steps agree", got=found, expected=wanted, do=do)


def _check_seeds(check: Check, world: World, env: Any) -> None:
    env.action_space.seed(2)
    actions = [flat_action(env.action_space.sample()) for _ in range(min(20, world.max_steps))]
    state, observation = world.new_state(), np.zeros(world.inputs)
    first = _trace(world, 1, state, observation, actions)
    other = _trace(world, 2, state, observation, actions)
    again = _trace(world, 1, state, observation, actions)
    fresh = _trace(world, 1, world.new_state(), np.zeros(world.inputs), actions)
    do = "Write all of the observation, and all of the state that changes, in reset; take chance from the seed alone."
    for what, trace in (("after another episode", again), ("with a new state", fresh)):
        same = first.shape == trace.shape and np.array_equal(first, trace)
        check.require(same, f"equal seeds give equal episodes {what}", got=trace, expected=first, do=do)
    check.require(
        not np.array_equal(first, other),
        "different seeds give different episodes",
        got=other[0],
        expected="other numbers",
        do="Use the seed: esopt.rl.uniform(seed, index).",
    )


def _trace(world: World, seed: int, state: Array, observation: Array, actions: list[Array]) -> Array:
    """Return what an episode shows: a row (observation, reward) for every step."""
    world.reset(state, np.uint64(seed), observation)
    rows = [[*observation, 0.0]]
    for action in actions:
        reward, ended = world.step(state, action, observation)
        rows.append([*observation, float(reward)])
        if ended:
            break
    return np.array(rows)
