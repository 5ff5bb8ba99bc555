"""One ``.npz`` file for a policy: written all or nothing, read with numpy alone, no pickle.

Members: ``header`` (JSON as bytes: format, version, architecture, spaces, versions of the writer, ``about``),
``parameters``, ``mean``, ``std``, and ``low`` and ``high`` for a Box of actions. Version 1 held linear policies, as
``weights`` and ``bias``; it is still read.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._archive import archiving, check_seal, members_of, opened, read_member, write_member
from ..errors import PolicyFileError
from .actions import Actions, BoxActions, DiscreteActions, MultiBinaryActions, MultiDiscreteActions
from .observations import ArrayObservations, described, restored

if TYPE_CHECKING:
    from .policy import Policy

Arrays = dict[str, NDArray[Any]]

FORMAT, VERSION = "esopt policy", 2
"""What a header says; a file of a newer version is refused."""

_HEADER = "header"
_HEADER_LIMIT = 2**20


def save(policy: Policy, path: str | os.PathLike[str]) -> Path:
    """Write the policy to ``path``, all or nothing, and return the path; equal policies give equal bytes.

    Raises
    ------
    TypeError, ValueError  if ``policy.about`` is not JSON, or takes more than 1 MiB.
    OSError  if the file cannot be written; an old file stays.
    """
    arrays: Arrays = {"parameters": policy.parameters, "mean": policy.mean, "std": policy.std}
    if isinstance(policy.actions, BoxActions):
        arrays |= {"low": policy.actions.low, "high": policy.actions.high}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "hidden": list(policy.hidden),
        "activation": policy.activation,
        "observations": described(policy.observations),
        "actions": _actions_described(policy.actions),
        "versions": {"esopt": _version(), "numpy": np.__version__},
        "about": dict(policy.about),
    }
    text = json.dumps(header).encode("ascii")
    if len(text) > _HEADER_LIMIT:
        raise ValueError(f"the header of the policy takes {len(text)} bytes. Keep ``about`` below {_HEADER_LIMIT}.")
    target = Path(path)
    with archiving(os.path.realpath(target), "a policy") as archive:
        write_member(archive, _HEADER, np.frombuffer(text, np.uint8))
        for name, array in arrays.items():
            write_member(archive, name, array)
    return target


def load(path: str | os.PathLike[str], build: Callable[..., Policy]) -> Policy:
    """Return what ``build`` makes of the fields of the policy in ``path``; nothing larger than the file is allocated.

    Raises
    ------
    FileNotFoundError  if there is no such file.
    PolicyFileError  (a ValueError) if it is damaged, no policy, or of a newer version.
    """
    with opened(path) as file, _refusing(os.fspath(path)):
        sealed = check_seal(file)
        with zipfile.ZipFile(file) as archive:
            if archive.comment and not sealed:
                raise ValueError("its checksum is damaged")
            members = members_of(archive, os.fstat(file.fileno()).st_size, _HEADER)
            header = _header(archive, members.pop(f"{_HEADER}.npy"))
            arrays: Arrays = {}
            for name, info in members.items():
                arrays[name.removesuffix(".npy")] = read_member(archive, info, "f").astype(np.float64)
            fields = _fields_v1(header, arrays) if header["version"] == 1 else _fields(header, arrays)
            return build(**fields)


def _version() -> str:
    return str(getattr(sys.modules[__name__.partition(".")[0]], "__version__", "unknown"))


@contextmanager
def _refusing(path: str) -> Iterator[None]:
    """Turn whatever reading a file of arbitrary bytes may raise into a PolicyFileError."""
    try:
        yield
    except PolicyFileError as error:
        raise PolicyFileError(f"{path} {error}") from None
    except Exception as error:  # a damaged archive raises whatever it likes, far down in zipfile or numpy
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".") or type(error).__name__
        raise PolicyFileError(
            f"{path} is no policy that this version can read: {reason}. "
            "Expected a whole file that Policy.save() wrote: restore it from a copy, or save the policy again."
        ) from error


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> dict[str, Any]:
    if info.file_size > 4 * _HEADER_LIMIT + 2**16:
        raise ValueError(f"its header takes {info.file_size} bytes")
    member = read_member(archive, info, "uU")
    header: dict[str, Any] = json.loads(str(member) if member.dtype.kind == "U" else member.tobytes())
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']!r}, expected {FORMAT!r}")
    version = header["version"]
    if type(version) is not int or version < 1:
        raise ValueError(f"its version is {version!r}")
    if version > VERSION:
        raise PolicyFileError(
            f"is no policy that this version can read: it holds one in version {version}, and esopt {_version()} "
            f"reads up to version {VERSION}. Update esopt, or save the policy with this version."
        )
    return header


def _fields(header: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    actions = _actions_restored(header["actions"], arrays)
    return {
        **_exactly(arrays, "parameters", "mean", "std"),
        "actions": actions,
        "observations": restored(header["observations"]),
        "hidden": tuple(header["hidden"]),
        "activation": header["activation"],
        "about": _about(header),
    }


def _fields_v1(header: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    if header["policy"] != "linear":
        raise ValueError(f"it holds a policy of kind {header['policy']!r} in version 1")
    actions = _actions_restored(header["actions"], arrays)
    observations = ArrayObservations(tuple(header["observation"]["shape"]))
    fields: dict[str, Any] = _exactly(arrays, "weights", "bias", "mean", "std")
    weights, bias = fields.pop("weights"), fields.pop("bias")
    if weights.shape != (actions.outputs, observations.inputs):
        raise ValueError(f"it has weights {weights.shape} for {observations.inputs} inputs, {actions.outputs} outputs")
    theta = np.concatenate([weights.ravel(), bias])
    return {"parameters": theta, "actions": actions, "observations": observations, **fields, "about": _about(header)}


def _exactly(arrays: Arrays, *names: str) -> Arrays:
    """Return the named arrays; there must be no other."""
    if set(arrays) - set(names):
        raise ValueError(f"unexpected member {min(set(arrays) - set(names))}")
    return {name: arrays[name] for name in names}


def _about(header: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(header["about"], dict):
        raise ValueError(f"its about is a {type(header['about']).__name__}")
    return header["about"]


def _actions_described(actions: Actions) -> dict[str, Any]:
    if isinstance(actions, DiscreteActions):
        return {"kind": "discrete", "n": actions.n, "start": actions.start}
    if isinstance(actions, MultiDiscreteActions):
        fields = {"counts": list(actions.counts), "start": list(actions.start), "shape": list(actions.shape)}
        return {"kind": "multidiscrete", "dtype": actions.dtype, **fields}
    if isinstance(actions, MultiBinaryActions):
        return {"kind": "multibinary", "dtype": actions.dtype, "shape": list(actions.shape)}
    return {"kind": "box", "dtype": actions.dtype, "squash": actions.squash}


def _actions_restored(description: dict[str, Any], arrays: Arrays) -> Actions:
    kind = description["kind"]
    if kind == "discrete":
        return DiscreteActions(description["n"], description["start"])
    if kind == "multidiscrete":
        counts, start, shape = (tuple(description[name]) for name in ("counts", "start", "shape"))
        return MultiDiscreteActions(counts, start, shape, description["dtype"])
    if kind == "multibinary":
        return MultiBinaryActions(tuple(description["shape"]), description["dtype"])
    if kind == "box":
        low, high = arrays.pop("low"), arrays.pop("high")
        return BoxActions(low, high, description["dtype"], description.get("squash", "clip"))
    raise ValueError(f"its actions are of kind {kind!r}")
