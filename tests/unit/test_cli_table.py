"""The command ``esopt table``: options with several values, what it prints where, going on, and errors."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from esopt.cli.app import app
from esopt.cli.tables import repeated
from esopt.rl import table

QUICK = ["--steps", "1500", "--final-episodes", "4"]


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["table", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--envs A B --seeds 3", "--envs A --envs B --seeds 3"),
        ("--envs A --envs B", "--envs A --envs B"),
        ("--seeds 3 --presets p q r --out f", "--seeds 3 --presets p --presets q --presets r --out f"),
        ("--envs --seeds 3", "--envs --seeds 3"),
        ("A --seeds 3 B", "A --seeds 3 B"),
        ("", ""),
    ],
)
def test_options_with_several_values(given, expected):
    assert repeated(given.split()) == expected.split()


def test_the_table_is_printed_and_goes_on(tmp_path):
    file = tmp_path / "runs.jsonl"
    one = ["--envs", "CartPole-v1", "--presets", "default", "ars", *QUICK, "--out", str(file)]
    status, out, told = run(*one, "--seeds", "1", "--first-seed", "5")
    assert status == 0
    assert [line.split(":")[0] for line in told.splitlines()] == [
        "CartPole-v1, default, seed 5",
        "CartPole-v1, ars, seed 5",
    ]

    status, out, told = run(*one, "--seeds", "2", "--first-seed", "4", "--workers", "1")
    assert status == 0
    assert [line.split(":")[0] for line in told.splitlines()] == [
        "CartPole-v1, default, seed 4",
        "CartPole-v1, ars, seed 4",
    ]
    assert out == f"{table('CartPole-v1', ['default', 'ars'], [4, 5], steps=1500, final_episodes=4, file=file)}\n"


def test_what_users_can_mend_is_one_message(tmp_path):
    status, out, told = run("--envs", "Cart", "--out", str(tmp_path / "runs.jsonl"))
    assert (status, out) == (2, "")
    assert told.startswith("esopt: no environment Cart is registered")
    assert run("--envs", "CartPole-v1", "--presets", "arss", "--out", str(tmp_path / "r"))[0] == 2
    assert run()[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def stop(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("esopt.rl.learning_table.train", stop)
    status, out, told = run("--envs", "CartPole-v1", *QUICK, "--out", str(tmp_path / "runs.jsonl"))
    assert (status, out) == (130, "")
    assert told == (
        f"esopt: interrupted; finished runs are in {tmp_path}/runs.jsonl, and the same command goes on from there.\n"
    )
