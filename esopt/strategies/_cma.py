"""What the members of the CMA family share: weights, rates, stop rules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .._kernels import cma, laps
from .._parts import check_flags, check_instance
from ..errors import EvaluationError
from ..noise import Array, Key, Noise, Share, moment
from ..protocols import Move, Sampler, State, StepSize
from ..records import Evals, Goal, Info, Lap, Population
from ..samplers.gaussian import Gaussian
from ..schedules import check_nonnegative
from ..step_sizes import CSA
from ._elsewhere import arrived, toward, white
from .gradient_es import check_sigma

REASONS = (
    "tolfun",
    "tolfunhist",
    "tolx",
    "tolup",
    "condition",
    "noeffectaxis",
    "noeffectcoord",
    "stagnation",
    "flat",
)
"""Names of the numbers that the kernel ``cma.reasons`` returns."""

TOLERANCES = (1e-11, 1e-12, 1e-12)
"""tolfun, tolfunhist, and, as a share of the first sigma, tolx."""

_UNKNOWN = np.empty(0)

_LARGE = 1 << 18
"""Numbers of a population from which a diagonal covariance learns from sums of regenerated noise, nothing held."""


class Rates(NamedTuple):
    """c_m, c_sigma, d_sigma, c_c, c_1, c_mu and mu_eff, in the order that kernels read."""

    mean: float
    sigma: float
    damping: float
    path: float
    one: float
    mu: float
    mass: float


def population_size(n: int | None, dim: int, sampler: Sampler) -> int:
    """Return ``n``, or 4 + floor(3 ln d) rounded up to whole blocks of the sampler, at least two."""
    if n is not None:
        return int(n)
    return _default_size(dim, sampler.block)


@lru_cache(maxsize=256)
def _default_size(dim: int, block: int) -> int:
    return block * max(2, -(-(4 + int(3.0 * math.log(dim))) // block))


def check_size(n: int | None, sampler: Sampler) -> None:
    """Raise ValueError unless ``n`` is None or a multiple of the sampler's block, at least 2."""
    whole = isinstance(n, (int, np.integer)) and not isinstance(n, bool)
    if n is not None and not (whole and n >= 2 and n % sampler.block == 0):
        raise ValueError(
            f"n must be at least 2 and a multiple of {sampler.block} with the sampler {type(sampler).__name__}, got "
            f"n={n!r}. Pass for example n={-(-16 // sampler.block) * sampler.block}."
        )


@lru_cache(maxsize=256)
def constants(dim: int, n: int, active: bool, separable: bool) -> tuple[Array, tuple[float, ...]]:
    """Return recombination weights (n,), best first, and learning rates, in a plain tuple for compiled code to cache.

    Hansen (2016), arXiv:1604.00772, table 1 (eqs. 49-58), with alpha_cov = 2. A separable covariance learns (d + 2) / 3
    times as fast: Ros and Hansen (2008), A simple modification in CMA-ES achieving linear time and space complexity.
    """
    raw = math.log((n + 1) / 2.0) - np.log(np.arange(1, n + 1))
    mu = n // 2
    best, worst = raw[:mu], raw[mu:]
    mass = float(best.sum() ** 2 / (best @ best))
    c_sigma = (mass + 2.0) / (dim + mass + 5.0)
    damping = 1.0 + 2.0 * max(0.0, math.sqrt((mass - 1.0) / (dim + 1.0)) - 1.0) + c_sigma
    c_c = (4.0 + mass / dim) / (dim + 4.0 + 2.0 * mass / dim)
    faster = (dim + 2.0) / 3.0 if separable else 1.0
    c_1 = min(1.0, faster * 2.0 / ((dim + 1.3) ** 2 + mass))
    c_mu = faster * 2.0 * (0.25 + mass + 1.0 / mass - 2.0) / ((dim + 2.0) ** 2 + mass)
    c_mu = min(1.0 - c_1, c_mu)
    weights = np.maximum(raw, 0.0) / best.sum()
    opposing = float(-worst.sum())
    if active and opposing > 0.0 and c_mu > 0.0:
        mass_worst = float(worst.sum() ** 2 / (worst @ worst))
        size = min(1.0 + c_1 / c_mu, 1.0 + 2.0 * mass_worst / (mass + 2.0), (1.0 - c_1 - c_mu) / (dim * c_mu))
        weights[mu:] = max(0.0, size) * worst / opposing
    weights[mu:] = np.minimum(weights[mu:], 0.0)
    weights.flags.writeable = False
    return weights, tuple(Rates(1.0, c_sigma, damping, c_c, c_1, c_mu, mass))


