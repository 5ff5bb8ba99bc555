"""Files of an enemy: refused in words, in bounded memory, and nothing is written or run."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import checkpoint
from esopt._archive import archiving, write_member
from esopt._inspect import inspect
from esopt.rl import Policy

ROOT = Path(__file__).parents[2]
HEADERS = {"checkpoint": "esopt-header", "history": "esopt-header", "policy": "header"}

# Loads in a process that may take 256 MiB more than what the imports took; prints the error and what it took.
LOAD = """
import os, resource, sys
import numpy as np
import esopt
from esopt import checkpoint
from esopt.rl import Policy
from esopt.cli.inspection import report
from pathlib import Path

def resident(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

reader, path = sys.argv[1:]
load = {
    "checkpoint": lambda: checkpoint.load(path, {"mean": np.zeros(3)}, configuration=None),
    "history": lambda: esopt.History.load(path),
    "policy": lambda: Policy.load(path),
    "inspect": lambda: report(Path(path)),
}[reader]
taken = resident("VmSize")
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, taken + 2**28))
before = resident("VmHWM")
try:
    print("loaded", load())
except (esopt.EsoptError, ValueError) as error:
    print(type(error).__name__, str(error).replace("\\n", " "))
print(resident("VmHWM") - before)
"""


def load(reader: str, path: Path) -> tuple[str, int]:
    """What loading said, and the bytes that it took."""
    command = [sys.executable, "-c", LOAD, reader, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said, taken = done.stdout.splitlines()
    return said, int(taken)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=(1, 0))
    return file.getvalue()


def head(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method, allowZip64=True) as archive:
        for name, data in members:
            archive.writestr(name, data)


def header(reader: str) -> bytes:
    """A header that would be right, for a tree or a policy of arrays that are not."""
    policy = {"format": "esopt policy", "version": 2, "hidden": [], "activation": "tanh", "about": {}}
    policy |= {"observations": {"kind": "array", "shape": [2]}, "actions": {"kind": "discrete", "n": 2, "start": 0}}
    run = {"format": 1, "noise": 1, "kind": reader if reader == "history" else "run", "versions": {"esopt": "1"}}
    run |= {"configuration": "history" if reader == "history" else None}
    run |= {"tree": {"dict": {"mean": {"array": "mean"}}}}
    return npy(np.frombuffer(json.dumps(policy if reader == "policy" else run).encode(), np.uint8))


def own(reader: str) -> tuple[str, bytes]:
    return f"{HEADERS[reader]}.npy", header(reader)


def bomb(reader: str, path: Path) -> None:
    write(path, [own(reader), ("mean.npy", head((2**24,)) + bytes(2**27))], zipfile.ZIP_DEFLATED)


def bomb_of_a_header(reader: str, path: Path) -> None:
    write(path, [(own(reader)[0], head((2**26,), "|u1") + b" " * 2**26)], zipfile.ZIP_DEFLATED)


def huge_shape(reader: str, path: Path) -> None:
    write(path, [own(reader), ("mean.npy", head((2**40,)) + bytes(24))])


def overflowing_shape(reader: str, path: Path) -> None:
    write(path, [own(reader), ("mean.npy", head((2**32, 2**32)) + bytes(24))])


def huge_size(reader: str, path: Path) -> None:
    """Sizes of 2 GiB in the directory and in front of the member, in a small file."""
    write(path, [own(reader), ("mean.npy", head((2**28,)) + bytes(24))])
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x01\x02", 20), (b"PK\x03\x04", 18)):
        place = data.rindex(mark)
        data[place + at : place + at + 8] = struct.pack("<II", 2**31 - 1, 2**31 - 1)
    path.write_bytes(data)


def twice(reader: str, path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        write(path, [own(reader), ("mean.npy", npy(np.zeros(3))), ("mean.npy", npy(np.ones(3)))])


def outside(reader: str, path: Path) -> None:
    write(path, [own(reader), ("../../escaped.npy", npy(np.zeros(3))), ("/tmp/escaped.npy", npy(np.zeros(3)))])


def objects(reader: str, path: Path) -> None:
    pickled = b"cos\nsystem\n(S'touch escaped.npy'\ntR."
    write(path, [own(reader), ("mean.npy", head((1,), "|O") + pickled)])


def pickled_header(reader: str, path: Path) -> None:
    write(path, [(own(reader)[0], head((1,), "|O") + b"cos\nsystem\n(S'touch escaped.npy'\ntR.")])


def crowd(reader: str, path: Path) -> None:
    """Two hundred thousand members without contents: a directory that is small beside what a reader makes of it."""
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 4) + bytes(16)
    directory = b"".join(entry + struct.pack("<I", i) for i in range(200_000))
    record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 200_000, 200_000, len(directory), 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(directory), 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(directory + record + locator + end)


def hidden_crowd(reader: str, path: Path) -> None:
    """The same, with a small number in the place where a careless check looks."""
    crowd(reader, path)
    data = path.read_bytes()
    path.write_bytes(data[:-22] + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 50, 0, 0))


def deep(reader: str, path: Path) -> None:
    write(path, [(own(reader)[0], npy(np.frombuffer(b"[" * 10**6, np.uint8)))])


def nested_shape(reader: str, path: Path) -> None:
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': " + b"-" * 9000 + b"1}"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + bytes(24)
    write(path, [own(reader), ("mean.npy", member)])


def digits(reader: str, path: Path) -> None:
    write(path, [(own(reader)[0], npy(np.frombuffer(b"9" * 10**6, np.uint8)))])


def expression(reader: str, path: Path) -> None:
    text = b"__import__('os').system('touch escaped.npy')"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + bytes(24)
    write(path, [own(reader), ("mean.npy", member)])


ATTACKS = [bomb, bomb_of_a_header, huge_shape, overflowing_shape, huge_size, twice, outside, objects, pickled_header]
ATTACKS += [crowd, hidden_crowd, deep, nested_shape, digits, expression]


def refusal(reader: str, path: Path) -> str:
    load = {
        "checkpoint": lambda: checkpoint.load(path, {"mean": np.zeros(3)}, configuration=None),
        "history": lambda: esopt.History.load(path),
        "policy": lambda: Policy.load(path),
    }[reader]
    with pytest.raises(esopt.EsoptError) as caught:
        load()
    return str(caught.value)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("reader", HEADERS)
def test_is_refused_in_words_and_nothing_is_written(tmp_path, monkeypatch, reader: str, attack: Any):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.npz"
    attack(reader, path)
    message = refusal(reader, path)

    assert path.name in message
    assert "Restore it from a copy" in message or "restore it from a copy" in message or "Load it with" in message
    assert os.listdir(tmp_path) == ["run.npz"]
    assert not Path("/tmp/escaped.npy").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("attack", [bomb, crowd], ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("reader", ["checkpoint", pytest.param("policy", marks=pytest.mark.slow)])
def test_costs_little_memory(tmp_path, reader: str, attack: Any):
    path = tmp_path / "run.npz"
    attack(reader, path)
    said, taken = load(reader, path)

    assert "Error run.npz is " in said or f"Error {path} is " in said
    assert taken < 2**26


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("reader", [*HEADERS, "inspect"])
def test_costs_little_memory_whatever_it_is(tmp_path, reader: str, attack: Any):
    path = tmp_path / "run.npz"
    attack("checkpoint" if reader == "inspect" else reader, path)
    said, taken = load(reader, path)

    assert "Error" in said or reader == "inspect"
    assert taken < 2**28


def test_a_right_checksum_makes_nothing_else_right(tmp_path):
    """Anyone can compute it: it is against accidents, and everything else is still checked."""
    path = tmp_path / "run.npz"
    with archiving(str(path), "a forgery") as archive:
        text = np.frombuffer(json.dumps({"format": 1, "noise": 1}).encode(), np.uint8)
        write_member(archive, "esopt-header", text)
        archive.writestr("../escaped.npy", npy(np.zeros(3)))

    assert "it lacks 'versions'" in refusal("checkpoint", path)


def test_more_arrays_than_can_be_read_are_not_written(tmp_path):
    tree = {f"a name that is rather long, of array number {i}": np.zeros(0) for i in range(35_000)}
    with pytest.raises(ValueError, match="35001 arrays"):
        checkpoint.save(tmp_path / "run.npz", tree, configuration=None)
    assert os.listdir(tmp_path) == []


def test_names_do_not_reach_the_terminal_as_they_are(tmp_path, capsys):
    from esopt.cli.inspection import inspect as command

    path = tmp_path / "run.npz"
    checkpoint.save(path, {"\x1b[2J": np.zeros(3)}, configuration={"class": "\x1b]0;title\x07"}, kind="\x1b[31m")

    assert command([path]) == 0
    assert "\x1b" not in (out := capsys.readouterr().out)
    assert "x1b" in out
    assert inspect(path).kind == "\x1b[31m"


def history(path: Path, **changes: Any) -> None:
    """A history with other arrays than belong together, with a right checksum."""
    kept = esopt.History(path=path)
    esopt.minimize(lambda x: float(x @ x), np.ones(3), strategy=esopt.snes(), generations=4, history=path)
    trace = esopt.History.load(path).trace
    for name, value in changes.items():
        object.__setattr__(trace, name, value)
    checkpoint.save(path, trace, configuration="history", kind="history")
    del kept


HISTORIES: dict[str, dict[str, Any]] = {
    "names no JSON": {"names": "["},
    "names no list": {"names": "3"},
    "names no text": {"names": "[[1], 2]"},
    "fewer rows": {"best": np.zeros(2)},
    "fewer columns": {"mean": np.zeros((4, 2))},
    "more scalars": {"scalars": np.zeros((4, 9))},
    "a stride of 0": {"stride": 0},
    "a negative dimension": {"dim": -4},
    "a huge dimension": {"dim": 10**15},
}


@pytest.mark.parametrize("how", HISTORIES)
def test_arrays_of_a_history_that_do_not_belong_together(tmp_path, how: str):
    path = tmp_path / "history.npz"
    history(path, **HISTORIES[how])

    assert "history.npz is damaged" in refusal("history", path)
