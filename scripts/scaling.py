"""How far a run spreads: a simulator of two plans, fed by measured constants, and what local processes really do.

The central plan: a master sends recipes (the mean and the scale, 8 d bytes each) and gets values back. The replaying
plan (scripts/replay.py): everybody holds the optimizer, evaluates a share and tells the others (row, value), 16 bytes a
candidate. In both, the update costs the same time, once per generation; the plans differ in what travels.

Efficiency is the time of all evaluations over workers x time of the generation: 1 if nothing else took time.

Run it in the environment that scripts/run makes: .venv/bin/python scripts/scaling.py --save
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import replay

import esopt

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"


@dataclass(frozen=True)
class Constants:
    """Seconds and bytes: of one row and coordinate, of one generation, of one task, of one message and of the network.

    ``cores``: processors that all workers of a machine share, None where each has its own.
    """

    row: float
    update: float
    generation: float
    task: float
    latency: float
    bandwidth: float
    cores: int | None = None


@dataclass(frozen=True)
class Case:
    """A run: ``n`` rows in ``dim`` coordinates, evaluations of ``seconds`` with relative ``spread``, on ``workers``."""

    workers: int
    n: int
    dim: int
    seconds: float
    spread: float = 0.0


def efficiency(plan: str, case: Case, constants: Constants, generations: int = 20, seed: int = 1) -> float:
    """Return the predicted efficiency of the ``plan``, "central" or "replaying"."""
    draw = np.random.default_rng(seed)
    width = np.sqrt(np.log1p(case.spread**2))
    simulate = {"central": central, "replaying": replaying}[plan]
    useful = spent = 0.0
    for _ in range(generations):
        times = case.seconds * np.exp(width * draw.standard_normal(case.n) - 0.5 * width**2)
        useful += float(times.sum())
        spent += simulate(case, constants, times)
    return useful / (case.workers * spent)


def crowd(case: Case, constants: Constants) -> float:
    """Return how much longer a computation takes if all workers do it at once on the same processors."""
    return 1.0 if constants.cores is None else max(1.0, case.workers / constants.cores)


def central(case: Case, constants: Constants, times: np.ndarray, per_worker: int = 4) -> float:
    """Return the seconds of a generation with a master, whose one link sends every task and hears every answer."""
    tasks = np.array_split(times, min(case.n, per_worker * case.workers))
    row = case.dim * constants.row * crowd(case, constants)
    recipe = 8.0 * case.dim / constants.bandwidth
    link, free, known = 0.0, [(0.0, worker) for worker in range(case.workers)], set[int]()
    ready = [0.0] * case.workers
    end = 0.0
    for task in tasks:
        # The master sends when a worker has room for one more task in its queue: two of them, one in progress.
        asked, worker = heapq.heappop(free)
        link = max(link, asked) + constants.task + (0.0 if worker in known else recipe)
        known.add(worker)
        start = max(ready[worker], link + constants.latency)
        heapq.heappush(free, (start + constants.latency, worker))
        ready[worker] = start + row * len(task) + float(task.sum())
        end = max(end, ready[worker] + constants.latency + 16.0 * len(task) / constants.bandwidth)
    return end + constants.generation + case.n * case.dim * constants.update


def replaying(case: Case, constants: Constants, times: np.ndarray) -> float:
    """Return the seconds of a generation without a master: the slowest share, pairs to and from all, the update."""
    row = case.dim * constants.row * crowd(case, constants)
    slowest = max(float(part.sum()) + row * len(part) for part in np.array_split(times, case.workers))
    pairs = (case.workers - 1) * (constants.task + 16.0 * case.n / case.workers / constants.bandwidth)
    update = (constants.generation + case.n * case.dim * constants.update) * crowd(case, constants)
    return slowest + (constants.latency + pairs if case.workers > 1 else 0.0) + update


def median(call: Callable[[], object], repeats: int = 7) -> float:
    """Return the median CPU seconds of a call, which other work disturbs less; the first one is left out."""
    call()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def measure(dim: int, n: int) -> Constants:
    """Return the constants of this machine for runs of about ``n`` rows and ``dim`` coordinates."""
    values = np.arange(n, dtype=float)
    wide, narrow = (replay.begin(replay.Setting(dim=size, n=n)) for size in (dim, 10))
    few = np.empty((min(n, 16), dim))
    rows = median(lambda: wide.population().rows(0, len(few), few)) / few.size
    fixed = median(lambda: narrow.tell(values), 101)
    update = max(median(lambda: wide.tell(values)) - fixed, 0.0) / (n * dim)
    latency, bandwidth, message = network()
    return Constants(rows, update, fixed, message, latency, bandwidth)


def network(size: int = 1 << 24, messages: int = 300) -> tuple[float, float, float]:
    """Return seconds one way, bytes a second, and seconds of a small message to its sender, over 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_echo, args=(server, size, messages))
        thread.start()
        with socket.create_connection(server.getsockname()) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            trips, sends = [], []
            for _ in range(messages):
                began = time.perf_counter()
                link.sendall(b"x" * 16)
                sends.append(time.perf_counter() - began)
                link.recv(16)
                trips.append(time.perf_counter() - began)
            began = time.perf_counter()
            link.sendall(bytes(size))
            link.recv(1)
            bandwidth = size / (time.perf_counter() - began)
        thread.join()
    return statistics.median(trips) / 2.0, bandwidth, statistics.median(sends)


