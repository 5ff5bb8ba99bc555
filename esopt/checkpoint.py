"""One atomic ``.npz`` for any run: state in, state out, to the bit.

A file holds a JSON header (versions, a readable description of the configuration, every scalar) and one ``.npy`` member
per array, named by its path in the state: ``numpy.load("run.npz")["strategy.mean"]`` works. Loading fills a template, a
state of the same structure such as a fresh ``init`` returns; no class is looked up by name and nothing is unpickled.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ._archive import CHUNK, archiving, check_seal, members_of, opened, read_member, write_member
from ._describe import describe, differences
from ._log import log
from ._tree import Mismatch, fill, flatten
from .errors import CheckpointError

__all__ = ["FORMAT_VERSION", "NOISE_VERSION", "describe", "load", "previous_of", "save"]

Tree = TypeVar("Tree")
PathLike = str | os.PathLike[str]

FORMAT_VERSION = 2
"""Version of the file layout; a file of a newer one is refused. Format 1 had no open generation in a run."""

NOISE_VERSION = 1
"""Version of the map from noise addresses to bits; a run cannot go on with other noise."""

_HEADER = "esopt-header"  # the hyphen keeps it apart from every path in a tree
_HEADER_LIMIT = 16 * 2**20
_OTHERWISE = "start a new run with another file"


def previous_of(path: PathLike) -> str:
    """Return the name under which the checkpoint before the one at ``path`` is kept: ``run.npz.previous``."""
    return f"{os.path.realpath(path)}.previous"


def save(path: PathLike, tree: object, *, configuration: object, kind: str = "run", previous: bool = False) -> None:
    """Write ``tree`` to ``path`` atomically: a process killed at any instant leaves the old file or the new one.

    Parameters
    ----------
    path : the file; a link is followed. A killed process may leave a temporary file ``.NAME.*.tmp`` beside it, which
        the next save removes.
    tree : any nesting of dataclasses, named tuples, tuples, dictionaries with str keys, numeric and boolean arrays,
        int, float, bool, str and None. Everything comes back to the bit and in its type, arrays in their memory order.
    configuration : what the run was built from; kept as :func:`describe` sees it and compared by :func:`load`.
    kind : what the file is, in one word.
    previous : keep the file that is replaced, unless it is damaged, under :func:`previous_of`.

    Raises
    ------
    TypeError  if the tree holds anything else; it names the path.
    ValueError  if the scalars take more than 16 MiB, or the names of arrays more than 4 MiB.
    OSError  if the file cannot be written; the old file stays, and no temporary file.
    """
    target = os.path.realpath(path)
    skeleton, arrays = flatten(tree)
    header = {
        "format": FORMAT_VERSION,
        "noise": NOISE_VERSION,
        "kind": kind,
        "versions": _versions(),
        "configuration": describe(configuration),
        "tree": skeleton,
    }
    text = json.dumps(header, allow_nan=False).encode("ascii")
    if len(text) > _HEADER_LIMIT:
        raise ValueError(
            f"cannot save {path}: its scalars take {len(text)} bytes, expected at most {_HEADER_LIMIT}. "
            "Keep long sequences in arrays."
        )
    with archiving(target, "a checkpoint", previous_of(target) if previous else None) as archive:
        for name, array in {_HEADER: np.frombuffer(text, np.uint8), **arrays}.items():
            write_member(archive, name, array)


def load(
    path: PathLike, template: Tree, *, configuration: object, kind: str | None = None, added: tuple[str, ...] = ()
) -> Tree:
    """Return the tree in ``path``, a new one of the structure of ``template``.

    If the file is damaged and the one before it is not, that is what is loaded, and the logger "esopt.run" warns.

    Parameters
    ----------
    template : a tree of the same classes, fields, keys, tuple lengths, dtypes and numbers of dimensions; only lengths
        of arrays may differ.
    configuration : compared with the one that was saved.
    kind : if given, what the file must be.
    added : fields of ``template`` that files of format 1 do not have; there they stay as they are in the template.

    Raises
    ------
    FileNotFoundError  if there is no such file.
    CheckpointError  if the file is damaged or foreign, or of a newer format, other noise, another configuration or
        another structure; it says which.
    ValueError  for a pipe or a device.
    """
    described = json.loads(json.dumps(describe(configuration), allow_nan=False))
    earlier = previous_of(path)
    try:
        return _load(path, template, described, kind, added)
    except CheckpointError as damage:
        if not (damage.damaged and os.path.exists(earlier)):
            raise
        reason, other = str(damage), os.path.basename(earlier)
        try:
            tree = _load(earlier, template, described, kind, added)
        except (CheckpointError, OSError, ValueError) as error:
            raise CheckpointError(f"{reason}\nThe one before it is of no help: {error}") from None
    log.warning("%s Went back to the checkpoint before it, %s.", reason.partition("\n")[0], other)
    return tree


def _load(path: PathLike, template: Tree, described: Any, kind: str | None, added: tuple[str, ...]) -> Tree:
    name = os.path.basename(os.fspath(path))
    with opened(path) as file, _refusing(name):
        sealed = check_seal(file)
        with zipfile.ZipFile(file) as archive:
            members = members_of(archive, os.fstat(file.fileno()).st_size, _HEADER)
            header = _read_header(archive, members, name)
            if not sealed and (header["format"] > 1 or archive.comment):
                raise ValueError("its checksum is missing")
            _check_header(header, described, kind, name)
            return _fill(archive, members, header, template, added)


def _fill(
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    header: dict[str, Any],
    template: Tree,
    added: tuple[str, ...],
) -> Tree:
    old: dict[str, NDArray[Any]] = {}
    if header["format"] == 1 and added:
        nodes, old = flatten({name: getattr(template, name) for name in added})
        header["tree"]["fields"] = nodes["dict"] | header["tree"]["fields"]

    def read(at: str, like: NDArray[Any]) -> NDArray[Any]:
        if at in old:
            return old[at]
        array = read_member(archive, members.pop(f"{at}.npy"))
        there, here = [f"{a.ndim}-dimensional array of {a.dtype}" for a in (array, like)]
        if there != here:
            raise Mismatch(at, there, here)
        return array

    tree: Tree = fill(header["tree"], template, read)
    if members:
        raise ValueError(f"unexpected member {min(members)}")
    return tree


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn whatever reading a file of arbitrary bytes may raise into a CheckpointError."""
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Mismatch as error:
        raise CheckpointError(
            f"{name} holds a state of a different structure:\n  {error}\n"
            f"Load it with the version and settings that wrote it, or {_OTHERWISE}."
        ) from None
    except Exception as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".") or type(error).__name__
        refused = CheckpointError(
            f"{name} is damaged, or no esopt checkpoint: {reason}.\nRestore it from a copy, or {_OTHERWISE}."
        )
        refused.damaged = True
        raise refused from None


