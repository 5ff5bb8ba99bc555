"""Whole episodes of any environment in one compiled loop.

The loop is compiled once and cached. It reaches the environment's two functions through C addresses, as the kernels of
``objective`` reach the user's function:

::

    reset: (state, seed, observation) -> 0, or RAISED
    step:  (state, action, observation, reward) -> 0, ENDED or RAISED
"""

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, typeof, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .draws import action_normal
from .jit import kernel
from .objective import FAILURES, CompileError, Entry, _attempt, _is_number, _part, _pointer, _take
from .philox import U64
from .policy import ELMAN, LARGEST, choose, forward

ENDED, RAISED = 1, 2

_DOUBLES = types.CPointer(types.float64)
_RESET = types.int64(_DOUBLES, types.uint64, _DOUBLES)
_STEP = types.int64(_DOUBLES, _DOUBLES, _DOUBLES, _DOUBLES)
_ROW = types.Array(types.float64, 1, "C")


def _call(builder, address, state, *rest):
    """Build the call of the function at ``address`` with the array at the address ``state`` and the rest."""
    given = [builder.inttoptr(state, ir.DoubleType().as_pointer()), *rest]
    kind = ir.FunctionType(ir.IntType(64), [a.type for a in given])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), given)


@intrinsic
def _call_reset(typingctx, address, state, seed, observation):
    def codegen(context, builder, signature, args):
        return _call(builder, *args)

    return types.int64(types.uintp, types.uintp, types.uint64, _DOUBLES), codegen


@intrinsic
def _call_step(typingctx, address, state, action, observation, reward):
    def codegen(context, builder, signature, args):
        return _call(builder, *args)

    return types.int64(types.uintp, types.uintp, _DOUBLES, _DOUBLES, _DOUBLES), codegen


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

    compiled = cfunc(_STEP, forceinline=True)(entry)
    return Entry(np.uintp(compiled.address), compiled, False)


def room_size(sizes, actions):
    """Return how many numbers an episode needs: layers, an action, a reward, the return, two sums of observations."""
    return 3 * int(sizes.max()) + actions + 2 + 2 * int(sizes[0])


def takes_turns(sizes, kind, layout):
    """Return whether a policy is linear and chooses one of two actions: steps so short that turns pay."""
    return len(sizes) == 2 and int(sizes[1]) == 2 and kind == LARGEST and len(layout) == 1


@njit(inline="always")
def _places(room, start, wide, inputs, actions):
    """Return where an episode has its layers, action, reward, return, and sums of observations and of their squares.

    Arrays without an owner, because numba counts references to the others, with atomic instructions, in every step. The
    sums are here, and not where they end up, because those are cache lines of other threads.
    """
    work, action = _part(room, start, 3 * wide), _part(room, start + 3 * wide, actions)
    start += 3 * wide + actions
    reward, gained = _part(room, start, 1), _part(room, start + 1, 1)
    return work, action, reward, gained, _part(room, start + 2, inputs), _part(room, start + 2 + inputs, inputs)


@njit(inline="always")
def _notes(marks, lanes):
    """Return each episode's number, length, what its last step returned, and where its parameters begin, (lanes,)."""
    number, length = _part(marks, 0, lanes), _part(marks, lanes, lanes)
    return number, length, _part(marks, 2 * lanes, lanes), _part(marks, 3 * lanes, lanes)


@njit
def _take_turns(step, states, room, marks, rows, wide, inputs, least, max_steps):
    """Play a step of each episode in turn, until one is over, with policies that :func:`takes_turns` is true for.

    The first action has the number ``least``. A processor would wait for so short a step to begin the next one; those
    of other episodes it can do meanwhile.
    """
    lanes, dim, size = states.size, 2 * inputs + 2, room.size // states.size
    number, length, code, offset = _notes(marks, lanes)
    over = False
    while not over:
        for lane in range(U64(lanes)):
            if number[lane] < 0:
                continue
            work, action, reward, gained, added, squared = _places(room, np.int64(lane) * size, wide, inputs, 1)
            theta = _part(rows, offset[lane], dim)
            second = _part(theta, inputs, inputs)
            a, b, probe = theta[U64(2 * inputs)], theta[U64(2 * inputs + 1)], 0.0
            for i in range(U64(inputs)):
                x = work[i]
                added[i] += x
                squared[i] += x * x
                probe += 0.0 * x
                a += theta[i] * x
                b += second[i] * x
            if probe != 0.0:  # one of them is not finite
                code[lane], over = RAISED, True
                continue
            action[0] = least + 1.0 if b > a else least
            code[lane] = _call_step(step, states[lane], _pointer(action, 0), _pointer(work, 0), _pointer(reward, 0))
            length[lane] += 1
            gained[0] += reward[0]
            over |= code[lane] != 0 or length[lane] >= max_steps


