"""What a worker process does: read tasks from its pipe, evaluate them, answer, and end when nobody is there any more.

The first message is what the process needs: ``(initializer, arguments)`` in bytes. Then come recipes, which it keeps
for as long as there are tasks of them, and tasks.
"""

from __future__ import annotations

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


def serve(handle: int) -> None:
    """Work for the process at the other end of the socket ``handle`` until it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that owns this one
    connection: Connection[Any, Any] = Connection(handle)
    threading.Thread(target=_watch, args=(handle, os.getppid()), daemon=True).start()
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
    # The interpreter may wait for threads and children of the user; the watch ends that.
    sys.stdout.flush()


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


def _watch(handle: int, parent: int) -> None:
    """End this process a moment after the other end of its socket was closed, or its parent has gone."""
    poll = select.poll()
    poll.register(handle, 0)  # hang-ups only
    while not poll.poll(1000) and os.getppid() == parent:
        pass
    time.sleep(GRACE_SECONDS)
    os._exit(0)
