"""Checkpoints: everything comes back to the bit, a bad file is a CheckpointError, a failed save leaves the old file."""

import dataclasses
import functools
import io
import json
import math
import os
import stat
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from esopt import checkpoint
from esopt._archive import archiving, write_member
from esopt.errors import CheckpointError

ROOT = Path(__file__).parents[2]
HEADER = "esopt-header"


@dataclass(frozen=True, eq=False)
class RuleState:
    count: int
    first: Any
    second: Any = None


@dataclass(frozen=True, eq=False)
class RunState:
    seed: int
    generation: int
    mean: Any
    scale: Any
    rule: Any


@dataclass(frozen=True, slots=True)
class Slotted:
    value: float
    doubled: float = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "doubled", 2.0 * self.value)


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Settings:
    sigma: Any = 0.1
    n: Any = None
    part: Any = None
    _cache: Any = None


@dataclass(frozen=True)
class OtherSettings:
    sigma: float = 0.1


class Mode(Enum):
    FAST = 1
    EXACT = 2


def run_state(d: int = 5, generation: int = 3) -> RunState:
    first = np.arange(d) * 0.1 + generation
    return RunState(2**63 + 11, generation, first - 0.3, 0.1, RuleState(generation, first, first**2))


def same(a: Any, b: Any) -> bool:
    """Equal types and bits, nan payloads, signs of zeros, memory order and key order included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        order = [(x.flags.c_contiguous, x.flags.f_contiguous) for x in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() and order[0] == order[1]
    if isinstance(a, np.generic):
        return a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return a == b


def label(value: Any) -> str:
    return f"{type(value).__name__} {hex(value) if type(value) is int else value!a}"[:30]


def save(path: Path, tree: Any, configuration: Any = None, **kind: str) -> Path:
    checkpoint.save(path, tree, configuration=configuration, **kind)
    return path


def load(path: Path, template: Any, configuration: Any = None, **kind: str) -> Any:
    return checkpoint.load(path, template, configuration=configuration, **kind)


def refusal(path: Path, template: Any, configuration: Any = None, **kind: str) -> str:
    """The message of the CheckpointError, which no other exception precedes in the traceback."""
    with pytest.raises(CheckpointError) as caught:
        load(path, template, configuration, **kind)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def members(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def rewrite(path: Path, **changes: Any) -> None:
    """Write the file again with fields of its header replaced."""
    parts = members(path)
    header = json.loads(parts[HEADER].tobytes()) | changes
    parts[HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with archiving(str(path), "a checkpoint") as out:
        for name, array in parts.items():
            write_member(out, name, array)


# What comes back


def test_state_comes_back_to_the_bit(tmp_path):
    state = run_state()
    found = load(save(tmp_path / "run.npz", state), run_state(generation=0))

    assert same(found, state)


NUMBERS = [0, -1, 2**63 - 1, 2**63, -(2**63), 10**5000, True, False, None, "", "nan", "é\n\x00", "\ud800"]
FLOATS = [0.1, -0.0, 1e16, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, -math.nan]
ODD_NAN = struct.unpack(">d", bytes.fromhex("7ff800000000abcd"))[0]
SCALARS = [np.float64(0.1), np.float32(0.1), np.float16(math.nan), np.int8(-3), np.uint64(2**64 - 1), np.bool_(True)]


@pytest.mark.parametrize("value", [*NUMBERS, *FLOATS, ODD_NAN, *SCALARS], ids=label)
def test_scalar_comes_back_in_its_own_type(tmp_path, value):
    assert same(load(save(tmp_path / "run.npz", Pair(value, (value,))), Pair(value, (value,))), Pair(value, (value,)))


ARRAYS = {
    "empty": np.empty((0, 3)),
    "number": np.array(2.5),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j, complex(math.nan, -0.0)]),
    "big endian": np.array([1.5, 2.5], ">f4"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "half": np.arange(4, dtype=np.float16),
    "unsigned": np.array([2**64 - 1], np.uint64),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_array_comes_back_in_its_dtype_and_order(tmp_path, name):
    assert same(load(save(tmp_path / "run.npz", ARRAYS[name]), ARRAYS[name]), ARRAYS[name])


def test_views_are_saved_as_the_values_they_show(tmp_path):
    view = np.arange(24.0).reshape(4, 6)[::2, ::-3]
    found = load(save(tmp_path / "run.npz", (view,)), (view,))[0]

    assert np.array_equal(found, view)
    assert found.flags.c_contiguous


names = st.one_of(st.sampled_from(["mean", "a.b", "a", "b", "[0]", "x/y", ""]), st.text(st.characters(), max_size=5))
dtypes = st.one_of(hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes())
arrays = hnp.arrays(
    st.one_of(dtypes, hnp.complex_number_dtypes()), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.floats().map(np.float64),
    st.integers(-128, 127).map(np.int8),
    arrays,
    arrays.map(np.transpose),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(names, inner, max_size=4),
        st.builds(Pair, inner, inner),
        st.builds(RuleState, st.integers(), inner, inner),
    ),
    max_leaves=12,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees)
def test_any_tree_comes_back(tmp_path, tree):
    assert same(load(save(tmp_path / "run.npz", tree), tree), tree)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees, template=trees)
def test_any_other_template_is_refused_or_gets_what_was_saved(tmp_path, tree, template):
    found, refused = None, None
    try:
        found = load(save(tmp_path / "run.npz", tree), template)
    except CheckpointError as error:
        refused = str(error)

    assert same(found, tree) if refused is None else " in the file, " in refused


def test_records_are_restored_not_constructed(tmp_path):
    odd = Slotted(1.5)
    object.__setattr__(odd, "doubled", 7.0)
    found = load(save(tmp_path / "run.npz", odd), Slotted(0.0))

    assert (found.value, found.doubled) == (1.5, 7.0)


def test_lengths_may_differ_from_the_template(tmp_path):
    state = run_state(d=9)

    assert same(load(save(tmp_path / "run.npz", state), run_state(d=2)), state)


def test_python_and_numpy_numbers_stand_in_for_each_other(tmp_path):
    saved = (np.float64(0.1), 0.1, np.int64(3), 3, np.bool_(True), True)

    assert same(
        load(save(tmp_path / "run.npz", saved), (0.0, np.float64(0), 0, np.int64(0), False, np.bool_(0))), saved
    )


def test_loaded_arrays_are_new_writable_and_aligned(tmp_path):
    template = run_state()
    found = load(save(tmp_path / "run.npz", template), template)
    found.mean[0] = 99.0

    assert template.mean[0] != 99.0
    assert all(a.flags.writeable and a.flags.aligned for a in (found.mean, found.rule.first, found.rule.second))


def test_numpy_reads_the_file_and_its_header_is_json(tmp_path):
    parts = members(save(tmp_path / "run.npz", {"strategy": run_state()}, {"strategy": Settings()}, kind="training"))
    header = json.loads(parts.pop(HEADER).tobytes())

    assert sorted(parts) == ["strategy.mean", "strategy.rule.first", "strategy.rule.second"]
    assert np.array_equal(parts["strategy.mean"], run_state().mean)
    assert header["configuration"]["strategy"] == {"class": "Settings", "sigma": 0.1, "n": None, "part": None}
    assert header["kind"] == "training"
    assert header["versions"]["numpy"] == np.__version__
    assert header["tree"]["dict"]["strategy"]["fields"]["generation"] == 3


def test_equal_states_give_equal_files(tmp_path):
    a, b = save(tmp_path / "a.npz", run_state()), save(tmp_path / "b.npz", run_state())

    assert a.read_bytes() == b.read_bytes()


# What is not saved


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1.0], "list"),
        ({1}, "set"),
        ({1: 2.0}, "dict"),
        (1j, "complex"),
        (b"x", "bytes"),
        (len, "builtin_function_or_method"),
        (Mode.FAST, "Mode"),
        (np.array([None]), "array of object"),
        (np.array(["a"]), "array of <U1"),
        (np.zeros(2, [("a", "f8")]), "array of"),
        (np.ma.masked_array([1.0], [True]), "array of float64"),
        (np.datetime64("2000-01-01"), "datetime64"),
        (np.str_("a"), "str_"),
        (deque(), "collections.deque"),
    ],
    ids=label,
)
def test_other_things_in_a_state_are_type_errors_with_their_path(tmp_path, value, kind):
    path = save(tmp_path / "run.npz", run_state())
    before = path.read_bytes()
    with pytest.raises(TypeError) as caught:
        save(path, {"strategy": RuleState(1, (0, value))})

    assert str(caught.value).startswith("cannot save strategy.first[1]: got ")
    assert kind.split(".")[-1] in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]


def test_too_many_scalars_are_refused_when_saving(tmp_path):
    with pytest.raises(ValueError, match="Keep long sequences in arrays"):
        save(tmp_path / "run.npz", "x" * (16 * 2**20))
    assert os.listdir(tmp_path) == []


# Other templates

MISMATCHES = {
    "record": (RuleState(1, 0.0), Slotted(0.0), "state: RuleState in the file, Slotted here"),
    "array for number": (RuleState(1, 0.0), RuleState(1, np.zeros(1)), "first: float in the file, array here"),
    "number for array": (RuleState(1, np.zeros(1)), RuleState(1, 0.0), "first: array in the file, float here"),
    "int for float": (Pair(1, 2), Pair(1, 2.0), "right: int in the file, float here"),
    "bool for int": (Pair(True, 2), Pair(1, 2), "left: bool in the file, int here"),
    "None for array": (Pair(None, 2), Pair(np.zeros(2), 2), "left: None in the file, array here"),
    "str for int": (Pair("1", 2), Pair(1, 2), "left: str in the file, int here"),
    "inf for int": (Pair(math.inf, 2), Pair(1, 2), "left: float in the file, int here"),
    "dict for tuple": ({"a": ({},)}, {"a": ((),)}, "a[0]: dict in the file, tuple of 0 here"),
    "tuple length": ({"a": (1, 2)}, {"a": (1,)}, "a: tuple of 2 in the file, tuple of 1 here"),
    "keys": ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}, "a: keys y in the file, no further keys here"),
    "renamed key": ({"a": {"y z": 1}}, {"a": {"x": 1}}, "a: keys y z in the file, keys x here"),
    "odd key": ({"a": {"y z": 1}}, {"a": {"y z": None}}, 'a["y z"]: int in the file, None here'),
    "dtype": (
        RuleState(1, np.zeros(2, np.float32)),
        RuleState(1, np.zeros(2)),
        "first: 1-dimensional array of float32 in the file, 1-dimensional array of float64 here",
    ),
    "byte order": (
        (np.zeros(2, ">f8"),),
        (np.zeros(2),),
        "[0]: 1-dimensional array of >f8 in the file, 1-dimensional array of float64 here",
    ),
    "dimensions": (
        (np.zeros((2, 2)),),
        (np.zeros(2),),
        "[0]: 2-dimensional array of float64 in the file, 1-dimensional array of float64 here",
    ),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_another_structure_is_named(tmp_path, name):
    saved, template, line = MISMATCHES[name]

    assert refusal(save(tmp_path / "run.npz", saved), template) == (
        f"run.npz holds a state of a different structure:\n  {line}\n"
        "Load it with the version and settings that wrote it, or start a new run with another file."
    )


def test_renamed_field_is_named(tmp_path):
    path = save(tmp_path / "run.npz", RuleState(1, 0.0))
    renamed = dataclasses.make_dataclass("RuleState", ["count", "momentum", "second"])

    assert "state: fields first in the file, fields momentum here" in refusal(path, renamed(1, 0.0, None))


# Other configurations


def test_another_configuration_is_told_field_by_field(tmp_path):
    path = save(tmp_path / "run.npz", run_state(), {"strategy": Settings(sigma=0.1), "seed": 1})

    assert refusal(path, run_state(), {"strategy": Settings(sigma=0.2), "seed": 1}) == (
        "run.npz was written by a different configuration:\n"
        "  strategy.sigma: 0.1 in the file, 0.2 here\n"
        "Build it with the saved settings, or start a new run with another file."
    )


def reversed_sum(x: Any) -> Any:
    return x[::-1].sum()


DIFFERENCES = {
    "two fields": (
        Settings(0.1, 8),
        Settings(0.2, 16),
        ["sigma: 0.1 in the file, 0.2 here", "n: 8 in the file, 16 here"],
    ),
    "class": (
        Settings(part=Settings()),
        Settings(part=OtherSettings()),
        ["part: Settings in the file, OtherSettings here"],
    ),
    "whole": (Settings(), OtherSettings(), ["configuration: Settings in the file, OtherSettings here"]),
    "part or none": (Settings(part=OtherSettings()), Settings(), ["part: OtherSettings in the file, None here"]),
    "bool": (Settings(n=True), Settings(n=1), ["n: True in the file, 1 here"]),
    "text": (Settings(n="1"), Settings(n=1), ["n: '1' in the file, 1 here"]),
    "nan": (Settings(n=math.nan), Settings(n=math.inf), ["n: nan in the file, inf here"]),
    "absent": (
        {"a": 1, "b": 2},
        {"a": 1, "c": None},
        ["b: 2 in the file, absent here", "c: absent in the file, None here"],
    ),
    "tuple": (Settings(part=(64, 64)), Settings(part=(64, 32)), ["part: [64, 64] in the file, [64, 32] here"]),
    "longer": (Settings(part=(64,)), Settings(part=(64, 32)), ["part: [64] in the file, [64, 32] here"]),
    "in a tuple": (
        Settings(part=(Mode.FAST, OtherSettings(0.1))),
        Settings(part=(Mode.FAST, OtherSettings(0.3))),
        ["part[1].sigma: 0.1 in the file, 0.3 here"],
    ),
    "enumeration": (
        Settings(part=Mode.FAST),
        Settings(part=Mode.EXACT),
        ["part: Mode.FAST in the file, Mode.EXACT here"],
    ),
    "function": (Settings(part=math.sin), Settings(part=math.cos), ["part: math.sin in the file, math.cos here"]),
    "partial": (
        Settings(part=functools.partial(pow, exp=2)),
        Settings(part=functools.partial(pow, exp=3)),
        ["part.keywords.exp: 2 in the file, 3 here"],
    ),
    "short array": (
        {"x0": np.array([1.0, math.nan])},
        {"x0": np.array([2.0, math.nan])},
        ["x0: array (2,) <f8 values [1.0, nan] in the file, array (2,) <f8 values [2.0, nan] here"],
    ),
    "dtype": (
        {"x0": np.zeros(1)},
        {"x0": np.zeros(1, np.float32)},
        ["x0: array (1,) <f8 values [0.0] in the file, array (1,) <f4 values [0.0] here"],
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_name_their_path(tmp_path, name):
    there, here, lines = DIFFERENCES[name]

    assert refusal(save(tmp_path / "run.npz", 1, there), 1, here).split("\n  ")[1:] == [
        *lines[:-1],
        f"{lines[-1]}\nBuild it with the saved settings, or start a new run with another file.",
    ]


EQUAL = {
    "private fields": (Settings(_cache=np.zeros(3)), Settings(_cache=None)),
    "int and float": (Settings(sigma=1), Settings(sigma=1.0)),
    "numpy numbers": (Settings(sigma=np.float64(0.1), n=np.int32(4)), Settings(sigma=0.1, n=4)),
    "nan": (Settings(sigma=math.nan), Settings(sigma=float("nan"))),
    "list and tuple": (Settings(part=[1, 2]), Settings(part=(1, 2))),
    "memory order": ({"a": np.arange(12.0).reshape(3, 4)}, {"a": np.asfortranarray(np.arange(12.0).reshape(3, 4))}),
    "sets": (Settings(part={"a", "b", "c"}), Settings(part=frozenset(["c", "a", "b"]))),
    "objects": (Settings(part=deque([1])), Settings(part=deque([2]))),
    "functions": (Settings(part=reversed_sum), Settings(part=reversed_sum)),
    "huge": (Settings(n=10**5000), Settings(n=10**5000)),
    "keys": ({3: 1, (1, 2): 2}, {(1, 2): 2, 3: 1}),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_configurations_load(tmp_path, name):
    there, here = EQUAL[name]

    assert load(save(tmp_path / "run.npz", 5, there), 1, here) == 5


def test_one_bit_of_a_long_array_is_a_different_configuration(tmp_path):
    there, here = np.zeros(1000), np.zeros(1000)
    here[777] = -0.0

    assert "x0: array (1000,) <f8 digest " in refusal(save(tmp_path / "run.npz", 1, {"x0": there}), 1, {"x0": here})


def test_many_or_long_differences_stay_readable(tmp_path):
    there, here = ({f"setting{i}": f"{word}" * 1000 for i in range(50)} for word in "ab")
    lines = refusal(save(tmp_path / "run.npz", 1, there), 1, here).splitlines()

    assert len(lines) == 23
    assert lines[-2] == "  and 30 more"
    assert max(map(len, lines)) < 200


STABLE = """
import functools, math, numpy as np
from esopt.checkpoint import describe
from esopt.rules.adam import Adam
from esopt.samplers.antithetic import Antithetic
from esopt.strategies.gradient_es import GradientES
parts = GradientES(sigma=np.arange(1.0, 20.0), n=8, rule=Adam(0.1)), Antithetic(), {"values", "grads", "hvps"}
described = describe((*parts, math.sin, functools.partial(max, key=len), object(), np.add, np.float64(0.1)))
"""


def test_description_is_the_same_in_another_process():
    here: dict[str, Any] = {}
    exec(STABLE, here)
    script = STABLE + "import json; print(json.dumps(described))"
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    )

    assert json.loads(answer.stdout) == here["described"]
    assert here["described"][0]["class"] == "GradientES"


# Other versions and kinds


def test_newer_format_names_both_versions(tmp_path):
    path = save(tmp_path / "run.npz", 1)
    rewrite(path, format=7, versions={"esopt": "9.9.0"}, tree={"a new way": 1}, configuration="of another time")

    assert refusal(path, 1).startswith("run.npz has checkpoint format 7, written by esopt 9.9.0; esopt ")
    assert f"reads up to format {checkpoint.FORMAT_VERSION}" in refusal(path, 1)


def test_other_noise_is_refused(tmp_path):
    path = save(tmp_path / "run.npz", 1)
    rewrite(path, noise=checkpoint.NOISE_VERSION + 1)

    assert "written with noise version 2; " in refusal(path, 1)


def test_kind_is_compared_where_it_is_asked_for(tmp_path):
    path = save(tmp_path / "policy.npz", 1, kind="policy")

    assert refusal(path, 1, kind="run") == "policy.npz holds a policy, expected a run.\nPass another file."
    assert load(path, 1, kind="policy") == load(path, 1) == 1


# Damaged and foreign files


def test_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "run.npz", 1)


def test_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="directory"):
        load(tmp_path, 1)


def test_truncated_anywhere(tmp_path):
    path, state = tmp_path / "run.npz", RuleState(1, np.arange(3.0))
    whole = save(path, state).read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert refusal(path, state).startswith("run.npz is damaged, or no esopt checkpoint: ")


def loads_after_flips(tmp_path: Path, masks: Any) -> float:
    """Flip the bits of each mask in each byte; return how many files per byte load, all to the same tree."""
    path, state = tmp_path / "run.npz", RuleState(2**70, np.arange(3.0), ("text", math.inf, np.array([True])))
    whole = save(path, state, Settings()).read_bytes()
    loaded = 0
    for at in range(len(whole)):
        for mask in masks(at):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            try:
                found = load(path, state, Settings())
            except CheckpointError:
                continue
            assert same(found, state), f"byte {at} ^ {mask}"
            loaded += 1
    return loaded / len(whole)


def test_flipped_byte_never_gives_another_tree(tmp_path):
    generator = np.random.default_rng(1)

    # The checksum is over everything, dates and attributes of the archive included.
    assert loads_after_flips(tmp_path, lambda at: [int(generator.integers(1, 256))]) == 0.0


@pytest.mark.slow
def test_flipped_bit_never_gives_another_tree(tmp_path):
    assert loads_after_flips(tmp_path, lambda at: [1 << bit for bit in range(8)]) == 0.0


def test_every_bit_of_the_data_is_checked(tmp_path):
    path, state = tmp_path / "run.npz", (np.arange(40, dtype=np.uint8) + 100,)
    whole = save(path, state).read_bytes()
    start = whole.index(state[0].tobytes())
    for at in range(8 * 40):
        flipped = bytearray(whole)
        flipped[start + at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert "checksum" in refusal(path, state)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive(parts: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, data in parts:
            out.writestr(name, data)
    return file.getvalue()


def npz(*args: Any, **arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, *args, **arrays)
    return file.getvalue()


def forged(name: str, member: bytes) -> bytes:
    """A checkpoint of (array (2,),) in which the array's member is another."""
    header = {"format": 1, "noise": 1, "kind": "run", "versions": {"esopt": "1"}, "configuration": None}
    header["tree"] = {"tuple": [{"array": "[0]"}]}
    return archive([(f"{HEADER}.npy", bytes_npy(json.dumps(header))), (name, member)])