def _read_header(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str) -> dict[str, Any]:
    info = members.pop(f"{_HEADER}.npy")
    if info.file_size > _HEADER_LIMIT + CHUNK:
        raise ValueError(f"its header takes {info.file_size} bytes")
    header = json.loads(read_member(archive, info).tobytes())
    version = header["format"]
    if type(version) is not int or version < 1:
        raise ValueError(f"its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{name} has checkpoint format {version}, written by esopt {header.get('versions', {}).get('esopt')}; "
            f"esopt {_versions()['esopt']} reads up to format {FORMAT_VERSION}.\nUpdate esopt, or {_OTHERWISE}."
        )
    return dict(header)


def _check_header(header: dict[str, Any], described: Any, kind: str | None, name: str) -> None:
    writer, reader = header["versions"]["esopt"], _versions()["esopt"]
    if header["noise"] != NOISE_VERSION:
        raise CheckpointError(
            f"{name} was written with noise version {header['noise']}; esopt {reader} has version {NOISE_VERSION}.\n"
            f"Go on with esopt {writer}, which wrote it, or {_OTHERWISE}."
        )
    if kind is not None and header["kind"] != kind:
        raise CheckpointError(
            f"{name} holds {_article(header['kind'])}, expected {_article(kind)}.\nPass another file."
        )
    lines = "\n  ".join(differences(header["configuration"], described))
    if lines:
        raise CheckpointError(
            f"{name} was written by a different configuration:\n  {lines}\n"
            f"Build it with the saved settings, or {_OTHERWISE}."
        )


def _article(kind: object) -> str:
    words = str(kind)
    return f"an {words}" if words[:1] in ("a", "e", "i", "o", "u") else f"a {words}"


@functools.cache
def _versions() -> dict[str, str]:
    package = sys.modules[__name__.partition(".")[0]]
    try:
        numba = importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        numba = "unknown"
    return {"esopt": getattr(package, "__version__", "unknown"), "numpy": np.__version__, "numba": numba}
