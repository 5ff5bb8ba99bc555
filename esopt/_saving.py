"""Saving a run now and then and at its end. What cannot be saved is said and counted; the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

from . import checkpoint
from ._async import Flights
from ._limits import Limits
from ._log import log
from ._progress import add_counts
from ._signals import Signals
from ._streaming import known
from .history import History
from .optimizer import Optimizer
from .protocols import State
from .result import Result


class Saver:
    """Writes the checkpoint and the history of a run, where it has a place for them.

    ``failures`` counts what could not be written: a full disk, or a folder that lost its permissions, costs a run
    nothing but its newest checkpoint.
    """

    def __init__(
        self, es: Optimizer, limits: Limits, kept: History | None, signals: Signals, flights: Flights | None = None
    ) -> None:
        self.failures: dict[str, int] = {}
        self._news: dict[str, int] = {}
        self._flights = flights
        self._es, self._path, self._kept, self._signals = es, limits.checkpoint, kept, signals
        self._every = limits.checkpoint_seconds
        self._last, self._generation, self._saved = time.perf_counter(), es.generation, self._known()

    def save_if_due(self) -> None:
        """Save if it is time for a periodic checkpoint."""
        if self._path is not None and time.perf_counter() - self._last >= self._every:
            self.save()

    def news(self) -> dict[str, int]:
        """Return what could not be written since the last call."""
        news, self._news = self._news, {}
        return news

    def check(self) -> None:
        """Raise if a signal asked for the end and something swallowed the exception."""
        self._signals.check()

    def save(self) -> None:
        """Save what was learned since the last time, if anything."""
        es, failed = self._es, {}
        if self._known() == self._saved:
            return
        with self._signals.held():
            if self._flights is not None:
                es.flight = self._flights.freeze()
            if self._path is not None and self._write("checkpoint", self._path, es.save):
                failed["checkpoint"] = 1
            if self._kept is not None and self._kept.path is not None:
                if self._write("history", self._kept.path, self._kept.save):
                    failed["history"] = 1
            if not failed:
                self._generation, self._saved = es.generation, self._known()
            self._last = time.perf_counter()
            self.failures, self._news = add_counts(self.failures, failed), add_counts(self._news, failed)

    def _known(self) -> tuple[object, ...]:
        return *known(self._es), 0 if self._flights is None else self._flights.landed

    def mark(self, result: Result) -> Result:
        """Return the result with the count of what could not be written."""
        return replace(result, failures=add_counts(result.failures, self.failures)) if self.failures else result

    def _write(
        self, what: str, path: str | os.PathLike[str], write: Callable[[str | os.PathLike[str]], None]
    ) -> OSError | None:
        try:
            write(path)
        except OSError as error:
            log.warning(
                "cannot write the %s at generation %d (%s). %s is as it was at generation %d; the run goes on and "
                "tries again. Make room, or mend the permissions of the folder.",
                *(what, self._es.generation, error.strerror or error, os.fspath(path), self._generation),
            )
            return error
        return None


def resume(es: Optimizer, path: str | os.PathLike[str] | None, state: State) -> State:
    """Return the evaluator's state, and go on with a checkpoint if there is one."""
    if path is None:
        return state
    if os.path.exists(path):
        return es.load(path, state)
    earlier = checkpoint.previous_of(path)
    if os.path.exists(earlier):
        log.warning(
            "there is no %s, but %s: a new run begins, and will replace it. To go on with that one, stop this run and "
            "rename it.",
            *(os.fspath(path), os.path.basename(earlier)),
        )
    return state
