"""Episodes in worker processes: the bits of this process, whatever fails, hangs or dies over there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import esopt
from esopt.rl import GymEngine, Recipe, Rules, Workers
from esopt.rl.gym_engine import EpisodeError, Table
from tests.reference.environments import Troubled, Walk
from tests.reference.processes import alive, wait_for

WALKER = Recipe().for_spaces(Walk.observation_space, Walk.action_space)
THETAS = np.random.default_rng(2).standard_normal((6, 6))
SEEDS = np.arange(18).reshape(6, 3)


def troubled(trouble: str, every: int = 4):
    """A factory that worker processes understand, although it is no name of a module."""
    return lambda: Troubled(trouble, every)


def same(ours, theirs) -> None:
    for a, b in zip(ours[:4], theirs[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def population(sampler, extra: bool):
    mean = np.linspace(-1.0, 1.0, 6)
    made = esopt.Population(mean, 0.7, sampler.noise(esopt.Key(3, 5), 8, 6))
    return made.with_extra("mean", mean[None, :] + 1.0) if extra else made


def test_bits_are_those_of_one_process():
    rules = Rules(max_steps=5, action_noise=0.3)
    here, mean, std = GymEngine(Walk, WALKER, rules), np.array([0.5, 2.0]), np.array([2.0, 0.25])
    made = [population(esopt.Antithetic(), extra=True), population(esopt.Orthogonal(4), extra=False)]
    for count in (1, 2, 3):
        workers = Workers(Walk, WALKER, count, rules)
        for _ in range(2):  # pieces of another size the second time, when it is known how long episodes take
            same(workers.play(THETAS, SEEDS), here.play(THETAS, SEEDS))
        for candidates in made:
            seeds = np.arange(2 * len(candidates)).reshape(-1, 2)
            expected = here.play(WALKER.fold(candidates.rows(), mean, std), seeds)
            same(workers.play_population(candidates, seeds, mean, std), expected)
        same(workers.play(THETAS, SEEDS, quiet=True), GymEngine(Walk, WALKER, Rules(5)).play(THETAS, SEEDS))
        workers.close()


@pytest.mark.parametrize("seconds", [0.0, 1e-5, 1e-3, 5e-3, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_tasks_cover_every_episode_once_and_become_small(count: int, seconds: float):
    workers = Workers(Walk, WALKER, count)
    workers._live.seconds = seconds  # of an episode, as the call before has found
    table = Table(np.arange(600).reshape(200, 3), 2, "raise")
    tasks = workers._tasks(table, 0, 180, np.arange(180.0)[:, None]) + workers._tasks(table, 180, 200, None)
    sizes = [task.stop - task.start for task in tasks]
    covered = np.concatenate([np.arange(task.start, task.stop) for task in tasks])
    rows = [task.rows[:, 0].tolist() for task in tasks if task.rows is not None]

    assert np.array_equal(covered, np.arange(600))
    assert np.array_equal(np.concatenate([task.seeds for task in tasks]), np.arange(600))
    assert all(at == list(range(task.start // 3, -(-task.stop // 3))) for task, at in zip(tasks, rows, strict=False))
    shares = [-(-units // count) for units in (540, 60)]
    groups = [sizes[: len(rows)], sizes[len(rows) :]]
    for group, share in zip(groups, shares, strict=True):
        assert max(group) <= share
        if seconds == 0.0:
            assert max(group) <= max(1, share // 8)
        else:
            assert min(0.1, share * seconds) / 4 <= max(group) * seconds <= max(0.1, seconds)
            assert min([*group[:-1], share]) * seconds >= min(0.002, share * seconds)  # the last one is what is left
    assert seconds != 5e-3 or sizes[len(rows) - count :][:count] == [1] * count


def test_processes_and_environments_stay_until_they_are_closed(tmp_path):
    folder = str(tmp_path)

    class Noted(Walk):
        def __init__(self):
            super().__init__()
            open(os.path.join(folder, f"{os.getpid()}-{time.time_ns()}"), "w").close()

    workers = Workers(Noted, WALKER, 2)
    for _ in range(4):
        workers.play(THETAS, SEEDS)
    made = [name.split("-")[0] for name in os.listdir(folder)]

    assert 1 <= len(made) == len(set(made)) <= 2
    assert str(os.getpid()) not in made
    workers.close()
    workers.close()
    workers.play(THETAS, SEEDS)
    assert len(os.listdir(folder)) > len(made)
    workers.close()


@pytest.mark.parametrize("trouble", ["raises", "nan"])
def test_failures_are_those_of_one_process(trouble: str):
    make = troubled(trouble)
    counting, here = Workers(make, WALKER, 2, on_error="nan"), GymEngine(make, WALKER, on_error="nan")
    ours, theirs = counting.play(THETAS, SEEDS), here.play(THETAS, SEEDS)
    counting.close()
    same(ours, theirs)
    assert ours.failures == theirs.failures == {"exception" if trouble == "raises" else "nan": 5}

    strict = Workers(make, WALKER, 2)
    with pytest.raises(EpisodeError, match=r"the episode with seed 1 \(row 0, episode 1\) r") as caught:
        strict.play(THETAS, SEEDS)
    if trouble == "raises":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert "in step" in str(caught.value.__cause__.__cause__)  # the worker's own traceback
    same(strict.play(THETAS[:1], SEEDS[:1, :1]), here.play(THETAS[:1], SEEDS[:1, :1]))  # and it goes on
    strict.close()


def test_hung_episodes_are_killed_counted_and_named():
    make = troubled("hangs", every=16)  # of the seeds, 1 and 17
    begun = time.perf_counter()
    workers = Workers(make, WALKER, 2, on_error="nan", episode_timeout=0.5)
    played, plain = workers.play(THETAS, SEEDS), GymEngine(Walk, WALKER).play(THETAS, SEEDS)
    workers.close()

    assert np.argwhere(np.isnan(played.returns)).tolist() == [[0, 1], [5, 2]]
    assert played.failures == {"timeout": 2}
    good = ~np.isnan(played.returns)
    np.testing.assert_array_equal(played.returns[good], plain.returns[good])
    np.testing.assert_array_equal(played.sums[1:5], plain.sums[1:5])
    assert time.perf_counter() - begun < 120.0

    strict = Workers(make, WALKER, 2, episode_timeout=0.5)
    message = r"seed 1 \(row 0, episode 1\) took more than 0.5 seconds and was killed, in step \(environments.py:\d+\)"
    with pytest.raises(EpisodeError, match=message) as caught:
        strict.play(THETAS[:1], SEEDS[:1])
    assert caught.value.kind == "timeout"
    strict.close()


def test_an_episode_that_hangs_once_is_played_again(tmp_path):
    flag = str(tmp_path / "hung")

    class Once(Walk):
        def step(self, action):
            if self.seed == 4 and not os.path.exists(flag):
                open(flag, "w").close()
                time.sleep(3600.0)
            return super().step(action)

    workers = Workers(Once, WALKER, 2, on_error="nan", episode_timeout=0.5, retries=1)
    same(workers.play(THETAS, SEEDS), GymEngine(Walk, WALKER).play(THETAS, SEEDS))
    workers.close()


def test_an_episode_that_kills_its_process_twice_fails():
    workers = Workers(troubled("dies", every=16), WALKER, 1, on_error="nan")
    played, plain = workers.play(THETAS[:2], SEEDS[:2]), GymEngine(Walk, WALKER).play(THETAS[:2], SEEDS[:2])
    workers.close()

    assert played.failures == {"died": 1}
    assert np.argwhere(np.isnan(played.returns)).tolist() == [[0, 1]]
    np.testing.assert_array_equal(played.returns[1], plain.returns[1])


def test_what_cannot_be_sent_is_said():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"the environment cannot be sent to a worker process: .*workers=1"):
        Workers(lambda: Walk(lock), WALKER, 2).play(THETAS, SEEDS)


def test_what_cannot_be_made_is_said():
    workers = Workers("CartPol-v1", WALKER, 1)
    with pytest.raises(ValueError, match="no environment CartPol-v1 is registered"):
        workers.play(THETAS, SEEDS)


def test_bad_arguments():
    for count in (0, 1.5):
        with pytest.raises(ValueError, match="workers must be a positive integer"):
            Workers(Walk, WALKER, count)
    with pytest.raises(ValueError, match="episode_timeout must be seconds or None, got 0"):
        Workers(Walk, WALKER, 2, episode_timeout=0)


PROGRAM = """
import os, sys, time
import numpy as np
from esopt.rl import Recipe, Workers
from tests.reference.environments import Walk

