"""Calling a user's compiled function from kernels that are compiled once and cached.

A kernel that takes the user's dispatcher itself is compiled again for every function in every process. Here the kernels get
the address of a C function instead, and only that small function is compiled with the user's.

::

    value:     (x, length, seed, note) -> value; note = steps, or nan and note = RAISED
    gradient:  (x, length, seed, out) -> note: 0, or RAISED, RESHAPED, UNBOUNDED with out full of nan

An exception would be lost inside a parallel loop, with old memory left as the value, and a bare C callback turns it into 0.0. So
the C function looks at the status of the call itself, and the kernels write every row.
"""

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, config, get_num_threads, njit, prange, set_num_threads, typeof, types
from numba.core import cgutils
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.extending import intrinsic, is_jitted

from .philox import BLOCK, F32, fill_blocks

RAISED = -(2**63)
RESHAPED = 1
UNBOUNDED = 2

_DOUBLES, _INTEGERS = types.CPointer(types.float64), types.CPointer(types.int64)
_VALUE = types.float64(_DOUBLES, types.intp, types.int64, _INTEGERS)
_GRADIENT = types.int64(_DOUBLES, types.intp, types.int64, _DOUBLES)


class Entry(NamedTuple):
    """A C function; ``owner`` keeps its code alive, ``outcome`` says whether it reports steps."""

    address: np.uintp
    owner: object
    outcome: bool


class CompileError(Exception):
    """What is wrong with the user's function, in words."""


def enabled():
    """Whether anything is compiled at all (numba can be switched off)."""
    return not config.DISABLE_JIT


def jitted(function):
    """Whether ``function`` was compiled by numba; any function counts where numba is switched off."""
    return not enabled() or is_jitted(function)


def threaded(function):
    """Whether ``function`` starts threads of its own, which must not happen inside ours."""
    return bool(getattr(function, "targetoptions", {}).get("parallel", False))


@contextmanager
def limited(count):
    """Let the kernels of this thread use at most ``count`` threads inside the block (None: no further limit)."""
    before = get_num_threads()
    if count is not None and count < before:
        set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


def freeze(args):
    """Return ``args`` with their arrays read-only, which is how compiled code sees them."""
    frozen = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            arg = arg.view()
            arg.flags.writeable = False
        frozen.append(arg)
    return tuple(frozen)


def _bind(typingctx, function, arguments):
    """Signature and code of a call that leaves an exception in the status instead of propagating it."""
    inner = function.get_call_type(typingctx, tuple(map(types.unliteral, arguments.types)), {})

    def codegen(context, builder, args):
        compiled = function.dispatcher.overloads[inner.args]
        context.add_linking_libs([compiled.library])
        parts = cgutils.unpack_tuple(builder, args[1])
        parts = [context.cast(builder, p, t, u) for p, t, u in zip(parts, arguments.types, inner.args, strict=True)]
        return context.call_internal_no_propagate(builder, compiled.fndesc, inner, parts)

    return inner, codegen


@intrinsic
def _evaluate(typingctx, function, arguments, note):
    """function(*arguments) as float64 with its steps in note[0]; or nan and RAISED."""
    inner, call = _bind(typingctx, function, arguments)
    result = inner.return_type

    def codegen(context, builder, signature, args):
        status, value = call(context, builder, args)
        steps = ir.Constant(ir.IntType(64), 0)
        if isinstance(result, types.BaseNamedTuple):
            steps = context.cast(builder, builder.extract_value(value, 1), result.types[1], types.int64)
            value = context.cast(builder, builder.extract_value(value, 0), result.types[0], types.float64)
        else:
            value = context.cast(builder, value, result, types.float64)
        builder.store(builder.select(status.is_ok, steps, ir.Constant(steps.type, RAISED)), args[2])
        return builder.select(status.is_ok, value, ir.Constant(value.type, np.nan))

    return types.float64(function, arguments, note), codegen


@intrinsic
def _attempt(typingctx, function, arguments):
    """Whether function(*arguments) returned, and what (zeros if it raised)."""
    inner, call = _bind(typingctx, function, arguments)
    result = types.Tuple((types.boolean, inner.return_type))

    def codegen(context, builder, signature, args):
        status, value = call(context, builder, args)
        return context.make_tuple(builder, result, [status.is_ok, value])

    return result(function, arguments), codegen


@intrinsic
def _call_value(typingctx, address, x, length, seed, note):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.DoubleType(), [a.type for a in args[1:]])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.float64(types.uintp, _DOUBLES, types.intp, types.int64, _INTEGERS), codegen


@intrinsic
def _call_gradient(typingctx, address, x, length, seed, out):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(64), [a.type for a in args[1:]])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.uintp, _DOUBLES, types.intp, types.int64, _DOUBLES), codegen


