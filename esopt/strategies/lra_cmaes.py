"""CMA-ES that slows down until its steps carry more signal than noise: LRA-CMA-ES."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .._blas import serial
from .._kernels import cma
from .._parts import check_flags
from ..noise import Array, Share, check_seed
from ..protocols import Sampler
from ..records import Evals, Info
from ..samplers.gaussian import Gaussian
from ._cma import (
    TOLERANCES,
    Rates,
    axis_lengths,
    check_values,
    constants,
    history_size,
    population_size,
    recent,
    triggered,
    units,
)
from ._drawn import Drawn
from .gradient_es import start_factor

# Section 4.5: the target signal-to-noise ratio, the memory of the two averages, the damping.
_ALPHA, _BETA_MEAN, _BETA_COV, _GAMMA = 1.4, 0.1, 0.03, 0.1


@dataclass(frozen=True, eq=False)
class RateState:
    """A learning rate, and averages of the steps it is for: of the step itself, and of its squared length."""

    eta: float
    step: Array
    square: float

    def after(self, step: Array, beta: float) -> RateState:
        """Return the rate adapted to a proposed ``step`` in local coordinates: eqs. 16-22 of the paper."""
        average = (1.0 - beta) * self.step + beta * step
        square = (1.0 - beta) * self.square + beta * float(np.vdot(step, step))
        length = float(np.vdot(average, average))
        noise = square - length
        snr = (length - beta / (2.0 - beta) * square) / noise if noise > 0.0 else 0.0
        relative = min(1.0, max(-1.0, snr / (_ALPHA * self.eta) - 1.0))
        eta = min(1.0, self.eta * math.exp(min(_GAMMA * self.eta, beta) * relative))
        return RateState(eta, average, square)


@dataclass(frozen=True, eq=False)
class LRAState:
    """State of :class:`LRACMAES`: x ~ N(mean, sigma^2 root^2), the root symmetric and of determinant one."""

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    root: Array
    path_sigma: Array
    path_c: Array
    rate_mean: RateState
    rate_cov: RateState
    history: Array
    latest: Array

    @property
    def cov(self) -> Array:
        """Covariance of the search, (d, d)."""
        return self.sigma**2 * (self.root @ self.root)

    @property
    def scale(self) -> Array:
        """Factor of the covariance that candidates are made with, (d, d)."""
        return self.sigma * self.root


@dataclass(frozen=True, eq=False)
class LRACMAES(Drawn):
    """CMA-ES with learning rates that keep the signal-to-noise ratio constant: for noisy and multimodal functions.

    The generation of :class:`CMAES` proposes a step of the mean and one of the covariance;
    each is taken by a share eta <= 1, and eta follows the estimated signal-to-noise ratio of its steps. A small eta is
    like a large population, found without being asked for. On functions that are neither noisy nor multimodal it costs
    up to a few times the evaluations of :class:`CMAES`.

    Parameters
    ----------
    sigma : initial standard deviation: a number, one per coordinate, or a factor (d, d).
    n : population size; None for 4 + floor(3 ln d), which need not be raised for hard functions.
    active : use negative weights, as the authors' code does and the paper does not.
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

    Notes
    -----
    O(n d^2 + d^3) time for each generation and O(d^2) memory. The stop rule "stagnation" does not apply.

    References
    ----------
    Nomura, Akimoto, Ono (2023), CMA-ES with learning rate adaptation: can CMA-ES with default population size solve
    multimodal and noisy problems?, arXiv:2304.03473, section 4.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> rng = np.random.default_rng(1)
    >>> def noisy(x): return float(x @ x) + rng.standard_normal()
    >>> lra = esopt.LRACMAES(sigma=2.0)
    >>> result = esopt.minimize(noisy, [3.0] * 5, strategy=lra, noisy=True, evaluations=5000, seed=1)
    >>> bool(result.x @ result.x < 0.5)
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None
    active: bool = True
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"

    def __post_init__(self) -> None:
        check_flags(active=self.active)
        super().__post_init__()

    @serial
    def init(self, x0: Array, seed: int) -> LRAState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        _, spread = start_factor(self.sigma, dim)
        start, (sigma, root) = float(np.linalg.norm(spread, axis=1).max()), _split(spread @ spread.T)
        n = population_size(self.n, dim, self.sampler)
        zero, history = np.zeros(dim), np.full((2, history_size(dim, n)), np.nan)
        rates = RateState(1.0, zero, 0.0), RateState(1.0, np.zeros((dim, dim)), 0.0)
        return LRAState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, start, root, zero, zero, *rates, history,
            np.full(n, np.nan),
        )  # fmt: skip

    @serial
    def tell(self, state: LRAState, evals: Evals) -> tuple[LRAState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        dim, noise = state.mean.size, self._noise(state)
        values = check_values(evals, noise)
        weights, plain = constants(dim, noise.n, self.active, False)
        rates = Rates(*plain)
        ranked, white, own = cma.select(noise.rows(), values, weights)
        path_sigma, path_c, change, moving = cma.paths(
            white, state.root @ white, state.generation, rates.sigma, rates.damping, rates.path, rates.mass,
            state.path_sigma, state.path_c,
        )  # fmt: skip
        # Relative to the root of the old covariance: C becomes lost I + c_1 p p^T + c_mu sum_k w_k z_k z_k^T.
        lost = (
            1.0
            - rates.one
            - rates.mu * float(weights.sum())
            + (0.0 if moving else rates.one * rates.path * (2.0 - rates.path))
        )
        local = np.linalg.solve(state.root, path_c)
        bracket = lost * np.eye(dim) + rates.one * np.outer(local, local) + rates.mu * (ranked.T * own) @ ranked
        step = math.exp(2.0 * change) * bracket - np.eye(dim)
        rate_mean = state.rate_mean.after(white, _BETA_MEAN)
        rate_cov = state.rate_cov.after(step / math.sqrt(2.0), _BETA_COV)
        spread = state.root @ (np.eye(dim) + rate_cov.eta * step) @ state.root
        size, root = _split(spread)
        # A slower mean wants a larger sigma: the optimal one is proportional to 1 / eta.
        sigma = state.sigma * size * state.rate_mean.eta / rate_mean.eta
        mean = state.mean + rate_mean.eta * state.sigma * (state.root @ white)
        after = LRAState(
            state.seed, state.generation + 1, mean, sigma, state.start, root, path_sigma, path_c, rate_mean, rate_cov,
            cma.remember(state.history, values), values,
        )  # fmt: skip
        scalars = {"sigma": sigma, "eta_mean": rate_mean.eta, "eta_cov": rate_cov.eta}
        return after, Info(state.generation, None, evals.failures, scalars)

    def stop(self, state: LRAState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers: those of :class:`CMAES` but for "stagnation"."""
        if state.generation == 0:
            return {}
        if not (math.isfinite(state.sigma) and np.isfinite(state.mean).all()):
            return {"diverged": state.sigma}
        dim = state.mean.size
        deviations = np.sqrt(np.einsum("ij,ij->i", state.root, state.root))
        known = state.generation % (10 * dim) == 0
        lengths = axis_lengths(state.root, units(self.sigma, dim)) if known else np.empty(0)
        numbers = cma.reasons(
            state.generation, recent(dim, state.latest.size), state.mean, state.sigma, state.start, deviations,
            state.root, lengths, state.path_c, state.history, state.latest, TOLERANCES,
        )  # fmt: skip
        reasons = triggered(numbers)
        reasons.pop("stagnation", None)
        return reasons


def _split(spread: Array) -> tuple[float, Array]:
    """Return sigma and the symmetric root of C, of determinant one, for the covariance sigma^2 C = ``spread``."""
    values, vectors = np.linalg.eigh((spread + spread.T) / 2.0)
    values = np.maximum(values, 1e-30 * values[-1])
    sigma = math.exp(float(np.log(values).mean()) / 2.0)
    root = (vectors * (np.sqrt(values) / sigma)) @ vectors.T
    return sigma, (root + root.T) / 2.0
