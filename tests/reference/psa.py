"""PSA-CMA-ES as the paper has it: numpy, symmetric roots, a generator of its own; nothing shared with the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]


class PSA:
    """Nishida, Akimoto (2018), algorithm 1: positive weights only, and every path with its normalisation."""

    def __init__(self, x0: Array, sigma: float, seed: int) -> None:
        d = x0.size
        self.m, self.sigma, self.C, self.d = x0.copy(), sigma, np.eye(d), d
        self.least = self.size = 4.0 + int(3 * np.log(d))
        self.ps, self.pc, self.p_m, self.p_S = np.zeros(d), np.zeros(d), np.zeros(d), np.zeros((d, d))
        self.g_s = self.g_c = self.g_t = 0.0
        self.rng = np.random.default_rng(seed)
        self.chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))

    @property
    def n(self) -> int:
        return round(self.size)

    def weights(self, n: int) -> tuple[Array, float]:
        w = np.maximum(0.0, np.log((n + 1) / 2) - np.log(np.arange(1, n + 1)))
        w /= w.sum()
        return w, float(1 / (w @ w))

    def rates(self, mu: float) -> tuple[float, float, float, float, float]:
        d = self.d
        c_s = (mu + 2) / (d + mu + 5)
        damping = 1 + 2 * max(0, np.sqrt((mu - 1) / (d + 1)) - 1) + c_s
        c_c = (4 + mu / d) / (d + 4 + 2 * mu / d)
        c_1 = 2 / ((d + 1.3) ** 2 + mu)
        return c_s, damping, c_c, c_1, min(1 - c_1, 2 * (mu - 2 + 1 / mu) / ((d + 2) ** 2 + mu))

    def optimal(self, n: int) -> float:
        w, mu = self.weights(n)
        c = -float(w @ norm.ppf((np.arange(1, n + 1) - 0.375) / (n + 0.25)))
        return self.d * c * mu / (self.d - 1 + c * c * mu)

    def generation(self, f: Callable[[Array], Array]) -> float:
        """Make a generation, and return its best value."""
        d, n = self.d, self.n
        w, mu = self.weights(n)
        c_s, damping, c_c, c_1, c_mu = self.rates(mu)
        values, B = np.linalg.eigh(self.C)
        root, inverse = (B * np.sqrt(values)) @ B.T, (B / np.sqrt(values)) @ B.T
        z = self.rng.standard_normal((n, d))
        y = z @ root
        found = f(self.m + self.sigma * y)
        y = y[np.argsort(found)]
        step = w @ y
        white = inverse @ step
        self.ps = (1 - c_s) * self.ps + np.sqrt(c_s * (2 - c_s) * mu) * white
        self.g_s = (1 - c_s) ** 2 * self.g_s + c_s * (2 - c_s)
        h = float(self.ps @ self.ps / self.g_s < (2 + 4 / (d + 1)) * d)
        self.pc = (1 - c_c) * self.pc + h * np.sqrt(c_c * (2 - c_c) * mu) * step
        self.g_c = (1 - c_c) ** 2 * self.g_c + h * c_c * (2 - c_c)
        change = c_s / damping * (np.linalg.norm(self.ps) / self.chi - np.sqrt(self.g_s))
        C = self.C + c_1 * (np.outer(self.pc, self.pc) - self.g_c * self.C) + c_mu * ((y.T * w) @ y - self.C)
        self.m = self.m + self.sigma * step
        move = inverse @ (np.exp(2 * change) * C - self.C) @ inverse
        noise = (c_s / damping) ** 2 * (d - self.chi**2) / self.chi**2 * self.g_s
        spread = (d * d + d) * (c_mu**2 / mu + c_c * (2 - c_c) * c_1 * c_mu * mu * float((w**3).sum()))
        spread += c_1**2 * (self.g_c**2 * d * d + (1 - 2 * self.g_c + 2 * self.g_c**2) * d)
        expected = d / mu + 2 * d * noise + 0.5 * (1 + 8 * noise) * spread
        beta, alpha = 0.4, 1.4
        unit = np.sqrt(beta * (2 - beta) / expected)
        self.p_m = (1 - beta) * self.p_m + unit * white
        self.p_S = (1 - beta) * self.p_S + unit * move / np.sqrt(2)
        self.g_t = (1 - beta) ** 2 * self.g_t + beta * (2 - beta)
        length = self.p_m @ self.p_m + (self.p_S**2).sum()
        self.size = float(np.clip(self.size * np.exp(beta * (self.g_t - length / alpha)), self.least, 512 * self.least))
        self.sigma *= np.exp(change) * self.optimal(self.n) / self.optimal(n)
        self.C = C
        return float(found.min())
