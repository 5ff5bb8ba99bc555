"""Strategies with a covariance matrix as their papers have them: numpy, formula by formula, nothing shared.

Each ``sample`` makes candidates from noise rows (n, d), and each ``update`` takes those rows and the values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class OnePlusOneCMA:
    """Igel, Suttorp, Hansen (2006) with the path of their algorithm 4, and Arnold, Hansen (2010), step 5.

    The path is kept in x-space and the inverse of A is computed whenever it is needed.
    """

    def __init__(self, x0: Array, sigma: float, value: float, active: bool) -> None:
        d = x0.size
        self.mean, self.sigma, self.active = x0.copy(), sigma, active
        self.A, self.s, self.p_succ = np.eye(d), np.zeros(d), 2 / 11
        self.line = [value]
        self.hits = self.punished = self.fast = 0

    def sample(self, eps: Array) -> Array:
        return self.mean + self.sigma * eps @ self.A.T

    def update(self, eps: Array, values: Array) -> None:
        d, z, value = self.mean.size, eps[0], float(values[0])
        c, c_plus, c_minus = 2 / (d + 2), 2 / (d**2 + 6), 0.4 / (d**1.6 + 1)
        step = self.A @ z
        hit = value <= self.line[-1]
        self.p_succ = 11 / 12 * self.p_succ + (1 / 12 if hit else 0.0)
        before = self.sigma
        self.sigma *= np.exp((self.p_succ - 2 / 11) / (1 - 2 / 11) / (1 + d / 2))
        if hit:
            self.hits += 1
            self.mean = self.mean + before * step
            self.line.append(value)
            if self.p_succ < 0.44:
                self.s, a = (1 - c) * self.s + np.sqrt(c * (2 - c)) * step, 1 - c_plus
            else:
                self.fast += 1
                self.s, a = (1 - c) * self.s, 1 - c_plus + c_plus * c * (2 - c)
            w = np.linalg.inv(self.A) @ self.s
            if w @ w > 0:
                growth = np.sqrt(a) / (w @ w) * (np.sqrt(1 + c_plus * (w @ w) / a) - 1)
                self.A = np.sqrt(a) * self.A + growth * np.outer(self.s, w)
            else:
                self.A = np.sqrt(a) * self.A
        elif self.active and len(self.line) >= 5 and value > self.line[-5]:
            self.punished += 1
            if 1 < c_minus * (2 * z @ z - 1):
                c_minus = 1 / (2 * z @ z - 1)
            a = 1 + c_minus
            growth = np.sqrt(a) / (z @ z) * (np.sqrt(1 - c_minus * (z @ z) / a) - 1)
            self.A = np.sqrt(a) * self.A + growth * np.outer(step, z)
