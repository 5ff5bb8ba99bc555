"""Seeds of evaluations, hashed from their address by Philox."""

import numpy as np

from .jit import kernel
from .philox import U32, U64, philox


@kernel()
def hash_rows(column, first, generation, stream, seed, out):
    """out[i] = 64 bits of Philox at (column, first + i, generation, stream); out uint64."""
    k0, k1 = U32(seed & U64(0xFFFFFFFF)), U32(seed >> U64(32))
    for i in range(out.size):
        a, b, _, _ = philox(U32(column), U32(first + i), U32(generation), U32(stream), k0, k1)
        out[i] = U64(a) | U64(U64(b) << U64(32))


@kernel()
def words(c0, c1, c2, c3, seed):
    """Return the four output words of one counter as uint32 (for the known-answer test)."""
    out = np.empty(4, np.uint32)
    k0, k1 = U32(seed & U64(0xFFFFFFFF)), U32(seed >> U64(32))
    out[0], out[1], out[2], out[3] = philox(U32(c0), U32(c1), U32(c2), U32(c3), k0, k1)
    return out
