"""Laws of evaluators."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from ..evaluators.serial import Serial
from ..noise import Array, Key, Philox
from ..objective import Objective, Outcome
from ..protocols import Evaluator, State
from ..records import Evals, Population
from ..samplers.antithetic import Antithetic
from ..samplers.gaussian import Gaussian
from ._check import STREAM, Check, bits, given, normals

OnError = Literal["raise", "nan"]


class Maker(Protocol):
    """Build the evaluator under test for an objective and a failure policy."""

    def __call__(self, objective: Objective, on_error: OnError) -> Evaluator: ...


def check_evaluator(make: Maker, *, rowwise: bool = True) -> None:
    """Check that the evaluators that ``make`` builds keep the laws of :class:`esopt.protocols.Evaluator`.

    Values, derivatives, steps and failures are those of :class:`esopt.Serial` to the bit: for all kinds of noise,
    explicit rows, seeds, further arguments and shaped x; every candidate is an array of its own; an exception names
    the first candidate that raised, its seed and the exception, or becomes nan in exactly the rows that raised; what
    cannot be computed is refused.

    Parameters
    ----------
    make : called with an :class:`esopt.Objective` and "raise" or "nan". The objective's functions are plain loops
        over one candidate, which numba compiles and which can be sent to other processes; wrap them for an evaluator
        that calls f otherwise.
    rowwise : False for evaluators that call f for many rows at once, where an exception belongs to all of them.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> from esopt import Joblib
    >>> from esopt.testing import check_evaluator
    >>> check_evaluator(lambda objective, on_error: Joblib(objective, 2, backend="threading", on_error=on_error))
    """
    smooth = Objective(plain, plain_gradient, hess=plain_curvature, hvp=plain_product, jvp=plain_slope)
    check = Check(make(smooth, "raise"))
    populations = _populations()
    mixed = [population.needing("grads") if i % 2 else population for i, population in enumerate(populations)]
    _check_equal(check, make, Objective(plain, plain_gradient), mixed, refused=("hessians", "colours"))
    _check_equal(check, make, smooth, [_probed(p, "jvps", "hessians") for p in populations], refused=("hvps",))
    six = [population for population in populations if population.dim == 6]
    six = [*(p.needing("grads") for p in six), *(_probed(p, "grads", "hvps") for p in six)]
    shaped = Objective(
        of_matrix, gradient_of_matrix, (1.5, np.arange(6.0)), True, (2, 3), hess_of_matrix, product_of_matrix
    )
    six += [_probed(six[0], "hessians", "hvps"), *(replace(population, share="none") for population in six)]
    _check_equal(check, make, shaped, six)
    _check_equal(check, make, Objective(with_steps), [*populations, *populations], refused=("grads", "jvps"))
    zero = replace(populations[0], mean=np.zeros(6))
    _check_failures(check, make, zero, rowwise)
    if rowwise:
        _check_derivatives_that_fail(check, make, _probed(zero, "grads", "hessians", "hvps", "jvps"))


def _populations() -> list[Population]:
    """Return small populations of every kind, some with explicit rows."""
    gaussian, pairs, key = Gaussian(), Antithetic(), Key(13, 4, STREAM)
    mean = normals(70, 1, 4200)[0]
    return [
        Population(mean[:6], 0.7, pairs.noise(key, 38, 6)).with_extra(
            "mean", np.stack([mean[:6], 2.0 * mean[:6], mean[6:12]])
        ),
        Population(mean[:6], 0.7, gaussian.noise(key, 7, 6)),
        Population(mean[:1], 0.7, gaussian.noise(key, 1, 1)),
        Population(mean[:70], np.exp(normals(71, 1, 70)[0]), gaussian.noise(key, 33, 70)),
        Population(mean, np.exp(normals(72, 1, 4200)[0]), pairs.noise(key, 4, 4200)),
        Population(mean[:6], np.exp(normals(73, 1, 6)[0]), given(74, 10, 6, 2)).with_extra("one", mean[:6]),
        Population(mean[:3], 0.5, given(75, 5, 3)),
    ]


def _probed(population: Population, *needs: str) -> Population:
    """Return the population with needs and probes: of the library's noise if its own is, else explicit ones."""
    n, dim, key = population.n, population.dim, Key(13, 4, STREAM + 1)
    probes = Gaussian().noise(key, n, dim) if isinstance(population.noise, Philox) else given(76, n, dim)
    return replace(population, probes=probes).needing(*needs)


def _evaluate(make: Maker, objective: Objective, population: Population, on_error: OnError = "raise") -> Evals:
    evaluator = make(objective, on_error)
    try:
        return evaluator.evaluate(population, evaluator.init())[0]
    finally:
        evaluator.close()


