"""Trees of records, tuples, dictionaries, arrays and numbers: to JSON with the arrays apart, and back into a template.

Every scalar comes back to the bit and in its own type (``float`` and ``numpy.float64`` promote differently), every
array in its dtype and memory order. Records are rebuilt field by field, without running their constructors.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Node = Any
"""JSON of one node: a plain scalar, or an object whose first key says what it is."""

Read = Callable[[str, NDArray[Any]], NDArray[Any]]


class Mismatch(Exception):
    """The file's tree and the template differ; the text is one line, ``path: this in the file, that here``."""

    def __init__(self, path: str, there: str, here: str) -> None:
        super().__init__(f"{path or 'state'}: {there} in the file, {here} here")


def flatten(tree: object) -> tuple[Node, dict[str, NDArray[Any]]]:
    """Return the JSON skeleton of ``tree`` and its arrays by path.

    Raises
    ------
    TypeError  for what a state cannot hold; it names the path.
    """
    arrays: dict[str, NDArray[Any]] = {}
    return _encode(tree, "", arrays), arrays


def fill(node: Node, template: object, read: Read, path: str = "") -> Any:
    """Return a tree like ``template`` with the contents of ``node``; ``read(path, like)`` fetches an array.

    Records must have the same class and fields, tuples the same length, dictionaries the same keys, scalars be of one
    kind (None, bool, int, float or str).

    Raises
    ------
    Mismatch  at the first difference.
    """
    there, here = _node_label(node), _label(template)
    if there != here:
        raise Mismatch(path, there, here)
    names = field_names(template)
    if names is not None:
        _same_names(path, "fields", node["fields"], names)
        values = [fill(node["fields"][name], getattr(template, name), read, join(path, name)) for name in names]
        return _rebuild(type(template), names, values)
    if isinstance(template, tuple):
        parts = enumerate(zip(node["tuple"], template, strict=True))
        return tuple([fill(part, like, read, join(path, i)) for i, (part, like) in parts])
    if isinstance(template, dict):
        parts = node["dict"]
        _same_names(path, "keys", parts, list(template))
        return {key: fill(part, template[key], read, join(path, key)) for key, part in parts.items()}
    return read(path, template) if isinstance(template, np.ndarray) else _decode(node)


def join(path: str, step: str | int) -> str:
    """Return the path of a child: ``a.b`` for names, ``a[0]`` for positions, ``a["x y"]`` for other keys."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    if step.isascii() and step.isidentifier():
        return f"{path}.{step}" if path else step
    return f"{path}[{json.dumps(step)}]"


def field_names(value: object) -> list[str] | None:
    """Return the field names of a dataclass instance or a named tuple, None for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value._fields)
    return None


def _encode(value: object, path: str, arrays: dict[str, NDArray[Any]]) -> Node:
    names = field_names(value)
    if names is not None:
        fields = {name: _encode(getattr(value, name), join(path, name), arrays) for name in names}
        return {"record": type(value).__qualname__, "fields": fields}
    if type(value) is tuple:
        return {"tuple": [_encode(part, join(path, i), arrays) for i, part in enumerate(value)]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _encode(part, join(path, key), arrays) for key, part in value.items()}}
    if type(value) is np.ndarray and value.dtype.kind in "biufc":
        arrays[path] = value
        return {"array": path}
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        return value if abs(value) < 2**63 else {"scalar": "int", "bits": hex(value)}
    if type(value) is float:
        bits = struct.pack(">d", value).hex()
        return value if math.isfinite(value) else {"scalar": "float", "value": repr(value), "bits": bits}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"scalar": value.dtype.str, "value": str(value), "bits": value.tobytes().hex()}
    kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__qualname__
    raise TypeError(
        f"cannot save {path or 'state'}: got {kind}. Expected a dataclass, tuple, dict with str keys, numeric array, "
        "int, float, bool, str or None. Keep only these in a state, and rebuild the rest from the configuration."
    )


def _decode(node: Node) -> Any:
    if not isinstance(node, dict):
        return node
    kind, bits = node["scalar"], node["bits"]
    if kind == "int":
        return int(bits, 16)
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(bits))[0]
    dtype = np.dtype(kind)
    if dtype.kind not in "biuf":
        raise ValueError(f"a scalar of type {kind}")
    (scalar,) = np.frombuffer(bytes.fromhex(bits), dtype)
    return scalar


def _same_names(path: str, what: str, there: dict[str, Node], here: list[str]) -> None:
    if set(there) != set(here):
        lists = [", ".join(sorted(set(names) - set(others))) for names, others in ((there, here), (here, there))]
        raise Mismatch(path, *[f"{what} {names}" if names else f"no further {what}" for names in lists])


def _rebuild(cls: type, names: list[str], values: list[Any]) -> Any:
    if issubclass(cls, tuple):
        return tuple.__new__(cls, values)
    record = object.__new__(cls)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(record, name, value)
    return record


def _label(value: object) -> str:
    """Say what a value is, in the words that must agree between the file and the template."""
    if field_names(value) is not None:
        return type(value).__qualname__
    if isinstance(value, tuple):
        return f"tuple of {len(value)}"
    kinds = {
        "None": type(None),
        "bool": (bool, np.bool_),
        "int": (int, np.integer),
        "float": (float, np.floating),
        "str": str,
        "array": np.ndarray,
        "dict": dict,
    }
    return next((name for name, kind in kinds.items() if isinstance(value, cast(type, kind))), type(value).__qualname__)


def _node_label(node: Node) -> str:
    if not isinstance(node, dict):
        return "something unreadable" if isinstance(node, list) else _label(node)
    match node:
        case {"record": str(name), "fields": dict()}:
            return name
        case {"tuple": list(parts)}:
            return f"tuple of {len(parts)}"
        case {"dict": dict()}:
            return "dict"
        case {"array": str()}:
            return "array"
        case {"scalar": str(), "bits": str()}:
            return _label(_decode(node))
    return "something unreadable"
