"""Noise as a function of its address: (seed, stream, generation, row, column) -> a standard normal.

No generator object exists anywhere. A population keeps a :class:`Key` and regenerates whatever it needs: rows for the
evaluator, weighted moments for the update. :class:`Philox` is the engine, :class:`Given` holds explicit rows for exact
tests, replays and designs of one's own. Both offer the members of :class:`Noise`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from . import _tiled
from ._kernels import gaussian, seeds, threads

if TYPE_CHECKING:
    from .protocols import Sampler

Array = NDArray[np.float64]
Share = Literal["pair", "generation", "none"]

SEARCH, EVAL, INIT, BENCH, PROBE = 0, 1, 2, 3, 4
"""Streams of the library; numbers from 16 on are the user's."""

_TILE_ROWS = 64
_TILE_COLUMNS = 4096


class _Address(NamedTuple):
    seed: int
    generation: int
    stream: int


class Key(_Address):
    """Address of a generation's noise; rows and generations count to 2**32 and columns to 2**34 before they repeat.

    Raises
    ------
    TypeError, ValueError  unless ``seed`` is in [0, 2**64), ``generation`` and ``stream`` in [0, 2**32).
    """

    __slots__ = ()

    def __new__(cls, seed: int, generation: int = 0, stream: int = SEARCH) -> Key:
        plain = type(seed) is type(generation) is type(stream) is int
        if not (plain and 0 <= seed < 2**64 and 0 <= generation < 2**32 and 0 <= stream < 2**32):
            check_seed(seed)
            _check_word("generation", generation)
            _check_word("stream", stream)
        return super().__new__(cls, seed, generation, stream)


def check_seed(seed: object) -> int:
    """Return ``seed`` as an int in [0, 2**64).

    Raises
    ------
    TypeError, ValueError  for anything else.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer, got {type(seed).__name__}. Pass for example seed=0.")
    if not 0 <= int(seed) < 2**64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}. Pass a non-negative 64-bit integer.")
    return int(seed)


def _check_word(name: str, number: object) -> None:
    """Raise unless ``number`` is an integer in [0, 2**32), a word of the counter: others would wrap around."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(number).__name__}. Pass for example {name}=0.")
    if not 0 <= int(number) < 2**32:
        raise ValueError(
            f"{name} must be in [0, 2**32), got {number}. Numbers beyond would repeat the noise of others."
        )


def child(seed: int, index: int) -> int:
    """Return the seed of child ``index`` < 2**32 of ``seed``: 64 bits, unrelated to the parent's noise."""
    _check_word("index", index)
    return int(_hash_rows(Key(seed, 0, INIT), 0, index, 1)[0])


