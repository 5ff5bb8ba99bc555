"""noise.py: seeds, moments and splits of Philox and Given noise, fused, tiled and explicit."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esopt.noise import (
    BENCH,
    EVAL,
    INIT,
    SEARCH,
    Given,
    Key,
    Noise,
    Philox,
    check_seed,
    child,
    evaluation_seeds,
    moment,
    project,
)
from esopt.protocols import Sampler
from esopt.samplers.antithetic import Antithetic
from esopt.samplers.gaussian import Gaussian
from tests.reference import noise as twin

Array = np.ndarray[Any, Any]
KEY = Key(seed=2**63 + 5, generation=2**31 + 1)
SAMPLERS = Gaussian(), Antithetic()


@dataclass(frozen=True)
class Tiled:
    """The rows of ``base`` without the fused kernels, in blocks of a size of one's own."""

    base: Sampler
    block: int
    separable: bool = True
    fused: bool = False

    @property
    def mirrored(self) -> bool:
        return self.base.mirrored

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        return Philox(self, key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: Array) -> None:
        self.base.fill(key, row, column, dim, out)


def _table(n: int, dim: int) -> Array:
    return np.random.default_rng(n + dim).standard_normal((n, dim))


def _length(terms: Array, axis: int) -> Array:
    return np.sqrt((terms**2).sum(axis=axis))


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1, np.uint64(2**64 - 1), np.int32(7)])
def test_check_seed_takes_64_bit_integers(seed: Any) -> None:
    assert check_seed(seed) == int(seed)
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize("seed", [True, np.True_, 1.0, "1", None, np.array([1])])
def test_check_seed_refuses_other_types(seed: Any) -> None:
    with pytest.raises(TypeError, match=rf"must be an integer, got {type(seed).__name__}\. Pass for example seed=0"):
        check_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_check_seed_refuses_other_integers(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"\[0, 2\*\*64\), got {seed}\. Pass a non-negative"):
        check_seed(seed)


def _word(column: int, row: int, key: Key, stream: int) -> int:
    return twin.philox_words(column, row, key.generation, stream, key.seed)[0]


