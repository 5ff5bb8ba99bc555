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
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ._tasks import Answer, Call, Recipe, Task, loads, pack_error

GRACE_SECONDS = 2.0
"""How long a worker whose master is gone may take to end by itself."""

READY = -1
"""The number of the message that says that a worker has begun."""


class Order(NamedTuple):
    """A task for a worker: its ``number``, the token of the objective, the number of its recipe."""

    number: int
    token: str
    recipe: int
    task: Task


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
        _begin(token, payload)
        connection.send(Reply(READY))
        while True:
            message = connection.recv()
            if isinstance(message, Order):
                connection.send(_answer(message, recipes))
            elif isinstance(message, bytes):
                recipe = loads(message)
                recipes[recipe.number] = recipe
            else:
                recipes.pop(message, None)
    except (EOFError, OSError):
        pass
    # The interpreter may wait for threads and children of the user; the watch ends that.
    sys.stdout.flush()


def _begin(token: str, payload: bytes) -> None:
    from ._tasks import receive

    receive(token, payload)


def _answer(order: Order, recipes: dict[int, Recipe]) -> Reply:
    """Evaluate a task; nothing that happens there ends this process, but for the process itself."""
    try:
        call = Call(order.token, b"", None, recipes[order.recipe], order.task)
        return Reply(order.number, call())
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
