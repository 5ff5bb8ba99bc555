"""Disks that are full, folders that cannot be written any more: the run goes on, says so, and loses no old file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt.rl import Policy

ROOT = Path(__file__).parents[2]
X0 = np.ones(4)

# In a name space of its own, where it may mount a disk of 128 KiB, fill it, and make it read-only.
SCRIPT = """
import json, logging, os, subprocess, sys
import numpy as np
import esopt

disk, how = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=True)
path, lines, steps = os.path.join(disk, "run.npz"), [], []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("esopt").addHandler(handler)
x0 = np.ones(4)

def f(x):
    return float((x**2).sum())

def break_or_mend(step):
    steps.append(dict(step.failures))
    if how == "full":
        filler = os.path.join(disk, "filler")
        if step.generation in (5, 10):
            fill(filler)
        elif step.generation in (8, 13):
            os.unlink(filler)
    elif step.generation in (5, 8, 10, 13):
        mode = "ro" if step.generation in (5, 10) else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)

def fill(filler):
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            pass

def generation():
    es = esopt.Optimizer(esopt.CMAES(), x0, seed=1)
    es.load(path, esopt.Serial(f).init())
    return es.generation

kept = {}
def watch(step):
    break_or_mend(step)
    kept[step.generation] = generation()

run = dict(strategy=esopt.CMAES(), seed=1, checkpoint=path, checkpoint_seconds=0.0, final_evaluations=0)
result = esopt.minimize(f, x0, generations=12, callback=watch, **run)
print(json.dumps({"lines": lines, "steps": steps, "kept": kept, "failures": dict(result.failures),
                  "generations": result.generations, "files": sorted(os.listdir(disk)), "end": generation(),
                  "x": result.x.tobytes().hex()}))
"""


def can_mount() -> bool:
    command = ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs a name space with disks of its own")
@pytest.mark.parametrize(("how", "reason"), [("full", "No space left on device"), ("read-only", "Read-only file")])
def test_a_disk_that_is_full_or_read_only_costs_checkpoints_and_nothing_else(tmp_path, how: str, reason: str):
    command = ["unshare", "-Urm", sys.executable, "-c", SCRIPT, str(tmp_path), how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    alone = esopt.minimize(lambda x: float((x**2).sum()), X0, strategy=esopt.CMAES(), seed=1, generations=12)

    # Broken after the saves of generations 5 and 10, mended after 8: 6, 7, 8, 11 and 12 and the one at the end fail.
    assert found["failures"]["checkpoint"] == 6
    assert [step.get("checkpoint", 0) for step in found["steps"]] == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert list(found["kept"].values()) == [1, 2, 3, 4, 5, 5, 5, 5, 9, 10, 10, 10]
    assert found["end"] == 10
    assert len(found["lines"]) == 6
    assert all("cannot write the checkpoint" in line and reason in line for line in found["lines"])
    assert "run.npz is as it was at generation 5; the run goes on" in found["lines"][0]
    assert not any(name.endswith(".tmp") for name in found["files"])
    assert found["generations"] == alone.generations
    assert found["x"] == alone.x.tobytes().hex()


@pytest.mark.skipif(os.name != "posix", reason="needs file size limits")
def test_a_limit_on_file_sizes(tmp_path, caplog):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(step: esopt.Step) -> None:
        if step.generation == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    path = tmp_path / "run.npz"
    settings: dict[str, Any] = {"strategy": esopt.snes(), "checkpoint": path, "checkpoint_seconds": 0.0, "seed": 1}
    try:
        with caplog.at_level(logging.WARNING, "esopt"):
            result = esopt.minimize(bowl, X0, generations=6, callback=limit, **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    alone = esopt.minimize(bowl, X0, strategy=esopt.snes(), generations=6, seed=1)

    assert result.failures == {"checkpoint": 4}
    assert result.success
    assert "checkpoint: 4" in str(result)
    assert len(caplog.records) == 4
    assert sorted(os.listdir(tmp_path)) == ["run.npz", "run.npz.previous"]
    resumed = esopt.minimize(bowl, X0, generations=6, **settings)
    assert resumed.x.tobytes() == result.x.tobytes() == alone.x.tobytes()


def bowl(x: Any) -> float:
    return float((x**2).sum())


def test_a_history_that_cannot_be_written_is_counted_too(tmp_path, caplog, monkeypatch):
    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    def callback(step: esopt.Step) -> None:
        monkeypatch.setattr(esopt.History, "save", fail)

    with caplog.at_level(logging.WARNING, "esopt"):
        result = esopt.minimize(
            bowl, X0, strategy=esopt.snes(), generations=3, history=tmp_path / "h.npz", callback=callback
        )

    assert result.failures == {"history": 1}
    assert len(result.history) == 3
    assert "cannot write the history at generation 3 (No space left on device)" in caplog.text


def test_a_folder_that_is_missing_from_the_start_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        esopt.minimize(bowl, X0, checkpoint=tmp_path / "none" / "run.npz")


def test_devices_and_pipes_are_refused_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    es = esopt.Optimizer(esopt.snes(), X0)
    with pytest.raises(OSError, match="over a device or a pipe"):
        es.save(pipe)
    with pytest.raises(ValueError, match="is a pipe or a device"):
        es.load(pipe)
    with pytest.raises(ValueError, match="is a device or a pipe"):
        esopt.minimize(bowl, X0, checkpoint=pipe)
    with pytest.raises(OSError, match="over a device"):
        es.save("/dev/null")
    with pytest.raises(ValueError, match="is a pipe or a device"):
        Policy.load("/dev/zero")
    assert not Path("/dev/null").is_file()
