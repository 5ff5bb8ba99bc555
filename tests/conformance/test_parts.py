"""The public conformance suites over every part of the package, with the claims that its documentation makes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

import esopt
from esopt.estimators.bonnet import Bonnet
from esopt.estimators.score import Score
from esopt.protocols import Baseline, Estimator, Evaluator, Rule, Sampler, Shaping, StepSize, Strategy
from esopt.shaping import cma_weights
from esopt.strategies.augmented_lagrangian import AugmentedLagrangian
from esopt.strategies.averaged import Averaged
from esopt.strategies.bounded import Bounded
from esopt.strategies.by_dimension import ByDimension
from esopt.strategies.cmaes import CMAES
from esopt.strategies.cr_fm_nes import CRFMNES
from esopt.strategies.dd_cma import DDCMA
from esopt.strategies.elitist import Elitist
from esopt.strategies.endless import Endless
from esopt.strategies.finite_differences import finite_differences
from esopt.strategies.halving import Halving
from esopt.strategies.lm_ma_es import LMMAES
from esopt.strategies.lra_cmaes import LRACMAES
from esopt.strategies.margin import Margin
from esopt.strategies.named import ars, openai_es, pgpe, snes
from esopt.strategies.natural import xnes
from esopt.strategies.psa_cma import PSACMA
from esopt.strategies.random_search import RandomSearch
from esopt.strategies.restarts import BIPOP, IPOP, Restarts
from esopt.strategies.rm_es import RMES
from esopt.strategies.sep_cma import SepCMA
from esopt.strategies.spsa import spsa
from esopt.strategies.uncertainty_handling import UncertaintyHandling
from esopt.testing import (
    check_baseline,
    check_estimator,
    check_evaluator,
    check_rule,
    check_sampler,
    check_shaping,
    check_step_size,
    check_strategy,
)
from tests.conformance.collect import Case, case, cases, makers, name, parts

DESIGN = np.arange(12.0).reshape(4, 3) - 5.0

SAMPLERS = cases(
    parts("samplers", Sampler),
    {
        esopt.Replay: [
            case(esopt.Replay(DESIGN), n=4, dim=3, random=False),
            case(esopt.Replay(np.stack([DESIGN, -DESIGN], axis=1).reshape(8, 3), 2, True), n=8, dim=3, random=False),
        ],
        esopt.Coordinates: [
            case(esopt.Coordinates(), max_dim=400),
            case(esopt.Coordinates(3), max_dim=400),
            case(esopt.Antithetic(esopt.Coordinates(4)), max_dim=400),
        ],
        esopt.Halton: [case(esopt.Halton(), max_dim=70), case(esopt.Halton(replicates=2), max_dim=20)],
        esopt.Sobol: [case(esopt.Sobol(), max_dim=200), case(esopt.Sobol(replicates=2), max_dim=70)],
        esopt.Orthogonal: [
            case(esopt.Orthogonal()),
            case(esopt.Orthogonal(3)),
            case(esopt.Antithetic(esopt.Orthogonal(4))),
        ],
        esopt.LowRank: [
            case(esopt.LowRank((5, 4)), dim=20),
            case(esopt.LowRank(rank=3, shapes=((6, 5), (6,), (1, 6))), dim=42),
        ],
    },
)

SHAPINGS = cases(
    parts("shaping", Shaping),
    {
        esopt.TopFraction: [case(esopt.TopFraction(0.4), monotone=False), case(esopt.TopFraction(1.0))],
        esopt.RecombinationWeights: [
            case(esopt.RecombinationWeights()),
            case(esopt.RecombinationWeights(cma_weights), centered=False),
        ],
    },
)

BASELINES = cases(
    parts("baselines", Baseline),
    {
        esopt.LeaveOneOut: [case(esopt.LeaveOneOut(), shift_invariant=True)],
        esopt.AtMean: [case(esopt.AtMean(), shift_invariant=True)],
        esopt.OptimalScalar: [case(esopt.OptimalScalar(), shift_invariant=True)],
        esopt.OptimalPerCoordinate: [case(esopt.OptimalPerCoordinate(), shift_invariant=True)],
    },
)

SEPARABLE = (esopt.OptimalPerCoordinate, esopt.Quadratic)  # they refuse a factor

ESTIMATORS = cases(
    parts("estimators", Estimator),
    {
        Score: [
            case(Score(base, scaled), factor=not isinstance(base, SEPARABLE))
            for base in (found.build() for found in BASELINES)
            for scaled in (False, True)
        ],
        Bonnet: [case(Bonnet()), case(Bonnet(with_scale=True))],
        esopt.Price: [case(esopt.Price(probes)) for probes in (None, esopt.Rademacher(), esopt.Gaussian())],
        esopt.Hybrid: [
            case(
                esopt.Hybrid(Score(base), tangent),
                linear=False,
                factor=not isinstance(base, SEPARABLE),
                cautious=True,
                generations=120,
            )
            for base in (each.build() for each in BASELINES)
            for tangent in (False, True)
        ],
        esopt.Auto: [
            case(esopt.Auto(), linear=False),
            case(esopt.Auto((Score(with_scale=True), Bonnet(with_scale=True))), linear=False),
            case(esopt.Auto((Score(), Score(esopt.Linear()), Score(esopt.AtMean()))), linear=False),
        ],
        esopt.MeasureValued: [case(esopt.MeasureValued(k), factor=False) for k in (None, 2)],
        # Unbiased under a smoothing of its own: tests/statistical/test_guided.py.
        esopt.Guided: [
            case(esopt.Guided(), unbiased=False, factor=False),
            case(esopt.Guided(np.ones(3), unbiased=False), unbiased=False, factor=False),
            case(esopt.Guided(DESIGN[:2].T, alpha=1.0), factor=False),
        ],
        # Unbiased on quadratics, consistent elsewhere: tests/statistical/test_regression.py.
        esopt.Regression: [case(esopt.Regression(k), unbiased=False) for k in (0, 1, 5)],
    },
)

RULES = cases(
    parts("rules", Rule),
    {
        esopt.Clipped: [case(esopt.Clipped(esopt.SGD(0.1), 0.05)), case(esopt.Clipped(esopt.Momentum(0.01), 0.2))],
        esopt.SGD: [case(esopt.SGD()), case(esopt.SGD(esopt.CosineDecay(0.1, 0.01, 100)))],
    },
)

STEP_SIZES = cases(
    parts("step_sizes", StepSize),
    {
        esopt.CSA: [case(esopt.CSA())],
        esopt.TPA: [case(esopt.TPA(), neutral=True), case(esopt.TPA(0.5, 3.0, 1.0), neutral=True)],
        esopt.MSR: [case(esopt.MSR()), case(esopt.MSR(quantile=0.27, damping=2.0))],
        esopt.PSR: [case(esopt.PSR()), case(esopt.PSR(parents=True)), case(esopt.PSR(0.0), neutral=True)],
    },
)

GradientES, Antithetic, Gaussian = esopt.GradientES, esopt.Antithetic, esopt.Gaussian
MOVES = {"translation_equivariant": True}
FREE = {"translation_equivariant": True, "shift_invariant": True}
NAMED = {
    openai_es: [
        case(openai_es(), rank_based=True),
        case(openai_es(n=2), rank_based=True),
        case(openai_es(n=8, weight_decay=0.0), rank_based=True, **FREE),
    ],
    ars: [case(ars(), **FREE), case(ars(n=16, top=3), **FREE), case(ars(n=2), **FREE)],
    pgpe: [case(pgpe(), rank_based=True, **FREE), case(pgpe(n=2), rank_based=True, **FREE)],
    snes: [case(snes(), rank_based=True, **FREE), case(snes(n=2), rank_based=True, learns=0, **FREE)],
}
ROWS = np.stack([np.eye(3), -np.eye(3)], axis=1).reshape(6, 3) * np.sqrt(3.0)
NaturalGaussian = esopt.NaturalGaussian
NATURAL = {
    xnes: [case(xnes(), rank_based=True, **FREE), case(xnes(n=2), rank_based=True, learns=0, **FREE)],
    NaturalGaussian: [
        case(NaturalGaussian(), rank_based=True, **FREE),
        case(NaturalGaussian(n=40, temperature=0.5), **FREE),
        case(NaturalGaussian(full=True, n=40, temperature=0.5, estimator=Score(esopt.AtMean(), True)), **FREE),
        *[
            case(
                NaturalGaussian(full=full, n=8, temperature=tau, estimator=part, mean_rate=0.1, scale_rate=0.1), **FREE
            )
            for part in (Bonnet(with_scale=True), esopt.Price(), esopt.Price(esopt.Rademacher()))
            for full, tau in ((True, 0.5), (False, 0.0))
        ],
    ],
}
STRATEGIES = cases(
    parts("strategies", Strategy)
    + makers("strategies", esopt.GradientES)
    + makers("strategies", esopt.NaturalGaussian),
    {
        **NAMED,
        **NATURAL,
        CMAES: [
            case(CMAES(), rank_based=True, neutral=True, **FREE),
            case(CMAES(sigma=0.3, n=7, active=False), rank_based=True, **FREE),
            case(CMAES(sampler=Antithetic(), n=8), rank_based=True, **FREE),
            case(CMAES(step_size=esopt.TPA()), rank_based=True, neutral=True, **FREE),
            case(CMAES(step_size=esopt.MSR(), sampler=esopt.Rademacher()), rank_based=True, **FREE),
        ],
        PSACMA: [
            case(PSACMA(), rank_based=True, **FREE),
            case(PSACMA(SepCMA(n=6, sampler=Antithetic()), n_max=20), rank_based=True, **FREE),
        ],
        LRACMAES: [
            case(LRACMAES(), rank_based=True, **FREE),
            case(LRACMAES(sigma=0.3, n=8, active=False, sampler=Antithetic()), rank_based=True, **FREE),
        ],
        Bounded: [
            case(Bounded(CMAES(), esopt.Smooth(-3.0, 4.0)), rank_based=True, shift_invariant=True),
            case(Bounded(snes(), esopt.Reflect(-0.5, None)), rank_based=True, shift_invariant=True),
            case(Bounded(CMAES(), esopt.Clip(-1.0, 2.5)), shift_invariant=True),
            case(Bounded(GradientES(), esopt.Smooth(None, 2.5)), shift_invariant=True),
            case(Bounded(GradientES(estimator=Bonnet()), esopt.Clip(-0.5, 2.0)), shift_invariant=True),
            case(Bounded(GradientES(estimator=Score(esopt.AtMean())), esopt.Reflect(-9.0, 9.0)), shift_invariant=True),
            case(Bounded(Restarts(), esopt.Smooth(-1.0, 2.0)), learns=80, rank_based=True, shift_invariant=True),
            case(Bounded(Margin(CMAES(), [0]), esopt.Rounded([True, False])), dims=(2,), rank_based=True),
        ],
        AugmentedLagrangian: [
            case(AugmentedLagrangian(), **MOVES),
            case(AugmentedLagrangian(esopt.SepCMA(n=9)), **MOVES),
            case(AugmentedLagrangian(GradientES()), **MOVES),
            case(Bounded(AugmentedLagrangian(CMAES()), esopt.Smooth(-3.0, 4.0)), shift_invariant=True),
        ],
        esopt.QuasiNewton: [case(esopt.QuasiNewton(), seeded=False)],
        esopt.CoordinateSearch: [
            case(esopt.CoordinateSearch(), dims=(2, 5)),
            case(esopt.CoordinateSearch(0.2), dims=(1,), seeded=False),
        ],
        esopt.Multistart: [case(esopt.Multistart(), seeded=False)],
        esopt.Portfolio: [
            case(esopt.Portfolio(), dims=(2, 5), survives=True),
            case(esopt.Portfolio(0.2), dims=(1,), seeded=False, survives=True),
        ],
        SepCMA: [
            case(SepCMA(), rank_based=True, neutral=True, **FREE),
            case(SepCMA(n=2, active=False), rank_based=True, **FREE),
            case(SepCMA(step_size=esopt.PSR()), rank_based=True, **FREE),
        ],
        LMMAES: [
            case(LMMAES(), rank_based=True, neutral=True, **FREE),
            case(LMMAES(n=6, m=1, sampler=Antithetic()), rank_based=True, **FREE),
            case(LMMAES(n=40), dims=(8,), rank_based=True, **FREE),
            case(LMMAES(step_size=esopt.TPA()), rank_based=True, **FREE),
        ],
        CRFMNES: [
            case(CRFMNES(), rank_based=True, **FREE),
            case(CRFMNES(n=2), learns=0, rank_based=True, **FREE),
            case(CRFMNES(n=7, sampler=Gaussian()), dims=(6,), rank_based=True, **FREE),
        ],
        esopt.OnePlusOneCMA: [
            case(esopt.OnePlusOneCMA(), rank_based=True, **FREE),
            case(esopt.OnePlusOneCMA(0.3, 6, False, sampler=Antithetic()), rank_based=True, survives=True, **FREE),
        ],
        esopt.DXNESIC: [
            case(esopt.DXNESIC(), rank_based=True, **FREE),
            case(esopt.DXNESIC(n=2), learns=0, rank_based=True, **FREE),
            case(esopt.DXNESIC(0.3, 7, Gaussian()), rank_based=True, **FREE),
        ],
        esopt.MAES: [
            case(esopt.MAES(), rank_based=True, neutral=True, **FREE),
            case(esopt.MAES(0.3, 8, sampler=Antithetic()), rank_based=True, **FREE),
        ],
        DDCMA: [
            case(DDCMA(), rank_based=True, neutral=True, **FREE),
            case(DDCMA(n=2), rank_based=True, **FREE),
            case(DDCMA(n=30, sampler=Antithetic()), dims=(6,), rank_based=True, **FREE),
        ],
        RMES: [
            case(RMES(), rank_based=True, **FREE),
            case(RMES(n=7, m=1), rank_based=True, **FREE),
            case(RMES(m=4, gap=2), dims=(8,), rank_based=True, **FREE),
            case(RMES(step_size=esopt.TPA()), rank_based=True, neutral=True, **FREE),
        ],
        esopt.VkDCMA: [
            case(esopt.VkDCMA(), rank_based=True, neutral=True, **FREE),
            case(esopt.VkDCMA(n=4, k=0), rank_based=True, **FREE),
            case(esopt.VkDCMA(n=8, k=2, sampler=Antithetic()), dims=(3, 6), rank_based=True, **FREE),
        ],
        Margin: [
            case(Margin(CMAES(), [0]), rank_based=True, shift_invariant=True),
            case(Margin(SepCMA(), [0], -3.0, 3.0), rank_based=True, shift_invariant=True),
            case(Margin(LRACMAES(), [0]), rank_based=True, shift_invariant=True),
            case(Restarts(Margin(DDCMA(), [0])), rank_based=True, shift_invariant=True),
        ],
        Restarts: [
            case(Restarts(), rank_based=True, **FREE),
            case(Restarts(SepCMA(), IPOP()), rank_based=True, **FREE),
            case(Restarts(policy=BIPOP(weighted=True), limit=2), rank_based=True, **FREE),
        ],
        spsa: [case(spsa(), dims=(4, 7), **FREE), case(spsa(n=6, lr=0.1), dims=(2, 5), **FREE)],
        finite_differences: [case(finite_differences(3), dims=(3,), learns=300, **FREE)],
        RandomSearch: [case(RandomSearch(sigma=1.0), rank_based=True, **FREE)],
        Averaged: [
            case(Averaged(times=3), rank_based=True, translation_equivariant=True),
            case(Averaged(GradientES(estimator=Score(esopt.AtMean())), 2), translation_equivariant=True),
            case(Averaged(GradientES(estimator=Bonnet()), 1), **FREE),
        ],
        ByDimension: [
            case(ByDimension(limit=5), **FREE),
            case(ByDimension(CMAES(), SepCMA(), limit=5), rank_based=True, **FREE),
        ],
        Elitist: [
            case(Elitist(), rank_based=True, **FREE),
            case(Elitist(SepCMA(n=12)), rank_based=True, **FREE),
        ],
        Endless: [case(Endless(), rank_based=True, **FREE), case(Endless(GradientES(n=8)), **FREE)],
        Halving: [
            case(Halving(), rank_based=True, **FREE),
            case(Halving(GradientES(n=8), starts=4, generations=2), **FREE),
            case(Halving(Endless(), starts=1), rank_based=True, **FREE),
        ],
        UncertaintyHandling: [
            case(UncertaintyHandling(), rank_based=True, **FREE),
            case(UncertaintyHandling(SepCMA(n=30), limit=1, memory=0.7), rank_based=True, **FREE),
        ],
        GradientES: [
            case(GradientES(), **FREE),
            case(GradientES(n=2), **FREE),
            case(GradientES(sampler=Gaussian(), n=1, estimator=Score(esopt.NoBaseline())), learns=0, **MOVES),
            case(GradientES(sampler=Gaussian(), estimator=Score(esopt.AtMean())), **FREE),
            case(GradientES(sampler=Gaussian(), estimator=Score(esopt.MovingAverage()), weight_decay=0.01)),
            case(GradientES(shaping=esopt.Standardize(), sigma=lambda generation: 0.1 * 0.99**generation), **FREE),
            case(GradientES(estimator=Bonnet(), rule=esopt.Momentum(0.05, 0.5)), **FREE),
            case(
                GradientES(
                    sampler=Gaussian(),
                    estimator=Bonnet(with_scale=True),
                    scale_rule=esopt.Clipped(esopt.Exponential(0.01), 0.1),
                ),
                **FREE,
            ),
            case(GradientES(sampler=esopt.Replay(ROWS, 2, True), n=6), dims=(3,), seeded=False, **FREE),
            case(GradientES(rule=esopt.SGD(1.0), rates=(esopt.CurvatureRate(), esopt.SNRRate())), **FREE),
            case(GradientES(n=8, rates=(esopt.SNRRate(),), sizing=esopt.NormTest(most=64)), **FREE),
            case(GradientES(n=16, estimator=esopt.Auto()), **FREE),
            case(GradientES(estimator=esopt.Regression(2)), **FREE),
        ],
    },
)


def over_rows(f: Callable[..., Any] | None, *, probed: bool = False) -> Any:
    """A function of one candidate (and a probe) as one of many: seeds come as an int64 array, one per row."""
    if f is None:
        return None

    def many(*arguments: Any) -> Any:
        rows, rest = arguments[: 1 + probed], arguments[1 + probed :]
        seeded = bool(rest) and isinstance(rest[0], np.ndarray) and rest[0].dtype == np.int64
        each = enumerate(zip(*rows, strict=True))
        found = [f(*row, int(rest[0][i]), *rest[1:]) if seeded else f(*row, *rest) for i, row in each]
        if isinstance(found[0], esopt.Outcome):
            return esopt.Outcome(*(np.array(part) for part in zip(*found, strict=True)))
        return np.array(found)

    many.__name__ = f.__name__
    return many


def vectorized(chunk: int | None) -> Case:
    def make(objective: esopt.Objective, on_error: Any) -> esopt.Vectorized:
        parts = {part: over_rows(getattr(objective, part)) for part in ("f", "grad", "hess")}
        along = {part: over_rows(getattr(objective, part), probed=True) for part in ("hvp", "jvp")}
        return esopt.Vectorized(replace(objective, **parts, **along), chunk, on_error)

    return case(make, rowwise=False)


def compiled(threads: int | None) -> Case:
    def make(objective: esopt.Objective, on_error: Any) -> esopt.Compiled:
        grad = objective.grad and numba.njit(objective.grad)
        return esopt.Compiled(replace(objective, f=numba.njit(objective.f), grad=grad), threads, on_error)

    return case(make)


def joblib(workers: int, backend: str, chunk: int | None = None) -> Case:
    def make(objective: esopt.Objective, on_error: Any) -> esopt.Joblib:
        return esopt.Joblib(objective, workers, backend, chunk=chunk, on_error=on_error)

    return case(make)


def executor(make: Callable[[], Any]) -> Case:
    return case(lambda objective, on_error: esopt.Executor(objective, make(), on_error=on_error))


MAKERS = {
    esopt.Serial: {"": case(esopt.Serial)},
    esopt.Vectorized: {f"chunk {chunk}": vectorized(chunk) for chunk in (None, 1, 5)},
    esopt.Compiled: {f"threads {threads}": compiled(threads) for threads in (None, 1)},
    esopt.Joblib: {
        "1 worker": joblib(1, "loky"),
        "2 threads": joblib(2, "threading"),
        "3 threads by one": joblib(3, "threading", 1),
        "2 processes": joblib(2, "loky"),
        "3 processes": joblib(3, "loky"),
    },
    esopt.Executor: {
        "2 threads": executor(lambda: ThreadPoolExecutor(2)),
        "2 processes": executor(lambda: get_reusable_executor(2)),
    },
}
EVALUATORS = [
    pytest.param(
        home,
        maker,
        id=f"{home.__name__} {how}".strip(),
        marks=[pytest.mark.slow] if "processes" in how else [],
    )
    for home, makers_of in MAKERS.items()
    for how, maker in makers_of.items()
]


@pytest.mark.parametrize("part", SAMPLERS, ids=name)
def test_sampler(part: Case) -> None:
    check_sampler(part.build(), **part.claims)


@pytest.mark.parametrize("part", SHAPINGS, ids=name)
def test_shaping(part: Case) -> None:
    check_shaping(part.build(), **part.claims)


@pytest.mark.parametrize("part", BASELINES, ids=name)
def test_baseline(part: Case) -> None:
    check_baseline(part.build(), **part.claims)


@pytest.mark.parametrize("part", ESTIMATORS, ids=name)
def test_estimator(part: Case) -> None:
    check_estimator(part.build(), **part.claims)


@pytest.mark.parametrize("part", RULES, ids=name)
def test_rule(part: Case) -> None:
    check_rule(part.build(), **part.claims)


@pytest.mark.parametrize("part", STEP_SIZES, ids=name)
def test_step_size(part: Case) -> None:
    check_step_size(part.build(), **part.claims)


@pytest.mark.parametrize("part", STRATEGIES, ids=name)
def test_strategy(part: Case) -> None:
    check_strategy(part.build(), **part.claims)


@pytest.mark.parametrize(("home", "maker"), EVALUATORS)
def test_evaluator(home: type, maker: Case) -> None:
    check_evaluator(maker.part, **maker.claims)


def test_every_evaluator_is_listed() -> None:
    """Each needs functions in a form of its own, so that none can be built by itself."""
    assert set(parts("evaluators", Evaluator)) == set(MAKERS)


def test_every_part_of_the_public_face_is_found() -> None:
    """What users import as a part was checked above: the scan looks where the parts are."""
    checked = {
        type(c.build())
        for group in (SAMPLERS, SHAPINGS, BASELINES, ESTIMATORS, RULES, STEP_SIZES, STRATEGIES)
        for c in group
    }
    protocols = (Sampler, Shaping, Baseline, Estimator, Rule, StepSize, Strategy)
    public = [getattr(esopt, known) for known in esopt.__all__ if not known.startswith("_")]
    members = [[m for m in vars(p) if not m.startswith("_")] for p in protocols]
    missed = [
        value.__name__
        for value in public
        if isinstance(value, type)
        and any(all(hasattr(value, m) for m in ms) for ms in members)
        and value not in checked
    ]

    assert missed == []


def test_a_new_part_is_checked_without_being_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that appears in a folder is found and built with its defaults, or is an error that says so."""
    import esopt.rules.sgd as home

    new = type("New", (esopt.SGD,), {"__module__": home.__name__})
    monkeypatch.setattr(home, "New", new, raising=False)

    assert new in parts("rules", Rule)
    assert [type(found.build()) for found in cases([new], {})] == [new]

    needy = type("Needy", (), {"__init__": lambda self, needed: None})
    with pytest.raises(LookupError, match="list it with an example"):
        cases([needy], {})[0].build()
