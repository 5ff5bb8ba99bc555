"""Fused multiply-add in float32: a * b + c rounded once (IEEE 754-2008), the same bits on every machine.

LLVM emits the machine's own instruction where there is one and calls the exact library routine where there is none.
With the JIT switched off the same value comes from float64 arithmetic rounded to odd.
"""

import math

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic


@intrinsic
def _fma_compiled(typingctx, a, b, c):
    def codegen(context, builder, signature, args):
        single = ir.FloatType()
        kind = ir.FunctionType(single, [single, single, single])
        return builder.call(builder.module.declare_intrinsic("llvm.fma", [single], kind), args)

    return types.float32(types.float32, types.float32, types.float32), codegen


def fma_exact(a, b, c):
    """Return the same value in Python.

    The product is exact in float64, and rounding the sum to odd avoids a double rounding.
    """
    product, addend = float(a) * float(b), float(c)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    if error != 0.0 and np.float64(total).view(np.int64) & 1 == 0:
        total = math.nextafter(total, math.inf if error > 0.0 else -math.inf)
    return np.float32(total)


fma = fma_exact if config.DISABLE_JIT else _fma_compiled
