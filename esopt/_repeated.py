"""The same candidates several times: a population in which every row is evaluated with several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _tiled
from .noise import Array, Key, Law, Noise
from .records import Evals, Population


@dataclass(frozen=True)
class Repeated:
    """The rows of ``noise`` ``times`` over: row i is row i mod n. A copy of a row is no independent row."""

    noise: Noise
    times: int

    @property
    def n(self) -> int:
        return self.noise.n * self.times

    @property
    def dim(self) -> int:
        return self.noise.dim

    @property
    def block(self) -> int:
        return self.noise.block

    @property
    def mirrored(self) -> bool:
        return self.noise.mirrored

    @property
    def key(self) -> Key:
        return self.noise.key

    @property
    def law(self) -> Law:
        return self.noise.law

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first, last, offset): rows of ``noise``, and where they lie behind ``start``."""
        at = start
        while at < stop:
            first = at % self.noise.n
            last = min(self.noise.n, first + stop - at)
            yield first, last, at - start
            at += last - first

    def rows(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        stop = self.n if stop is None else stop
        parts = [self.noise.rows(first, last) for first, last, _ in self._pieces(start, stop)]
        return np.concatenate(parts) if parts else self.noise.rows(0, 0)

    def displace(self, mean: Array, scale: Array, start: int, out: NDArray[Any]) -> None:
        for first, last, at in self._pieces(start, start + len(out)):
            self.noise.displace(mean, scale, first, out[at : at + last - first])

    def moments(self, weights: Array, degrees: Sequence[int], squares: bool) -> tuple[Array, Array]:
        return _tiled.moments(self, weights, degrees, squares)

    def dot(self, rows: Array) -> Array:
        return _tiled.dot(self, rows)

    def norms(self, weights: Array | None = None) -> Array:
        return np.tile(self.noise.norms(weights), self.times)

    def weighted(self, rows: Array, squares: bool = False) -> tuple[Array, Array]:
        return _tiled.weighted(self, rows, squares)

    def tiles(self) -> Iterator[tuple[slice, slice, NDArray[Any]]]:
        for repeat in range(self.times):
            for rows, columns, eps in self.noise.tiles():
                yield slice(repeat * self.noise.n + rows.start, repeat * self.noise.n + rows.stop), columns, eps

    def resize(self, n: int) -> Repeated:
        if n % self.times:
            raise ValueError(f"{self.times} times the same rows cannot be {n} rows. Pass a multiple of {self.times}.")
        return replace(self, noise=self.noise.resize(n // self.times))


def repeat(population: Population, times: int) -> Population:
    """Return the population with all noise rows ``times`` over, then all explicit rows; every copy has its own seed."""
    if times == 1:
        return population
    extra = None if population.extra is None else np.tile(population.extra, (times, 1))
    probes = None if population.probes is None else Repeated(population.probes, times)
    noise = Repeated(population.noise, times)
    return replace(population, noise=noise, extra=extra, tags=population.tags * times, probes=probes)


def average(evals: Evals, population: Population, times: int) -> tuple[Evals, float]:
    """Return the evaluations of ``population`` from those of ``repeat(population, times)``, and the noise.

    A row is the average of its evaluations that did not fail. The noise is the standard deviation of one evaluation,
    pooled over the noise rows; nan where none was evaluated twice.
    """
    if times == 1:
        return evals, float("nan")
    n, k = population.n, len(population) - population.n

    def both(table: Array | None) -> Array | None:
        if table is None:
            return None
        return np.concatenate([mean(table[: n * times], n), mean(table[n * times :], k)])

    def mean(table: Array, rows: int) -> Array:
        return mean_over(table.reshape(times, rows, *table.shape[1:]))

    values = evals.values[: n * times].reshape(times, n)
    after = Evals(
        np.concatenate([mean(evals.values[: n * times], n), mean(evals.values[n * times :], k)]),
        both(evals.grads),
        None,
        both(evals.hessians),
        None if evals.hvps is None else mean(evals.hvps, n),
        None if evals.jvps is None else mean(evals.jvps, n),
        evals.steps,
        evals.failures,
    )
    good = np.isfinite(values).all(axis=0)
    noise = float(np.sqrt(values[:, good].var(axis=0, ddof=1).mean())) if good.any() else float("nan")
    return after, noise


def mean_over(table: Array) -> Array:
    """Return the mean over the first axis of what is not nan; nan where everything is."""
    with np.errstate(invalid="ignore"):  # infinities of both signs
        there = ~np.isnan(table)
        total, count = np.where(there, table, 0.0).sum(axis=0), there.sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)
