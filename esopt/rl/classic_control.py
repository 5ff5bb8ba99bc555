"""Gymnasium's classic control as compiled worlds: the same observations, rewards and ends, hundreds of times faster.

Equal to gymnasium 1.4 from equal start states, but for the last place of a sine; start states have the same law and
other numbers. The keyword arguments are those of ``gymnasium.make``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .._kernels import classic_control as kernels
from .engine import Array, World
from .seats import own_lines


def cart_pole(*, sutton_barto_reward: bool = False) -> World:
    """Return the world of CartPole-v1; see gymnasium for ``sutton_barto_reward``."""
    settings = 0.0, 0.0, 0.0, 0.0, float(sutton_barto_reward)
    return _world("CartPole-v1", 4, 500, kernels.cart_pole_reset, kernels.cart_pole_step, settings)


def acrobot() -> World:
    """Return the world of Acrobot-v1."""
    return _world("Acrobot-v1", 6, 500, kernels.acrobot_reset, kernels.acrobot_step, (0.0, 0.0, 0.0, 0.0))


def mountain_car(*, goal_velocity: float = 0.0) -> World:
    """Return the world of MountainCar-v0."""
    settings = 0.0, 0.0, float(goal_velocity), 0.0
    return _world("MountainCar-v0", 2, 200, kernels.mountain_car_reset, kernels.mountain_car_step, settings)


def mountain_car_continuous(*, goal_velocity: float = 0.0) -> World:
    """Return the world of MountainCarContinuous-v0."""
    settings = 0.0, 0.0, float(goal_velocity), 0.0
    step = kernels.mountain_car_continuous_step
    return _world("MountainCarContinuous-v0", 2, 999, kernels.mountain_car_reset, step, settings)


def pendulum(*, g: float = 10.0) -> World:
    """Return the world of Pendulum-v1."""
    return _world("Pendulum-v1", 3, 200, kernels.pendulum_reset, kernels.pendulum_step, (0.0, 0.0, float(g)))


CLASSIC_CONTROL: Mapping[str, Callable[..., World]] = {
    "Acrobot-v1": acrobot,
    "CartPole-v1": cart_pole,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car_continuous,
    "Pendulum-v1": pendulum,
}
"""What makes the world of a gymnasium id."""


def _world(
    name: str,
    inputs: int,
    max_steps: int,
    reset: Callable[..., Any],
    step: Callable[..., Any],
    state: tuple[float, ...],
) -> World:
    return World(name, inputs, 1, max_steps, reset, step, partial(_fresh, state), partial(_spaces, name))


def _fresh(state: tuple[float, ...]) -> Array:
    fresh = own_lines(len(state))
    fresh[:] = state
    return fresh


def _spaces(name: str) -> tuple[Any, Any]:
    import gymnasium

    env = gymnasium.make(name)
    try:
        return env.observation_space, env.action_space
    finally:
        env.close()
