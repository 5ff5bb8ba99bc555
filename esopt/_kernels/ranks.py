"""What ranks of values are worth."""

import numpy as np

from .cma import order
from .jit import kernel


@kernel()
def average_over_ties(values, by_rank, out):
    """Write by_rank[rank of each value] to ``out`` (n,), averaged over equal values; nan counts as the largest."""
    order_of, first = order(values), 0
    while first < values.size:
        value, last = values[order_of[first]], first + 1
        while last < values.size and (values[order_of[last]] == value or np.isnan(value)):
            last += 1
        total = 0.0
        for k in range(first, last):
            total += by_rank[k]
        if last - first > 1:
            total = total / (last - first)
        for k in range(first, last):
            out[order_of[k]] = total
        first = last
