"""Checkpoints of earlier formats are read; those of later ones are refused by name.

The files in ``format1`` were written by the last version of that format, after five generations: see RUNS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import CheckpointError, checkpoint
from tests.reference.runs import bumpy, bumpy_grad

HERE = Path(__file__).parent / "format1"
X0 = np.linspace(-1.0, 2.0, 6)
RUNS: dict[str, Any] = {
    "snes": esopt.snes(n=6),
    "cmaes": esopt.CMAES(n=8),
    "bonnet": esopt.GradientES(n=4, estimator=esopt.Bonnet(), rule=esopt.Momentum(0.01)),
    "minimize": esopt.snes(n=6),
}


def step(es: esopt.Optimizer) -> None:
    rows = es.ask()
    grads = [bumpy_grad(x) for x in rows] if "grads" in es.population().needs else None
    es.tell([bumpy(x) for x in rows], grads)


@pytest.mark.parametrize("name", RUNS)
def test_format_1_goes_on(name: str, tmp_path: Path) -> None:
    es, straight = (esopt.Optimizer(RUNS[name], X0, seed=11) for _ in range(2))
    es.load(HERE / f"{name}.npz")
    assert (es.generation, es.pending.size) == (5, len(es.population()))
    for _ in range(8):
        step(straight)
    for _ in range(3):
        step(es)
    np.testing.assert_allclose(es.mean, straight.mean, rtol=1e-9)
    assert es.progress.evaluations == straight.progress.evaluations

    es.save(tmp_path / "run.npz")
    again = esopt.Optimizer(RUNS[name], X0, seed=11)
    again.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(again.mean, es.mean)


def test_minimize_goes_on_with_format_1(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    path.write_bytes((HERE / "minimize.npz").read_bytes())
    settings: dict[str, Any] = {"strategy": RUNS["minimize"], "seed": 11, "generations": 9}
    resumed = esopt.minimize(bumpy, X0, checkpoint=path, **settings)
    straight = esopt.minimize(bumpy, X0, **settings)
    np.testing.assert_allclose(resumed.mean, straight.mean, rtol=1e-9)
    assert resumed.evaluations == straight.evaluations


def test_an_older_version_refuses_format_2_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    es = esopt.Optimizer(esopt.snes(n=6), X0, seed=11)
    es.tell([1.0], rows=[3])
    es.save(tmp_path / "run.npz")
    assert checkpoint.FORMAT_VERSION == 2
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 1)
    with pytest.raises(CheckpointError, match=r"run\.npz has checkpoint format 2, .* reads up to format 1"):
        es.load(tmp_path / "run.npz")


def test_format_2_must_have_its_open_generation(tmp_path: Path) -> None:
    """Only the older format may lack it."""
    es = esopt.Optimizer(esopt.snes(n=6), X0, seed=11)
    run = es._run
    without = {"strategy": run.strategy, "evaluator": (), "progress": run.progress, "objective": ""}
    checkpoint.save(tmp_path / "run.npz", without, configuration=es._configuration)
    with pytest.raises(CheckpointError, match="different structure"):
        es.load(tmp_path / "run.npz")
