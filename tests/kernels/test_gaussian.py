"""The Gaussian kernels against their naive twins, bit for bit where that is promised."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.stats import norm

from esopt._kernels import gaussian, philox
from tests.kernels import digests
from tests.reference import noise as twin

ROOT = Path(__file__).parents[2]
AT = (3, 0, np.uint64(11))
F32 = np.float32
Array = np.ndarray[Any, Any]

GOLDEN = {
    "noise": "a3441bfb9e8f1a1e71562466180a7a2eff687f5ee1ff8199a864ac5c178114b6",
    "population32": "332e3175debce68658445f3f890f7daf33fd9acca5b29c3f5af1ca110722fd63",
    "population64": "fbf2673c4a8c89f751a2821cf52293e4f8af5f1bbe4751a1acd1089d76f3b474",
    "seeds": "4487d3c36a42ed2868045e783a75b9642c2d8179a2eed77d73f347e487193abd",
}
GOLDEN_LARGE = "7f664c642b83ae5b39ddcb426cc9307c31dcee8039e34edb850f75f131888ed0"

# Corners of the address space: a 34-bit column, a 32-bit row, generation and stream, a 64-bit seed.
COLUMN = st.sampled_from([0, 2**31, 2**32, 2**34 - 1024]).flatmap(lambda base: st.integers(base, base + 300))
WORD = st.sampled_from([0, 2**31 - 5, 2**32 - 20]).flatmap(lambda base: st.integers(base, base + 10))
SEED = st.integers(0, 2**64 - 1)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the parallel kernels on this many threads."""
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("this machine has one core")
    before = numba.get_num_threads()
    numba.set_num_threads(request.param)
    yield request.param
    numba.set_num_threads(before)


def _eps(n: int, dim: int, column: int = 0, row: int = 0) -> Array:
    out = np.empty((n, dim), F32)
    gaussian.fill(out, row, column, *AT)
    return out.astype(np.float64)


