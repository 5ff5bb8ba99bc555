"""LowRank: the product of its factors, its law, its shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from esopt import Antithetic, Gaussian, Key, Law, LowRank
from tests.reference import samplers as twin

KEY = Key(2**40 + 7, 3, 17)


@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("shapes", [((3, 4),), ((1, 6), (6,)), ((8, 5), (8,), (2, 8), (2,)), ((7,),)])
def test_rows_are_products_of_gaussian_columns(shapes: tuple[tuple[int, ...], ...], rank: int) -> None:
    dim = sum(int(np.prod(shape)) for shape in shapes)
    width = sum(shape[0] if len(shape) == 1 else rank * sum(shape) for shape in shapes)
    factors = Gaussian().noise(KEY, 4, width).rows().astype(np.float64)
    found = LowRank(rank=rank, shapes=shapes).noise(KEY, 4, dim).rows()
    expected = [twin.low_rank(row, shapes, rank) for row in factors]

    np.testing.assert_allclose(found, expected, rtol=0.0, atol=3e-6)


def test_one_shape_is_a_list_of_one() -> None:
    one, listed = LowRank((3, 4), 2), LowRank(rank=2, shapes=((3, 4),))

    assert np.array_equal(one.noise(KEY, 3, 12).rows(), listed.noise(KEY, 3, 12).rows())
    assert one.law is Antithetic(one).noise(KEY, 4, 12).law is Law.LOW_RANK


@pytest.mark.parametrize("rank", [1, 3])
def test_matrices_have_the_rank_and_their_entries_the_moments(rank: int) -> None:
    """E e = 0, E e^2 = 1, E e^4 = 3 + 6 / r, and entries are uncorrelated."""
    n = 40_000
    rows = LowRank((4, 5), rank).noise(Key(1), n, 20).rows().astype(np.float64)

    assert np.linalg.matrix_rank(rows[0].reshape(4, 5), tol=1e-4) == rank
    fourth = np.mean(rows**4, axis=1)
    assert abs(fourth.mean() - (3.0 + 6.0 / rank)) < 5.0 * fourth.std() / np.sqrt(n) < 1.2
    second = rows.T @ rows / n
    bound = 5.0 * np.sqrt((2.0 + 6.0 / rank) / n)
    assert np.abs(second - np.eye(20)).max() < bound < 0.1
    assert np.abs(rows.mean(axis=0)).max() < 5.0 / np.sqrt(n)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, r"got shape=None and shapes=\(\)\. Give one of them"),
        ({"shape": (2, 3), "shapes": ((2, 3),)}, r"Give one of them"),
        ({"shape": (4,)}, r"the part \(4,\)\. Give tuples of positive integers"),
        ({"shapes": ((2, 3, 4),)}, r"the part \(2, 3, 4\)"),
        ({"shapes": ((2, 0),)}, r"the part \(2, 0\)"),
        ({"shapes": ((2, 3), 4)}, r"the part 4"),
        ({"shape": (2, 2.0)}, r"the part \(2, 2\.0\)"),
        ({"shape": (2, 2), "rank": 0}, r"at least 1 for rank, got 0"),
    ],
)
def test_low_rank_says_what_it_got(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LowRank(**arguments)


def test_sizes_must_add_up() -> None:
    with pytest.raises(ValueError, match=r"parts of \[12, 5\] entries, 17 in all, for dim=18\. Give the shapes of all"):
        LowRank(shapes=((3, 4), (5,))).noise(KEY, 2, 18)
