"""minimize() with evaluators that return a generation in parts: what is finished is in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Evals, EvaluationError, Joblib, Objective, Population
from esopt.noise import Array
from esopt.records import Part
from tests.reference.runs import bumpy, bumpy_grad, outcome

X0 = np.linspace(-1.0, 2.0, 6)


@dataclass(frozen=True)
class OneByOne:
    """Parts of one row each, from the last row to the first; ``seen`` are the rows evaluated, by generation."""

    problem: Objective
    seen: list[tuple[int, int]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    def init(self) -> Any:
        return ()

    def evaluate(self, population: Population, state: Any) -> tuple[Evals, Any]:
        return esopt.Serial(self.problem).evaluate(population, state)

    def stream(self, population: Population, state: Any, rows: Any = None) -> Any:
        return _Parts(self, population, np.arange(len(population)) if rows is None else rows)

    def close(self) -> None:
        pass


@dataclass
class _Parts:
    parent: OneByOne
    population: Population
    rows: Any

    def __iter__(self) -> Iterator[Part]:
        objective, generation = self.parent.problem, self.population.noise.key.generation
        for row in self.rows[::-1].tolist():
            x = self.population[row]
            self.parent.seen.append((generation, row))
            assert objective.grad is not None
            grads = objective.grad(x)[None] if "grads" in self.population.needs else None
            yield Part(np.array([row]), Evals(np.array([objective.f(x)]), grads, steps=2, failures={"retried": 1}))

    def close(self) -> None:
        self.parent.closed.append(self.population.noise.key.generation)


def breaking(calls: int, error: type[BaseException]) -> Callable[[Array], float]:
    """bumpy, but for an exception in one call."""
    count = 0

    def f(x: Array) -> float:
        nonlocal count
        count += 1
        if count == calls:
            raise error("now")
        return bumpy(x)

    return f


STRATEGIES: dict[str, Callable[[], Any]] = {
    "snes": lambda: esopt.snes(n=8),
    "cmaes": lambda: esopt.CMAES(n=7),
    "bonnet": lambda: esopt.GradientES(n=8, estimator=esopt.Bonnet(), rule=esopt.Momentum(0.01)),
    "portfolio": esopt.Portfolio,
}


@pytest.mark.parametrize("error", [EvaluationError, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("name", STRATEGIES)
def test_finished_evaluations_are_not_done_again(name: str, error: type[BaseException], tmp_path: Path) -> None:
    def run(f: Callable[[Array], float], path: Path | None) -> tuple[Any, OneByOne]:
        parts = OneByOne(Objective(f, grad=bumpy_grad))
        settings: dict[str, Any] = {"checkpoint": path, "checkpoint_seconds": 1000.0, "generations": 5, "seed": 4}
        return esopt.minimize(None, X0, strategy=STRATEGIES[name](), evaluator=parts, **settings), parts

    straight, _ = run(bumpy, None)
    path, broken = tmp_path / "run.npz", OneByOne(Objective(breaking(20, error), grad=bumpy_grad))
    settings: dict[str, Any] = {"checkpoint": path, "checkpoint_seconds": 1000.0, "generations": 5, "seed": 4}
    if error is KeyboardInterrupt:
        found = esopt.minimize(None, X0, strategy=STRATEGIES[name](), evaluator=broken, **settings)
        assert set(found.reason) == {"interrupted"}
    else:
        with pytest.raises(error, match="now"):
            esopt.minimize(None, X0, strategy=STRATEGIES[name](), evaluator=broken, **settings)
    assert broken.closed == sorted({generation for generation, _ in broken.seen})

    resumed, rest = run(bumpy, path)
    assert outcome(resumed)[1] == outcome(straight)[1]
    # Only the call that failed was made twice.
    assert len(broken.seen) == 20
    assert set(broken.seen) & set(rest.seen) == {broken.seen[-1]}
    assert resumed.steps == 2 * resumed.evaluations - 2  # the final mean is evaluated all at once
    assert resumed.failures == {"retried": resumed.evaluations - 1}


def test_checkpoints_in_the_middle_of_a_generation(tmp_path: Path) -> None:
    pending = []

    def f(x: Array) -> float:
        if path.exists():
            es = esopt.Optimizer(esopt.snes(n=8), X0, seed=4)
            es.load(path)
            pending.append((es.generation, es.pending.size))
        return bumpy(x)

    path = tmp_path / "run.npz"
    evaluator = OneByOne(Objective(f, grad=bumpy_grad))
    settings: dict[str, Any] = {"checkpoint": path, "checkpoint_seconds": 0.0, "generations": 2, "seed": 4}
    esopt.minimize(None, X0, strategy=esopt.snes(n=8), evaluator=evaluator, final_evaluations=0, **settings)
    # Before every call but the first; the last one is that of the final mean.
    assert pending == [(0, k) for k in range(7, 0, -1)] + [(1, k) for k in range(8, 0, -1)] + [(2, 8)]


def test_a_generation_without_use_is_evaluated_again(tmp_path: Path) -> None:
    """All fail, for a reason that has gone when the run is resumed."""
    broken = OneByOne(Objective(lambda x: bumpy(x) if len(broken.seen) <= 16 else np.nan, grad=bumpy_grad))
    settings: dict[str, Any] = {"checkpoint": tmp_path / "run.npz", "generations": 5, "seed": 4}
    found = esopt.minimize(None, X0, strategy=esopt.snes(n=8), evaluator=broken, **settings)
    assert found.reason == {"failed": 2.0}
    sound = OneByOne(Objective(bumpy, grad=bumpy_grad))
    resumed = esopt.minimize(None, X0, strategy=esopt.snes(n=8), evaluator=sound, **settings)
    straight = esopt.minimize(bumpy, X0, strategy=esopt.snes(n=8), seed=4, generations=5)
    assert len(sound.seen) == 24
    np.testing.assert_array_equal(resumed.x, straight.x)


def test_another_evaluator_may_go_on(tmp_path: Path) -> None:
    broken = OneByOne(Objective(breaking(20, RuntimeError), grad=bumpy_grad))
    settings: dict[str, Any] = {"checkpoint": tmp_path / "run.npz", "generations": 5, "seed": 4}
    with pytest.raises(RuntimeError):
        esopt.minimize(None, X0, strategy=esopt.snes(n=8), evaluator=broken, **settings)
    resumed = esopt.minimize(None, X0, strategy=esopt.snes(n=8), evaluator=esopt.Serial(bumpy), **settings)
    straight = esopt.minimize(bumpy, X0, strategy=esopt.snes(n=8), seed=4, generations=5)
    np.testing.assert_array_equal(resumed.x, straight.x)
    assert resumed.evaluations == straight.evaluations


def test_workers_under_constraints(tmp_path: Path) -> None:
    """Values, constraints and extra rows of a real stream; the third generation breaks."""

    def run(calls: int, path: Path | None) -> Any:
        objective = Objective(breaking(calls, RuntimeError), constraints=lambda x: x[0] - 0.1)
        with_threads = Joblib(objective, workers=2, backend="threading", chunk=2)
        strategy = esopt.AugmentedLagrangian(esopt.CMAES(n=8, step_size=esopt.TPA()))
        settings: dict[str, Any] = {"checkpoint": path, "generations": 4, "seed": 4}
        return esopt.minimize(None, X0, strategy=strategy, evaluator=with_threads, **settings)

    path = tmp_path / "run.npz"
    with pytest.raises(EvaluationError):
        run(26, path)
    es = esopt.Optimizer(esopt.AugmentedLagrangian(esopt.CMAES(n=8, step_size=esopt.TPA())), X0, seed=4)
    es.load(path)
    assert es.generation == 2
    assert outcome(run(0, path))[1] == outcome(run(0, None))[1]


@pytest.mark.parametrize("chunk", [1, 4])
def test_what_failed_is_evaluated_again_after_too_many_failures(chunk: int, tmp_path: Path) -> None:
    """A disk that is full for a while: the generation of that time has no failure in the end."""

    def run(f: Callable[[Array], float], path: Path | None) -> Any:
        evaluator = Joblib(f, 2, "threading", chunk=chunk, on_error="nan", max_failures=2)
        settings: dict[str, Any] = {"checkpoint": path, "generations": 5, "seed": 4, "final_evaluations": 0}
        return esopt.minimize(None, X0, strategy=esopt.CMAES(n=8), evaluator=evaluator, **settings)

    count, full = 0, True

    def f(x: Array) -> float:
        nonlocal count
        count += 1
        if count > 18 and full:
            raise OSError("No space left on device")
        return bumpy(x)

    path = tmp_path / "run.npz"
    with pytest.raises(EvaluationError, match="max_failures=2"):
        run(f, path)
    es = esopt.Optimizer(esopt.CMAES(n=8), X0, seed=4)
    es.load(path)
    assert es.generation == 2
    assert not np.isnan(es.collected().values[np.setdiff1d(np.arange(8), es.pending)]).any()
    full = False
    resumed = run(f, path)
    assert outcome(resumed)[1] == outcome(run(bumpy, None))[1]
    assert resumed.failures == {}


def test_failures_before_and_after_a_kill_are_counted_together(tmp_path: Path) -> None:
    """Two of one generation fail before the checkpoint, and one after it; two may."""

    def f(x: Array) -> float:
        nonlocal count
        count += 1
        if count in (2, 3):
            raise OSError("lost")
        if count == 6 and stops:
            raise KeyboardInterrupt
        if count == 8:
            raise OSError("lost")
        return bumpy(x)

    count, stops = 0, True
    settings: dict[str, Any] = {"checkpoint": tmp_path / "run.npz", "checkpoint_seconds": 0.0, "generations": 2}
    with_stream = Here(f)
    found = esopt.minimize(None, X0, strategy=esopt.CMAES(n=8), evaluator=with_stream, **settings)
    assert "interrupted" in found.reason
    stops = False
    with pytest.raises(EvaluationError, match="3 of 8 candidates of generation 0 failed"):
        esopt.minimize(None, X0, strategy=esopt.CMAES(n=8), evaluator=with_stream, **settings)


@dataclass(frozen=True)
class Here:
    """Parts of one row each, with failures."""

    f: Callable[[Array], float]
    max_failures: int = 2

    def init(self) -> Any:
        return ()

    def evaluate(self, population: Population, state: Any) -> tuple[Evals, Any]:
        return esopt.Serial(self.f, "nan").evaluate(population, state)

    def stream(self, population: Population, state: Any, rows: Any = None) -> Any:
        return _Rows(self, population, np.arange(len(population)) if rows is None else rows)

    def close(self) -> None:
        pass


@dataclass
class _Rows:
    parent: Here
    population: Population
    rows: Any

    def __iter__(self) -> Iterator[Part]:
        for row in self.rows.tolist():
            try:
                yield Part(np.array([row]), Evals(np.array([self.parent.f(self.population[row])])))
            except OSError:
                yield Part(np.array([row]), Evals(np.array([np.nan]), failures={"exception": 1}))

    def close(self) -> None:
        pass


def test_no_number_for_any_candidate_of_the_first_generation_is_a_mistake(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"strategy": esopt.CMAES(n=8), "on_error": "nan", "generations": 4}
    for more in ({}, {"checkpoint": tmp_path / "run.npz"}, {"mode": "async"}):
        with pytest.raises(TypeError, match="no number for any of the 8 candidates of the first generation"):
            esopt.minimize(lambda x: x, X0, **settings, **more)
    found = esopt.minimize(lambda x: bumpy(x) if x[0] < -1.0 else None, X0, **settings)
    assert 0 < found.failures["shape"] < found.evaluations