def _same(a: Array, b: Array) -> bool:
    """Equal to the bit, signs of zeros included."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@njit
def _radii(words, out):  # type: ignore[no-untyped-def]
    for i in range(words.size):
        out[i] = philox.radius(words[i])


@njit
def _sines(turns, out):  # type: ignore[no-untyped-def]
    for i in range(turns.size):
        out[i] = philox.sin_turns(turns[i])


@njit
def _pairs(a, b, first, second):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        first[i], second[i] = philox.box_muller(a[i], b[i])


@pytest.fixture(scope="module")
def words() -> Array:
    """Every value that the top 24 bits of a word can have."""
    return np.arange(2**24, dtype=np.uint32) << np.uint32(8)


@pytest.fixture(scope="module")
def radii(words: Array) -> Array:
    """Every radius there is."""
    out = np.empty(words.size, F32)
    _radii(words, out)
    return out


@pytest.fixture(scope="module")
def sines(words: Array) -> Array:
    """Every sine there is."""
    out = np.empty(words.size, F32)
    _sines(twin.turn(words).astype(F32), out)
    return out


def test_the_logarithm_is_as_good_as_it_says() -> None:
    m = np.linspace(math.sqrt(0.5), math.sqrt(2.0), 200_001) - 1.0
    m = m[np.abs(m) > 1e-6]
    log = m - m**2 / 2 + m**3 * np.polyval(np.array(twin.LOG, F32).astype(np.float64), m)

    assert 6.0e-9 < np.abs(log / np.log1p(m) - 1.0).max() < 6.5e-9


def test_the_sine_is_as_good_as_it_says() -> None:
    v = np.linspace(0.0, 0.25, 200_001)[1:]
    sine = v * np.polyval(np.array(twin.SINE, F32).astype(np.float64), v**2)

    assert 4.0e-8 < np.abs(sine / np.sin(2.0 * np.pi * v) - 1.0).max() < 4.3e-8


def test_every_radius_and_every_sine(words: Array, radii: Array, sines: Array) -> None:
    """Errors over all 2**24 arguments; the error of any normal is below 5.89 * 1.7e-7 + 4.7e-7 + 2.4e-7 < 1.8e-6."""
    exact_radii = np.sqrt(-2.0 * np.log(twin.uniform(words)))
    exact_sines = np.sin(2.0 * np.pi * twin.turn(words))

    assert np.abs(radii - exact_radii).max() < 4.7e-7
    assert np.abs(radii / np.maximum(exact_radii, 1e-9) - 1.0)[:-1].max() < 1.2e-7
    assert np.abs(sines - exact_sines).max() < 1.7e-7
    assert radii.min() == 0.0
    assert 5.887 < radii.max() < 5.8871
    assert np.abs(sines).max() <= 1.0 + 2.0**-23


def test_the_law_of_a_normal_is_the_normal_law(radii: Array, sines: Array) -> None:
    """Moments and tails of radius * sine over all 2**48 pairs of words: what perfect random bits would give."""
    r, s = radii.astype(np.float64), sines.astype(np.float64)
    tolerances = 3e-7, 3e-7, 3e-7, 3e-7, 2e-6, 4e-6, 1e-5, 2.5e-5
    powers = np.ones_like(r), np.ones_like(s)
    for power, tolerance in enumerate(tolerances, start=1):
        for total, factor in zip(powers, (r, s), strict=True):
            total *= factor
        ideal = math.prod(range(power - 1, 0, -2)) if power % 2 == 0 else 0
        assert abs(powers[0].mean() * powers[1].mean() - ideal) < tolerance * max(1, ideal)
    for z, tolerance in [(0.5, 1e-8), (1, 1e-8), (2, 1e-8), (3, 1e-7), (4, 1e-5), (4.5, 1e-4), (5, 2e-3), (5.5, 0.03)]:
        outside = np.sum(1.0 - 2.0 / np.pi * np.arcsin(z / r[r > z])) / r.size
        assert abs(outside / (2.0 * norm.sf(z)) - 1.0) < tolerance


def test_normals_are_those_of_the_twins_to_the_bit(words: Array, radii: Array) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 2**32, (2, 1 << 18), np.uint32)
    z = np.empty((2, a.size), F32)
    _pairs(a, b, *z)

    assert _same(z, np.array(twin.box_muller32(a, b)))
    assert np.abs(z - np.array(twin.box_muller64(a, b))).max() < 1.2e-6
    assert _same(radii[::127], twin.radius32(words[::127]))


@settings(max_examples=60)
@given(WORD, COLUMN, WORD, WORD, SEED, st.integers(1, 400))
def test_fill_is_the_twin_at_any_address(
    row: int, column: int, generation: int, stream: int, seed: int, width: int
) -> None:
    out = np.empty((2, width), F32)
    gaussian.fill(out, row, column, generation, stream, np.uint64(seed))
    address = generation, stream, seed

    assert _same(out, np.array([twin.normals32(address, row + i, column, width) for i in (0, 1)]))
    assert np.abs(out[1] - twin.normals64(address, row + 1, column, width)).max() < 1.2e-6


@settings(max_examples=60)
@given(
    WORD,
    COLUMN,
    st.lists(st.integers(1, 200), min_size=1, max_size=4),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_a_rectangle_is_the_sum_of_its_pieces(row: int, column: int, widths: list[int], heights: list[int]) -> None:
    whole = np.empty((sum(heights), sum(widths)), F32)
    gaussian.fill(whole, row, column, *AT)
    rows, columns = np.cumsum([0, *heights]), np.cumsum([0, *widths])
    for i, height in enumerate(heights):
        for j, width in enumerate(widths):
            piece = np.empty((height, width), F32)
            gaussian.fill(piece, row + int(rows[i]), column + int(columns[j]), *AT)
            assert _same(piece, whole[rows[i] : rows[i + 1], columns[j] : columns[j + 1]])


def test_bits_never_change() -> None:
    small = digests.small()

    assert {name: small[name] for name in GOLDEN} == GOLDEN
    assert digests.noise(16, 1000) == GOLDEN_LARGE


def _python(*arguments: str, **environment: str) -> dict[str, Any]:
    """Run Python in a process of its own and return the JSON that it prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_interpreter_writes_the_same_bits() -> None:
    assert _python(digests.__file__, NUMBA_DISABLE_JIT="1") == digests.small()


@pytest.mark.slow
def test_a_plain_processor_writes_the_same_bits(tmp_path: Path) -> None:
    """Compiled for a machine without fused multiply-add and wide vectors."""
    plain = _python(digests.__file__, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path))

    assert plain == digests.small()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("mirrored", "start", "n"), [(False, 0, 5), (False, 3, 1), (True, 0, 6), (True, 3, 4), (True, 4, 3)]
)
@pytest.mark.parametrize("dim", [1, 63, 2049, 4100])
def test_population_is_mean_plus_scale_times_noise(
    kind: type[np.floating[Any]], mirrored: bool, start: int, n: int, dim: int, threads: int
) -> None:
    rng = np.random.default_rng(dim)
    mean = rng.standard_normal(dim)
    base = _eps(start + n, dim)
    eps = (twin.mirror(base) if mirrored else base)[start : start + n]
    for scale in (rng.uniform(0.1, 3.0, 1), rng.uniform(0.1, 3.0, dim)):
        for kernel in (gaussian.population, gaussian.population_parallel):
            out = np.full((n, dim), np.nan, kind)
            kernel(mean, scale, mirrored, start, *AT, out)
            assert _same(out, (mean + scale * eps).astype(kind))


