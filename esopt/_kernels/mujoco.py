"""Resets and steps of gymnasium's MuJoCo environments, around the library's own mj_step.

Each function is the ``reset`` or ``step`` of a :class:`esopt.rl.World`; ``state`` is that of ``simulation``. The
arithmetic follows gymnasium's v5 sources operation by operation. Actions are float32, as their space says: numpy then
computes the control cost in float32, and so do we, sums in numpy's pairwise order included.
"""

import numpy as np
from numba import njit

from . import simulation as mj
from .draws import uniform
from .jit import kernel

# HalfCheetah, Hopper, Walker2d, Swimmer.


@njit
def _observe_planar(state, observation):
    at = mj.append(mj.positions(state), mj.word(state, mj.HIDDEN), -np.inf, np.inf, observation, 0)
    mj.append(mj.velocities(state), 0, -state[mj.SPEED], state[mj.SPEED], observation, at)


@njit
def _healthy_planar(state):
    """Tell by CHECKS: 0 is always healthy, 1 looks at height and angle, 2 at other positions and velocities too."""
    checks = mj.word(state, mj.CHECKS)
    if checks == 0:
        return True
    qpos, qvel = mj.positions(state), mj.velocities(state)
    healthy = state[mj.Z_LOW] < qpos[1] < state[mj.Z_HIGH] and state[mj.ANGLE_LOW] < qpos[2] < state[mj.ANGLE_HIGH]
    if checks == 2:
        for i in range(2, qpos.size):
            healthy = healthy and state[mj.STATE_LOW] < qpos[i] < state[mj.STATE_HIGH]
        for i in range(qvel.size):
            healthy = healthy and state[mj.STATE_LOW] < qvel[i] < state[mj.STATE_HIGH]
    return healthy


@kernel()
def reset_planar(state, seed, observation):
    """HalfCheetah, Hopper, Walker2d, Swimmer, InvertedPendulum."""
    mj.restart(state, seed)
    _observe_planar(state, observation)


@kernel()
def step_planar(state, action, observation):
    """HalfCheetah, Hopper, Walker2d, Swimmer."""
    qpos = mj.positions(state)
    before = qpos[0]
    mj.advance(state, action)
    velocity = (qpos[0] - before) / state[mj.DT]
    _observe_planar(state, observation)
    healthy = _healthy_planar(state)
    reward = state[mj.FORWARD] * velocity + (state[mj.HEALTHY] if healthy else 0.0)
    return reward - mj.control_cost(state, action), mj.word(state, mj.ENDS) != 0 and not healthy


# Ant, Humanoid, HumanoidStandup.


@njit
def _observe_body(state, observation):
    """Positions, velocities, then the PARTS, all without the world's own row."""
    rows, parts, low, high = mj.word(state, mj.NBODY), mj.word(state, mj.PARTS), -np.inf, np.inf
    at = mj.append(mj.positions(state), mj.word(state, mj.HIDDEN), low, high, observation, 0)
    at = mj.append(mj.velocities(state), 0, low, high, observation, at)
    if parts & mj.INERTIA:
        at = mj.append(mj.field(state, mj.CINERT, 10 * rows), 10, low, high, observation, at)
    if parts & mj.VELOCITY:
        at = mj.append(mj.field(state, mj.CVEL, 6 * rows), 6, low, high, observation, at)
    if parts & mj.ACTUATORS:
        at = mj.append(mj.field(state, mj.QFRC_ACTUATOR, mj.word(state, mj.NV)), 6, low, high, observation, at)
    if parts & mj.EXTERNAL:
        low, high = state[mj.FORCE_LOW], state[mj.FORCE_HIGH]
        mj.append(mj.field(state, mj.CFRC_EXT, 6 * rows), 6, low, high, observation, at)


@njit
def _contact_cost(state):
    forces = mj.field(state, mj.CFRC_EXT, 6 * mj.word(state, mj.NBODY))
    cost = state[mj.CONTACT] * mj.squares64(forces, state[mj.FORCE_LOW], state[mj.FORCE_HIGH])
    return mj.clip(cost, state[mj.CONTACT_LOW], state[mj.CONTACT_HIGH])