def history_size(dim: int, n: int) -> int:
    """Return how many generations of best and median values are kept: 120 + 30 d / n."""
    return 120 + math.ceil(30.0 * dim / n)


def recent(dim: int, n: int) -> int:
    """Return how many generations the ranges of values look back: 10 + 30 d / n."""
    return 10 + math.ceil(30.0 * dim / n)


def triggered(numbers: Array) -> dict[str, float]:
    """Return the stop rules that hold, by name."""
    return {name: float(x) for name, x in zip(REASONS, numbers, strict=True) if x == x}


def check_values(evals: Evals, noise: Noise, others: int = 0) -> Array:
    """Return the values of the noise rows; ``others`` that failed too are counted in the message.

    Raises
    ------
    EvaluationError  if all of them failed.
    """
    values = evals.values[: noise.n]
    if np.isnan(values).all():
        raise EvaluationError(
            f"all {values.size + others} evaluations of generation {noise.key.generation} failed.\n"
            "Check the objective at es.mean, or start from a point and with a sigma where it can be evaluated."
        )
    return values


@dataclass(frozen=True, eq=False)
class Family:
    """What :class:`CMAES` and :class:`SepCMA` have in common: all but how they begin, and the shape of their state."""

    sigma: float | Array = 0.5
    n: int | None = None
    active: bool = True
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"
    step_size: StepSize = field(default_factory=CSA)
    tolfun: float = TOLERANCES[0]
    tolx: float = TOLERANCES[2]

    def __post_init__(self) -> None:
        check_nonnegative("tolfun", self.tolfun)
        check_nonnegative("tolx", self.tolx)
        check_flags(active=self.active)
        check_instance("sampler", self.sampler, Sampler, "Gaussian()")
        check_instance("step_size", self.step_size, StepSize, "CSA()")
        object.__setattr__(self, "sigma", check_sigma(self.sigma))
        check_size(self.n, self.sampler)

    @property
    def asynchronous(self) -> bool:
        """Whether :meth:`tell` takes :attr:`Evals.arrivals`; other rules for sigma than :class:`CSA` do not."""
        return type(self.step_size) is CSA

    def ask(self, state: Any) -> Population:
        """Return this generation's population."""
        return populate(self, state)

    def tell(self, state: Any, evals: Evals) -> tuple[Any, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        after = type(state)(*learn(self, state, state.shape, evals))
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma})

    def run(self, state: Any, address: Any, goal: Goal) -> tuple[Any, Lap]:
        """Return the state after generations in compiled code, and what happened; ``address`` is that of f.

        There are none under another rule for sigma than :class:`CSA`.
        """
        if type(self.step_size) is not CSA:
            return state, Lap(0, 0, state.mean, math.inf, np.empty(0), 0, 0)
        fields, laps = lap(self, state, state.shape, address, goal)
        return type(state)(*fields), laps

    def inject(self, state: Any, rows: Array) -> Any:
        """Return the state whose next population also holds the candidates ``rows`` (k, d), from elsewhere.

        They are evaluated and ranked with the others; what they add to mean and covariance is shortened to the length
        that noise may have: Hansen (2011), Injecting external solutions into CMA-ES.
        """
        return replace(state, injected=np.concatenate([state.injected, rows]))

    def toward(self, state: Any, gradient: Array) -> Array:
        """Return the candidate that lies against a ``gradient`` (d,) of f, in the metric of the search, to inject it.

        mean - sqrt(d) * sigma * C g / |C^1/2 g|: Hansen (2011), section 4.
        """
        return toward(state, state.shape, gradient)

    def stop(self, state: Any) -> dict[str, float]:
        """Return the stop rules that hold and their numbers: tolfun, tolfunhist, tolx, tolup, condition, ...."""
        return reasons(state, state.shape, units(self.sigma, state.mean.size), tolerances(self))


def draw(strategy: Family, state: Any) -> Noise:
    """Return the noise of the state's generation."""
    dim = state.mean.size
    n = population_size(strategy.n, dim, strategy.sampler)
    return strategy.sampler.noise(Key(state.seed, state.generation), n, dim)


