"""``esopt inspect``: what a file is, printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .commands import _guarded

if TYPE_CHECKING:
    from .._inspect import Contents

_FOLDER = ("checkpoint.npz", "policy.npz")
_SCALES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def inspect(paths: list[Path]) -> int:
    """Print what is in each file, or in the checkpoint and the policy of a run's folder; 1 if one is damaged."""
    from ..errors import CheckpointError

    damaged = []

    def work() -> None:
        for path in paths:
            for file in _files(path):
                try:
                    print("\n".join(map(_printable, report(file))))
                except CheckpointError as error:
                    print(f"esopt: {error}", file=sys.stderr)
                    damaged.append(file)

    status = _guarded(work, "interrupted.")
    return status or int(bool(damaged))


def report(file: Path) -> list[str]:
    """Return what there is to say of a file, line by line."""
    from .._inspect import inspect, settings
    from ..errors import CheckpointError

    found = inspect(file)
    try:
        return _lines(file, found, settings)
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{file} is damaged, or esopt did not write it: its header makes no sense.") from None


def _lines(file: Path, found: Contents, settings: Callable[[object], Iterator[str]]) -> list[str]:
    versions = found.header.get("versions") or {}
    writer = ", ".join(f"{name} {version}" for name, version in versions.items()) or "versions unknown"
    lines = [f"{file}: {found.kind}, format {found.version}, {_size(found.size)}, written by {writer}"]
    lines.append(f"  checksum      {'right' if found.sealed else 'none: written by an early version'}")
    progress = found.progress
    for name in ("generation", "evaluations", "gradients", "steps", "best_value", "seconds", "failures"):
        value = progress.get(name)
        if value not in (None, 0, "{}") or (value == 0 and name in ("generation", "evaluations", "best_value")):
            lines.append(f"  {name:13s} {_number(value)}")
    if found.kind == "policy":
        about = found.header.get("about") or {}
        described = {"hidden": found.header.get("hidden"), "activation": found.header.get("activation")}
        lines += [f"  {name:13s} {value}" for name, value in {**described, **about}.items() if value is not None]
    elif found.kind != "history":
        lines += ["  configuration", *(f"    {line}" for line in settings(found.header.get("configuration")))]
    total = _size(sum(found.members.values()))
    lines.append(f"  arrays        {len(found.members)}, {total}")
    largest = sorted(found.members.items(), key=lambda member: -member[1])[:8]
    lines += [f"    {_size(size):>10s}  {name}" for name, size in largest]
    return lines


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [path / name for name in _FOLDER if (path / name).exists()]
    if not files:
        raise FileNotFoundError(
            f"there is no checkpoint.npz and no policy.npz in {path}. Pass a run's folder or a file."
        )
    return files


def _number(value: object) -> str:
    if isinstance(value, str) and value.startswith("{"):
        counts = json.loads(value)
        return ", ".join(f"{kind}: {count}" for kind, count in counts.items())
    return f"{value:,}" if isinstance(value, int) else f"{value:.10g}" if isinstance(value, float) else str(value)


def _size(count: int) -> str:
    return next((f"{count / scale:.1f} {unit}" for scale, unit in _SCALES if count >= scale), f"{count} bytes")


def _printable(name: str) -> str:
    """Return a name from a file without what a terminal would obey."""
    return name if name.isprintable() else ascii(name)
