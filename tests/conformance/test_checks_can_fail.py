"""Every law refuses a part that breaks it: a check that lets everything pass is worth nothing.

Each broken part differs from a good one in a single place, the kind of mistake that is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt import (
    Adam,
    Antithetic,
    AtMean,
    Bonnet,
    CenteredRanks,
    Evals,
    Gaussian,
    Gradient,
    GradientES,
    Key,
    LeaveOneOut,
    NoBaseline,
    Philox,
    Population,
    Price,
    Rademacher,
    Score,
    Serial,
    Standardize,
    moment,
)
from esopt.noise import Law
from esopt.protocols import Centered, Offsets
from esopt.rules.momentum import MomentumState
from esopt.shaping import cma_weights
from esopt.testing import (
    ConformanceError,
    check_baseline,
    check_estimator,
    check_evaluator,
    check_rule,
    check_sampler,
    check_shaping,
    check_step_size,
    check_strategy,
)

Array = NDArray[Any]


def refuses(check: Any, part: Any, law: str, **claims: Any) -> None:
    with pytest.raises(ConformanceError, match=law) as error:
        check(part, **claims)
    assert isinstance(error.value, AssertionError)
    assert "\n  got " in str(error.value)
    assert "\n  expected " in str(error.value)


# ---- Rules ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Momentum, with a mistake."""

    mistake: str

    def init(self, dim: int) -> MomentumState:
        return MomentumState(0, np.full(dim, float(self.mistake == "moves alone")))

    def step(self, gradient: Array, state: MomentumState) -> tuple[Array, MomentumState]:
        velocity = 0.5 * state.velocity - 0.1 * gradient
        after = MomentumState(state.count + 1, velocity)
        match self.mistake:
            case "uphill":
                return 0.1 * gradient, after
            case "aliased":
                return velocity, after
            case "keeps the gradient":
                return velocity.copy(), MomentumState(state.count + 1, gradient)
            case "writes to the gradient":
                gradient *= 2.0
            case "writes to the state":
                state.velocity[:] = velocity
            case "wrong shape":
                return velocity[:1].copy(), after
            case "column":
                return velocity[:, None].copy(), after
            case "other structure":
                return velocity.copy(), MomentumState(state.count + 1.0, velocity)  # type: ignore[arg-type]
            case "tiny":
                return 1e-6 * velocity, after
            case "divides by zero":
                with np.errstate(invalid="ignore"):
                    return velocity / np.sqrt(gradient @ gradient), after
        return velocity.copy(), after


RULES = {
    "uphill": "downhill",
    "aliased": "shares no memory",
    "keeps the gradient": "shares no memory",
    "writes to the gradient": "does not change its gradient",
    "writes to the state": "does not change its state",
    "wrong shape": "shape of the gradient",
    "column": "shape of the gradient",
    "other structure": "can be saved",
    "tiny": "descend a parabola",
    "divides by zero": "zero gradient",
    "moves alone": "zero gradient",
}


def test_the_rule_without_a_mistake_passes() -> None:
    check_rule(Rule("none"))


@pytest.mark.parametrize("mistake", RULES)
def test_rule(mistake: str) -> None:
    refuses(check_rule, Rule(mistake), RULES[mistake])


def test_rule_that_counts_outside_its_state() -> None:
    @dataclass
    class Counting:
        count: int = 0

        def init(self, dim: int) -> Any:
            return esopt.SGD().init(dim)

        def step(self, gradient: Array, state: Any) -> Any:
            self.count += 1
            return -0.1 / self.count * gradient, state

    refuses(check_rule, Counting(), "step is pure")