def bytes_npy(text: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.frombuffer(text.encode(), np.uint8))
    return file.getvalue()


def with_header(text: str) -> bytes:
    return archive([(f"{HEADER}.npy", bytes_npy(text))])


FLOATS_2 = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"
OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"
HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904,), }"
NEGATIVE = "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -2), }"
RECORDS = "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,), }"
VOID = "{'descr': '|V8', 'fortran_order': False, 'shape': (2,), }"
BAD_FILES = {
    "nothing": (b"", "not a zip file"),
    "text": (b"generation,value\n1,2.0\n", "not a zip file"),
    "npy": (npy(FLOATS_2, bytes(16)), "not a zip file"),
    "empty zip": (archive([]), "it has no member esopt-header"),
    "foreign npz": (npz(np.zeros(2), mean=np.ones(2)), "it has no member esopt-header"),
    "pickle": (npz(**{HEADER: np.array([{}], object)}), "says it holds object"),
    "header of floats": (npz(**{HEADER: np.zeros(2)}), ""),
    "header no json": (with_header("{format: 1}"), "Expecting property name"),
    "header a list": (with_header("[1]"), ""),
    "header a number": (with_header("1"), ""),
    "header empty": (with_header("{}"), "it lacks 'format'"),
    "header nested": (with_header("[" * 100_000), "recursion"),
    "header of digits": (with_header("1" * 100_000), "limit"),
    "format no number": (with_header('{"format": "1"}'), "its format version is '1'"),
    "format 0": (with_header('{"format": 0}'), "its format version is 0"),
    "format true": (with_header('{"format": true}'), "its format version is True"),
    "format alone": (with_header('{"format": 1}'), "it lacks 'versions'"),
    "no tree": (
        with_header('{"format": 1, "noise": 1, "versions": {"esopt": "1"}, "kind": "run", "configuration": null}'),
        "it lacks 'tree'",
    ),
    "member missing": (forged("[1].npy", npy(FLOATS_2, bytes(16))), "it lacks '[0].npy'"),
    "objects": (forged("[0].npy", npy(OBJECTS, b"cos\nsystem\n.....")), "says it holds object (2,)"),
    "huge shape": (forged("[0].npy", npy(HUGE, bytes(16))), "and has 16 bytes"),
    "negative shape": (forged("[0].npy", npy(NEGATIVE, bytes(16))), ""),
    "records": (forged("[0].npy", npy(RECORDS, bytes(16))), "says it holds"),
    "void": (forged("[0].npy", npy(VOID, bytes(16))), "says it holds |V8"),
    "too little data": (forged("[0].npy", npy(FLOATS_2, bytes(15))), "has 15 bytes"),
    "too much data": (forged("[0].npy", npy(FLOATS_2, bytes(17))), "has 17 bytes"),
    "no dictionary": (forged("[0].npy", npy("(" * 110, bytes(16))), ""),
    "code": (forged("[0].npy", npy("__import__('os').getcwd()", bytes(16))), ""),
    "empty member": (forged("[0].npy", b""), ""),
    "short member": (forged("[0].npy", b"\x93NUMPY\x01"), ""),
    "npy 2.0": (
        forged("[0].npy", npy(FLOATS_2, bytes(16)).replace(b"\x01\x00v", b"\x02\x00v")),
        "not in npy format 1.0",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_a_checkpoint_error(tmp_path, name):
    path = tmp_path / "run.npz"
    data, reason = BAD_FILES[name]
    path.write_bytes(data)
    message = refusal(path, (np.zeros(2),))

    assert message.startswith("run.npz is damaged, or no esopt checkpoint: ")
    assert message.endswith(".\nRestore it from a copy, or start a new run with another file.")
    assert reason in message


def test_forgery_loads_where_it_is_right(tmp_path):
    path = tmp_path / "run.npz"
    path.write_bytes(forged("[0].npy", npy(FLOATS_2, np.array([1.0, 2.0]).tobytes())))

    assert load(path, (np.zeros(1),))[0].tolist() == [1.0, 2.0]


NODES = [
    [],
    {},
    {"record": "RuleState"},
    {"record": "RuleState", "fields": []},
    {"record": 1, "fields": {}},
    {"tuple": {}},
    {"dict": []},
    {"array": 1},
    {"scalar": "float", "bits": "00"},
    {"scalar": "float", "bits": "no"},
    {"scalar": "int", "bits": "no"},
    {"scalar": "O", "bits": "00" * 8},
    {"scalar": "<f8", "bits": "00" * 16},
    {"scalar": "<M8[s]", "bits": "00" * 8},
    {"scalar": "i8,f8", "bits": "00" * 16},
    {"scalar": "<U1", "bits": "00" * 4},
]


@pytest.mark.parametrize("template", [1.0, 1, "", (), {}, RuleState(1, 1), np.zeros(2)], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("node", NODES, ids=str)
def test_nonsense_in_the_tree_is_refused(tmp_path, node, template):
    path = save(tmp_path / "run.npz", 1)
    rewrite(path, tree=node)

    assert "run.npz" in refusal(path, template)


def test_compressed_members_are_refused_before_they_are_inflated(tmp_path):
    path = save(tmp_path / "run.npz", run_state())
    parts = [(f"{name}.npy", npy_of(array)) for name, array in members(path).items()]
    path.write_bytes(archive(parts, zipfile.ZIP_DEFLATED))

    assert "it has compressed members" in refusal(path, run_state())


def unzipped(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data)) as file:
        return dict(file)


def npy_of(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_unexpected_and_repeated_members_are_refused(tmp_path):
    path, state = tmp_path / "run.npz", run_state()
    rewrite(save(path, state), format=1)  # which may have no checksum
    parts = [(f"{name}.npy", npy_of(array)) for name, array in members(path).items()]
    path.write_bytes(archive([*parts, ("more.npy", parts[1][1])]))
    assert "unexpected member more.npy" in refusal(path, state)

    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(archive([*parts, parts[1]]))
    assert "a member occurs twice" in refusal(path, state)

    path.write_bytes(archive(parts))
    assert same(load(path, state), state)


def test_checkpoint_behind_other_bytes_is_refused(tmp_path):
    # The end of a truncated file may be an array that holds the bytes of another checkpoint.
    path = save(tmp_path / "run.npz", run_state())
    whole = path.read_bytes()
    path.write_bytes(b"other bytes" + whole)
    assert "checksum" in refusal(path, run_state())

    path.write_bytes(b"other bytes" + archive([(f"{n}.npy", npy_of(a)) for n, a in unzipped(whole).items()]))
    assert "do not fit" in refusal(path, run_state())


def test_sizes_beyond_the_file_are_refused_before_anything_is_allocated(tmp_path):
    path = tmp_path / "run.npz"
    data = bytearray(forged("[0].npy", npy(FLOATS_2, bytes(16))))
    entry = data.rindex(b"PK\x01\x02")  # the last entry of the directory: sizes are at 20 and 24
    data[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)

    assert "do not fit" in refusal(path, (np.zeros(2),))


def test_large_header_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    path.write_bytes(with_header(" " * (18 * 2**20)))

    assert "its header takes 18874" in refusal(path, 1)


# Saves that fail


def test_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="pass a path in an existing, writable folder"):
        save(tmp_path / "none" / "run.npz", 1)


def test_file_for_a_folder_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="pass a path in an existing, writable folder"):
        save(tmp_path / "file" / "run.npz", 1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_says_what_to_do(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="pass a path in an existing, writable folder"):
            save(tmp_path / "run.npz", 1)
    finally:
        tmp_path.chmod(0o700)


def test_folder_is_not_overwritten(tmp_path):
    (tmp_path / "run.npz").mkdir()
    with pytest.raises(IsADirectoryError, match="pass the name of a file"):
        save(tmp_path / "run.npz", 1)
    assert os.listdir(tmp_path) == ["run.npz"]


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_save_leaves_the_old_file_alone(tmp_path, monkeypatch, call, error):
    path = save(tmp_path / "run.npz", run_state())

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint.os, call, fail)
    with pytest.raises(type(error)):
        save(path, run_state(generation=4))
    monkeypatch.undo()

    assert same(load(path, run_state()), run_state())
    assert os.listdir(tmp_path) == ["run.npz"]


@pytest.mark.skipif(os.name != "posix", reason="needs file size limits")
@pytest.mark.parametrize("limit", [10, 1_000, 50_000, 799_000, 800_700])
def test_full_disk_leaves_the_old_file_alone(tmp_path, limit):
    import resource

    path = save(tmp_path / "run.npz", run_state())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="large"):
            save(path, run_state(d=100_000 // 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert same(load(path, run_state()), run_state())
    assert os.listdir(tmp_path) == ["run.npz"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of 255 bytes")
def test_name_may_be_as_long_as_the_system_lets_it(tmp_path):
    assert load(save(tmp_path / ("é" * 127), 5), 1) == 5


@pytest.mark.skipif(os.name != "posix", reason="links and modes")
def test_links_are_followed_and_the_mode_is_that_of_any_file(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "run.npz").symlink_to("real.npz")
    save(tmp_path / "run.npz", 5)

    assert (tmp_path / "run.npz").is_symlink()
    assert load(tmp_path / "real.npz", 1) == 5
    assert stat.S_IMODE((tmp_path / "real.npz").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


KILLS = """
import os, random, signal, sys, time
from collections import namedtuple
import numpy as np
from esopt import checkpoint

State = namedtuple("State", "count array")
path, kills = sys.argv[1], int(sys.argv[2])
moments = random.Random(0)
counts = [0]
checkpoint.save(path, State(0, np.zeros(200_000)), configuration=None)
hits = 0
for _ in range(kills):
    child = os.fork()
    if child == 0:
        for count in range(counts[-1] + 1, 10**6):
            checkpoint.save(path, State(count, np.full(200_000, float(count))), configuration=None)
    time.sleep(moments.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = [name for name in os.listdir(os.path.dirname(path)) if name.endswith(".tmp")]
    hits += len(left)
    if len(left) > 1:
        sys.exit(f"temporary files gather: {left}")
    state = checkpoint.load(path, State(0, np.zeros(1)), configuration=None)
    if state.array.shape != (200_000,) or not (state.array == state.count).all():
        sys.exit(f"count {state.count} came with {state.array}")
    counts.append(state.count)
checkpoint.save(path, state, configuration=None)
print(hits, *counts)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_saves_leave_a_whole_file(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLS), str(tmp_path / "run.npz"), "25"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr

    hits, *counts = [int(word) for word in answer.stdout.split()]
    assert counts == sorted(counts)
    assert counts[-1] > 0
    # Some kills did hit a save: they left its temporary file, and the next save removed it.
    assert hits > 0
    assert os.listdir(tmp_path) == ["run.npz"]
