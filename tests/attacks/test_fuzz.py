"""Fuzzing: whatever comes in, the answer is right or a clear error of esopt's own, and nothing is half done.

An error is esopt's own if it was raised on purpose: a ValueError, TypeError or EsoptError, the last frame a ``raise``
in esopt. Anything that numpy, zipfile, json or Python itself says about something that esopt passed on is a failure.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import linecache
import math
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings

import esopt
from esopt import checkpoint
from esopt._archive import archiving, write_member
from esopt._inspect import inspect
from esopt.rl import Policy

PACKAGE = str(Path(esopt.__file__).parent)
OWN = (ValueError, TypeError, esopt.EsoptError)
FAST, SLOW = 60, 2000  # examples of each of the five kinds


def both(kind: Callable[..., None]) -> Callable[..., None]:
    """A test that runs few cases, and many where it is marked slow."""

    @pytest.mark.parametrize("count", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)])
    def test(count: int) -> None:
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # overflow: results are checked
            settings(max_examples=count, suppress_health_check=checks)(kind)()

    test.__doc__ = kind.__doc__
    return test


@contextmanager
def own_errors() -> Iterator[list[Exception]]:
    """Let errors of esopt's own pass, and give them; anything else is a failure."""
    found: list[Exception] = []
    try:
        yield found
    except Exception as error:
        trace = error.__traceback__
        while trace.tb_next is not None:
            trace = trace.tb_next
        file = trace.tb_frame.f_code.co_filename
        line = linecache.getline(file, trace.tb_lineno).strip()
        if not (isinstance(error, OWN) and file.startswith(PACKAGE) and line.startswith("raise")):
            raise AssertionError(
                f"a foreign {type(error).__name__}: {error}\nat {file}:{trace.tb_lineno}: {line}"
            ) from error
        found.append(error)
    assert all(len(str(error)) > 20 for error in found)


# What is told

ODD = [0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 1e-320, math.inf, -math.inf, math.nan, 3.5]
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
dtypes = st.sampled_from(["f8", "f4", "f2", "i8", "u1", "?", "c16", "U3", "O", "M8[s]", ">f8"])
anything = st.one_of(
    st.none(),
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=3),
    st.lists(st.one_of(st.floats(), st.none(), st.lists(st.floats(), max_size=2)), max_size=9),
    st.tuples(dtypes, shapes).map(lambda drawn: np.zeros(drawn[1], drawn[0])),
)


def values(n: int) -> Any:
    """Values (n,) that may be learned from, most often."""
    return hnp.arrays(np.float64, n, elements=st.one_of(st.sampled_from(ODD), st.floats()))


STRATEGIES = [
    esopt.snes(n=4),
    esopt.CMAES(n=5),
    esopt.pgpe(n=4),
    esopt.openai_es(n=4),
    esopt.ars(n=4),
    esopt.SepCMA(n=5),
    esopt.GradientES(n=4, estimator=esopt.Bonnet()),
    esopt.OnePlusOneCMA(),
    esopt.Restarts(esopt.CMAES(n=5)),
]


@both
@given(st.data())
def test_tell(data: st.DataObject) -> None:
    """Told anything, an optimizer learns or is as it was."""
    strategy = data.draw(st.sampled_from(STRATEGIES))
    dim = data.draw(st.integers(1, 3))
    es = esopt.Optimizer(strategy, np.ones(dim), seed=data.draw(st.integers(0, 3)))
    for _ in range(data.draw(st.integers(1, 4))):
        if es.stop():
            break
        before, generation = es.ask(), es.generation
        n = len(before)
        told = data.draw(st.one_of(values(n), values(n), anything))
        needed = "grads" in es.population().needs
        gradients = hnp.arrays(np.float64, (n, dim), elements=st.one_of(st.sampled_from(ODD), st.floats()))
        grads = data.draw(st.one_of(gradients, anything)) if needed else None
        with own_errors() as errors:
            es.tell(told, grads)
        assert es.generation == generation + (not errors)
        if errors:
            assert es.ask().tobytes() == before.tobytes()
        else:
            assert es.mean.shape == (dim,)
            assert es.result.evaluations <= (generation + 1) * 100
        assert math.isinf(es.progress.best_value) or np.isfinite(es.progress.best_x).all()
    with own_errors():
        es.stop()
    assert es.result.x.shape == (dim,)


# Options

NASTY = [None, True, False, -1, 0, 1, 2, 3, 5, 0.5, -0.5, 3.5, 1e-320, 1e300, math.nan, math.inf, -math.inf, "x", ""]
NASTY += [(), [], {}, [1.0], [0.1, 0.2], (0.0, 1.0), np.zeros(2), np.ones(2), np.array([1.0, np.nan]), np.zeros((2, 2))]
NASTY += [np.float64(0.5), np.int64(4), np.bool_(True), 1j, b"x", object(), [None], ["a"], {"a": 1}, 2**70]

