"""What a user tells an optimizer: read, or refused in words, before anything changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import EvaluationError
from .noise import Array
from .objective import ALONG_PROBES, CONSTRAINTS, DERIVATIVES
from .records import Population


def as_array(numbers: ArrayLike) -> NDArray[Any]:
    """Return ``numbers`` as an array; a ragged list has dtype object."""
    try:
        return np.asarray(numbers)
    except ValueError:
        return np.asarray([], object)


def name_type(array: NDArray[Any]) -> str:
    """Return the dtype in words, for a message about numbers that are none."""
    return "dtype object (ragged, or not numbers)" if array.dtype == object else f"dtype {array.dtype}"


def check_steps(steps: int) -> None:
    """Raise TypeError or ValueError unless ``steps`` is a count."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise TypeError(f"tell() got steps of type {type(steps).__name__}. Pass a whole number of cost units.")
    if steps < 0:
        raise ValueError(f"tell() got steps={steps}. Pass 0 or more cost units, those of this generation.")


def check_values(values: ArrayLike, population: Population) -> Array:
    """Return told ``values`` as (n,) float64; raise TypeError or ValueError if they cannot be that.

    Whether a single candidate may fail is for the strategy to say.
    """
    generation = population.noise.key.generation
    array = as_array(values)
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
    if array.size > 1 and np.isnan(array.min()) and np.isnan(array).all():
        raise EvaluationError(
            f"all {array.size} values of generation {generation} are nan: nothing to learn from.\n"
            "Check the objective at es.mean; the optimizer is as it was, so tell() can be called again."
        )
    return array.astype(np.float64)


def check_derivatives(
    told: dict[str, ArrayLike | None], population: Population, shape: tuple[int, ...], strategy: str
) -> dict[str, Array]:
    """Return the ``told`` derivatives by need, flat and float64; ``shape`` is that of x.

    Raises
    ------
    ValueError  for derivatives of the wrong number, shape or type, or if one is missing that ``strategy`` needs.
    """
    checked = {}
    for need, given in told.items():
        if given is None:
            if need in population.needs:
                raise ValueError(
                    f"{strategy} needs {DERIVATIVES[need].words}. Call tell(values, {need}=...), one per {_per(need)}."
                )
            continue
        count = population.n if need in ALONG_PROBES else len(population)
        shapes = _shapes(need, population.dim, shape)
        array = as_array(given)
        if array.dtype.kind not in "fiu" or array.shape not in {(count, *flat) for flat in shapes}:
            one = {"grads": "gradient", "hessians": "Hessian (or its diagonal)"}.get(need, "product")
            raise ValueError(
                f"tell() got {need} of shape {array.shape} and dtype {array.dtype}. "
                f"Pass real numbers of shape {(count, *next(iter(shapes)))}, one {one} per {_per(need)}."
            )
        flat = next(flat for full, flat in shapes.items() if array.shape == (count, *full))
        checked[need] = array.reshape(count, *flat).astype(np.float64)
    return checked


def check_constraints(told: dict[str, ArrayLike | None], population: Population) -> dict[str, Array]:
    """Return the ``told`` constraints and equalities that there are, (n, m) and float64.

    Raises
    ------
    ValueError  for numbers of the wrong number, shape or type; if the strategy needs them and there are none, or if
        there are some and it does not.
    """
    checked, count = {}, len(population)
    for name, given in told.items():
        if given is None:
            continue
        array = as_array(given)
        columns = array.shape[1:]
        if array.dtype.kind not in "fiu" or array.shape[:1] != (count,) or len(columns) > 1 or 0 in columns:
            raise ValueError(
                f"tell() got {name} of shape {array.shape} and dtype {array.dtype}. "
                f"Pass real numbers of shape ({count}, m), one row per row of ask(); use nan for failed evaluations."
            )
        checked[name] = array.reshape(count, -1).astype(np.float64)
    if bool(checked) != ("constraints" in population.needs):
        raise ValueError(
            f"tell() got {' and '.join(checked)}, which the strategy does not use. Use AugmentedLagrangian(strategy)."
            if checked
            else "tell() got neither constraints nor equalities. Call tell(values, constraints=...), (n, m)."
        )
    return checked


def count_failures(values: Array, told: dict[str, Array]) -> dict[str, int]:
    """Return how many told ``values`` (n,) are nan, and of the others how many have constraints that are not finite."""
    counts = {"nan": int(np.isnan(values).sum())} if np.isnan(values.min()) else {}
    for name in CONSTRAINTS.keys() & told.keys():
        lost = int((~np.isnan(values) & ~np.isfinite(told[name]).all(axis=1)).sum())
        counts |= {CONSTRAINTS[name].failure: lost} if lost else {}
    return counts


def _per(need: str) -> str:
    return "direction, the rows of es.population().probes" if need in ALONG_PROBES else "row of ask()"


def _shapes(need: str, dim: int, shape: tuple[int, ...]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes that one derivative may have, each with its flat shape; the usual one first."""
    if need == "jvps":
        return {(): ()}
    if need == "hessians":
        return {(dim, dim): (dim, dim), (*shape, *shape): (dim, dim), (dim,): (dim,), shape: (dim,)}
    return {shape: (dim,), (dim,): (dim,)}
