"""Compiled loops on arrays, and nothing else: numba lives here, and this package imports nothing from esopt.

Every kernel takes arrays and numbers, writes to arrays that the caller allocated, and validates nothing. Parallel
kernels are a ``prange`` over pieces that the serial twin also runs, piece by piece, so no thread count can change a
bit.
"""
