"""Whole episodes of any environment in one compiled loop.

The loop is compiled once and cached. It reaches the environment's two functions through C addresses, as the kernels of
``objective`` reach the user's function:

::

    reset: (state, seed, observation) -> 0, or RAISED
    step:  (state, action, observation, reward) -> 0, ENDED or RAISED
"""

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, typeof, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .draws import action_normal
from .jit import kernel
from .objective import FAILURES, CompileError, Entry, _attempt, _is_number, _part, _pointer, _take
from .philox import U64
from .policy import ELMAN, choose, forward

ENDED, RAISED = 1, 2

_DOUBLES = types.CPointer(types.float64)
_RESET = types.int64(_DOUBLES, types.uint64, _DOUBLES)
_STEP = types.int64(_DOUBLES, _DOUBLES, _DOUBLES, _DOUBLES)
_ROW = types.Array(types.float64, 1, "C")


@intrinsic
def _call_reset(typingctx, address, state, seed, observation):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(64), [a.type for a in args[1:]])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.uintp, _DOUBLES, types.uint64, _DOUBLES), codegen


@intrinsic
def _call_step(typingctx, address, state, action, observation, reward):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(64), [a.type for a in args[1:]])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.uintp, _DOUBLES, _DOUBLES, _DOUBLES, _DOUBLES), codegen


def _return_type(function, kinds):
    """Compile ``function`` for its arguments and return the type of its result."""
    try:
        return typeof(function).get_call_type(cpu_target.typing_context, kinds, {}).return_type
    except FAILURES as error:
        raise CompileError(f"numba cannot compile it: {error}") from error


def reset_entry(function, size, inputs, actions):
    """Return the C function of reset(state, seed, observation); the arrays have ``size`` and ``inputs`` numbers."""
    kind = _return_type(function, (_ROW, types.uint64, _ROW))
    if kind is not types.none:
        raise CompileError(f"it returns {kind}, but the observation is written to its third argument")

    def entry(state, seed, observation):
        returned, _ = _attempt(function, (carray(state, size), seed, carray(observation, inputs)))
        return 0 if returned else RAISED

    compiled = cfunc(_RESET)(entry)
    return Entry(np.uintp(compiled.address), compiled, False)


def step_entry(function, size, inputs, actions):
    """Return the C function of step(state, action, observation) -> (reward, terminated)."""
    kind = _return_type(function, (_ROW, _ROW, _ROW))
    if not (isinstance(kind, types.BaseTuple) and len(kind) == 2 and all(map(_is_number, kind))):
        raise CompileError(f"it returns {kind}, not a pair (reward, terminated)")

    def entry(state, action, observation, reward):
        arrays = carray(state, size), carray(action, actions), carray(observation, inputs)
        returned, result = _attempt(function, arrays)
        if not returned:
            return RAISED
        carray(reward, 1)[0] = result[0]
        return ENDED if result[1] else 0

    compiled = cfunc(_STEP)(entry)
    return Entry(np.uintp(compiled.address), compiled, False)


def room_size(sizes, actions):
    """Return how many numbers :func:`play` needs room for: layers, an action, a reward, two sums of observations."""
    return 3 * int(sizes.max()) + actions + 1 + 2 * int(sizes[0])


@kernel()
def play(
    counter, budget, reset, step, state, room, thetas, seeds, sizes, activation, kind, layout, actions, max_steps,
    noise, returns, lengths, sums, squares,
):  # fmt: skip
    """Play episodes that the shared ``counter`` hands out, until there are no more or ``budget`` steps were taken.

    ``reset`` and ``step`` are addresses; ``state`` and ``room``, of :func:`room_size` numbers, are this thread's own.
    Episode k of row i has the number i * e + k; its results are written to returns (m, e), lengths (m, e), sums and
    squares (m, e, inputs), whatever happens. Returns the number of steps, negative when nothing is left.
    """
    episodes = seeds.shape[1]
    total = seeds.size
    memory = sizes[1] if activation == ELMAN else 0
    inputs = sizes[0] - memory
    outputs = sizes[-1]
    wide = sizes.max()
    # Arrays without an owner, because numba counts references to the others, with atomic instructions, in every step.
    work, observation, kept = _part(room, 0, 3 * wide), _part(room, 0, inputs), _part(room, inputs, memory)
    action, reward = _part(room, 3 * wide, actions), _part(room, 3 * wide + actions, 1)
    # Not where they end up, in cache lines of other threads.
    added = _part(room, 3 * wide + actions + 1, inputs)
    squared = _part(room, 3 * wide + actions + 1 + inputs, inputs)
    network, choices = _part(sizes, 0, sizes.size), carray(_pointer(layout, 0), layout.shape)
    taken, dim = 0, thetas.shape[1]
    while taken < budget:
        unit = _take(_pointer(counter, 0), 1)
        if unit >= total:
            taken = -1 - taken
            break
        row, episode = unit // episodes, unit % episodes
        theta = _part(thetas, row * dim, dim)
        seed = U64(seeds[row, episode])
        added[:] = 0.0
        squared[:] = 0.0
        observation[:] = 0.0
        kept[:] = 0.0
        gained, length = 0.0, 0
        code = _call_reset(reset, _pointer(state, 0), seed, _pointer(observation, 0))
        while code == 0 and length < max_steps:
            probe = 0.0
            for i in range(U64(inputs)):
                x = observation[i]
                added[i] += x
                squared[i] += x * x
                probe += 0.0 * x
            if probe != 0.0:
                code = RAISED
                break
            here = forward(theta, network, activation, work, wide)
            for i in range(U64(memory)):
                kept[i] = work[(3 - here) * wide + i]
            if noise > 0.0:
                for j in range(outputs):
                    work[here * wide + j] += noise * action_normal(seed, length, j)
            choose(kind, choices, _part(work, here * wide, outputs), action)
            code = _call_step(
                step, _pointer(state, 0), _pointer(action, 0), _pointer(observation, 0), _pointer(reward, 0)
            )
            length += 1
            gained += reward[0]
        taken += length
        for i in range(inputs):
            if not np.isfinite(squared[i]):
                code = RAISED
        if code == RAISED or np.isnan(gained):
            gained = np.nan
            added[:] = 0.0
            squared[:] = 0.0
        returns[row, episode] = gained
        lengths[row, episode] = length
        sums[row, episode], squares[row, episode] = added, squared
    return taken
