"""A thread's simulation by MuJoCo, in one float64 array: what it consists of, and what all environments do with it.

``state`` begins with words, which are int64 in the same bytes: addresses of C functions and of the fields of an MjData,
and sizes. Numbers follow (weights, ranges), then the positions and velocities that an episode starts from. The library
is called through addresses, so that compiled code can be cached without knowing where the library was loaded.
"""

import numpy as np
from llvmlite import ir
from numba import carray, config, njit, types
from numba.extending import intrinsic

from .draws import normal, uniform

F32, I64 = np.float32, np.int64

# Words of state: the library's functions and objects, the fields of MjData and one of MjModel, sizes and choices.
(
    MODEL, DATA, MJ_STEP, MJ_RESET, MJ_FORWARD, MJ_POST,
    QPOS, QVEL, CTRL, XPOS, XIPOS, SITE_XPOS, CINERT, CVEL, QFRC_ACTUATOR, QFRC_CONSTRAINT, CFRC_EXT, BODY_MASS,
    NQ, NV, NU, NBODY, FRAME_SKIP, HIDDEN, CHECKS, PARTS, BODY, TARGET, TOOL, NARROW, NORMAL, ENDS,
    WORDS,
) = range(33)  # fmt: skip

# Numbers of state.
(
    DT, TIMESTEP, NOISE, FORWARD, COST, HEALTHY, Z_LOW, Z_HIGH, ANGLE_LOW, ANGLE_HIGH, STATE_LOW, STATE_HIGH,
    SPEED, FORCE_LOW, FORCE_HIGH, CONTACT, CONTACT_LOW, CONTACT_HIGH, NEAR, DISTANCE,
    START,
) = range(WORDS, WORDS + 21)  # fmt: skip

# Bits of PARTS: what the observation of a humanoid or an ant has besides positions and velocities.
INERTIA, VELOCITY, ACTUATORS, EXTERNAL = 1, 2, 4, 8


def enabled():
    """Whether anything is compiled at all (numba can be switched off)."""
    return not config.DISABLE_JIT


@intrinsic
def _doubles(typingctx, address):
    """Return the pointer to float64 numbers at an address."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.DoubleType().as_pointer())

    return types.CPointer(types.float64)(types.int64), codegen


@intrinsic
def _call(typingctx, function, model, data):
    """Call the C function void (*)(const mjModel*, mjData*) at an address."""

    def codegen(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer])
        arguments = [builder.inttoptr(a, pointer) for a in args[1:]]
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), arguments)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@njit
def word(state, which):
    """Return a word of the state."""
    return state.view(I64)[which]


@njit
def library(state, function):
    """Call a function of the library, one of the MJ words."""
    _call(word(state, function), word(state, MODEL), word(state, DATA))


@njit
def field(state, which, size):
    """Return a field of the simulation as an array of ``size`` numbers."""
    return carray(_doubles(word(state, which)), size)


@njit
def positions(state):
    """Return the generalised positions."""
    return field(state, QPOS, word(state, NQ))


@njit
def velocities(state):
    """Return the generalised velocities."""
    return field(state, QVEL, word(state, NV))


@njit
def places(state):
    """Return where the bodies are, three numbers each."""
    return field(state, XPOS, 3 * word(state, NBODY))


@njit
def clip(x, low, high):
    """numpy.clip: nan stays nan."""
    if x < low:
        return low
    if x > high:
        return high
    return x


def _squares(kind):
    @njit
    def squares(x, low, high):
        """numpy.sum(numpy.square(numpy.clip(x, low, high))) of up to 128 numbers of this kind, in numpy's order."""
        whole = x.size - x.size % 8
        total = kind(0.0)
        if whole:
            lane = np.zeros(8, kind)
            for i in range(whole):
                y = kind(clip(x[i], low, high))
                lane[i % 8] += y * y
            total = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]))
        for i in range(whole, x.size):
            y = kind(clip(x[i], low, high))
            total += y * y
        return total

    return squares


squares32, squares64 = _squares(np.float32), _squares(np.float64)


@njit
def control_cost(state, action):
    """Return weight * sum of squares. NARROW: the weight is a plain Python number, and the product a float32 too."""
    total = squares32(action, -np.inf, np.inf)
    if word(state, NARROW):
        return np.float64(F32(state[COST]) * total)
    return state[COST] * np.float64(total)


@njit
def simulated_cost(state):
    """Return the control cost of the humanoids, from the float64 numbers that the simulation got."""
    return state[COST] * squares64(field(state, CTRL, word(state, NU)), -np.inf, np.inf)


@njit
def advance(state, action):
    """Hand over the action and simulate one step of the environment."""
    ctrl = field(state, CTRL, word(state, NU))
    for i in range(ctrl.size):
        ctrl[i] = np.float64(F32(action[i]))
    for _ in range(word(state, FRAME_SKIP)):
        library(state, MJ_STEP)


@njit
def restart(state, seed):
    """Begin from the model's start, uniform noise on positions, uniform or normal noise on velocities."""
    library(state, MJ_RESET)
    qpos, qvel, nq = positions(state), velocities(state), word(state, NQ)
    scale = state[NOISE]
    for i in range(nq):
        qpos[i] = state[START + i] + (-scale + (scale + scale) * uniform(seed, i))
    for i in range(qvel.size):
        if word(state, NORMAL):
            qvel[i] = state[START + nq + i] + scale * normal(seed, nq + i)
        else:
            qvel[i] = state[START + nq + i] + (-scale + (scale + scale) * uniform(seed, nq + i))
    library(state, MJ_FORWARD)


@njit
def append(values, first, low, high, observation, at):
    """Write values[first:], clipped, to the observation and return where the next ones go."""
    for i in range(first, values.size):
        observation[at + i - first] = clip(values[i], low, high)
    return at + values.size - first
