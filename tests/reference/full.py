"""Strategies with a covariance matrix as their papers have them: numpy, formula by formula, nothing shared.

Each ``sample`` makes candidates from noise rows (n, d), and each ``update`` takes those rows and the values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

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


class DXNESIC:
    """Nomura, Sakai, Fukushima, Ono (2021), algorithm 1: sums over candidates, Q and the eigenvectors as matrices."""

    def __init__(self, x0: Array, sigmas: Array, n: int) -> None:
        d = x0.size
        self.mean, self.sigma, self.n = x0.copy(), np.prod(sigmas) ** (1 / d), n
        self.B = np.diag(sigmas / self.sigma)
        self.hat = np.maximum(0.0, np.log(n / 2 + 1) - np.log(np.arange(1, n + 1)))
        self.mu_eff = 1 / np.sum((self.hat / self.hat.sum()) ** 2)
        self.c_s = (self.mu_eff + 2) / (d + self.mu_eff + 5)
        self.chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))
        low, high = 0.0, 6.0
        while high - low > 1e-14:
            h = 0.5 * (low + high)
            low, high = (h, high) if (1 + h * h) * np.exp(h * h / 2) / 0.24 < d + 10 else (low, h)
        self.h, self.p, self.gamma = low, np.zeros(d), 1.0
        self.phases = [0, 0, 0]
        self.widest = 1.0

    def sample(self, eps: Array) -> Array:
        return self.mean + self.sigma * eps @ self.B.T

    def update(self, eps: Array, values: Array) -> None:
        d, n = self.mean.size, self.n
        infeasible = np.isnan(values) | (values == np.inf)
        lengths = np.linalg.norm(eps, axis=1)
        z = eps[sorted(range(n), key=lambda i: (infeasible[i], lengths[i] if infeasible[i] else values[i]))]
        good = int(n - infeasible.sum())
        w = self.hat / self.hat.sum() - 1 / n
        self.p = (1 - self.c_s) * self.p + np.sqrt(self.c_s * (2 - self.c_s) * self.mu_eff) * (w @ z)
        reached = np.linalg.norm(self.p) / self.chi
        phase = 0 if reached >= 1 else 1 if reached >= 0.1 else 2
        self.phases[phase] += 1
        if phase == 0:
            alpha = self.h * min(1.0, np.sqrt(n / d)) * np.sqrt(good / n)
            far = self.hat * np.exp(alpha * np.linalg.norm(z, axis=1))
            w = far / far.sum() - 1 / n
        eta_sigma = (1.0, np.tanh((0.024 * good + 0.7 * d + 20) / (d + 12)),
                     2 * np.tanh((0.025 * good + 0.75 * d + 10) / (d + 4)))[phase]  # fmt: skip
        eta_B = (180, 168, 12)[phase] * d / (47 * d**2 + 6400) * np.tanh(0.02 * good)
        G_M = sum(a * (np.outer(row, row) - np.eye(d)) for a, row in zip(w, z, strict=True))
        G_sigma = np.trace(G_M) / d
        before = self.B @ self.B.T
        self.mean = self.mean + self.sigma * self.B @ (w @ z)
        self.sigma *= np.exp(eta_sigma / 2 * G_sigma)
        self.B = self.B @ expm(eta_B / 2 * (G_M - G_sigma * np.eye(d)))
        after = self.B @ self.B.T
        _, e = np.linalg.eigh(before)
        tau = [(e[:, i] @ after @ e[:, i]) / (e[:, i] @ before @ e[:, i]) - 1 for i in range(d)]
        c_gamma, d_gamma = 1 / (3 * (d - 1)), min(1.0, d / n)
        self.gamma = max(1.0, (1 - c_gamma) * self.gamma + c_gamma * np.sqrt(1 + d_gamma * max(tau)))
        self.widest = max(self.widest, self.gamma)
        if phase == 0:
            grown = [np.outer(e[:, i], e[:, i]) for i in range(d) if tau[i] > 0]
            Q = np.eye(d) + (self.gamma - 1) * sum(grown, np.zeros((d, d)))
            det = np.linalg.det(Q)
            self.sigma *= det ** (1 / d)
            self.B = Q @ self.B / det ** (1 / d)


class VkDCMA:
    """Akimoto, Hansen (2016), GECCO, with a fixed k and two-point step-size adaptation: the projection of a dense C.

    ``update`` takes the steps x - mean over sigma of all candidates; the last two lie on the last step of the mean.
    """

    def __init__(self, x0: Array, sigma: float, n: int, k: int) -> None:
        d = x0.size
        self.mean, self.sigma, self.k, self.n = x0.copy(), sigma, k, n
        raw = np.log((n + 1) / 2) - np.log(np.arange(1, n // 2 + 1))
        self.w = raw / raw.sum()
        self.mu_w = 1 / np.sum(self.w**2)
        self.c1 = 2 / (d * (k + 1) + d + 2 * (k + 2) + self.mu_w)
        self.cmu = min(1 - self.c1, 2 * (self.mu_w - 2 + 1 / self.mu_w) / (d * (k + 1) + 4 * (k + 2) + self.mu_w))
        self.cc = np.sqrt(self.c1)
        self.D, self.M, self.p = np.ones(d), np.eye(d), np.zeros(d)
        self.s, self.last, self.stalls = 0.0, np.zeros(d), 0

    @property
    def C(self) -> Array:
        return self.D[:, None] * self.M * self.D

    def ahead(self, length: float) -> Array:
        """The last step, of that length in the metric of C."""
        return self.last * length / np.sqrt(self.last @ np.linalg.solve(self.C, self.last))

    def sample(self, eps: Array) -> Array:
        values, vectors = np.linalg.eigh(self.M)
        return self.D * (eps @ (vectors * np.sqrt(values)) @ vectors.T)

    def update(self, steps: Array, values: Array, compared: bool) -> None:
        d, n = self.mean.size, self.n
        h = 1.0
        order = np.argsort(values).tolist()
        if compared:
            self.s += 0.3 * ((order.index(n - 1) - order.index(n - 2)) / (n - 1) - self.s)
            h = float(self.s < 0.5)
            self.stalls += h == 0.0
        y = steps[order[: n // 2]]
        self.last = self.w @ y
        self.mean = self.mean + self.sigma * self.last
        self.sigma *= np.exp(self.s / (4 - 3 / d))
        self.p = (1 - self.cc) * self.p + h * np.sqrt(self.cc * (2 - self.cc) * self.mu_w) * self.last
        a = 1 - self.c1 - self.cmu + self.c1 * (1 - h) * self.cc * (2 - self.cc)
        # In the coordinates of D only the unit matrix in M = I + V S V^T shrinks to a I beside the dyads.
        target = a * self.M + np.diag(1 / self.D) @ (
            self.c1 * np.outer(self.p, self.p) + self.cmu * (y.T * self.w) @ y
        ) @ np.diag(1 / self.D)
        values, vectors = np.linalg.eigh(target)
        beta = values[: d - self.k].mean()
        V = vectors[:, d - self.k :]
        self.M = np.eye(d) + (V * (values[d - self.k :] / beta - 1)) @ V.T
        self.D = self.D * np.sqrt(np.diag(target) / np.diag(self.M))
        size = np.linalg.det(self.C) ** (1 / (2 * d))
        self.D, self.p = self.D / size, self.p / size


class MAES:
    """Beyer, Sendhoff (2017), figure 3, with the rates of CMA-ES as Hansen's tutorial has them today."""

    def __init__(self, x0: Array, sigma: float, n: int) -> None:
        d = x0.size
        self.mean, self.sigma, self.M, self.s = x0.copy(), sigma, np.eye(d), np.zeros(d)
        mu = n // 2
        raw = np.log((n + 1) / 2) - np.log(np.arange(1, mu + 1))
        self.w = raw / raw.sum()
        self.mu_eff = 1 / np.sum(self.w**2)
        self.c_s = (self.mu_eff + 2) / (d + self.mu_eff + 5)
        self.c_1 = 2 / ((d + 1.3) ** 2 + self.mu_eff)
        rank_mu = 2 * (0.25 + self.mu_eff + 1 / self.mu_eff - 2) / ((d + 2) ** 2 + self.mu_eff)
        self.c_w = min(1 - self.c_1, rank_mu)
        self.d_s = 1 + self.c_s + 2 * max(0, np.sqrt((self.mu_eff - 1) / (d + 1)) - 1)

    def sample(self, eps: Array) -> Array:
        return self.mean + self.sigma * eps @ self.M.T

    def update(self, eps: Array, values: Array) -> None:
        d = self.mean.size
        z = eps[np.argsort(values)[: self.w.size]]
        self.mean = self.mean + self.sigma * self.M @ (self.w @ z)
        self.s = (1 - self.c_s) * self.s + np.sqrt(self.mu_eff * self.c_s * (2 - self.c_s)) * (self.w @ z)
        dyads = sum(a * np.outer(row, row) for a, row in zip(self.w, z, strict=True))
        change = self.c_1 / 2 * (np.outer(self.s, self.s) - np.eye(d)) + self.c_w / 2 * (dyads - np.eye(d))
        self.M = self.M @ (np.eye(d) + change)
        chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))
        self.sigma *= np.exp(self.c_s / self.d_s * (np.linalg.norm(self.s) / chi - 1))
