"""Derivatives told to an optimizer, and needs checked before a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Evals, Gaussian, Info, Key, Objective, Population
from esopt._progress import describe_objective
from esopt.noise import Array

N, SHAPE = 6, (2, 2)


@dataclass(frozen=True)
class State:
    mean: Array
    generation: int = 0


@dataclass(frozen=True)
class Asking:
    """A strategy that needs what it is told to need, and keeps what it gets."""

    needs: tuple[str, ...]
    got: list[Evals]

    def init(self, x0: Array, seed: int) -> State:
        return State(x0)

    def ask(self, state: State) -> Population:
        noise, probes = Gaussian().noise(Key(1), N, 4), Gaussian().noise(Key(2), N, 4)
        return Population(state.mean, 1.0, noise, extra=state.mean[None], probes=probes).needing(*self.needs)

    def tell(self, state: State, evals: Evals) -> tuple[State, Info]:
        self.got.append(evals)
        return replace(state, generation=state.generation + 1), Info(state.generation)

    def stop(self, state: State) -> dict[str, float]:
        return {}


def optimizer(*needs: str) -> esopt.Optimizer:
    return esopt.Optimizer(Asking(needs, []), np.ones(SHAPE))


@pytest.mark.parametrize(
    ("need", "shapes", "flat"),
    [
        ("grads", [(7, 2, 2), (7, 4)], (7, 4)),
        ("hessians", [(7, 4, 4), (7, 2, 2, 2, 2)], (7, 4, 4)),
        ("hessians", [(7, 4), (7, 2, 2)], (7, 4)),
        ("hvps", [(6, 2, 2), (6, 4)], (6, 4)),
        ("jvps", [(6,)], (6,)),
    ],
)
def test_derivatives_are_told_flat(need: str, shapes: list[tuple[int, ...]], flat: tuple[int, ...]) -> None:
    for shape in shapes:
        es = optimizer(need)
        numbers = np.arange(np.prod(shape)).reshape(shape)
        es.tell(np.ones(7), **{need: numbers})
        found = getattr(es.strategy.got[0], need)
        np.testing.assert_array_equal(found, numbers.reshape(flat))
        assert found.dtype == np.float64
        assert es.progress.gradients == (7 if need == "grads" else 0)


@pytest.mark.parametrize(
    ("need", "told", "message"),
    [
        ("hessians", None, r"Asking needs Hessians\. Call tell\(values, hessians=\.\.\.\), one per row of ask\(\)\."),
        (
            "hvps",
            None,
            r"Asking needs Hessian-vector products\. Call tell\(values, hvps=\.\.\.\), one per direction, the",
        ),
        ("jvps", None, r"Asking needs directional derivatives\. Call tell\(values, jvps=\.\.\.\), one per direction"),
        (
            "hessians",
            np.ones((6, 4, 4)),
            r"got hessians of shape \(6, 4, 4\) .* Pass real numbers of shape \(7, 4, 4\)",
        ),
        ("hessians", np.ones((7, 5)), r"one Hessian \(or its diagonal\) per row of ask\(\)"),
        (
            "hvps",
            np.ones((7, 4)),
            r"got hvps of shape \(7, 4\) and dtype float64\. Pass .* \(6, 2, 2\), one product per",
        ),
        ("jvps", np.ones((6, 1)), r"got jvps of shape \(6, 1\) .* of shape \(6,\)"),
        ("jvps", np.ones(6) * 1j, "dtype complex128"),
        ("jvps", [[1.0], [1.0, 2.0]], "dtype object"),
    ],
)
def test_bad_derivatives_are_refused_and_nothing_is_lost(need: str, told: Any, message: str) -> None:
    es = optimizer(need)
    with pytest.raises(ValueError, match=message):
        es.tell(np.ones(7), **{need: told})
    assert es.generation == 0
    assert es.strategy.got == []


@pytest.mark.parametrize(
    ("need", "message"),
    [
        ("grads", r"the strategy needs gradients\. Pass grad=, the gradient of f"),
        ("hessians", r"the strategy needs Hessians\. Pass Objective\(f, hess=\.\.\.\) as f\."),
        ("hvps", r"the strategy needs Hessian-vector products\. Pass Objective\(f, hvp=\.\.\.\) as f\."),
        ("jvps", r"the strategy needs directional derivatives\. Pass Objective\(f, jvp=\.\.\.\) as f\."),
    ],
)
def test_needs_are_checked_before_a_run(need: str, message: str) -> None:
    def untouched(x: Array) -> float:
        raise AssertionError("f was called")

    with pytest.raises(ValueError, match=message):
        esopt.minimize(untouched, np.ones(SHAPE), strategy=Asking((need,), []))


def test_minimize_hands_derivatives_on() -> None:
    strategy = Asking(("hessians", "hvps", "jvps"), [])
    objective = Objective(
        lambda x: (x**2).sum(),
        hess=lambda x: np.full((2, 2), 2.0),
        hvp=lambda x, v: 2.0 * v,
        jvp=lambda x, v: 2.0 * (x * v).sum(),
    )
    result = esopt.minimize(objective, np.ones(SHAPE), strategy=strategy, generations=2)
    assert result.gradients == 0
    evals, population = strategy.got[1], strategy.ask(State(np.ones(4)))
    probes = population.probes.rows().astype(np.float64)
    np.testing.assert_array_equal(evals.hessians, np.full((7, 4), 2.0))
    np.testing.assert_array_equal(evals.hvps, 2.0 * probes)
    np.testing.assert_allclose(evals.jvps, 2.0 * (population.rows()[:6] * probes).sum(axis=1), rtol=1e-12)


def test_an_objective_may_offer_more_than_is_needed() -> None:
    objective = Objective(lambda x: float(x @ x), grad=lambda x: 2.0 * x, hess=lambda x: 2.0 * np.eye(x.size))
    assert esopt.minimize(objective, [1.0, 2.0], strategy=esopt.snes(), generations=2).gradients == 0


def f(x: Array) -> float:
    return float(x @ x)


def test_checkpoints_know_the_derivatives_by_name() -> None:
    assert "hess" not in describe_objective(Objective(f))
    assert f"{__name__}.f" in describe_objective(Objective(np.sum, hess=f)).split('"hess": ')[1].split("}")[0]
    assert describe_objective(Objective(f, hvp=f)) != describe_objective(Objective(f, jvp=f))
