"""Random numbers of an episode: pure functions of its seed and an index, Philox counters like all noise."""

import numpy as np

from .jit import kernel
from .philox import U32, U64, box_muller, philox

_UNIFORM, _NORMAL, _ACTION = U32(0), U32(1), U32(2)
_LOW, _HALF = U64(0xFFFFFFFF), U64(32)


@kernel()
def uniform(seed, index):
    """Return number ``index`` of the uniform ones of ``seed``, in [0, 1) on a grid of 2**-53.

    ``seed`` and ``index`` are whole numbers; equal ones give equal bits, in any order and on any machine. Callable from
    Python and from functions under ``numba.njit``.
    """
    key, at = U64(seed), U64(index)
    a, b, _, _ = philox(U32(at & _LOW), U32(at >> _HALF), _UNIFORM, U32(0), U32(key & _LOW), U32(key >> _HALF))
    return np.float64(((U64(a) << _HALF) | U64(b)) >> U64(11)) * 2.0**-53


@kernel()
def _gaussian(key, low, high, purpose):
    a, b, _, _ = philox(low, high, purpose, U32(0), U32(key & _LOW), U32(key >> _HALF))
    return np.float64(box_muller(a, b)[0])


@kernel()
def normal(seed, index):
    """Return number ``index`` of the standard normal ones of ``seed``; float32 numbers, at most 5.9.

    As :func:`uniform`, and independent of it.
    """
    at = U64(index)
    return _gaussian(U64(seed), U32(at & _LOW), U32(at >> _HALF), _NORMAL)


@kernel()
def action_normal(seed, step, output):
    """Return the normal number of one output in one step."""
    return _gaussian(U64(seed), U32(output), U32(step), _ACTION)
