"""Calling a user's compiled function from kernels that are compiled once and cached.

A kernel that takes the user's dispatcher itself is compiled again for every function in every process. Here the kernel gets
the address of a C function instead, and only that small function is compiled with the user's.

::

    value:     (x, length, seed, steps) -> value;  nan and steps[0] = RAISED where the function raised
    gradient:  (x, length, seed, out) -> 0, RAISED or RESHAPED;  out filled with nan unless 0

An exception would be lost inside a parallel loop, with old memory left as the value, and a bare C callback turns it into 0.0; so
the entry looks at the status itself, and the kernel writes every row.
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

_VALUE = types.float64(types.CPointer(types.float64), types.intp, types.int64, types.CPointer(types.int64))
_GRADIENT = types.int64(types.CPointer(types.float64), types.intp, types.int64, types.CPointer(types.float64))


class Entry(NamedTuple):
    """A C function; ``owner`` keeps its code alive, ``outcome`` says whether it reports steps."""

    address: np.uintp
    owner: object
    outcome: bool


NO_ENTRY = Entry(np.uintp(0), None, False)


class CompileError(Exception):
    """What is wrong with the user's function, in words."""


def jitted(function):
    """Whether ``function`` was compiled by numba (any function counts where the JIT is switched off)."""
    return bool(config.DISABLE_JIT) or is_jitted(function)


def enabled():
    """Whether functions are compiled at all."""
    return not config.DISABLE_JIT


def threaded(function):
    """Whether ``function`` runs threads of its own, which must not be nested in ours."""
    return bool(getattr(function, "targetoptions", {}).get("parallel", False))


@contextmanager
def limited(count):
    """Let kernels use at most ``count`` threads inside the block (None: as many as before)."""
    before = get_num_threads()
    if count is not None and count < before:
        set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


@intrinsic
def _attempt(typingctx, function, arguments):
    """(whether it returned, the result or zeros) of function(*arguments)."""
    inner = function.get_call_type(typingctx, tuple(types.unliteral(t) for t in arguments.types), {})
    result = types.Tuple((types.boolean, inner.return_type))

    def codegen(context, builder, signature, args):
        compiled = function.dispatcher.overloads[inner.args]
        context.add_linking_libs([compiled.library])
        parts = cgutils.unpack_tuple(builder, args[1])
        parts = [context.cast(builder, p, t, u) for p, t, u in zip(parts, arguments.types, inner.args, strict=True)]
        status, value = context.call_internal_no_propagate(builder, compiled.fndesc, inner, parts)
        return context.make_tuple(builder, result, [status.is_ok, value])

    return result(function, arguments), codegen


@intrinsic
def _call_value(typingctx, address, x, length, seed, steps):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.DoubleType(), [a.type for a in args[1:]])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    double, integer = types.CPointer(types.float64), types.CPointer(types.int64)
    return types.float64(types.uintp, double, types.intp, types.int64, integer), codegen


@intrinsic
def _call_gradient(typingctx, address, x, length, seed, out):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(64), [a.type for a in args[1:]])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    double = types.CPointer(types.float64)
    return types.int64(types.uintp, double, types.intp, types.int64, double), codegen


@intrinsic
def _pointer(typingctx, array):
    def codegen(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def _fetch_add(typingctx, pointer, amount):
    """Take the next ``amount`` numbers of a counter that threads share; the first of them."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], args[1], "monotonic")

    return types.int64(types.CPointer(types.int64), types.int64), codegen


def freeze(args):
    """Return ``args`` with arrays read-only, as compiled code sees them."""
    frozen = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            arg = arg.view()
            arg.flags.writeable = False
        frozen.append(arg)
    return tuple(frozen)


def _return_type(function, args, seeded, ndim):
    """Compile ``function`` for its arguments and return what it returns."""
    x = types.Array(types.float64, ndim, "C")
    try:
        kinds = (x, types.int64, *map(typeof, args)) if seeded else (x, *map(typeof, args))
        return typeof(function).get_call_type(cpu_target.typing_context, kinds, {}).return_type
    except (NumbaError, ValueError, TypeError) as error:
        raise CompileError(f"numba cannot compile it: {error}") from error


def value_entry(function, args, seeded, shape):
    """Return the C function of f(x, [seed,] *args), x of ``shape`` (None: one dimension, of any length)."""
    kind = _return_type(function, args, seeded, 1 if shape is None else len(shape))
    outcome = isinstance(kind, types.BaseNamedTuple) and kind.fields == ("value", "steps")
    numbers = tuple(kind.types) if outcome else (kind,)
    if not all(isinstance(t, (types.Float, types.Integer, types.Boolean)) for t in map(types.unliteral, numbers)):
        raise CompileError(f"it returns {kind}, not a number (or an Outcome of two numbers)")

    @njit(inline="always")
    def call(x, seed):
        if seeded:
            return _attempt(function, (x, seed, *args))
        return _attempt(function, (x, *args))

    @njit(inline="always")
    def shaped(pointer, length):
        if shape is None:
            return carray(pointer, length)
        return carray(pointer, shape)

    if outcome:

        @cfunc(_VALUE)
        def entry(pointer, length, seed, steps):
            fine, result = call(shaped(pointer, length), seed)
            carray(steps, 1)[0] = np.int64(result.steps) if fine else RAISED
            return np.float64(result.value) if fine else np.nan
    else:

        @cfunc(_VALUE)
        def entry(pointer, length, seed, steps):
            fine, result = call(shaped(pointer, length), seed)
            carray(steps, 1)[0] = 0 if fine else RAISED
            return np.float64(result) if fine else np.nan

    return Entry(np.uintp(entry.address), entry, outcome)


