"""The open generation: values that came in pieces, in any order; and the generations that were closed before all came.

Pieces are put into one table when they are all there, so that neither their order nor their sizes change a bit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CheckpointError
from .noise import Array
from .objective import ALONG_PROBES
from .records import Evals, Part, Population

LATE = "late"
"""Kind of failure of a candidate whose value was not there when its generation was closed."""

_TABLES = ("grads", "hessians", "hvps", "jvps", "constraints", "equalities")


@dataclass(frozen=True, eq=False)
class Open:
    """The open generation in a checkpoint: which of its rows are ``told`` (n + k,), and what is known of them.

    Rows of the tables that were not told are nan; a table that nobody told is empty. ``failures`` is a JSON object of
    counts, ``whole`` whether Hessians, kept as rows here, are matrices.
    """

    told: NDArray[np.bool_]
    values: Array
    grads: Array
    hessians: Array
    hvps: Array
    jvps: Array
    constraints: Array
    equalities: Array
    whole: bool
    steps: int
    failures: str


@dataclass(frozen=True, eq=False)
class Past:
    """Generations that were closed without some of their values, for those that may still be of use.

    Of each the number, how many of its rows are noise, all rows, mean and scale, (k,) or (k, .); and of the rows of
    all, one generation after the other, the values and what became of them: see :mod:`esopt._late`. ``lost`` and
    ``nans`` count late values that were of no use since the last update.
    """

    generation: NDArray[np.int64]
    n: NDArray[np.int64]
    rows: NDArray[np.int64]
    mean: Array
    scale: Array
    values: Array
    status: NDArray[np.int8]
    lost: int
    nans: int


def _empty(*shape: int) -> Array:
    return np.empty(shape)


NOTHING = Open(
    np.empty(0, np.bool_),
    _empty(0),
    _empty(0, 0),
    _empty(0, 0),
    _empty(0, 0),
    _empty(0),
    _empty(0, 0),
    _empty(0, 0),
    whole=True,
    steps=0,
    failures="{}",
)
"""No row was told yet."""

_NONE = np.empty(0, np.int64)
NO_PAST = Past(_NONE, _NONE, _NONE, _empty(0, 0), _empty(0, 0), _empty(0), np.empty(0, np.int8), 0, 0)
"""No generation was closed early."""


class Gathering:
    """The pieces of one generation of ``population``, as they come.

    ``parts`` grows by single appends, so that an interrupt finds a piece in it or not.
    """

    def __init__(self, population: Population) -> None:
        self.parts: list[Part] = []
        self._population, self._marked = population, 0
        self._told = np.zeros(len(population), np.bool_)

    @property
    def told(self) -> NDArray[np.bool_]:
        """Which rows were told, (n + k,)."""
        for part in self.parts[self._marked :]:
            self._told[part.rows] = True
        self._marked = len(self.parts)
        return self._told

    def check(self, part: Part) -> None:
        """Raise ValueError for a piece that has other derivatives or constraints than the first, or of other shapes."""
        for first in self.parts[:1]:
            for name in _TABLES:
                mine, its = (_columns(name, one, self._population.n) for one in (part, first))
                if mine is not None and its is not None and mine != its:
                    raise ValueError(
                        f"tell() got {name} {_in_words(mine)} for rows {_list(part.rows)}, and {_in_words(its)} for "
                        f"rows {_list(first.rows)} of the same generation. Tell all pieces alike."
                    )

    def take_back(self, part: Part) -> None:
        """Forget the last piece, if it is ``part``."""
        if self.parts[-1] is part:
            self.parts.pop()
            self._told[part.rows] = False
            self._marked = min(self._marked, len(self.parts))

    def evals(self) -> Evals:
        """Return what was told in one table; nan where nothing was."""
        return assemble(self.parts, self._population)

    def frozen(self) -> Open:
        """Return what a checkpoint holds of it."""
        evals, told = self.evals(), self.told.copy()
        tables = {name: getattr(evals, name) for name in _TABLES}
        hessians = tables["hessians"]
        whole = hessians is None or hessians.ndim == 3
        if hessians is not None:
            tables["hessians"] = hessians.reshape(len(hessians), -1)
        known = {name: getattr(NOTHING, name) if table is None else table for name, table in tables.items()}
        failures = json.dumps(dict(sorted(evals.failures.items())))
        return Open(told, evals.values, **known, whole=whole, steps=evals.steps, failures=failures)


def thaw(saved: Open, population: Population, name: str) -> Gathering | None:
    """Return the pieces that a checkpoint held, as one of them; None if there were none.

    Raises
    ------
    CheckpointError  if they are not those of ``population``; ``name`` is that of the file.
    """
    if not saved.told.size:
        return None
    count = {table: population.n if table in ALONG_PROBES else len(population) for table in _TABLES}
    lengths = [len(saved.told), len(saved.values)]
    good = all(length == len(population) for length in lengths) and all(
        len(getattr(saved, table)) in (0, count[table]) for table in _TABLES
    )
    width = saved.hessians.shape[1] if saved.hessians.size else 0
    dim = population.dim
    good = good and width in (0, dim**2 if saved.whole else dim)
    good = good and all(getattr(saved, table).shape[1] in (0, dim) for table in ("grads", "hvps"))
    if not good:
        raise CheckpointError(
            f"{name} has {len(saved.told)} rows of an open generation; this run has {len(population)}.\n"
            "Load it with the version and settings that wrote it, or start a new run with another file."
        )
    gathering, rows = Gathering(population), np.flatnonzero(saved.told)
    chosen: dict[str, Any] = {}
    for table in _TABLES:
        numbers = getattr(saved, table)
        if len(numbers):
            chosen[table] = numbers[rows[rows < count[table]]]
    if "hessians" in chosen and saved.whole:
        chosen["hessians"] = chosen["hessians"].reshape(-1, dim, dim)
    evals = Evals(saved.values[rows], **chosen, steps=saved.steps, failures=json.loads(saved.failures))
    gathering.parts.append(Part(rows, evals))
    return gathering


def assemble(parts: Sequence[Part], population: Population) -> Evals:
    """Return the pieces in one table of all rows of ``population``; nan where there is none."""
    count, n = len(population), population.n
    tables: dict[str, Array] = {}
    for name in ("values", *_TABLES):
        size = n if name in ALONG_PROBES else count
        for rows, evals in parts:
            numbers = getattr(evals, name)
            if numbers is None:
                continue
            if name not in tables:
                tables[name] = np.full((size, *numbers.shape[1:]), np.nan)
            tables[name][rows[rows < size] if size < count else rows] = numbers
    failures: dict[str, int] = {}
    for part in parts:
        for kind, number in part.evals.failures.items():
            failures[kind] = failures.get(kind, 0) + number
    values = tables.pop("values", np.full(count, np.nan))
    steps = sum(part.evals.steps for part in parts)
    return Evals(values, steps=steps, failures=dict(sorted(failures.items())), **tables)


def without_half_pairs(evals: Evals, told: NDArray[np.bool_], population: Population) -> Evals:
    """Return ``evals`` with nan for the values of noise rows whose mirror image was not ``told``."""
    if not population.noise.mirrored:
        return evals
    known = told[: population.n]
    alone = np.flatnonzero(known & ~known.reshape(-1, 2).all(axis=1).repeat(2))
    if not alone.size:
        return evals
    values = evals.values.copy()
    values[alone] = np.nan
    return replace(evals, values=values)


def _columns(name: str, part: Part, n: int) -> tuple[int, ...] | str | None:
    """Return the shape of one row of a table, "" for no table; None where there is no row that could have one."""
    if name in ALONG_PROBES and not (part.rows < n).any():
        return None
    table = getattr(part.evals, name)
    return "" if table is None else tuple(table.shape[1:])


def _in_words(columns: tuple[int, ...] | str) -> str:
    return "of shape " + str(("m", *columns)).replace("'", "") if isinstance(columns, tuple) else "not at all"


def _list(rows: NDArray[np.int64]) -> str:
    first = ", ".join(str(row) for row in rows[:5].tolist())
    return f"{first}, ..." if len(rows) > 5 else first