@pytest.mark.parametrize("extra", [0, 1, 3])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_evaluation_seeds_are_words_of_their_address(n: int, extra: int) -> None:
    """Rows of a pair share a seed, explicit rows come after the last pair; "none" has addresses of its own."""
    pairs = [i // 2 for i in range(n)] + [(n + 1) // 2 + k for k in range(extra)]
    singles = list(range(n + extra))
    cases: list[tuple[Any, bool, list[int], int]] = [
        ("pair", True, pairs, 0), ("pair", False, singles, 0), ("none", True, singles, 1), ("none", False, singles, 1),
        ("generation", True, [0] * (n + extra), 2), ("generation", False, [0] * (n + extra), 2),
    ]  # fmt: skip
    for share, mirrored, rows, column in cases:
        found = evaluation_seeds(KEY, n, extra, mirrored=mirrored, share=share)
        assert found.dtype == np.int64
        assert found.tolist() == [_word(column, row, KEY, EVAL) for row in rows]


def test_evaluation_seeds_differ_where_nobody_shares() -> None:
    """Among 4000 values of 32 bits 0.002 pairs meet by chance; none of these do."""
    keys = [KEY, KEY._replace(generation=KEY.generation + 1), KEY._replace(seed=KEY.seed + 1), Key(0), Key(0, 1)]
    found = np.concatenate([evaluation_seeds(key, 400, share=share) for key in keys for share in ("pair", "none")])

    assert len(np.unique(found)) == found.size
    assert found.min() >= 0
    assert found.max() < 2**32
    assert abs(found.mean() / 2**31 - 1.0) < 0.05


def test_evaluation_seeds_ignore_the_stream_and_name_a_wrong_share() -> None:
    assert np.array_equal(evaluation_seeds(KEY, 4), evaluation_seeds(KEY._replace(stream=17), 4))
    with pytest.raises(ValueError, match=r"share must be .* got 'all'"):
        evaluation_seeds(KEY, 4, share="all")  # type: ignore[arg-type]


def test_children_are_words_of_their_address_and_never_meet() -> None:
    a, b, _, _ = twin.philox_words(0, 7, 0, INIT, KEY.seed)

    assert child(KEY.seed, 7) == a | b << 32
    family = {child(seed, index) for seed in (0, 1, 2**64 - 1) for index in range(500)}
    assert len(family) == 1500
    assert {type(seed) for seed in family} == {int}
    assert max(family) > 2**63, "a child has 64 bits"
    assert check_seed(child(child(3, 0), 0)) not in family


def test_streams_are_four_different_numbers() -> None:
    assert (SEARCH, EVAL, INIT, BENCH) == (0, 1, 2, 3)
    rows = [Gaussian().noise(Key(1, 0, stream), 1, 64).rows() for stream in (SEARCH, EVAL, INIT, BENCH)]
    assert len({row.tobytes() for row in rows}) == 4


def test_rows_are_the_twin() -> None:
    for sampler in SAMPLERS:
        rows = sampler.noise(KEY._replace(stream=16), 6, 200).rows()
        base = np.array([twin.normals32((KEY.generation, 16, KEY.seed), row, 0, 200) for row in range(6)])
        expected = twin.mirror(base)[:6] if sampler.mirrored else base
        assert rows.dtype == np.float32
        assert rows.tobytes() == expected.astype(np.float32).tobytes()


@settings(max_examples=50)
@given(
    st.sampled_from(SAMPLERS),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.lists(st.integers(1, 150), min_size=1, max_size=4),
    st.booleans(),
)
def test_any_cut_gives_the_same_bits(sampler: Sampler, heights: list[int], widths: list[int], single: bool) -> None:
    n, dim = 2 * sum(heights), sum(widths)
    noise = sampler.noise(KEY, n, dim)
    mean, scale = _table(1, dim)[0], np.linspace(0.5, 2.0, dim)[: 1 if single else dim]
    rows, columns = np.cumsum([0, *heights]), np.cumsum([0, *widths])
    whole = np.empty((n, dim))
    noise.displace(mean, scale, 0, whole)
    for start, stop in pairwise(rows):
        part = np.empty((stop - start, dim))
        noise.displace(mean, scale, int(start), part)
        assert np.array_equal(part, whole[start:stop])
        assert np.array_equal(noise.rows(int(start), int(stop)), noise.rows()[start:stop])
        for left, right in pairwise(columns):
            out = np.empty((stop - start, right - left), np.float32)
            sampler.fill(KEY, int(start), int(left), dim, out)
            assert np.array_equal(out, noise.rows()[start:stop, left:right])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_resize_and_a_wider_row_keep_earlier_bits(sampler: Sampler) -> None:
    noise = sampler.noise(KEY, 6, 100)

    assert noise.resize(10).n == 10
    assert np.array_equal(noise.resize(10).rows(0, 6), noise.rows())
    assert np.array_equal(noise.resize(2).rows(), noise.rows(0, 2))
    assert np.array_equal(sampler.noise(KEY, 6, 1000).rows()[:, :100], noise.rows())


@pytest.mark.parametrize("base", SAMPLERS)
@pytest.mark.parametrize(("block", "n", "dim"), [(4, 132, 4200), (6, 126, 50), (96, 192, 10)])
@pytest.mark.parametrize("separable", [True, False])
def test_tiles_cover_the_rows_in_whole_blocks(base: Sampler, block: int, n: int, dim: int, separable: bool) -> None:
    noise = Tiled(base, block, separable).noise(KEY, n, dim)
    found, count = np.zeros((n, dim), np.float32), np.zeros((n, dim), int)
    for rows, columns, tile in noise.tiles():
        found[rows, columns] = tile
        count[rows, columns] += 1
        assert (rows.stop - rows.start) % block == 0
        assert separable or columns == slice(0, dim)

    assert np.all(count == 1)
    assert np.array_equal(found, noise.rows())


SHAPES = [(2, 1), (14, 2049), (258, 64), (600, 130)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("n", "dim"), SHAPES)
@pytest.mark.parametrize("kind", ["normal", "equal", "scales", "zero"])
def test_moments_are_the_exact_sums(sampler: Sampler, n: int, dim: int, kind: str) -> None:
    """Sums of mirrored noise are exact where they vanish: of equal weights in odd degree."""
    rng = np.random.default_rng(n)
    weights = {
        "normal": rng.standard_normal(n),
        "equal": np.ones(n),
        "scales": rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-30.0, 30.0, n),
        "zero": np.zeros(n),
    }[kind]
    noise = sampler.noise(KEY, n, dim)
    eps = noise.rows().astype(np.float64)
    for degree in (1, 2):
        exact, exact_squares, size = twin.moment(eps, weights, degree, noise.block)
        out, squares = moment(noise, weights, degree, squares=True)
        assert out.shape == squares.shape == (dim,)
        assert out.dtype == squares.dtype == np.float64
        assert np.all(np.abs(out - exact) <= 3e-6 * size)
        assert np.all(np.abs(squares - exact_squares) <= 3e-6 * size**2)
        assert np.array_equal(moment(noise, weights, degree), out)
        if noise.mirrored and kind == "equal" and degree == 1:
            assert not out.any()
            assert not squares.any()


