"""What a worker process does: read tasks from its pipe, do them, answer, and end when nobody is there any more.

The first message is a :class:`Setup`. Then come recipes, which the process keeps for as long as there are tasks of
them, and tasks.
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

from ._tasks import loads, pack_error

GRACE_SECONDS = 2.0
"""How long a worker whose master is gone may take to end by itself."""

READY, BEGUN = -1, -2
"""Numbers of the messages that say that a worker is there, and that a timed task calls the user's functions now."""


Work = Callable[[Any, Any, Callable[[], object] | None], object]
"""``work(recipe, task, begun)`` does a task; it calls ``begun()``, if that is given, before functions of the user."""


class Setup(NamedTuple):
    """How a process gets its work: ``make(notes, *arguments)``, a function of a module.

    ``notes`` is an open file without a name. What is in it when the process ends is known to the one that started it.
    """

    make: Callable[..., Work]
    arguments: tuple[Any, ...]


class Order(NamedTuple):
    """A task for a worker: its ``number``, the number of its recipe, and whether its time is measured."""

    number: int
    recipe: int
    task: Any
    timed: bool


class Reply(NamedTuple):
    """The answer to a task, or the bytes of an error beside the user's exceptions."""

    number: int
    answer: Any = None
    error: bytes = b""


def serve(connection: Connection[Any, Any], notes: int) -> None:
    """Work for the process at the other end of the socket until it goes.

    The socket is the caller's, and open until this process ends: what is registered with atexit is done before.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that owns this one
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # what f prints may go to the terminal, from a process group behind
    os.register_at_fork(after_in_child=connection.close)  # a child that lives on would hide that this process is gone
    threading.Thread(target=_watch, args=(connection.fileno(), os.getppid()), daemon=True).start()
    recipes: dict[int, Any] = {}
    try:
        setup: Setup = connection.recv()
        perform = setup.make(notes, *setup.arguments)
        begun = partial(connection.send, Reply(BEGUN))
        connection.send(Reply(READY))
        while True:
            message = connection.recv()
            if isinstance(message, Order):
                connection.send(_answer(message, perform, recipes, begun))
            elif isinstance(message, bytes):
                recipe = loads(message)
                recipes[recipe.number] = recipe
            else:
                recipes.pop(message, None)
    except (EOFError, OSError):
        pass
    # The interpreter may wait for threads and children of the user; the watch, or a signal, ends that.


def _answer(order: Order, perform: Work, recipes: dict[int, Any], begun: Callable[[], object]) -> Reply:
    """Do a task; nothing that happens there ends this process, but for the process itself."""
    try:
        return Reply(order.number, perform(recipes[order.recipe], order.task, begun if order.timed else None))
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
