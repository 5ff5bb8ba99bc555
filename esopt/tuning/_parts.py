"""What rates and sizings share: signal and noise of a gradient, averaged over generations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..records import Gradient


@dataclass(frozen=True)
class SignalState:
    """Averages over generations of signal and noise, as shares of what the blocks show, and the weight behind them."""

    signal: float
    noise: float
    weight: float


NOTHING = SignalState(0.0, 0.0, 0.0)


def add(gradient: Gradient, rows: float, decay: float, state: SignalState) -> SignalState:
    """Return the averages with this generation's signal |g|^2 - W and noise W * rows, W the total variance of g.

    Each is divided by Q = W + (|g|^2 - W) / B, the mean square of the B blocks over B: generations then count alike
    however far the gradient has shrunk. The signal loses a factor of B / (B + 2) by that, in expectation for the slope
    of a plane under Gaussian rows, since Q is larger where the signal is; it is multiplied back. Where no standard
    errors are, nothing is learned.
    """
    noise = float(gradient.mean_stderr @ gradient.mean_stderr)
    signal = float(gradient.mean @ gradient.mean) - noise
    size = noise + signal / gradient.blocks
    if not (0.0 < size < np.inf):
        return state
    weight = decay * state.weight + 1.0
    return SignalState(
        state.signal + (signal * (1.0 + 2.0 / gradient.blocks) / size - state.signal) / weight,
        state.noise + (noise * rows / size - state.noise) / weight,
        weight,
    )