@pytest.mark.parametrize("sampler", [*SAMPLERS, Tiled(Antithetic(), 4)])
def test_several_weight_vectors_in_one_pass(sampler: Sampler) -> None:
    noise = sampler.noise(KEY, 64, 300)
    weights, degrees = _table(3, 64) * np.array([[1.0], [1e-30], [1e30]]), (1, 2, 2)
    out, squares = moment(noise, weights, degrees, squares=True)

    assert out.shape == squares.shape == (3, 300)
    for k in range(3):
        single, single_squares = moment(noise, weights[k], degrees[k], squares=True)
        assert np.array_equal(out[k], single)
        assert np.array_equal(squares[k], single_squares)
    assert np.array_equal(moment(noise, weights, degrees), out)
    assert np.array_equal(moment(noise, weights, 2)[1:], out[1:])
    assert moment(noise, weights[:1], 2).shape == (1, 300)


def test_moment_of_float32_and_strided_weights() -> None:
    noise, weights = Antithetic().noise(KEY, 8, 70), np.linspace(-1.0, 1.0, 8).astype(np.float32)

    assert np.array_equal(moment(noise, weights), moment(noise, weights.astype(np.float64)))
    assert np.array_equal(moment(noise, np.repeat(weights, 2)[::2]), moment(noise, weights))
    assert np.array_equal(moment(noise, weights.tolist()), moment(noise, weights))  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [Gaussian().noise(KEY, 4, 3), Given(np.ones((4, 3)))])
def test_moment_says_what_it_got(noise: Noise) -> None:
    with pytest.raises(ValueError, match=r"weights of shape \(3,\) for 4 rows\. Pass \(n,\) or \(m, n\)"):
        moment(noise, np.ones(3))
    with pytest.raises(ValueError, match=r"weights of shape \(1, 1, 4\) for 4 rows"):
        moment(noise, np.ones((1, 1, 4)))
    with pytest.raises(ValueError, match=r"degrees \(3,\) for 1 weight vectors\. Pass 1 or 2"):
        moment(noise, np.ones(4), 3)
    with pytest.raises(ValueError, match=r"degrees \(1, 2\) for 1 weight vectors"):
        moment(noise, np.ones(4), (1, 2))


@pytest.mark.parametrize("sampler", [*SAMPLERS, Tiled(Gaussian(), 1), Tiled(Antithetic(), 2)])
@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_products_are_the_exact_sums(sampler: Sampler, n: int, dim: int) -> None:
    noise, rows = sampler.noise(KEY, n, dim), _table(n, dim)
    eps = noise.rows().astype(np.float64)
    assert np.all(np.abs(noise.dot(rows) - twin.dot(eps, rows)) <= 1e-14 * _length(rows * eps, 1))
    assert np.all(np.abs(project(noise, rows[-1]) - twin.dot(eps, rows[-1:])) <= 1e-14 * _length(rows[-1] * eps, 1))
    assert np.array_equal(noise.dot(rows[-1:]), project(noise, rows[-1]))
    strided = project(noise, rows.T.copy().T[-1])
    assert np.all(np.abs(strided - project(noise, rows[-1])) <= 1e-14 * _length(rows[-1] * eps, 1))
    assert np.all(np.abs(noise.norms() / twin.dot(eps, eps) - 1.0) <= 1e-14)

    exact, exact_squares = twin.weighted(eps, rows, noise.block)
    plain, none = noise.weighted(rows)
    again, squares = noise.weighted(rows, True)
    assert none.shape == (0,)
    assert np.array_equal(plain, again)
    assert np.all(np.abs(plain - exact) <= 2e-14 * _length(rows * eps, 0))
    assert np.all(np.abs(squares - exact_squares) <= 2e-14 * _length(rows * eps, 0) ** 2)
    if noise.mirrored:
        assert np.array_equal(project(noise, rows[-1])[::2], -project(noise, rows[-1])[1::2])


