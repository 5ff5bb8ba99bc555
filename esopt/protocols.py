"""The six protocols that every part obeys, and their laws. Read this first.

Configuration is a frozen dataclass that validates itself; evolving state is a separate frozen record of arrays and
numbers that goes in as the last argument and comes out last. ``esopt.testing`` checks the laws for any part, the
user's own included.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .maps import Map as Map
from .noise import Array, Key, Noise
from .noise import Law as Law
from .records import Evals, Gradient, Info, Population

State = Any
"""A tree of numbers, strings, arrays and frozen records of them; each part knows its own."""


class Offsets(NamedTuple):
    """Constants to subtract from the values as well, one for each coordinate and each group of rows.

    With o the row of ``mean`` for the group of row r, coordinate i of the mean's gradient uses values[r] - o[i]; with
    ``scale`` the same for the scale's. Their contribution is zero in expectation, so that an estimator may leave it
    out.

    ``groups`` are row numbers (n,) of the tables, the same for all rows of a block; ``mean`` and ``scale`` are (g, d).
    """

    groups: NDArray[np.intp]
    mean: Array
    scale: Array


class Centered(NamedTuple):
    """Values of the noise rows, (n,), less a control variate whose own gradient is known.

    ``mean``, (d,), is that gradient in the mean, to be added back to the estimate, and ``scale``, (d,), that in
    log sigma_i, which sums to sigma times the one in a scalar sigma; None for zero. ``scale_values``, (n,), stand for
    ``values`` in the gradient of the scale, whose best baseline is another one; None for the same. ``offsets`` differ
    between coordinates; None for none.
    """

    values: Array
    mean: Array | None = None
    scale: Array | None = None
    scale_values: Array | None = None
    offsets: Offsets | None = None


@runtime_checkable
class Sampler(Protocol):
    """Joint law of the noise rows.

    Laws: every row has the declared marginal law; blocks of ``block`` rows are independent; the bits of a row depend
    on its address alone, not on how a rectangle is cut. ``mirrored``: row 2k + 1 is minus row 2k. ``separable``:
    columns may be cut too. ``fused``: rows are the library's Gaussian stream (times +-1 if mirrored), for which fused
    kernels exist.

    Where the size of a block depends on n or d, ``block`` is what n must be a multiple of; ``noise`` then returns the
    noise of a copy of the sampler that knows the block.
    """

    @property
    def block(self) -> int: ...
    @property
    def mirrored(self) -> bool: ...
    @property
    def separable(self) -> bool: ...
    @property
    def fused(self) -> bool: ...
    @property
    def law(self) -> Law: ...

    def noise(self, key: Key, n: int, dim: int) -> Noise:
        """Return ``n`` rows at ``key``."""
        ...

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column) of noise that is ``dim`` wide."""
        ...


@runtime_checkable
class Shaping(Protocol):
    """Values to utilities; may change what is optimised.

    Laws: lower stays better; a failed row is nan in the result (and its block is dropped) unless ``ranks``, where
    failures rank last. ``raw`` says that utilities are the values themselves.
    """

    @property
    def raw(self) -> bool: ...
    @property
    def ranks(self) -> bool: ...

    def shape(self, values: Array, population: Population) -> Array:
        """Return utilities (n,) for the values (n,) of the noise rows."""
        ...


@runtime_checkable
class Baseline(Protocol):
    """A control variate for values.

    Laws: the expected gradient does not change, in the mean and in the scale; a value never influences its own block's
    baseline, in any coordinate. ``raw_only``: needs values that no shaping touched.
    """

    @property
    def raw_only(self) -> bool: ...

    def init(self, dim: int) -> State: ...

    def prepare(self, population: Population, state: State) -> Population: ...

    def center(self, values: Array, population: Population, evals: Evals, state: State) -> Centered:
        """Return centred values for the (n,) values of the noise rows; rows of dropped blocks are nan in and out."""
        ...

    def learn(self, values: Array, population: Population, gradient: Gradient, state: State) -> State:
        """Return what is known after this generation: the values (n,) that were centred, and the estimate from them."""
        ...


