"""Worker processes of one's own: each with a socket, and with a thread here that reads its answers.

Each process has its own queue, so that a death concerns the tasks of one process, and the one that it was at is known.
There are no semaphores, shared memory or files that could be left behind. A process ends when its socket is closed,
and so when this process ends, however that happens. It leads a process group of its own: Ctrl-C in a terminal does not
reach it, and what f has started there ends with it.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Iterable
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from typing import Any, NamedTuple, Protocol

from ..errors import EvaluationError
from ._pool import Done, Outcome
from ._tasks import dumps, unpack_error
from ._worker import BEGUN, Order, Reply, Setup

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Variables that say how many threads a new process takes."""

_STARTS = 10
"""A pool whose processes ended so often in a row before they were ready gives up."""

_EXIT_SECONDS = 5.0


class Call(Protocol):
    """A task, and a recipe with a ``number`` that it shares with others."""

    @property
    def recipe(self) -> Any:
        """What travels once."""
        ...

    @property
    def task(self) -> Any:
        """What travels with the task."""
        ...


class _Job(NamedTuple):
    number: int
    done: Done


class _Process:
    """One process. ``jobs``: what it was given, oldest first; it is at the first."""

    def __init__(self, threads: int, setup: Setup) -> None:
        self.jobs: deque[_Job] = deque()
        self.recipes: list[int] = []
        self.dead = self.ready = self.unwanted = self.idle = False
        self.since = math.inf
        self.lock = Lock()
        self.owner = os.getpid()
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        self._notes = _nameless()
        self._popen, self._connection = _start(threads, self._notes)
        self.send([(_strings(sys.path), _strings(sys.argv)), setup])
        self._writer = Thread(target=self._write, name="esopt-worker", daemon=True)
        self._writer.start()
        self._reader = Thread(target=self._read, name="esopt-worker", daemon=True)
        self._reader.start()

    def send(self, messages: Iterable[Any]) -> None:
        """Send messages without waiting; if the process is gone, its reader knows what to do."""
        for message in messages:
            self._outbox.put(message)

    def kill(self) -> None:
        """End the process, whatever it is doing, and what it has started."""
        self.unwanted = True
        self._kill()

    def end(self, *, kill: bool) -> None:
        """Ask the process to end; :meth:`join` waits for it."""
        self.unwanted = True
        if kill:
            self._kill()
        _hang_up(self._connection)

    def join(self) -> None:
        """Wait for the process and its threads here, unless this is one of them, which may collect garbage."""
        if current_thread() in (self._reader, self._writer):
            return
        self._reader.join(_EXIT_SECONDS)
        if self._reader.is_alive():
            self._kill()
            self._reader.join()

    def forget(self) -> None:
        """In a fork, close our copies of what the process and its owner talk by; its reader has, if it is dead."""
        if not self.dead:
            self._connection.close()
            os.close(self._notes)

    def _kill(self) -> None:
        """Kill the process group. Only the reader waits for the process, so that its number is not another's yet."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def _write(self) -> None:
        """In a thread: send what is to be sent. A busy process does not read, and a recipe may be long."""
        with contextlib.suppress(OSError):
            while (message := self._outbox.get()) is not None:
                self._connection.send(message)
                del message

    def _read(self) -> None:
        """In a thread: pass the answers of the process on, and say so when it is gone."""
        try:
            while True:
                reply: Reply = self._connection.recv()
                with self.lock:
                    self.since = time.monotonic() if reply.number == BEGUN else math.inf
                    if reply.number < 0:
                        self.ready = True
                        continue
                    job = self.jobs.popleft()
                job.done(_outcome(reply))
                del job, reply
        except (EOFError, OSError):
            pass
        finally:
            self._kill()  # a process that has closed its socket is of no use
            self._popen.wait()
            self._outbox.put(None)
            self._writer.join()
            with self.lock:
                self.dead = True
                self.idle = not (self.ready and self.jobs)
                jobs, self.jobs = self.jobs, deque()
                self._connection.close()
            with open(self._notes, "rb") as notes:
                notes.seek(0)
                words = notes.read().decode("utf-8", "replace")
            for at, job in enumerate(jobs):
                begun = self.ready and at == 0
                job.done(Outcome(begun=begun, words=words if begun else ""))


class Processes:
    """A pool of ``workers`` processes with ``threads`` threads each, which do the work of ``setup``.

    ``ahead`` : tasks that may wait for each of them. With 0 their time is measured, from the call of the user's
    functions on.
    """

    shared, own = False, True

    def __init__(self, workers: int, threads: int, setup: Setup, *, ahead: int = 1) -> None:
        self._threads, self._setup, self._room = threads, setup, 1 + ahead
        self._processes: list[_Process] = []
        self._count = self._lost = self._starts = 0
        self._sent: tuple[int, bytes] = (-1, b"")
        self._workers = workers
        self._finalizer = weakref.finalize(self, _end, self._processes, kill=True)

    def room(self) -> int:
        """Return how many more tasks may be submitted."""
        own = os.getpid()
        return self._workers * self._room - sum(len(one.jobs) for one in self._processes if one.owner == own)

    def submit(self, call: Call, done: Done) -> int:
        """Send ``call`` to the process that has least to do; the recipe, if it does not have it yet."""
        self._replace()
        number = self._count = self._count + 1
        while True:
            process = min(self._processes, key=lambda one: len(one.jobs))
            with process.lock:
                if not process.dead:
                    process.jobs.append(_Job(number, done))
                    break
            self._replace()
        process.send(self._messages(process, call, number))
        return number

    def running(self, number: int) -> float:
        """Return the seconds since a process began with a task; 0.0 if it is not known to have begun."""
        for process in self._processes:
            with process.lock:
                if process.jobs and process.jobs[0].number == number:
                    return max(0.0, time.monotonic() - process.since)
        return 0.0

    def kill(self, number: int) -> None:
        """Kill the process that is at a task; another takes its place."""
        for process in self._processes:
            with process.lock:
                if process.jobs and process.jobs[0].number == number:
                    process.kill()

    def take_lost(self) -> int:
        """Return how many processes ended unasked since the last call, and were at no task."""
        self._replace()
        lost, self._lost = self._lost, 0
        return lost

    def rest(self) -> None:
        """Do nothing."""

    def close(self, *, kill: bool) -> None:
        """End the processes and wait for them."""
        self._finalizer.detach()
        _end(self._processes, kill=kill)

    def _messages(self, process: _Process, call: Call, number: int) -> list[Any]:
        """Return what to send: perhaps a recipe, made once for all processes; then the task."""
        messages: list[Any] = []
        recipe = call.recipe
        if recipe.number not in process.recipes:
            if self._sent[0] != recipe.number:
                self._sent = (recipe.number, dumps(recipe))
            process.recipes.append(recipe.number)
            messages += [process.recipes.pop(0)] if len(process.recipes) > _RECIPES else []
            messages.append(self._sent[1])
        return [*messages, Order(number, recipe.number, call.task, self._room == 1)]

    def _replace(self) -> None:
        """Start processes where there are none, or none any more; those of a process that was forked are not ours."""
        _forget(self._processes)
        for process in [one for one in self._processes if one.dead]:
            self._processes.remove(process)
            self._lost += process.idle and not process.unwanted
            self._starts = 0 if process.ready else self._starts + 1
        if self._starts >= _STARTS:
            raise EvaluationError(
                f"{self._starts} worker processes in a row ended before they could begin. Expected them to import "
                "esopt; look for a message above, too little memory, or a limit on processes. Use Serial(f), or fewer "
                "workers."
            )
        while len(self._processes) < self._workers:
            self._processes.append(_Process(self._threads, self._setup))


_RECIPES = 8
"""Recipes that a process keeps: as many as there are populations at a time."""


def _forget(processes: list[_Process]) -> None:
    """In a fork of the process that started them, close what was inherited: they are not ours."""
    own = os.getpid()
    for process in processes:
        if process.owner != own:
            process.forget()
    processes[:] = [one for one in processes if one.owner == own]


def _end(processes: list[_Process], *, kill: bool) -> None:
    """End all processes at once, and wait; in a fork of this process, only forget them."""
    _forget(processes)
    ended, processes[:] = list(processes), []
    for process in ended:
        process.end(kill=kill or bool(process.jobs))
    for process in ended:
        process.join()


_CODE = """
import sys
sys.path[:] = [path for path in sys.path if path]
from multiprocessing.connection import Connection
connection = Connection({})
try:
    sys.path[:], sys.argv[:] = connection.recv()
