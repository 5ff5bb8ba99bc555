"""What the adapters of differentiable libraries share: one function of theirs, and five numpy functions from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from ..objective import Objective

PARTS = ("f", "grad", "hess", "hvp", "jvp")


def load(name: str, user: str) -> Any:
    """Import the library ``name`` for ``user``.

    Raises
    ------
    ImportError  if it is missing; the message names the extra that brings it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f'esopt.{user}() needs {name}, which cannot be imported: {error}. Install the extra "{name}".', name=name
        ) from error


def check_function(function: object, user: str, library: str) -> None:
    """Raise TypeError unless ``function`` can be called."""
    if not callable(function):
        raise TypeError(
            f"{user}() got {type(function).__name__}. Pass a function of one x, written in {library}, "
            "that returns a scalar."
        )


def objective(parts: Iterator[Callable[..., Any]], *, seeded: bool) -> Objective:
    """Return the objective of the functions of PARTS."""
    f, grad, hess, hvp, jvp = parts
    return Objective(f, grad, seeded=seeded, hess=hess, hvp=hvp, jvp=jvp)
