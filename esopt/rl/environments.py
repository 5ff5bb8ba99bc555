"""Environments as users name them, and the seeds of their episodes.

Episode seeds are whole numbers below 2**31, in three parts that never meet: :data:`TRAIN`, :data:`CHECK` and
:data:`FINAL`.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine import World

EnvSource = str | Callable[[], Any] | World | Any
"""A gymnasium id, a ``gymnasium.envs.registration.EnvSpec`` (an id with keyword arguments), a function without
arguments that returns an environment, or a :class:`esopt.rl.World`."""

TRAIN = range(0, 2**30)
"""Episode seeds of candidates."""
CHECK = range(2**30, 3 * 2**29)
"""Episode seeds for looking at the centre while it is trained."""
FINAL = range(3 * 2**29, 2**31)
"""Episode seeds for evaluating a policy; no training run has seen them."""

_KEEPS_ITS_WORLD = "gymnasium.envs.box2d.bipedal_walker"


def episode_seeds(seeds: NDArray[np.int64] | list[int], episodes: int, part: range = TRAIN) -> NDArray[np.int64]:
    """Return the seeds of ``episodes`` consecutive episodes in ``part`` for each of ``seeds`` (m,), (m, episodes)."""
    if isinstance(seeds, list):  # numpy makes floats of numbers on both sides of 2**63
        seeds = np.array([seed % len(part) for seed in seeds], np.int64)
    starts = (seeds % len(part)).astype(np.int64)
    return part.start + (starts[:, None] + np.arange(episodes)) % len(part)


def env_name(env: EnvSource) -> str:
    """Return a name of the environment for people and files."""
    if isinstance(env, str):
        return env
    for name in ("id", "name", "__name__"):
        found = getattr(env, name, None)
        if isinstance(found, str) and found != "<lambda>":
            return found
    return type(env).__name__ if not callable(env) else "environment"


def make_env(env: EnvSource, **options: Any) -> Any:
    """Return a new environment, with its own time limit and without gymnasium's checks of every step.

    ``options`` are keyword arguments of ``gymnasium.make``, for ids only.

    Raises
    ------
    ValueError  for an id that nobody registered, with the nearest ones, and for vector environments.
    TypeError  for anything that is no environment.
    """
    import gymnasium

    if isinstance(env, World):
        raise TypeError(f"{env.name} is a World, which compiled code plays. Pass a gymnasium id or a function.")
    if isinstance(env, (str, gymnasium.envs.registration.EnvSpec)):
        try:
            made = gymnasium.make(env, disable_env_checker=True, **options)
        except gymnasium.error.DependencyNotInstalled as error:
            raise ModuleNotFoundError(f"{env_name(env)} needs a library that is not installed: {error}.") from error
        except gymnasium.error.Error as error:
            raise ValueError(_unknown(env_name(env), error)) from None
    elif callable(env):
        made = env()
    else:
        raise TypeError(
            f"the environment is of type {type(env).__name__}. Pass a gymnasium id such as CartPole-v1, or a function "
            "without arguments that makes the environment."
        )
    if hasattr(made, "num_envs"):
        made.close()
        raise ValueError(
            f"{env_name(env)} made a vector environment of {made.num_envs}. Pass what makes a single one; "
            "workers= and threads= are how several are played at once."
        )
    for member in ("reset", "step", "observation_space", "action_space"):
        if not hasattr(made, member):
            raise TypeError(
                f"{env_name(env)} made a {type(made).__name__}, which has no {member}. "
                "Expected a gymnasium.Env. Return gymnasium.make(...), or a subclass of gymnasium.Env."
            )
    return made


def registered(name: str) -> Any:
    """Return the EnvSpec that ``gymnasium.make`` finds, for ``module:id`` or an id without version too; else None."""
    import gymnasium
    from gymnasium.envs.registration import find_highest_version, get_env_id, parse_env_id

    module, _, name = name.rpartition(":")
    if module:
        import_module(module)
    try:
        space, kind, version = parse_env_id(name)
    except gymnasium.error.Error:
        return None
    version = find_highest_version(space, kind) if version is None else version
    return gymnasium.registry.get(name if version is None else get_env_id(space, kind, version))


def env_spaces(env: EnvSource) -> tuple[Any, Any, Any]:
    """Return the observation space, the action space and the spec (or None) of the environment."""
    if isinstance(env, World):
        if env.spaces is None:
            raise ValueError(
                f"the World {env.name} does not say its spaces, so that no policy can be made for it. "
                "Pass spaces= to World(), or policy=, a Policy with parameters."
            )
        return *env.spaces(), None
    made = make_env(env)
    try:
        return made.observation_space, made.action_space, getattr(made, "spec", None)
    finally:
        made.close()


def has_limit(env: EnvSource) -> bool:
    """Return whether something cuts the episodes of ``env`` after some number of steps: its spec, or a TimeLimit."""
    import gymnasium

    if isinstance(env, World):
        return True
    made = layer = make_env(env)
    try:
        if getattr(getattr(made, "spec", None), "max_episode_steps", None) is not None:
            return True
        while isinstance(layer, gymnasium.Wrapper) and not isinstance(layer, gymnasium.wrappers.TimeLimit):
            layer = layer.env
        return isinstance(layer, gymnasium.wrappers.TimeLimit)
    finally:
        made.close()


def reset_env(env: Any, seed: int) -> Any:
    """Return the first observation of the episode ``seed``, whatever was played before.

    BipedalWalker keeps its physical world from episode to episode, and with it what the order of contacts depends on:
    equal seeds and actions give other returns. It gets a new one, as LunarLander does by itself since issue 728 of
    gymnasium.

    Raises
    ------
    TypeError  for an environment whose reset is not that of ``gymnasium.Env``.
    """
    inner = getattr(env, "unwrapped", env)
    if any(kind.__module__ == _KEEPS_ITS_WORLD for kind in type(inner).__mro__):
        from Box2D import b2World

        inner._destroy()
        inner.terrain, inner.world = [], b2World()
    try:
        found = env.reset(seed=seed)
    except TypeError as error:
        parameters = inspect.signature(inner.reset).parameters.values()
        if any(each.name == "seed" or each.kind is each.VAR_KEYWORD for each in parameters):
            raise
        raise TypeError(
            "reset() takes no seed. Expected reset(*, seed=None, options=None), as gymnasium.Env has it. Add the "
            "parameters, and draw what is random from the seed"
        ) from error
    if not (isinstance(found, tuple) and len(found) == 2):
        raise TypeError(
            f"reset() must return (observation, info), got {_what(found)}. "
            "Return observation, {}, as gymnasium.Env does"
        )
    return found[0]


def bare_step(env: Any) -> tuple[Callable[[Any], Any], float]:
    """Return ``step`` below the outer layers of ``env`` that only count or check, and after how many steps they cut.

    Those are gymnasium's TimeLimit and OrderEnforcing themselves, no subclasses and nothing that was given another
    ``step``. Whoever steps then cuts. Ask after a reset, which may change any of this.
    """
    from gymnasium.wrappers import OrderEnforcing, TimeLimit

    limit: float = math.inf
    while type(env) in (TimeLimit, OrderEnforcing) and "step" not in vars(env):
        if type(env) is TimeLimit:
            limit = min(limit, env._max_episode_steps)
        env = env.env
    return env.step, limit


def bad_step(found: Any) -> TypeError:
    """Return the error for what ``step`` returned, if it is not what ``gymnasium.Env`` asks for."""
    if not isinstance(found, tuple) or len(found) != 5:
        return TypeError(
            f"step() must return (observation, reward, terminated, truncated, info), got {_what(found)}. "
            "Return all five, as gymnasium.Env does"
        )
    return TypeError(f"step() must return a number as the reward, got {found[1]!r:.60}. Return float(reward)")


def _what(found: Any) -> str:
    return f"a tuple of {len(found)}" if isinstance(found, tuple) else f"a {type(found).__name__}"


def prepare_rendering() -> None:
    """Let MuJoCo render without a display where there is none and nobody said how."""
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def _unknown(name: str, error: Exception) -> str:
    import gymnasium

    near = difflib.get_close_matches(name, list(gymnasium.registry), 3, 0.5)
    advice = f"Did you mean {' or '.join(near)}? " if near else ""
    return (
        f"no environment {name} is registered with gymnasium: {error} {advice}"
        "Pass a registered id, import the package that registers it, or pass a function that makes the environment."
    )