def populate(strategy: Family, state: Any) -> Population:
    """Return the population of the state's generation; then injected candidates, then probes of the step-size rule."""
    population = Population(state.mean, state.scale, draw(strategy, state), share=strategy.share)
    if len(state.injected):
        population = population.with_extra("injected", state.injected)
    return with_probes(population, strategy.step_size, state.sigma, state.step_size)


def with_probes(population: Population, rule: StepSize, sigma: float, state: State) -> Population:
    """Return the population with the rows that the step-size rule asks for."""
    if type(rule) is CSA:
        return population
    rows = rule.probes(population.mean, sigma, state)
    return population.with_extra("step size", rows) if len(rows) else population


def learn(strategy: Family, state: Any, shape: Array, evals: Evals) -> tuple[Any, ...]:
    """Return the fields of the state after a generation; ``shape`` is a factor (d, d) or variances (d,).

    Raises
    ------
    EvaluationError  if all evaluations failed; the state is as before.
    """
    noise = draw(strategy, state)
    values = check_values(evals, noise)
    if evals.arrivals is not None:
        rows, values = arrived(state, shape, evals.arrivals), evals.values
    elif _regenerates(state, shape):
        return _resized(strategy, state, evals, _learn_large(strategy, state, shape, noise, values))
    else:
        rows = noise.rows()
    if len(state.injected):
        rows = np.concatenate([rows, white(state.injected, state.mean, state.sigma, shape)])
        values = evals.values[: len(rows)]
    weights, rates = constants(state.mean.size, values.size, strategy.active, shape.ndim == 1)
    mean, sigma, *paths = cma.tell(
        rows, values, state.generation, state.mean, state.sigma, shape, state.path_sigma, state.path_c, state.history,
        weights, rates,
    )  # fmt: skip
    fields = state.seed, state.generation + 1, mean, sigma, state.start, *paths, values[: noise.n]
    return _resized(strategy, state, evals, (*fields, state.injected[:0], state.step_size))