def _echo(server: socket.socket, size: int, messages: int) -> None:
    link, _ = server.accept()
    with link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(messages):
            link.sendall(link.recv(16))
        buffer, got = bytearray(1 << 20), 0
        while got < size:
            got += link.recv_into(buffer)
        link.sendall(b"x")


def measured(case: Case, generations: int) -> dict[str, Any]:
    """Return the efficiency of replaying processes on this machine, and the bytes that one sends in a generation.

    They end in the bits of the serial run, or :func:`replay.run` raises.
    """
    setting = replay.Setting(case.dim, case.n, generations, case.seconds, case.spread)
    finished = replay.run(setting, case.workers)
    useful = sum(one.evaluating for one in finished)
    return {
        "efficiency": useful / sum(one.seconds for one in finished),
        "evaluation_seconds": useful / case.n,
        "bytes_sent_per_worker": max(one.sent for one in finished),
    }


def local(cores: int, generations: int, cases: list[Case]) -> list[dict[str, Any]]:
    """Return predicted and measured efficiency of replaying processes on this machine."""
    found = []
    for case in cases:
        constants = replace(measure(case.dim, case.n), cores=cores)
        real = measured(case, generations)
        told = replace(case, seconds=real["evaluation_seconds"])  # a sleep takes longer than it was told
        predicted = efficiency("replaying", told, constants)
        found.append({**asdict(case), "predicted": predicted, "measured": real, "constants": asdict(constants)})
        print(f"{case}: predicted {predicted:.2f}, measured {real['efficiency']:.2f}", flush=True)
    return found


def plan(constants: Constants, per_worker: int = 4) -> list[dict[str, Any]]:
    """Return predicted efficiencies of both plans for clusters of one core per worker, ``per_worker`` rows each."""
    found = []
    for dim in (1_000, 100_000, 1_000_000):
        for seconds in (0.01, 1.0, 100.0):
            for workers in (8, 64, 512, 4096):
                case = Case(workers, per_worker * workers, dim, seconds, spread=0.3)
                both = {name: efficiency(name, case, constants, 5) for name in ("central", "replaying")}
                found.append({**asdict(case), **both})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the predictions as Markdown: a line per dimension and time, central / replaying per number of workers."""
    workers = sorted({row["workers"] for row in rows})
    lines = ["| d | evaluation | " + " | ".join(f"{count} workers" for count in workers) + " |"]
    lines.append("|" + " --- |" * (2 + len(workers)))
    cells = {(row["dim"], row["seconds"], row["workers"]): row for row in rows}
    for dim, seconds in dict.fromkeys((row["dim"], row["seconds"]) for row in rows):
        there = [cells[dim, seconds, count] for count in workers]
        both = [f"{row['central']:.2f} / {row['replaying']:.2f}" for row in there]
        lines.append(f"| {dim:,} | {seconds:g} s | " + " | ".join(both) + " |")
    return "\n".join(lines)


def report(content: dict[str, Any]) -> str:
    """Return what docs/scaling.md says of a results file."""
    here, network = Constants(**content["constants"]), content["network"]
    shares = sorted({(row["dim"], row["seconds"]) for row in content["local"]})
    counts = sorted({row["workers"] for row in content["local"]})
    cells = {(row["dim"], row["seconds"], row["workers"]): row for row in content["local"]}
    lines = ["| d | evaluation | " + " | ".join(f"{count} processes" for count in counts) + " |"]
    lines.append("|" + " --- |" * (2 + len(counts)))
    for dim, seconds in shares:
        there = [cells[dim, seconds, count] for count in counts]
        both = [f"{row['predicted']:.2f} / {row['measured']['efficiency']:.2f}" for row in there]
        lines.append(f"| {dim:,} | {seconds:g} s | " + " | ".join(both) + " |")
    about = content["fingerprint"]
    return f"""
