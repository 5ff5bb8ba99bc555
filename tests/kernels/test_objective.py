"""The kernels that call a user's function by its address: every row is written, every candidate has its bits."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from esopt._kernels import objective as kernels
from esopt._kernels import threads
from esopt._kernels.philox import BLOCK, fill_blocks
from esopt.noise import Array, Key
from esopt.objective import Outcome
from esopt.records import Population
from esopt.samplers.antithetic import Antithetic
from esopt.samplers.gaussian import Gaussian

POISON = -7.0e77


@numba.njit
def weighted_sum(x):
    total = 0.0
    for j in range(x.size):
        total += (j + 1.0) * x[j]
    return total


@numba.njit
def scribble(x):
    total = x.sum()
    x[:] = 0.0
    return total


@numba.njit
def positive_fails(x):
    if x[0] > 0.0:
        raise ValueError("positive")
    return x[0]


@numba.njit
def copy(x):
    return x.copy()


@functools.cache
def value_entry(f: Any) -> kernels.Entry:
    return kernels.value_entry(f, (), False, None)


@functools.cache
def gradient_entry(grad: Any) -> kernels.Entry:
    return kernels.gradient_entry(grad, (), False, None)


class Found(NamedTuple):
    failed: int
    values: Array
    notes: Any
    grads: Array
    grad_notes: Any


def population(n: int, dim: int, mirrored: bool, scale: float | Array = 0.7, k: int = 0) -> Population:
    sampler = Antithetic() if mirrored else Gaussian()
    mean = np.linspace(-1.0, 2.0, dim)
    extra = np.linspace(5.0, 6.0, k * dim).reshape(k, dim) if k else None
    return Population(mean, scale, sampler.noise(Key(3, 5), n, dim), extra)


def run(
    f: Any, grad: Any, wanted: Population, first: int | None = None, last: int | None = None, batch: int | None = None
) -> Found:
    """Fill poisoned arrays; ``batch`` asks for the parallel kernel."""
    noise, total = wanted.noise, len(wanted)
    units = noise.n // (2 if noise.mirrored else 1) + total - noise.n
    value = value_entry(f)
    gradient = gradient_entry(grad) if grad is not None else value
    rows = total if grad is not None else 0
    out = Found(
        0,
        np.full(total, POISON),
        np.full(total, 12345, np.int64),
        np.full((rows, wanted.dim), POISON),
        np.full(rows, 12345, np.int64),
    )
    extra = np.empty((0, wanted.dim)) if wanted.extra is None else wanted.extra
    address = noise.key.generation, noise.key.stream, np.uint64(noise.key.seed)
    span = (0 if first is None else first, units if last is None else last)
    arguments = (
        *(value.address, gradient.address, wanted.mean, np.atleast_1d(np.asarray(wanted.scale, np.float64))),
        *(noise.n, noise.mirrored, *address, extra, np.empty(0, np.int64), *out[1:]),
    )
    if batch is None:
        failed = kernels.evaluate(*span, *arguments)
    else:
        failed = kernels.evaluate_parallel(threads.threads(), batch, *span, *arguments)
    return out._replace(failed=failed)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dim", [1, 3, 31, 32, 33, 64, 65, 130, 2048, 2049, 4163])
def test_candidates_have_the_bits_of_the_population(dim: int, mirrored: bool) -> None:
    for scale in (0.7, np.linspace(0.1, 1.0, dim)):
        wanted = population(22, dim, mirrored, scale, k=3)
        found = run(scribble, copy, wanted)
        rows = wanted.rows()
        np.testing.assert_array_equal(found.grads, rows)
        np.testing.assert_array_equal(found.values, [scribble(row) for row in rows.copy()])
        assert found.failed == 0
        assert not found.notes.any()
        assert not found.grad_notes.any()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dim", [3, 130])
def test_every_row_is_written_and_failures_are_in_their_own_rows(dim: int, mirrored: bool) -> None:
    wanted = population(50, dim, mirrored, scale=3.0, k=1)
    rows = wanted.rows()
    bad = rows[:, 0] > 0.0
    assert 10 < bad.sum() < 40
    for batch in (None, 1, 3, 64):
        found = run(positive_fails, copy, wanted, batch=batch)
        assert found.failed == bad.sum()
        np.testing.assert_array_equal(np.isnan(found.values), bad)
        np.testing.assert_array_equal(found.values[~bad], rows[~bad, 0])
        np.testing.assert_array_equal(found.notes, np.where(bad, kernels.RAISED, 0))
        np.testing.assert_array_equal(found.grads[~bad], rows[~bad])
        assert np.isnan(found.grads[bad]).all()
        assert not found.grad_notes.any()


@pytest.mark.parametrize("mirrored", [False, True])
def test_threads_and_batches_change_no_bit(mirrored: bool) -> None:
    wanted = population(300, 33, mirrored, k=2)
    expected = run(weighted_sum, copy, wanted)
    for batch in (1, 7, 8, 64, 1000):
        found = run(weighted_sum, copy, wanted, batch=batch)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.grads, expected.grads)


def test_a_range_of_units_writes_its_own_rows_only() -> None:
    wanted = population(40, 20, True, k=3)
    whole = run(weighted_sum, copy, wanted)
    for first, last, rows in (
        (0, 1, slice(0, 2)),
        (5, 17, slice(10, 34)),
        (19, 22, slice(38, 42)),
        (21, 23, slice(41, 43)),
    ):
        found = run(weighted_sum, copy, wanted, first, last)
        inside = np.zeros(43, bool)
        inside[rows] = True
        np.testing.assert_array_equal(found.values[inside], whole.values[inside])
        np.testing.assert_array_equal(found.grads[inside], whole.grads[inside])
        assert (found.values[~inside] == POISON).all()
        assert (found.grads[~inside] == POISON).all()


@pytest.mark.parametrize("wide", [False, True])
def test_narrow_rows_are_the_blocks_of_the_generator(wide: bool) -> None:
    out = np.empty(5 * BLOCK, np.float32)
    kernels._fill_narrow(out, 5, wide, 7, 11, 1, np.uint64(2**63 + 9))
    expected = np.empty(BLOCK, np.float32)
    width = BLOCK if wide else BLOCK // 2
    for r in range(5):
        fill_blocks(expected, 0, 1, 7 + r, 11, 1, np.uint64(2**63 + 9))
        np.testing.assert_array_equal(out[r * BLOCK : r * BLOCK + width], expected[:width])


def test_the_kernels_are_compiled_once_for_all_functions() -> None:
    for f in (weighted_sum, scribble, positive_fails, numba.njit(lambda x: 2.0 * x[0])):
        run(f, None, population(8, 5, True))
        run(f, copy, population(8, 5, False), batch=2)
    assert len(kernels.evaluate.signatures) == 1
    assert len(kernels.evaluate_parallel.signatures) == 1


def test_the_kernels_come_from_the_cache() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(weighted_sum, None, population(4, 5, True), batch=1)
        run(weighted_sum, None, population(4, 5, True))
    assert kernels.evaluate.stats.cache_path
    assert sum(kernels.evaluate.stats.cache_hits.values()) + sum(kernels.evaluate.stats.cache_misses.values()) == 1


@pytest.mark.parametrize(
    ("grad", "note"),
    [
        (numba.njit(lambda x: x[1:].copy()), kernels.RESHAPED),
        (numba.njit(lambda x: x / (x - x)), kernels.UNBOUNDED),
    ],
)
def test_useless_gradients_are_nan_and_say_why(grad: Callable[..., Any], note: int) -> None:
    found = run(weighted_sum, grad, population(10, 5, True))
    assert (found.grad_notes == note).all()
    assert np.isnan(found.grads).all()
    assert np.isfinite(found.values).all()
    assert found.failed == 10


@numba.njit
def _outcome(x):
    return Outcome(x[0], 3)


@numba.njit
def _flag(x):
    return x[0] > 0.0


@pytest.mark.parametrize(("f", "outcome"), [(_outcome, True), (_flag, False), (weighted_sum, False)])
def test_an_outcome_is_told_by_its_type(f: Any, outcome: bool) -> None:
    assert kernels.value_entry(f, (), False, None).outcome is outcome
    found = run(f, None, population(6, 2, False))
    assert (found.notes == (3 if outcome else 0)).all()


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (numba.njit(lambda x: None), "returns none"),
        (numba.njit(lambda x: x), "returns array"),
        (numba.njit(lambda x: "a"), "returns .*str"),
        (numba.njit(lambda x: 1j * x[0]), "returns complex128"),
        (numba.njit(lambda x: (x[0], 1)), "returns Tuple"),
        (numba.njit(lambda x: x.nonsense), "(?s)cannot compile it.*nonsense"),
        (numba.njit(lambda x, y: x[0]), "(?s)cannot compile it.*missing"),
    ],
)
def test_what_is_no_objective_is_refused(f: Any, words: str) -> None:
    with pytest.raises(kernels.CompileError, match=words):
        kernels.value_entry(f, (), False, None)


def test_arguments_are_frozen() -> None:
    a = np.arange(3.0)
    (frozen, number) = kernels.freeze((a, 2))
    assert not frozen.flags.writeable
    assert a.flags.writeable
    assert np.shares_memory(frozen, a)
    assert number == 2
