"""The compiled form of a policy: observation to outputs to action, in the same bits as ``esopt.rl.policy``.

An output is its bias plus weight times input, input by input, in float64: one rounding per product and one per sum,
without a fused multiply-add. tanh is that of the C library, as in Python's ``math``.
"""

import math

import numpy as np
from numba import njit

TANH, RELU = 0, 1
LARGEST, POSITIVE, BOX, SINGLE, SQUASHED = 0, 1, 2, 1, 2
"""Kinds of actions: the largest of each group, the positive ones, BOX plus SINGLE (float32) plus SQUASHED (tanh)."""


@njit
def forward(theta, sizes, activation, work):
    """Compute the outputs of a policy and return the row of ``work`` that holds them.

    theta (dim,): layer by layer, the weights (outputs, inputs) row by row, then the biases. sizes (layers + 1,): inputs,
    widths of the hidden layers, outputs. work (2, widest): row 0 starts with the inputs. Four outputs at a time, whose
    sums do not wait for each other.
    """
    at, row = 0, 0
    last = sizes.size - 2
    for layer in range(last + 1):
        inputs, outputs = sizes[layer], sizes[layer + 1]
        x, y = work[row], work[1 - row]
        bias = at + outputs * inputs
        for j in range(0, outputs - 3, 4):
            first = at + j * inputs
            second = first + inputs
            third = second + inputs
            fourth = third + inputs
            a, b, c, d = theta[bias + j], theta[bias + j + 1], theta[bias + j + 2], theta[bias + j + 3]
            for i in range(inputs):
                value = x[i]
                a += theta[first + i] * value
                b += theta[second + i] * value
                c += theta[third + i] * value
                d += theta[fourth + i] * value
            y[j], y[j + 1], y[j + 2], y[j + 3] = a, b, c, d
        for j in range(outputs - outputs % 4, outputs):
            first = at + j * inputs
            a = theta[bias + j]
            for i in range(inputs):
                a += theta[first + i] * x[i]
            y[j] = a
        if layer < last:
            for j in range(outputs):
                if activation == TANH:
                    y[j] = math.tanh(y[j])
                elif not y[j] > 0.0:
                    y[j] = 0.0
        at, row = bias + outputs, 1 - row
    return row


@njit
def choose(kind, layout, outputs, action):
    """Write the numbers of the action for ``outputs`` to ``action`` (k,), float64; ``layout`` (k, 4) has a row for each.

    LARGEST: (first output, count, number of the first, 0); the first of equal outputs wins. POSITIVE: unused. BOX:
    (middle, half, low, high).
    """
    for k in range(layout.shape[0]):
        if kind == LARGEST:
            first, best = int(layout[k, 0]), 0
            for j in range(1, int(layout[k, 1])):
                if outputs[first + j] > outputs[first + best]:
                    best = j
            action[k] = layout[k, 2] + best
        elif kind == POSITIVE:
            action[k] = 1.0 if outputs[k] > 0.0 else 0.0
        else:
            value = math.tanh(outputs[k]) if (kind - BOX) & SQUASHED else outputs[k]
            value = layout[k, 0] + layout[k, 1] * value
            if layout[k, 2] > value:
                value = layout[k, 2]
            if layout[k, 3] < value:
                value = layout[k, 3]
            action[k] = np.float64(np.float32(value)) if (kind - BOX) & SINGLE else value