Predicted / measured efficiency of replaying processes on this machine, 64 rows; evaluations sleep, so only rows and
updates need the {content["cores"]} processors. Every run ended in the bits of a serial run.
{about["processor"]}, {about["date"]}, load before the run {content["load"]:.0f}; the prediction knows nothing of other
work.

{chr(10).join(lines)}

With the CPU seconds measured at d = 100,000 and n = 256, a = {1e9 * here.row:.1f} ns and
u = {1e9 * here.update:.1f} ns, and a network assumed to have {1e6 * network["latency"]:.0f} µs and
{8e-9 * network["bandwidth"]:.0f} Gbit/s: predicted efficiency, master / replaying, for four rows per worker, one
processor each, and a spread of evaluation times of 30 %. (The slowest worker alone limits that.)

{table(content["planned"])}

T = W · d · u for 1,000 workers and d = 1,000,000 is {1e9 * here.update:.1f} s.
"""


def write_page(content: dict[str, Any]) -> None:
    """Put :func:`report` between its marks in docs/scaling.md."""
    page = ROOT / "docs" / "scaling.md"
    before, begin, rest = page.read_text("utf-8").partition("<!-- measured -->\n")
    _, end, after = rest.partition("<!-- end of measured -->")
    if not begin or not end:
        raise SystemExit("docs/scaling.md has lost its two marks: put them back.")
    page.write_text(f"{before}{begin}{report(content)}\n{end}{after}", "utf-8")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2, help="processors of this machine that the processes share")
    parser.add_argument("--generations", type=int, default=11)
    parser.add_argument("--latency", type=float, default=50e-6, help="of the network that is planned for, seconds")
    parser.add_argument("--bandwidth", type=float, default=1.25e9, help="of that network, bytes a second")
    parser.add_argument("--quick", action="store_true", help="two local runs, to see that it works")
    parser.add_argument("--replan", action="store_true", help="measure constants and predict again, for the saved runs")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    sizes = [(1_000, 0.02), (1_000, 0.002), (100_000, 0.02), (100_000, 0.1)]
    cases = [Case(count, 64, dim, seconds) for dim, seconds in sizes for count in (1, 2, 4, 8)]
    if arguments.quick:
        cases = [Case(2, 16, 100, 0.005), Case(4, 16, 100, 0.005)]
    if arguments.replan:
        content = json.loads(RESULTS.read_text("utf-8"))
        here = measure(100_000, 256)
        network = {"latency": arguments.latency, "bandwidth": arguments.bandwidth}
        content |= {"constants": asdict(here), "network": network, "cores": arguments.cores}
        content["planned"] = plan(replace(here, **network))
        for row in content["local"]:
            constants = replace(measure(row["dim"], row["n"]), cores=arguments.cores)
            told = Case(row["workers"], row["n"], row["dim"], row["measured"]["evaluation_seconds"], row["spread"])
            row |= {"predicted": efficiency("replaying", told, constants), "constants": asdict(constants)}
        _save(content)
        return
    load = os.getloadavg()[0]
    found = local(arguments.cores, arguments.generations, cases)
    here = measure(100_000, 256)
    network = replace(here, latency=arguments.latency, bandwidth=arguments.bandwidth)
    planned = plan(network)
    print(table(planned))
    if arguments.save and not arguments.quick:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        from _bench import fingerprint

        content = {
            "name": "scaling",
            "constants": asdict(here),
            "cores": arguments.cores,
            "load": load,
            "network": {"latency": arguments.latency, "bandwidth": arguments.bandwidth},
            "local": found,
            "planned": planned,
            "fingerprint": {**fingerprint(), "esopt": esopt.__version__},
        }
        _save(content)


def _save(content: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_page(content)
    print(f"wrote {RESULTS.relative_to(ROOT)} and docs/scaling.md")


if __name__ == "__main__":
    main()
