"""What a user tells an optimizer: read, or refused in words, before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import EvaluationError
from .noise import Array
from .objective import ALONG_PROBES, CONSTRAINTS, DERIVATIVES
from .protocols import Strategy
from .records import Evals, Population

_NOTHING: Mapping[str, ArrayLike] = {}
_VALUES = frozenset({"values"})


def as_array(numbers: ArrayLike) -> NDArray[Any]:
    """Return ``numbers`` as an array; a ragged list has dtype object."""
    try:
        return np.asarray(numbers)
    except ValueError:
        return np.asarray([], object)


def name_type(array: NDArray[Any]) -> str:
    """Return the dtype in words, for a message about numbers that are none."""
    return "dtype object (ragged, or not numbers)" if array.dtype == object else f"dtype {array.dtype}"


def check_x0(x0: ArrayLike) -> NDArray[np.float64]:
    """Return ``x0`` as float64 in its own shape.

    Raises
    ------
    TypeError  if it does not hold real numbers.
    ValueError  if it is empty or not finite.
    """
    array = as_array(x0)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"x0 must hold real numbers, got {name_type(array)}. Pass for example x0=np.zeros(10).")
    if array.size == 0:
        raise ValueError(f"x0 is empty (shape {array.shape}). Pass at least one coordinate.")
    if not np.isfinite(array).all():
        raise ValueError(f"x0 has {int((~np.isfinite(array)).sum())} entries that are not finite. Pass a finite start.")
    return array.astype(np.float64)


def check_strategy(strategy: object) -> None:
    """Raise TypeError unless ``strategy`` is an instance that follows the protocol."""
    if isinstance(strategy, type) or not isinstance(strategy, Strategy):
        raise TypeError(
            f"strategy must have init, ask, tell and stop, got {type(strategy).__name__}. "
            "Pass for example GradientES()."
        )


def check_limit(name: str, limit: float | None, *, whole: bool = True) -> None:
    """Raise TypeError or ValueError unless ``limit`` is None or a positive number, ``whole`` or not."""
    if limit is None:
        return
    if isinstance(limit, (bool, np.bool_)) or not isinstance(limit, Real):
        raise TypeError(f"{name} must be a number, got {type(limit).__name__}. Leave it out for no limit.")
    if not limit > 0 or (whole and limit != np.inf and limit % 1 != 0):
        kind = "a positive whole number" if whole else "positive"
        raise ValueError(f"{name} must be {kind}, got {limit}. Leave it out for no limit.")


def check_target(target: float | None) -> None:
    """Raise ValueError unless ``target`` is None or a number."""
    if target is not None and (isinstance(target, bool) or not isinstance(target, Real) or target != target):
        raise ValueError(f"target must be a number, got {target!r}. Leave it out for no target.")


def check_budgets(evaluations: int | None, generations: int | None, target: float | None) -> None:
    """Raise TypeError or ValueError unless each is None or what it should be."""
    check_limit("evaluations", evaluations)
    check_limit("generations", generations)
    check_target(target)


def check_out(out: object, shape: tuple[int, ...]) -> None:
    """Raise TypeError or ValueError unless ``out`` is an array that candidates of ``shape`` can be written to."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"ask() got out of type {type(out).__name__}. Pass np.empty({shape}).")
    good = out.shape == shape and out.dtype in (np.float32, np.float64)
    if not (good and out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(
            f"ask() got out of shape {out.shape} and dtype {out.dtype}. "
            f"Pass a writeable C-contiguous float32 or float64 array of shape {shape}."
        )


def check_steps(steps: int) -> None:
    """Raise TypeError or ValueError unless ``steps`` is a count."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise TypeError(f"tell() got steps of type {type(steps).__name__}. Pass a whole number of cost units.")
    if steps < 0:
        raise ValueError(f"tell() got steps={steps}. Pass 0 or more cost units, those of this generation.")


def given(
    grads: ArrayLike | None,
    hessians: ArrayLike | None,
    hvps: ArrayLike | None,
    jvps: ArrayLike | None,
    constraints: ArrayLike | None,
    equalities: ArrayLike | None,
) -> Mapping[str, ArrayLike]:
    """Return by name what was told besides values."""
    if grads is hessians is hvps is jvps is constraints is equalities is None:
        return _NOTHING
    names = {
        "grads": grads,
        "hessians": hessians,
        "hvps": hvps,
        "jvps": jvps,
        "constraints": constraints,
        "equalities": equalities,
    }
    return {name: numbers for name, numbers in names.items() if numbers is not None}


def read(
    values: ArrayLike,
    told: Mapping[str, ArrayLike],
    steps: int,
    population: Population,
    shape: tuple[int, ...],
    strategy: str,
    rows: NDArray[np.int64] | None = None,
) -> Evals:
    """Return what was ``told`` of all candidates, or of some ``rows``; ``shape`` is that of x.

    Raises
    ------
    ValueError, TypeError, EvaluationError  as the checks below.
    """
    check_steps(steps)
    checked = check_values(values, population, rows)
    if not told and population.needs == _VALUES:
        return Evals(checked, steps=int(steps), failures=count_failures(checked, {}))
    tables = check_derivatives(told, population, shape, strategy, rows)
    tables |= check_constraints(told, population, rows)
    return Evals(checked, **tables, steps=int(steps), failures=count_failures(checked, tables))


def check_rows(rows: ArrayLike | None, told: NDArray[np.bool_], generation: int) -> NDArray[np.int64]:
    """Return told ``rows`` of a population as (m,) int64, all for None; ``told`` (n,) says which were told before.

    Raises
    ------
    TypeError, ValueError  for other things than row numbers, and for rows that were told already.
    """
    if rows is None:
        if told.any():
            raise ValueError(
                f"tell() got all values of generation {generation}, but {int(told.sum())} of its {told.size} rows were "
                "told already. Pass the values of es.pending, with rows=es.pending."
            )
        return np.arange(told.size)
    array = as_array(rows)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(
            f"tell() got rows of shape {array.shape} and {name_type(array)} in generation {generation}. "
            "Pass the numbers of rows of ask(), for example rows=[0, 3]."
        )
    if array.size and not (0 <= array.min() and array.max() < told.size):
        raise ValueError(
            f"tell() got rows from {array.min()} to {array.max()} for a population of {told.size} in generation "
            f"{generation}. Pass numbers of rows of ask(), 0 to {told.size - 1}."
        )
    chosen = array.astype(np.int64)
    again = chosen[told[chosen]]
    if not again.size and np.unique(chosen).size < chosen.size:
        again = chosen[np.bincount(chosen)[chosen] > 1]
    if again.size:
        raise ValueError(
            f"tell() got row {again[0]} of generation {generation} twice. Tell every candidate once; es.pending has "
            "the rows without a value."
        )
    return chosen


def check_fraction(min_fraction: float, told: NDArray[np.bool_], generation: int) -> None:
    """Raise ValueError unless that share of the rows was ``told``."""
    if not (isinstance(min_fraction, (int, float)) and 0.0 < min_fraction <= 1.0):
        raise ValueError(f"min_fraction must be in (0, 1], got {min_fraction!r}. Pass for example 0.5.")
    if told.sum() < min_fraction * told.size:
        raise ValueError(
            f"close_generation({min_fraction}) has {int(told.sum())} of {told.size} values of generation "
            f"{generation}. Tell more of es.pending, or pass a smaller min_fraction."
        )


def check_values(values: ArrayLike, population: Population, rows: NDArray[np.int64] | None = None) -> Array:
    """Return told ``values`` of all rows or of some ``rows`` as (n,) float64, or raise TypeError or ValueError.

    Whether a single candidate may fail is for the strategy to say.
    """
    generation = population.noise.key.generation
    array = as_array(values)
    if rows is not None:
        return _check_some(array, rows, generation)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"tell() got values of {name_type(array)} in generation {generation}. "
            "Pass one real number per row of ask(), in the same order; use nan for failed evaluations."
        )
    if array.shape != (len(population),):
        got = f"{array.size} values" if array.ndim == 1 else f"values of shape {array.shape}"
        raise ValueError(
            f"tell() got {got} for a population of {len(population)} in generation {generation}.\n"
            "Pass one value per row of ask(), in the same order; use nan for failed evaluations."
        )
    check_some_usable(array, generation)
    return array.astype(np.float64)


def check_some_usable(values: NDArray[Any], generation: int) -> None:
    """Raise EvaluationError if all of several ``values`` are nan."""
    if values.size > 1 and np.isnan(values.min()) and np.isnan(values).all():
        raise EvaluationError(
            f"all {values.size} values of generation {generation} are nan: nothing to learn from.\n"
            "Check the objective at es.mean; the optimizer is as it was, so tell() can be called again."
        )


def _check_some(array: NDArray[Any], rows: NDArray[np.int64], generation: int) -> Array:
    if array.shape != rows.shape:
        got = f"{array.size} values" if array.ndim == 1 else f"values of shape {array.shape}"
        raise ValueError(
            f"tell() got {got} for {rows.size} rows in generation {generation}. Pass one value per row, in the order "
            "of rows=; use nan for failed evaluations."
        )
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"tell() got values of {name_type(array)} in generation {generation}. "
            "Pass one real number per row, in the order of rows=; use nan for failed evaluations."
        )
    return array.astype(np.float64)


def check_derivatives(
    told: Mapping[str, ArrayLike],
    population: Population,
    shape: tuple[int, ...],
    strategy: str,
    rows: NDArray[np.int64] | None = None,
) -> dict[str, Array]:
    """Return the ``told`` derivatives by need, flat and float64; ``shape`` is that of x, ``rows`` those told.

    Raises
    ------
    ValueError  for derivatives of the wrong number, shape or type, or if one is missing that ``strategy`` needs.
    """
    checked = {}
    for need in DERIVATIVES:
        if need not in told:
            if need in population.needs:
                raise ValueError(
                    f"{strategy} needs {DERIVATIVES[need].words}. Call tell(values, {need}=...), one per {_per(need)}."
                )
            continue
        count = _count(population, rows, probed=need in ALONG_PROBES)
        shapes = _shapes(need, population.dim, shape)
        array = as_array(told[need])
        if array.dtype.kind not in "fiu" or array.shape not in {(count, *flat) for flat in shapes}:
            one = {"grads": "gradient", "hessians": "Hessian (or its diagonal)"}.get(need, "product")
            raise ValueError(
                f"tell() got {need} of shape {array.shape} and dtype {array.dtype}. Pass real numbers of shape "
                f"{(count, *next(iter(shapes)))}, one {one} per {_per(need, some=rows is not None)}."
            )
        flat = next(flat for full, flat in shapes.items() if array.shape == (count, *full))
        checked[need] = array.reshape(count, *flat).astype(np.float64)
    return checked


def check_constraints(
    told: Mapping[str, ArrayLike], population: Population, rows: NDArray[np.int64] | None = None
) -> dict[str, Array]:
    """Return the ``told`` constraints and equalities that there are, (n, m) and float64; ``rows`` are those told.

    Raises
    ------
    ValueError  for numbers of the wrong number, shape or type; if the strategy needs them and there are none, or if
        there are some and it does not.
    """
    checked, count = {}, _count(population, rows)
    for name in CONSTRAINTS:
        if name not in told:
            continue
        array = as_array(told[name])
        columns = array.shape[1:]
        if array.dtype.kind not in "fiu" or array.shape[:1] != (count,) or len(columns) > 1 or 0 in columns:
            raise ValueError(
                f"tell() got {name} of shape {array.shape} and dtype {array.dtype}. "
                f"Pass real numbers of shape ({count}, m), one row per {_per(name, some=rows is not None)}; use nan "
                "for failed evaluations."
            )
        checked[name] = array.reshape(count, *(columns or (1,))).astype(np.float64)
    if bool(checked) != ("constraints" in population.needs):
        raise ValueError(
            f"tell() got {' and '.join(checked)}, which the strategy does not use. Use AugmentedLagrangian(strategy)."
            if checked
            else "tell() got neither constraints nor equalities. Call tell(values, constraints=...), (n, m)."
        )
    return checked


def count_failures(values: Array, told: dict[str, Array]) -> dict[str, int]:
    """Return how many told ``values`` (n,) are nan, and of the others how many have constraints that are not finite."""
    counts = {"nan": int(np.isnan(values).sum())} if values.size and np.isnan(values.min()) else {}
    for name in CONSTRAINTS.keys() & told.keys():
        lost = int((~np.isnan(values) & ~np.isfinite(told[name]).all(axis=1)).sum())
        counts |= {CONSTRAINTS[name].failure: lost} if lost else {}
    return counts


def _count(population: Population, rows: NDArray[np.int64] | None, *, probed: bool = False) -> int:
    """Return how many rows a table has: all, or the ``rows`` that were told; ``probed``, only noise rows."""
    if rows is None:
        return population.n if probed else len(population)
    return int((rows < population.n).sum()) if probed else rows.size


def _per(need: str, *, some: bool = False) -> str:
    if some:
        return "noise row of rows=" if need in ALONG_PROBES else "row of rows="
    return "direction, the rows of es.population().probes" if need in ALONG_PROBES else "row of ask()"


def _shapes(need: str, dim: int, shape: tuple[int, ...]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes that one derivative may have, each with its flat shape; the usual one first."""
    if need == "jvps":
        return {(): ()}
    if need == "hessians":
        return {(dim, dim): (dim, dim), (*shape, *shape): (dim, dim), (dim,): (dim,), shape: (dim,)}
    return {shape: (dim,), (dim,): (dim,)}
