"""Workers without a master: each replays the whole run, evaluates its share of the rows and tells the others.

Every process holds the same Optimizer. Rows are recipes, so none travels: what travels is (row, value), 16 bytes a
candidate, whatever the dimension. As everybody tells the same values, everybody stays in the same bits, which this
script checks against a serial run. Local processes only, connected by 127.0.0.1 and a random key.

Run it in the environment that scripts/run makes: .venv/bin/python scripts/replay.py --workers 4
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Connection, Listener

import numpy as np
from numpy.typing import NDArray

import esopt

PAIR = np.dtype([("row", "<i8"), ("value", "<f8")])
LARGEST = 1 << 16
"""Bytes that a socket takes although nobody reads yet: everybody sends first, and then receives."""


@dataclass(frozen=True)
class Setting:
    """A run: ``seconds`` is the mean time of an evaluation, ``spread`` its standard deviation over its mean."""

    dim: int = 1000
    n: int = 64
    generations: int = 10
    seconds: float = 0.0
    spread: float = 0.0
    seed: int = 1


@dataclass(frozen=True)
class Finished:
    """What one process measured, its first generation left out; bytes are those that it sent in a generation."""

    digest: str
    seconds: float
    evaluating: float
    sent: int


def begin(setting: Setting) -> esopt.Optimizer:
    """Return the optimizer that everybody holds."""
    strategy = esopt.openai_es(n=setting.n, sigma=0.1, lr=0.05)
    return esopt.Optimizer(strategy, np.full(setting.dim, 0.5), seed=setting.seed)


def duration(setting: Setting, seed: int) -> float:
    """Return the seconds that the candidate with evaluation seed ``seed`` takes: log-normal, or all the same."""
    if not setting.spread:
        return setting.seconds
    width = np.sqrt(np.log1p(setting.spread**2))
    return setting.seconds * float(np.exp(width * np.random.default_rng(seed).standard_normal() - 0.5 * width**2))


def evaluate(setting: Setting, x: NDArray[np.float64], seed: int) -> float:
    """Return the value of a candidate, after the time that it takes: a simulator elsewhere, not this processor."""
    time.sleep(duration(setting, seed))
    return float(np.square(x).sum())


def digest(es: esopt.Optimizer) -> str:
    """Return a hash of the mean and the best candidate so far."""
    return hashlib.sha256(es.mean.tobytes() + es.result.best.x.tobytes()).hexdigest()


def serial(setting: Setting) -> str:
    """Return the digest of the run in one process, in which evaluations take no time."""
    es = begin(setting)
    for _ in range(setting.generations):
        es.tell([float(np.square(x).sum()) for x in es.population().rows()])
    return digest(es)


def share(rank: int, count: int, n: int) -> tuple[int, int]:
    """Return the first and the last row + 1 of ``rank``: whole mirrored pairs, as equal as can be."""
    pairs = n // 2
    return 2 * (pairs * rank // count), 2 * (pairs * (rank + 1) // count)


def connect(rank: int, count: int, key: bytes, parent: Connection) -> list[Connection]:
    """Return a connection to every other process, in the order of their ranks."""
    with Listener(("127.0.0.1", 0), backlog=count, authkey=key) as listener:
        parent.send(listener.address)
        addresses: Sequence[tuple[str, int]] = parent.recv()
        others = {}
        for peer in range(rank):
            others[peer] = Client(addresses[peer], authkey=key)
            others[peer].send_bytes(rank.to_bytes(4, "little"))
        while len(others) < count - 1:
            connection = listener.accept()
            others[int.from_bytes(connection.recv_bytes(4), "little")] = connection
    return [others[peer] for peer in sorted(others)]


def work(rank: int, count: int, setting: Setting, key: bytes, parent: Connection) -> None:
    """Replay the run as process ``rank`` of ``count``."""
    others = connect(rank, count, key, parent)
    es = begin(setting)
    first, last = share(rank, count, setting.n)
    pairs, values = np.empty(last - first, PAIR), np.empty(setting.n)
    if pairs.nbytes > LARGEST:
        raise ValueError(f"{last - first} rows in a process are {pairs.nbytes} bytes. Use more processes: {LARGEST}.")
    started = evaluating = 0.0
    for generation in range(setting.generations):
        if generation == 1:
            started, evaluating = time.perf_counter(), 0.0
        rows, seeds = es.population().rows(first, last), es.seeds
        began = time.perf_counter()
        for at, x in enumerate(rows):
            pairs[at] = first + at, evaluate(setting, x, int(seeds[first + at]))
        evaluating += time.perf_counter() - began
        for other in others:
            other.send_bytes(pairs)
        for got in (pairs, *(np.frombuffer(other.recv_bytes(LARGEST), PAIR) for other in others)):
            values[got["row"]] = got["value"]
        es.tell(values)
    generations = setting.generations - 1
    taken = (time.perf_counter() - started) / generations
    parent.send(Finished(digest(es), taken, evaluating / generations, pairs.nbytes * len(others)))
    parent.recv()  # everybody is done: nobody loses a connection that it still reads


@contextmanager
def one_thread() -> Iterator[None]:
    """Let processes that are started in the block have one thread each."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run(setting: Setting, count: int) -> list[Finished]:
    """Run ``count`` processes to the end and return what each measured.

    Raises
    ------
    RuntimeError  if they do not end in the bits of the serial run.
    """
    if setting.generations < 2 or setting.n < 2 * count or setting.n % 2:
        raise ValueError(f"{setting} on {count} processes: use two generations, and a pair of rows for each process.")
    context, key = multiprocessing.get_context("spawn"), os.urandom(32)
    pipes = [context.Pipe() for _ in range(count)]
    processes = [
        context.Process(target=work, args=(rank, count, setting, key, theirs), daemon=True)
        for rank, (_, theirs) in enumerate(pipes)
    ]
    try:
        with one_thread():
            for process in processes:
                process.start()
        for _, theirs in pipes:
            theirs.close()
        addresses = [own.recv() for own, _ in pipes]
        for own, _ in pipes:
            own.send(addresses)
        finished: list[Finished] = [own.recv() for own, _ in pipes]
        for own, _ in pipes:
            own.send(None)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
    if {one.digest for one in finished} != {serial(setting)}:
        raise RuntimeError(f"{count} processes and the serial run ended in different bits")
    return finished


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    for name, default in asdict(Setting(seconds=0.01)).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    arguments = vars(parser.parse_args())
    count = arguments.pop("workers")
    finished = run(Setting(**arguments), count)
    for rank, one in enumerate(finished):
        busy = one.evaluating / one.seconds
        print(f"process {rank}: {one.seconds:.4f} s a generation, {busy:.0%} of it evaluating, {one.sent} bytes sent")
    print(f"{count} processes and the serial run: the same bits ({finished[0].digest[:16]})")


if __name__ == "__main__":
    main()
