"""Laws of estimators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, Given, Key
from ..protocols import Estimator, Sampler, State
from ..records import Evals, Gradient, Population, Scale
from ..samplers.antithetic import Antithetic
from ..samplers.gaussian import Gaussian
from ._check import STREAM, Check, bits, given, normals, without_rows
from ._problems import Problem, closed_forms, quadratic

_DIM = 3
_MEAN = np.array([0.3, -0.2, 0.5])
_SCALES: tuple[Scale, ...] = (0.6, np.array([0.4, 0.6, 0.9]))
_FACTOR = np.array([[0.5, -0.1, 0.2], [0.2, 0.6, 0.0], [-0.3, 0.1, 0.8]])
_LEARNING = 3
_Z = 5.5
"""Standard errors that a mean may be off; the seeds are fixed, so an estimator passes always or never."""


def check_estimator(
    estimator: Estimator,
    *,
    samplers: Sequence[Sampler] = (Gaussian(), Antithetic()),
    n: int = 128,
    generations: int = 80,
    linear: bool = True,
    unbiased: bool = True,
    factor: bool = True,
    cautious: bool = False,
) -> None:
    """Check that ``estimator`` keeps the laws of :class:`esopt.protocols.Estimator`.

    Unbiased for the gradient of J(mean, scale) = E f(mean + scale * eps), whether the scale is one number, one per
    coordinate or a factor, where f is linear, quadratic, exp(a.x) or cos(a.x); standard errors are what they say;
    failed blocks are left out as if they had never been there; a single block has no standard error; the same for
    :class:`esopt.Given` noise. Evaluations have every derivative that the prepared population needs.

    Parameters
    ----------
    samplers : samplers that it is for.
    n : rows per generation, a multiple of their blocks.
    generations : number of generations to average over.
    linear : estimates are linear in the values (and derivatives), from a fresh state.
    unbiased : False for an estimator that declares a bias; the means are then not compared.
    factor : False for an estimator that refuses a scale that is a factor (d, d), with a ValueError.
    cautious : True where standard errors may be up to twice as large as the scatter, since they allow for a bias.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> from esopt import Bonnet
    >>> from esopt.testing import check_estimator
    >>> check_estimator(Bonnet(with_scale=True))
    """
    check = Check(estimator)
    scales = (*_SCALES, _FACTOR) if factor else _SCALES
    for sampler in samplers:
        if not factor:
            _check_refusal(check, estimator, sampler)
        for scale in scales:
            _check_one(check, estimator, sampler, scale)
            _check_given(check, estimator, sampler, scale)
            if linear:
                _check_linear(check, estimator, sampler, scale)
            if unbiased:
                for problem in closed_forms(_DIM):
                    _check_law(check, estimator, sampler, scale, problem, n, generations, 0.25 if cautious else 0.6)
            _check_blocks(check, estimator, sampler, scale)


def _population(
    estimator: Estimator, state: State, sampler: Sampler, scale: Scale, n: int, generation: int = 0
) -> Population:
    noise = sampler.noise(Key(11, generation, STREAM), n, _DIM)
    return estimator.prepare(Population(_MEAN, scale, noise), state)


def _everything(gradient: Gradient) -> Array:
    """Return mean, scale and value as one vector."""
    scale = np.zeros(0) if gradient.scale is None else np.ravel(gradient.scale)
    return np.concatenate([gradient.mean, scale, [gradient.value]])


def _errors(gradient: Gradient) -> Array:
    scale = np.zeros(0) if gradient.scale_stderr is None else np.ravel(gradient.scale_stderr)
    return np.concatenate([gradient.mean_stderr, scale, [gradient.value_stderr]])


def _problem() -> Problem:
    return quadratic(np.array([1.0, -2.0, 0.5]), np.diag([2.0, 1.0, 0.5]) + 0.25, 3.0)


def _check_one(check: Check, estimator: Estimator, sampler: Sampler, scale: Scale) -> None:
    """Check shapes and purity."""
    fresh = state = estimator.init(_DIM)
    for generation in range(3):
        population = _population(estimator, state, sampler, scale, 16, generation)
        evals = _problem().evaluate(population)
        values, before = bits(evals.values), bits(state)
        gradient, after = estimator.estimate(population, evals, state)
        again, _ = estimator.estimate(population, evals, state)
        do = "Return new arrays; keep what the next generation needs in the returned state."
        check.same("estimate is pure", again, bits(gradient), do=do)
        check.same("estimate does not change the values", evals.values, values, do=do)
        check.same("estimate does not change the state", state, before, do=do)
        parts = [gradient.mean, gradient.mean_stderr]
        parts += [np.asarray(gradient.scale), np.asarray(gradient.scale_stderr)] if estimator.with_scale else []
        shapes = [part.shape for part in parts]
        expected = [(_DIM,)] * 2 + [np.shape(scale)] * 2 * estimator.with_scale
        check.require(
            shapes == expected
            and (gradient.scale is None) == (not estimator.with_scale)
            and bool(np.isfinite(_everything(gradient)).all()),
            "gradients and their errors have the shapes of mean and scale; scale is None unless with_scale",
            got=f"shapes {shapes}, scale {gradient.scale}",
            expected=f"shapes {expected}",
            do="See esopt.Gradient for the shapes.",
        )
        state = check.reload(after, fresh) if generation == 1 else after


def _check_given(check: Check, estimator: Estimator, sampler: Sampler, scale: Scale) -> None:
    state = estimator.init(_DIM)
    population = _population(estimator, state, sampler, scale, 16)
    noise = population.noise
    explicit = Given(noise.rows().astype(np.float64), noise.block, noise.mirrored, noise.key)
    evals = _problem().evaluate(population)
    a, _ = estimator.estimate(population, evals, state)
    b, _ = estimator.estimate(replace(population, noise=explicit), evals, state)
    do = "Reach the noise through its members (moment, dot, weighted, norms, rows, tiles) only."
    for what, one, other in (("estimate", _everything(a), _everything(b)), ("standard error", _errors(a), _errors(b))):
        check.close(f"explicit rows give the same {what}", one, other, do=do, tolerance=1e-5)


def _check_linear(check: Check, estimator: Estimator, sampler: Sampler, scale: Scale) -> None:
    state = estimator.init(_DIM)
    population = _population(estimator, state, sampler, scale, 16)
    ones, others = _random(population, 500), _random(population, 510)
    mixed = {name: 2.0 * one - 3.0 * others[name] for name, one in ones.items()}
    a, b, got = (_everything(estimator.estimate(population, Evals(**e), state)[0]) for e in (ones, others, mixed))
    do = "Average values times a function of the noise, or pass linear=False."
    check.close("estimates are linear in values and derivatives", got, 2.0 * a - 3.0 * b, do=do, tolerance=1e-5)


def _random(population: Population, seed: int) -> dict[str, Any]:
    """Return normal values and derivatives, whatever the population needs."""
    n, shapes = len(population), {"grads": (_DIM,), "hessians": (_DIM, _DIM), "hvps": (_DIM,), "jvps": ()}
    wanted = {"values": (), **{name: shape for name, shape in shapes.items() if name in population.needs}}
    return {
        name: normals(seed + k, n, math.prod(shape)).reshape(n, *shape)
        for k, (name, shape) in enumerate(wanted.items())
    }


def _check_refusal(check: Check, estimator: Estimator, sampler: Sampler) -> None:
    def call() -> object:
        state = estimator.init(_DIM)
        population = _population(estimator, state, sampler, _FACTOR, 16)
        return estimator.estimate(population, _problem().evaluate(population), state)

    do = "Get the scale from population.sigma(...), or drop the claim factor=False."
    check.raises(ValueError, call, "a factor is refused where it is not understood", do=do)


def _check_blocks(check: Check, estimator: Estimator, sampler: Sampler, scale: Scale) -> None:
    """Check failures, single blocks and nothing at all."""
    block, state = sampler.block, estimator.init(_DIM)
    noise = given(60, 6 * block, _DIM, block)
    whole = estimator.prepare(Population(_MEAN, scale, noise), state)
    if whole.probes is not None:
        whole = replace(whole, probes=Given(whole.probes.rows(), whole.probes.block))
    evals = _problem().evaluate(whole)
    rest = estimator.prepare(Population(_MEAN, scale, without_rows(noise, 2 * block, 3 * block)), state)
    if whole.probes is not None:
        probes = np.delete(whole.probes.rows(), slice(2 * block, 3 * block), axis=0)
        rest = replace(rest, probes=Given(probes))
    own = len(whole.tags) // whole.n
    if whole.extra is not None and own:
        # Explicit rows that belong to the noise rows, in their order, are dropped with them.
        rest = replace(rest, extra=np.delete(whole.extra, slice(2 * own * block, 3 * own * block), axis=0))
    b, _ = estimator.estimate(rest, _problem().evaluate(rest), state)
    for name in sorted(whole.needs | {"values"}):
        for kind in (np.nan, np.inf) if name == "values" else (np.nan,):
            failed = getattr(evals, name).copy()
            failed[2 * block + block // 2] = kind
            a, _ = estimator.estimate(whole, replace(evals, **{name: failed}), state)
            do = "Drop the whole block of a failed row, and divide by the number of rows that are left."
            law = f"a block with {kind} among its {name} is as if it had never been there"
            if name != "values":  # the value of a row without its derivative may count for J
                a = replace(a, value=b.value, value_stderr=b.value_stderr)
            check.close(f"{law}: estimates", _everything(a), _everything(b), do=do)
            check.close(f"{law}: standard errors", _errors(a), _errors(b), do=do)
            check.require(
                a.blocks == 5, f"{law}: number of blocks", got=a.blocks, expected=5, do="Count usable blocks."
            )

    single = estimator.prepare(Population(_MEAN, scale, given(61, block, _DIM, block)), state)
    gradient, _ = estimator.estimate(single, _problem().evaluate(single), state)
    check.require(
        np.isnan(_errors(gradient)).all() and np.isfinite(_everything(gradient)).all(),
        "a single block gives an estimate, and nan for its standard errors",
        got=_errors(gradient),
        expected="nan",
        do="Return nan where fewer than two independent blocks are left.",
    )
    lost = replace(evals, values=np.full(len(whole), np.nan))
    call = _caller(estimator, whole, lost, state)
    check.raises(EvaluationError, call, "no usable block is an error", do="Raise esopt.EvaluationError.")


@dataclass(frozen=True)
class _caller:
    estimator: Estimator
    population: Population
    evals: Evals
    state: State

    def __call__(self) -> object:
        return self.estimator.estimate(self.population, self.evals, self.state)


def _estimates(
    estimator: Estimator, sampler: Sampler, scale: Scale, problem: Problem, n: int, generations: int
) -> Iterator[tuple[Array, Array]]:
    """Yield estimates and errors from one state, that after a few generations, so that all have the same law."""
    state = estimator.init(_DIM)
    for generation in range(_LEARNING + generations):
        population = _population(estimator, state, sampler, scale, n, generation)
        gradient, learned = estimator.estimate(population, problem.evaluate(population), state)
        if generation < _LEARNING:
            state = learned
            continue
        yield _everything(gradient)[:-1], _errors(gradient)[:-1]


def _check_law(
    check: Check,
    estimator: Estimator,
    sampler: Sampler,
    scale: Scale,
    problem: Problem,
    n: int,
    generations: int,
    least: float,
) -> None:
    """Compare the average over generations with the truth, and the scatter with ``least`` of the errors or more."""
    found, errors = (
        np.array(x) for x in zip(*_estimates(estimator, sampler, scale, problem, n, generations), strict=True)
    )
    expected = problem.mean_gradient(_MEAN, scale)
    if estimator.with_scale:
        expected = np.concatenate([expected, np.ravel(problem.scale_gradient(_MEAN, scale))])
    where = f"{problem.name}, {sampler!r}, scale {('scalar', 'diagonal', 'factor')[np.ndim(scale)]}"
    off, error = found.mean(axis=0) - expected, found.std(axis=0, ddof=1) / np.sqrt(generations)
    tiny = 1e-6 * (1.0 + np.abs(expected))
    z = off / np.maximum(error, tiny)
    check.require(
        np.abs(z).max() < _Z,
        f"unbiased for the smoothed gradient, mean then scale ({where})",
        got=f"{found.mean(axis=0)} +- {error}",
        expected=f"{expected}",
        do="Check the factors: 1 / sigma, 1 / n, pairs; a declared bias is unbiased=False.",
    )
    noisy = error > tiny
    if not noisy.any():
        return
    # Squares, because those of the errors are unbiased; a factor of two in the errors makes the ratio 4 or 1/4.
    declared = np.maximum(np.square(errors).mean(axis=0), np.square(tiny))
    scatter = float((np.square(found - expected).mean(axis=0) / declared)[noisy].mean())
    check.require(
        least < scatter < 1.6,
        f"standard errors are those of the estimates ({where})",
        got=f"{scatter:.2f} as the mean square of estimate - truth over that of the standard error",
        expected="about 1",
        do="Estimate the variance of the mean over independent blocks.",
    )
