"""The loop behind fit_gaussian: natural gradient steps that are taken back, shrink and are averaged."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .errors import EvaluationError
from .noise import Array
from .protocols import Evaluator
from .records import Evals, Gradient, Population
from .strategies.natural_gaussian import NaturalGaussian, NaturalGaussianState, local_change

_WINDOW = 4
"""Successive natural gradients that must disagree before steps begin to shrink."""
_PATIENCE = 5
"""Steps back in a row before the bound is doubted, and how often it may be."""

_CONDITION = 1e7
"""Of a factor, beyond which its covariance is lost in rounding."""


def _negated(evals: Evals) -> Evals:
    """Return the evaluations of f = -log p: the one place where the sign turns."""
    derivatives = {name: getattr(evals, name) for name in ("grads", "hessians", "hvps", "jvps")}
    return replace(evals, values=-evals.values, **{k: -v for k, v in derivatives.items() if v is not None})


@dataclass(frozen=True, eq=False)
class _Accepted:
    """A generation that was not worse than the one before."""

    state: NaturalGaussianState
    evals: Evals
    energy: float
    error: float

    def is_beaten_by(self, gradient: Gradient) -> bool:
        """Whether the ELBO is lower there, by three standard errors; an error that grew is not believed."""
        error = min(gradient.value_stderr, self.error + 1.0)
        rounding = 1e-9 * (1.0 + abs(self.energy))
        # Without errors, from a single block, nothing is known to be worse.
        worse = gradient.value - self.energy > 3.0 * math.hypot(self.error, error) + rounding
        return worse or not math.isfinite(gradient.value)


class Search:
    """The loop, and what it remembers; ``rate`` is the longest step."""

    def __init__(self, strategy: NaturalGaussian, evaluator: Evaluator, rate: float, tolerance: float) -> None:
        self.strategy, self.evaluator, self.tolerance = strategy, evaluator, tolerance
        self.evaluator_state = evaluator.init()
        self.start = self.most = self.rate = rate
        self.accepted: _Accepted | None = None
        self.rejected = self.doubts = 0
        self.level = (0.0, 0.0)
        self.directions: list[Array] = []
        self.averaged = 0
        self.natural = (np.empty(0), np.empty(0))
        self.gain = 0.0
        self.evaluations = 0
        self.failures: dict[str, int] = {}
        self.energies: list[tuple[float, float]] = []
        self.converged, self.reason = False, "the budget of generations is used up"

    def run(self, x0: Array, seed: int, generations: int) -> None:
        """Search until the noise costs less than the tolerance, or ``generations`` are over."""
        self.state = self.strategy.init(x0, seed)
        for _ in range(generations):
            evals = self.evaluate(self.strategy.ask(self.state))
            told = self._tell(self.state, evals)
            if told is None:
                if not self._step_back():
                    return
                continue
            after, gradient = told
            self.rejected = 0
            self.rate = min(self.most, 1.5 * self.rate)
            self.accepted = _Accepted(self.state, evals, gradient.value, gradient.value_stderr)
            direction = _natural_gradient(gradient, self.state.scale)
            self.state = after
            if self._is_done(direction):
                return

    def evaluate(self, population: Population) -> Evals:
        """Return the evaluations of -log p, and count them."""
        evals, self.evaluator_state = self.evaluator.evaluate(population, self.evaluator_state)
        self.evaluations += len(population)
        infinite = int(np.isinf(evals.values).sum())
        for kind, count in {**evals.failures, "infinite": infinite}.items():
            if count:
                self.failures[kind] = self.failures.get(kind, 0) + count
        return _negated(evals)

    def _tell(self, state: NaturalGaussianState, evals: Evals) -> tuple[NaturalGaussianState, Gradient] | None:
        """Return the next state and the gradient, or None where the step that led here was too long."""
        rate = self.rate / (1.0 + self.averaged / 8.0) ** (2.0 / 3.0)
        try:
            after, info = replace(self.strategy, mean_rate=rate, scale_rate=rate).tell(state, evals)
        except EvaluationError:
            if not self.energies:
                raise
            return None
        gradient = info.gradient
        if gradient is None or (self.accepted is not None and self.accepted.is_beaten_by(gradient)):
            return None
        if self.strategy.stop(after) or (after.scale.ndim == 2 and not np.linalg.cond(after.scale) < _CONDITION):
            return None
        self.energies.append((gradient.value, gradient.value_stderr))
        return after, gradient

    def _step_back(self) -> bool:
        """Take a shorter step from the last good state; False where steps that short should not be needed."""
        self.rejected += 1
        last, self.accepted = self.accepted, None
        self.rate *= 0.25
        told = None if last is None or self.doubts == _PATIENCE else self._tell(last.state, last.evals)
        if told is None:
            self.reason = "no step improves the ELBO: check the derivatives, and that the density is flat nowhere"
            return False
        self.energies.pop()
        if self.rejected % _PATIENCE:
            self.accepted = last
        else:
            # The bound itself may have been a lucky draw: forget it.
            self.doubts += 1
        self.state = replace(told[0], generation=self.state.generation + 1)
        return True

    def _is_done(self, direction: Array) -> bool:
        gain = float(direction @ direction)
        if gain <= 1e-3 * self.tolerance and not self.averaged:
            self.converged, self.reason = True, "the ELBO does not change any more"
            return True
        if not self.averaged and not self._is_stationary(direction / math.sqrt(gain)):
            return False
        self._average(gain)
        if self.averaged == _WINDOW:
            self.level = self._recent()
        elif (
            self.averaged > _WINDOW
            and self.averaged & (self.averaged - 1) == 0
            and _is_lower(self._recent(), self.level)
        ):
            # There was progress after all: start again.
            self.averaged, self.directions = 0, []
            return False
        # Averages with these weights are as good as those of 7/16 as many equal ones; the rest is for curvature.
        if self.averaged >= 2 * _WINDOW and 4.0 * self.gain <= self.tolerance * self.averaged:
            self.converged, self.reason = True, "noise costs less than the tolerance"
            return True
        return False

    def _is_stationary(self, direction: Array) -> bool:
        """Whether successive directions, of length 1, stopped to agree, and the ELBO to grow (Pflug's test)."""
        self.directions = [*self.directions[-_WINDOW:], direction]
        if len(self.directions) <= _WINDOW:
            return False
        pairs = zip(self.directions[:-1], self.directions[1:], strict=True)
        cosine = sum(float(a @ b) for a, b in pairs) / _WINDOW
        if cosine < -0.25 and self.most > 0.3 * self.start:
            # Steps go too far and back: that is no noise yet.
            self.most = self.rate = 0.5 * self.rate
            self.directions = []
            return False
        return cosine < 0.1 and not _is_lower(self.energies[-1], self.energies[-1 - _WINDOW])

    def _recent(self) -> tuple[float, float]:
        """Return the average of the last few estimates of minus the ELBO, and its standard error."""
        energies, errors = np.array(self.energies[-_WINDOW:]).T
        return float(energies.mean()), float(np.sqrt(np.square(errors).sum())) / len(errors)

    def _average(self, gain: float) -> None:
        """Average the natural parameters with weights that grow like k^3, so that the start is forgotten."""
        self.averaged += 1
        weight = 4.0 / (self.averaged + 3.0)
        scale = self.state.scale
        if self.averaged == 1:
            self.natural = self.state.mean, np.zeros_like(scale)
        inverse = 1.0 / scale if scale.ndim == 1 else np.linalg.inv(scale)
        precision = np.square(inverse) if scale.ndim == 1 else inverse.T @ inverse
        mean, average = self.natural
        self.natural = mean + weight * (self.state.mean - mean), average + weight * (precision - average)
        self.gain += weight * (gain - self.gain)

    def found(self) -> tuple[Array, Array]:
        """Return the mean and the scale: averages, if there are any."""
        if not self.averaged:
            return self.state.mean, self.state.scale
        mean, precision = self.natural
        if precision.ndim == 1:
            return mean, 1.0 / np.sqrt(precision)
        return mean, np.asarray(np.linalg.inv(np.linalg.cholesky(precision)).T)


def _is_lower(now: tuple[float, float], before: tuple[float, float]) -> bool:
    """Whether ``now`` is below ``before`` by two standard errors; each is an estimate and its standard error."""
    return before[0] - now[0] > 2.0 * math.hypot(before[1], now[1])


def _natural_gradient(gradient: Gradient, scale: Array) -> Array:
    """Return the natural gradient in coordinates in which its squared length is the gain of a full step, in nats.

    That is 1/2 |L^T grad|^2 + 1/4 |L^T H L - I|_F^2, to second order.
    """
    local = scale * gradient.mean if scale.ndim == 1 else scale.T @ gradient.mean
    return np.concatenate([math.sqrt(0.5) * local, 0.5 * local_change(gradient, 1.0).reshape(-1)])