def _resized(strategy: Family, state: Any, evals: Evals, fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the fields of the next state with sigma, and what its rule knows, by the strategy's rule."""
    if type(strategy.step_size) is CSA:
        return fields
    after = type(state)(*fields)
    ranked = after.latest.size + len(state.injected)
    weights, _ = constants(state.mean.size, ranked, strategy.active, state.shape.ndim == 1)
    move = Move(
        state.sigma, after.sigma, after.latest, state.latest, evals.values[ranked:], np.maximum(weights, 0.0),
        (after.mean - state.mean) / state.sigma, white_step(strategy, state, after),
    )  # fmt: skip
    sigma, known = strategy.step_size.adapt(move, state.step_size)
    return (*fields[:3], sigma, *fields[4:-1], known)


def white_step(strategy: Family, state: Any, after: Any) -> Array:
    """Return the last step of the mean in the coordinates of the noise, (d,), out of the path that holds it."""
    ranked = after.latest.size + len(state.injected)
    rates = Rates(*constants(state.mean.size, ranked, strategy.active, state.shape.ndim == 1)[1])
    step: Array = after.path_sigma - (1.0 - rates.sigma) * state.path_sigma
    return step / math.sqrt(rates.sigma * (2.0 - rates.sigma) * rates.mass)


def _regenerates(state: Any, shape: Array) -> bool:
    """Whether a generation is learned without its noise in memory; ``shape`` as in :func:`learn`."""
    return shape.ndim == 1 and state.latest.size * shape.size >= _LARGE and not len(state.injected)


def _learn_large(strategy: Family, state: Any, variances: Array, noise: Noise, values: Array) -> tuple[Any, ...]:
    """Return what :func:`learn` does for variances (d,), from weighted sums of the noise and its squares."""
    weights, plain = constants(noise.dim, noise.n, strategy.active, True)
    rates, rows = Rates(*plain), cma.order(values)
    signed = weights.copy()
    if weights[-1] < 0.0:
        lengths = noise.norms()[rows] / noise.dim
        shorter = (weights < 0.0) & (lengths > 0.0)
        signed[shorter] = weights[shorter] / lengths[shorter]
        signed[(weights < 0.0) & np.isnan(values[rows])] = 0.0
    pairs = np.zeros((2, noise.n))
    pairs[0, rows], pairs[1, rows] = np.maximum(weights, 0.0), signed
    white, squares = moment(noise, pairs, (1, 2))
    deviations = np.sqrt(variances)
    step = deviations * white
    path_sigma, path_c, change, moving = cma.paths(
        white, step, state.generation, rates.sigma, rates.damping, rates.path, rates.mass, state.path_sigma,
        state.path_c,
    )  # fmt: skip
    lost = 1.0 + (0.0 if moving else rates.one * rates.path * (2.0 - rates.path)) - rates.one
    kept = lost - rates.mu * float(weights.sum() - signed.sum())
    after = variances * (kept + rates.mu * squares) + rates.one * np.square(path_c)
    mean, sigma = state.mean + rates.mean * state.sigma * step, state.sigma * math.exp(change)
    paths = np.maximum(after, 0.0), path_sigma, path_c, cma.remember(state.history, values)
    return state.seed, state.generation + 1, mean, sigma, state.start, *paths, values, state.injected, state.step_size


def lap(strategy: Family, state: Any, shape: Array, address: Any, goal: Goal) -> tuple[tuple[Any, ...], Lap]:
    """Return the fields of the state after generations in compiled code, and what happened in them.

    The generations of :func:`populate`, :func:`learn` and :func:`reasons`, from the same kernels: the bits are theirs.
    """
    dim, size = state.mean.size, state.latest.size
    weights, rates = constants(dim, size, strategy.active, shape.ndim == 1)
    fused = strategy.sampler.fused and not len(state.injected) and not _regenerates(state, shape)
    until = period(dim) - state.generation % period(dim)
    done, mean, sigma, *paths, value, x, nans, steps = laps.run(
        address, (min(goal.generations, until) if fused else 0, goal.target, goal.steps), np.uint64(state.seed),
        strategy.sampler.mirrored, state.generation, recent(dim, size), state.start, state.mean, state.sigma, shape,
        units(strategy.sigma, dim), state.path_sigma, state.path_c, state.history, state.latest, weights, rates,
        tolerances(strategy),
    )  # fmt: skip
    fields = state.seed, state.generation + done, mean, sigma, state.start, *paths, state.injected, state.step_size
    return fields, Lap(done, done * size, x, value, paths[-1], nans, steps)


def tolerances(strategy: Family) -> tuple[float, float, float]:
    """Return what stop rules compare with: :data:`TOLERANCES`, with those of the strategy."""
    return float(strategy.tolfun), 0.1 * float(strategy.tolfun), float(strategy.tolx)


def units(sigma: float | Array, dim: int) -> Array:
    """Return what the condition of C is measured in, (d,): sigma where it is one per coordinate, else 1.

    Coordinates of unlike units are no reason to stop.
    """
    return sigma.reshape(-1) if isinstance(sigma, np.ndarray) and sigma.size == dim else _ones(dim)


@lru_cache(maxsize=256)
def _ones(dim: int) -> Array:
    # Never written to; a read-only array would be another type to compiled code, which would compile twice.
    return np.ones(dim)


def axis_lengths(factor: Array, units: Array) -> Array:
    """Return the lengths of the axes of a ``factor`` (d, m) in ``units`` (d,), the longest first."""
    return np.linalg.svd(factor / units[:, None], compute_uv=False).astype(np.float64)


def reasons(
    state: Any, shape: Array, units: Array, tolerances: tuple[float, float, float] = TOLERANCES
) -> dict[str, float]:
    """Return the stop rules that hold and their numbers; ``shape`` as in :func:`learn`, ``units`` of :func:`units`."""
    if state.generation == 0:
        return {}
    dim = state.mean.size
    lengths: Array = _UNKNOWN
    if shape.ndim == 2 and state.generation % period(dim) == 0 and np.isfinite(shape).all():
        # The condition changes slowly, and costs as much as many generations.
        lengths = axis_lengths(shape, units)
    numbers, found, finite = cma.judge(
        state.generation, recent(dim, state.latest.size), state.mean, state.sigma, state.start, shape, units,
        lengths, state.path_c, state.history, state.latest, tolerances,
    )  # fmt: skip
    if not finite:
        return {"diverged": state.sigma}
    return triggered(numbers) if found else {}


def period(dim: int) -> int:
    """Return how many generations pass between two looks at the condition of C."""
    return 100 + 10 * dim
