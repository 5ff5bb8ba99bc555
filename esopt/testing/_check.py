"""What every check needs: the error, comparison to the bit, save and load, and reproducible numbers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import checkpoint
from .._tree import flatten
from ..errors import CheckpointError
from ..noise import Array, Given, Key
from ..samplers.gaussian import Gaussian

Bits = tuple[str, dict[str, tuple[str, tuple[int, ...], bytes]]]
"""A tree frozen for comparison: its scalars as JSON, its arrays as dtype, shape and bytes."""

STREAM = 2**31 + 9
"""Stream of the checks' own numbers, apart from everything that a part may draw."""


class ConformanceError(AssertionError):
    """A part breaks a law of its protocol: which one, what came out, what should have, and what to do."""


@dataclass(frozen=True)
class Check:
    """The part under test, to be named in messages."""

    part: object

    def require(self, holds: bool | np.bool_, law: str, *, got: object, expected: object, do: str) -> None:
        """Raise ConformanceError unless ``holds``."""
        if not holds:
            name = repr(self.part)
            name = name if len(name) <= 200 else f"{type(self.part).__name__}(...)"
            raise ConformanceError(f"{name} breaks a law: {law}.\n  got {got}\n  expected {expected}\n{do}")

    def same(self, law: str, got: object, expected: Bits, *, do: str) -> None:
        """Require that the tree ``got`` has exactly the bits ``expected``."""
        found = bits(got)
        if found != expected:
            self.require(False, law, got=difference(found, expected), expected="the same bits", do=do)

    def close(
        self, law: str, got: Any, expected: Any, *, do: str, tolerance: float = 1e-9, size: float | None = None
    ) -> None:
        """Require that two arrays agree to ``tolerance`` times ``size``, by default their largest entry."""
        a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        self.require(a.shape == b.shape, law, got=f"shape {a.shape}", expected=f"shape {b.shape}", do=do)
        finite = np.isfinite(b)
        least = float(np.abs(b[finite]).max(initial=1e-300)) if size is None else size
        apart = np.where(finite, np.abs(a - np.where(finite, b, 0.0)) > tolerance * least, a != b) & ~(
            np.isnan(a) & np.isnan(b)
        )
        worst = tuple(int(i) for i in np.argwhere(apart)[0]) if apart.any() else ()
        self.require(not apart.any(), law, got=f"{a[worst]} at {worst}", expected=f"{b[worst]}", do=do)

    def raises(self, kind: type[Exception], call: Callable[[], object], law: str, *, do: str) -> None:
        """Require that ``call`` raises ``kind``."""
        try:
            call()
        except kind:
            return
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        else:
            outcome = "no error"
        raise ConformanceError(f"{self.part!r} breaks a law: {law}.\n  got {outcome}\n  expected {kind.__name__}\n{do}")

    def reload(self, state: Any, template: Any) -> Any:
        """Return ``state`` saved to a checkpoint and loaded into ``template``, which must have its structure."""
        do = "Keep the state a tree of records, tuples, numbers, strings and arrays whose structure never changes."
        law = "a state can be saved, and loaded into a fresh one"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.npz"
            try:
                checkpoint.save(path, state, configuration=None)
                loaded = checkpoint.load(path, template, configuration=None)
            except (TypeError, CheckpointError) as error:
                raise ConformanceError(
                    f"{self.part!r} breaks a law: {law}.\n  got {error}\n  expected no error\n{do}"
                ) from error
        self.same(law, loaded, bits(state), do=do)
        return loaded


def bits(tree: object) -> Bits:
    """Freeze a tree of records, tuples, dictionaries, arrays and numbers for comparison to the bit."""
    skeleton, arrays = flatten(tree)
    frozen = {path: (array.dtype.str, array.shape, array.tobytes()) for path, array in arrays.items()}
    return json.dumps(skeleton), frozen


def difference(got: Bits, expected: Bits) -> str:
    """Say where two frozen trees differ first."""
    for path, (dtype, shape, data) in got[1].items():
        other = expected[1].get(path)
        if other is None or other[:2] != (dtype, shape):
            return f"{path or 'array'}: {dtype} {shape} instead of {other and other[:2]}"
        if other[2] != data:
            a, b = np.frombuffer(data, dtype), np.frombuffer(other[2], dtype)
            at = int(np.flatnonzero(~((a == b) | ((a != a) & (b != b))))[0]) if (a != b).any() else 0
            return f"{path or 'array'}: {a[at]!r} instead of {b[at]!r} at entry {at} of {a.size}"
    missing = set(expected[1]) - set(got[1])
    return f"no array {min(missing)}" if missing else f"{got[0][:300]} instead of {expected[0][:300]}"


def normals(seed: int, n: int, dim: int) -> Array:
    """Return reproducible standard normals (n, dim) for a check's own use."""
    return Gaussian().noise(Key(seed, 0, STREAM), n, dim).rows().astype(np.float64)


def given(seed: int, n: int, dim: int, block: int = 1) -> Given:
    """Return explicit normal noise rows (n, dim); even blocks are mirrored pairs."""
    mirrored = block % 2 == 0
    rows = normals(seed, n // 2 if mirrored else n, dim)
    if mirrored:
        rows = np.stack([rows, -rows], axis=1).reshape(n, dim)
    return Given(rows, block, mirrored, Key(seed))


def without_rows(noise: Given, start: int, stop: int) -> Given:
    """Return the noise without rows start ... stop."""
    return replace(noise, given=np.delete(noise.given, slice(start, stop), axis=0))
