"""Auto: which estimator it picks, from what, and when it asks for gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esopt import (
    SGD,
    Antithetic,
    AtMean,
    Auto,
    Bonnet,
    CenteredRanks,
    Evals,
    Gaussian,
    GradientES,
    Hybrid,
    Key,
    Linear,
    Population,
    Score,
    minimize,
)
from esopt.estimators._roughness import roughness
from esopt.estimators.auto import AutoState
from esopt.testing._check import bits

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

DIM = 20
SLOPE = np.linspace(0.5, 1.5, DIM)


def smooth(x: Array) -> Array:
    return x @ SLOPE + 0.25 * (x**4).sum(axis=1)


def smooth_grad(x: Array) -> Array:
    return SLOPE + x**3


def rough(x: Array) -> Array:
    return np.sin(30.0 * x[:, 0]) + x @ SLOPE


def rough_grad(x: Array) -> Array:
    out = np.tile(SLOPE, (len(x), 1))
    out[:, 0] += 30.0 * np.cos(30.0 * x[:, 0])
    return out


def jump(x: Array) -> Array:
    return 10.0 * (x[:, 0] > 0.0)


def run(
    auto: Auto, f: Function, grad: Function | None, generations: int, n: int = 64, dim: int = DIM, seed: int = 3
) -> list[tuple[AutoState, Population, Evals, Any]]:
    """States before, populations, evaluations and gradients of generations at one place."""
    state, mean, found = auto.init(dim), np.zeros(dim), []
    for generation in range(generations):
        population = auto.prepare(Population(mean, 0.5, Antithetic().noise(Key(seed, generation), n, dim)), state)
        rows = population.rows()
        evals = Evals(f(rows), grad(rows) if grad is not None and "grads" in population.needs else None)
        gradient, after = auto.estimate(population, evals, state)
        found.append((state, population, evals, gradient))
        state = after
    return found


def asked(found: list[Any]) -> list[int]:
    return [generation for generation, step in enumerate(found) if "grads" in step[1].needs]


def used(found: list[Any]) -> list[str]:
    return [step[3].notes["estimator"].split(":")[0] for step in found]


def test_gradients_of_a_smooth_function() -> None:
    found = run(Auto(), smooth, smooth_grad, 30)
    assert asked(found) == list(range(30))
    assert used(found)[:4] == ["Hybrid"] * 4
    assert used(found)[-1] == "Bonnet"
    degree, threshold = (np.mean([step[3].notes[name] for step in found]) for name in ("roughness", "threshold"))
    assert 1.0 <= degree < 1.5
    assert DIM < threshold < DIM + 4.0
    notes = found[-1][3].notes
    assert notes["estimator"] == (
        "Bonnet: no variance x cost, Hybrid none either; "
        f"roughness of this generation {notes['roughness']:.3g} against d + nu = {notes['threshold']:.3g}"
    )


def test_values_of_a_rough_function_and_probes_that_become_rare() -> None:
    found = run(Auto(), rough, rough_grad, 120)
    probes = asked(found)
    gaps = np.diff(probes)
    assert used(found).count("Bonnet") == 0
    assert 4 <= len(probes) <= 7
    assert gaps[0] >= 8
    assert gaps[-1] >= 1.5 * gaps[0]
    hopeless = asked(run(Auto((Score(), Bonnet())), rough, lambda x: 100.0 * rough_grad(x), 200))
    assert hopeless == [0, 48, 144]
    assert "all are measured again" in found[probes[1]][3].notes["estimator"]
    assert "times less variance x cost than Hybrid" in found[-1][3].notes["estimator"]


def test_probes_come_earlier_where_the_level_has_changed() -> None:
    """From generation 60 on all is ten times as large; the next probe is due after a quarter of 96 generations."""
    seen = []

    def growing(x: Array) -> Array:
        seen.append(1)
        return rough(x) * (10.0 if len(seen) > 60 else 1.0)

    auto = Auto((Score(), Bonnet()))
    probes = asked(run(auto, growing, lambda x: 100.0 * rough_grad(x), 100))
    assert probes[:2] == [0, 48]
    assert 72 <= probes[2] <= 74


def test_the_reason_is_what_decided() -> None:
    """The ratio to the runner-up is that of the averages, cost included, unless all are measured anyhow."""
    auto = Auto((Score(), Score(Linear())))
    for state, _, _, gradient in run(auto, smooth, None, 12)[1:]:
        shares = state.shares / (1.0 - state.shares)
        first = gradient.notes["estimator"].startswith("Score(baseline=LeaveOneOut")
        ratio = shares[1] / shares[0] if first else shares[0] / shares[1]
        said = f"{ratio:.3g} times less variance" if ratio >= 1.0 else f"has {1.0 / ratio:.3g} times less variance"
        assert said in gradient.notes["estimator"]
    found = run(Auto(), rough, rough_grad, 60)
    quiet = found[-1]
    cost = np.array([1.0, 3.0, 3.0])
    odds = cost * quiet[0].shares / (1.0 - quiet[0].shares)
    assert "grads" not in quiet[1].needs
    assert f"Score: {odds[1:].min() / odds[0]:.3g} times less variance x cost than " in quiet[3].notes["estimator"]
    sides = [step[3].notes["side"] for step in found if "side" in step[3].notes]
    assert sides
    assert all(side.endswith(", by this generation alone") for side in sides)


@pytest.mark.parametrize("scale", [0.3, np.linspace(0.2, 0.9, 5), np.tril(np.full((5, 5), 0.2)) + 0.3 * np.eye(5)])
def test_roughness_of_any_scale(scale: Any) -> None:
    """f = a . x: k = 1, from the evaluations of finite rows."""
    noise = Gaussian().noise(Key(6), 40, 5)
    population = Population(np.zeros(5), scale, noise)
    x, a = population.rows(), np.arange(1.0, 6.0)
    values, grads = x @ a, np.tile(a, (40, 1))
    values[3], grads[5, 2] = np.nan, np.inf
    rows = np.delete(np.arange(40), [3, 5])
    factor = scale if np.ndim(scale) == 2 else np.diag(np.broadcast_to(scale, 5))
    squares = np.square(values[rows] - values[rows].mean())
    expected = np.square(factor.T @ a).sum() / squares.mean(), (squares * noise.norms()[rows]).mean() / squares.mean()
    assert roughness(population, Evals(values, grads)) == pytest.approx(expected, rel=1e-9)
    assert roughness(population, Evals(values)) is None


def test_the_price_of_a_gradient_decides() -> None:
    """Score and Bonnet within a factor of ten in variance: cheap gradients are taken, dear ones are not."""

    def wavy(x: Array) -> Array:
        return np.sin(6.0 * x[:, 0])

    def slopes(x: Array) -> Array:
        return 6.0 * np.cos(6.0 * x[:, :1]) * np.eye(DIM)[0]

    cheap, dear = (run(Auto(gradient_cost=cost), wavy, slopes, 30) for cost in (0.1, 50.0))
    assert len(asked(cheap)) == 30
    assert len(asked(dear)) <= 3


def test_a_jump_is_never_left_to_gradients_alone() -> None:
    for dim in (2, DIM):
        found = run(Auto(), jump, np.zeros_like, 60, dim=dim)
        assert "Bonnet" not in used(found)
        assert any("the gradients of all generations miss a jump" in step[3].notes["estimator"] for step in found)


def test_a_small_bias_counts_once_it_shows() -> None:
    """64 coordinates with a jump each: the gradients agree among themselves, and miss a third of V of the values."""

    def stairs(x: Array) -> Array:
        return 0.1 * x.sum(axis=1) + 0.4 * (x > 0.0).sum(axis=1)

    auto = Auto((Score(), Bonnet()), gradient_cost=9.0)
    found = run(auto, stairs, lambda x: np.full_like(x, 0.1), 80, dim=64)
    names = used(found)
    assert names[:3] == ["Bonnet"] * 3
    assert names[-1] == "Score"
    last = found[-1][0]
    bias = 64.0 * (0.4 / (0.5 * np.sqrt(2.0 * np.pi))) ** 2
    variance = np.mean([np.square(step[3].mean_stderr).sum() for step in found if used([step]) == ["Score"]])
    assert 0.5 < last.bias_sum[1] / last.bias_weights[1] * variance / bias < 2.0


def test_the_past_alone_decides() -> None:
    """Whatever this generation's evaluations say, the estimate is that of the candidate chosen before."""
    for f, grad in ((smooth, smooth_grad), (rough, rough_grad)):
        for state, population, evals, gradient in run(Auto(), f, grad, 14):
            names = {"Score": 0, "Bonnet": 1, "Hybrid": 2}
            index = names[gradient.notes["estimator"].split(":")[0]]
            own, _ = Auto().candidates[index].estimate(population, evals, state.states[index])
            assert np.array_equal(gradient.mean, own.mean)
            other = replace(evals, values=np.square(evals.values) + 1.0)
            again, _ = Auto().estimate(population, other, state)
            assert again.notes["estimator"].split(":")[0] == gradient.notes["estimator"].split(":")[0]


