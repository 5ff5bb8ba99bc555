"""Signals that end a process, while a run has a checkpoint to save: an exception first, then what they always did."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ._log import log

_ENDING = ("SIGTERM", "SIGHUP")  # from a scheduler, a service manager, a terminal that was closed


class Terminated(KeyboardInterrupt):
    """A signal other than that of Ctrl-C asks the process to end; unwound in the same way."""


def name_of(interrupt: KeyboardInterrupt) -> str:
    """Return the reason that a result gives for an interrupt."""
    return "terminated" if isinstance(interrupt, Terminated) else "interrupted"


class Signals:
    """Within the block, SIGTERM and SIGHUP raise Terminated; after it, they have the effect that they had before.

    So that a run can be saved and its workers closed: the process then ends as the sender expects, unless its own
    handler decides otherwise. What is ignored stays ignored. SIGINT raises KeyboardInterrupt as ever, but not in the
    middle of :meth:`held`. Handlers belong to the main thread: elsewhere, and if not ``active``, nothing changes.
    """

    def __init__(self, *, active: bool) -> None:
        self._active = active
        self._before: dict[int, Any] = {}
        self._signal: int | None = None  # what asked for the end
        self._holding = False
        self._held: KeyboardInterrupt | None = None

    def __enter__(self) -> Signals:
        if self._active and threading.current_thread() is threading.main_thread():
            for name in _ENDING:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._end)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) in (self._end, self._interrupt):  # else somebody has put their own there
                signal.signal(number, before)
        if self._signal is not None:
            signal.raise_signal(self._signal)

    def check(self) -> None:
        """Raise Terminated if it was raised before and something swallowed it."""
        if self._signal is not None:
            raise Terminated

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep interrupts back until the end of the block; a second Ctrl-C is not."""
        self._holding, self._held = True, None
        try:
            yield
        finally:
            self._holding = False
        held, self._held = self._held, None
        if held is not None:
            raise held

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            return  # it is on its way out already
        self._signal = number
        log.warning("%s: the run is being saved, and ends.", signal.Signals(number).name)
        self._raise(Terminated())

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._held is not None:
            self._holding = False
        self._raise(KeyboardInterrupt())

    def _raise(self, interrupt: KeyboardInterrupt) -> None:
        if not self._holding:
            raise interrupt
        self._held = interrupt
