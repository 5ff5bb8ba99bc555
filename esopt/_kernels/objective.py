"""Calling a user's compiled function from kernels that are compiled once and cached.

A kernel that takes the user's dispatcher itself is compiled again for every function in every process. Here the kernels
get the address of a C function instead, and only that small function is compiled with the user's.

::

    value:     (x, length, seed, note) -> value; note = steps, or nan and note = RAISED
    gradient:  (x, length, seed, out) -> note: 0, or RAISED, RESHAPED, UNBOUNDED with out full of nan

An exception would be lost inside a parallel loop, with old memory left as the value, and a bare C callback turns it
into 0.0. So the C function looks at the status of the call itself, and the kernels write every row.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, config, njit, prange, typeof, types
from numba.core import cgutils
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.extending import intrinsic, is_jitted

from .gaussian import TILE
from .jit import kernel
from .philox import BLOCK, F32, LANES, U32, U64, box_muller, fill_blocks, philox

RAISED = -(2**63)
RESHAPED = 1
UNBOUNDED = 2

FAILURES = NumbaError, NotImplementedError, TypeError, ValueError  # what numba raises for code that it cannot compile
GROUP = 8

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
def _pointer(typingctx, array, offset):
    """Address of element ``offset`` of a contiguous array."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def _take(typingctx, counter, amount):
    """Reserve the next ``amount`` numbers of a counter that threads share, and return the first."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], args[1], "monotonic")

    return types.int64(_INTEGERS, types.int64), codegen


@njit
def _keep(returned, result, shape, out):
    """Copy a gradient that is whole and finite; otherwise fill the row with nan and say why."""
    note = 0
    if shape is None:
        fits = result.size == out.size
    else:
        fits = result.shape == shape
    if not returned:
        note = RAISED
    elif not fits:
        note = RESHAPED
    else:
        flat = np.ascontiguousarray(result).reshape(result.size)
        for j in range(out.size):
            out[j] = flat[j]
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
    except FAILURES as error:
        raise CompileError(f"numba cannot compile it: {error}") from error


def _reshaping(function, args, seeded, shape):
    """Return f(x, seed) or f(x) that gives ``function`` its x in ``shape``."""
    if seeded:
        return njit(lambda x, seed: function(x.reshape(shape), seed, *args))
    return njit(lambda x: function(x.reshape(shape), *args))


def value_entry(function, args, seeded, shape):
    """Return the C function of f(x, [seed,] *args); f sees x in ``shape``, or as (d,) where that is None."""
    if shape is not None:
        function, args = _reshaping(function, args, seeded, shape), ()
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
    """Return the C function of grad(x, [seed,] *args), as :func:`value_entry`; an array of the shape of x."""
    ndim = 1 if shape is None else len(shape)
    if shape is not None:
        function, args = _reshaping(function, args, seeded, shape), ()
    kind = _return_type(function, args, seeded)
    if not (isinstance(kind, types.Array) and kind.ndim == ndim and _is_number(kind.dtype)):
        raise CompileError(f"it returns {kind}, not an array of numbers of the shape of x")
    if seeded:

        def entry(x, length, seed, out):
            returned, result = _attempt(function, (carray(x, length), seed, *args))
            return _keep(returned, result, shape, carray(out, length))
    else:

        def entry(x, length, seed, out):
            returned, result = _attempt(function, (carray(x, length), *args))
            return _keep(returned, result, shape, carray(out, length))

    compiled = cfunc(_GRADIENT)(entry)
    return Entry(np.uintp(compiled.address), compiled, False)


@kernel()
def _fill_narrow(out, count, wide, row, generation, stream, seed):
    """Write the first block of ``count`` rows to ``out``, one after the other; only columns below 32 unless ``wide``.

    The bits of ``fill_blocks``. A single block is too short for the pipeline: several at once take half the time.
    """
    k0, k1 = U32(seed & U64(0xFFFFFFFF)), U32(seed >> U64(32))
    c2, c3 = U32(generation), U32(stream)
    for r in range(count):
        at = r * BLOCK
        c1 = U32(row + r)
        for i in range(LANES):
            a0, a1, a2, a3 = philox(U32(i), c1, c2, c3, k0, k1)
            out[at + i] = U32(a0).view(F32)
            out[at + i + LANES] = U32(a1).view(F32)
            out[at + i + 2 * LANES] = U32(a2).view(F32)
            out[at + i + 3 * LANES] = U32(a3).view(F32)
    halves = 2 if wide else 1
    for half in range(count * halves):
        at = half // halves * BLOCK + half % halves * 2 * LANES
        for i in range(LANES):
            z0, z1 = box_muller(F32(out[at + i]).view(U32), F32(out[at + i + LANES]).view(U32))
            out[at + i] = z0
            out[at + i + LANES] = z1


@njit(inline="always")
def _part(array, start, size):
    """array[start : start + size] without the arithmetic of a slice."""
    return carray(_pointer(array, start), size)


@njit(inline="always")
def _displace(x, at, column, noise, start, width, mean, scale, mirrored):
    """x[at + column + j] = mean + scale * noise[start + j] for j < width; if ``mirrored``, the other row after it."""
    eps = _part(noise, start, width)
    center = _part(mean, column, width)
    plus = _part(x, at + column, width)
    minus = _part(x, at + column + (mean.size if mirrored else 0), width)
    spreads = _part(scale, column if scale.size > 1 else 0, width if scale.size > 1 else 1)
    if mirrored and scale.size == 1:
        spread = scale[0]
        for j in range(width):
            step = spread * np.float64(eps[j])
            plus[j] = center[j] + step
            minus[j] = center[j] - step
    elif mirrored:
        for j in range(width):
            step = spreads[j] * np.float64(eps[j])
            plus[j] = center[j] + step
            minus[j] = center[j] - step
    elif scale.size == 1:
        spread = scale[0]
        for j in range(width):
            plus[j] = center[j] + spread * np.float64(eps[j])
    else:
        for j in range(width):
            plus[j] = center[j] + spreads[j] * np.float64(eps[j])


@njit(nogil=True)
def _work(
    counter, batch, last, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
    values, notes, grads, grad_notes,
):  # fmt: skip
    """Evaluate the units that the shared counter hands out until ``last``; the buffers are this thread's own.

    Unit u below ``units`` is a noise row or a mirrored pair of them, the others are explicit rows. Candidates are
    written again for the gradients, because the value function may change its argument.
    """
    dim = mean.size
    per = 2 if mirrored else 1
    units = (n + per - 1) // per
    narrow = dim <= BLOCK
    span = GROUP if narrow else 1
    noise = np.empty(GROUP * BLOCK if narrow else TILE, F32)
    x = np.empty(span * per * dim)
    bad = 0
    while True:
        start = _take(_pointer(counter, 0), batch)
        if start >= last:
            break
        stop = min(start + batch, last)
        for first in range(start, stop, span):
            count = min(span, stop - first)
            inside = max(0, min(count, units - first))
            row = first * per if inside else n + first - units
            split = min(row + inside * per, n) if inside else row
            if narrow and inside:
                _fill_narrow(noise, inside, dim > BLOCK // 2, first, generation, stream, seed)
            for needed in range(2 if grads.shape[0] else 1):
                for u in range(inside):
                    for column in range(0, dim, TILE):
                        width = min(TILE, dim - column)
                        if not narrow:
                            blocks = (width + BLOCK - 1) // BLOCK
                            fill_blocks(noise, column // BLOCK, blocks, first + u, generation, stream, seed)
                        _displace(x, u * per * dim, column, noise, u * BLOCK, width, mean, scale, mirrored)
                for at in range(split, split + count - inside):
                    _part(x, (at - row) * dim, dim)[:] = rows[at - n]
                for at in range(row, split + count - inside):
                    own = seeds[at] if seeds.size else 0
                    here = _pointer(x, (at - row) * dim)
                    if needed == 0:
                        values[at] = _call_value(value, here, dim, own, _pointer(notes, at))
                        bad += np.isnan(values[at])
                    elif np.isnan(values[at]):
                        grads[at] = np.nan
                        grad_notes[at] = 0
                    else:
                        grad_notes[at] = _call_gradient(gradient, here, dim, own, _pointer(grads, at * dim))
                        bad += grad_notes[at] != 0
    _take(_pointer(counter, 1), bad)


@kernel()
def evaluate(
    first, last, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
    values, notes, grads, grad_notes,
):  # fmt: skip
    """Evaluate units first ... last of n noise rows (mirrored: of pairs) and explicit ``rows`` (k, d) behind them.

    ``value`` and ``gradient`` are addresses; ``seeds`` (n + k,) int64 or empty. The units' part of values (n + k,) and
    notes (n + k,) int64 is written whatever happens, that of grads (n + k, d) and grad_notes (n + k,) too unless they
    are empty. Returns the number of rows that failed.
    """
    counter = np.array([first, 0])
    _work(
        counter, last - first, last, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
        values, notes, grads, grad_notes,
    )  # fmt: skip
    return counter[1]


@kernel(parallel=True)
def evaluate_parallel(
    workers, batch, first, last, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
    values, notes, grads, grad_notes,
):  # fmt: skip
    """Parallel twin of :func:`evaluate`: ``workers`` threads take ``batch`` units at a time, whoever is free."""
    counter = np.array([first, 0])
    for _ in prange(workers):
        _work(
            counter, batch, last, value, gradient, mean, scale, n, mirrored, generation, stream, seed, rows, seeds,
            values, notes, grads, grad_notes,
        )  # fmt: skip
    return counter[1]
