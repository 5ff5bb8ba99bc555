"""Laws of step-size rules."""

from __future__ import annotations

import copy
import math

import numpy as np

from ..noise import Array
from ..protocols import Move, State, StepSize
from ._check import Check, bits, normals

_N = 12


def check_step_size(rule: StepSize, *, neutral: bool = False, generations: int = 3000) -> None:
    """Check that ``rule`` keeps the laws of :class:`esopt.protocols.StepSize`.

    All methods are pure; increasing transformations of the values change no bit; sigma stays a positive number where
    values are equal, infinite or failed; states can be saved.

    Parameters
    ----------
    neutral : sigma has no drift where values are noise: the mean of its logarithm's change is within four standard
        errors of zero.
    generations : how many of them ``neutral`` looks at.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> from esopt import TPA
    >>> from esopt.testing import check_step_size
    >>> check_step_size(TPA(), neutral=True)
    """
    check = Check(rule)
    for dim in (1, 2, 7):
        _check_start(check, rule, dim)
        _check_ranks(check, rule, dim)
        _check_bad_values(check, rule, dim)
    if neutral:
        _check_drift(check, rule, generations)


def _moves(rule: StepSize, dim: int, generations: int, values: Array) -> list[tuple[Move, State]]:
    """Return what a random walk of the mean tells the rule, and its states; ``values`` (g, n + 2) are given."""
    steps, state, mean, sigma = normals(3, generations, dim) / math.sqrt(_N), rule.init(dim), np.ones(dim), 0.5
    weights = np.maximum(0.0, math.log((_N + 1) / 2) - np.log(np.arange(1, _N + 1)))
    before, path, found = np.full(_N, np.nan), np.zeros(dim), []
    for generation, row in enumerate(values):
        count = len(rule.probes(mean, sigma, state))
        white = steps[generation]
        path = 0.7 * path + math.sqrt(0.51 * _N) * white
        cumulated = sigma * math.exp(0.2 * (float(path @ path) / dim - 1.0))
        probes = np.resize(row[_N:], count)
        move = Move(sigma, cumulated, row[:_N], before, probes, weights / weights.sum(), 2.0 * white, white)
        found.append((move, state))
        mean, before = mean + sigma * white, row[:_N]
        _, state = rule.adapt(copy.deepcopy(move), state)
    return found


def _check_start(check: Check, rule: StepSize, dim: int) -> None:
    fresh = rule.init(dim)
    check.same("init is pure", rule.init(dim), bits(fresh), do="Derive everything from the dimension.")
    for generation, (move, state) in enumerate(_moves(rule, dim, 5, normals(4, 5, _N + 2))):
        before = bits((tuple(move), state))
        rows, (sigma, after) = rule.probes(np.ones(dim), 0.5, state), rule.adapt(move, state)
        do = "Compute from the arguments alone, and write to none of them."
        check.same("probes is pure", rule.probes(np.ones(dim), 0.5, state), bits(rows), do=do)
        check.same("adapt is pure", rule.adapt(move, state), bits((sigma, after)), do=do)
        check.same("nothing is written to the arguments", (tuple(move), state), before, do=do)
        check.require(
            rows.shape == (len(rows), dim) and bool(np.isfinite(rows).all()),
            f"probes of generation {generation} are finite rows (k, {dim})",
            got=rows,
            expected=f"(k, {dim}), k = 0 for none",
            do="Return np.empty((0, mean.size)) for none.",
        )
        check.reload(after, fresh)


def _sigmas(rule: StepSize, dim: int, values: Array) -> Array:
    return np.array([rule.adapt(move, state)[0] for move, state in _moves(rule, dim, len(values), values)])


def _check_ranks(check: Check, rule: StepSize, dim: int) -> None:
    values = normals(5, 8, _N + 2)
    do = "Use the order of the values and nothing else."
    for name, increasing in (("exp(f)", np.exp), ("f^3", lambda v: v**3), ("f - 10^4", lambda v: v - 1e4)):
        law = f"{name} in place of f gives the same sigma"
        check.same(law, _sigmas(rule, dim, increasing(values)), bits(_sigmas(rule, dim, values)), do=do)


def _check_bad_values(check: Check, rule: StepSize, dim: int) -> None:
    cases = {"equal": np.zeros((6, _N + 2)), "infinite": np.full((6, _N + 2), np.inf)}
    cases["failed"] = np.where(np.arange(_N + 2) == 3, 1.0, np.full((6, _N + 2), np.nan))
    for name, values in cases.items():
        found = _sigmas(rule, dim, values)
        check.require(
            bool(np.isfinite(found).all() and found.min() > 0.0),
            f"sigma stays a positive number where values are {name}",
            got=found,
            expected="positive numbers",
            do="Rank failures last, and ties together.",
        )


def _check_drift(check: Check, rule: StepSize, generations: int) -> None:
    found = _moves(rule, 7, generations, normals(6, generations, _N + 2))
    changes = np.array([math.log(rule.adapt(move, state)[0] / move.sigma) for move, state in found])
    # Averages over 30 generations do not depend on each other any more.
    means = changes[: len(changes) // 30 * 30].reshape(-1, 30).mean(axis=1)
    drift, error = float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means)))
    check.require(
        abs(drift) < 4.0 * error,
        "the logarithm of sigma has no drift where values are noise",
        got=f"{drift:.4f} in a generation, standard error {error:.4f}",
        expected="within four standard errors of 0",
        do="Subtract the expectation under random selection, or pass neutral=False.",
    )