def _facts(evals: Evals) -> tuple[Any, ...]:
    return (
        evals.values,
        evals.grads,
        evals.hessians,
        evals.hvps,
        evals.jvps,
        int(evals.steps),
        {kind: int(evals.failures[kind]) for kind in sorted(evals.failures)},
    )


def _check_equal(
    check: Check, make: Maker, objective: Objective, populations: list[Population], refused: tuple[str, ...] = ()
) -> None:
    """Compare with Serial on several populations, one after the other; what is ``refused`` is asked for at the end."""
    evaluator, serial = make(objective, "raise"), Serial(objective)
    state: State = evaluator.init()
    try:
        for population in populations:
            expected, _ = serial.evaluate(population, serial.init())
            rows = bits(population.rows())
            evals, state = evaluator.evaluate(population, state)
            do = "Evaluate population[i] with population.seeds[i], and put the result into row i whenever it arrives."
            law = (
                f"values, derivatives, steps and failures of {objective.f.__name__} are those of Serial "
                f"({population.n} rows of {type(population.noise).__name__} in {population.dim} dimensions, "
                f"{len(population) - population.n} more)"
            )
            check.same(law, _facts(evals), bits(_facts(expected)), do=do)
            check.same("evaluate leaves the population alone", population.rows(), rows, do="Write to copies.")
        check.reload(state, evaluator.init())
        for need in refused:
            law, do = f"needs that cannot be met ({need}) are refused", "Raise ValueError for what is not there."
            unmet = replace(populations[0], probes=None).needing(need)
            check.raises(ValueError, functools.partial(evaluator.evaluate, unmet, evaluator.init()), law, do=do)
    finally:
        evaluator.close()
        evaluator.close()


def _check_failures(check: Check, make: Maker, population: Population, rowwise: bool) -> None:
    objective = Objective(fragile, seeded=True)
    first = population.rows()[:, 0]
    raises, nan = first > _EDGE, first < -_EDGE
    check.require(
        raises.sum() > 2 and nan.sum() > 2, "the check is of use", got=first, expected="some of each", do="Report this."
    )
    row = int(np.flatnonzero(raises)[0])
    words = [f"generation {population.noise.key.generation}", "ArithmeticError"]
    words += [f"candidate {row} ", str(int(population.seeds[row]))] if rowwise else []
    message = _message(check, lambda: _evaluate(make, objective, population))
    check.require(
        all(word in message for word in words),
        "an exception in f is an EvaluationError that says how to get there again",
        got=message,
        expected=f"a message with {words}",
        do="Name the first candidate that raised, its generation and seed, and the exception.",
    )
    evals = _evaluate(make, objective, population, "nan")
    expected = _evaluate(Serial, objective, population, "nan")
    do = 'Write nan where f raised and count "exception"; write what f returned elsewhere, and count its nan as "nan".'
    if rowwise:
        law = 'with on_error="nan", rows that raised are nan and counted, and all others as they are'
        check.same(law, _facts(evals), bits(_facts(expected)), do=do)
        return
    usable = ~np.isnan(evals.values)
    check.require(
        np.isnan(evals.values[raises | nan]).all() and bool((evals.values[usable] == expected.values[usable]).all()),
        "rows that raised are nan, and others nan or as they are",
        got=evals.values,
        expected=expected.values,
        do=do,
    )


def _check_derivatives_that_fail(check: Check, make: Maker, population: Population) -> None:
    """Try derivatives that raise, are not finite, or belong to a row without a value."""
    objective = Objective(touchy, touchy_gradient, hess=touchy_curvature, hvp=touchy_product, jvp=touchy_slope)
    law = 'with on_error="nan", derivatives that fail are nan and counted by kind, and values stay'
    do = "Give rows whose value is nan no derivatives, and end a row at its first exception."
    expected = _evaluate(Serial, objective, population, "nan")
    kinds = {"nan", "exception", "gradient", "hessian", "hvp", "jvp"}
    check.require(
        set(expected.failures) == kinds, "the check is of use", got=expected.failures, expected=kinds, do="Report this."
    )
    check.same(law, _facts(_evaluate(make, objective, population, "nan")), bits(_facts(expected)), do=do)
    calm = replace(objective, grad=plain_gradient)
    first = _message(check, lambda: _evaluate(make, calm, population))
    other = _message(check, lambda: _evaluate(Serial, calm, population))
    check.require(
        first == other and "(in hess)" in first,
        "an exception in a derivative is reported for the first row that raised, with the function's name",
        got=first,
        expected=other,
        do="Use the words of Serial.",
    )


def _message(check: Check, call: Callable[[], object]) -> str:
    try:
        call()
    except EvaluationError as error:
        return str(error)
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    else:
        outcome = "no error"
    law, do = "an exception in f is an EvaluationError", "Raise esopt.EvaluationError from the exception."
    check.require(False, law, got=outcome, expected="EvaluationError", do=do)
    return outcome


