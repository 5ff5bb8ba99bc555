"""Bonnet is unbiased with the exact variance of the theory (E19, E20, S5, S6, D3, D4): all nodes, to 1e-12."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from esopt import Bonnet
from tests.reference import oracles
from tests.statistical import exact

KINDS = ["scalar", "diagonal"]


def variances(kind: str, dim: int, pair: bool, units: int) -> dict[str, Any]:
    sigma = exact.sigma_of(kind, dim)
    _, a, h, _ = exact.quadratic(dim).at(exact.mean(dim), sigma)
    by_mean = np.zeros(dim) if pair else oracles.bonnet_mean(h)
    if kind == "scalar":
        scale: Any = oracles.bonnet_sigma(a, h, pair=pair) / sigma[0] ** 2
    else:
        scale = oracles.bonnet_log_scale(a, h, pair=pair)
    value = oracles.variance_of_value(a, h, pair=pair)
    return {"mean": by_mean / sigma**2 / units, "scale": scale / units, "value": value / units}


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("units", "dim"), [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (2, 2), (3, 2)])
def test_quadratic(units: int, dim: int, kind: str, pair: bool) -> None:
    """Also the squared standard errors: their expectation is the variance."""
    found = exact.run(Bonnet(with_scale=True), exact.quadratic(dim), kind, units, dim, 3, pair=pair)
    expected = variances(kind, dim, pair, units)

    exact.unbiased(found, exact.quadratic(dim), kind, dim)
    exact.varies(found, expected)
    if units > 1:
        exact.errors(found, expected)


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_cubic(dim: int, kind: str, pair: bool) -> None:
    """Unbiased where the gradient is curved; E20 on the cubic: half of sigma^4 |t|^2 over a pair."""
    found = exact.run(Bonnet(with_scale=True), exact.cubic(dim), kind, 1, dim, 4, pair=pair)
    sigma = exact.sigma_of(kind, dim)
    exact.unbiased(found, exact.cubic(dim), kind, dim)
    if pair:
        t = exact.cubic(dim).at(exact.mean(dim), sigma)[3]
        total = (found["mean"].variance * sigma**2).sum()
        assert abs(total - oracles.cubic_bonnet_pair(t)) < 1e-12 * (found["mean"].square * sigma**2).sum()


def test_totals_are_those_of_the_theory() -> None:
    """E19, S5, S6, D3, D4 as the tables have them."""
    dim, sigma = 3, 0.7
    _, a, h, _ = exact.quadratic(dim).at(exact.mean(dim), np.ones(dim))
    h2, aa = (h * h).sum(), a @ a
    d = exact.sigma_of("diagonal", dim)
    at, ht = d * a, d[:, None] * h * d

    assert variances("scalar", dim, False, 1)["mean"].sum() == pytest.approx(sigma**2 * h2, rel=1e-14)
    assert variances("scalar", dim, False, 1)["scale"] == pytest.approx(aa + 2 * sigma**2 * h2, rel=1e-14)
    assert variances("scalar", dim, True, 1)["scale"] == pytest.approx(2 * sigma**2 * h2, rel=1e-14)
    d4 = (ht * ht).sum() + np.square(np.diag(ht)).sum()
    assert variances("diagonal", dim, True, 1)["scale"].sum() == pytest.approx(d4, rel=1e-14)
    assert variances("diagonal", dim, False, 1)["scale"].sum() == pytest.approx(at @ at + d4, rel=1e-14)
