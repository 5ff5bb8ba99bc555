"""The file of a policy: every bit comes back, with numpy alone, and nothing else is believed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

import esopt
from esopt.rl import BoxActions, DiscreteActions, MultiBinaryActions, MultiDiscreteActions, Policy
from esopt.rl.observations import ArrayObservations

TREE = spaces.Dict(a=spaces.Tuple([spaces.Discrete(3, start=1), spaces.MultiBinary(2)]), b=spaces.Box(-1, 1, (2, 2)))


def filled(space: spaces.Space, actions, hidden=(), activation: str = "tanh") -> Policy:
    """A policy with normalisation and with parameters that have many digits."""
    rng = np.random.default_rng(0)
    policy = Policy.mlp(*hidden, activation=activation) if hidden else Policy.linear()
    policy = replace(policy.for_spaces(space, spaces.Discrete(actions.outputs)), actions=actions)
    inputs = policy.sizes[0]
    return policy.with_parameters(rng.standard_normal(policy.dim)).with_normalisation(
        rng.standard_normal(inputs), rng.uniform(0.5, 2.0, inputs)
    )


def small() -> Policy:
    return filled(spaces.Box(-1, 1, (2,)), DiscreteActions(2))


ACTIONS = [
    DiscreteActions(4, 2),
    MultiDiscreteActions((2, 3, 2, 1), (0, 5, -1, 0), (2, 2), "int32"),
    MultiBinaryActions((2, 3)),
    BoxActions(np.array([-1.0, -np.inf]), np.array([np.pi, 3.0])),
    BoxActions(np.array([[-1.0, 0.1]]), np.array([[np.pi, 3.0]]), "float64", "tanh"),
]


@pytest.mark.parametrize("actions", ACTIONS, ids=lambda a: f"{type(a).__name__}-{a.outputs}")
@pytest.mark.parametrize(
    ("space", "hidden", "activation"),
    [(spaces.Box(-1, 1, (3,)), (), "tanh"), (spaces.Box(-1, 1, (60,)), (7, 5), "relu"), (TREE, (4,), "tanh")],
)
def test_file_keeps_every_bit(tmp_path, space, hidden, activation: str, actions):
    about = {"env": "Some/Env-v0", "seed": 3, "mean_return": -0.1, "returns": [1.5, None], "name": "Größe"}
    policy = replace(filled(space, actions, hidden, activation), about=about)
    loaded = Policy.load(policy.save(tmp_path / "policy.npz"))
    space.seed(5)

    for name in ("parameters", "mean", "std", "folded"):
        assert getattr(loaded, name).tobytes() == getattr(policy, name).tobytes()
    assert (loaded.hidden, loaded.activation, loaded.about) == (hidden, activation, about)
    assert loaded.observations == policy.observations
    for _ in range(50):
        observation = space.sample()
        expected, found = policy(observation), loaded(observation)
        assert type(found) is type(expected)
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
    assert loaded.save(tmp_path / "again").read_bytes() == (tmp_path / "policy.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "policy.npz"]


def test_anyone_can_read_the_file(tmp_path):
    policy = filled(spaces.Box(-1, 1, (3,)), ACTIONS[3], (4,))
    with np.load(policy.save(tmp_path / "policy.npz"), allow_pickle=False) as file:
        header = json.loads(file["header"].tobytes())
        assert file["parameters"].tolist() == policy.parameters.tolist()
        assert sorted(file.files) == ["header", "high", "low", "mean", "parameters", "std"]

    assert header["version"] == 2
    assert header["versions"] == {"esopt": esopt.__version__, "numpy": np.__version__}
    assert (header["hidden"], header["activation"]) == ([4], "tanh")
    assert header["observations"] == {"kind": "array", "shape": [3]}
    assert header["actions"] == {"kind": "box", "dtype": "float32", "squash": "clip"}


def test_failed_save_leaves_the_old_file(tmp_path):
    policy = small()
    path = policy.save(tmp_path / "policy.npz")
    before = path.read_bytes()
    for about, error, message in (({"env": object()}, TypeError, "JSON"), ({"x": "y" * 2**20}, ValueError, "below")):
        with pytest.raises(error, match=message):
            replace(policy, about=about).save(path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def version_1(path: Path, actions, shape=(2,)) -> dict[str, np.ndarray]:
    """Write a file as version 1 was written."""
    rng = np.random.default_rng(1)
    inputs = int(np.prod(shape))
    arrays = {"weights": rng.standard_normal((actions.outputs, inputs)), "bias": rng.standard_normal(actions.outputs)}
    arrays |= {"mean": rng.standard_normal(inputs), "std": rng.uniform(0.5, 2.0, inputs)}
    kind = {"kind": "discrete"}
    if isinstance(actions, BoxActions):
        kind = {"kind": "box", "dtype": actions.dtype}
        arrays |= {"low": actions.low, "high": actions.high}
    else:
        kind |= {"n": actions.n, "start": actions.start}
    header = {
        "format": "esopt policy",
        "version": 1,
        "policy": "linear",
        "observation": {"shape": list(shape)},
        "actions": kind,
        "about": {"env": "Old-v1"},
    }
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    return arrays


@pytest.mark.parametrize("actions", [DiscreteActions(3, 1), BoxActions(np.full((2, 1), -1.0), np.full((2, 1), 2.0))])
def test_version_1_is_still_read(tmp_path, actions):
    arrays = version_1(tmp_path / "old.npz", actions, (2, 3))
    policy = Policy.load(tmp_path / "old.npz")

    assert policy.parameters.tolist() == [*arrays["weights"].ravel(), *arrays["bias"]]
    assert policy.observations == ArrayObservations((2, 3))
    assert policy.about == {"env": "Old-v1"}
    for row in np.random.default_rng(2).standard_normal((50, 2, 3)):
        outputs = arrays["weights"] @ ((row.ravel() - arrays["mean"]) / arrays["std"]) + arrays["bias"]
        if isinstance(actions, DiscreteActions):
            assert policy(row) == 1 + outputs.argmax()
        else:
            np.testing.assert_allclose(policy(row).ravel(), np.clip(0.5 + 1.5 * outputs, -1, 2), rtol=1e-6, atol=1e-7)
    assert Policy.load(policy.save(tmp_path / "new.npz")).parameters.tobytes() == policy.parameters.tobytes()


def rewrite(path: Path, change, **header) -> None:
    """Write a policy file again with other members, or with entries of its header changed."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    text = {**json.loads(arrays["header"].tobytes()), **header}
    arrays["header"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    change(arrays)
    np.savez(path, **arrays)


def header(**changes):
    return lambda path: rewrite(path, lambda arrays: None, **changes)


def member(change):
    return lambda path: rewrite(path, change)


def declared(shape: tuple[int, ...]):
    """A member that says that it has another shape than it has."""

    def damage(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
        members["parameters.npy"] = head.getvalue() + bytes(48)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return damage


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data + bytes(10**6) if name == "mean.npy" else data)


def deep() -> dict:
    description = {"kind": "array", "shape": [2]}
    for _ in range(100):
        description = {"kind": "group", "names": None, "parts": [description]}
    return description


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:700]),
    "flipped": lambda path: path.write_bytes(bytes(255 - b if i > 200 else b for i, b in enumerate(path.read_bytes()))),
    "one array": lambda path: path.write_bytes(np.zeros(30).tobytes()),
    "foreign": lambda path: np.savez(path, weights=np.zeros((2, 2))),
    "pickled": lambda path: np.savez(path, header=np.array([{}], object)),
    "compressed": compressed,
    "not ours": header(format="other"),
    "newer": header(version=3),
    "no version": header(version="2"),
    "older than any": header(version=0),
    "version 1 without its members": header(version=1, policy="linear", observation={"shape": [2]}),
    "a kind that version 1 did not have": header(version=1, policy="mlp"),
    "other observations": header(observations={"kind": "array", "shape": [5]}),
    "huge observations": header(observations={"kind": "array", "shape": [10**9, 10**9]}),
    "huge choices": header(observations={"kind": "choice", "counts": [10**15], "start": [0], "shape": []}),
    "negative shape": header(observations={"kind": "array", "shape": [-2]}),
    "deep observations": header(observations=deep()),
    "no observations": header(observations=None),
    "other actions": header(actions={"kind": "discrete", "n": 3, "start": 0}),
    "huge actions": header(actions={"kind": "discrete", "n": 10**15, "start": 0}),
    "huge binary actions": header(actions={"kind": "multibinary", "shape": [10**9], "dtype": "int8"}),
    "many actions": header(
        actions={"kind": "multidiscrete", "counts": [10**9], "start": [], "shape": [], "dtype": "i8"}
    ),
    "box without bounds": header(actions={"kind": "box", "dtype": "float32", "squash": "clip"}),
    "unknown actions": header(actions={"kind": "text"}),
    "huge network": header(hidden=[10**9, 10**9]),
    "negative network": header(hidden=[-1]),
    "unknown activation": header(activation="gelu"),
    "about is a list": header(about=[1]),
    "no parameters": member(lambda arrays: arrays.pop("parameters")),
    "more members": member(lambda arrays: arrays.update(more=np.zeros(3))),
    "parameters of text": member(lambda arrays: arrays.update(parameters=np.array(["a"] * 6))),
    "complex parameters": member(lambda arrays: arrays.update(parameters=np.zeros(6, complex))),
    "std of zero": member(lambda arrays: arrays.update(std=np.zeros(2))),
    "mean of nan": member(lambda arrays: arrays.update(mean=np.full(2, np.nan))),
    "short header": member(lambda arrays: arrays.update(header=arrays["header"][:-1])),
    "long header": member(lambda arrays: arrays.update(header=np.full(5 * 2**20, 32, np.uint8))),
    "declared terabytes": declared((10**12,)),
    "declared less": declared((5,)),
    "declared negative": declared((-6,)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_one_clear_error(tmp_path, damage: str):
    path = small().save(tmp_path / "policy.npz")
    DAMAGE[damage](path)
    with pytest.raises(ValueError, match=r"policy\.npz is no policy that this version can read: \S+") as caught:
        Policy.load(path)
    assert isinstance(caught.value, esopt.PolicyFileError)
    assert isinstance(caught.value, esopt.EsoptError)
    assert "Expected a whole file" in str(caught.value) or "Update esopt" in str(caught.value)


def test_every_cut_and_every_flipped_byte_is_refused_or_harmless(tmp_path):
    policy = filled(spaces.Box(-1, 1, (2,)), ACTIONS[3], (3,))
    path = policy.save(tmp_path / "policy.npz")
    whole = path.read_bytes()
    refused = 0
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(esopt.PolicyFileError):
            Policy.load(path)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x11]) + whole[at + 1 :])
        try:
            loaded = Policy.load(path)
        except esopt.PolicyFileError:
            refused += 1
        else:  # dates, flags and other entries of the archive that say nothing
            assert loaded.parameters.tobytes() == policy.parameters.tobytes()
            assert (loaded.actions.low == policy.actions.low).all()
            assert loaded.mean.tobytes() == policy.mean.tobytes()
    assert refused > 0.75 * len(whole)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Policy.load(tmp_path / "policy.npz")


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gymnasium", "numba", "llvmlite", "joblib", "scipy", "matplotlib", "rich"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
import numpy as np
from esopt.rl import Policy

