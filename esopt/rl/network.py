"""The network of a policy in numpy: the same bits as ``esopt._kernels.policy.forward``.

An output is its bias plus weight times input, input by input, in float64. BLAS would be faster for large layers and
would have other bits on every machine. tanh is that of Python's ``math``; numpy's has other bits.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ACTIVATIONS = ("tanh", "relu", "elman")
"""Their places here are their numbers in compiled code. "elman" is tanh, and the inputs end with what it was before."""

_SMALL = 96
"""Up to so many weights, a loop over Python floats is faster than calls into numpy."""
_CHUNK = 2**20


def layers(thetas: Array, sizes: tuple[int, ...]) -> list[tuple[Array, Array]]:
    """Return views of the weights (m, outputs, inputs) and biases (m, outputs) of each layer of ``thetas`` (m, dim)."""
    found, at = [], 0
    for inputs, outputs in itertools.pairwise(sizes):
        bias = at + inputs * outputs
        found.append((thetas[:, at:bias].reshape(len(thetas), outputs, inputs), thetas[:, bias : bias + outputs]))
        at = bias + outputs
    return found


def count(sizes: tuple[int, ...]) -> int:
    """Return the number of parameters of a network."""
    return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(sizes))


def fold(thetas: Array, sizes: tuple[int, ...], mean: Array, std: Array) -> Array:
    """Return ``thetas`` (m, dim) with (x - mean) / std folded into the first layer; see ``Policy.fold``."""
    folded = np.array(thetas, order="C")
    if not mean.any() and (std == 1.0).all():
        return folded
    inputs, outputs = sizes[:2]
    height = max(1, _CHUNK // (inputs * outputs))
    with np.errstate(all="ignore"):
        for start in range(0, len(folded), height):
            weights, bias = layers(folded[start : start + height], sizes)[0]
            weights /= std
            terms = np.empty((inputs + 1, *bias.shape))
            terms[0] = bias
            np.multiply(weights.transpose(2, 0, 1), -mean[:, None, None], out=terms[1:])
            bias[:] = add_rows(terms)
    return folded


def add_rows(terms: Array) -> Array:
    """Return terms[0] + terms[1] + ..., in this order, of contiguous ``terms``."""
    # Along the first axis numpy adds row by row; a single column it would add in pairs. It starts from 0.0, which would
    # make 0.0 of -0.0; from -0.0 nothing changes.
    alone = terms.size == len(terms)
    total: Array = np.add.accumulate(terms, axis=0)[-1] if alone else np.add.reduce(terms, axis=0, initial=-0.0)
    return total


class Network:
    """The function from inputs to outputs for folded parameters ``theta`` (dim,).

    ``rows`` holds the weights and biases of a small linear policy as Python floats, and is None for others. ``last``
    are the inputs of the last layer in the last call.
    """

    __slots__ = ("_layers", "_relu", "last", "rows")

    def __init__(self, theta: Array, sizes: tuple[int, ...], activation: str) -> None:
        split = [(weights[0], bias[0]) for weights, bias in layers(theta[None, :], sizes)]
        self.rows: list[tuple[list[float], float]] | None = None
        if len(split) == 1 and split[0][0].size <= _SMALL:
            weights, bias = split[0]
            self.rows = list(zip(weights.tolist(), bias.tolist(), strict=True))
        self._layers = [(np.array(weights.T, order="C"), np.array(bias)) for weights, bias in split]
        self._relu = activation == "relu"
        self.last = np.empty(0)

    def __call__(self, inputs: Array) -> list[float]:
        """Return the outputs for ``inputs`` (inputs,)."""
        last = len(self._layers) - 1
        with np.errstate(over="ignore", invalid="ignore"):
            for index, (weights, bias) in enumerate(self._layers):
                terms = np.empty((len(weights) + 1, len(bias)))
                terms[0] = bias
                np.multiply(weights, inputs[:, None], out=terms[1:])
                sums = add_rows(terms)
                if index == last:
                    break
                inputs = self._activated(sums)
        self.last = inputs
        outputs: list[float] = sums.tolist()
        return outputs

    def _activated(self, sums: Array) -> Array:
        if self._relu:
            return np.where(sums > 0.0, sums, 0.0)
        return np.fromiter(map(math.tanh, sums.tolist()), np.float64, len(sums))
