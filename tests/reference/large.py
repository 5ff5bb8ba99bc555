"""Large-scale strategies as their papers have them: numpy, one row per candidate, nothing shared with the package.

Each ``sample`` makes candidates from noise rows (n, d), and each ``update`` takes those rows and the values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class LMMAES:
    """Loshchilov, Glasmachers, Beyer (2017), algorithm 1."""

    def __init__(self, x0: Array, sigma: float, n: int, m: int) -> None:
        d = x0.size
        self.mean, self.sigma, self.t = x0.copy(), sigma, 0
        mu = n // 2
        raw = np.array([np.log(mu + 0.5) - np.log(i) for i in range(1, mu + 1)])
        self.w = raw / raw.sum()
        self.mu_w = 1.0 / np.sum(self.w**2)
        self.c_sigma = 2.0 * n / d
        self.c_d = [1.0 / (1.5**i * d) for i in range(m)]
        self.c_c = [n / (4.0**i * d) for i in range(m)]
        self.p = np.zeros(d)
        self.m = [np.zeros(d) for _ in range(m)]

    def steps(self, eps: Array) -> Array:
        found = []
        for z in eps:
            step = z.copy()
            for j in range(min(self.t, len(self.m))):
                step = (1 - self.c_d[j]) * step + self.c_d[j] * self.m[j] * (self.m[j] @ step)
            found.append(step)
        return np.array(found)

    def sample(self, eps: Array) -> Array:
        return self.mean + self.sigma * self.steps(eps)

    def update(self, eps: Array, values: Array) -> None:
        best = np.argsort(values)[: self.w.size]
        z = self.w @ eps[best]
        self.mean = self.mean + self.sigma * (self.w @ self.steps(eps)[best])
        self.p = (1 - self.c_sigma) * self.p + np.sqrt(self.mu_w * self.c_sigma * (2 - self.c_sigma)) * z
        for i, c in enumerate(self.c_c):
            self.m[i] = (1 - c) * self.m[i] + np.sqrt(self.mu_w * c * (2 - c)) * z
        self.sigma = self.sigma * np.exp(self.c_sigma / 2 * (self.p @ self.p / self.mean.size - 1))
        self.t += 1


class CRFMNES:
    """Nomura, Ono (2022), algorithm 2: everything from the candidates, one at a time. All values are finite."""

    def __init__(self, x0: Array, sigma: float, n: int, v: Array) -> None:
        d = x0.size
        self.mean, self.sigma, self.n, self.v, self.D = x0.copy(), sigma, n, v.copy(), np.ones(d)
        hat = np.maximum(0.0, np.log(n / 2 + 1) - np.log(np.arange(1, n + 1)))
        self.hat = hat
        self.w_rank = hat / hat.sum() - 1 / n
        self.mu_eff = 1 / np.sum((hat / hat.sum()) ** 2)
        self.c_s = (self.mu_eff + 2) / (d + self.mu_eff + 5)
        self.c_c = (4 + self.mu_eff / d) / (d + 4 + 2 * self.mu_eff / d)
        self.c_1 = 2 / ((d + 1.3) ** 2 + self.mu_eff) * (d - 5) / 6
        self.chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))
        low, high = 0.0, 6.0
        while high - low > 1e-14:
            h = 0.5 * (low + high)
            low, high = (h, high) if (1 + h * h) * np.exp(h * h / 2) / 0.24 < d + 10 else (low, h)
        self.alpha = low * min(1.0, np.sqrt(n / d))
        self.eta_B = np.tanh((min(0.02 * n, 3 * np.log(d)) + 5) / (0.23 * d + 25))
        self.p_s, self.p_c = np.zeros(d), np.zeros(d)
        self.moved = 0

    def steps(self, eps: Array) -> Array:
        root = np.eye(self.v.size) + (np.sqrt(1 + self.v @ self.v) - 1) * np.outer(self.v, self.v) / (self.v @ self.v)
        return eps @ root

    def sample(self, eps: Array) -> Array:
        return self.mean + self.sigma * self.D * self.steps(eps)

    def update(self, eps: Array, values: Array) -> None:
        d, n = self.mean.size, self.n
        rows = np.argsort(values)
        z, y = eps[rows], self.steps(eps)[rows]
        self.p_s = (1 - self.c_s) * self.p_s + np.sqrt(self.c_s * (2 - self.c_s) * self.mu_eff) * (self.w_rank @ z)
        reached = np.linalg.norm(self.p_s) / self.chi
        moving = reached >= 1
        self.moved += moving
        far = self.hat * np.exp(self.alpha * np.linalg.norm(z, axis=1))
        w = far / far.sum() - 1 / n if moving else self.w_rank
        eta = 2 * np.tanh((0.025 * n + 0.75 * d + 10) / (d + 4))
        if reached >= 0.1:
            eta = np.tanh((0.024 * n + 0.7 * d + 20) / (d + 12))
        if moving:
            eta = 1.0
        step = self.D * (w @ y)
        self.p_c = (1 - self.c_c) * self.p_c + np.sqrt(self.c_c * (2 - self.c_c) * self.mu_eff) * step
        self.mean = self.mean + self.sigma * step
        gradients = [self._gradient(row) for row in y] + [self._gradient(self.p_c / self.D)]
        each = np.append(self.eta_B * w, self.c_1 if moving else 0.0)
        self.v = self.v + sum(a * t for a, (t, _) in zip(each, gradients, strict=True)) / np.linalg.norm(self.v)
        self.D = self.D + self.D * sum(a * s for a, (_, s) in zip(each, gradients, strict=True))
        det = np.prod(self.D) ** 2 * (1 + self.v @ self.v)
        self.D = self.D / det ** (1 / (2 * d))
        G = w @ (np.square(z).sum(axis=1) - d) / d
        if not (moving and G < 0):
            self.sigma = self.sigma * np.exp(eta / 2 * G)

    def _gradient(self, y: Array) -> tuple[Array, Array]:
        """The four steps for one y, with the inverse by a solver."""
        length2 = self.v @ self.v
        u, gamma = self.v / np.sqrt(length2), 1 + length2
        uu = u * u
        alpha = min(1.0, np.sqrt(length2**2 + (2 * gamma - np.sqrt(gamma)) / uu.max()) / (2 + length2))
        t = (y @ u) * y - ((y @ u) ** 2 + gamma) / 2 * u
        s = y * y - length2 / gamma * (y @ u) * y * u - 1
        s = s - alpha / gamma * ((2 + length2) * u * t - length2 * (u @ t) * uu)
        b = 2 * alpha**2 - (1 - alpha**2) * length2**2 / gamma
        A = np.diag(2 - (b + 2 * alpha**2) * uu) + b * np.outer(uu, uu)
        s = np.linalg.solve(A, s)
        t = t - alpha * ((2 + length2) * u * s - (s @ uu) * u)
        return t, s


class RMES:
    """Li, Zhang (2018), algorithms 1 to 3; the distribution is sampled through the root of its covariance."""

    def __init__(self, x0: Array, sigma: float, n: int, m: int, gap: int) -> None:
        d, mu = x0.size, n // 2
        self.mean, self.sigma, self.t, self.gap = x0.copy(), sigma, 0, gap
        raw = np.log(mu + 0.5) - np.log(np.arange(1, mu + 1))
        self.w = raw / raw.sum()
        self.mu_eff = 1 / np.sum(self.w**2)
        self.c_cov, self.c_c = 1 / (3 * np.sqrt(d) + 5), 2 / (d + 7)
        self.p, self.P, self.times, self.s = np.zeros(d), [np.zeros(d) for _ in range(m)], [0] * m, 0.0
        self.before: Array | None = None

    def steps(self, eps: Array) -> Array:
        m, d = len(self.P), self.mean.size
        C = (1 - self.c_cov) ** m * np.eye(d)
        for j, p in enumerate(self.P, 1):
            C += self.c_cov * (1 - self.c_cov) ** (m - j) * np.outer(p, p)
        values, vectors = np.linalg.eigh(C)
        return eps @ (vectors * np.sqrt(values)) @ vectors.T

    def sample(self, eps: Array) -> Array:
        return self.mean + self.sigma * self.steps(eps)

    def update(self, eps: Array, values: Array) -> None:
        mu = self.w.size
        best = np.argsort(values)[:mu]
        step = self.w @ self.steps(eps)[best]
        self.mean = self.mean + self.sigma * step
        self.p = (1 - self.c_c) * self.p + np.sqrt(self.c_c * (2 - self.c_c) * self.mu_eff) * step
        gaps = np.diff(self.times)
        close = int(np.argmin(gaps)) if gaps.size else 0
        out = 0 if not gaps.size or self.t < len(self.P) or gaps[close] > self.gap else close + 1
        self.t += 1
        self.P = [*self.P[:out], *self.P[out + 1 :], self.p]
        self.times = [*self.times[:out], *self.times[out + 1 :], self.t]
        now = values[best]
        if self.before is not None:
            order = np.argsort(np.concatenate([self.before, now])).tolist()
            ranks = np.array([order.index(i) for i in range(2 * mu)])
            q = np.sum(self.w * (ranks[:mu] - ranks[mu:])) / mu
            self.s = 0.7 * self.s + 0.3 * (q - 0.3)
        self.before = now
        self.sigma = self.sigma * np.exp(self.s)


class DDCMA:
    """Akimoto, Hansen (2020), algorithm 1 with the constants of table 1; decomposed every ``every`` generations."""

    def __init__(self, x0: Array, sigma: float, n: int) -> None:
        d = x0.size
        self.mean, self.sigma, self.t = x0.copy(), sigma, 0
        raw = np.log((n + 1) / 2) - np.log(np.arange(1, n + 1))
        plus, minus = raw[raw > 0], raw[raw < 0]
        self.mu_w, mu_minus = plus.sum() ** 2 / (plus @ plus), minus.sum() ** 2 / (minus @ minus)
        mu_dash = self.mu_w + 1 / self.mu_w - 2 + n / (2 * (n + 5))
        self.c1, self.cmu, self.cc, self.w = {}, {}, {}, {}
        for kind, m in (("C", d * (d + 1) / 2), ("D", d)):
            self.c1[kind] = 1 / (2 * (m / d + 1) * (d + 1) ** 0.75 + self.mu_w / 2)
            self.cmu[kind] = min(mu_dash * self.c1[kind], 1 - self.c1[kind])
            self.cc[kind] = np.sqrt(self.mu_w * self.c1[kind]) / 2
            limit = min(1 + self.c1[kind] / self.cmu[kind], 1 + 2 * mu_minus / (self.mu_w + 2))
            w = np.where(raw > 0, raw / plus.sum(), 0.0)
            self.w[kind] = np.where(raw < 0, raw * limit / -minus.sum(), w)
        self.c_s = (self.mu_w + 2) / (d + self.mu_w + 5)
        self.d_s = 1 + self.c_s + 2 * max(0, np.sqrt((self.mu_w - 1) / (d + 1)) - 1)
        self.every = max(1, int(1 / (10 * d * (self.c1["C"] + self.cmu["C"]))))
        self.D, self.C, self.A = np.ones(d), np.eye(d), np.eye(d)
        self.ps, self.p = np.zeros(d), {"C": np.zeros(d), "D": np.zeros(d)}
        self.gs, self.g = 0.0, {"C": 0.0, "D": 0.0}

    def sample(self, eps: Array) -> Array:
        return self.mean + self.sigma * self.D * (eps @ self.A)

    def update(self, eps: Array, values: Array) -> None:
        d = self.mean.size
        z = eps[np.argsort(values)]
        y = z @ self.A
        positive = np.maximum(self.w["C"], 0)
        self.mean = self.mean + self.sigma * self.D * (positive @ y)
        a = np.sqrt(self.c_s * (2 - self.c_s) * self.mu_w)
        self.ps = (1 - self.c_s) * self.ps + a * (positive @ z)
        self.gs = (1 - self.c_s) ** 2 * self.gs + self.c_s * (2 - self.c_s)
        chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))
        h = float(self.ps @ self.ps / self.gs < (2 + 4 / (d + 1)) * d)
        self.sigma = self.sigma * np.exp(self.c_s / self.d_s * (np.linalg.norm(self.ps) / chi - np.sqrt(self.gs)))
        for kind in "CD":
            c = self.cc[kind]
            step = self.D * (positive @ y)
            self.p[kind] = (1 - c) * self.p[kind] + h * np.sqrt(c * (2 - c) * self.mu_w) * step
            self.g[kind] = (1 - c) ** 2 * self.g[kind] + h * c * (2 - c)
        beta = max(1.0, np.linalg.cond(self.A) - 2 + 1)
        inverse = np.linalg.inv(self.A)
        change = self.c1["D"] * ((inverse @ (self.p["D"] / self.D)) ** 2 - self.g["D"])
        own = self.p["C"] / self.D
        C = self.C + self.c1["C"] * (np.outer(own, own) - self.g["C"] * self.C)
        for i, row in enumerate(z):
            short = d / (row @ row)
            w = self.w["D"][i]
            change = change + self.cmu["D"] * ((w * short if w < 0 else w) * row**2 - w)
            w = self.w["C"][i]
            C = C + self.cmu["C"] * ((w * short if w < 0 else w) * np.outer(y[i], y[i]) - w * self.C)
        self.D, self.C = self.D * np.exp(change / (2 * beta)), C
        self.t += 1
        if self.t % self.every == 0:
            s = np.sqrt(np.diag(self.C))
            self.D, self.C = self.D * s, self.C / np.outer(s, s)
            values, vectors = np.linalg.eigh(self.C)
            self.A = vectors @ np.diag(np.sqrt(values)) @ vectors.T
