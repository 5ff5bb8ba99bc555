"""Functions written in jax and torch: values and derivatives against closed forms, and their use."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pytest

import esopt
from esopt import Antithetic, Gaussian, Joblib, Key, Objective, Population, Serial, Vectorized
from esopt._describe import describe
from esopt.noise import Array

# f(x) = sum_i a_i x_i^4 / 4 + sin(w . x), a_i = i + 1
A, W = np.arange(1.0, 4.0), np.array([0.5, -1.0, 2.0])
X, V = np.array([0.3, -0.7, 1.1]), np.array([1.0, 0.5, -2.0])


def f_jax(x: Any) -> Any:
    import jax.numpy as jnp

    return (jnp.asarray(A) * x**4).sum() / 4.0 + jnp.sin(jnp.asarray(W) @ x)


def f_torch(x: Any) -> Any:
    import torch

    return (torch.from_numpy(A) * x**4).sum() / 4.0 + torch.sin(torch.from_numpy(W) @ x)


def value(x: Array) -> float:
    return float((A * x**4).sum() / 4.0 + np.sin(W @ x))


def grad(x: Array) -> Array:
    return A * x**3 + W * np.cos(W @ x)


def hess(x: Array) -> Array:
    return np.diag(3.0 * A * x**2) - np.outer(W, W) * np.sin(W @ x)


def draw_jax(x: Any, seed: Any) -> Any:
    import jax

    return x.sum() + jax.random.normal(jax.random.key(seed))


def draw_torch(x: Any, seed: int) -> Any:
    import torch

    return x.sum() + torch.randn((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Library(NamedTuple):
    """An adapter, the test function, a function of a matrix, and a seeded one."""

    name: str
    adapt: Callable[..., Objective]
    f: Callable[..., Any]
    draw: Callable[..., Any]


LIBRARIES = [Library("jax", esopt.from_jax, f_jax, draw_jax), Library("torch", esopt.from_torch, f_torch, draw_torch)]


@pytest.fixture(scope="module", params=LIBRARIES, ids=lambda library: library.name)
def library(request: pytest.FixtureRequest) -> Library:
    pytest.importorskip(request.param.name)
    return request.param


def test_a_function_of_one_x_has_all_derivatives(library: Library) -> None:
    objective = library.adapt(library.f)
    close = {"rtol": 1e-12, "atol": 1e-13}
    for x in (X, -2.0 * X):
        np.testing.assert_allclose(objective.f(x), value(x), **close)
        np.testing.assert_allclose(objective.grad(x), grad(x), **close)
        np.testing.assert_allclose(objective.hess(x), hess(x), **close)
        np.testing.assert_allclose(objective.hvp(x, V), hess(x) @ V, **close)
        np.testing.assert_allclose(objective.jvp(x, V), grad(x) @ V, **close)
    assert type(objective.f(X)) is float
    assert type(objective.jvp(X, V)) is float
    for array in (objective.grad(X), objective.hess(X), objective.hvp(X, V)):
        assert array.dtype == np.float64
        assert array.flags.writeable


def test_batches_are_their_rows(library: Library) -> None:
    one, many = library.adapt(library.f), library.adapt(library.f, batched=True)
    rows, vs = np.stack([X, 2.0 * X, -X, X + 0.5]), np.stack([V, X, -V, 3.0 * V])
    for part in ("f", "grad", "hess"):
        found = getattr(many, part)(rows)
        np.testing.assert_allclose(found, [getattr(one, part)(x) for x in rows], rtol=1e-12)
        assert found.dtype == np.float64
    for part in ("hvp", "jvp"):
        each = [getattr(one, part)(x, v) for x, v in zip(rows, vs, strict=True)]
        np.testing.assert_allclose(getattr(many, part)(rows, vs), each, rtol=1e-12)


NEEDS = ("grads", "hessians", "hvps", "jvps")


def population(shape: tuple[int, ...] = (3,), n: int = 6) -> Population:
    dim = int(np.prod(shape))
    probes = Gaussian().noise(Key(2), n, dim)
    noise = Antithetic().noise(Key(1), n, dim)
    return Population(np.full(dim, 0.2), 0.5, noise, extra=np.zeros((1, dim)), probes=probes).needing(*NEEDS)


def test_evaluators_take_them(library: Library) -> None:
    wanted = population()
    rows, probes = wanted.rows(), wanted.probes.rows().astype(np.float64)
    evaluators = [
        Serial(library.adapt(library.f)),
        Vectorized(library.adapt(library.f, batched=True), chunk=4),
        Joblib(library.adapt(library.f), workers=2, backend="threading"),
    ]
    for evaluator in evaluators:
        evals, _ = evaluator.evaluate(wanted, evaluator.init())
        evaluator.close()
        np.testing.assert_allclose(evals.values, [value(x) for x in rows], rtol=1e-12)
        np.testing.assert_allclose(evals.grads, [grad(x) for x in rows], rtol=1e-12)
        np.testing.assert_allclose(evals.hessians, [hess(x) for x in rows], rtol=1e-12, atol=1e-14)
        pairs = list(zip(rows[:6], probes, strict=True))
        np.testing.assert_allclose(evals.hvps, [hess(x) @ v for x, v in pairs], rtol=1e-11)
        np.testing.assert_allclose(evals.jvps, [grad(x) @ v for x, v in pairs], rtol=1e-11)


def test_x_keeps_its_shape(library: Library) -> None:
    """x is (2, 2) and f its determinant."""
    objective = library.adapt(lambda x: x[0, 0] * x[1, 1] - x[0, 1] * x[1, 0])
    wanted = population((2, 2), 4)
    a, b, c, d = wanted.rows().T
    second = np.fliplr(np.diag([1.0, -1.0, -1.0, 1.0]))
    for evaluator in (
        Serial(Objective(**{**vars(objective), "shape": (2, 2)})),
        Vectorized(
            Objective(**{**vars(library.adapt(objective.f.function, batched=True)), "shape": (2, 2)})  # type: ignore[attr-defined]
        ),
    ):
        evals, _ = evaluator.evaluate(wanted, ())
        np.testing.assert_allclose(evals.values, a * d - b * c, rtol=1e-12)
        np.testing.assert_allclose(evals.grads, np.stack([d, -c, -b, a], axis=1), rtol=1e-12)
        np.testing.assert_allclose(evals.hessians, [second] * 5, rtol=1e-12)
        np.testing.assert_allclose(evals.hvps, wanted.probes.rows() @ second, rtol=1e-12)


def test_minimize_and_smoothed_gradient_take_them(library: Library) -> None:
    x0 = np.full(3, 1.0)
    found = esopt.minimize(library.adapt(library.f), x0, generations=60)
    assert found.gradients == 4 * 60
    twin = esopt.minimize(value, x0, grad=grad, generations=60)
    np.testing.assert_allclose(found.x, twin.x, rtol=1e-6)
    many = esopt.minimize(library.adapt(library.f, batched=True), x0, generations=60, vectorized=True)
    np.testing.assert_allclose(many.x, twin.x, rtol=1e-6)
    blind = esopt.minimize(library.adapt(library.f), x0, strategy=esopt.snes(sigma=0.3), generations=3)
    assert blind.gradients == 0

    estimate = esopt.smoothed_gradient(library.adapt(library.f), X, n=16)
    np.testing.assert_allclose(estimate.mean, esopt.smoothed_gradient(value, X, grad=grad, n=16).mean, rtol=1e-10)


def test_a_seed_makes_the_noise(library: Library) -> None:
    objective = library.adapt(library.draw, seeded=True)
    first, again, other = (objective.f(X, seed) for seed in (2**32 - 1, 2**32 - 1, 7))
    assert first == again != other
    np.testing.assert_allclose(objective.grad(X, 3), np.ones(3), rtol=1e-12)
    np.testing.assert_allclose(objective.jvp(X, V, 3), V.sum(), rtol=1e-12)
    np.testing.assert_array_equal(objective.hvp(X, V, 3), np.zeros(3))
    assert esopt.minimize(objective, X, generations=2, final_evaluations=2).gradients == 8


def test_batches_of_seeds() -> None:
    pytest.importorskip("jax")
    one, many = (esopt.from_jax(draw_jax, seeded=True, batched=batched) for batched in (False, True))
    seeds = np.array([1, 2**32 - 1])
    np.testing.assert_allclose(many.f(np.stack([X, V]), seeds), [one.f(X, 1), one.f(V, 2**32 - 1)], rtol=1e-12)


def test_they_travel_and_are_described_by_the_name_of_f(library: Library) -> None:
    objective = library.adapt(library.f)
    expected = objective.grad(X)
    copy = cloudpickle.loads(cloudpickle.dumps(objective))
    np.testing.assert_array_equal(copy.grad(X), expected)
    assert describe(copy) == describe(objective)
    assert f".{library.f.__name__}" in str(describe(objective))
    assert describe(objective) != describe(library.adapt(library.draw))


@pytest.mark.slow
def test_worker_processes_take_them(library: Library) -> None:
    wanted = population()
    objective = library.adapt(lambda x: (x**4).sum())
    expected, _ = Serial(objective).evaluate(wanted, ())
    evaluator = Joblib(objective, workers=2)
    evals, _ = evaluator.evaluate(wanted, evaluator.init())
    evaluator.close()
    for name in ("values", "grads", "hessians", "hvps", "jvps"):
        np.testing.assert_allclose(getattr(evals, name), getattr(expected, name), rtol=1e-12)


def test_a_function_that_ignores_x_has_zero_derivatives(library: Library) -> None:
    for batched, x, v in ((False, X, V), (True, X[None], V[None])):
        objective = library.adapt(lambda x: 0.0 * x[0] + 1.0, batched=batched)
        linear = library.adapt(lambda x: 2.0 * x[1], batched=batched)
        np.testing.assert_array_equal(objective.grad(x), 0.0 * x)
        np.testing.assert_array_equal(objective.hess(x), np.zeros((*x.shape, 3)))
        np.testing.assert_array_equal(linear.hvp(x, v), 0.0 * x)
        np.testing.assert_array_equal(linear.jvp(x, v), 2.0 * v[..., 1])


def test_jax_stays_as_it_was_set() -> None:
    jax = pytest.importorskip("jax")
    objective = esopt.from_jax(lambda x: (x * 1e-12 + 1.0).sum())
    assert objective.f(np.ones(1)) == 1.0 + 1e-12
    assert jax.numpy.ones(1).dtype == np.float32
    inside = []
    esopt.from_jax(lambda x: inside.append(x.dtype) or x.sum()).f(np.ones(1))
    assert inside == [np.float64]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_what_is_no_function_is_refused(library: Library) -> None:
    with pytest.raises(TypeError, match=rf"from_{library.name}\(\) got float\. Pass a function of one x, written in"):
        library.adapt(3.0)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_a_missing_library_names_its_extra(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library.name, None)
    with pytest.raises(ImportError, match=rf'from_{library.name}\(\) needs {library.name}, .* extra "{library.name}"'):
        library.adapt(library.f)


def test_the_example_of_the_guide_runs() -> None:
    """Blocks marked ``py`` are those that need libraries that the others do not."""
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    page = Path(esopt.__file__).parent.parent / "docs" / "guide.md"
    blocks = re.findall(r"^```py\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(block, {"esopt": esopt, "np": np})
    assert printed.getvalue() == "True\n" * len(blocks)


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, esopt; esopt.from_jax, esopt.from_torch; sys.exit('jax' in sys.modules or 'torch' in sys.modules)"
    )
    root = str(Path(esopt.__file__).parent.parent)
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}).returncode == 0


def test_the_cost_of_a_gradient_is_that_of_its_calls() -> None:
    def value_of(x: Array) -> float:
        time.sleep(1e-3)
        return 0.0

    def grad_of(x: Array) -> Array:
        time.sleep(4e-3)
        return x

    assert 3.0 < esopt.gradient_cost(value_of, grad_of, X) < 4.5
    objective = Objective(lambda x, seed, k: value_of(x), lambda x, seed, k: grad_of(x), args=(2.0,), seeded=True)
    assert 3.0 < esopt.gradient_cost(objective, None, X) < 4.5
    assert 0.2 < esopt.gradient_cost(lambda x: x.sum(), lambda x: x.sum(), X) < 5.0
    with pytest.raises(ValueError, match=r"got no gradient\. Pass grad, or an Objective that has one"):
        esopt.gradient_cost(value_of, None, X)
