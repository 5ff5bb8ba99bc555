"""The folder of a training run: its files, and those of the run that was there before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from .._archive import replacing
from .._inspect import inspect
from .._log import log
from ..checkpoint import previous_of
from ..errors import CheckpointError, PolicyFileError
from .policy import Policy

CHECKPOINT, POLICY, PROGRESS, CURVE, OPTIONS = "checkpoint.npz", "policy.npz", "progress.csv", "curve.png", "run.json"

_RUN = (CHECKPOINT, os.path.basename(previous_of(CHECKPOINT)), POLICY, PROGRESS, CURVE, OPTIONS)


def open_folder(
    out: str | os.PathLike[str] | None,
    env: str,
    checkpoint: str | os.PathLike[str] | None,
    held: ExitStack,
    *,
    resume: bool,
) -> Path | None:
    """Return the folder of a run, made if need be; what another run left there is kept under other names.

    ``checkpoint`` is the run's own, None for the one in the folder. Until ``held`` is closed, no other run gets it.

    Raises
    ------
    ValueError, FileNotFoundError  for a run to be resumed that is not there, or is of another environment than ``env``;
        for a folder that a run is writing to.
    """
    if out is None:
        if resume and checkpoint is None:
            raise ValueError("resume=True needs out=, the folder of the run. A file alone is resumed by checkpoint=.")
        return None
    folder = Path(out)
    saved = folder / CHECKPOINT if checkpoint is None else Path(checkpoint)
    if resume and not saved.exists():
        raise FileNotFoundError(f"there is no run to resume in {folder}: no {saved.name}. Pass another folder as out=.")
    trained = _environment(saved) if resume else None
    if trained not in (None, env):
        raise ValueError(
            f"{saved.parent} holds a run of {trained}, which cannot go on with {env}. "
            f"Pass {trained}, or another folder as out=."
        )
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(_alone_in(folder))
    kept = [] if resume else _set_aside(folder)
    if kept:
        log.warning(
            "%s held another run. It is kept there, as %s. To go on with it, stop this one, rename them back, and pass "
            "resume=True (--resume).",
            *(folder, ", ".join(kept)),
        )
    return folder


def earlier_policy(folder: Path | None, whose: Mapping[str, object]) -> Policy | None:
    """Return the policy that an earlier part of the run ended with, if there is one; ``whose`` it is, it has to say."""
    if folder is None or not (folder / POLICY).exists():
        return None
    try:
        found = Policy.load(folder / POLICY)
    except PolicyFileError:
        return None
    same = all(found.about.get(name) == value for name, value in whose.items())
    return found if same and isinstance(found.about.get("check_return"), float) else None


def write_options(folder: Path, text: str) -> None:
    """Write the options of a run, all or nothing; a disk that is full costs no more than the file."""
    try:
        with replacing(os.path.realpath(folder / OPTIONS), "options") as file:
            file.write(text.encode())
    except OSError as error:
        log.warning("the options of the run were not saved: %s", error)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder, where the system can do that (POSIX). The lock leaves no file, and ends with the process."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ModuleNotFoundError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"a run is writing to {folder} at this moment. Wait for it or stop it, or pass another folder as out=."
            ) from None
        except OSError as error:  # a file system without locks
            log.info("%s is not locked against other runs: %s", folder, error)
        yield
    finally:
        os.close(handle)


def _environment(checkpoint: Path) -> str | None:
    """Return the name of what a checkpoint was trained on; None if it does not say, or is damaged."""
    try:
        objective = json.loads(inspect(checkpoint).header["tree"]["fields"]["objective"])
        name = objective["objective"]["f"]["about"]["env"]
    except (CheckpointError, KeyError, TypeError, ValueError):
        return None
    return name if isinstance(name, str) else None


def _set_aside(folder: Path) -> list[str]:
    """Rename the files of a run, checkpoint.npz to the first free of checkpoint.old.npz, checkpoint.old2.npz ..."""
    there = [name for name in _RUN if (folder / name).exists()]
    if not there:
        return []
    marks = ("old" if number == 1 else f"old{number}" for number in count(1))
    mark = next(mark for mark in marks if not any(folder.glob(f"*.{mark}.*")))
    names = {name: name.replace(".", f".{mark}.", 1) for name in there}
    for name in there:
        (folder / name).rename(folder / names[name])
    return [names[name] for name in there]