def test_unbiased_while_it_learns() -> None:
    """Runs from a fresh state, so that choices and estimates of successive generations could conspire."""
    mean, sigma = np.array([0.4, -0.3]), 0.6
    a = np.array([1.0, 2.0])
    truth = np.exp(a @ mean + 0.5 * sigma**2 * (a @ a)) * a
    auto, means = Auto(margin=1.0, gradient_cost=0.3), []
    choices = set()
    for seed in range(400):
        state = auto.init(2)
        for generation in range(6):
            noise = Gaussian().noise(Key(seed, generation), 16, 2)
            population = auto.prepare(Population(mean, sigma, noise), state)
            values = np.exp(population.rows() @ a)
            gradient, state = auto.estimate(population, Evals(values, values[:, None] * a), state)
            choices.add(gradient.notes["estimator"].split(":")[0])
            means.append(gradient.mean)
    error = np.std(means, axis=0, ddof=1) / np.sqrt(len(means))
    assert choices == {"Score", "Bonnet", "Hybrid"}
    assert np.abs((np.mean(means, axis=0) - truth) / error).max() < 3.5
    assert np.linalg.norm(error) < 0.03 * np.linalg.norm(truth)


def test_baselines_without_gradients() -> None:
    auto = Auto((Score(), Score(Linear()), Score(AtMean())))
    found = run(auto, lambda x: x @ SLOPE, None, 30)
    assert asked(found) == []
    assert used(found)[-1].startswith("Score(baseline=Linear")
    result = minimize(
        lambda x: ((x - 1.0) ** 2).sum(),
        np.zeros(4),
        strategy=GradientES(n=16, estimator=auto, rule=SGD(0.1)),
        generations=150,
    )
    assert result.value < 1e-3