policy = Policy.load(sys.argv[1])
print([policy(eval(row, {"array": np.array})) for row in sys.argv[2:]], policy.about["env"])
"""

PLAIN = """
import sys
from esopt.rl import Policy

Policy.load(sys.argv[1])
print(sorted({"numba", "gymnasium", "scipy", "joblib", "cloudpickle"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("space", "hidden"), [(spaces.Box(-1, 1, (4,), np.float64), ()), (TREE, (64,))])
def test_loaded_policy_needs_numpy_alone(tmp_path, space, hidden):
    policy = replace(filled(space, DiscreteActions(4), hidden), about={"env": "CartPole-v1"})
    path = policy.save(tmp_path / "policy.npz")
    space.seed(1)
    rows = [space.sample() for _ in range(10)]
    with np.printoptions(floatmode="unique"):
        texts = [repr(row).replace("dtype=float32", "'float32'").replace("dtype=int8", "'int8'") for row in rows]
    texts = [text.replace("np.int64(", "(") for text in texts]
    command = [sys.executable, "-c", BLOCKED, str(path), *texts]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert printed.strip() == f"{[policy(row) for row in rows]} CartPole-v1"


def test_loading_imports_nothing_heavy(tmp_path):
    path = small().save(tmp_path / "policy.npz")
    command = [sys.executable, "-c", PLAIN, str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
