"""What Dask and Ray have in common: places, recipes, lost workers and who is to blame; workers here are queues."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

import numpy as np
import pytest

from esopt import Antithetic, EvaluationError, Joblib, Key, Objective, Population, __version__
from esopt.evaluators import _cluster
from esopt.evaluators._cluster import Cluster, Parcel, Seat, answer, check_version, welcome
from esopt.evaluators._policy import Policy
from esopt.evaluators._pool import Outcome
from esopt.evaluators._stream import Settings, Streams
from esopt.evaluators._tasks import Call, Task, loads, make_recipe, new_token, pack_objective


class Queues(Cluster):
    """Workers whose tasks wait in queues until the test lets them go on, in this process."""

    def __init__(self, places: tuple[int, ...], ahead: int = 1, f: Any = None) -> None:
        token = new_token()
        super().__init__(sum(places), ahead, token, pack_objective(Objective(f or (lambda x: float(x.sum()))), 1))
        self.bytes: dict[Seat, int] = {}
        self.queues: dict[Seat, deque[tuple[int, bytes]]] = {}
        self.given_up: list[tuple[str, int]] = []
        self.filled = 0
        for at, count in enumerate(places):
            self.seats.append(Seat(f"w{at}", count))
        for seat in self.seats:
            self._joined(seat)

    def _send(self, seat: Seat, number: int, parcel: bytes) -> None:
        self.queues.setdefault(seat, deque()).append((number, parcel))
        self.bytes[seat] = self.bytes.get(seat, 0) + len(parcel)

    def _abandon(self, seat: Seat, number: int) -> None:
        self.given_up.append((seat.name, number))

    def _fill(self) -> None:
        self.filled += 1

    def _release(self) -> None:
        pass

    def go(self, seat: Seat) -> None:
        """Let a worker answer its oldest task."""
        number, parcel = self.queues[seat].popleft()
        self._answered(seat, number, answer(parcel))


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cluster, "_recipes", {})


def calls(pool: Cluster, count: int = 6, generation: int = 0) -> list[Call]:
    population = Population(np.zeros(3), 1.0, Antithetic().noise(Key(1, generation), 2 * count, 3))
    recipe = make_recipe(population, (), Policy(raises=True))
    return [Call(pool.token, b"", None, recipe, Task(2 * i, 2 * i + 2, None, None, None)) for i in range(count)]


def submit(pool: Cluster, *tasks: Call) -> tuple[list[int], dict[int, Outcome]]:
    """Submit, and return the numbers of the tasks and, filled later, what became of them by their place in the list."""
    found: dict[int, Outcome] = {}

    def keep(at: int) -> Any:
        return lambda outcome: found.update({at: outcome})

    return [pool.submit(task, keep(at)) for at, task in enumerate(tasks)], found


def parcels(pool: Queues, at: int) -> list[Parcel]:
    return [loads(parcel) for _, parcel in pool.queues[pool.seats[at]]]


def test_answers_are_those_of_the_objective_and_recipes_travel_once() -> None:
    pool = Queues((1, 1))
    welcome(pool.token, pool.payload)
    assert pool.room() == 4
    _, found = submit(pool, *calls(pool))
    assert pool.room() == -2
    first, second = pool.seats
    assert [bool(parcel.recipe) for parcel in parcels(pool, 0)] == [True, False]
    assert [parcel.task.start for parcel in parcels(pool, 0) + parcels(pool, 1)] == [0, 4, 2, 6]
    for seat in (second, second, first, second, second, first):
        pool.go(seat)
    rows = Population(np.zeros(3), 1.0, Antithetic().noise(Key(1, 0), 12, 3)).rows().sum(axis=1)
    assert sorted(found) == list(range(6))
    for at, outcome in found.items():
        assert outcome.answer is not None
        assert outcome.answer.table is not None
        np.testing.assert_array_equal(outcome.answer.table.values, rows[2 * at : 2 * at + 2])
    assert pool.take_lost() == 0
    assert pool.traffic() == [(pool.bytes[seat], seat.received) for seat in pool.seats]
    assert all(received > 0 for _, received in pool.traffic())


def test_a_worker_that_forgot_the_recipe_gets_it_again() -> None:
    pool = Queues((1,))
    welcome(pool.token, pool.payload)
    _, found = submit(pool, *calls(pool, 3))
    seat = pool.seats[0]
    pool.go(seat)
    _cluster._recipes.clear()
    pool.go(seat)
    assert sorted(found) == [0]
    while pool.queues[seat]:
        pool.go(seat)
    assert sorted(found) == [0, 1, 2]
    assert all(outcome.answer for outcome in found.values())


def test_a_worker_that_restarted_unseen_says_that_it_has_no_objective() -> None:
    pool = Queues((1,))
    _, found = submit(pool, calls(pool, 1)[0])
    pool.go(pool.seats[0])
    assert not found
    assert len(pool.queues[pool.seats[0]]) == 1


@pytest.mark.parametrize("ahead", [0, 1])
def test_the_oldest_task_of_a_lost_worker_is_the_one_it_was_at(ahead: int) -> None:
    pool = Queues((1, 1), ahead)
    _, found = submit(pool, *calls(pool, 4))
    pool._leave(pool.seats[0], asked=False)
    assert found == ({0: Outcome(begun=True), 2: Outcome()} if ahead else {0: Outcome(begun=True)})
    assert (pool.take_lost(), pool.filled, len(pool.seats)) == (0, 1, 1)


def test_an_idle_worker_that_is_lost_is_counted_and_one_that_was_asked_to_go_is_not() -> None:
    pool = Queues((1, 1, 1))
    idle, asked, busy = pool.seats
    pool._leave(idle, asked=False)
    pool._leave(idle, asked=False)
    _, found = submit(pool, *calls(pool, 2))
    pool._leave(asked, asked=True)
    assert found == {0: Outcome()}
    assert (pool.take_lost(), pool.take_lost()) == (1, 0)
    assert (pool.seats, pool.left) == ([busy], [idle, asked])


def test_rows_that_were_at_a_lost_worker_together_are_tried_alone() -> None:
    pool = Queues((2, 2), ahead=0)
    tasks = calls(pool, 5)
    _, found = submit(pool, *tasks[:4])
    lost, other = pool.seats
    pool._leave(lost, asked=False)
    assert found == {0: Outcome(), 2: Outcome()}  # two in progress: neither is blamed
    assert pool.take_lost() == 1
    again, blamed = submit(pool, tasks[0], tasks[4])
    welcome(pool.token, pool.payload)
    pool.go(other)
    assert len(pool.queues[other]) == 1  # a suspect waits until nobody else is there
    pool.go(other)
    assert [number for number, _ in pool.queues[other]] == again[:1]  # and nobody joins it
    pool._leave(other, asked=False)
    assert blamed == {0: Outcome(begun=True)}
    assert pool.take_lost() == 0


def test_a_task_that_is_given_up_keeps_its_place_until_it_comes_back() -> None:
    pool = Queues((1,), ahead=0)
    welcome(pool.token, pool.payload)
    (slow, waits), found = submit(pool, *calls(pool, 2))
    seat = pool.seats[0]
    assert 0.0 < pool.running(slow) < 60.0
    assert pool.running(waits) == 0.0
    pool.kill(slow)
    pool.kill(slow)
    assert found == {0: Outcome(begun=True)}
    assert pool.given_up == [("w0", slow)]
    assert seat.free == 0
    assert len(pool.queues[seat]) == 1
    pool.go(seat)  # a late answer, which nobody wants any more
    assert found == {0: Outcome(begun=True)}
    pool.go(seat)
    assert found[1].answer is not None
    (waiting,), found = submit(pool, calls(pool, 1)[0])
    pool.kill(waiting)
    assert found == {0: Outcome(begun=True)}


def test_workers_that_never_become_ready_end_the_generation() -> None:
    pool = Queues((1,))
    _, found = submit(pool, *calls(pool, 1))
    for _ in range(2):
        seat = Seat("new")
        pool.seats.append(seat)
        pool._leave(seat, asked=False)
    assert not found
    seat = Seat("new")
    pool.seats.append(seat)
    pool._leave(seat, asked=False, why="no module named esopt")
    with pytest.raises(EvaluationError, match=r"3 workers in a row were lost .* no module named esopt"):
        raise found[0].error  # type: ignore[misc]


def test_an_exit_of_the_function_is_an_error_and_not_the_end_of_the_worker() -> None:
    def leave(x: Any) -> float:
        raise KeyboardInterrupt("from f")

    pool = Queues((1,), f=leave)
    welcome(pool.token, pool.payload)
    _, found = submit(pool, calls(pool, 1)[0])
    pool.go(pool.seats[0])
    assert isinstance(found[0].error, KeyboardInterrupt)


def test_workers_of_another_version_are_refused() -> None:
    check_version(__version__, "w0")
    with pytest.raises(EvaluationError, match=r"the worker w0 has esopt 0\.0\.1, and this process has"):
        check_version("0.0.1", "w0")


def test_closing_drops_what_is_under_way() -> None:
    pool = Queues((1,))
    _, found = submit(pool, *calls(pool, 3))
    pool.close(kill=True)
    pool._leave(pool.seats[0], asked=False)
    assert (found, pool.filled, pool.room()) == ({}, 0, 2)


def generation_bytes(n: int, dim: int, scale: Any = 0.5) -> tuple[float, float]:
    """Return the bytes to and from the busiest of two workers in a generation, after the first one."""
    pool = Queues((1, 1), f=lambda x: 1.0)
    welcome(pool.token, pool.payload)
    settings = Settings(Objective(lambda x: 1.0), None, 2, Policy(raises=True), token=pool.token)
    streams = Streams(pool, settings)

    def generation(number: int) -> list[tuple[int, int]]:
        population = Population(np.zeros(dim), scale, Antithetic().noise(Key(1, number), n, dim))
        ticket, rows = streams.submit(population), 0
        while rows < n:
            for seat in pool.seats:
                while pool.queues.get(seat):
                    pool.go(seat)
            parts = streams.wait(0.0)
            assert {at for at, _ in parts} == {ticket}
            rows += sum(len(part.rows) for _, part in parts)
        return pool.traffic()

    before = generation(0)
    each = [np.subtract(after, past) for after, past in zip(generation(1), before, strict=True)]
    return float(max(sent for sent, _ in each)), float(max(received for _, received in each))


def test_a_worker_gets_one_recipe_a_generation_and_gives_values() -> None:
    small, wide, many = generation_bytes(64, 10), generation_bytes(64, 10_010), generation_bytes(6400, 10_010)
    assert small[0] < 2000
    assert wide[0] - small[0] == pytest.approx(8 * 10_000, abs=50)  # the mean
    assert many[0] - wide[0] == pytest.approx(0.0, abs=50)  # and no rows
    assert wide[1] == small[1] < 2500
    assert 3200 * 8 <= many[1] < 6400 * 8  # the values of its rows, about half of all
    assert generation_bytes(64, 100, np.eye(100))[0] == pytest.approx(small[0] + 8 * (90 + 100 * 100), abs=300)


@pytest.mark.parametrize(("backend", "module", "advice"), [("dask", "distributed", "Client"), ("ray", "ray", "init")])
def test_without_a_cluster_there_is_an_error_that_says_how_to_start_one(backend: str, module: str, advice: str) -> None:
    pytest.importorskip(module)
    evaluator = Joblib(lambda x: 0.0, workers=2, backend=backend)
    with pytest.raises(ValueError, match=rf"found no .*\.{advice}\("):
        evaluator.evaluate(Population(np.zeros(3), 1.0, Antithetic().noise(Key(1, 0), 4, 3)), ())


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_what_is_not_installed_is_named(backend: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pyesopt\[{backend}\]"):
        Joblib(lambda x: 0.0, workers=2, backend=backend).evaluate(
            Population(np.zeros(3), 1.0, Antithetic().noise(Key(1, 0), 4, 3)), ()
        )