@njit
def _finish(step, state, places, theta, seed, sizes, activation, kind, layout, max_steps, noise):
    """Play an episode to its end, with any policy; return its length and what its last step returned."""
    work, action, reward, gained, added, squared = places
    wide, memory = sizes.max(), sizes[1] if activation == ELMAN else 0
    inputs, outputs = sizes[0] - memory, sizes[-1]
    length, code, total = 0, 0, 0.0
    while code == 0 and length < max_steps:
        probe = 0.0
        for i in range(U64(inputs)):
            x = work[i]
            added[i] += x
            squared[i] += x * x
            probe += 0.0 * x
        if probe != 0.0:  # one of them is not finite
            code = RAISED
            break
        here = forward(theta, sizes, activation, work, wide)
        for i in range(U64(memory)):
            work[U64(inputs) + i] = work[(3 - here) * wide + i]
        if noise > 0.0:
            for j in range(outputs):
                work[here * wide + j] += noise * action_normal(seed, length, j)
        choose(kind, layout, _part(work, here * wide, outputs), action)
        code = _call_step(step, state, _pointer(action, 0), _pointer(work, 0), _pointer(reward, 0))
        length += 1
        total += reward[0]
    gained[0] = total
    return length, code


@kernel()
def play(
    counter, budget, reset, step, states, room, marks, turns, thetas, seeds, sizes, activation, kind, layout, actions,
    max_steps, noise, returns, lengths, sums, squares,
):  # fmt: skip
    """Play episodes that the shared ``counter`` hands out, until there are no more or ``budget`` steps were taken.

    ``reset`` and ``step`` are addresses, ``states`` (n,) those of states for n episodes at a time. ``room``, n times
    :func:`room_size` numbers, and ``marks``, 4 n whole numbers, are this thread's own. ``turns`` plays a step of each
    in turn; it needs :func:`takes_turns`, and no noise.

    Episode k of row i has the number i * e + k; its results are written to returns (m, e), lengths (m, e), sums and
    squares (m, e, inputs), whatever happens. Returns the number of steps, negative when nothing is left.
    """
    episodes, units, dim, lanes = seeds.shape[1], seeds.size, thetas.shape[1], states.size
    inputs, wide, size = sizes[0] - (sizes[1] if activation == ELMAN else 0), sizes.max(), room.size // lanes
    worlds, network, numbers = _part(states, 0, lanes), _part(sizes, 0, sizes.size), _part(seeds, 0, units)
    lines, notes, rows = _part(room, 0, room.size), _part(marks, 0, marks.size), _part(thetas, 0, thetas.size)
    choices = carray(_pointer(layout, 0), layout.shape)
    number, length, code, offset = _notes(notes, lanes)
    number[:] = -1
    taken, left = 0, True
    while True:
        playing, over = 0, max_steps < 1
        for lane in range(lanes):
            if number[lane] < 0 and left and taken < budget:
                unit = _take(_pointer(counter, 0), 1)
                left = unit < units
                if left:
                    work, _, _, gained, added, squared = _places(lines, lane * size, wide, inputs, actions)
                    work[: sizes[0]], added[:], squared[:] = 0.0, 0.0, 0.0
                    number[lane], length[lane], offset[lane], gained[0] = unit, 0, unit // episodes * dim, 0.0
                    code[lane] = _call_reset(reset, worlds[lane], U64(numbers[unit]), _pointer(work, 0))
                    over |= code[lane] != 0
            playing += number[lane] >= 0
        if not playing:
            return taken if left else -1 - taken
        if over:
            pass
        elif turns:
            _take_turns(step, worlds, lines, notes, rows, wide, inputs, choices[0, 2], max_steps)
        else:
            for lane in range(lanes):
                if number[lane] >= 0:
                    places, theta = _places(lines, lane * size, wide, inputs, actions), _part(rows, offset[lane], dim)
                    given = U64(numbers[number[lane]]), network, activation, kind, choices, max_steps, noise
                    length[lane], code[lane] = _finish(step, worlds[lane], places, theta, *given)
        for lane in range(lanes):
            if number[lane] < 0 or (code[lane] == 0 and length[lane] < max_steps):
                continue
            _, _, _, gained, added, squared = _places(lines, lane * size, wide, inputs, actions)
            probe = 0.0
            for i in range(inputs):
                probe += 0.0 * squared[i]
            if code[lane] == RAISED or np.isnan(gained[0]) or probe != 0.0:
                gained[0], added[:], squared[:] = np.nan, 0.0, 0.0
            row, episode = number[lane] // episodes, number[lane] % episodes
            returns[row, episode], lengths[row, episode] = gained[0], length[lane]
            sums[row, episode], squares[row, episode] = added, squared
            taken += length[lane]
            number[lane] = -1