# ---- Samplers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampler:
    """Gaussian rows in blocks of 2, with a mistake."""

    mistake: str
    block: int = 2
    separable: bool = True
    fused: bool = False

    law: Law = Law.GAUSSIAN

    @property
    def mirrored(self) -> bool:
        return self.mistake == "not mirrored"

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        if n % self.block and self.mistake != "any n":
            raise ValueError(f"n must be a multiple of {self.block}, got {n}.")
        return Philox(self, key, n, dim)  # type: ignore[arg-type]

    def fill(self, key: Key, row: int, column: int, dim: int, out: Array) -> None:
        base = Gaussian()
        match self.mistake:
            case "starts at the rectangle":
                base.fill(key, row, 0, dim, out)
            case "ignores the generation":
                base.fill(key._replace(generation=0), row, column, dim, out)
            case "ignores the stream":
                base.fill(key._replace(stream=0), row, column, dim, out)
            case "ignores half of the seed":
                base.fill(key._replace(seed=key.seed // 2), row, column, dim, out)
            case "blocks in pairs are equal":
                for i in range(len(out)):
                    base.fill(key, (row + i) // 4 * 4 + (row + i) % 2, column, dim, out[i : i + 1])
            case "too wide":
                base.fill(key, row, column, dim, out)
                out *= np.float32(1.03)
            case "shifted":
                base.fill(key, row, column, dim, out)
                out += np.float32(0.05)
            case "signs":
                base.fill(key, row, column, dim, out)
                out[...] = np.sign(out)
            case "one column twice as wide":
                base.fill(key, row, column, dim, out)
                out *= np.where(np.arange(column, column + out.shape[1]) == 3, np.float32(2.0), np.float32(1.0))
            case "columns repeat":
                whole = np.empty((len(out), dim), np.float32)
                base.fill(key, row, 0, dim, whole)
                whole[:, 1::2] = whole[:, : whole[:, 1::2].shape[1] * 2 : 2]
                out[...] = whole[:, column : column + out.shape[1]]
            case "depends on dim":
                base.fill(key, row, column + dim, dim, out)
            case "leaves a gap":
                base.fill(key, row, column, dim, out)
                out[-1, -1] = 0.0
            case _:
                base.fill(key, row, column, dim, out)


SAMPLERS = {
    "starts at the rectangle": "that part of the whole",
    "leaves a gap": "part of the whole|keeps its rows",
    "ignores the generation": "different generations",
    "ignores the stream": "different streams",
    "ignores half of the seed": "different seeds|equal",
    "blocks in pairs are equal": "different blocks",
    "too wide": r"E eps\^2",
    "shifted": r"E eps\^1",
    "signs": r"E eps\^4",
    "one column twice as wide": r"E eps\^2",
    "columns repeat": "columns are uncorrelated",
    "not mirrored": "minus row 2k",
    "any n": "no multiple of the block",
}


@pytest.mark.parametrize("mistake", ["none", "depends on dim"])
def test_the_sampler_without_a_mistake_passes(mistake: str) -> None:
    """An address may contain the dimension."""
    check_sampler(Sampler(mistake))


@pytest.mark.parametrize("mistake", SAMPLERS)
def test_sampler(mistake: str) -> None:
    refuses(check_sampler, Sampler(mistake), SAMPLERS[mistake])


def test_sampler_whose_sums_are_not_those_of_its_rows() -> None:
    """It says that it is the library's stream, for which there are fused kernels, and is not."""
    refuses(check_sampler, replace(Sampler("shifted"), fused=True), "mean \\+ scale|sum over the rows")


# ---- Shapings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shaping:
    """Centred ranks or z-scores, with a mistake."""

    mistake: str
    base: Any
    raw: bool = False

    @property
    def ranks(self) -> bool:
        return bool(self.base.ranks)

    def shape(self, values: Array, population: Population) -> Array:
        match self.mistake:
            case "flips":
                return -self.base.shape(values, population)
            case "ties by position":
                order = np.argsort(values, kind="stable")
                ranks = np.empty(values.size)
                ranks[order] = np.linspace(-0.5, 0.5, values.size)
                return ranks
            case "sorts in place":
                found = self.base.shape(values, population)
                values.sort()
                return found
            case "failures first":
                return np.where(np.isnan(values), -0.5, self.base.shape(values, population))
            case "failures in the middle":
                return np.where(np.isnan(values), 0.0, self.base.shape(values, population))
            case "not centred":
                return self.base.shape(values, population) + 0.5
            case "by position":
                return self.base.shape(values, population) * np.linspace(1.0, 1.5, values.size)
            case "values shine through":
                return self.base.shape(values, population) + 1e-9 * (values - np.nanmean(values))
            case "nan spreads":
                with np.errstate(invalid="ignore"):
                    return (values - values.mean()) / values.std()
        return self.base.shape(values, population)


SHAPINGS = {
    "flips": (CenteredRanks(), "lowest utility"),
    "ties by position": (CenteredRanks(), "equal for equal values|add up|another order"),
    "sorts in place": (CenteredRanks(), "does not change its arguments"),
    "failures first": (CenteredRanks(), "rank last"),
    "not centred": (CenteredRanks(), "add up to zero"),
    "by position": (CenteredRanks(), "increasing function|another order|add up"),
    "values shine through": (CenteredRanks(), "has the utilities of v"),
    "failures in the middle": (Standardize(), "not finite|nan"),
    "nan spreads": (Standardize(), "finite|usable"),
}


@pytest.mark.parametrize("mistake", SHAPINGS)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_shaping(mistake: str) -> None:
    base, law = SHAPINGS[mistake]
    refuses(check_shaping, Shaping(mistake, base), law)


def test_shaping_that_claims_too_much() -> None:
    refuses(check_shaping, esopt.TopFraction(0.4), "increasing function")
    refuses(check_shaping, esopt.RecombinationWeights(cma_weights), "add up to zero")
    refuses(check_shaping, esopt.Raw(), "add up to zero", centered=True)
    refuses(check_shaping, esopt.Raw(), r"3 v \+ 7", affine_invariant=True)


# ---- Baselines ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """Leave one out, with a mistake."""

    mistake: str
    raw_only: bool = False

    def init(self, dim: int) -> Any:
        return (np.zeros(1),) if self.mistake == "learns in place" else ()

    def prepare(self, population: Population, state: Any) -> Population:
        if self.mistake == "adds rows again and again":
            extra = (
                population.mean[None, :]
                if population.extra is None
                else np.concatenate([population.extra, population.mean[None, :]])
            )
            return replace(population, extra=extra, tags=(*population.tags, "again"))
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: Any) -> Centered:
        leave = LeaveOneOut()
        match self.mistake:
            case "plain mean":
                return Centered(values - np.nanmean(values))
            case "leaves one row out":
                return Centered((values - np.nanmean(values)) * (values.size / (values.size - 1)))
            case "best value":
                return Centered(values - np.nanmin(values))
            case "peeks at the noise":
                return Centered(values - population.noise.norms())
            case "halves":
                return Centered(0.5 * leave.center(values, population, evals, state).values)
            case "ignores failures":
                return Centered(np.nan_to_num(leave.center(values, population, evals, state).values))
            case "keeps the slope":
                return Centered(values - population.noise.dot(np.ones((1, population.dim))))
            case "keeps the bend":
                return Centered(values - population.noise.norms(), scale=np.ones(population.dim))
            case "slope of this generation":
                return Centered(values.copy(), np.nanmean(values) * np.ones(population.dim))
            case "plain mean for the scale":
                return Centered(values.copy(), scale_values=values - np.nanmean(values))
            case "fills the scale":
                return Centered(values.copy(), scale_values=np.nan_to_num(values))
            case "column for the slope":
                return Centered(values.copy(), np.zeros((population.dim, 1)))
            case name if "offsets" in name:
                return Centered(values.copy(), offsets=offsets(name, values, population))
            case "writes to the values":
                values -= 1.0
                return Centered(values.copy())
        return leave.center(values, population, evals, state)

    def learn(self, values: Array, population: Population, gradient: Gradient, state: Any) -> Any:
        if self.mistake == "learns in place":
            state[0][0] += 1.0
        return state


def offsets(mistake: str, values: Array, population: Population) -> Offsets:
    """Constants for each coordinate and two groups of blocks, with a mistake."""
    noise = population.noise
    table = np.linspace(1.0, 2.0, 2 * noise.dim).reshape(2, -1)
    groups = np.arange(noise.n) // noise.block % 2
    best = moment(noise, np.nan_to_num(values) / noise.n, 2)
    match mistake:
        case "offsets of all blocks":
            return Offsets(groups, np.stack([best, best]), table)
        case "offsets of all blocks for the scale":
            return Offsets(groups, table, np.stack([best, best]))
        case "offsets by the noise":
            return Offsets((noise.norms() > noise.dim).astype(np.intp), table, table)
        case "offsets that split blocks":
            return Offsets(np.arange(noise.n) % 2, table, table)
        case "offsets for each row":
            return Offsets(np.arange(noise.n), table, table)
        case "offsets without their nan":
            return Offsets(groups, table + 0.0 * np.mean(values), table)
    return Offsets(groups, table[:, :1].copy(), table)


BASELINES = {
    "plain mean": "own block",
    "leaves one row out": "own block",
    "best value": "own block",
    "peeks at the noise": "expected gradient",
    "halves": "own block",
    "ignores failures": "nan where the values are",
    "writes to the values": "does not change the values|pure",
    "adds rows again and again": "once",
    "learns in place": "learn does not change",
    "keeps the slope": "expected gradient",
    "keeps the bend": "expected gradient",
    "slope of this generation": "added back",
    "plain mean for the scale": "own block",
    "fills the scale": "nan where the values are",
    "column for the slope": "one finite number per coordinate",
    "offsets of all blocks": "own block",
    "offsets of all blocks for the scale": "own block",
    "offsets by the noise": "expected gradient",
    "offsets that split blocks": "the same in a block",
    "offsets for each row": "below 2|row numbers",
    "offsets without their nan": "finite number per group",
    "offsets as columns": "finite number per group",
}


@pytest.mark.parametrize("mistake", BASELINES)
def test_baseline(mistake: str) -> None:
    refuses(check_baseline, Baseline(mistake), BASELINES[mistake])


def test_baseline_that_claims_too_much() -> None:
    refuses(check_baseline, NoBaseline(), "constant added", shift_invariant=True)
    refuses(check_baseline, esopt.MovingAverage(), "constant added", shift_invariant=True)


# ---- Estimators -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimator:
    """Score or Bonnet with a scale, with a mistake."""

    mistake: str
    base: Any = field(default_factory=lambda: Score(with_scale=True))
    with_scale: bool = True
    raw_only: bool = False

    def init(self, dim: int) -> Any:
        return self.base.init(dim)

    def prepare(self, population: Population, state: Any) -> Population:
        return self.base.prepare(population, state)

    def estimate(self, population: Population, evals: Evals, state: Any) -> tuple[Gradient, Any]:
        if self.mistake == "failures are zero":
            evals = replace(evals, values=np.where(np.isfinite(evals.values), evals.values, 0.0))
        if self.mistake == "keeps failed rows":
            finite = np.isfinite(evals.values)
            evals = replace(evals, values=np.where(finite, evals.values, evals.values[finite].mean()))
        g, state = self.base.estimate(population, evals, state)
        n, block = population.noise.n, population.noise.block
        sigma = float(np.mean(population.scale))
        changes: dict[str, dict[str, Any]] = {
            "halves pairs": {"mean": g.mean * 0.5, "mean_stderr": g.mean_stderr * 0.5},
            "no 1 / sigma": {"mean": g.mean * sigma, "mean_stderr": g.mean_stderr * sigma},
            "n - 1": {"mean": g.mean * n / (n - block), "mean_stderr": g.mean_stderr * n / (n - block)},
            "scale without 1 / sigma": {"scale": g.scale * sigma, "scale_stderr": g.scale_stderr * sigma},  # type: ignore[operator]
            "errors without root n": {"mean_stderr": g.mean_stderr * np.sqrt(n / block)},
            "errors of half": {"mean_stderr": g.mean_stderr * 0.5},
            "variances as errors": {"mean_stderr": np.square(g.mean_stderr)},
            "no error of one": {"mean_stderr": np.nan_to_num(g.mean_stderr)},
            "squared": {"mean": g.mean * (1.0 + 1e-3 * g.value)},
            "column": {"mean": g.mean[:, None]},
            "a whole matrix": {"scale": g.scale * (1.0 + (population.factor is not None))},  # type: ignore[operator]
            "errors of a whole matrix": {"scale_stderr": g.scale_stderr * (1.0 + (population.factor is not None))},  # type: ignore[operator]
            "no scale": {"scale": None, "scale_stderr": None},
        }
        return replace(g, **changes.get(self.mistake, {})), state


ESTIMATORS = {
    "halves pairs": "unbiased",
    "no 1 / sigma": "unbiased",
    "n - 1": "as if it had never been there|unbiased|one block",
    "scale without 1 / sigma": "unbiased",
    "errors without root n": "standard errors",
    "errors of half": "standard errors",
    "variances as errors": "standard errors",
    "no error of one": "single block",
    "squared": "linear",
    "column": "shapes",
    "a whole matrix": "(unbiased|standard errors) .* scale factor",
    "errors of a whole matrix": "standard errors .* scale factor",
    "no scale": "shapes",
    "failures are zero": "never been there",
    "keeps failed rows": "never been there",
}


@pytest.mark.parametrize("mistake", ESTIMATORS)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_estimator(mistake: str) -> None:
    refuses(check_estimator, Estimator(mistake), ESTIMATORS[mistake])


@pytest.mark.parametrize("mistake", ["halves pairs", "scale without 1 / sigma", "errors of half", "keeps failed rows"])
def test_estimator_from_gradients(mistake: str) -> None:
    refuses(check_estimator, Estimator(mistake, Bonnet(with_scale=True)), ESTIMATORS[mistake])


@pytest.mark.parametrize("mistake", ["a whole matrix", "errors of a whole matrix", "keeps failed rows"])
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_estimator_from_second_derivatives(mistake: str) -> None:
    refuses(check_estimator, Estimator(mistake, Price(Rademacher())), ESTIMATORS[mistake])


def test_estimator_with_probes_of_its_own() -> None:
    @dataclass(frozen=True)
    class Forgetful(Price):
        def estimate(self, population: Population, evals: Evals, state: Any) -> tuple[Gradient, Any]:
            other = Rademacher().noise(Key(0), population.n, population.dim)
            return super().estimate(replace(population, probes=other), evals, state)

    refuses(check_estimator, Forgetful(Rademacher()), "unbiased")


@pytest.mark.parametrize("factor", [False, True])
def test_estimator_that_refuses_a_factor(factor: bool) -> None:
    @dataclass(frozen=True)
    class Blind(Score):
        def estimate(self, population: Population, evals: Evals, state: Any) -> tuple[Gradient, Any]:
            scale = population.scale if population.factor is None else np.diag(population.factor).copy()
            return super().estimate(replace(population, scale=scale), evals, state)

    refuses(check_estimator, Blind(), "unbiased" if factor else "refused", factor=factor)


def test_estimator_with_a_small_bias() -> None:
    """The plain mean without its factor n / (n - 1) makes the estimate 1 / 8 too small at 8 rows."""
    biased = Score(Baseline("plain mean"), with_scale=True)  # type: ignore[arg-type]

    refuses(check_estimator, biased, "unbiased", n=8, generations=3000, samplers=(Gaussian(),))


# ---- Strategies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Strategy:
    """GradientES with a mistake."""

    mistake: str
    base: GradientES = field(default_factory=lambda: GradientES(sigma=0.1, n=8))
    memory: list[Any] = field(default_factory=list)

    def init(self, x0: Array, seed: int) -> Any:
        state = self.base.init(x0, 0 if self.mistake == "ignores the seed" else seed)
        return replace(state, mean=x0) if self.mistake == "keeps x0" else state

    def ask(self, state: Any) -> Population:
        self.memory.append(state.mean)
        if self.mistake == "asks differently every time":
            state = replace(state, seed=len(self.memory))
        if self.mistake == "forgets the generation":
            state = replace(state, generation=0)
        return self.base.ask(state)

    def tell(self, state: Any, evals: Evals) -> tuple[Any, Any]:
        if self.mistake == "swallows failures":
            evals = replace(evals, values=np.nan_to_num(evals.values))
        after, info = self.base.tell(state, evals)
        match self.mistake:
            case "climbs":
                return replace(after, mean=2.0 * state.mean - after.mean), info
            case "stops the clock":
                return replace(after, generation=state.generation), info
            case "writes to the state":
                state.mean[:] = after.mean
            case "writes to the values":
                evals.values.sort()
            case "remembers outside":
                self.memory.append(0)
                return replace(after, mean=after.mean + 1e-3 * len(self.memory)), info
            case "grows":
                return replace(after, scale_rule=(1.0,) * after.generation), info
            case "loses a nan":
                return replace(after, mean=after.mean * np.where(np.isnan(evals.values).any(), np.nan, 1.0)), info
            case "breaks on constants":
                spread = np.ptp(evals.values)
                return replace(after, mean=after.mean + (np.nan if spread == 0.0 else 0.0)), info
            case "pulls to zero":
                return replace(after, mean=0.99 * after.mean), info
        return after, info

    def stop(self, state: Any) -> dict[str, float]:
        return {"tired": 1.0} if self.mistake == "stops at once" else self.base.stop(state)


STRATEGIES = {
    "ignores the seed": "other seeds",
    "keeps x0": "shares no memory with x0",
    "asks differently every time": "pure",
    "climbs": "goes down",
    "stops the clock": "clock",
    "writes to the state": "pure|do not change the state",
    "writes to the values": "pure|does not change the values",
    "remembers outside": "tell is pure",
    "grows": "can be saved",
    "loses a nan": "one failure",
    "swallows failures": "all nan",
    "breaks on constants": "constant f",
    "stops at once": "a fresh run goes on",
}


@pytest.mark.parametrize("mistake", STRATEGIES)
def test_strategy(mistake: str) -> None:
    refuses(check_strategy, Strategy(mistake), STRATEGIES[mistake])


def test_pieces_in_the_wrong_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer that puts pieces one after the other, as they come."""

    def pile(parts: Any, population: Population) -> Evals:
        return Evals(np.concatenate([part.evals.values for part in parts]))

    monkeypatch.setattr("esopt._open.assemble", pile)
    refuses(check_strategy, GradientES(n=8), "told in pieces, in any order")


def test_strategy_that_claims_too_much() -> None:
    refuses(check_strategy, GradientES(rule=Adam(0.05)), "same mean and candidates", rank_based=True)
    refuses(check_strategy, Strategy("pulls to zero"), "moves the mean", translation_equivariant=True)
    refuses(check_strategy, esopt.openai_es(n=8), "moves the mean", translation_equivariant=True)
    unshifted = GradientES(sampler=Gaussian(), estimator=Score(NoBaseline()))
    refuses(check_strategy, unshifted, "constant added", shift_invariant=True)


@pytest.mark.parametrize(
    ("strategy", "dim"),
    [
        (esopt.DXNESIC(), 10),
        (esopt.CRFMNES(), 10),
        (esopt.OnePlusOneCMA(), 10),
        (esopt.CMAES(step_size=esopt.MSR()), 5),
        (esopt.CMAES(n=8, sampler=Antithetic()), 5),
    ],
)
def test_drift_of_sigma(strategy: Any, dim: int) -> None:
    refuses(check_strategy, strategy, "log sigma has no drift", dims=(dim,), learns=0, survives=True, neutral=True)


# ---- Step-size rules ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepSize(esopt.TPA):
    """Two-point adaptation with a mistake."""

    mistake: str = ""
    memory: list[int] = field(default_factory=list)

    def probes(self, mean: Array, sigma: float, state: Any) -> Array:
        if self.mistake == "asks differently every time":
            self.memory.append(0)
            return np.ones((len(self.memory), mean.size))
        rows = super().probes(mean, sigma, state)
        return rows[0] if self.mistake == "one row without its axis" and len(rows) else rows

    def adapt(self, move: Any, state: Any) -> tuple[float, Any]:
        sigma, after = super().adapt(move, state)
        match self.mistake:
            case "sorts the values":
                move.values.sort()
            case "remembers outside":
                self.memory.append(0)
                return sigma + 1e-3 * len(self.memory), after
            case "looks at the values":
                return sigma * (1.0 + 0.01 * np.tanh(move.values[0])), after
            case "loses a failure":
                return sigma * (np.nan if np.isnan(move.values).any() else 1.0), after
            case "grows":
                return 1.05 * sigma, after
        return sigma, after


STEP_SIZES = {
    "asks differently every time": "probes is pure",
    "one row without its axis": "finite rows",
    "sorts the values": "nothing is written|adapt is pure",
    "remembers outside": "adapt is pure",
    "looks at the values": "gives the same sigma",
    "loses a failure": "positive number where values are failed",
    "grows": "no drift",
}


def test_the_step_size_without_a_mistake_passes() -> None:
    check_step_size(StepSize(), neutral=True)


@pytest.mark.parametrize("mistake", STEP_SIZES)
def test_step_size(mistake: str) -> None:
    refuses(check_step_size, StepSize(mistake=mistake), STEP_SIZES[mistake], neutral=mistake == "grows")


def test_step_size_that_claims_too_much() -> None:
    refuses(check_step_size, esopt.PSR(), "no drift", neutral=True)


# ---- Evaluators -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluator:
    """Serial with a mistake."""

    mistake: str
    objective: esopt.Objective
    on_error: Any

    def init(self) -> Any:
        return ()

    def close(self) -> None:
        pass

    def evaluate(self, population: Population, state: Any) -> tuple[Evals, Any]:
        if self.mistake == "float32 candidates":
            rows = population.rows().astype(np.float32).astype(np.float64)
            population = replace(population, noise=esopt.Given(rows[: population.n] * 0.0), extra=rows)
            population = replace(population, noise=population.noise.resize(0))
        if self.mistake == "hides an exception":
            evals, state = Serial(self.objective, "nan").evaluate(population, state)
            return evals, state
        if self.mistake == "ignores what is needed":
            population = replace(population, needs=population.needs - {"hessians"})
        if self.mistake == "shuffles the probes" and population.probes is not None:
            probes = population.probes.rows().astype(np.float64)
            population = replace(population, probes=esopt.Given(np.roll(probes, 1, axis=0)))
        try:
            evals, state = Serial(self.objective, self.on_error).evaluate(population, state)
        except esopt.EvaluationError as error:
            if self.mistake == "forgets the row":
                raise esopt.EvaluationError(
                    f"an objective raised {type(error.__cause__).__name__} in generation 4"
                ) from error
            raise
        match self.mistake:
            case "arrives in another order":
                evals = replace(evals, values=np.roll(evals.values, 1))
            case "rounds":
                evals = replace(evals, values=np.round(evals.values, 14))
            case "no steps":
                evals = replace(evals, steps=0)
            case "counts nothing":
                evals = replace(evals, failures={})
            case "poisoned buffer":
                evals = replace(evals, values=np.nan_to_num(evals.values, nan=0.0))
            case "one kind for all":
                kinds = {"gradient" if kind == "hessian" else kind: evals.failures[kind] for kind in evals.failures}
                evals = replace(evals, failures=kinds)
            case "lets infinity pass" if evals.hvps is not None:
                evals = replace(evals, hvps=np.nan_to_num(evals.hvps, nan=np.inf))
        return evals, state


EVALUATORS = {
    "float32 candidates": "those of Serial",
    "arrives in another order": "those of Serial",
    "rounds": "those of Serial",
    "no steps": "steps",
    "counts nothing": "rows that raised",
    "poisoned buffer": "rows that raised",
    "hides an exception": "EvaluationError",
    "forgets the row": "how to get there",
    "ignores what is needed": "refused",
    "shuffles the probes": "those of Serial",
    "one kind for all": "counted by kind",
    "lets infinity pass": "counted by kind",
}


@pytest.mark.parametrize("mistake", EVALUATORS)
def test_evaluator(mistake: str) -> None:
    refuses(check_evaluator, lambda objective, on_error: Evaluator(mistake, objective, on_error), EVALUATORS[mistake])


def test_evaluator_that_ignores_seeds() -> None:
    def make(objective: esopt.Objective, on_error: Any) -> Serial:
        if not objective.seeded:
            return Serial(objective, on_error)
        grad = objective.grad and (lambda x, seed, *args: objective.grad(x, 0, *args))
        return Serial(replace(objective, f=lambda x, seed, *args: objective.f(x, 0, *args), grad=grad), on_error)

    refuses(check_evaluator, make, "those of Serial")


def test_messages_say_what_to_do() -> None:
    with pytest.raises(ConformanceError) as error:
        check_rule(Rule("uphill"))

    assert str(error.value).startswith(
        "Rule(mistake='uphill') breaks a law: the first step goes downhill.\n  got step . gradient = 0.1"
    )
    assert str(error.value).endswith("Return the step that is added to the parameters: minus the gradient, not plus.")


def test_antithetic_of_a_block() -> None:
    """A base whose blocks have two rows: pairs of four."""
    check_sampler(Antithetic(Sampler("none")))  # type: ignore[arg-type]
    check_baseline(AtMean(), shift_invariant=True)
