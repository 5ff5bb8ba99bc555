"""Laws of samplers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .._kernels import threads
from ..noise import Array, Key, Law, Noise, moment
from ..protocols import Sampler
from ._check import STREAM, Check, bits, normals

_KEY = Key(2**40 + 3, 5, STREAM)
_Z = 5.5
"""Standard errors that a statistic may be off; the seeds are fixed, so a sampler passes always or never."""


def check_sampler(
    sampler: Sampler, *, n: int | None = None, dim: int | None = None, max_dim: int = 4173, random: bool = True
) -> None:
    """Check that ``sampler`` keeps the laws of :class:`esopt.protocols.Sampler`.

    Bits depend on the address alone: not on the cut of a rectangle, nor on the number of threads. Mirrored rows are
    exact. Moments, products and lengths are those of the rows. A population that is no multiple of the block is
    refused. Every row has the declared law: moments to order 4, and correlations between columns, blocks,
    generations, seeds and streams.

    Parameters
    ----------
    n, dim : the only sizes that the sampler has; None for any.
    max_dim : the widest noise to ask for; less for samplers that are slow there.
    random : False for designs of fixed rows, whose law is not looked at.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> from esopt import Antithetic
    >>> from esopt.testing import check_sampler
    >>> check_sampler(Antithetic())
    """
    check, block = Check(sampler), sampler.block
    sizes = [(6 * block, min(70, max_dim)), (3 * block, 1), (block, min(4100, max_dim))]
    for rows, columns in dict.fromkeys((n or rows, dim or columns) for rows, columns in sizes):
        noise = sampler.noise(_KEY, rows, columns)
        _check_facts(check, sampler, noise, rows, columns)
        _check_addresses(check, sampler, noise)
        _check_sums(check, noise)
    if block > 1:
        law, do = "n that is no multiple of the block is refused", "Raise ValueError in noise()."
        check.raises(ValueError, lambda: sampler.noise(_KEY, (n or block) + 1, dim or 3), law, do=do)
    _check_threads(check, sampler.noise(_KEY, n or 64 * block, dim or max_dim))
    if random:
        _check_joint_law(check, sampler, n, dim)


def _check_facts(check: Check, sampler: Sampler, noise: Noise, n: int, dim: int) -> None:
    facts = (noise.n, noise.dim, noise.mirrored, noise.law, noise.key)
    expected = (n, dim, sampler.mirrored, sampler.law, _KEY)
    check.require(
        facts == expected,
        "noise has the n, dim, mirrored, law and key that were asked for",
        got=facts,
        expected=expected,
        do="Pass them on to the noise.",
    )
    check.require(
        noise.block >= 1 and n % noise.block == 0,
        "n is a multiple of the noise's block",
        got=f"block {noise.block} of {n} rows",
        expected="a divisor",
        do="Where the block depends on n or dim, let noise() return the noise of a copy of the sampler that knows it.",
    )
    check.require(
        not (noise.mirrored and noise.block % 2),
        "mirrored blocks are even",
        got=noise.block,
        expected="an even number",
        do="Count both rows of a pair.",
    )


def _check_addresses(check: Check, sampler: Sampler, noise: Noise) -> None:
    n, dim, rows = noise.n, noise.dim, noise.rows()
    check.require(
        rows.shape == (n, dim) and bool(np.isfinite(rows).all()),
        "rows are finite numbers, (n, dim)",
        got=f"shape {rows.shape}",
        expected=f"{(n, dim)}",
        do="Fill every entry.",
    )
    address = "Compute every entry from its address (key, row, column) alone."
    whole, knowing = bits(rows), getattr(noise, "sampler", sampler)
    check.same("the same address has the same bits", sampler.noise(_KEY, n, dim).rows(), whole, do=address)
    if n > noise.block:
        fewer = n - noise.block
        check.same("a resized noise keeps its rows", noise.resize(fewer).rows(), bits(rows[:fewer]), do=address)
    for at, columns in _rectangles(n, dim, sampler.separable):
        out = np.empty((at.stop - at.start, columns.stop - columns.start), np.float32)
        knowing.fill(_KEY, at.start, columns.start, dim, out)
        part = rows[at, columns].astype(np.float32)
        check.same(f"fill of rows {at} and columns {columns} is that part of the whole", out, bits(part), do=address)
        check.same(f"rows {at} are that part of the whole", noise.rows(at.start, at.stop), bits(rows[at]), do=address)
    if noise.mirrored:
        check.same("row 2k + 1 is minus row 2k", rows[1::2], bits(-rows[::2]), do="Negate the row, bit for bit.")
    tiled = np.full((n, dim), np.nan, rows.dtype)
    for at, columns, eps in noise.tiles():
        check.require(
            at.start % noise.block == 0 and at.stop % noise.block == 0 and bool(np.isnan(tiled[at, columns]).all()),
            "tiles are whole blocks and do not overlap",
            got=f"rows {at}, columns {columns}",
            expected=f"multiples of {noise.block}",
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
        check.close(
            f"moment of degree {k + 1} is the sum over the rows", sums[k], expected, do=do, tolerance=1e-5, size=size
        )
        check.close(
            f"block squares of degree {k + 1}", squares[k], expected_squares, do=do, tolerance=1e-5, size=size**2
        )
    expected, expected_squares = naive(table * eps)
    total, squares_of = noise.weighted(table, squares=True)
    size = float(np.sqrt(expected_squares.max()))
    check.close("weighted is the sum over the rows", total, expected, do=do, tolerance=1e-5, size=size)
    check.close("weighted's block squares", squares_of, expected_squares, do=do, tolerance=1e-5, size=size**2)
    size = float(np.sqrt(np.square(eps).sum(axis=1).max() * dim))
    check.close("dot with one row for all", noise.dot(direction), eps @ direction[0], do=do, tolerance=1e-5, size=size)
    check.close(
        "dot with a row for each", noise.dot(table), (table * eps).sum(axis=1), do=do, tolerance=1e-5, size=size
    )
    check.close("norms are squared lengths of rows", noise.norms(), np.square(eps).sum(axis=1), do=do, tolerance=1e-5)


def _check_threads(check: Check, noise: Noise) -> None:
    n, dim = noise.n, noise.dim
    weights, table, out = normals(2, 2, n), normals(3, n, dim), np.empty((n, dim))

    def everything() -> tuple[object, ...]:
        noise.displace(table[0], np.array([0.3]), 0, out)
        return (
            noise.rows(),
            out,
            moment(noise, weights, (1, 2), squares=True),
            noise.dot(table),
            noise.norms(),
            noise.weighted(table),
        )

    with threads.limited(1):
        serial = bits(everything())
    with threads.limited(2) as count:
        if count > 1:
            do = "Let every thread own its outputs, and add up in a fixed order."
            check.same("the number of threads changes no bit", everything(), serial, do=do)


def _fourth(sampler: Sampler, dim: int) -> float | None:
    """Return E eps^4 of an entry, where the law alone says it."""
    return {Law.GAUSSIAN: 3.0, Law.SPHERE: 3.0 * dim / (dim + 2.0), Law.RADEMACHER: 1.0}.get(sampler.law)


def _units(sampler: Sampler, n: int, dim: int) -> Array:
    """Return independent blocks of many generations, (units, block, dim)."""
    generations = max(64, 4096 // n)
    noises = [sampler.noise(Key(7, generation, STREAM), n, dim) for generation in range(generations)]
    eps = np.concatenate([noise.rows() for noise in noises]).astype(np.float64)
    return eps.reshape(-1, noises[0].block, dim)


def _check_marginals(check: Check, sampler: Sampler, n: int, dim: int) -> None:
    by_block = _units(sampler, n, dim)
    for power, mean in ((1, 0.0), (2, 1.0)):
        _require_mean(check, f"E eps^{power} = {mean:g}", (by_block**power).mean(axis=(1, 2)), mean)
        law = f"E eps^{power} = {mean:g} in every row of a block and every column"
        _require_mean(check, law, by_block**power, mean)
    fourth = _fourth(sampler, dim)
    if fourth is not None:
        law = f"E eps^4 = {fourth:g}, as the law {sampler.law.value} has it"
        _require_mean(check, law, (by_block**4).mean(axis=(1, 2)), fourth)
    if sampler.law is Law.SPHERE:
        lengths, do = np.square(by_block).sum(axis=2), "Divide by the length."
        check.close("every row has length sqrt(d)", lengths, np.full_like(lengths, dim), do=do, tolerance=1e-5)
    for row in range(min(by_block.shape[1], 8)):
        one = by_block[:, row]
        for lag in range(1, dim):
            _require_mean(check, "columns are uncorrelated", (one[:, lag:] * one[:, :-lag]).mean(axis=1), 0.0)
            if sampler.law is Law.GAUSSIAN:
                squares = np.square(one) - 1.0
                law = "squares of columns are uncorrelated"
                _require_mean(check, law, (squares[:, lag:] * squares[:, :-lag]).mean(axis=1), 0.0)


def _products(sampler: Sampler, n: int, dim: int) -> dict[str, tuple[Array, Array]]:
    """Return mean products per block, of rows and of their squares less one, for addresses that differ in one thing."""

    def rows(key: Key) -> Array:
        return sampler.noise(key, n, dim).rows().astype(np.float64)

    block = sampler.noise(_KEY, n, dim).block
    others: dict[str, Callable[[int], Array]] = {
        "blocks": lambda g: np.roll(rows(Key(7, g, STREAM)), block, axis=0),
        "generations": lambda g: rows(Key(7, g + 1, STREAM)),
        "seeds": lambda g: rows(Key(6, g, STREAM)),
        "seeds (high half)": lambda g: rows(Key(7 + 2**32, g, STREAM)),
        "streams": lambda g: rows(Key(7, g, STREAM + 1)),
    }
    if block == n:
        del others["blocks"]
    found = {}
    for name, other in others.items():
        pairs = [(rows(Key(7, generation, STREAM)), other(generation)) for generation in range(32)]
        products = [(a * b).reshape(-1, block, dim).mean(axis=(1, 2)) for a, b in pairs]
        squares = [((a * a - 1.0) * (b * b - 1.0)).reshape(-1, block, dim).mean(axis=(1, 2)) for a, b in pairs]
        found[name] = np.concatenate(products), np.concatenate(squares)
    return found


def _check_joint_law(check: Check, sampler: Sampler, n: int | None, dim: int | None) -> None:
    products = _products(sampler, n or 16 * sampler.block, dim or 64)
    for name, (rows, _) in products.items():
        typical = float(np.abs(rows).mean())
        check.require(
            typical < 0.5,
            f"rows of different {name} are independent",
            got=f"{typical:.2f} as the mean |product|",
            expected="less than 0.5, where equal rows have 1",
            do="Put seed, generation, stream and row into the address of every number.",
        )
    _check_marginals(check, sampler, n or 8 * sampler.block, dim or 16)
    for name, (rows, squares) in products.items():
        _require_mean(check, f"rows of different {name} are uncorrelated", rows, 0.0)
        _require_mean(check, f"squares of rows of different {name} are uncorrelated", squares, 0.0)


def _require_mean(check: Check, law: str, terms: Array, mean: float) -> None:
    """Require that the mean over the first axis, of independent units, is ``mean`` within the errors of sampling."""
    error = terms.std(axis=0) / np.sqrt(len(terms))
    worst = float((np.abs(terms.mean(axis=0) - mean) / (error + 1e-7)).max())
    do = "Compare the rows with the law that the sampler declares, or pass random=False for a design of fixed rows."
    check.require(worst < _Z, law, got=f"{worst:.1f} standard errors", expected=f"less than {_Z}", do=do)