@intrinsic
def _pointer(typingctx, array):
    def codegen(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def _take(typingctx, counter, amount):
    """Reserve the next ``amount`` numbers of a counter that threads share, and return the first."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], args[1], "monotonic")

    return types.int64(_INTEGERS, types.int64), codegen


@njit
def _keep(returned, result, out):
    """Copy a gradient that is whole and finite; otherwise fill the row with nan and say why."""
    note = 0
    if not returned:
        note = RAISED
    elif result.size != out.size:
        note = RESHAPED
    else:
        for j in range(out.size):
            out[j] = result[j]
            if not np.isfinite(out[j]):
                note = UNBOUNDED
    if note != 0:
        out[:] = np.nan
    return note


def _is_number(kind):
    return isinstance(types.unliteral(kind), (types.Float, types.Integer, types.Boolean))


def _return_type(function, args, seeded):
    """Compile ``function`` for its arguments and return the type of its result."""
    x = types.Array(types.float64, 1, "C")
    try:
        kinds = (x, types.int64, *map(typeof, args)) if seeded else (x, *map(typeof, args))
        return typeof(function).get_call_type(cpu_target.typing_context, kinds, {}).return_type
    except (NumbaError, TypeError, ValueError) as error:
        raise CompileError(f"numba cannot compile it: {error}") from error


def value_entry(function, args, seeded, shape):
    """Return the C function of f(x, [seed,] *args); f sees x in ``shape``, or as (d,) where that is None."""
    if shape is not None:
        inner = function

        @njit
        def function(x, *rest):
            return inner(x.reshape(shape), *rest)

    kind = _return_type(function, args, seeded)
    outcome = isinstance(kind, types.BaseNamedTuple) and kind.fields == ("value", "steps")
    if not all(map(_is_number, kind.types if outcome else (kind,))):
        raise CompileError(f"it returns {kind}, not a number (or an Outcome of two numbers)")
    if seeded:

        def entry(x, length, seed, note):
            return _evaluate(function, (carray(x, length), seed, *args), note)
    else:

        def entry(x, length, seed, note):
            return _evaluate(function, (carray(x, length), *args), note)

    compiled = cfunc(_VALUE)(entry)
    return Entry(np.uintp(compiled.address), compiled, outcome)


def gradient_entry(function, args, seeded, shape):
    """Return the C function of the gradient; called as in :func:`value_entry`, it returns an array of the shape of x."""
    if shape is not None:
        inner = function

        @njit
        def function(x, *rest):
            result = np.ascontiguousarray(inner(x.reshape(shape), *rest))
            return result.reshape(result.size) if result.shape == shape else result.reshape(result.size)[:0]

    kind = _return_type(function, args, seeded)
    if not (isinstance(kind, types.Array) and kind.ndim == 1 and _is_number(kind.dtype)):
        raise CompileError(f"it returns {kind}, not an array of numbers of the shape of x")
    if seeded:

        def entry(x, length, seed, out):
            returned, result = _attempt(function, (carray(x, length), seed, *args))
            return _keep(returned, result, carray(out, length))
    else:

        def entry(x, length, seed, out):
            returned, result = _attempt(function, (carray(x, length), *args))
            return _keep(returned, result, carray(out, length))

    compiled = cfunc(_GRADIENT)(entry)
    return Entry(np.uintp(compiled.address), compiled, False)


@njit(nogil=True)
def _candidate(x, explicit, rows, sign, mean, scale, noise):
    """Write rows[explicit] to x, or mean + scale * (sign * noise) where ``explicit`` is negative."""
    if explicit >= 0:
        x[:] = rows[explicit]
    elif scale.size == 1:
        spread = scale[0]
        for j in range(x.size):
            x[j] = mean[j] + spread * np.float64(sign * noise[j])
    else:
        for j in range(x.size):
            x[j] = mean[j] + scale[j] * np.float64(sign * noise[j])


@njit(nogil=True)
def _work(
    counter, batch, last, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
    values, notes, grads, grad_notes,
):  # fmt: skip
    """Evaluate the units that the shared counter hands out until ``last``; the buffers are this thread's own.

    Unit u below ``units`` is a noise row or a mirrored pair of them, the others are explicit rows. The candidate is written again for
    every call, because the function may change it.
    """
    per = 2 if mirrored else 1
    units = (n + per - 1) // per
    blocks = (mean.size + BLOCK - 1) // BLOCK
    noise = np.empty(blocks * BLOCK if n else 0, F32)
    x = np.empty(mean.size)
    while True:
        first = _take(_pointer(counter), batch)
        if first >= last:
            break
        for unit in range(first, min(first + batch, last)):
            if unit < units:
                fill_blocks(noise, 0, blocks, unit, generation, stream, seed)
                explicit, row, stop = -1, unit * per, min(unit * per + per, n)
            else:
                explicit = unit - units
                row, stop = n + explicit, n + explicit + 1
            sign = F32(1.0)
            while row < stop:
                own = seeds[row] if seeds.size else 0
                _candidate(x, explicit, rows, sign, mean, scale, noise)
                values[row] = _call_value(value, _pointer(x), x.size, own, _pointer(notes[row:]))
                if grads.shape[0]:
                    if np.isnan(values[row]):
                        grads[row] = np.nan
                        grad_notes[row] = 0
                    else:
                        _candidate(x, explicit, rows, sign, mean, scale, noise)
                        grad_notes[row] = _call_gradient(gradient, _pointer(x), x.size, own, _pointer(grads[row]))
                sign = -sign
                row += 1


@njit(cache=True, nogil=True)
def evaluate(
    first, last, batch, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
    values, notes, grads, grad_notes,
):  # fmt: skip
    """Units first ... last of n noise rows (mirrored: pairs) followed by the explicit ``rows`` (k, d).

    ``value`` and ``gradient`` are addresses; ``seeds`` (n + k,) int64 or empty; values (n + k,) and notes (n + k,) int64 are written
    for every row, grads (n + k, d) and grad_notes (n + k,) too unless they are empty.
    """
    counter = np.array([first])
    _work(
        counter, last - first, last, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
        values, notes, grads, grad_notes,
    )  # fmt: skip


@njit(cache=True, nogil=True, parallel=True)
def evaluate_parallel(
    first, last, batch, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
    values, notes, grads, grad_notes,
):  # fmt: skip
    """Parallel twin of :func:`evaluate`: every thread takes ``batch`` units at a time, whoever is free."""
    counter = np.array([first])
    for _ in prange(get_num_threads()):
        _work(
            counter, batch, last, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
            values, notes, grads, grad_notes,
        )  # fmt: skip
