"""Histories of runs: what they hold, how they are thinned, saved, continued and drawn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import esopt
from esopt.cli.app import app
from esopt.history import begin_history

X0 = np.array([1.0, -2.0, 0.5])


def bowl(x: np.ndarray) -> float:
    return float(x @ (x * [1.0, 10.0, 100.0])) + 1.0


def follow(strategy: object, generations: int, x0: np.ndarray = X0, points: int = 1000) -> esopt.History:
    es, history = esopt.Optimizer(strategy, x0, seed=1), esopt.History(points)
    for _ in range(generations):
        values = np.square(es.ask()).sum(axis=1)
        info = es.tell(values)
        history.record(es.progress, es.population(), values, info)
    return history


def test_a_trace_holds_what_the_run_was() -> None:
    steps = []
    result = esopt.minimize(
        bowl, X0, strategy=esopt.CMAES(), generations=30, seed=3, history=True, callback=steps.append
    )
    trace = result.history.trace
    final = esopt.Optimizer(esopt.CMAES(), X0, seed=3)
    for step in steps:
        final.tell(step.values)

    np.testing.assert_array_equal(trace.generation, np.arange(1, 31))
    np.testing.assert_array_equal(trace.evaluations, [step.evaluations for step in steps])
    np.testing.assert_array_equal(trace.mean, [step.mean for step in steps])
    np.testing.assert_array_equal(trace.best, [step.values.min() for step in steps])
    np.testing.assert_array_equal(trace.median, [np.median(step.values) for step in steps])
    np.testing.assert_array_equal(trace.lowest, [step.best_value for step in steps])
    np.testing.assert_allclose(trace.axes[-1] ** 2, np.linalg.eigvalsh(final.state.cov), rtol=1e-9)
    np.testing.assert_allclose(trace.deviations[-1] ** 2, np.diag(final.state.cov), rtol=1e-12)
    np.testing.assert_allclose(trace.sigma[-1] ** 2, np.trace(final.state.cov) / 3, rtol=1e-12)
    assert trace.axis_ratio[-1] ** 2 == pytest.approx(np.linalg.cond(final.state.cov), rel=1e-9)


@pytest.mark.parametrize(
    "strategy",
    [esopt.GradientES(n=4), esopt.snes(), esopt.SepCMA(), esopt.Restarts(), esopt.QuasiNewton()],
    ids=["GradientES", "snes", "SepCMA", "Restarts", "QuasiNewton"],
)
def test_any_strategy_has_a_panel(strategy: object, tmp_path) -> None:
    result = esopt.minimize(bowl, X0, strategy=strategy, generations=8, history=True)
    picture = result.plot(tmp_path / "run.png")

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert np.isfinite(result.history.trace.axes).all()


def test_long_runs_are_thinned_and_large_ones_sampled() -> None:
    history = follow(esopt.GradientES(n=2), 101, np.ones(700), points=10)
    trace = history.trace

    assert trace.generation.tolist() == list(range(16, 101, 16))
    assert trace.mean.shape == trace.deviations.shape == trace.axes.shape == (6, 100)
    assert trace.coordinates[[0, -1]].tolist() == [0, 699]
    assert trace.dim == 700


class Doubled:
    """A scale that is no array."""

    def apply(self, eps: np.ndarray) -> np.ndarray:
        return eps @ np.array([[2.0, 1.0], [0.0, 0.5]])


def test_transforms_have_axes_and_large_ones_none() -> None:
    def kept(dim: int) -> tuple[np.ndarray, np.ndarray]:
        history, es = esopt.History(), esopt.Optimizer(esopt.CMAES(), np.zeros(2))
        noise = esopt.Gaussian().noise(esopt.Key(1), 4, dim)
        history.record(es.progress, esopt.Population(np.zeros(dim), Doubled(), noise), np.arange(4.0))
        return history.trace.deviations[0], history.trace.axes[0]

    deviations, axes = kept(2)
    np.testing.assert_allclose(deviations, [2.0, np.sqrt(1.25)])
    np.testing.assert_allclose(axes, np.linalg.svd([[2.0, 0.0], [1.0, 0.5]])[1][::-1])
    assert np.isnan(kept(600)).all()


def test_a_saved_history_goes_on_where_it_was(tmp_path) -> None:
    path = tmp_path / "run.npz"
    strategy = esopt.UncertaintyHandling(limit=3)
    whole = follow(strategy, 12, points=5)
    whole.save(path)
    loaded = esopt.History.load(path, 5)

    for name, column in vars(whole.trace).items():
        np.testing.assert_array_equal(getattr(loaded.trace, name), column)
    assert np.load(path, allow_pickle=False)["mean"].shape == (3, 3)
    with pytest.raises(ValueError, match="no path"):
        whole.save()


def test_a_resumed_run_continues_its_history(tmp_path) -> None:
    def run(name: str, *generations: int) -> esopt.History:
        for count in generations:
            result = esopt.minimize(
                bowl, X0, strategy=esopt.CMAES(), generations=count, checkpoint=tmp_path / f"{name}.npz",
                history=tmp_path / f"{name}_history.npz",
            )  # fmt: skip
        return result.history

    whole, parts = run("whole", 20).trace, run("parts", 8, 20).trace

    for name, column in vars(whole).items():
        np.testing.assert_array_equal(getattr(parts, name), column)
    later = begin_history(tmp_path / "whole_history.npz", 5)
    assert later is not None
    assert later.trace.generation.tolist() == [1, 2, 3, 4, 5]
    fresh = begin_history(tmp_path / "whole_history.npz", 0)
    assert fresh is not None
    assert len(fresh) == 0


def test_histories_change_no_run() -> None:
    with_one, without = (
        esopt.minimize(bowl, X0, strategy=esopt.CMAES(), generations=9, history=h) for h in (True, False)
    )

    np.testing.assert_array_equal(with_one.x, without.x)
    assert without.history is None
    with pytest.raises(ValueError, match="history=True"):
        without.plot("run.png")


def test_bad_histories_are_refused(tmp_path) -> None:
    with pytest.raises(TypeError, match="history=True"):
        esopt.minimize(bowl, X0, history=3)
    with pytest.raises(OSError, match="folder"):
        esopt.minimize(bowl, X0, history=tmp_path / "nowhere" / "run.npz")
    with pytest.raises(ValueError, match="points"):
        esopt.History(1)
    with pytest.raises(ValueError, match="empty"):
        esopt.History().plot(tmp_path / "run.png")


def test_the_command_line_draws(tmp_path) -> None:
    path = tmp_path / "run.npz"
    esopt.minimize(bowl, X0, strategy=esopt.CMAES(), generations=5, history=path)
    done = CliRunner().invoke(app, ["plot", str(path)])

    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / "run.png"))
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")

    esopt.minimize(bowl, X0, strategy=esopt.CMAES(), generations=2, checkpoint=tmp_path / "checkpoint.npz")
    for name in ("checkpoint.npz", "missing.npz"):
        done = CliRunner().invoke(app, ["plot", str(tmp_path / name)])
        assert done.exit_code == 2
        assert done.stderr.startswith("esopt: ")
        assert name in done.stderr


def test_matplotlib_waits_for_a_picture() -> None:
    code = "import sys, esopt.history, esopt._panel, esopt.loop; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
