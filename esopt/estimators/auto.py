"""The estimator that is the most precise for its cost, chosen from what earlier generations measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from .._parts import check_instance
from ..errors import EvaluationError
from ..noise import Array
from ..protocols import Estimator, State
from ..records import Evals, Gradient, Population
from ._roughness import roughness
from .bonnet import Bonnet
from .hybrid import Hybrid
from .score import Score

_JUMP = 3.0
"""z-score of all generations together above which the gradients miss a jump."""

_ROUNDING = 1e-20
"""Share of the variance below which there is none."""

_FAR = 6.0
"""How many times worse than the chosen candidate others are when they are probed most rarely."""

_TESTS = 4
"""Generations with a test for jumps that it takes to trust gradients alone."""

_BIASED = 3.0
"""z-score of a squared bias above which it counts; where there is a jump it always does."""

_TRACE = 2.0
"""Generations that an average is worth however old it is, so that no single new one outvotes it."""


@dataclass(frozen=True, eq=False)
class AutoState:
    """What is known of m candidates.

    ``states`` are their own, ``shares`` (m,) the averages of V / (V + V_r) over the generations that measured both the
    candidate's variance V and the reference's V_r, ``weights`` (m,) the weights behind them.

    ``apart`` (m, d) are the average distances of a candidate's estimates from the reference's, in units of the root of
    V_r. The products of an average with the next distance add up to ``bias_sum`` and their squares to ``bias_squares``,
    (m,), with ``bias_weights`` (m,). ``jump_sum`` over the root of ``jump_squares`` is the z-score for jumps.

    ``level`` is the average of log V_r, ``level_weight`` its weight and ``level_then`` its value when all candidates
    were last measured, ``since`` generations ago; ``wait`` generations later they are again.
    """

    states: tuple[State, ...]
    choice: int
    probing: bool
    shares: Array
    weights: Array
    apart: Array
    bias_sum: Array
    bias_squares: Array
    bias_weights: Array
    jump_sum: float
    jump_squares: float
    jump_tests: int
    level: float
    level_weight: float
    level_then: float
    since: int
    wait: float


@dataclass(frozen=True)
class Auto:
    """The candidate with the least variance times cost, as measured in earlier generations.

    Every generation all candidates whose needs were evaluated make their estimate. Their variances, relative to that
    of the first candidate that needs values alone, are averaged over generations, and the least variance x cost is
    used in the next one. Generations decide for later ones only, so the choice biases nothing.

    While a candidate without gradients is chosen, the gradients' side is unknown. It is measured again ("probed") at
    intervals that grow as long as the choice stands, to ``2 * probe`` generations where it was nearly as good and to
    six times that where it was much worse. They are shorter, down to a quarter, where the variance of the values' side
    has changed by a factor of two or more since. In a generation that probes, the most precise candidate is used
    whatever it costs, unless there is a jump. The first generation measures all and uses the last candidate.

    Where a :class:`Hybrid` is a candidate, its test for jumps guards the others that use gradients: they are not used
    before it was made in four generations (it takes four blocks), and while the z-scores of all generations, discounted
    and added up, exceed 3.

    Parameters
    ----------
    candidates : estimators that all have a gradient of the scale, or none. The default needs gradients of the
        objective; without: ``Auto((Score(), Score(Linear())))``.
    gradient_cost : cost of a gradient (of any derivative) of one row in evaluations, on top of its value.
    probe : shortest interval at the start, at least 1 generation.
    memory : weight of the past in the averages, in [0, 1).
    margin : how many times less variance x cost another candidate must have to replace the chosen one.

    Notes
    -----
    Unbiased wherever the candidates are. ``notes`` name the choice and why, by the averages that decided. With
    gradients there they also have, of this generation alone, the "roughness" k = sigma^2 E|grad f|^2 / Var f, the mean
    Hermite degree of f, and the "threshold" d + nu, nu = dlog Var f / dlog sigma: for single rows and the mean as
    baseline, gradients have less variance than values if and only if k < d + nu. Costs one estimate and d numbers of
    memory for each candidate, and one more pass over the noise where gradients are there.

    Examples
    --------
    >>> import numpy as np, esopt
    >>> steps = []
    >>> found = esopt.minimize(
    ...     lambda x: (x**2).sum(), np.ones(20), grad=lambda x: 2.0 * x, seed=1, generations=6, callback=steps.append,
    ...     strategy=esopt.GradientES(n=40, estimator=esopt.Auto()),
    ... )
    >>> steps[-1].info.choices["estimator"].startswith("Bonnet: no variance x cost")
    True
    """

    candidates: tuple[Estimator, ...] = field(default_factory=lambda: (Score(), Bonnet(), Hybrid()))
    gradient_cost: float = 2.0
    probe: int = 8
    memory: float = 0.8
    margin: float = 1.1

    def __post_init__(self) -> None:
        if not (isinstance(self.candidates, tuple) and self.candidates):
            raise TypeError(f"candidates must be a tuple of estimators, got {self.candidates!r}. The default is one.")
        for candidate in self.candidates:
            check_instance("a candidate", candidate, Estimator, "Score()")
        if len({candidate.with_scale for candidate in self.candidates}) > 1:
            raise ValueError(
                f"some candidates have a gradient of the scale and some have none: {self.candidates}. "
                "Build all with_scale, for example Auto((Score(with_scale=True), Bonnet(with_scale=True)))."
            )
        bounds = {"gradient_cost": (0.0, math.inf), "probe": (1, math.inf), "margin": (1.0, math.inf), "memory": (0, 1)}
        for name, (low, high) in bounds.items():
            number = getattr(self, name)
            if isinstance(number, bool) or not (isinstance(number, Real) and low <= float(number) < high):
                raise ValueError(
                    f"{name} must be a number in [{low}, {high}), got {number!r}. Leave it out to see one."
                )

    @property
    def with_scale(self) -> bool:
        return self.candidates[0].with_scale

    @property
    def raw_only(self) -> bool:
        return any(candidate.raw_only for candidate in self.candidates)

    def init(self, dim: int) -> AutoState:
        count = len(self.candidates)
        states = tuple(candidate.init(dim) for candidate in self.candidates)
        empty, none = np.zeros(count), 0.0
        return AutoState(
            states=states,
            choice=count - 1,
            probing=True,
            shares=empty,
            weights=empty,
            apart=np.zeros((count, dim)),
            bias_sum=empty,
            bias_squares=empty,
            bias_weights=empty,
            jump_sum=none,
            jump_squares=none,
            jump_tests=0,
            level=none,
            level_weight=none,
            level_then=none,
            since=0,
            wait=float(self.probe),
        )

    def prepare(self, population: Population, state: AutoState) -> Population:
        """Add what the chosen candidate needs, or what all need where they are to be measured."""
        for index, candidate in enumerate(self.candidates):
            if state.probing or index == state.choice:
                population = candidate.prepare(population, state.states[index])
        return population

    def estimate(self, population: Population, evals: Evals, state: AutoState) -> tuple[Gradient, AutoState]:
        """Return the gradient of the candidate that earlier generations chose, and the state with what all learned.

        Raises
        ------
        ValueError, EvaluationError  where that candidate does.
        """
        bare = replace(population, extra=None, tags=(), needs=frozenset({"values"}), probes=None)
        pairs = zip(self.candidates, state.states, strict=True)
        asked = [candidate.prepare(bare, own) for candidate, own in pairs]
        met = [p.needs <= population.needs and set(p.tags) <= set(population.tags) for p in asked]
        derived = [len(p.needs - {"values"}) for p in asked]
        costs = np.array(
            [len(p) * (1.0 + self.gradient_cost * k) / bare.n for p, k in zip(asked, derived, strict=True)]
        )
        used = self._used(state, derived)
        gradient, own = self.candidates[used].estimate(population, evals, state.states[used])
        found, states = {used: gradient}, [*state.states]
        states[used] = own
        for index in compress(range(len(met)), met):
            if index != used:
                try:
                    found[index], states[index] = self.candidates[index].estimate(population, evals, states[index])
                except EvaluationError:  # its own evaluations failed, those of the candidate in use did not
                    continue
        notes = self._notes(population, evals, state, used, costs, derived, gradient.notes)
        gradient = replace(gradient, notes={**gradient.notes, **notes})
        after = self._compare(self._measure(replace(state, states=tuple(states)), found, derived), found, derived)
        covers = [all(q.needs <= p.needs and set(q.tags) <= set(p.tags) for q in asked) for p in asked]
        return gradient, self._decide(after, costs, derived, covers, complete=all(met))

    def _reference(self, derived: list[int]) -> int:
        """Return the first candidate that needs values alone, or the first."""
        return derived.index(0) if 0 in derived else 0

    def _admitted(self, state: AutoState, derived: list[int]) -> list[bool]:
        """Return who may be used: who was measured, less those who use gradients where these miss a jump."""
        tested = [isinstance(candidate, Hybrid) for candidate in self.candidates]
        doubtful = any(tested) and not (state.jump_tests >= _TESTS and _jump_z(state) <= _JUMP)
        guarded = [doubtful and k > 0 and not test for k, test in zip(derived, tested, strict=True)]
        return [bool(w > 0.0) and not guard for w, guard in zip(state.weights, guarded, strict=True)]

    def _used(self, state: AutoState, derived: list[int]) -> int:
        """Return the candidate of this generation: the chosen one, or when all are measured the most precise."""
        admitted = np.array(self._admitted(state, derived))
        if not (state.probing and admitted.any()) or _jump_z(state) > _JUMP:
            return state.choice
        return int(np.argmin(_expected(state, np.ones(len(derived)), admitted)))

    def _measure(self, state: AutoState, found: dict[int, Gradient], derived: list[int]) -> AutoState:
        """Return the state with the variances and jumps that this generation showed."""
        variances = {index: _variance(g) for index, g in found.items()}
        known = variances.get(self._reference(derived), math.nan)
        faded = np.maximum(self.memory * state.weights, np.minimum(state.weights, _TRACE))
        shares, weights = state.shares.copy(), faded.copy()
        for index, variance in variances.items():
            total = variance + known
            if math.isfinite(total):
                share = variance / total if total > 0.0 else 0.5
                shares[index] += (share - shares[index]) / (faded[index] + 1.0)
                weights[index] += 1.0
        # Long, since a bias shows only over many generations.
        kept = np.maximum(math.sqrt(math.sqrt(self.memory)), 1.0 / np.maximum(state.bias_weights, 1.0))
        jump_sum, jump_squares, tests = state.jump_sum, state.jump_squares, state.jump_tests
        for gradient in found.values():
            if "jump_z" in gradient.notes:
                jump_sum = self.memory * jump_sum + float(gradient.notes["jump_z"])
                jump_squares = self.memory**2 * jump_squares + 1.0
                tests += 1
        level, level_weight = state.level, self.memory * state.level_weight
        if known > 0.0 and math.isfinite(known):
            level_weight += 1.0
            level += (math.log(known) - level) / level_weight
        return replace(
            state,
            shares=shares,
            weights=weights,
            bias_sum=kept * state.bias_sum,
            bias_squares=kept**2 * state.bias_squares,
            bias_weights=kept * state.bias_weights,
            jump_sum=jump_sum,
            jump_squares=jump_squares,
            jump_tests=tests,
            level=level,
            level_weight=level_weight,
        )

    def _compare(self, state: AutoState, found: dict[int, Gradient], derived: list[int]) -> AutoState:
        """Return the state with the squared biases that this generation showed.

        The reference uses values alone, which miss nothing. Distances of different generations from it are independent,
        so that the product of one with the average of those before has the squared bias as its expectation.
        """
        reference = self._reference(derived)
        base = found.get(reference)
        variance = math.nan if base is None else float(base.mean_stderr @ base.mean_stderr)
        if base is None or not (0.0 < variance < math.inf) or derived[reference]:
            return state
        apart, weights = state.apart.copy(), state.bias_weights.copy()
        bias_sum, bias_squares = state.bias_sum.copy(), state.bias_squares.copy()
        for index, gradient in found.items():
            if derived[index]:
                distance = (gradient.mean - base.mean) / math.sqrt(variance)
                if weights[index] > 0.0:
                    product = float(apart[index] @ distance)
                    bias_sum[index] += product
                    bias_squares[index] += product**2
                weights[index] += 1.0
                apart[index] += (distance - apart[index]) / weights[index]
        return replace(state, apart=apart, bias_sum=bias_sum, bias_squares=bias_squares, bias_weights=weights)

    def _decide(
        self, state: AutoState, costs: Array, derived: list[int], covers: list[bool], *, complete: bool
    ) -> AutoState:
        """Return the state with the choice for the next generation, and whether that one measures all.

        ``covers`` says whose needs are those of all.
        """
        admitted = self._admitted(state, derived)
        expected = _expected(state, costs, admitted)
        choice = state.choice
        if any(admitted) and not 0.0 < expected[choice] <= self.margin * expected.min():
            choice = int(np.argmin(expected))
        since, wait, level_then = state.since + 1, state.wait, state.level_then
        if complete and any(admitted):
            rivals = [
                float(expected[index]) for index, k in enumerate(derived) if k > derived[choice] and admitted[index]
            ]
            behind = min(rivals, default=math.inf) / max(float(expected[choice]), 1e-300)
            again = state.probing and choice == state.choice
            longest = 2.0 * self.probe * min(max(behind, 1.0), _FAR)
            wait = min(2.0 * wait if again else longest / 2.0, longest)
            since, level_then = 0, state.level
        changed = math.exp(min(math.log(8.0), abs(state.level - level_then)))
        due = since + 1 >= wait / max(1.0, changed / 2.0)
        probing = not any(admitted) or (due and not covers[choice])
        return replace(state, choice=choice, probing=probing, since=since, wait=wait, level_then=level_then)

    def _notes(
        self,
        population: Population,
        evals: Evals,
        state: AutoState,
        used: int,
        costs: Array,
        derived: list[int],
        own: Mapping[str, float | str],
    ) -> dict[str, float | str]:
        """Return the choice and its reason in a sentence, and in numbers what this generation shows of the criterion.

        The reason is what decided: averages of earlier generations.
        """
        notes: dict[str, float | str] = {}
        admitted = self._admitted(state, derived)
        others = [index for index, may in enumerate(admitted) if may and index != used]
        again = state.probing and any(admitted)
        why = []
        if not any(admitted):
            why.append("nothing is known yet")
        elif _jump_z(state) > _JUMP:
            why.append(f"the gradients of all generations miss a jump (z = {_jump_z(state):.1f})")
        if others:
            # What a generation that measures all costs is the same whoever is used.
            sunk = again and _jump_z(state) <= _JUMP
            expected = _expected(state, np.ones_like(costs) if sunk else costs, admitted)
            best = min(others, key=lambda index: float(expected[index]))
            name = _name(self.candidates, best)
            why.append(_ratio(expected[used], expected[best], "variance" if sunk else "variance x cost", name))
        elif any(admitted):
            why.append("the only one that was measured")
        if again:
            why.append("all are measured again")
        shown = roughness(population, evals)
        if shown is not None:
            notes = {"roughness": shown[0], "threshold": shown[1]}
            why.append(f"roughness of this generation {shown[0]:.3g} against d + nu = {shown[1]:.3g}")
        if "side" in own:
            notes["side"] = f"{own['side']}, by this generation alone"
        return {"estimator": f"{_name(self.candidates, used)}: {'; '.join(why)}", **notes}


def _expected(state: AutoState, costs: Array, admitted: Sequence[bool] | NDArray[np.bool_]) -> Array:
    """Return (variance + squared bias) x cost in units of the reference's variance; inf for who is not admitted."""
    odds = np.where(state.shares > _ROUNDING, state.shares / np.maximum(1.0 - state.shares, 1e-300), 0.0)
    least = 0.0 if _jump_z(state) > _JUMP else _BIASED
    biased = state.bias_sum > least * np.sqrt(state.bias_squares)
    odds += np.where(biased, state.bias_sum / np.maximum(state.bias_weights, 1.0), 0.0)
    return np.asarray(np.where(admitted, costs * odds, np.inf))


def _jump_z(state: AutoState) -> float:
    """Return the z-score of the test for jumps over all generations, 0 without any."""
    return state.jump_sum / math.sqrt(state.jump_squares) if state.jump_tests else 0.0


def _variance(gradient: Gradient) -> float:
    """Return the variance that an estimate declares, without the squared bias that Hybrid adds to it."""
    declared = float(gradient.mean_stderr @ gradient.mean_stderr)
    return float(np.maximum(0.0, declared - float(gradient.notes.get("bias_allowed", 0.0))))


def _ratio(used: float, other: float, what: str, name: str) -> str:
    """Say by how much the one used is ahead of the best other, or behind: the margin keeps it then."""
    if used <= 0.0:
        return f"no {what}, {name} {'none either' if other <= 0.0 else 'has some'}"
    if other >= used:
        return f"{other / used:.3g} times less {what} than {name}"
    return f"kept, though {name} has {used / other if other > 0.0 else math.inf:.3g} times less {what}"


def _name(candidates: tuple[Estimator, ...], index: int) -> str:
    """Return the name of a candidate's class, with its settings where another has the same name."""
    names = [type(candidate).__name__ for candidate in candidates]
    return names[index] if names.count(names[index]) == 1 else repr(candidates[index])