@pytest.mark.parametrize(
    ("base", "block"), [(Gaussian(), 1), (Antithetic(), 2), (Gaussian(), 4), (Antithetic(), 4), (Gaussian(), 96)]
)
@pytest.mark.parametrize("separable", [True, False])
def test_tiled_noise_equals_fused_noise(base: Sampler, block: int, separable: bool) -> None:
    """Sums do not depend on the path; squares of block sums are those of the blocks that the sampler declares."""
    n, dim = 192, 4300
    tiled, fused = Tiled(base, block, separable).noise(KEY, n, dim), base.noise(KEY, n, dim)
    rows, weights = _table(n, dim), np.random.default_rng(1).standard_normal((2, n))
    eps = fused.rows().astype(np.float64)
    for kind in (np.float32, np.float64):
        for scale in (np.array([0.3]), np.linspace(0.1, 1.0, dim)):
            a, b = np.empty((n - 5, dim), kind), np.empty((n - 5, dim), kind)
            tiled.displace(rows[0], scale, 3, a)
            fused.displace(rows[0], scale, 3, b)
            assert a.tobytes() == b.tobytes()
    size = np.sqrt((weights**2) @ (eps**4 + 1.0))
    out, squares = moment(tiled, weights, (1, 2), squares=True)
    assert np.all(np.abs(out - moment(fused, weights, (1, 2))) <= 3e-6 * size)
    for k, terms in enumerate((weights[0, :, None] * eps, weights[1, :, None] * (eps**2 - 1.0))):
        blocks = terms.reshape(-1, block, dim).sum(axis=1)
        assert np.all(np.abs(out[k] - blocks.sum(axis=0)) <= 2e-14 * size[k])
        assert np.all(np.abs(squares[k] - (blocks**2).sum(axis=0)) <= 1e-13 * (blocks**2).sum(axis=0))
    if block == base.block:
        assert np.all(np.abs(squares - moment(fused, weights, (1, 2), squares=True)[1]) <= 3e-6 * size**2)
    assert np.all(np.abs(tiled.dot(rows) - fused.dot(rows)) <= 1e-14 * _length(rows * eps, 1))
    assert np.all(np.abs(tiled.norms() / fused.norms() - 1.0) <= 1e-14)
    total, total_squares = tiled.weighted(rows, True)
    blocks = (rows * eps).reshape(-1, block, dim).sum(axis=1)
    assert np.all(np.abs(total - fused.weighted(rows)[0]) <= 2e-14 * _length(rows * eps, 0))
    assert np.all(np.abs(total_squares - (blocks**2).sum(axis=0)) <= 1e-13 * (blocks**2).sum(axis=0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_threads_change_no_bit(sampler: Sampler) -> None:
    """At a size where two threads take the parallel kernels and one takes the serial ones."""
    if numba.config.NUMBA_NUM_THREADS == 1:
        pytest.skip("this machine has one core")
    noise, rows = sampler.noise(KEY, 140, 5000), _table(140, 5000)
    weights, before, found = rows[:, :3].T.copy(), numba.get_num_threads(), []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        wide, narrow = np.empty((140, 5000)), np.empty((140, 5000), np.float32)
        noise.displace(rows[0], np.ones(1), 0, wide)
        noise.displace(rows[0], np.ones(5000), 0, narrow)
        sums = *moment(noise, weights, (1, 2, 1), squares=True), moment(noise, weights, 2)
        found.append([wide, narrow, *sums, noise.dot(rows), project(noise, rows[0]), noise.norms()])
        found[-1] += noise.weighted(rows, True)
    numba.set_num_threads(before)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("block", "mirrored"), [(1, False), (3, False), (2, True), (6, True)])
def test_given_is_plain_float64(block: int, mirrored: bool) -> None:
    n, dim = 12, 7
    eps = twin.mirror(_table(n // 2, dim)) if mirrored else _table(n, dim)
    noise, rows, weights = Given(eps, block, mirrored), _table(n + 1, dim)[1:], _table(2, n)
    assert (noise.n, noise.dim, noise.block, noise.mirrored, noise.key) == (n, dim, block, mirrored, Key(0))
    assert np.array_equal(noise.rows(), eps)
    assert np.array_equal(noise.rows(2, 5), eps[2:5])
    assert np.array_equal(noise.resize(6).rows(), eps[:6])

    out = np.empty((4, dim))
    noise.displace(rows[0], np.linspace(0.1, 1.0, dim), 3, out)
    assert np.allclose(out, rows[0] + np.linspace(0.1, 1.0, dim) * eps[3:7], rtol=0.0, atol=1e-15)
    sums, squares = moment(noise, weights, (1, 2), squares=True)
    for k in (0, 1):
        exact, exact_squares, _ = twin.moment(eps, weights[k], k + 1, block)
        assert np.allclose(sums[k], exact, rtol=0.0, atol=1e-14)
        assert np.allclose(squares[k], exact_squares, rtol=1e-13, atol=1e-28)
    exact, exact_squares = twin.weighted(eps, rows, block)
    total, total_squares = noise.weighted(rows, True)
    assert np.allclose(total, exact, rtol=0.0, atol=1e-14)
    assert np.allclose(total_squares, exact_squares, rtol=1e-13, atol=0.0)
    assert np.allclose(noise.dot(rows), twin.dot(eps, rows), rtol=0.0, atol=1e-14)
    assert np.allclose(project(noise, rows[0]), eps @ rows[0], rtol=0.0, atol=1e-14)
    assert np.allclose(noise.norms(), (eps**2).sum(axis=1), rtol=1e-14, atol=0.0)
    assert np.allclose(noise.norms(rows[0]), eps**2 @ rows[0], rtol=0.0, atol=1e-13)
    with pytest.raises(ValueError, match="weights of shape"):
        noise.norms(np.ones(noise.dim + 1))


def test_given_refuses_rows_that_are_not_what_they_are_said_to_be() -> None:
    with pytest.raises(ValueError, match=r"rows of shape \(3,\) in blocks of 1\. Pass \(n, d\)"):
        Given(np.ones(3))
    with pytest.raises(ValueError, match=r"rows of shape \(3, 2\) in blocks of 2"):
        Given(np.ones((3, 2)), block=2)
    with pytest.raises(ValueError, match=r"even block, and row 2k \+ 1 equal to minus row 2k"):
        Given(np.ones((4, 2)), block=2, mirrored=True)
    with pytest.raises(ValueError, match="even block"):
        Given(np.zeros((3, 2)), block=1, mirrored=True)
    with pytest.raises(ValueError, match=r"has 4 rows and cannot grow to 6\. Pass more rows"):
        Given(np.ones((4, 2))).resize(6)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Key(-1), ValueError, r"seed must be in \[0, 2\*\*64\), got -1"),
        (lambda: Key(2**64), ValueError, r"seed must be in \[0, 2\*\*64\)"),
        (lambda: Key(0.0), TypeError, "seed must be an integer, got float"),
        (lambda: Key(1, -1), ValueError, r"generation must be in \[0, 2\*\*32\), got -1"),
        (lambda: Key(1, 2**32), ValueError, r"generation must be in \[0, 2\*\*32\), got 4294967296"),
        (lambda: Key(1, 0, 2**32), ValueError, r"stream must be in \[0, 2\*\*32\)"),
        (lambda: Key(1, True), TypeError, "generation must be an integer, got bool"),
        (lambda: child(-1, 0), ValueError, r"seed must be in \[0, 2\*\*64\), got -1"),
        (lambda: child(1, 2**32), ValueError, r"index must be in \[0, 2\*\*32\), got 4294967296"),
        (lambda: child(1, -1), ValueError, r"index must be in \[0, 2\*\*32\), got -1"),
        (lambda: Given(np.ones((2, 2)), block=0), ValueError, "block=0"),
        (lambda: Given(np.ones((2, 2)), block=1.0), ValueError, "block=1.0"),
        (lambda: moment(Given(np.ones((2, 2))), np.ones(2) * 1j), TypeError, "dtype complex128. Pass real numbers"),
        (lambda: moment(Given(np.ones((2, 2))), np.ones(2), 3), ValueError, "Pass 1 or 2 for each"),
    ],
)
def test_addresses_outside_the_counter_are_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_keys_are_tuples_that_can_be_sent():
    key = Key(np.uint64(2**64 - 1), np.int64(2**32 - 1), 2**32 - 1)

    assert key == (2**64 - 1, 2**32 - 1, 2**32 - 1)
    assert repr(Key(3)) == "Key(seed=3, generation=0, stream=0)"
    assert (type(copy := pickle.loads(pickle.dumps(key))), copy) == (Key, key)


def test_degree_may_be_a_numpy_integer():
    noise, weights = Given(np.array([[2.0], [3.0]])), np.ones(2)

    assert moment(noise, weights, np.int64(2)).tolist() == moment(noise, weights, 2).tolist() == [11.0]
