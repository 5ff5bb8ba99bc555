"""``esopt inspect``: what a file is, whoever wrote it; a damaged one is a clear error and status 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from typer.testing import CliRunner

import esopt
from esopt import checkpoint
from esopt._archive import archiving, write_member
from esopt._inspect import inspect
from esopt.cli.app import app
from esopt.rl import Policy

X0 = np.array([1.0, -2.0])


def bowl(x: Any) -> float:
    return float("nan") if x[0] > 1.2 else float((x**2).sum())


def run(path: Path, **settings: Any) -> esopt.Result:
    return esopt.minimize(
        bowl, X0, strategy=esopt.Restarts(esopt.CMAES(sigma=0.25)), seed=3, checkpoint=path, generations=9, **settings
    )


def command(*paths: Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["inspect", *map(str, paths)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_an_asynchronous_run_says_how_far_it_got(tmp_path):
    path = tmp_path / "run.npz"
    esopt.minimize(bowl, X0, strategy=esopt.CMAES(n=6), generations=9, checkpoint=path, mode="async")
    status, out, _ = command(path)
    lines = {" ".join(line.split()) for line in out.splitlines()}

    assert status == 0
    assert "asynchronous run, format" in out
    assert {"generation 9", "evaluations 54"} <= lines


def test_a_run_says_what_it_is_and_how_far_it_got(tmp_path):
    path = tmp_path / "run.npz"
    result = run(path)
    status, out, error = command(path)
    lines = {" ".join(line.split()) for line in out.splitlines()}
    told = esopt.Optimizer(esopt.Restarts(esopt.CMAES(sigma=0.25)), X0, seed=3)
    told.load(path, esopt.Serial(bowl).init())

    assert (status, error) == (0, "")
    assert f"run, format {checkpoint.FORMAT_VERSION}" in out
    assert f"written by esopt {esopt.__version__}, numpy {np.__version__}" in out
    expected = {
        "checksum right",
        "generation 9",
        f"evaluations {told.progress.evaluations}",
        "strategy.inner.sigma = 0.25",
    }
    expected |= {f"best_value {told.progress.best_value:.10g}", f"failures nan: {result.failures['nan']}", "seed = 3"}
    expected |= {"strategy = Restarts", "x0 = [1.0, -2.0] of shape (2,)"}
    assert expected <= lines
    assert inspect(path).progress["generation"] == 9


def test_a_history_and_a_policy_and_the_folder_of_a_run(tmp_path):
    run(tmp_path / "checkpoint.npz", history=tmp_path / "history.npz")
    policy = Policy.mlp(3).for_spaces(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
    policy.save(tmp_path / "policy.npz")
    status, out, _ = command(tmp_path, tmp_path / "history.npz")

    assert status == 0
    kinds = [line.partition(": ")[2].partition(",")[0] for line in out.splitlines() if line.startswith(str(tmp_path))]
    assert kinds == ["run", "policy", "history"]
    assert "hidden        [3]" in out


def test_a_newer_format_is_read_as_far_as_its_header_goes(tmp_path):
    path = tmp_path / "run.npz"
    header = {"format": 99, "kind": "run of tomorrow", "versions": {"esopt": "9.0"}, "tree": ["a", "new", "way"]}
    with archiving(str(path), "a file") as archive:
        write_member(archive, "esopt-header", np.frombuffer(json.dumps(header).encode(), np.uint8))
        write_member(archive, "something", np.zeros(1000))
    status, out, _ = command(path)

    assert status == 0
    assert "run of tomorrow, format 99" in out
    assert "written by esopt 9.0" in out
    assert "7.9 KiB  something" in out


def test_files_without_a_checksum_are_those_of_an_early_version(tmp_path):
    path = tmp_path / "run.npz"
    header = {"format": 1, "kind": "run", "versions": {"esopt": "0.0.1"}}
    np.savez(path, **{"esopt-header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    assert "none: written by an early version" in command(path)[1]

    header["format"] = 2
    np.savez(path, **{"esopt-header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    assert command(path)[0] == 1


@pytest.mark.parametrize("at", [0, 200, 900, -1])
def test_a_damaged_file_is_status_1_and_the_others_are_shown(tmp_path, at: int):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    run(good)
    whole = bytearray(good.read_bytes())
    whole[at] ^= 64
    bad.write_bytes(whole)
    status, out, error = command(bad, good)

    assert status == 1
    assert "good.npz: run" in out
    assert "bad.npz is damaged, or esopt did not write it: " in error
    assert "bad.npz.previous if there is one" in error
    assert "Traceback" not in error


def test_what_is_not_there(tmp_path):
    assert command(tmp_path / "none.npz")[0] == 2
    status, _, error = command(tmp_path)
    assert (status, "there is no checkpoint.npz" in error) == (2, True)