CLASSES: dict[Any, list[str]] = {
    esopt.CMAES: ["sigma", "n", "active", "tolfun", "tolx", "step_size", "sampler"],
    esopt.GradientES: ["sigma", "n", "rule", "estimator", "shaping", "sampler"],
    esopt.snes: ["sigma", "n"],
    esopt.pgpe: ["radius", "n"],
    esopt.SepCMA: ["sigma", "n"],
    esopt.Adam: ["lr"],
    esopt.SGD: ["lr"],
}
OPTIONS = ["sigma", "bounds", "integer", "evaluations", "generations", "steps", "seconds", "target", "seed", "callback"]
OPTIONS += ["checkpoint", "checkpoint_seconds", "history", "on_error", "final_evaluations", "noisy", "args", "grad"]
OPTIONS += ["x0", "constraints", "equalities", "strategy", "vectorized", "seeded", "evaluator"]


def bowl(x: Any, *rest: Any) -> Any:
    return float((np.asarray(x) ** 2).sum())


@both
@given(st.data())
def test_options(data: st.DataObject) -> None:
    """Settings are refused in words, or the run ends within its budget with the result of its kind."""
    odd = st.sampled_from(NASTY)
    if data.draw(st.booleans()):
        make = data.draw(st.sampled_from(list(CLASSES)))
        names = data.draw(st.lists(st.sampled_from(CLASSES[make]), min_size=1, max_size=2, unique=True))
        chosen = {name: data.draw(odd) for name in names}
        if isinstance(n := chosen.get("n"), int) and n > 1000:
            return  # a population that fills the memory is what was asked for
        with own_errors():
            made = make(**chosen)
            if hasattr(made, "ask"):
                esopt.minimize(bowl, [1.0, 2.0], strategy=made, evaluations=60)
        return
    names = data.draw(st.lists(st.sampled_from(OPTIONS), min_size=1, max_size=3, unique=True))
    given_ = {"x0": [1.0, 2.0], "evaluations": 60, **{name: data.draw(odd) for name in names}}
    limit = given_["evaluations"]
    if isinstance(limit, (int, float)) and not isinstance(limit, bool) and limit > 60:
        given_["evaluations"] = 61
    if limit is None or {"generations", "steps", "seconds"} & set(names):
        given_["generations"] = 3 if given_.get("generations") is None else given_["generations"]
        given_["evaluations"] = 60 if limit is None else given_["evaluations"]
    with tempfile.TemporaryDirectory() as folder:
        before = os.getcwd()
        os.chdir(folder)
        try:
            with own_errors() as errors:
                result = esopt.minimize(bowl, **given_)
        except (AssertionError, OSError) as error:
            if isinstance(error, AssertionError) and not isinstance(error.__cause__, (FileNotFoundError, OSError)):
                raise
            return  # the name of a folder or of a file that cannot be
        finally:
            os.chdir(before)
    if not errors:
        assert isinstance(result, esopt.Result)
        assert result.evaluations <= 61


# Files

MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "zero", "double", "insert"]), st.floats(0, 1), st.integers(1, 255)
    ),
    min_size=1,
    max_size=4,
)


def mutated(whole: bytes, mutations: list[tuple[str, float, int]]) -> bytes:
    """The bytes after each mutation: what it is, where, and how much."""
    data = bytearray(whole)
    for what, place, much in mutations:
        at = min(int(place * len(data)), max(0, len(data) - 1))
        if what == "flip" and data:
            data[at] ^= much
        elif what == "cut":
            del data[at:]
        elif what == "drop":
            del data[at : at + much]
        elif what == "zero":
            data[at : at + much] = bytes(len(data[at : at + much]))
        elif what == "double":
            data[at:at] = data[at : at + much]
        elif what == "insert":
            data[at:at] = bytes([much]) * (much % 9)
    return bytes(data)


def sealed(data: bytes) -> bytes:
    """The bytes with a checksum that is right: what stays to be refused is everything else."""
    body = data[:-64] if len(data) > 64 else data
    return body + hashlib.sha256(body).hexdigest().encode()


def optimizer(generations: int = 0) -> esopt.Optimizer:
    es = esopt.Optimizer(esopt.CMAES(n=5), [1.0, 2.0], seed=1)
    for _ in range(generations):
        es.tell([bowl(x) for x in es.ask()])
    return es