def evaluation_seeds(
    key: Key, n: int, extra: int = 0, *, mirrored: bool = False, share: Share = "pair"
) -> NDArray[np.int64]:
    """Return one seed in [0, 2**32) for each of ``n`` noise rows and ``extra`` explicit rows.

    ``share="pair"`` gives both rows of an antithetic pair the same seed (common random numbers), ``"generation"`` gives
    all rows the same one and ``"none"`` gives each row its own.
    """
    total = n + extra
    at = Key(key.seed, key.generation, EVAL)
    if share == "generation":
        bits = np.repeat(_hash_rows(at, 2, 0, 1), total)
    elif share == "pair" and mirrored:
        units = _hash_rows(at, 0, 0, (n + 1) // 2 + extra)
        bits = np.concatenate([np.repeat(units[: (n + 1) // 2], 2)[:n], units[(n + 1) // 2 :]])
    elif share in ("pair", "none"):
        bits = _hash_rows(at, 0 if share == "pair" else 1, 0, total)
    else:
        raise ValueError(f'share must be "pair", "generation" or "none", got {share!r}.')
    return (bits & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _hash_rows(key: Key, column: int, first: int, count: int) -> NDArray[np.uint64]:
    out = np.empty(count, np.uint64)
    seeds.hash_rows(column, first, key.generation, key.stream, np.uint64(key.seed), out)
    return out


class Law(Enum):
    """Marginal law of a row of noise; every law has mean 0 and covariance I."""

    GAUSSIAN = "N(0, I)"
    SPHERE = "uniform on the sphere of radius sqrt(d)"
    RADEMACHER = "independent signs"
    LOW_RANK = "a matrix A B^T / sqrt(r) of Gaussian factors"
    COORDINATES = "+-sqrt(d) times a random unit vector"


class Noise(Protocol):
    """``n`` rows of noise in ``dim`` columns; rows of one block depend on each other, blocks do not."""

    @property
    def n(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def mirrored(self) -> bool: ...
    @property
    def key(self) -> Key: ...
    @property
    def law(self) -> Law: ...

    def rows(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return eps[start:stop], (stop - start, d)."""
        ...

    def displace(self, mean: Array, scale: Array, start: int, out: NDArray[Any]) -> None:
        """Write mean + scale * eps[start : start + len(out)] to ``out``; ``scale`` is (1,) or (d,)."""
        ...

    def moments(self, weights: Array, degrees: Sequence[int], squares: bool) -> tuple[Array, Array]:
        """Serve :func:`moment`: weights (m, n) -> sums (m, d), sums of squared block sums (m, d) or (0, d)."""
        ...

    def dot(self, rows: Array) -> Array:
        """Return rows[i] . eps[i], (n,); a single row serves every i."""
        ...

    def norms(self, weights: Array | None = None) -> Array:
        """Return sum_j weights[j] * eps[i, j]**2 for every row, (n,); weights are (d,), or (1,) for all columns."""
        ...

    def weighted(self, rows: Array, squares: bool = False) -> tuple[Array, Array]:
        """Return sum_i rows[i] * eps[i], (d,), and the sum over blocks of the squared block sums, (d,) or (0,)."""
        ...

    def tiles(self) -> Iterator[tuple[slice, slice, NDArray[Any]]]:
        """Yield (rows, columns, eps[rows, columns]); rows come in whole blocks."""
        ...

    def resize(self, n: int) -> Noise:
        """Return the same noise with ``n`` rows; rows that both have are equal."""
        ...


@overload
def moment(
    noise: Noise, weights: Array, degree: int | Sequence[int] = 1, *, squares: Literal[False] = False
) -> Array: ...
@overload
def moment(
    noise: Noise, weights: Array, degree: int | Sequence[int] = 1, *, squares: Literal[True]
) -> tuple[Array, Array]: ...
def moment(
    noise: Noise, weights: Array, degree: int | Sequence[int] = 1, *, squares: bool = False
) -> Array | tuple[Array, Array]:
    """Return sum_i w_i He_k(eps_i), with He_1 = eps and He_2 = eps**2 - 1, in one pass over the noise.

    Parameters
    ----------
    weights : (n,) or (m, n)  one or several weight vectors.
    degree : 1 or 2, or one of them for each weight vector.
    squares : also return sum_blocks (sum_{i in block} w_i He_k(eps_i))**2, for standard errors.

    Returns
    -------
    (d,) or (m, d), float64; a pair of them with ``squares``.

    Notes
    -----
    Weights are rounded to float32 relative to the largest; sums are float32 within chunks of 256 units and float64
    beyond (:class:`Given` noise is float64 throughout). The second polynomial is the centred one because the squares
    of raw second powers do not give the standard error of a scale gradient.
    """
    if np.iscomplexobj(weights):
        raise TypeError(
            f"moment() got weights of dtype {np.asarray(weights).dtype}. Pass real numbers, (n,) or (m, n)."
        )
    table = np.atleast_2d(np.asarray(weights, np.float64))
    degrees = tuple(degree) if isinstance(degree, Iterable) else (degree,) * len(table)
    if table.shape[1] != noise.n or table.ndim != 2:
        raise ValueError(f"moment() got weights of shape {np.shape(weights)} for {noise.n} rows. Pass (n,) or (m, n).")
    if len(degrees) != len(table) or not set(degrees) <= {1, 2}:
        raise ValueError(f"moment() got degrees {degrees} for {len(table)} weight vectors. Pass 1 or 2 for each.")
    sums, block_squares = noise.moments(table, degrees, squares)
    if np.ndim(weights) == 1:
        return (sums[0], block_squares[0]) if squares else sums[0]
    return (sums, block_squares) if squares else sums


def project(noise: Noise, direction: Array) -> Array:
    """Return eps_i . direction for every row, (n,)."""
    return noise.dot(np.asarray(direction, np.float64)[None, :])


@dataclass(frozen=True)
class Philox:
    """``n`` rows of ``sampler``'s noise at ``key``, regenerated on demand; nothing is stored.

    The fused kernels serve samplers that are rows of the library's own Gaussian stream, mirrored or not; any other
    sampler is filled tile by tile.
    """

    sampler: Sampler
    key: Key
    n: int
    dim: int

    @property
    def block(self) -> int:
        return self.sampler.block

    @property
    def mirrored(self) -> bool:
        return self.sampler.mirrored

    @property
    def law(self) -> Law:
        return self.sampler.law

    @property
    def _address(self) -> tuple[int, int, np.uint64]:
        return self.key.generation, self.key.stream, np.uint64(self.key.seed)

    def rows(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        stop = self.n if stop is None else stop
        out = np.empty((stop - start, self.dim), np.float32)
        self.sampler.fill(self.key, start, 0, self.dim, out)
        return out

    def displace(self, mean: Array, scale: Array, start: int, out: NDArray[Any]) -> None:
        if not self.sampler.fused:
            _tiled.displace(self, mean, scale, start, out)
            return
        if not mean.flags.writeable:
            mean = mean.copy()  # another type to numba, and another compilation
        work = out.size // (2 if self.mirrored else 1)
        kernel = gaussian.population_parallel if threads.parallel(work) else gaussian.population
        kernel(mean, scale, self.mirrored, start, *self._address, out)

    def moments(self, weights: Array, degrees: Sequence[int], squares: bool) -> tuple[Array, Array]:
        if not self.sampler.fused:
            return _tiled.moments(self, weights, degrees, squares)
        vectors, units = len(weights), self.n // 2 if self.mirrored else self.n
        kinds = _tiled.degree_array(tuple(degrees))
        coefficients, largest = np.empty((vectors, units), np.float32), np.empty(vectors)
        gaussian.fold(np.ascontiguousarray(weights), kinds, self.mirrored, coefficients, largest)
        sums = np.zeros((vectors, self.dim))
        block_squares = np.zeros((vectors if squares else 0, self.dim))
        kernel = gaussian.moment_parallel if threads.parallel(units * self.dim) else gaussian.moment
        kernel(coefficients, kinds, *self._address, sums, block_squares)
        sums *= largest[:, None]
        if squares:
            block_squares *= np.square(largest)[:, None]
        return sums, block_squares

    def dot(self, rows: Array) -> Array:
        if not self.sampler.fused:
            return _tiled.dot(self, rows)
        rows = _tiled.check_rows(self, rows, one=True)
        base = rows[::2] if self.mirrored and len(rows) > 1 else rows
        kernel = gaussian.dot_parallel if threads.parallel(self.n * self.dim) else gaussian.dot
        if not self.mirrored:
            out = np.empty(self.n)
            kernel(base, *self._address, out)
            return out
        out = np.empty((2, self.n // 2))
        kernel(np.ascontiguousarray(base), *self._address, out[0])
        if len(rows) > 1:
            kernel(np.ascontiguousarray(rows[1::2]), *self._address, out[1])
        else:
            out[1] = out[0]
        out[1] *= -1.0
        return out.T.reshape(-1)

    def norms(self, weights: Array | None = None) -> Array:
        own = _tiled.check_weights(self, weights)
        if not self.sampler.fused:
            return _tiled.norms(self, own)
        out = np.empty(self.n // 2 if self.mirrored else self.n)
        kernel = gaussian.norms_parallel if threads.parallel(out.size * self.dim) else gaussian.norms
        kernel(own, self.dim, *self._address, out)
        return np.repeat(out, 2) if self.mirrored else out

    def weighted(self, rows: Array, squares: bool = False) -> tuple[Array, Array]:
        if not self.sampler.fused:
            return _tiled.weighted(self, rows, squares)
        rows = _tiled.check_rows(self, rows)
        base = rows[::2] - rows[1::2] if self.mirrored else rows
        out, block_squares = np.zeros(self.dim), np.zeros(self.dim if squares else 0)
        kernel = gaussian.weighted_parallel if threads.parallel(base.size) else gaussian.weighted
        kernel(base, *self._address, out, block_squares)
        return out, block_squares

    def tiles(self) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        height = max(1, _TILE_ROWS // self.block) * self.block
        width = _TILE_COLUMNS if self.sampler.separable else self.dim
        for row in range(0, self.n, height):
            for column in range(0, self.dim, width):
                rows, columns = slice(row, min(row + height, self.n)), slice(column, min(column + width, self.dim))
                out = np.empty((rows.stop - row, columns.stop - column), np.float32)
                self.sampler.fill(self.key, row, column, self.dim, out)
                yield rows, columns, out

    def resize(self, n: int) -> Philox:
        return replace(self, n=n)


@dataclass(frozen=True, eq=False)
class Given:
    """Explicit noise rows (n, d) in float64; ``block`` and ``mirrored`` say how they depend on each other.

    ``key`` only addresses the seeds of the evaluations; ``law`` is what the rows are taken for.
    """

    given: Array
    block: int = 1
    mirrored: bool = False
    key: Key = field(default=Key(0))
    law: Law = Law.GAUSSIAN

    def __post_init__(self) -> None:
        block = self.block
        if isinstance(block, bool) or not isinstance(block, (int, np.integer)) or block < 1:
            raise ValueError(
                f"Given() got block={block!r}. Pass the number of rows that depend on each other, 1 for none."
            )
        rows = np.ascontiguousarray(self.given, np.float64)
        if rows.ndim != 2 or len(rows) % self.block:
            raise ValueError(
                f"Given() got rows of shape {rows.shape} in blocks of {self.block}. "
                "Pass (n, d) with n a multiple of block."
            )
        if self.mirrored and not (self.block % 2 == 0 and np.array_equal(rows[::2], -rows[1::2])):
            raise ValueError("Given(mirrored=True) needs an even block, and row 2k + 1 equal to minus row 2k.")
        object.__setattr__(self, "given", rows)

    @property
    def n(self) -> int:
        return len(self.given)

    @property
    def dim(self) -> int:
        return int(self.given.shape[1])

    def rows(self, start: int = 0, stop: int | None = None) -> Array:
        return self.given[start:stop]

    def displace(self, mean: Array, scale: Array, start: int, out: NDArray[Any]) -> None:
        _tiled.displace(self, mean, scale, start, out)

    def moments(self, weights: Array, degrees: Sequence[int], squares: bool) -> tuple[Array, Array]:
        return _tiled.moments(self, weights, degrees, squares)

    def dot(self, rows: Array) -> Array:
        return _tiled.dot(self, rows)

    def norms(self, weights: Array | None = None) -> Array:
        return _tiled.norms(self, _tiled.check_weights(self, weights))

    def weighted(self, rows: Array, squares: bool = False) -> tuple[Array, Array]:
        return _tiled.weighted(self, rows, squares)

    def tiles(self) -> Iterator[tuple[slice, slice, Array]]:
        yield slice(0, self.n), slice(0, self.dim), self.given

    def resize(self, n: int) -> Given:
        if n > self.n:
            raise ValueError(f"Given noise has {self.n} rows and cannot grow to {n}. Pass more rows.")
        return replace(self, given=self.given[:n])
