"""What is in a file that esopt wrote, of whatever version, without the configuration that wrote it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ._archive import CHUNK, check_seal, members_of, opened, read_member
from .errors import CheckpointError

_HEADERS = ("esopt-header", "header")
_LIMIT = 2**26


@dataclass(frozen=True)
class Contents:
    """The header of a file and the sizes of its members.

    Parameters
    ----------
    kind : "run", "history" or "policy", or what a later version calls it.
    version : of the format of its kind.
    sealed : whether the file ends with a checksum, which then is right.
    size : bytes of the file.
    header : what the file says of itself.
    members : bytes of each array.
    """

    kind: str
    version: int
    sealed: bool
    size: int
    header: Mapping[str, Any]
    members: Mapping[str, int]

    @property
    def progress(self) -> dict[str, Any]:
        """Numbers of a run's progress: generation, evaluations, best_value, seconds ...; empty for anything else."""
        node: Any = self.header.get("tree")
        if isinstance(node, dict) and "run" in (node.get("fields") or ()):  # of an asynchronous run
            node = node["fields"]["run"]
        for name in ("fields", "progress", "fields"):
            node = node.get(name) if isinstance(node, dict) else None
        return {name: _plain(value) for name, value in node.items()} if isinstance(node, dict) else {}


def inspect(path: str | os.PathLike[str]) -> Contents:
    """Return what is in a checkpoint, a history or a policy; the header of a newer format is read as far as it goes.

    Raises
    ------
    CheckpointError  if the file is damaged, or esopt did not write it.
    ValueError, OSError  for pipes, folders, and files that are not there.
    """
    with opened(path) as file:
        try:
            sealed, size = check_seal(file), os.fstat(file.fileno()).st_size
            with zipfile.ZipFile(file) as archive:
                names = {info.filename for info in archive.infolist()}
                own = next((name for name in _HEADERS if f"{name}.npy" in names), _HEADERS[0])
                members = members_of(archive, size, own)
                info = members.pop(f"{own}.npy")
                if info.file_size > _LIMIT + CHUNK:
                    raise ValueError(f"its header takes {info.file_size} bytes")
                header = json.loads(read_member(archive, info, "uU").tobytes().replace(b"\0", b""))
            version = header["format" if own == _HEADERS[0] else "version"]
            if type(version) is not int or (own != _HEADERS[0] and header["format"] != "esopt policy"):
                raise ValueError("it has no version")
            if not sealed and (archive.comment or (own == _HEADERS[0] and version > 1)):
                raise ValueError("its checksum is missing")
        except Exception as error:  # whatever zipfile, json and numpy raise for arbitrary bytes
            reason = str(error).rstrip(".") or type(error).__name__
            raise CheckpointError(
                f"{os.fspath(path)} is damaged, or esopt did not write it: {reason}.\nRestore it from a copy, or from "
                f"{os.path.basename(os.fspath(path))}.previous if there is one."
            ) from None
    kind = str(header.get("kind", "?")) if own == _HEADERS[0] else "policy"
    sizes = {name.removesuffix(".npy"): member.file_size for name, member in members.items()}
    return Contents(kind, version, sealed, size, header, sizes)


def settings(description: Any, name: str = "") -> Iterator[str]:
    """Yield the lines of a configuration as a header holds it, ``strategy.sigma = 0.5``, one per plain value."""
    if isinstance(description, dict) and not any(str(key).startswith("@") for key in description):
        if "class" in description:
            yield f"{name or 'configuration'} = {description['class']}"
        for key, value in description.items():
            if key != "class":
                yield from settings(value, f"{name}.{key}" if name else key)
    else:
        yield f"{name or 'configuration'} = {_short(description)}"


def _short(value: Any) -> str:
    match value:
        case {"@number": text} | {"@function": text}:
            found = str(text)
        case {"@array": shape, "values": values}:
            found = f"{_short(values)} of shape {tuple(shape)}"
        case {"@array": shape}:
            found = f"array of shape {tuple(shape)}"
        case list():
            found = f"[{', '.join(map(_short, value))}]"
        case _:
            found = json.dumps(value)
    return found if len(found) <= 80 else f"{found[:77]}..."


def _plain(node: Any) -> Any:
    """Return a scalar as a person reads it; arrays by their name."""
    match node:
        case {"scalar": _, "value": text}:
            return float(text) if str(text) in ("inf", "-inf", "nan") else text
        case {"array": name}:
            return name
    return node
