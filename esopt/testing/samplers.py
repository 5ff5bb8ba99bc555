"""Laws of samplers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .._kernels import threads
from ..noise import Array, Key, Noise, moment
from ..protocols import Sampler
from ._check import STREAM, Check, bits, normals

_KEY = Key(2**40 + 3, 5, STREAM)
_Z = 5.5
"""Standard errors that a statistic may be off; the seeds are fixed, so a sampler passes always or never."""


def check_sampler(sampler: Sampler, *, shape: tuple[int, int] | None = None, gaussian: bool = True) -> None:
    """Check that ``sampler`` keeps the laws of :class:`esopt.protocols.Sampler`.

    Bits depend on the address alone: on neither n, the cut of a rectangle, nor the number of threads. Mirrored rows are exact. Moments,
    products and lengths are those of the rows. A population that is no multiple of the block is refused.

    Parameters
    ----------
    shape : (n, dim), the only one that the sampler has, for designs of fixed rows; None for any.
    gaussian : whether every row is standard normal, and new in each block and generation: moments to order 4 per column, and correlations
        between columns, blocks, generations, seeds and streams.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> from esopt import Antithetic
    >>> from esopt.testing import check_sampler
    >>> check_sampler(Antithetic())
    """
    check = Check(sampler)
    _check_block(check, sampler, shape)
    for n, dim in [shape] if shape else [(6 * sampler.block, 70), (3 * sampler.block, 1), (sampler.block, 4100)]:
        _check_addresses(check, sampler, n, dim, one_size=shape is not None)
        _check_sums(check, sampler.noise(_KEY, n, dim))
    _check_threads(check, sampler, shape)
    if gaussian and shape is None:
        _check_marginals(check, sampler)
        _check_independence(check, sampler)


def _check_block(check: Check, sampler: Sampler, shape: tuple[int, int] | None) -> None:
    n, dim = shape or (2 * sampler.block, 3)
    noise = sampler.noise(_KEY, n, dim)
    facts = (noise.n, noise.dim, noise.block, noise.mirrored, noise.key)
    expected = (n, dim, sampler.block, sampler.mirrored, _KEY)
    check.require(
        facts == expected and sampler.block >= 1 and not (sampler.mirrored and sampler.block % 2),
        "noise has the n, dim, block and mirrored of its sampler, and its key; mirrored blocks are even",
        got=facts,
        expected=expected,
        do="Pass block, mirrored and key on to the noise.",
    )
    if sampler.block > 1:
        do = "Raise ValueError in noise() where n is not a multiple of the block."
        check.raises(ValueError, lambda: sampler.noise(_KEY, n + 1, dim), "n that is no multiple of the block is refused", do=do)


def _check_addresses(check: Check, sampler: Sampler, n: int, dim: int, *, one_size: bool) -> None:
    noise = sampler.noise(_KEY, n, dim)
    rows = noise.rows()
    check.require(
        rows.shape == (n, dim) and bool(np.isfinite(rows).all()),
        "rows are finite numbers, (n, dim)",
        got=f"shape {rows.shape}",
        expected=f"{(n, dim)}",
        do="Fill every entry.",
    )
    address = "Compute every entry from its address (key, row, column) alone."
    whole = bits(rows)
    check.same("the same address has the same bits", sampler.noise(_KEY, n, dim).rows(), whole, do=address)
    if not one_size and n > sampler.block:
        fewer = n - sampler.block
        check.same("rows do not depend on n", sampler.noise(_KEY, fewer, dim).rows(), bits(rows[:fewer]), do=address)
        check.same("a resized noise keeps its rows", noise.resize(fewer).rows(), bits(rows[:fewer]), do=address)
    for at, columns in _rectangles(n, dim, sampler.separable):
        out = np.empty((at.stop - at.start, columns.stop - columns.start), np.float32)
        sampler.fill(_KEY, at.start, columns.start, dim, out)
        part = rows[at, columns].astype(np.float32)
        check.same(f"fill of rows {at} and columns {columns} is that part of the whole", out, bits(part), do=address)
        check.same(f"rows {at} are that part of the whole", noise.rows(at.start, at.stop), bits(rows[at]), do=address)
    if sampler.mirrored:
        check.same("row 2k + 1 is minus row 2k", rows[1::2], bits(-rows[::2]), do="Negate the row, bit for bit.")
    tiled = np.full((n, dim), np.nan, rows.dtype)
    for at, columns, eps in noise.tiles():
        check.require(
            at.start % sampler.block == 0 and at.stop % sampler.block == 0 and bool(np.isnan(tiled[at, columns]).all()),
            "tiles are whole blocks and do not overlap",
            got=f"rows {at}, columns {columns}",
            expected=f"multiples of {sampler.block}",
            do="Cut between blocks.",
        )
        tiled[at, columns] = eps
    check.same("tiles cover the rows", tiled, whole, do=address)


def _rectangles(n: int, dim: int, separable: bool) -> Iterator[tuple[slice, slice]]:
    spans = [slice(0, dim)]
    if separable:
        spans += [slice(dim // 2, dim), slice(dim // 3, dim // 3 + 1), slice(0, -(-dim // 5))]
    for at in (slice(0, n), slice(n // 2, n), slice(n - 1, n), slice(n // 3, n // 3 + 1), slice(0, -(-n // 4))):
        for columns in spans:
            yield at, columns


def _check_sums(check: Check, noise: Noise) -> None:
    """Compare the sums that estimators use with those of the rows themselves."""
    eps, n, dim = noise.rows().astype(np.float64), noise.n, noise.dim
    do = "Use esopt.Philox or esopt.Given as the noise, or make its sums those of rows()."
    weights, table, direction = normals(2, 2, n), normals(3, n, dim), normals(4, 1, dim)
    for scale in (np.array([0.3]), np.exp(normals(5, 1, dim)[0])):
        out = np.empty((n, dim))
        noise.displace(direction[0], scale, 0, out)
        check.same("candidates are mean + scale * rows", out, bits(direction[0] + scale * eps), do=do)

    def naive(terms: Array) -> tuple[Array, Array]:
        blocks = terms.reshape(-1, noise.block, dim).sum(axis=1)
        return blocks.sum(axis=0), np.square(blocks).sum(axis=0)

    sums, squares = moment(noise, weights, (1, 2), squares=True)
    for k, powers in enumerate((eps, eps * eps - 1.0)):
        expected, expected_squares = naive(weights[k][:, None] * powers)
        size = float(np.sqrt(np.square(weights[k][:, None] * (1.0 + eps * eps)).sum(axis=0)).max())
        check.close(f"moment of degree {k + 1} is the sum over the rows", sums[k], expected, do=do, tolerance=1e-5, size=size)
        check.close(f"block squares of degree {k + 1}", squares[k], expected_squares, do=do, tolerance=1e-5, size=size**2)
    expected, expected_squares = naive(table * eps)
    total, squares_of = noise.weighted(table, squares=True)
    size = float(np.sqrt(expected_squares.max()))
    check.close("weighted is the sum over the rows", total, expected, do=do, tolerance=1e-5, size=size)
    check.close("weighted's block squares", squares_of, expected_squares, do=do, tolerance=1e-5, size=size**2)
    size = float(np.sqrt(np.square(eps).sum(axis=1).max() * dim))
    check.close("dot with one row for all", noise.dot(direction), eps @ direction[0], do=do, tolerance=1e-5, size=size)
    check.close("dot with a row for each", noise.dot(table), (table * eps).sum(axis=1), do=do, tolerance=1e-5, size=size)
    check.close("norms are squared lengths of rows", noise.norms(), np.square(eps).sum(axis=1), do=do, tolerance=1e-5)


def _check_threads(check: Check, sampler: Sampler, shape: tuple[int, int] | None) -> None:
    n, dim = shape or (2 * sampler.block, -(-threads.SMALL // sampler.block) + 77)
    noise, weights, table = sampler.noise(_KEY, n, dim), normals(2, 2, n), normals(3, n, dim)
    out = np.empty((n, dim))

    def everything() -> tuple[object, ...]:
        noise.displace(table[0], np.array([0.3]), 0, out)
        return noise.rows(), out, moment(noise, weights, (1, 2), squares=True), noise.dot(table), noise.norms(), noise.weighted(table)

    with threads.limited(1):
        serial = bits(everything())
    with threads.limited(2) as count:
        if count > 1:
            do = "Let every thread own its outputs, and add up in a fixed order."
            check.same("the number of threads changes no bit", everything(), serial, do=do)


def _check_marginals(check: Check, sampler: Sampler) -> None:
    blocks, dim = max(256, min(8192, 2**19 // (16 * sampler.block))), 16
    eps = sampler.noise(_KEY, blocks * sampler.block, dim).rows().astype(np.float64)
    by_block = eps.reshape(blocks, sampler.block, dim)
    # Variances of eps, eps^2 and eps^4 under the normal law.
    for power, mean, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (4, 3.0, 96.0)):
        z = (np.mean(by_block**power, axis=0) - mean) * np.sqrt(blocks / variance)
        _require_small(check, f"E eps^{power} = {mean} in every row of a block and every column", z)
    for row in range(min(sampler.block, 8)):
        z = by_block[:, row].T @ by_block[:, row] / np.sqrt(blocks)
        _require_small(check, "columns are uncorrelated", z[~np.eye(dim, dtype=bool)])
        powers = np.square(by_block[:, row]) - 1.0
        z = powers.T @ powers / (2.0 * np.sqrt(blocks))
        _require_small(check, "squares of columns are uncorrelated", z[~np.eye(dim, dtype=bool)])


def _check_independence(check: Check, sampler: Sampler) -> None:
    block, dim = sampler.block, 64
    n = 16 * block

    def rows(key: Key) -> Array:
        return sampler.noise(key, n, dim).rows().astype(np.float64)

    others: dict[str, Callable[[int], Array]] = {
        "blocks": lambda g: np.roll(rows(Key(7, g, STREAM)), block, axis=0),
        "generations": lambda g: rows(Key(7, g + 1, STREAM)),
        "seeds": lambda g: rows(Key(6, g, STREAM)),
        "seeds (high half)": lambda g: rows(Key(7 + 2**32, g, STREAM)),
        "streams": lambda g: rows(Key(7, g, STREAM + 1)),
    }
    for name, other in others.items():
        products, squares = [], []
        for generation in range(32):
            a, b = rows(Key(7, generation, STREAM)), other(generation)
            products.append((a * b).reshape(-1, block, dim).sum(axis=(1, 2)))
            squares.append(((a * a - 1.0) * (b * b - 1.0)).reshape(-1, block, dim).sum(axis=(1, 2)))
        for what, terms in (("rows", np.concatenate(products)), ("squares", np.concatenate(squares))):
            error = float(np.sqrt(np.square(terms).mean() / terms.size))
            _require_small(check, f"{what} of different {name} are uncorrelated", np.array([terms.mean() / max(error, 1e-300)]))
            # Equal rows would make every term about block * dim.
            typical = float(np.abs(terms).mean()) / (block * dim)
            check.require(
                typical < 0.5,
                f"{what} of different {name} are independent",
                got=f"mean |product| {typical:.2f}",
                expected="< 0.5",
                do="Put seed, generation, stream and row into the address of every number.",
            )


def _require_small(check: Check, law: str, z: Array) -> None:
    worst = float(np.abs(z).max())
    do = "Compare the law of the rows with the one that is declared; pass gaussian=False if it is another one."
    check.require(worst < _Z, law, got=f"{worst:.1f} standard errors", expected=f"less than {_Z}", do=do)