# Objectives: plain loops, so that compiled and interpreted code do the same operations in the same order.

_EDGE = 0.3


def plain(x: Array) -> float:
    """Return sum (i + 1) x_i^2 + x_i / 4 + sqrt |x_0|."""
    total = math.sqrt(abs(x[0]))
    for i in range(x.size):
        total += (i + 1.0) * x[i] * x[i] + 0.25 * x[i]
    return total


def plain_gradient(x: Array) -> Array:
    """Return the gradient of the smooth part of :func:`plain`."""
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = 2.0 * (i + 1.0) * x[i] + 0.25
    return out


def plain_curvature(x: Array) -> Array:
    """Return the diagonal of the Hessian of the smooth part of :func:`plain`."""
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = 2.0 * (i + 1.0)
    return out


def plain_product(x: Array, v: Array) -> Array:
    """Return that Hessian times v."""
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = 2.0 * (i + 1.0) * v[i]
    return out


def plain_slope(x: Array, v: Array) -> float:
    """Return the gradient of the smooth part of :func:`plain` times v."""
    total = 0.0
    for i in range(x.size):
        total += (2.0 * (i + 1.0) * x[i] + 0.25) * v[i]
    return total


def of_matrix(x: NDArray[np.float64], seed: int, factor: float, weights: Array) -> float:
    """Return factor * weights . x for a matrix (2, 3), plus a little that depends on the seed."""
    total = (seed % 1024) / 1024.0
    for i in range(2):
        for j in range(3):
            total += factor * weights[3 * i + j] * x[i, j] * x[i, j]
    return total


def gradient_of_matrix(x: NDArray[np.float64], seed: int, factor: float, weights: Array) -> NDArray[np.float64]:
    """Return the gradient of :func:`of_matrix`, (2, 3)."""
    out = np.zeros_like(x)
    for i in range(2):
        for j in range(3):
            out[i, j] = 2.0 * factor * weights[3 * i + j] * x[i, j]
    return out


def hess_of_matrix(x: NDArray[np.float64], seed: int, factor: float, weights: Array) -> NDArray[np.float64]:
    """Return the Hessian of :func:`of_matrix`, (6, 6), plus a little that depends on the seed."""
    out = np.zeros((x.size, x.size))
    for i in range(x.size):
        out[i, i] = 2.0 * factor * weights[i] + (seed % 16) / 16.0
    return out


def product_of_matrix(
    x: NDArray[np.float64], v: NDArray[np.float64], seed: int, factor: float, weights: Array
) -> NDArray[np.float64]:
    """Return the Hessian of :func:`of_matrix` times v, (2, 3), plus a little that depends on the seed; v is lost."""
    out = np.zeros_like(x)
    for i in range(2):
        for j in range(3):
            out[i, j] = 2.0 * factor * weights[3 * i + j] * v[i, j] + (seed % 16) / 16.0
            v[i, j] = 0.0
    return out


def with_steps(x: Array) -> Outcome:
    """Return the sum of x and a number of steps that depends on x; leave x full of zeros."""
    total, steps = 0.0, 3 if x[0] > 0.0 else 5
    for i in range(x.size):
        total += x[i]
        x[i] = 0.0
    return Outcome(total, steps)


def fragile(x: Array, seed: int) -> float:
    """Return x_0 plus a little; raise where x_0 is large, return nan where it is small."""
    if x[0] > _EDGE:
        raise ArithmeticError("x[0] is too large")
    if x[0] < -_EDGE:
        return math.nan
    return float(x[0] + (seed % 16) / 16.0)


def touchy(x: Array) -> float:
    """Return x_0, or nan where it is small."""
    return math.nan if x[0] < -_EDGE else x[0]


def touchy_gradient(x: Array) -> Array:
    """Return x; infinite where x_1 is large, raise where x_2 is."""
    if x[2] > 1.5 * _EDGE:
        raise ArithmeticError("x[2] is too large")
    out = x.copy()
    if x[1] > _EDGE:
        out[0] = math.inf
    return out


def touchy_curvature(x: Array) -> Array:
    """Return x; nan where x_1 is small, raise where x_3 is large."""
    if x[3] > 1.5 * _EDGE:
        raise ArithmeticError("x[3] is too large")
    out = x.copy()
    if x[1] < -_EDGE:
        out[0] = math.nan
    return out


def touchy_product(x: Array, v: Array) -> Array:
    """Return v; infinite where it is large."""
    out = v.copy()
    if v[0] > _EDGE:
        out[1] = math.inf
    return out


def touchy_slope(x: Array, v: Array) -> float:
    """Return v_0, or nan where v_1 is large."""
    return math.nan if v[1] > _EDGE else v[0]
