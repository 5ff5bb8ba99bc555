"""Populations played in pieces: a few megabytes of rows at a time, or more rows until there are enough steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..records import Population
from .engine import Array, Engine, Integers, Played
from .environments import episode_seeds
from .gym_engine import EpisodeError
from .policy import Policy

_NUMBERS = 1 << 22


def play_rows(
    engine: Engine,
    policy: Policy,
    population: Population,
    seeds: Integers,
    mean: Array,
    std: Array,
    cut: Mapping[str, int],
    start: int = 0,
) -> Played:
    """Play ``seeds`` (m, e) with the last m rows of the population, those from ``start`` on, normalised.

    ``cut`` is how long episodes may be, as an argument of an engine; empty for no cut. Rows go as a recipe where the
    engine takes that, else row by row, a few megabytes at a time.

    Raises
    ------
    EpisodeError  with the row of the population.
    """
    whole: Any = engine
    if hasattr(engine, "play_population"):
        try:
            played: Played = whole.play_population(population, seeds, mean, std, start, **cut)
        except EpisodeError as error:
            raise _moved(error, start) from error.__cause__
        return played
    height = max(2, _NUMBERS // population.dim // 2 * 2)
    pieces = []
    for first in range(start, len(population), height):
        last = min(first + height, len(population))
        folded = policy.fold(population.rows(first, last), mean, std)
        try:
            pieces.append(whole.play(folded, seeds[first - start : last - start], **cut))
        except EpisodeError as error:
            raise _moved(error, first) from error.__cause__
    return pieces[0] if len(pieces) == 1 else _joined(pieces)


def play_until(
    steps: int,
    engine: Engine,
    policy: Policy,
    population: Population,
    episodes: int,
    mean: Array,
    std: Array,
    cut: Mapping[str, int],
) -> tuple[Population, Played]:
    """Play the population, and more rows of its noise until all episodes together took ``steps`` steps.

    Returns
    -------
    The population that was played, ``population.resize(n)``, and what came of it, the same as if all its rows had been
    played at once.

    Notes
    -----
    Rows are added in whole blocks, as many as the mean length so far says are missing, but no more than there are. A
    piece without a step, because everything failed, is the last one.

    References
    ----------
    Salimans, Ho, Chen, Sidor, Sutskever (2017), Evolution strategies as a scalable alternative to reinforcement
    learning, and its published code, which adds episodes until there are enough steps.
    """
    pieces: list[Played] = []
    start = taken = 0
    while True:
        seeds = episode_seeds(population.seeds[start:], episodes)
        pieces.append(play_rows(engine, policy, population, seeds, mean, std, cut, start))
        new = int(pieces[-1].lengths.sum())
        taken += new
        if taken >= steps or not new:
            return population, pieces[0] if len(pieces) == 1 else _joined(pieces)
        start, block = population.n, population.noise.block
        missing = min(math.ceil(start * (steps - taken) / taken), start)
        population = population.resize(start + block * -(-missing // block))


def count_failures(played: Played) -> dict[str, int]:
    """Return failed episodes by kind; those that the engine did not name are "nan"."""
    failures = dict(played.failures)
    rest = played.failed - sum(failures.values())
    if rest:
        failures["nan"] = failures.get("nan", 0) + rest
    return failures


def _moved(error: EpisodeError, rows: int) -> EpisodeError:
    return EpisodeError(rows + error.row, error.episode, error.seed, error.kind, error.what)


def _joined(pieces: list[Played]) -> Played:
    failures: dict[str, int] = {}
    for piece in pieces:
        for kind, count in piece.failures.items():
            failures[kind] = failures.get(kind, 0) + count
    columns = [np.concatenate(column) for column in list(zip(*pieces, strict=True))[:4]]
    return Played(columns[0], columns[1], columns[2], columns[3], failures)
