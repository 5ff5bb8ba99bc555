"""LRA-CMA-ES as the paper has it: matrices written out, symmetric roots by eigendecomposition, nothing shared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.sqrt(values)) @ vectors.T


class LRA:
    """Nomura, Akimoto, Ono (2023), arXiv:2304.03473: algorithm 1 around the CMA-ES of section 2.1."""

    def __init__(self, x0: Array, sigma: float) -> None:
        d = x0.size
        self.d, self.n = d, 4 + int(3 * np.log(d))
        mu = self.n // 2
        w = np.log((self.n + 1) / 2) - np.log(np.arange(1, mu + 1))
        self.w = w / w.sum()
        self.mass = 1 / (self.w**2).sum()
        self.c_sigma = (self.mass + 2) / (d + self.mass + 5)
        self.damping = 1 + self.c_sigma + 2 * max(0.0, np.sqrt((self.mass - 1) / (d + 1)) - 1)
        self.c_c = (4 + self.mass / d) / (d + 4 + 2 * self.mass / d)
        self.c_1 = 2 / ((d + 1.3) ** 2 + self.mass)
        self.c_mu = min(1 - self.c_1, 2 * (0.25 + self.mass - 2 + 1 / self.mass) / ((d + 2) ** 2 + self.mass))
        self.m, self.sigma, self.C = x0.copy(), sigma, np.eye(d)
        self.p_sigma, self.p_c, self.t = np.zeros(d), np.zeros(d), 0
        self.E_m, self.V_m, self.eta_m = np.zeros(d), 0.0, 1.0
        self.E_S, self.V_S, self.eta_S = np.zeros(d * d), 0.0, 1.0

    def update(self, eps: Array, values: Array) -> None:
        d, half = self.d, root(self.C)
        y = (eps @ half.T)[np.argsort(values)[: self.w.size]]
        before, Sigma = self.m, self.sigma**2 * self.C
        y_w = self.w @ y
        m = before + self.sigma * y_w
        self.p_sigma = (1 - self.c_sigma) * self.p_sigma + np.sqrt(
            self.c_sigma * (2 - self.c_sigma) * self.mass
        ) * np.linalg.solve(half, y_w)
        length = np.linalg.norm(self.p_sigma)
        chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))
        self.t += 1
        moving = length / np.sqrt(1 - (1 - self.c_sigma) ** (2 * self.t)) < (1.4 + 2 / (d + 1)) * chi
        self.p_c = (1 - self.c_c) * self.p_c + moving * np.sqrt(self.c_c * (2 - self.c_c) * self.mass) * y_w
        sigma = self.sigma * np.exp(self.c_sigma / self.damping * (length / chi - 1))
        C = (1 - self.c_1 - self.c_mu + (1 - moving) * self.c_1 * self.c_c * (2 - self.c_c)) * self.C
        C = (
            C
            + self.c_1 * np.outer(self.p_c, self.p_c)
            + self.c_mu * sum(w * np.outer(v, v) for w, v in zip(self.w, y, strict=True))
        )

        inverse = np.linalg.inv(root(Sigma))
        step_m, step_S = m - before, sigma**2 * C - Sigma
        local_m, local_S = inverse @ step_m, (inverse @ step_S @ inverse).ravel() / np.sqrt(2)
        old = self.eta_m
        self.E_m, self.V_m, self.eta_m = self.adapt(self.E_m, self.V_m, self.eta_m, local_m, 0.1)
        self.E_S, self.V_S, self.eta_S = self.adapt(self.E_S, self.V_S, self.eta_S, local_S, 0.03)
        self.m = before + self.eta_m * step_m
        Sigma = Sigma + self.eta_S * step_S
        self.sigma = np.linalg.det(Sigma) ** (1 / (2 * d))
        self.C = Sigma / self.sigma**2
        self.sigma *= old / self.eta_m

    def adapt(self, E: Array, V: float, eta: float, step: Array, beta: float) -> tuple[Array, float, float]:
        E, V = (1 - beta) * E + beta * step, (1 - beta) * V + beta * (step @ step)
        snr = (E @ E - beta / (2 - beta) * V) / (V - E @ E)
        return E, V, min(1.0, eta * np.exp(min(0.1 * eta, beta) * np.clip(snr / (1.4 * eta) - 1, -1, 1)))