folder = sys.argv[1]

class Noted(Walk):
    def __init__(self):
        super().__init__()
        open(os.path.join(folder, str(os.getpid())), "w").close()

policy = Recipe().for_spaces(Walk.observation_space, Walk.action_space)
workers = Workers(Noted, policy, 2)
workers.play(np.zeros((8, 6)), np.arange(24).reshape(8, 3))
print("played", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
def test_workers_end_when_their_program_is_killed(tmp_path: Path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "played\n"
        finally:
            program.kill()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert pids
    assert wait_for(lambda: not any(alive(pid) for pid in pids), 30.0)


def test_workers_that_are_killed_cost_no_bits(tmp_path: Path):
    folder = str(tmp_path)

    class Noted(Walk):
        def __init__(self):
            super().__init__()
            open(os.path.join(folder, str(os.getpid())), "w").close()

        def step(self, action):
            time.sleep(0.005)
            return super().step(action)

    def kill_one() -> None:
        """The first that shows up; twice at the same episode would be that episode's fault."""
        while not over.wait(0.05):
            if made := os.listdir(folder):
                os.kill(int(made[0]), signal.SIGKILL)
                killed.append(int(made[0]))
                break

    over, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_one)
    workers = Workers(Noted, WALKER, 2)
    killer.start()
    try:
        played = workers.play(THETAS, SEEDS)
    finally:
        over.set()
        killer.join()
        workers.close()
    assert killed
    assert len(os.listdir(folder)) >= 2
    same(played, GymEngine(Walk, WALKER).play(THETAS, SEEDS))
    assert played.failures == {}


class Slow(Walk):
    def step(self, action):
        time.sleep(0.01)
        return super().step(action)


def test_threads_wait_for_each_other_and_a_fork_has_workers_of_its_own():
    workers, expected, found = Workers(Slow, WALKER, 1), GymEngine(Walk, WALKER).play(THETAS, SEEDS), []
    threads = [threading.Thread(target=lambda: found.append(workers.play(THETAS, SEEDS))) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = int(not np.array_equal(workers.play(THETAS[:2], SEEDS[:2]).returns, expected.returns[:2]))
            workers.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for thread in threads:
        thread.join()
    workers.close()
    assert len(found) == 2
    for played in found:
        same(played, expected)


def test_a_hang_does_not_count_as_a_death(tmp_path: Path):
    """An episode that dies once and hangs once is played for the third time."""
    folder = str(tmp_path)

    class Unlucky(Walk):
        def step(self, action):
            if self.seed == 4:
                for name in ("died", "hung"):
                    path = os.path.join(folder, name)
                    if not os.path.exists(path):
                        open(path, "w").close()
                        os.kill(os.getpid(), signal.SIGKILL) if name == "died" else time.sleep(3600.0)
            return super().step(action)

    workers = Workers(Unlucky, WALKER, 1, on_error="nan", episode_timeout=1.0, retries=1)
    same(workers.play(THETAS, SEEDS), GymEngine(Walk, WALKER).play(THETAS, SEEDS))
    workers.close()
    assert sorted(os.listdir(folder)) == ["died", "hung"]


def test_as_many_deaths_before_an_episode_as_there_are_workers_are_no_verdict(tmp_path: Path):
    folder = str(tmp_path)

    class Doomed(Walk):
        def __init__(self):
            super().__init__()
            if len(os.listdir(folder)) < 2:
                open(os.path.join(folder, str(os.getpid())), "w").close()
                os.kill(os.getpid(), signal.SIGKILL)

    workers = Workers(Doomed, WALKER, 2)
    same(workers.play(THETAS, SEEDS), GymEngine(Walk, WALKER).play(THETAS, SEEDS))
    workers.close()
    assert len(os.listdir(folder)) >= 2


def test_windows_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ValueError, match=r"do not run on Windows: .*workers=1"):
        Workers(Walk, WALKER, 2)


@pytest.mark.parametrize("env", [Walk, Slow])
def test_no_long_episode_waits_for_one_worker_while_another_is_free(env: type):
    """Short ones do: their worker is not to wait for the next one to be sent."""
    workers = Workers(env, WALKER, 2)
    workers.play(THETAS, SEEDS)  # it is known then how long they take
    pool, sent = workers._live.pool, []
    submit = pool.submit
    pool.submit = lambda *task: (submit(*task), sent.append(4 - pool.room()))
    workers.play(THETAS, SEEDS)
    workers.close()

    assert (max(sent) > 2) == (env is Walk)
