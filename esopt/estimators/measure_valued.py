"""Gradients from values one coordinate at a time: measure-valued derivatives.

The derivative of N(mean_i, sigma_i^2) in its mean is the difference of two one-sided laws over sigma_i sqrt(2 pi):
d_i J = E[f(x with eps_i = W) - f(x with eps_i = -W)] / (sigma_i sqrt(2 pi)), W = sqrt(-2 ln U), a Rayleigh length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..noise import PROBE, Array, Key, Law, Noise
from ..protocols import State
from ..records import Evals, Gradient, Population
from ..samplers.gaussian import Gaussian
from ._blocks import divide_with_error, mean_value, usable_blocks

_TAG = "measure valued"


@dataclass(frozen=True)
class MeasureValued:
    """Average of differences along the coordinates, each as long as a Rayleigh variable: any f, jumps included.

    Unbiased wherever J has a gradient. With gradient a and Hessian H the variance for a noise row is (4 / pi - 1)
    |a|^2 + 4 / pi sigma^2 (|H|^2 - sum_i H_ii^2) on a quadratic, which does not grow with d, at a cost of 2 d + 1
    evaluations. With k random coordinates it is 4 d / (pi k) (|a|^2 + sigma^2 (|H|^2 - sum_i H_ii^2)) - |a|^2, at a
    cost of 2 k + 1.

    Parameters
    ----------
    coordinates : how many coordinates to move for each noise row, chosen at random without repetition; None for all.

    Notes
    -----
    Every noise row gets 2 k explicit rows, x with coordinate i at mean_i + sigma_i W and at mean_i - sigma_i W. They
    are materialised: O(n k d) memory, O(n d^2) for all coordinates. The noise rows themselves give the value of J
    alone. A noisy f is called with a seed of its own for each explicit row, or with one for all under
    ``share="generation"``, where the noise cancels in the differences.

    References
    ----------
    Pflug (1989), Sampling derivatives of probabilities; Mohamed, Rosca, Figurnov, Mnih (2020), Monte Carlo gradient
    estimation in machine learning, section 6.

    Examples
    --------
    >>> import numpy as np, esopt
    >>> def step(x): return float(x[0] > 0.0)
    >>> g = esopt.smoothed_gradient(step, [0.0], sigma=0.5, n=400, estimator=esopt.MeasureValued())
    >>> bool(np.allclose(g.mean, 1.0 / (0.5 * np.sqrt(2.0 * np.pi))))
    True
    """

    coordinates: int | None = None

    def __post_init__(self) -> None:
        k = self.coordinates
        whole = isinstance(k, (int, np.integer)) and not isinstance(k, bool)
        if k is not None and not (whole and k >= 1):
            raise ValueError(
                f"coordinates must be a positive whole number or None, got {k!r}. Pass None to move all of them."
            )

    @property
    def with_scale(self) -> bool:
        return False

    @property
    def raw_only(self) -> bool:
        return True

    def init(self, dim: int) -> State:
        """Return the empty state.

        Raises
        ------
        ValueError  for more coordinates than there are.
        """
        if self.coordinates is not None and self.coordinates > dim:
            raise ValueError(
                f"MeasureValued() got coordinates={self.coordinates} in {dim} dimensions. "
                f"Pass at most {dim}, or None for all."
            )
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        """Add the explicit rows: for each noise row and coordinate, the one at +W and the one at -W.

        Raises
        ------
        ValueError  for rows that are not Gaussian, or a scale that is neither a number nor one per coordinate.
        """
        noise, law = population.noise, population.noise.law
        if law is not Law.GAUSSIAN:
            raise ValueError(
                f"MeasureValued() got noise that is {law.value}; the Rayleigh lengths are those of rows that are "
                "N(0, I). Use a sampler with Law.GAUSSIAN, or the estimator Score()."
            )
        sigma = np.broadcast_to(population.sigma("MeasureValued()"), noise.dim)
        chosen = self._chosen(noise)
        steps = sigma[chosen] * np.take_along_axis(_lengths(noise), chosen, axis=1)
        rows = np.repeat(population.rows(0, noise.n), 2 * chosen.shape[1], axis=0).reshape(*chosen.shape, 2, noise.dim)
        row, at = np.arange(noise.n)[:, None], np.arange(chosen.shape[1])
        rows[row, at, 0, chosen] = population.mean[chosen] + steps
        rows[row, at, 1, chosen] = population.mean[chosen] - steps
        return population.with_extra(_TAG, rows.reshape(-1, noise.dim))

    def estimate(self, population: Population, evals: Evals, state: State) -> tuple[Gradient, State]:
        """Return the gradient.

        Raises
        ------
        EvaluationError  if no block of noise rows is free of failures, those of its explicit rows included.
        """
        noise, values = population.noise, evals.values[: population.n]
        explicit = population.tagged(_TAG)
        ends = evals.values[explicit].reshape(noise.n, -1, 2)
        chosen = self._moved(population, int(explicit[0]), ends.shape[1])
        with np.errstate(invalid="ignore"):
            differences = ends[:, :, 0] - ends[:, :, 1]
            blocks, rows = usable_blocks(values + differences.sum(axis=1), population)
        kept = differences if rows is None else np.where(rows[:, None], differences, 0.0)
        terms = np.zeros((noise.n, noise.dim))
        weight = noise.dim / (chosen.shape[1] * math.sqrt(2.0 * math.pi) * blocks * noise.block)
        np.put_along_axis(terms, chosen, kept * weight, axis=1)
        by_block = terms.reshape(-1, noise.block, noise.dim).sum(axis=1)
        sums, squares = by_block.sum(axis=0), np.einsum("ij,ij->j", by_block, by_block)
        mean, mean_stderr = divide_with_error(sums, squares, blocks, population.sigma("MeasureValued()"))
        value, value_stderr = mean_value(values, noise.block)
        return Gradient(mean, mean_stderr, blocks, value, value_stderr, len(population)), state

    def _chosen(self, noise: Noise) -> NDArray[np.int64]:
        """Return the coordinates that each noise row moves, (n, k)."""
        if self.coordinates is None or self.coordinates == noise.dim:
            return np.broadcast_to(np.arange(noise.dim), (noise.n, noise.dim))
        order = np.argsort(_normals(noise, 2), axis=1, kind="stable")
        return np.sort(order[:, : self.coordinates], axis=1)

    def _moved(self, population: Population, first: int, k: int) -> NDArray[np.int64]:
        """Return the same of a prepared population whose explicit rows start at ``first``: where their pairs differ."""
        n, dim = population.n, population.dim
        if k == dim:
            return self._chosen(population.noise)
        rows = population.rows(first, first + 2 * k * n).reshape(n, k, 2, dim)
        return np.asarray(np.argmax(rows[:, :, 0] != rows[:, :, 1], axis=2))


def _lengths(noise: Noise) -> Array:
    """Return W for every row and coordinate, (n, d): the length of two independent normals."""
    return np.asarray(np.sqrt(np.square(_normals(noise, 0)) + np.square(_normals(noise, 1))))


def _normals(noise: Noise, which: int) -> Array:
    """Return one of three sets of standard normals, (n, d), independent of each other and of the noise."""
    key = Key(noise.key.seed, noise.key.generation, PROBE)
    first = which << 30
    return Gaussian().noise(key, noise.n, noise.dim).rows(first, first + noise.n).astype(np.float64)
