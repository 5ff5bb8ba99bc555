"""Gymnasium's classic control as pairs of compiled functions, see ``esopt.rl.World``; the source is gymnasium 1.4.

Expressions are in the order of gymnasium's, constants included, and so are the places where a number becomes float32.
What is left are differences in the last place between numpy's sine or power and those of the C library. Settings lie in
the state behind what changes.
"""

import math

import numpy as np
from numba import njit

from .draws import uniform
from .jit import kernel
from .philox import F32
from .sincos import sincos

_POLE_LIMIT = 12 * 2 * math.pi / 360
_TOTAL_MASS = 0.1 + 1.0
_POLEMASS_LENGTH = 0.1 * 0.5


@njit(inline="always")
def _single(x):
    return np.float64(F32(x))


@kernel()
def cart_pole_reset(state, seed, observation):
    """Start. state: position, velocity, angle, angular velocity; whether rewards are those of Sutton and Barto."""
    for i in range(4):
        state[i] = -0.05 + 0.1 * uniform(seed, i)
        observation[i] = _single(state[i])


@kernel()
def cart_pole_step(state, action, observation):
    """Push left (0) or right (1); Barto, Sutton, Anderson (1983), Neuronlike adaptive elements."""
    x, x_dot, theta, theta_dot = state[0], state[1], state[2], state[3]
    force = 10.0 if action[0] == 1.0 else -10.0
    sine, cosine = sincos(theta)
    temp = (force + _POLEMASS_LENGTH * (theta_dot * theta_dot) * sine) / _TOTAL_MASS
    theta_acc = (9.8 * sine - cosine * temp) / (0.5 * (4.0 / 3.0 - 0.1 * (cosine * cosine) / _TOTAL_MASS))
    x_acc = temp - _POLEMASS_LENGTH * theta_acc * cosine / _TOTAL_MASS
    x = x + 0.02 * x_dot
    x_dot = x_dot + 0.02 * x_acc
    theta = theta + 0.02 * theta_dot
    theta_dot = theta_dot + 0.02 * theta_acc
    state[0], state[1], state[2], state[3] = x, x_dot, theta, theta_dot
    observation[0], observation[1] = _single(x), _single(x_dot)
    observation[2], observation[3] = _single(theta), _single(theta_dot)
    ended = x < -2.4 or x > 2.4 or theta < -_POLE_LIMIT or theta > _POLE_LIMIT
    reward = 1.0
    if state[4] != 0.0:
        reward = -1.0 if ended else 0.0
    return reward, ended


@njit(inline="always")
def _show_acrobot(state, observation):
    for i in range(2):
        sine, cosine = sincos(state[i])
        observation[2 * i], observation[2 * i + 1] = _single(cosine), _single(sine)
    observation[4], observation[5] = _single(state[2]), _single(state[3])


@kernel()
def acrobot_reset(state, seed, observation):
    """Start. state: two angles and their velocities."""
    for i in range(4):
        state[i] = _single(-0.1 + 0.2 * uniform(seed, i))
    _show_acrobot(state, observation)


@njit
def _acrobot_slopes(torque, theta1, theta2, dtheta1, dtheta2):
    """Return the derivatives of the state as in Sutton and Barto's book; unit masses and lengths, centres halfway."""
    sine, cosine = sincos(theta2)
    d1 = 0.25 + (1.25 + cosine) + 1.0 + 1.0
    d2 = (0.25 + 0.5 * cosine) + 1.0
    phi2 = 0.5 * 9.8 * math.cos(theta1 + theta2 - math.pi / 2.0)
    phi1 = (
        -0.5 * (dtheta2 * dtheta2) * sine
        - dtheta2 * dtheta1 * sine
        + 1.5 * 9.8 * math.cos(theta1 - math.pi / 2.0)
        + phi2
    )
    ddtheta2 = (torque + d2 / d1 * phi1 - 0.5 * (dtheta1 * dtheta1) * sine - phi2) / (0.25 + 1.0 - d2 * d2 / d1)
    ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
    return dtheta1, dtheta2, ddtheta1, ddtheta2


@njit
def _wrapped(x):
    """Return x in [-pi, pi]; one turn at a time, as gymnasium does it."""
    while x > math.pi:
        x -= 2.0 * math.pi
    while x < -math.pi:
        x += 2.0 * math.pi
    return x


@kernel()
def acrobot_step(state, action, observation):
    """Torque action - 1 for 0.2 s, in one step of the classical Runge-Kutta method."""
    torque = action[0] - 1.0
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    half, whole = 0.1, 0.2
    a0, a1, a2, a3 = _acrobot_slopes(torque, s0, s1, s2, s3)
    b0, b1, b2, b3 = _acrobot_slopes(torque, s0 + half * a0, s1 + half * a1, s2 + half * a2, s3 + half * a3)
    c0, c1, c2, c3 = _acrobot_slopes(torque, s0 + half * b0, s1 + half * b1, s2 + half * b2, s3 + half * b3)
    d0, d1, d2, d3 = _acrobot_slopes(torque, s0 + whole * c0, s1 + whole * c1, s2 + whole * c2, s3 + whole * c3)
    sixth = whole / 6.0
    state[0] = _wrapped(s0 + sixth * (a0 + 2.0 * b0 + 2.0 * c0 + d0))
    state[1] = _wrapped(s1 + sixth * (a1 + 2.0 * b1 + 2.0 * c1 + d1))
    state[2] = min(max(s2 + sixth * (a2 + 2.0 * b2 + 2.0 * c2 + d2), -4.0 * math.pi), 4.0 * math.pi)
    state[3] = min(max(s3 + sixth * (a3 + 2.0 * b3 + 2.0 * c3 + d3), -9.0 * math.pi), 9.0 * math.pi)
    _show_acrobot(state, observation)
    ended = -math.cos(state[0]) - math.cos(state[1] + state[0]) > 1.0
    return 0.0 if ended else -1.0, ended


