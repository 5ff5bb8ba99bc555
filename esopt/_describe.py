"""A configuration as readable JSON, and the differences of two such descriptions."""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._tree import field_names, join

_BY_VALUE = 8
_LINES = 20
_WIDTH = 80
_ABSENT = {"@absent": True}


def describe(obj: object) -> Any:
    """Return a JSON-able description of a configuration, the same in every process.

    Dataclasses and named tuples give their class name and fields (those that start with an underscore are left out),
    arrays their shape, dtype and digest or, up to 8 elements, values; numbers, strings and None themselves. Functions
    give their module and qualified name: their code, closure and bound object are not compared. Other objects give
    their class name, and are not compared any further.
    """
    names = field_names(obj)
    if names is not None:
        fields = {name: describe(getattr(obj, name)) for name in names if not name.startswith("_")}
        return {"class": type(obj).__qualname__, **fields}
    if isinstance(obj, enum.Enum):
        return {"class": f"{type(obj).__qualname__}.{obj.name}"}
    if obj is None or isinstance(obj, bool):
        return obj
    if isinstance(obj, str):
        return str(obj)
    if isinstance(obj, np.ndarray):
        return _describe_array(obj)
    if isinstance(obj, (int, float, complex, np.number, np.bool_)):
        return _describe_number(obj)
    if isinstance(obj, (tuple, list)):
        return [describe(item) for item in obj]
    if isinstance(obj, (set, frozenset)):
        return sorted((describe(item) for item in obj), key=json.dumps)
    if isinstance(obj, dict):
        return {key if isinstance(key, str) else json.dumps(describe(key)): describe(item) for key, item in obj.items()}
    return _describe_other(obj)


def differences(there: Any, here: Any) -> list[str]:
    """Return one line per difference of two descriptions, ``path: this in the file, that here``; 20 at most."""
    found = _compare(there, here, "")
    lines = [f"{path or 'configuration'}: {_show(a)} in the file, {_show(b)} here" for path, a, b in found]
    return lines if len(lines) <= _LINES else [*lines[:_LINES], f"and {len(lines) - _LINES} more"]


def _describe_number(number: Any) -> Any:
    if isinstance(number, (np.number, np.bool_)):
        number = number.item()
    if isinstance(number, bool):
        return number
    if isinstance(number, int):
        return int(number) if abs(number) < 2**63 else {"@number": hex(number)}
    if isinstance(number, float) and math.isfinite(number):
        return float(number)
    return {"@number": str(number)}


def _describe_array(array: NDArray[Any]) -> Any:
    about = {"@array": list(array.shape), "dtype": array.dtype.str}
    if array.dtype.hasobject:
        return about
    if array.size <= _BY_VALUE and array.dtype.kind in "biufU":
        return {**about, "values": describe(array.tolist())}
    return {**about, "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}


def _describe_other(obj: object) -> Any:
    if isinstance(obj, functools.partial):
        return {"class": "partial", **{name: describe(getattr(obj, name)) for name in ("func", "args", "keywords")}}
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if callable(obj) and isinstance(name, str):
        return {"@function": f"{getattr(obj, '__module__', None)}.{name}"}
    return {"class": type(obj).__qualname__}


def _compare(there: Any, here: Any, path: str) -> list[tuple[str, Any, Any]]:
    if _is_record(there) and _is_record(here) and there.get("class") == here.get("class"):
        keys = [*there, *[key for key in here if key not in there]]
        return [d for k in keys for d in _compare(there.get(k, _ABSENT), here.get(k, _ABSENT), join(path, k))]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        found = [d for i, (a, b) in enumerate(zip(there, here, strict=True)) for d in _compare(a, b, join(path, i))]
        composite = any(isinstance(item, (dict, list)) for item in [*there, *here])
        return found if composite or not found else [(path, there, here)]
    same = there == here and isinstance(there, bool) == isinstance(here, bool)
    return [] if same else [(path, there, here)]


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and not any(key.startswith("@") for key in value)


def _show(value: Any) -> str:
    match value:
        case {"@absent": _}:
            return "absent"
        case {"@number": text} | {"@function": text}:
            return str(text)
        case {"@array": shape, "dtype": dtype, **rest}:
            about = f"values {_show(rest['values'])}" if "values" in rest else f"digest {str(rest.get('sha256'))[:12]}"
            text = f"array {tuple(shape)} {dtype} {about}"
        case {"class": name}:
            text = str(name)
        case list():
            text = f"[{', '.join(map(_show, value))}]"
        case _:
            text = repr(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
