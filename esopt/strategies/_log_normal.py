"""The density of the search distribution, and what is left of an objective beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..noise import Array
from ..records import Evals, Population


def log_normal(population: Population) -> Array:
    """Return log q of every row of the population, (n + k,), q = N(mean, L L^T), for a scale (d,) or (d, d)."""
    scale = np.asarray(population.scale)
    log_det = float(np.log(scale).sum()) if scale.ndim == 1 else float(np.linalg.slogdet(scale)[1])
    squares = population.noise.norms()
    if population.extra is not None:
        away = population.extra - population.mean
        local = away / scale if scale.ndim == 1 else np.linalg.solve(scale, away.T).T
        squares = np.concatenate([squares, np.square(local).sum(axis=1)])
    return np.asarray(-0.5 * squares - (log_det + 0.5 * population.dim * math.log(2.0 * math.pi)))


def add_log_normal(population: Population, evals: Evals, weight: float) -> Evals:
    """Return the evaluations of f + weight * log q, with q held fixed: values and derivatives.

    Diagonals of Hessians stay as they are beside a factor, where there is no use for them.
    """
    scale = np.asarray(population.scale)
    inverse = 1.0 / scale if scale.ndim == 1 else np.linalg.inv(scale)

    def pull(rows: Array) -> Array:
        """Return weight * L^-T row for every row: minus the gradient of weight * log q, for rows of noise."""
        return np.asarray(weight * (rows * inverse if scale.ndim == 1 else rows @ inverse))

    def precision(rows: Array) -> Array:
        """Return weight * Sigma^-1 row for every row."""
        return pull(rows * inverse if scale.ndim == 1 else rows @ inverse.T)

    values = evals.values + weight * log_normal(population)
    found = replace(evals, values=values)
    if evals.hessians is not None and evals.hessians.ndim == 3:
        found = replace(found, hessians=evals.hessians - precision(np.eye(population.dim)))
    elif evals.hessians is not None and scale.ndim == 1:
        found = replace(found, hessians=evals.hessians - precision(np.ones(population.dim)))
    probes = None if population.probes is None else population.probes.rows().astype(np.float64)
    if evals.hvps is not None and probes is not None:
        found = replace(found, hvps=evals.hvps - precision(probes))
    if evals.grads is None and (evals.jvps is None or probes is None):
        return found
    own = pull(population.noise.rows().astype(np.float64))
    if evals.jvps is not None and probes is not None:
        found = replace(found, jvps=evals.jvps - np.einsum("ij,ij->i", own, probes))
    if evals.grads is not None:
        if population.extra is not None:
            own = np.concatenate([own, precision(population.extra - population.mean)])
        found = replace(found, grads=evals.grads - own)
    return found