@njit
def _centre_of_mass(state):
    """Return the first coordinate of the centre of mass."""
    nbody = mj.word(state, mj.NBODY)
    mass, xipos = mj.field(state, mj.BODY_MASS, nbody), mj.field(state, mj.XIPOS, 3 * nbody)
    moment = total = 0.0
    for i in range(nbody):
        moment += mass[i] * xipos[3 * i]
        total += mass[i]
    return moment / total


@kernel()
def reset_body(state, seed, observation):
    """Ant, Humanoid, HumanoidStandup."""
    mj.restart(state, seed)
    _observe_body(state, observation)


@kernel()
def step_ant(state, action, observation):
    """Ant."""
    qpos, qvel, xpos = mj.positions(state), mj.velocities(state), mj.places(state)
    at = 3 * mj.word(state, mj.BODY)
    before = xpos[at]
    mj.advance(state, action)
    mj.library(state, mj.MJ_POST)
    velocity = (xpos[at] - before) / state[mj.DT]
    _observe_body(state, observation)
    healthy = state[mj.Z_LOW] <= qpos[2] <= state[mj.Z_HIGH]
    for i in range(qpos.size):
        healthy = healthy and np.isfinite(qpos[i])
    for i in range(qvel.size):
        healthy = healthy and np.isfinite(qvel[i])
    reward = velocity * state[mj.FORWARD] + (state[mj.HEALTHY] if healthy else 0.0)
    reward -= mj.control_cost(state, action) + _contact_cost(state)
    return reward, mj.word(state, mj.ENDS) != 0 and not healthy


@kernel()
def step_humanoid(state, action, observation):
    """Humanoid."""
    qpos = mj.positions(state)
    before = _centre_of_mass(state)
    mj.advance(state, action)
    mj.library(state, mj.MJ_POST)
    velocity = (_centre_of_mass(state) - before) / state[mj.DT]
    _observe_body(state, observation)
    healthy = state[mj.Z_LOW] < qpos[2] < state[mj.Z_HIGH]
    reward = state[mj.FORWARD] * velocity + (state[mj.HEALTHY] if healthy else 0.0)
    reward -= mj.simulated_cost(state) + _contact_cost(state)
    return reward, mj.word(state, mj.ENDS) != 0 and not healthy


@kernel()
def step_standup(state, action, observation):
    """HumanoidStandup."""
    qpos = mj.positions(state)
    mj.advance(state, action)
    mj.library(state, mj.MJ_POST)
    _observe_body(state, observation)
    return qpos[2] / state[mj.TIMESTEP] - mj.simulated_cost(state) - _contact_cost(state) + 1.0, False


# InvertedPendulum, InvertedDoublePendulum.


@kernel()
def step_pendulum(state, action, observation):
    """InvertedPendulum."""
    mj.advance(state, action)
    _observe_planar(state, observation)
    terminated = abs(observation[1]) > 0.2
    for i in range(observation.size):
        terminated = terminated or not np.isfinite(observation[i])
    return (0.0 if terminated else 1.0), terminated


@njit
def _observe_double_pendulum(state, observation):
    qpos, qvel = mj.positions(state), mj.velocities(state)
    observation[0] = qpos[0]
    for i in range(1, 3):
        observation[i] = np.sin(qpos[i])
        observation[2 + i] = np.cos(qpos[i])
    mj.append(qvel, 0, -10.0, 10.0, observation, 5)
    observation[8] = mj.clip(mj.field(state, mj.QFRC_CONSTRAINT, 1)[0], -10.0, 10.0)


@kernel()
def reset_double_pendulum(state, seed, observation):
    """InvertedDoublePendulum."""
    mj.restart(state, seed)
    _observe_double_pendulum(state, observation)


@kernel()
def step_double_pendulum(state, action, observation):
    """InvertedDoublePendulum."""
    qvel = mj.velocities(state)
    mj.advance(state, action)
    site = mj.field(state, mj.SITE_XPOS, 3)
    x, y = site[0], site[2]
    _observe_double_pendulum(state, observation)
    terminated = y <= 1.0
    distance = 0.01 * (x * x) + (y - 2.0) * (y - 2.0)
    speed = 1e-3 * (qvel[1] * qvel[1]) + 5e-3 * (qvel[2] * qvel[2])
    return (0.0 if terminated else state[mj.HEALTHY]) - distance - speed, terminated


