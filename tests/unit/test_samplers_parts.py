"""What all samplers share: bits of kernels, laws that estimators look at, and a run with each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Antithetic, Bonnet, Gaussian, Given, Key, Law, Population, Score
from tests.kernels import sampler_digests

# Law A: the same on any machine.
GOLDEN = {
    "orthogonal": "da6e0fde5f013283f7a4f9d43e04a2e5",
    "orthogonal_beyond_dim": "4817e98b69960d4c489889af04e974a5",
    "sphere": "617cc1b2257a6836edb02e96a7e57302",
    "rademacher": "3968ffe9d1d492f607d0048a16265309",
    "hadamard": "42f3ab8b5d093355e2471be4966d1556",
    "low_rank": "7c0883aacba9eff3712920464e50137a",
    "moments": "1170f32bdd30bc68e4f18ef63ae1db4f",
}
GAUSSIANS = [esopt.Gaussian(), esopt.Orthogonal(), esopt.Sobol(2), esopt.Halton(2)]
OTHERS = [esopt.Sphere(), esopt.Rademacher(), esopt.Hadamard(), esopt.LowRank((2, 4))]


def _digests_with(**environment: str) -> dict[str, str]:
    root = Path(sampler_digests.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(sampler_digests.__file__))],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def test_golden_bits() -> None:
    assert sampler_digests.everything() == GOLDEN


def test_the_interpreter_gives_the_same_bits() -> None:
    assert _digests_with(NUMBA_DISABLE_JIT="1") == GOLDEN


@pytest.mark.slow
def test_a_machine_without_vectors_gives_the_same_bits(tmp_path: Path) -> None:
    assert _digests_with(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path)) == GOLDEN


def _population(sampler: Any, dim: int = 8, n: int = 8) -> Population:
    return Population(np.zeros(dim), 0.5, sampler.noise(Key(1), n, dim))


@pytest.mark.parametrize("sampler", GAUSSIANS + [Antithetic(part) for part in GAUSSIANS], ids=repr)
def test_score_gives_the_scale_of_gaussian_rows(sampler: Any) -> None:
    score = Score(with_scale=True)

    assert sampler.law is Law.GAUSSIAN
    assert score.prepare(_population(sampler), score.init(8)).n == 8


@pytest.mark.parametrize("sampler", OTHERS + [Antithetic(part) for part in OTHERS], ids=repr)
def test_score_refuses_the_scale_of_other_rows(sampler: Any) -> None:
    population = _population(sampler)
    with pytest.raises(ValueError, match=r"Score\(with_scale=True\) got noise that is .*N\(0, I\)\. Use a") as e:
        Score(with_scale=True).prepare(population, Score().init(8))

    assert population.noise.law.value in str(e.value)
    assert Score().prepare(population, Score().init(8)) is population
    assert Bonnet(with_scale=True).prepare(population, ()).n == 8


def test_explicit_rows_declare_their_law() -> None:
    rows = np.ones((4, 2))

    assert Given(rows).law is Law.GAUSSIAN
    noise = Given(rows, law=Law.SPHERE)
    assert noise.resize(2).law is Law.SPHERE
    with pytest.raises(ValueError, match="uniform on the sphere"):
        Score(with_scale=True).prepare(Population(np.zeros(2), 0.5, noise), Score().init(2))


@pytest.mark.parametrize("base", GAUSSIANS + OTHERS, ids=repr)
@pytest.mark.parametrize("pairs", [False, True], ids=["rows", "pairs"])
def test_a_run_with_each_of_them(base: Any, pairs: bool) -> None:
    """|x - c|^2 in 8 dimensions from distance 2.8: after 60 generations of 16 each has covered most of the way."""
    target = np.linspace(-1.0, 1.0, 8) + 1.0
    sampler = Antithetic(base) if pairs else base
    parts: dict[str, Any] = {"sampler": sampler, "rule": esopt.Adam(0.1), "estimator": Score(esopt.AtMean())}
    strategy = esopt.GradientES(sigma=0.1, n=16, **parts)
    result = esopt.minimize(lambda x: np.square(x - target).sum(), np.zeros(8), strategy=strategy, generations=60)

    assert np.square(result.mean - target).sum() < 0.1 * np.square(target).sum()


def test_every_sampler_is_exported_and_frozen() -> None:
    for part in [*GAUSSIANS, *OTHERS, Antithetic(Gaussian())]:
        assert getattr(esopt, type(part).__name__) is type(part)
        assert hash(part) == hash(type(part)(**vars(part)))
        with pytest.raises(AttributeError):
            part.law = Law.SPHERE  # type: ignore[misc]
