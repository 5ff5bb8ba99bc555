"""Event files for TensorBoard, read back record by record."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import esopt
from esopt.cli.app import app
from esopt.rl import TensorBoard, read_progress, train
from esopt.rl.tensorboard import TAGS

NEEDED = pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed")
SMALL = dict(strategy=esopt.ars(n=4), check_every=2, check_episodes=2, final_episodes=2, seed=1)


def events(folder: Path) -> list:
    """The events of all files of a folder: records of length (uint64), its checksum, data, their checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + size]))
            at += size + 16
    return found


def curve(folder: Path, tag: str) -> tuple[list[int], list[float]]:
    """Steps and values of a curve, without those that an event says to drop."""
    points: dict[int, float] = {}
    for event in events(folder):
        if event.HasField("session_log"):
            points = {step: value for step, value in points.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == tag:
                assert event.step not in points
                points[event.step] = value.simple_value
    return list(points), list(points.values())


@NEEDED
def test_every_generation_is_a_point_against_steps(tmp_path):
    with TensorBoard(tmp_path / "deep" / "events") as board:
        run = train("CartPole-v1", generations=5, callback=board, **SMALL)
    steps = run.history["steps"] + run.history["check_steps"]

    for name, tag in TAGS.items():
        known = np.isfinite(run.history[name])
        assert known.any()
        at, values = curve(board.folder, tag)
        assert at == steps[known].tolist()
        np.testing.assert_allclose(values, run.history[name][known], rtol=1e-6)
    assert len(curve(board.folder, "return/centre")[0]) == 3
    at, rates = curve(board.folder, "search/steps_per_second")
    np.testing.assert_allclose(rates, steps / run.history["seconds"], rtol=1e-6)
    assert all(event.wall_time > 1e9 for event in events(board.folder))


@NEEDED
def test_what_a_resumed_run_repeats_is_dropped(tmp_path):
    settings = dict(out=tmp_path, **SMALL)
    with TensorBoard(tmp_path) as board:
        train("CartPole-v1", generations=3, callback=board, **settings)
    checkpoint = (tmp_path / "checkpoint.npz").read_bytes()
    with TensorBoard(tmp_path) as board:
        train("CartPole-v1", generations=6, callback=board, resume=True, **settings)
    (tmp_path / "checkpoint.npz").write_bytes(checkpoint)
    with TensorBoard(tmp_path) as board:
        train("CartPole-v1", generations=5, callback=board, resume=True, **settings)
    once = tmp_path / "once"
    with TensorBoard(once) as board:
        train("CartPole-v1", generations=5, callback=board, **SMALL)

    assert len(events(tmp_path)) > len(events(once)) + 3 * len(TAGS)
    assert curve(tmp_path, "return/candidates") == curve(once, "return/candidates")
    assert len(curve(once, "return/candidates")[0]) == 5


@NEEDED
def test_the_command_line_writes_it(tmp_path):
    arguments = ["train", "--generations", "3", "--final-episodes", "2", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, "--tensorboard", str(tmp_path / "events")])

    assert (done.exit_code, done.stderr) == (0, "")
    history = read_progress(tmp_path / "progress.csv")
    assert curve(tmp_path / "events", "search/generation")[1] == [1.0, 2.0, 3.0]
    assert curve(tmp_path / "events", "search/generation")[0] == (history["steps"] + history["check_steps"]).tolist()

    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, [*arguments, "--tensorboard", str(tmp_path / "file")])
    assert (done.exit_code, "--tensorboard" in done.stderr) == (2, True)


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("esopt.rl.tensorboard.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \"pyesopt\[tensorboard\]\""):
        TensorBoard(tmp_path)
    done = CliRunner().invoke(app, ["train", "--out", str(tmp_path / "x"), "--tensorboard", str(tmp_path / "y")])
    assert (done.exit_code, "pyesopt[tensorboard]" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
