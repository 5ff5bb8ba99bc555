"""Every part of the package, found by looking: classes below a folder that have the members of a protocol.

A part that is not listed with settings is built without arguments and must keep the laws with no claims made for it,
so that a new file in a folder is tested, or fails, before anybody thinks of it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Case:
    """An instance and the claims made for it; ``by_itself``, ``part`` is what makes one, without arguments."""

    part: Any
    claims: dict[str, Any] = field(default_factory=dict)
    by_itself: bool = False

    def build(self) -> Any:
        """Return the instance."""
        if not self.by_itself:
            return self.part
        try:
            return self.part()
        except (TypeError, ValueError) as error:
            raise LookupError(f"{self.part.__name__} needs arguments: list it with an example.") from error


def case(part: Any, **claims: Any) -> Case:
    return Case(part, claims)


def modules(place: str) -> Iterator[Any]:
    """The module or the modules of the package ``esopt.<place>``."""
    home = importlib.import_module(f"esopt.{place}")
    yield home
    for info in pkgutil.walk_packages(getattr(home, "__path__", []), f"esopt.{place}."):
        yield importlib.import_module(info.name)


def parts(place: str, protocol: type) -> list[type]:
    """Public classes defined below ``esopt.<place>`` that have every member of the protocol."""
    members = [name for name in vars(protocol) if not name.startswith("_")]
    return [
        value
        for module in modules(place)
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and (value.__module__, value.__name__) == (module.__name__, name)
        and not name.startswith("_")
        and all(hasattr(value, member) for member in members)
    ]


def makers(place: str, kind: type) -> list[Any]:
    """Public functions defined below ``esopt.<place>`` that say they return ``kind``."""
    return [
        value
        for module in modules(place)
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and inspect.signature(value).return_annotation in (kind, kind.__name__)
    ]


def cases(found: Iterable[Any], listed: dict[Any, list[Case]]) -> list[Case]:
    """The listed settings of what was found, and what is not listed with its defaults."""
    return [case for part in found for case in listed.get(part) or [Case(part, by_itself=True)]]


def name(case: Case) -> str:
    """A short name for test ids."""
    text = f"{case.part.__name__}()" if case.by_itself else repr(case.part)
    return text if len(text) < 60 else type(case.part).__name__