def test_rows_are_charged() -> None:
    """A candidate with an explicit row is asked for it only when it is chosen or measured."""
    auto = Auto((Score(), Score(AtMean())))
    found = run(auto, rough, None, 10)
    assert len(found[0][1]) == 65
    assert len(found[-1][1]) == (65 if "AtMean" in used(found)[-1] else 64)


def test_with_scale_and_shaping() -> None:
    auto = Auto((Score(with_scale=True), Bonnet(with_scale=True)))
    assert auto.with_scale
    assert auto.raw_only
    assert not Auto((Score(), Score(Linear()))).raw_only
    GradientES(estimator=Auto((Score(), Score(Linear()))), shaping=CenteredRanks())
    with pytest.raises(ValueError, match="needs the values as they are"):
        GradientES(estimator=Auto(), shaping=CenteredRanks())
    with pytest.raises(ValueError, match=r"Pass Score\(with_scale"):
        GradientES(estimator=Auto(), scale_rule=SGD(0.1))


def test_few_blocks_are_left_to_values() -> None:
    """Two pairs show no jump, so gradients are not trusted and soon not asked for."""
    found = run(Auto(), smooth, smooth_grad, 20, n=4)
    assert set(used(found)) <= {"Hybrid", "Score"}
    assert used(found)[-1] == "Score"


def test_one_block_tells_nothing_and_breaks_nothing() -> None:
    """Without standard errors all are measured on; as soon as there are some, one is chosen."""
    auto = Auto()
    state, mean = auto.init(DIM), np.zeros(DIM)
    for generation, n in enumerate([2] * 5 + [64] * 12):
        population = auto.prepare(Population(mean, 0.5, Antithetic().noise(Key(4, generation), n, DIM)), state)
        rows = population.rows()
        assert "grads" in population.needs or n == 64
        gradient, state = auto.estimate(population, Evals(rough(rows), rough_grad(rows)), state)
        assert np.isfinite(gradient.mean).all()
    assert state.choice == 0
    assert np.isfinite(state.wait)


def test_failed_gradients_do_not_stop_values() -> None:
    auto = Auto((Bonnet(), Score()))
    _, population, evals, _ = run(auto, smooth, smooth_grad, 1)[0]
    gradient, after = auto.estimate(population, replace(evals, grads=np.full((64, DIM), np.nan)), auto.init(DIM))
    assert gradient.notes["estimator"].startswith("Score")
    assert after.choice == 1
    assert after.weights.tolist() == [0.0, 1.0]


def test_state_keeps_its_structure() -> None:
    found = run(Auto(), rough, rough_grad, 20)
    shapes = [{path: array[1] for path, array in bits(step[0])[1].items()} for step in found]
    assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": ()}, "candidates must be a tuple of estimators"),
        ({"candidates": (Score,)}, "must be an instance"),
        ({"candidates": (Score(with_scale=True), Hybrid())}, "gradient of the scale"),
        ({"gradient_cost": -1.0}, "gradient_cost must be"),
        ({"memory": 1.0}, "memory must be"),
        ({"margin": 0.5}, "margin must be"),
        ({"probe": 0}, "probe must be"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Auto(**settings)
