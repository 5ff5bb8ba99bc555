"""Where esopt says what a person should know of a run's files and end: the logger "esopt.run".

A child of the logger "esopt", to be formatted, sent elsewhere or silenced with it. Where a program has set up no
logging at all, these lines still reach stderr: that a disk is full is nothing to be found out afterwards.
"""

from __future__ import annotations

import logging


class _LastResort(logging.Handler):
    """Writes to stderr where nobody else would."""

    def emit(self, record: logging.LogRecord) -> None:
        heard = [*logging.getLogger().handlers, *logging.getLogger("esopt").handlers, *log.handlers]
        if logging.lastResort is not None and all(isinstance(h, (logging.NullHandler, _LastResort)) for h in heard):
            logging.lastResort.handle(record)


log = logging.getLogger("esopt.run")
log.addHandler(_LastResort(logging.WARNING))
