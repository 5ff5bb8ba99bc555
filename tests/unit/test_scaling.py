"""scripts/scaling.py and scripts/replay.py: predictions by hand, bytes on the wire, and the bits of a serial run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def scaling() -> Iterator[Any]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("scaling")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def free(scaling: Any) -> Any:
    """Constants of a machine where only evaluations take time."""
    return scaling.Constants(row=0.0, update=0.0, generation=0.0, task=0.0, latency=0.0, bandwidth=np.inf)


def test_nothing_else_takes_time(scaling: Any, free: Any) -> None:
    case = scaling.Case(workers=8, n=64, dim=1000, seconds=0.01)
    for plan in ("central", "replaying"):
        assert scaling.efficiency(plan, case, free) == pytest.approx(1.0, rel=1e-12)


def test_an_update_that_everybody_repeats_by_hand(scaling: Any, free: Any) -> None:
    case = scaling.Case(workers=4, n=64, dim=1000, seconds=0.01)
    constants = replace(free, row=2e-7, update=1e-6, generation=1e-3, latency=0.005, bandwidth=16_000.0, task=1e-3)
    # 16 rows of 10 ms + 0.2 ms; 5 ms; 3 messages of 1 ms + 16 rows of 1 ms; 1 ms + 64 ms.
    assert scaling.efficiency("replaying", case, constants) == pytest.approx(0.16 / (0.1632 + 0.005 + 0.051 + 0.065))
    crowded = replace(constants, cores=2)  # rows and update take twice as long
    assert scaling.efficiency("replaying", case, crowded) == pytest.approx(0.16 / (0.1664 + 0.005 + 0.051 + 0.130))


def test_a_master_is_bound_by_its_link_and_replaying_workers_are_not(scaling: Any, free: Any) -> None:
    constants = replace(free, bandwidth=1e6)
    case = scaling.Case(workers=64, n=256, dim=10_000, seconds=0.01)
    # 64 recipes of 80 kB at 1 MB/s: 5.12 s; then 4 evaluations of 10 ms in the last worker, and 16 bytes at a time.
    assert scaling.efficiency("central", case, constants) == pytest.approx(2.56 / (64 * 5.16), rel=1e-3)
    # 63 messages of 4 pairs: 4 ms.
    assert scaling.efficiency("replaying", case, constants) == pytest.approx(0.04 / (0.04 + 63 * 64e-6), rel=1e-9)


def test_unequal_times_cost_shares_more_than_a_queue(scaling: Any, free: Any) -> None:
    case = scaling.Case(workers=8, n=256, dim=10, seconds=0.01, spread=2.0)
    queue, shares = (scaling.efficiency(plan, case, free, generations=200) for plan in ("central", "replaying"))
    assert shares + 0.05 < queue < 1.0


def test_shares_are_whole_pairs_and_all_rows(scaling: Any) -> None:
    for count in (1, 2, 3, 5, 8):
        shares = [scaling.replay.share(rank, count, 26) for rank in range(count)]
        assert [first for first, _ in shares[1:]] == [last for _, last in shares[:-1]]
        assert (shares[0][0], shares[-1][1]) == (0, 26)
        assert all(first % 2 == 0 for first, _ in shares)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "dim"), [(2, 10), (3, 5000)])
def test_replaying_processes_end_in_the_bits_of_a_serial_run(scaling: Any, count: int, dim: int) -> None:
    replay = scaling.replay
    setting = replay.Setting(dim=dim, n=24, generations=5, seconds=0.001, spread=1.0, seed=3)
    finished = replay.run(setting, count)
    assert {one.digest for one in finished} == {replay.serial(setting)} != {replay.serial(replace(setting, seed=4))}
    # 16 bytes a row to each of the others, whatever the dimension.
    assert {one.sent for one in finished} == {16 * 24 // count * (count - 1)}


def test_settings_without_a_pair_for_each_process_are_refused(scaling: Any) -> None:
    with pytest.raises(ValueError, match="a pair of rows for each process"):
        scaling.replay.run(scaling.replay.Setting(n=4), 3)
