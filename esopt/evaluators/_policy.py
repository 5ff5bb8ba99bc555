"""What happens when a candidate fails: the policy, its limits, its errors, and one line in the log for each failure."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..errors import EvaluationError
from ..noise import Array
from ..objective import Objective
from ..records import Population

log = logging.getLogger("esopt")
log.addHandler(logging.NullHandler())  # silent, unless the program that uses the library wants to see it

POPULATION = "population = es.population() of that generation (or strategy.ask(state))"
EVENTS = ("retried", "killed")
"""Counts in ``Evals.failures`` that are no failed candidates: they cost nothing but time."""

LINES = 5
"""Failures of a kind that are logged one by one in a generation, and noted in a table."""


class Policy(NamedTuple):
    """``on_error``, read: whether to raise, else how often a candidate that failed is evaluated again."""

    raises: bool
    retries: int = 0


class Failure(NamedTuple):
    """Candidate ``row`` failed, in words; and ``rows`` from it on where a call evaluates several at once."""

    kind: str
    row: int
    what: str
    part: str = "f"
    rows: int = 1


def read_policy(on_error: object) -> Policy:
    """Return what ``on_error`` says; ValueError for anything but "raise", "nan" and "retry(k)"."""
    if on_error == "raise":
        return Policy(raises=True)
    if on_error == "nan":
        return Policy(raises=False)
    found = re.fullmatch(r"retry\(\s*([1-9]\d{0,5})\s*\)", on_error) if isinstance(on_error, str) else None
    if found is None:
        raise ValueError(
            f'on_error must be "raise", "nan" or "retry(k)" with a whole number k >= 1, got {on_error!r}. '
            'Pass "nan" to go on without failed candidates, or "retry(2)" to evaluate them again up to twice before.'
        )
    return Policy(raises=False, retries=int(found[1]))


def check_policy(on_error: object) -> None:
    """Refuse anything but "raise" and "nan", where retries are another setting."""
    if on_error not in ("raise", "nan"):
        raise ValueError(
            f'on_error must be "raise" or "nan", got {on_error!r}. Pass "nan" to go on without failed candidates.'
        )


def check_limits(max_failures: object, timeout: object, user: str = "") -> None:
    """Refuse a limit that is none, and a ``timeout`` for a ``user`` that evaluates in this process."""
    number = isinstance(max_failures, (int, float, np.integer, np.floating)) and not isinstance(max_failures, bool)
    whole = number and float(max_failures).is_integer() and max_failures >= 0  # type: ignore[arg-type, operator]
    if max_failures is not None and not whole and not (number and 0.0 < max_failures < 1.0):  # type: ignore[operator]
        raise ValueError(
            f"max_failures must be None, a whole number of candidates, or a share between 0 and 1 of a generation, "
            f"got {max_failures!r}. Pass for example max_failures=0.25."
        )
    if timeout is None:
        return
    if user:
        raise ValueError(
            f"{user}() got timeout={timeout!r}, but it calls f in this process, where a call that hangs cannot be "
            "ended. Expected worker processes. Use Joblib(f, workers=2, timeout=...), or minimize(..., workers=2)."
        )
    real = isinstance(timeout, (int, float, np.integer, np.floating)) and not isinstance(timeout, bool)
    if not real or not 0.0 < timeout < np.inf:  # type: ignore[operator]
        raise ValueError(f"timeout must be seconds or None, got {timeout!r}. Pass for example timeout=60.0.")


def check_failed(
    values: Array, failures: Mapping[str, int], max_failures: float | None, population: Population
) -> None:
    """Raise EvaluationError if more of ``values`` are nan than ``max_failures`` allows."""
    if max_failures is not None and too_many(failed := int(np.isnan(values).sum()), max_failures, len(population)):
        raise failed_error(failed, failures, max_failures, population)


def too_many(failed: int, max_failures: float | None, total: int) -> bool:
    """Tell whether more candidates ``failed`` of ``total`` than ``max_failures`` allows."""
    if max_failures is None:
        return False
    return (failed / total if 0.0 < max_failures < 1.0 else failed) > max_failures


def failed_error(
    failed: int, failures: Mapping[str, int], max_failures: float | None, population: Population
) -> EvaluationError:
    """Return the error of a generation in which more candidates ``failed`` than ``max_failures`` allows."""
    total = len(population)
    kinds = ", ".join(f"{times} {kind}" for kind, times in sorted(failures.items())) or "all of them nan"
    return EvaluationError(
        f"{failed} of {total} candidates of generation {population.noise.key.generation} failed ({kinds}).\n"
        f"Expected at most max_failures={max_failures}. Look at the log for the candidates "
        '(logging.getLogger("esopt")), or raise max_failures; the optimizer is as it was before the generation.'
    )


def name_candidate(row: int, objective: Objective, population: Population) -> str:
    """Return the name of a candidate: its row, generation and seed."""
    seed = f" (seed {population.seeds[row]})" if objective.seeded else ""
    return f"candidate {row} of generation {population.noise.key.generation}{seed}"


def call_again(row: int, part: str, objective: Objective, population: Population) -> str:
    """Return the call that evaluates a candidate again, as a line of Python."""
    shaped = "" if objective.shape is None else f".reshape({objective.shape})"
    v = [f"population.probes.rows({row}, {row + 1})[0].astype(float){shaped}"] if part in ("hvp", "jvp") else []
    seed = [str(population.seeds[row])] if objective.seeded else []
    return f"{part}({', '.join([f'population[{row}]{shaped}', *v, *seed, *(['*args'] if objective.args else [])])})"


class Journal:
    """Logs the failures of one generation: each in a line, but of a kind only the first few, and then how many more."""

    def __init__(self, objective: Objective, population: Population) -> None:
        self._objective = objective
        self._population = population
        self._lines: dict[str, int] = {}
        self._logged: dict[str, int] = {}
        self._counted: dict[str, int] = {}

    def add(self, notes: list[Failure], failures: Mapping[str, int]) -> None:
        """Log the ``notes`` that there is room for; ``failures`` counts them and those that nobody noted."""
        for kind, times in failures.items():
            self._counted[kind] = self._counted.get(kind, 0) + times
        for note in notes:
            lines = self._lines.get(note.kind, 0)
            if lines < LINES:
                self._lines[note.kind] = lines + 1
                self._logged[note.kind] = self._logged.get(note.kind, 0) + note.rows
                log.warning("%s: %s", note.kind, self._line(note))

    def end(self) -> None:
        """Log how many more there were."""
        generation = self._population.noise.key.generation
        for kind, times in self._counted.items():
            more = times - self._logged.get(kind, 0)
            if more > 0:
                log.warning("%s: %d more in generation %d", kind, more, generation)
        self._counted = {}

    def _line(self, note: Failure) -> str:
        objective, population, row = self._objective, self._population, note.row
        key = population.noise.key
        if row < 0:
            return f"{note.what} in generation {key.generation} (run seed {key.seed})"
        if note.rows > 1:
            who = f"candidates {row} to {row + note.rows - 1} of generation {key.generation}"
            call = f"{note.part}(population.rows({row}, {row + note.rows}), ...)"
            return f"{who} (run seed {key.seed}): {note.what}. Reproduce it with: {call}, where {POPULATION}"
        who = f"candidate {row} of generation {key.generation} (seed {population.seeds[row]}, run seed {key.seed})"
        call = call_again(row, note.part, objective, population)
        return f"{who}: {note.what}. Reproduce it with: {call}, where {POPULATION}"


def log_failures(
    notes: list[Failure], failures: Mapping[str, int], objective: Objective, population: Population
) -> None:
    """Log the failures of a generation at once."""
    if failures:
        journal = Journal(objective, population)
        journal.add(notes, failures)
        journal.end()