@runtime_checkable
class Estimator(Protocol):
    """Evaluations to a gradient with error bars.

    Law: unbiased for the gradient of the smoothed objective (of the utilities, where there are any). ``with_scale``
    says whether it also estimates the gradient of the scale; ``raw_only``: needs values that no shaping touched.
    """

    @property
    def with_scale(self) -> bool: ...

    @property
    def raw_only(self) -> bool: ...

    def init(self, dim: int) -> State: ...

    def prepare(self, population: Population, state: State) -> Population:
        """Add what the estimator needs: explicit rows, gradients."""
        ...

    def estimate(self, population: Population, evals: Evals, state: State) -> tuple[Gradient, State]: ...


@runtime_checkable
class Rule(Protocol):
    """Gradient (m,) to a step (m,) that is added to the parameters.

    Laws: shapes never change; a zero gradient from a fresh state gives a zero step; small steps descend a parabola.
    """

    def init(self, dim: int) -> State: ...

    def step(self, gradient: Array, state: State) -> tuple[Array, State]: ...


@runtime_checkable
class Rate(Protocol):
    """A factor of the rule's step, found out by the run.

    Laws: ``factor`` is not negative, and pure; moving or turning the coordinates does not change it.
    """

    def init(self, dim: int) -> State: ...

    def factor(self, gradient: Gradient, population: Population, state: State) -> tuple[float, State]:
        """Return the factor for the step that follows ``gradient``."""
        ...


@runtime_checkable
class Sizing(Protocol):
    """The number of rows of the next generation."""

    def init(self, dim: int) -> State: ...

    def size(self, gradient: Gradient, population: Population, least: int, state: State) -> tuple[int, State]:
        """Return it, at least 1; ``least`` is the strategy's own n."""
        ...


class Move(NamedTuple):
    """What a generation did, for the rule that says how long the next steps are.

    ``values`` (n,) are those of the noise rows, ``before`` those of the generation before (nan in the first one), and
    ``probes`` (k,) those of the rule's own rows. ``weights`` (n,) are the recombination weights, best first, and zero
    where they are not positive. ``shift`` (d,) is the step of the mean over ``sigma``, ``white`` (d,) the same in the
    coordinates in which the noise is N(0, I). ``cumulated`` is the next sigma by the strategy's own path; None where
    it has none.
    """

    sigma: float
    cumulated: float | None
    values: Array
    before: Array
    probes: Array
    weights: Array
    shift: Array
    white: Array


@runtime_checkable
class StepSize(Protocol):
    """Ranks of a generation to the next sigma.

    Laws: increasing transformations of the values change nothing; sigma stays positive and finite, whatever fails.
    """

    def init(self, dim: int) -> State: ...

    def probes(self, mean: Array, sigma: float, state: State) -> Array:
        """Return the rows (k, d) that the rule wants to be evaluated with the next population; pure."""
        ...

    def adapt(self, move: Move, state: State) -> tuple[float, State]:
        """Return the next sigma."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A search distribution that learns from the values of its candidates.

    Laws: ``ask`` and ``stop`` are pure; ``tell`` moves ``state.generation`` by one; the tree structure of the state
    never changes during a run, only lengths of arrays may; equal settings, x0 and seed give equal bits. ``state.mean``
    is (d,). A class that compares values of different generations has ``keeps_values = True``: it is not for an f that
    changes, such as an augmented Lagrangian.
    """

    def init(self, x0: Array, seed: int) -> State: ...

    def ask(self, state: State) -> Population: ...

    def tell(self, state: State, evals: Evals) -> tuple[State, Info]: ...

    def stop(self, state: State) -> dict[str, float]:
        """Return reasons to stop and their numbers; empty while running."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Population to evaluations.

    Law: the number of workers, the chunking and the order of completion change no bit. ``close`` gives back what
    ``init`` took. One may also have ``stream(population, state, rows=None)``, for a run with a checkpoint: an iterable
    of :class:`esopt.records.Part`, in the order of completion, with a ``close()``; its state does not change.
    """

    def init(self) -> State: ...

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]: ...

    def close(self) -> None: ...
