"""What evaluators with workers have in common: workers that stay, whole populations, and streams of their parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocols import State
from ..records import Evals, Part, Population
from ._rows import _Table, wanted_derivatives
from ._stream import Streams, as_part


@dataclass
class Live:
    """What belongs to this process and not to a checkpoint: an evaluator's workers and what they are doing."""

    streams: Streams | None = None

    def get(self, start: Callable[[], Streams]) -> Streams:
        """Return what the workers are doing; ``start`` them if there are none."""
        if self.streams is None:
            self.streams = start()
        return self.streams

    def wait(self, start: Callable[[], Streams], seconds: float | None) -> list[tuple[int, Part]]:
        """Return what was found."""
        try:
            return self.get(start).wait(seconds)
        except BaseException:
            self.after_error()
            raise

    @property
    def busy(self) -> bool:
        """Whether any worker has something to do."""
        return self.streams is not None and self.streams.busy

    def drop(self, ticket: int) -> None:
        """Give up what is unfinished of a ticket."""
        if self.streams is not None:
            self.streams.drop(ticket)

    def after_error(self) -> None:
        """End workers that are still at something that nobody wants."""
        if self.busy:
            self.close(kill=True)

    def close(self, *, kill: bool) -> None:
        """End the workers."""
        streams, self.streams = self.streams, None
        if streams is not None:
            streams.close(kill=kill)


def evaluate(streams: Streams, live: Live, population: Population) -> Evals:
    """Evaluate a whole population: its parts, in the order of the rows."""
    settings = streams.settings
    wanted = wanted_derivatives(population, settings.objective, settings.user)
    table = _Table.empty(len(population), population.n, population.dim, wanted)
    try:
        for start, piece in streams.tables(streams.submit(population)):
            table.put(start, piece)
    except BaseException:
        live.after_error()
        raise
    return table.evals(population.dim)


@dataclass(eq=False)
class Stream:
    """The parts of one population in the order of completion; made by ``evaluator.stream``.

    Iterating evaluates; it ends when all rows were returned, or raises what ``evaluate`` would.

    Attributes
    ----------
    close : gives up what is unfinished. Use the stream in a ``with`` statement if you may not iterate to its end.
    """

    streams: Streams
    ticket: int
    end: Callable[[], object]

    def __iter__(self) -> Iterator[Part]:
        try:
            for start, table in self.streams.tables(self.ticket):
                yield as_part(start, table)
        except GeneratorExit:
            raise
        except BaseException:
            self.end()
            raise
        finally:
            self.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is unfinished: what waits is forgotten, late answers are dropped."""
        self.streams.drop(self.ticket)


class Streaming:
    """Methods of an evaluator with workers that stay; it has ``_live``, and ``_start`` makes new workers."""

    _live: Live

    def _start(self) -> Streams:
        """Return new workers."""
        raise NotImplementedError

    def init(self) -> State:
        """Return the empty state; workers start with the first evaluation."""
        return ()

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return values (n + k,) and the derivatives that are needed."""
        return evaluate(self._live.get(self._start), self._live, population), state

    def stream(self, population: Population, state: State, rows: NDArray[np.int64] | None = None) -> Stream:
        """Return the parts of the population, or of some ``rows`` of it, in the order of completion.

        Together they are what :meth:`evaluate` returns, to the bit.
        """
        streams = self._live.get(self._start)
        return Stream(streams, streams.submit(population, rows), self._live.after_error)

    def submit(self, population: Population, rows: NDArray[np.int64] | None = None) -> int:
        """Begin to evaluate a population, or some ``rows`` of it, beside others; return its ticket for :meth:`wait`."""
        return self._live.get(self._start).submit(population, rows)

    def wait(self, seconds: float | None = None) -> list[tuple[int, Part]]:
        """Return (ticket, part) for what was found since the last call, as soon as there is anything.

        Empty after ``seconds`` without any, and at once if nothing is under way.
        """
        return self._live.wait(self._start, seconds)

    def drop(self, ticket: int) -> None:
        """Give up what is unfinished of a ticket: what waits is forgotten, late answers are dropped."""
        self._live.drop(ticket)
