"""The compiled form of a policy: observation to outputs to action, in the same bits as ``esopt.rl.policy``.

An output is its bias plus weight times input, input by input, in float64: one rounding per product and one per sum,
without a fused multiply-add. tanh is that of the C library, as in Python's ``math``. Indices are unsigned, because
signed ones are looked at for counting from the end; in a small policy that takes as long as the sums.
"""

import math

import numpy as np
from numba import njit

from .objective import _part
from .philox import U64

TANH, RELU, ELMAN = 0, 1, 2
"""Of hidden layers; with ELMAN the inputs end with the activations of the step before, and it is tanh."""
LARGEST, POSITIVE, BOX, SINGLE, SQUASHED = 0, 1, 2, 1, 2
"""Kinds of actions: the largest of each group, the positive ones, BOX plus SINGLE (float32) plus SQUASHED (tanh)."""


@njit
def _four(theta, at, inputs, outputs, x, y):
    """Compute the first outputs of a layer, four at a time, and return how many."""
    done = outputs - outputs % 4
    for j in range(0, done, 4):
        first = _part(theta, at + j * inputs, inputs)
        second = _part(theta, at + (j + 1) * inputs, inputs)
        third = _part(theta, at + (j + 2) * inputs, inputs)
        fourth = _part(theta, at + (j + 3) * inputs, inputs)
        bias = _part(theta, at + outputs * inputs + j, 4)
        a, b, c, d = bias[0], bias[1], bias[2], bias[3]
        for i in range(U64(inputs)):
            value = x[i]
            a += first[i] * value
            b += second[i] * value
            c += third[i] * value
            d += fourth[i] * value
        out = _part(y, j, 4)
        out[0], out[1], out[2], out[3] = a, b, c, d
    return done


@njit(inline="always")
def _two(theta, at, inputs, outputs, x, y, done):
    """Compute two outputs from ``done`` on, and return how many are done then."""
    first, second = _part(theta, at + done * inputs, inputs), _part(theta, at + (done + 1) * inputs, inputs)
    a, b = theta[U64(at + outputs * inputs + done)], theta[U64(at + outputs * inputs + done + 1)]
    for i in range(U64(inputs)):
        value = x[i]
        a += first[i] * value
        b += second[i] * value
    y[U64(done)], y[U64(done + 1)] = a, b
    return done + 2


@njit(inline="always")
def forward(theta, sizes, activation, work, wide):
    """Compute the outputs of a policy and return the row of ``work`` that holds them.

    theta (dim,): layer by layer, the weights (outputs, inputs) row by row, then the biases. sizes (layers + 1,):
    inputs, widths of the hidden layers, outputs. work (3 * wide,): three rows, of which the first starts with the
    inputs and keeps them; the layers take turns with the others. Four outputs at a time, whose sums do not wait for
    each other.
    """
    if sizes.size == 2 and sizes[U64(1)] == 2:  # with so little to compute, what follows would take as long again
        _two(theta, 0, sizes[U64(0)], 2, work, _part(work, wide, 2), 0)
        return 1
    at, row = 0, 0
    last = sizes.size - 2
    for layer in range(last + 1):
        inputs, outputs = sizes[layer], sizes[layer + 1]
        after = 2 if row == 1 else 1
        x, y = _part(work, row * wide, inputs), _part(work, after * wide, outputs)
        done = _four(theta, at, inputs, outputs, x, y) if outputs > 3 else 0
        if outputs - done > 1:
            done = _two(theta, at, inputs, outputs, x, y, done)
        if done < outputs:
            weights = _part(theta, at + done * inputs, inputs)
            total = theta[U64(at + outputs * inputs + done)]
            for i in range(U64(inputs)):
                total += weights[i] * x[i]
            y[U64(done)] = total
        if layer < last:
            for j in range(U64(outputs)):
                if activation != RELU:
                    y[j] = math.tanh(y[j])
                elif not y[j] > 0.0:
                    y[j] = 0.0
        at, row = at + (inputs + 1) * outputs, after
    return row


@njit(inline="always")
def choose(kind, layout, outputs, action):
    """Write the numbers of the action for ``outputs`` to ``action`` (k,), float64; ``layout`` (k, 4) has a row each.

    LARGEST: (first output, count, number of the first, 0); the first of equal outputs wins. POSITIVE: unused. BOX:
    (middle, half, low, high).
    """
    for k in range(U64(layout.shape[0])):
        if kind == LARGEST:
            first, count, start = U64(layout[k, U64(0)]), U64(layout[k, U64(1)]), layout[k, U64(2)]
            most, best = outputs[first], start
            if count == 2:  # a loop would take longer than all else here
                action[k] = start + 1.0 if outputs[first + U64(1)] > most else start
                continue
            for j in range(U64(1), count):
                if outputs[first + j] > most:
                    most, best = outputs[first + j], start + np.float64(j)
            action[k] = best
        elif kind == POSITIVE:
            action[k] = 1.0 if outputs[k] > 0.0 else 0.0
        else:
            middle, half, low, high = layout[k, U64(0)], layout[k, U64(1)], layout[k, U64(2)], layout[k, U64(3)]
            value = middle + half * (math.tanh(outputs[k]) if (kind - BOX) & SQUASHED else outputs[k])
            if low > value:
                value = low
            if high < value:
                value = high
            action[k] = np.float64(np.float32(value)) if (kind - BOX) & SINGLE else value