# Reacher, Pusher.


@njit
def _between(state, first, second, axis):
    """Return a coordinate of body ``first`` minus that of body ``second``."""
    xpos = mj.places(state)
    return xpos[3 * mj.word(state, first) + axis] - xpos[3 * mj.word(state, second) + axis]


@njit
def _apart(state, first, second):
    """Return the distance of two bodies."""
    x, y = _between(state, first, second, 0), _between(state, first, second, 1)
    z = _between(state, first, second, 2)
    return np.sqrt(x * x + y * y + z * z)


@njit
def _observe_reacher(state, observation):
    qpos, qvel = mj.positions(state), mj.velocities(state)
    for i in range(2):
        observation[i] = np.cos(qpos[i])
        observation[2 + i] = np.sin(qpos[i])
        observation[4 + i] = qpos[2 + i]
        observation[6 + i] = qvel[i]
        observation[8 + i] = _between(state, mj.TOOL, mj.TARGET, i)


@kernel()
def reset_reacher(state, seed, observation):
    """Reacher: the target is uniform on a disc."""
    mj.library(state, mj.MJ_RESET)
    qpos, qvel = mj.positions(state), mj.velocities(state)
    for i in range(2):
        qpos[i] = (-0.1 + 0.2 * uniform(seed, i)) + state[mj.START + i]
        qvel[i] = state[mj.START + 4 + i] + (-0.005 + 0.01 * uniform(seed, 2 + i))
        qvel[2 + i] = 0.0
    index = 4
    while True:
        x, y = -0.2 + 0.4 * uniform(seed, index), -0.2 + 0.4 * uniform(seed, index + 1)
        index += 2
        if np.sqrt(x * x + y * y) < 0.2:
            break
    qpos[2] = x
    qpos[3] = y
    mj.library(state, mj.MJ_FORWARD)
    _observe_reacher(state, observation)


@kernel()
def step_reacher(state, action, observation):
    """Reacher."""
    mj.advance(state, action)
    _observe_reacher(state, observation)
    return -_apart(state, mj.TOOL, mj.TARGET) * state[mj.DISTANCE] - mj.control_cost(state, action), False


@njit
def _observe_pusher(state, observation):
    qpos, qvel = mj.positions(state), mj.velocities(state)
    xpos = mj.places(state)
    for i in range(7):
        observation[i] = qpos[i]
        observation[7 + i] = qvel[i]
    for i in range(3):
        observation[14 + i] = xpos[3 * mj.word(state, mj.TOOL) + i]
        observation[17 + i] = xpos[3 * mj.word(state, mj.BODY) + i]
        observation[20 + i] = xpos[3 * mj.word(state, mj.TARGET) + i]


@kernel()
def reset_pusher(state, seed, observation):
    """Pusher: the object is uniform on a rectangle, at least 0.17 from the goal."""
    mj.library(state, mj.MJ_RESET)
    qpos, qvel = mj.positions(state), mj.velocities(state)
    for i in range(11):
        qpos[i] = state[mj.START + i]
        qvel[i] = state[mj.START + 11 + i] + (-0.005 + 0.01 * uniform(seed, i)) if i < 7 else 0.0
    index = 7
    while True:
        x, y = -0.3 + 0.3 * uniform(seed, index), -0.2 + 0.4 * uniform(seed, index + 1)
        index += 2
        if np.sqrt(x * x + y * y) > 0.17:
            break
    qpos[7] = x
    qpos[8] = y
    qpos[9] = 0.0
    qpos[10] = 0.0
    mj.library(state, mj.MJ_FORWARD)
    _observe_pusher(state, observation)


@kernel()
def step_pusher(state, action, observation):
    """Pusher."""
    mj.advance(state, action)
    _observe_pusher(state, observation)
    far = -_apart(state, mj.BODY, mj.TARGET) * state[mj.DISTANCE]
    near = -_apart(state, mj.BODY, mj.TOOL) * state[mj.NEAR]
    return (far - mj.control_cost(state, action)) + near, False