def _weights(kind: str, n: int) -> Array:
    rng = np.random.default_rng(n)
    return {
        "normal": rng.standard_normal(n),
        "equal": np.ones(n),
        "scales": rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-30.0, 30.0, n),
        "sparse": np.where(rng.random(n) < 0.2, rng.standard_normal(n), 0.0),
        "zero": np.zeros(n),
    }[kind]


def _moment(
    weights: Array, degrees: list[int], dim: int, squares: bool, kernel: Any = gaussian.moment
) -> tuple[Array, Array]:
    out, block_squares = np.zeros((len(weights), dim)), np.zeros((len(weights) if squares else 0, dim))
    kernel(weights.astype(F32), np.array(degrees), *AT, out, block_squares)
    return out, block_squares


@pytest.mark.parametrize("kind", ["normal", "equal", "scales", "sparse", "zero"])
@pytest.mark.parametrize(("n", "dim"), [(1, 1), (3, 2049), (256, 64), (257, 65), (600, 130)])
def test_moment_is_the_exact_sum(kind: str, n: int, dim: int) -> None:
    """Float32 sums of at most 256 terms: errors of 2e-6 of the length of the terms, in any column."""
    weights, eps = _weights(kind, n), _eps(n, dim)
    largest = np.abs(weights).max() or 1.0
    for degree in (1, 2):
        exact, exact_squares, size = twin.moment(eps, weights / largest, degree)
        out, _ = _moment(weights[None] / largest, [degree], dim, False)
        again, squares = _moment(weights[None] / largest, [degree], dim, True)
        assert np.all(np.abs(out[0] - exact) <= 2e-6 * size)
        assert _same(out, again)
        assert np.all(np.abs(squares[0] - exact_squares) <= 2e-6 * size**2)


def test_chunks_keep_long_sums_sharp() -> None:
    """Over 2**14 units one float32 sum would be off by 4e-6 of the length of the terms."""
    weights, eps = np.ones(2**14), _eps(2**14, 64)
    exact, exact_squares, size = twin.moment(eps, weights, 1)
    out, squares = _moment(weights[None], [1], 64, True)

    assert np.sqrt(np.mean(((out[0] - exact) / size) ** 2)) < 1e-6
    assert np.abs(squares[0] / exact_squares - 1.0).max() < 1e-6


def test_several_weight_vectors_are_as_many_single_ones(threads: int) -> None:
    """One pass, or one for each vector, or the parallel twin: the same bits; a sum adds to what is there already."""
    dim, degrees = 4097, [1, 2, 1, 2, 1]
    weights = np.array(
        [_weights(kind, 300) / np.abs(_weights(kind, 300)).max() for kind in ("normal", "equal", "scales")]
    )
    weights = np.concatenate([weights, _weights("sparse", 300)[None], np.zeros((1, 300))])
    for squares in (False, True):
        out, block_squares = _moment(weights, degrees, dim, squares)
        singles = [_moment(weights[k : k + 1], [degrees[k]], dim, squares) for k in range(5)]
        parallel = _moment(weights, degrees, dim, squares, gaussian.moment_parallel)
        assert _same(out, np.concatenate([single[0] for single in singles]))
        assert _same(block_squares, np.concatenate([single[1] for single in singles]))
        assert _same(out, parallel[0])
        assert _same(block_squares, parallel[1])
        assert not out[4].any()
    more, none = out.copy(), np.zeros((0, dim))
    gaussian.moment(weights.astype(F32), np.array(degrees), *AT, more, none)
    assert np.abs(more - 2.0 * out).max() < 1e-13 * np.abs(out).max()


@pytest.mark.parametrize(("n", "dim"), [(1, 1), (5, 64), (9, 2047), (4, 4200)])
@pytest.mark.parametrize("kind", ["normal", "scales"])
def test_dot_is_the_exact_sum(n: int, dim: int, kind: str, threads: int) -> None:
    rows = _weights(kind, n * dim).reshape(n, dim)
    eps = _eps(n, dim)
    for table in (rows, rows[:1]):
        out, parallel = np.full(n, np.nan), np.full(n, np.nan)
        gaussian.dot(table, *AT, out)
        gaussian.dot_parallel(table, *AT, parallel)
        assert _same(out, parallel)
        assert np.all(np.abs(out - twin.dot(eps, table)) <= 1e-14 * np.sqrt(((table * eps) ** 2).sum(axis=1)))


