"""What a worker process does: read tasks from its pipe, evaluate them, answer, and end when nobody is there any more.

The first message is what the process needs: ``(initializer, arguments)`` in bytes. Then come recipes, which it keeps
for as long as there are tasks of them, and tasks.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ._tasks import Answer, Recipe, Task, known_objective, loads, pack_error, portable, receive, work

GRACE_SECONDS = 2.0
"""How long a worker whose master is gone may take to end by itself."""

READY, BEGUN = -1, -2
"""Numbers of the messages that say that a worker is there, and that a timed task calls the user's functions now."""


class Order(NamedTuple):
    """A task for a worker: its ``number``, the number of its recipe, and whether its time is measured."""

    number: int
    recipe: int
    task: Task
    timed: bool


class Reply(NamedTuple):
    """The answer to a task, or the bytes of an error beside the user's exceptions."""

    number: int
    answer: Answer | None = None
    error: bytes = b""


def serve(connection: Connection[Any, Any]) -> None:
    """Work for the process at the other end of the socket until it goes.

    The socket is the caller's, and open until this process ends: what is registered with atexit is done before.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that owns this one
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # what f prints may go to the terminal, from a process group behind
    os.register_at_fork(after_in_child=connection.close)  # a child that lives on would hide that this process is gone
    threading.Thread(target=_watch, args=(connection.fileno(), os.getppid()), daemon=True).start()
    recipes: dict[int, Recipe] = {}
    try:
        token, payload = connection.recv()
        receive(token, payload)
        begun = partial(connection.send, Reply(BEGUN))
        connection.send(Reply(READY))
        while True:
            message = connection.recv()
            if isinstance(message, Order):
                connection.send(_answer(message, token, recipes, begun))
            elif isinstance(message, bytes):
                recipe = loads(message)
                recipes[recipe.number] = recipe
            else:
                recipes.pop(message, None)
    except (EOFError, OSError):
        pass
    # The interpreter may wait for threads and children of the user; the watch, or a signal, ends that.


def _answer(order: Order, token: str, recipes: dict[int, Recipe], begun: Callable[[], object]) -> Reply:
    """Evaluate a task; nothing that happens there ends this process, but for the process itself."""
    try:
        objective = known_objective(token)
        if objective is None:
            raise RuntimeError("a worker process has lost its objective")
        answer = work(recipes[order.recipe], order.task, objective, begun if order.timed else None)
        return Reply(order.number, portable(answer))
    except BaseException as error:
        return Reply(order.number, None, pack_error(error))
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()  # what f has printed is not lost if a later task ends this process


def _watch(handle: int, parent: int) -> None:
    """End this process group a moment after the other end of its socket was closed, or its parent has gone."""
    poll = select.poll()
    poll.register(handle, 0)  # hang-ups only
    while not poll.poll(1000) and os.getppid() == parent:
        pass
    time.sleep(GRACE_SECONDS)
    os.killpg(os.getpid(), signal.SIGKILL)