def saved(save: Callable[[str], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file.npz")
        save(path)
        return Path(path).read_bytes()


POLICY = Policy.mlp(3).for_spaces(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)))
POLICY = POLICY.with_parameters(np.linspace(-1.0, 1.0, POLICY.dim))
RUN = saved(optimizer(3).save)
POLICY_FILE = saved(POLICY.save)


def read_run(path: str) -> Any:
    es = optimizer()
    es.load(path)
    return es.generation, es.mean.tobytes(), es.progress.best_value, es.ask().tobytes()


def read_policy(path: str) -> Any:
    policy = Policy.load(path)
    return policy.parameters.tobytes(), policy.mean.tobytes(), policy.std.tobytes(), repr(policy(np.zeros(2)))


READERS = {"run": (RUN, read_run), "policy": (POLICY_FILE, read_policy)}
WHOLE = {name: None for name in READERS}


def read(name: str, data: bytes) -> tuple[Any, list[Exception]]:
    """What reading ``data`` gives, and the error."""
    found = None
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file.npz")
        Path(path).write_bytes(data)
        with own_errors() as errors:
            found = READERS[name][1](path)
        with own_errors():
            inspect(path)
        assert os.listdir(folder) == ["file.npz"]
    assert all(isinstance(error, esopt.EsoptError) for error in errors)
    return found, errors


@both
@given(st.sampled_from(list(READERS)), MUTATIONS)
def test_bytes(name: str, mutations: list[tuple[str, float, int]]) -> None:
    """Any accident to a file is noticed."""
    whole = READERS[name][0]
    data = mutated(whole, mutations)
    found, _ = read(name, data)
    assert found is None or data == whole or found == read(name, whole)[0]
    if data != whole and name == "run":
        assert found is None


@both
@given(st.sampled_from(list(READERS)), MUTATIONS)
def test_bytes_with_a_right_checksum(name: str, mutations: list[tuple[str, float, int]]) -> None:
    """Without the help of the checksum, arrays are never others than those that were written."""
    whole = READERS[name][0]
    found, _ = read(name, sealed(mutated(whole[:-64], mutations) + bytes(64)))
    assert found is None or found == read(name, whole)[0]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document."""
    yield path
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []:
        yield from places(node[key], (*path, key))


JSON = st.sampled_from([None, True, 0, 1, -1, 7, 2**70, 0.5, -1e308, "", "x", "nan", [], {}, [1, 2], [[]], {"a": 1}])
JSON |= st.sampled_from(
    [{"array": "strategy.mean"}, {"tuple": []}, {"scalar": "<f8", "bits": "00" * 8}, {"dict": {}}, 1e5]
)


def headers(data: bytes) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """The name of the header in a file, what it says, and the arrays."""
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    name = "header" if "header" in arrays else "esopt-header"
    return name, json.loads(arrays.pop(name).tobytes()), arrays


@both
@given(st.sampled_from(list(READERS)), st.data())
def test_headers(name: str, data: st.DataObject) -> None:
    """A header that says anything else, in a file that is whole otherwise."""
    own, header, arrays = headers(READERS[name][0])
    header = copy.deepcopy(header)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(sorted(places(header), key=repr)))
        if not place:
            continue
        node: Any = header
        for step in place[:-1]:
            node = node[step]
        if data.draw(st.booleans()) or isinstance(node, list):
            node[place[-1]] = copy.deepcopy(data.draw(JSON))
        else:
            node.pop(place[-1])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file.npz")
        with archiving(path, "a file") as archive:
            write_member(archive, own, np.frombuffer(json.dumps(header).encode(), np.uint8))
            for member, array in arrays.items():
                write_member(archive, member, array)
        forged = Path(path).read_bytes()
    with tempfile.TemporaryDirectory() as folder:  # what a run of other numbers does next is its own affair
        path = os.path.join(folder, "file.npz")
        Path(path).write_bytes(forged)
        with own_errors():  # a policy of another shape refuses the observation
            read_policy(path) if name == "policy" else optimizer().load(path)
        with own_errors():
            inspect(path)


def test_a_foreign_error_is_noticed() -> None:
    with pytest.raises(AssertionError, match="a foreign TypeError"), own_errors():
        np.zeros("x")  # type: ignore[call-overload]
    with pytest.raises(AssertionError, match="a foreign KeyError"), own_errors():
        {}["a"]
    with own_errors() as errors:
        esopt.CMAES(sigma=-1.0)
    assert len(errors) == 1


def test_mutations_do_mutate() -> None:
    for what in ("flip", "cut", "drop", "double", "insert"):
        assert mutated(RUN, [(what, 0.5, 20)]) != RUN
    with zipfile.ZipFile(io.BytesIO(sealed(RUN))) as archive:
        assert archive.testzip() is None
    assert checkpoint.FORMAT_VERSION >= 1
