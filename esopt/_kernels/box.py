"""Elementwise maps into a box: mirrors at low - a and high + b, and a parabola over 2 a and 2 b next to them.

a = b = 0 is plain reflection. The bounds and margins have one entry, or one per column; a side without a bound is
infinite. nan stays nan.
"""

from .jit import kernel


@kernel(error_model="numpy")
def _folded(y, left, right):
    """Return y mirrored into [left, right], and the sign of the derivative."""
    if left <= y <= right:
        return y, 1.0
    folded, sign = (2.0 * left - y if y < left else 2.0 * right - y), -1.0
    if folded < left or folded > right:
        width = right - left
        turns = (y - left) % (2.0 * width)
        sign = 1.0
        if turns > width:
            turns, sign = 2.0 * width - turns, -1.0
        folded = left + turns
    return folded, sign


@kernel(error_model="numpy")
def forward(rows, low, high, a, b, out):
    """Write the point of the box for every element of ``rows`` (m, d) into ``out``, which may be ``rows``."""
    one = low.size == 1
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            k = 0 if one else j
            y, _ = _folded(rows[i, j], low[k] - a[k], high[k] + b[k])
            x, above, below = y, y - (low[k] - a[k]), (high[k] + b[k]) - y
            if above < 2.0 * a[k]:
                x = low[k] + above * (above / (4.0 * a[k]))
            if below < 2.0 * b[k]:
                x = high[k] - below * (below / (4.0 * b[k]))
            if x < low[k]:
                x = low[k]
            if x > high[k]:
                x = high[k]
            out[i, j] = x


@kernel(error_model="numpy")
def derivative(rows, low, high, a, b, out):
    """Write the derivative of :func:`forward` into ``out``."""
    one = low.size == 1
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            k = 0 if one else j
            y, slope = _folded(rows[i, j], low[k] - a[k], high[k] + b[k])
            above, below = y - (low[k] - a[k]), (high[k] + b[k]) - y
            if below < 2.0 * b[k]:
                slope *= below / (2.0 * b[k])
            elif above < 2.0 * a[k]:
                slope *= above / (2.0 * a[k])
            out[i, j] = slope