except EOFError:
    sys.exit()
from esopt.evaluators._worker import serve
serve(connection, {})
"""


def _nameless() -> int:
    """Return an open file that nothing is left of, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("esopt")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _start(threads: int, notes: int) -> tuple[subprocess.Popen[bytes], Connection[Any, Any]]:
    """Start a fresh interpreter that serves the other end of a socket; the paths of modules come by it."""
    try:
        ours, theirs = Pipe()
    except OSError:
        os.close(notes)
        raise
    code = _CODE.format(theirs.fileno(), notes)
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        popen = subprocess.Popen(
            [sys.executable, *flags, "-c", code],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), notes],
            env={**os.environ, **dict.fromkeys(THREADS, str(threads))},
            process_group=0,
        )
    except BaseException:
        ours.close()
        os.close(notes)
        raise
    finally:
        theirs.close()
    return popen, ours


def _strings(values: list[Any]) -> list[str]:
    """Return the strings among ``values``: programs put other things into sys.path, which Python passes over."""
    return [value for value in values if isinstance(value, str)]


def _hang_up(connection: Connection[Any, Any]) -> None:
    """Shut our direction of the socket down: the process sees the end of its tasks, ends, and then the reader does."""
    import socket

    with contextlib.suppress(OSError):
        own = socket.socket(fileno=os.dup(connection.fileno()))
        with own:
            own.shutdown(socket.SHUT_WR)


def _outcome(reply: Reply) -> Outcome:
    return Outcome(reply.answer) if reply.answer is not None else Outcome(error=unpack_error(reply.error))