@pytest.mark.parametrize(("n", "dim"), [(1, 1), (5, 64), (9, 2047), (4, 4200)])
def test_norms_are_the_exact_sums(n: int, dim: int, threads: int) -> None:
    eps = _eps(n, dim)
    out, parallel = np.full(n, np.nan), np.full(n, np.nan)
    gaussian.norms(np.ones(1), dim, *AT, out)
    gaussian.norms_parallel(np.ones(1), dim, *AT, parallel)

    assert _same(out, parallel)
    assert np.all(np.abs(out / twin.dot(eps, eps) - 1.0) < 1e-14)

    weights = np.linspace(0.5, 3.0, dim)
    gaussian.norms(weights, dim, *AT, out)
    gaussian.norms_parallel(weights, dim, *AT, parallel)

    assert _same(out, parallel)
    assert np.all(np.abs(out / twin.dot(eps, weights * eps) - 1.0) < 1e-14)


def test_fold_gives_coefficients_of_units_and_their_scale() -> None:
    """w(+) - w(-) in degree 1, w(+) + w(-) in degree 2, relative to the largest; a vector of zeros stays one."""
    weights = np.stack([_weights(kind, 12) for kind in ("normal", "scales", "zero", "normal")])
    degrees = np.array([1, 2, 2, 2])
    pairs = np.where(degrees[:, None] == 1, -1.0, 1.0) * weights[:, 1::2] + weights[:, ::2]
    for mirrored, units in ((True, pairs), (False, weights)):
        coefficients, largest = np.empty(units.shape, F32), np.empty(4)
        gaussian.fold(weights, degrees, mirrored, coefficients, largest)
        expected = np.where(np.abs(units).max(axis=1) > 0.0, np.abs(units).max(axis=1), 1.0)
        assert np.array_equal(largest, expected)
        assert _same(coefficients, (units / expected[:, None]).astype(F32))


@pytest.mark.parametrize(("n", "dim"), [(1, 1), (5, 64), (300, 70), (4, 4200)])
@pytest.mark.parametrize("kind", ["normal", "scales"])
def test_weighted_is_the_exact_sum(n: int, dim: int, kind: str, threads: int) -> None:
    rows = _weights(kind, n * dim).reshape(n, dim)
    exact, exact_squares = twin.weighted(_eps(n, dim), rows)
    for size in (0, dim):
        out, squares = np.zeros(dim), np.zeros(size)
        parallel, parallel_squares = np.zeros(dim), np.zeros(size)
        gaussian.weighted(rows, *AT, out, squares)
        gaussian.weighted_parallel(rows, *AT, parallel, parallel_squares)
        assert _same(out, parallel)
        assert _same(squares, parallel_squares)
        assert np.all(np.abs(out - exact) <= 2e-14 * np.sqrt(exact_squares))
        assert np.all(np.abs(squares - exact_squares[:size]) <= 1e-14 * exact_squares[:size])


TYPICAL = """
import json
import numba, numpy as np
from esopt._kernels import gaussian, seeds
from esopt.noise import Key, child, evaluation_seeds, moment, project
from esopt.samplers.antithetic import Antithetic
from esopt.samplers.gaussian import Gaussian

numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
for sampler in Gaussian(), Antithetic():
    for n, dim in (4, 10), (128, 5000):
        for generation in 0, np.int64(7):
            noise = sampler.noise(Key(2**64 - 1, generation), n, dim)
            mean, weights, table = np.zeros(dim), np.linspace(-1, 1, n), np.ones((n, dim))
            for kind in np.float32, np.float64:
                noise.displace(mean, np.ones(1), 0, np.empty((n, dim), kind))
                noise.displace(mean, np.ones(dim), 1, np.empty((n - 1, dim), kind))
            noise.rows(), noise.rows(1, 3), list(noise.tiles())
            moment(noise, weights), moment(noise, weights, 2, squares=True)
            moment(noise, np.stack([weights, weights]), (1, 2), squares=True)
            project(noise, mean), noise.dot(table), noise.weighted(table), noise.weighted(table, True), noise.norms()
            evaluation_seeds(noise.key, n, 1, mirrored=noise.mirrored)
child(1, 2)
kernels = {**vars(gaussian), **vars(seeds)}.items()
print(json.dumps({name: len(kernel.signatures) for name, kernel in kernels if hasattr(kernel, "signatures")}))
"""


def test_kernels_are_compiled_for_the_expected_types_only() -> None:
    """A stray type (a float32 mean, an array in another order) would compile a kernel once more, for seconds."""
    found = _python("-c", TYPICAL)
    parallel = int(numba.config.NUMBA_NUM_THREADS > 1)
    assert found["population"] == 2, "float32 and float64 output"
    assert found["population_parallel"] == 2 * parallel
    for name in ("fill", "fold", "moment", "dot", "norms", "weighted", "hash_rows"):
        assert found[name] == 1
    for name in ("moment", "dot", "norms", "weighted"):
        assert found[f"{name}_parallel"] == parallel
