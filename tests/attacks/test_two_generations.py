"""Two generations of a checkpoint: the one before is kept, and used, aloud, where the newest is damaged."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import checkpoint

X0 = np.array([1.0, -2.0, 0.5])
SETTINGS: dict[str, Any] = {"strategy": esopt.CMAES(), "seed": 3}


def bowl(x: Any) -> float:
    return float((x**2 * np.array([1.0, 10.0, 100.0])).sum())


def optimizer(generations: int = 0) -> esopt.Optimizer:
    es = esopt.Optimizer(esopt.CMAES(), X0, seed=3)
    for _ in range(generations):
        es.tell([bowl(x) for x in es.ask()])
    return es


def generation(path: Path) -> int:
    es = optimizer()
    es.load(path)
    return es.generation


def run(path: Path, generations: int) -> esopt.Result:
    return esopt.minimize(bowl, X0, generations=generations, checkpoint=path, checkpoint_seconds=0.0, **SETTINGS)


def test_the_one_before_is_kept(tmp_path):
    run(tmp_path / "run.npz", 5)

    assert sorted(os.listdir(tmp_path)) == ["run.npz", "run.npz.previous"]
    assert generation(tmp_path / "run.npz") == 5
    assert generation(tmp_path / "run.npz.previous") == 4


DAMAGE = {
    "a flipped byte": lambda path, whole: path.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:]),
    "cut": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "empty": lambda path, whole: path.write_bytes(b""),
    "other contents": lambda path, whole: path.write_bytes(bytes(len(whole))),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_newest_file_costs_one_generation_and_no_bit(tmp_path, caplog, how: str):
    path = tmp_path / "run.npz"
    run(path, 5)
    before = path.read_bytes()
    DAMAGE[how](path, before)
    with caplog.at_level(logging.WARNING, "esopt"):
        assert generation(path) == 4
    (record,) = caplog.records
    assert "run.npz is damaged" in record.getMessage()
    assert record.getMessage().endswith("Went back to the checkpoint before it, run.npz.previous.")

    resumed, alone = run(path, 9), run(tmp_path / "alone.npz", 9)
    assert resumed.x.tobytes() == alone.x.tobytes()
    assert resumed.evaluations == alone.evaluations


def test_a_damaged_file_never_takes_the_place_of_the_good_one(tmp_path):
    path = tmp_path / "run.npz"
    optimizer(1).save(path)
    optimizer(2).save(path)
    path.write_bytes(path.read_bytes()[:-9])
    optimizer(3).save(path)

    assert generation(path) == 3
    assert generation(tmp_path / "run.npz.previous") == 1


def test_both_damaged_is_an_error_that_names_both(tmp_path):
    path = tmp_path / "run.npz"
    run(path, 3)
    for name in os.listdir(tmp_path):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(esopt.CheckpointError, match=r"(?s)run.npz is damaged.*run.npz.previous is damaged"):
        optimizer().load(path)


def test_another_configuration_is_refused_and_not_passed_over(tmp_path):
    path = tmp_path / "run.npz"
    run(path, 3)
    with pytest.raises(esopt.CheckpointError, match="seed: 3 in the file, 4 here"):
        esopt.Optimizer(esopt.CMAES(), X0, seed=4).load(path)


def test_a_run_whose_file_was_removed_begins_anew_aloud(tmp_path, caplog):
    path = tmp_path / "run.npz"
    run(path, 3)
    path.unlink()
    with caplog.at_level(logging.WARNING, "esopt"):
        result = run(path, 2)

    assert result.generations == 2
    assert "there is no" in caplog.text
    assert generation(tmp_path / "run.npz.previous") == 1  # of the new run


@pytest.mark.parametrize("fails", [False, True], ids=["copied", "neither linked nor copied"])
def test_a_file_system_without_links(tmp_path, monkeypatch, fails: bool):
    def no(*arguments: Any, **settings: Any) -> None:
        raise OSError("not here")

    monkeypatch.setattr(os, "link", no)
    if fails:
        monkeypatch.setattr(shutil, "copyfile", no)
    run(tmp_path / "run.npz", 4)

    assert generation(tmp_path / "run.npz") == 4
    assert sorted(os.listdir(tmp_path)) == (["run.npz"] if fails else ["run.npz", "run.npz.previous"])


def test_saving_twice_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "run.npz"
    for count in (1, 2, 3):
        optimizer(count).save(path)
        os.replace(path, tmp_path / "moved")
        os.link(tmp_path / "moved", path)  # the previous one may be a link to the newest
        os.unlink(tmp_path / "moved")
        (tmp_path / "run.npz.previous").unlink(missing_ok=True)
        os.link(path, tmp_path / "run.npz.previous")
    optimizer(4).save(path)

    assert sorted(os.listdir(tmp_path)) == ["run.npz", "run.npz.previous"]
    assert (generation(path), generation(tmp_path / "run.npz.previous")) == (4, 3)


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    names = [f".run.npz.{character * 16}.tmp" for character in "abc"]
    other = ".run.npz.notours.tmp"
    for name in (*names, other):
        (tmp_path / name).write_bytes(b"half")
    with open(tmp_path / names[1], "rb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        checkpoint.save(tmp_path / "run.npz", 1, configuration=None)
        assert sorted(os.listdir(tmp_path)) == sorted([names[1], other, "run.npz"])
    checkpoint.save(tmp_path / "run.npz", 1, configuration=None)
    assert sorted(os.listdir(tmp_path)) == sorted([other, "run.npz"])
