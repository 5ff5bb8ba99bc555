"""Strategies as their papers have them: numpy, one row per candidate, nothing shared with the package.

Each ``update`` takes the noise rows of a generation, (n, d), and the values of mean + sigma * eps, lower is better.
Papers maximise rewards r = -value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

Array = NDArray[np.float64]


def centered_ranks(x: Array) -> Array:
    """Ranks of x, smallest first, spread over [-1/2, 1/2]."""
    ranks = np.empty(x.size)
    ranks[np.argsort(x)] = np.arange(x.size)
    return ranks / (x.size - 1) - 0.5


class OpenAIES:
    """Salimans et al. (2017), algorithm 2, shaping and decay of the published code; Adam of Kingma, Ba (2015)."""

    def __init__(self, x0: Array, sigma: float, lr: float, decay: float) -> None:
        self.mean, self.sigma, self.lr, self.decay = x0.copy(), sigma, lr, decay
        self.m, self.v, self.t = np.zeros_like(x0), np.zeros_like(x0), 0

    def update(self, eps: Array, values: Array) -> None:
        rewards = -values
        ranks = centered_ranks(rewards)
        positive, negative, directions = ranks[0::2], ranks[1::2], eps[0::2]
        ascent = sum((p - q) * e for p, q, e in zip(positive, negative, directions, strict=True)) / rewards.size
        gradient = -ascent + self.decay * self.mean
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        m_hat, v_hat = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        self.mean = self.mean - self.lr * m_hat / (np.sqrt(v_hat) + 1e-8)


class ARS:
    """Mania, Guy, Recht (2018), algorithm 1, V1-t: ``top`` directions by max(r+, r-)."""

    def __init__(self, x0: Array, sigma: float, lr: float, top: int) -> None:
        self.mean, self.sigma, self.lr, self.top = x0.copy(), sigma, lr, top

    def update(self, eps: Array, values: Array) -> None:
        plus, minus, directions = -values[0::2], -values[1::2], eps[0::2]
        order = sorted(range(len(plus)), key=lambda k: -max(plus[k], minus[k]))[: self.top]
        used = [plus[k] for k in order] + [minus[k] for k in order]
        deviation = np.sqrt(np.mean((np.array(used) - np.mean(used)) ** 2))
        step = sum((plus[k] - minus[k]) * directions[k] for k in order)
        self.mean = self.mean + self.lr / (self.top * deviation) * step


class PGPE:
    """Sehnke et al. (2010) with symmetric sampling, centred ranks, and ClipUp (Toklu et al. 2020, algorithm 2).

    The sigma of a coordinate follows ((r+ + r-) / 2 - b) ((sigma eps)^2 - sigma^2) / sigma, b the mean over the other
    pairs, and changes by 20 % at most.
    """

    def __init__(self, x0: Array, max_speed: float, sigma_lr: float) -> None:
        self.mean, self.max_speed, self.sigma_lr = x0.copy(), max_speed, sigma_lr
        self.sigma = np.full(x0.size, 15.0 * max_speed / np.sqrt(x0.size))
        self.velocity = np.zeros_like(x0)

    def update(self, eps: Array, values: Array) -> None:
        rewards = centered_ranks(-values)
        plus, minus, noise = rewards[0::2], rewards[1::2], self.sigma * eps[0::2]
        pairs = len(plus)
        ascent = ((plus - minus) / 2) @ noise / pairs
        average = (plus + minus) / 2
        others = (average.sum() - average) / (pairs - 1)
        up = (average - others) @ ((noise**2 - self.sigma**2) / self.sigma) / pairs
        velocity = 0.9 * self.velocity + self.max_speed / 2 * ascent / np.linalg.norm(ascent)
        length = np.linalg.norm(velocity)
        self.velocity = velocity * (self.max_speed / length) if length > self.max_speed else velocity
        self.mean = self.mean + self.velocity
        low, high = 0.8 * self.sigma, 1.2 * self.sigma
        self.sigma = np.clip(self.sigma + self.sigma_lr * up, low, high)


class SNES:
    """Wierstra et al. (2014), algorithm 6 with the defaults of table 1."""

    def __init__(self, x0: Array, sigma: float) -> None:
        d = x0.size
        self.n = 4 + int(np.floor(3 * np.log(d)))
        self.mean, self.sigma = x0.copy(), np.full(d, sigma)
        k = np.arange(1, self.n + 1)
        raw = np.maximum(0.0, np.log(self.n / 2 + 1) - np.log(k))
        self.utilities = raw / raw.sum() - 1 / self.n
        self.sigma_lr = (3 + np.log(d)) / (5 * np.sqrt(d))

    def update(self, eps: Array, values: Array) -> None:
        s = eps[np.argsort(values)]
        self.mean = self.mean + self.sigma * (self.utilities @ s)
        self.sigma = self.sigma * np.exp(self.sigma_lr / 2 * (self.utilities @ (s**2 - 1)))


class XNES:
    """Glasmachers et al. (2010), algorithm 1 with the defaults of table 1; candidates are mean + sigma B eps."""

    def __init__(self, x0: Array, sigma: float) -> None:
        d = x0.size
        self.n = 4 + int(np.floor(3 * np.log(d)))
        self.mean, self.sigma, self.b = x0.copy(), sigma, np.eye(d)
        k = np.arange(1, self.n + 1)
        raw = np.maximum(0.0, np.log(self.n / 2 + 1) - np.log(k))
        self.utilities = raw / raw.sum() - 1 / self.n
        self.rate = 3 * (3 + np.log(d)) / (5 * d * np.sqrt(d))

    def update(self, eps: Array, values: Array) -> None:
        d = self.mean.size
        s = eps[np.argsort(values)]
        g_delta = self.utilities @ s
        g_m = sum(u * (np.outer(z, z) - np.eye(d)) for u, z in zip(self.utilities, s, strict=True))
        g_sigma = np.trace(g_m) / d
        g_b = g_m - g_sigma * np.eye(d)
        self.mean = self.mean + self.sigma * self.b @ g_delta
        self.sigma = self.sigma * np.exp(self.rate / 2 * g_sigma)
        self.b = self.b @ expm(self.rate / 2 * g_b)