@kernel()
def mountain_car_reset(state, seed, observation):
    """Start. state: position, velocity; velocity wanted at the goal; whether the continuous car has moved."""
    state[0] = -0.6 + 0.2 * uniform(seed, 0)
    state[1] = 0.0
    state[3] = 0.0
    observation[0], observation[1] = _single(state[0]), 0.0


@kernel()
def mountain_car_step(state, action, observation):
    """Accelerate left (0), not at all or right (2); Moore (1990), Efficient memory-based learning, chapter 4."""
    position, velocity = state[0], state[1]
    velocity += (action[0] - 1.0) * 0.001 + math.cos(3.0 * position) * -0.0025
    velocity = min(max(velocity, -0.07), 0.07)
    position = min(max(position + velocity, -1.2), 0.6)
    if position == -1.2 and velocity < 0.0:
        velocity = 0.0
    state[0], state[1] = position, velocity
    observation[0], observation[1] = _single(position), _single(velocity)
    return -1.0, position >= 0.5 and velocity >= state[2]


@njit
def _push_single(position, velocity, action, goal):
    """Do one step of the continuous car from a state in float32, which is what gymnasium keeps after the first."""
    pull = 0.0025 * math.cos(np.float64(F32(3.0) * position))
    if abs(action) <= 1.0:
        change = F32(F32(action) * F32(0.0015)) - F32(pull)
    else:
        change = F32(math.copysign(0.0015, action) - pull)
    velocity = min(max(F32(velocity + change), F32(-0.07)), F32(0.07))
    position = min(max(F32(position + velocity), F32(-1.2)), F32(0.6))
    if position == F32(-1.2) and velocity < F32(0.0):
        velocity = F32(0.0)
    return position, velocity, position >= F32(0.45) and velocity >= F32(goal)


@njit
def _push_double(position, velocity, action, goal):
    """Do the same in the first step, whose state is float64."""
    pull = 0.0025 * math.cos(3.0 * position)
    if abs(action) <= 1.0:
        change = np.float64(F32(F32(action) * F32(0.0015)) - F32(pull))
    else:
        change = math.copysign(0.0015, action) - pull
    velocity = min(max(velocity + change, -0.07), 0.07)
    position = min(max(position + velocity, -1.2), 0.6)
    if position == -1.2 and velocity < 0.0:
        velocity = 0.0
    return F32(position), F32(velocity), position >= 0.45 and velocity >= goal


@kernel()
def mountain_car_continuous_step(state, action, observation):
    """Accelerate by an action in [-1, 1]; 100 at the goal, less a tenth of the action's square at every step."""
    if state[3] != 0.0:
        position, velocity, ended = _push_single(F32(state[0]), F32(state[1]), action[0], state[2])
    else:
        position, velocity, ended = _push_double(state[0], state[1], action[0], state[2])
    state[0], state[1], state[3] = np.float64(position), np.float64(velocity), 1.0
    observation[0], observation[1] = state[0], state[1]
    return (100.0 if ended else 0.0) - action[0] * action[0] * 0.1, ended


@njit(inline="always")
def _show_pendulum(state, observation):
    sine, cosine = sincos(state[0])
    observation[0], observation[1] = _single(cosine), _single(sine)
    observation[2] = _single(state[1])


@kernel()
def pendulum_reset(state, seed, observation):
    """Start. state: angle from the top, angular velocity; gravity."""
    state[0] = -math.pi + 2.0 * math.pi * uniform(seed, 0)
    state[1] = -1.0 + 2.0 * uniform(seed, 1)
    _show_pendulum(state, observation)


@kernel()
def pendulum_step(state, action, observation):
    """Torque in [-2, 2] for 0.05 s; never ends."""
    theta, theta_dot, gravity = state[0], state[1], state[2]
    torque = min(max(F32(action[0]), F32(-2.0)), F32(2.0))
    angle = (theta + math.pi) % (2.0 * math.pi) - math.pi
    cost = angle * angle + 0.1 * (theta_dot * theta_dot) + np.float64(F32(0.001) * F32(torque * torque))
    theta_dot += (3.0 * gravity / 2.0 * math.sin(theta) + np.float64(F32(3.0) * torque)) * 0.05
    theta_dot = min(max(theta_dot, -8.0), 8.0)
    state[0] = theta + theta_dot * 0.05
    state[1] = theta_dot
    _show_pendulum(state, observation)
    return -cost, False
