"""What lies on the table between strategies and evaluators: frozen records of arrays and numbers.

A :class:`Population` is a recipe (mean, scale, noise address), not a matrix; :class:`Evals` are what an evaluator
found out about it; a :class:`Gradient` is an estimate with its error bars; :class:`Info` is what one ``tell`` learned,
for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ._kernels import factor
from .maps import Map, fill_inside
from .noise import Array, Noise, Share, evaluation_seeds

Scale = float | Array
"""sigma, one sigma per coordinate (d,), or a factor L (d, d): the covariance is sigma^2 I, diag(sigma^2) or L L^T."""


@runtime_checkable
class Transform(Protocol):
    """A scale that is no array: a linear map of the noise, for example one of low rank."""

    def apply(self, eps: Array) -> Array:
        """Return L eps_i for every row, (m, d) to (m, d); the bits of a row must not depend on the other rows."""
        ...


@runtime_checkable
class FusedTransform(Transform, Protocol):
    """A transform that makes candidates from the noise by itself, without holding all of it."""

    def displace(self, noise: Noise, mean: Array, start: int, out: NDArray[Any]) -> None:
        """Write mean + L eps_i for the rows from ``start`` on to ``out``."""
        ...


@dataclass(frozen=True, eq=False)
class Population:
    """``n`` noise rows map(mean + scale * eps_i), then ``k`` explicit rows; nothing is made until it is asked for.

    Parameters
    ----------
    mean : (d,)
    scale : float, (d,), a factor (d, d), or a :class:`Transform`.
    noise : n rows of d columns.
    extra : (k, d) or None  explicit rows, for example the mean itself.
    tags : k names that say what each explicit row is for.
    needs : what the evaluator must compute: "values", "grads", "hessians", "hvps", "jvps", "constraints" (g, h
        or both).
    share : who shares an evaluation seed; see :func:`esopt.noise.evaluation_seeds`.
    probes : n rows of d columns, the directions of the "hvps" and "jvps" at the noise rows.
    map : where candidates go, into a box for example; ``mean``, ``scale`` and ``extra`` are before the map.
    """

    mean: Array
    scale: Scale | Transform
    noise: Noise
    extra: Array | None = None
    tags: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset({"values"})
    share: Share = "pair"
    probes: Noise | None = None
    map: Map | None = None

    def __post_init__(self) -> None:
        mean, scale = self.mean, self.scale
        if not (isinstance(mean, np.ndarray) and mean.dtype == np.float64 and mean.ndim == 1):
            mean = np.array(mean, np.float64)
            object.__setattr__(self, "mean", mean)
        if mean.shape != (self.noise.dim,):
            raise ValueError(
                f"the mean has shape {mean.shape} for noise of dimension {self.noise.dim}. Pass (d,) for both."
            )
        if type(scale) is not float and (isinstance(scale, np.ndarray) or not isinstance(scale, Transform)):
            spread = np.asarray(scale, np.float64)
            if spread.shape not in ((), mean.shape, mean.shape * 2):
                raise ValueError(
                    f"the scale has shape {spread.shape}. Pass one number, one per coordinate, {mean.shape}, "
                    f"or a factor, {mean.shape * 2}."
                )
            if spread is not scale or not spread.ndim:
                object.__setattr__(self, "scale", spread if spread.ndim else float(spread))

    @property
    def n(self) -> int:
        """Number of noise rows."""
        return self.noise.n

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.mean.size)

    @property
    def separable(self) -> bool:
        """Whether the scale is one number or one per coordinate."""
        return isinstance(self.scale, float) or (isinstance(self.scale, np.ndarray) and self.scale.ndim == 1)

    @property
    def factor(self) -> Array | None:
        """The scale if it is a factor (d, d), else None."""
        return self.scale if isinstance(self.scale, np.ndarray) and self.scale.ndim == 2 else None

    def sigma(self, user: str) -> Scale:
        """Return the scale as one number or one per coordinate, for ``user``, who can use nothing else.

        Raises
        ------
        ValueError  for a factor or a transform.
        """
        if isinstance(self.scale, float) or (isinstance(self.scale, np.ndarray) and self.scale.ndim == 1):
            return self.scale
        kind = f"a factor {self.scale.shape}" if isinstance(self.scale, np.ndarray) else repr(self.scale)
        raise ValueError(f"{user} got the scale {kind}. It needs one number or one per coordinate: pass such a sigma.")

    @property
    def deviations(self) -> Array:
        """Standard deviation in each coordinate, (d,), before the map; of a transform, that of the rows."""
        if self.separable:
            return np.array(np.broadcast_to(np.asarray(self.scale, np.float64), self.dim))
        spread = self.factor
        if spread is None:
            return np.asarray(self._fill(0, self.n, np.empty((self.n, self.dim))).std(axis=0))
        return np.asarray(np.sqrt(np.square(spread).sum(axis=1)))

    def __len__(self) -> int:
        return self.noise.n + (0 if self.extra is None else len(self.extra))

    def __getitem__(self, index: int | slice) -> Array:
        """Candidate ``index``, (d,), or those of a slice, (m, d)."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self.rows(start, max(start, stop)) if step == 1 else self.rows()[index]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"candidate {index} of a population of {len(self)}")
        return np.asarray(self.rows(at, at + 1)[0])

    def rows(self, start: int = 0, stop: int | None = None, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return candidates start ... stop, (stop - start, d), in float64 or in the type of ``out``."""
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise IndexError(
                f"rows {start} to {stop} of a population of {len(self)}. Pass 0 <= start <= stop <= {len(self)}."
            )
        if out is None:
            out = np.empty((stop - start, self.dim))
        elif out.shape != (stop - start, self.dim):
            raise ValueError(f"out has shape {out.shape} for {stop - start} rows. Pass {(stop - start, self.dim)}.")
        if self.map is None:
            return self._fill(start, stop, out)
        rows = self._fill(start, stop, np.empty(out.shape) if out.dtype != np.float64 else out)
        fill_inside(self.map.forward(rows), self.map, out)
        return out

    def _fill(self, start: int, stop: int, out: NDArray[Any]) -> NDArray[Any]:
        """Write rows start ... stop into ``out``, before the map."""
        split = min(max(self.n - start, 0), stop - start)
        if split and self.separable:
            scale = np.atleast_1d(np.asarray(self.scale, np.float64))
            self.noise.displace(self.mean, scale, start, out[:split])
        elif split and self.factor is None and isinstance(self.scale, FusedTransform):
            self.scale.displace(self.noise, self.mean, start, out[:split])
        elif split:
            eps = self.noise.rows(start, start + split).astype(np.float64)
            out[:split] = self.mean + self._apply(eps)
        if split < stop - start and self.extra is not None:
            out[split:] = self.extra[start + split - self.n : stop - self.n]
        return out

    def _apply(self, eps: Array) -> Array:
        if isinstance(self.scale, np.ndarray):
            return np.asarray(factor.apply(self.scale, eps))
        return np.asarray(self.scale.apply(eps) if isinstance(self.scale, Transform) else self.scale * eps)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        rows = self.rows()
        return rows if dtype is None else rows.astype(dtype)

    @property
    def seeds(self) -> NDArray[np.int64]:
        """One evaluation seed per row, (n + k,), in [0, 2**32)."""
        return evaluation_seeds(
            self.noise.key, self.n, len(self) - self.n, mirrored=self.noise.mirrored, share=self.share
        )

    def resize(self, n: int) -> Population:
        """Return the population with ``n`` noise rows; rows that both have are equal."""
        probes = None if self.probes is None else self.probes.resize(n)
        return replace(self, noise=self.noise.resize(n), probes=probes)

    def evaluated(self, evals: Evals) -> Population:
        """Return the population that ``evals`` are of: this one, or with more noise rows, where there are more values.

        Raises
        ------
        ValueError  for less values than rows, and for more where there are explicit rows: whose would they be?
        """
        more = len(evals.values) - len(self)
        if more < 0 or (more and self.extra is not None):
            raise ValueError(
                f"got evaluations of {len(evals.values)} rows for a population of {self.n} noise rows and "
                f"{len(self) - self.n} explicit ones. Pass one for each, in their order."
            )
        return self.resize(self.n + more) if more else self

    def with_extra(self, tag: str, rows: Array) -> Population:
        """Return the population with explicit ``rows`` (k, d) under ``tag``, unless it already has that tag."""
        if tag in self.tags:
            return self
        rows = np.atleast_2d(rows)
        extra = rows if self.extra is None else np.concatenate([self.extra, rows])
        return replace(self, extra=extra, tags=(*self.tags, *[tag] * len(rows)))

    def tagged(self, tag: str) -> NDArray[np.int64]:
        """Return the row numbers of the explicit rows under ``tag``."""
        return self.n + np.flatnonzero(np.array([t == tag for t in self.tags], bool))

    def needing(self, *needs: str) -> Population:
        """Return the population that also asks the evaluator for ``needs``."""
        return replace(self, needs=self.needs | set(needs))


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Where told values come from, if not from the rows of this generation's ``ask``: asynchronous runs.

    The first n values are news, one for each row of ``ask``; the k that may follow were told in the generation before,
    and are there to be ranked again.

    Parameters
    ----------
    points : (n + k, d)  the candidates, before the map.
    noise : n rows, what the news were drawn with, around the means of their own generations.
    lags : (n + k,)  how many generations ago each was drawn; 0 for this one.
    """

    points: Array
    noise: Noise
    lags: NDArray[np.int64]

    @property
    def again(self) -> int:
        """How many of the values were told before, k."""
        return len(self.points) - self.noise.n


@dataclass(frozen=True, eq=False)
class Evals:
    """What an evaluator found; rows in the order of the population.

    Parameters
    ----------
    values : (n + k,)  lower is better; nan marks a failed evaluation.
    grads : (n + k, d) or None  gradients of the objective at the candidates.
    hessians : (n + k, d, d) or, only their diagonals, (n + k, d); or None.
    hvps : (n, d) or None  products of the Hessian with the probes, at the noise rows.
    jvps : (n,) or None  products of the gradient with the probes, at the noise rows.
    utilities : (n,) or None  what a shaping put in place of the values of the noise rows.
    constraints, equalities : (n + k, m) and (n + k, p) or None  g and h at the candidates, where g <= 0 and h = 0 are
        asked for.
    steps : cost units consumed, for example environment steps.
    failures : counts by kind.
    stale : pairs of a population of an earlier generation and values (n,) of its noise rows that came too late for it,
        nan for rows without.
    arrivals : an :class:`Arrivals`, the origin of the values, where they are not those of the rows of ``ask``; for
        strategies that are ``asynchronous``. None for the usual ones.
    """

    values: Array
    grads: Array | None = None
    utilities: Array | None = None
    hessians: Array | None = None
    hvps: Array | None = None
    jvps: Array | None = None
    steps: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    constraints: Array | None = None
    equalities: Array | None = None
    stale: Any = ()
    arrivals: Any = None


class Part(NamedTuple):
    """Some rows of a population, as soon as they are evaluated.

    ``rows``, (m,) and increasing, are all noise rows or all explicit ones; ``evals`` has a row for each of them, but no
    products with probes for explicit rows. Its steps and failures are those of the part. Columns of which no row is
    known, and whose width nobody knows, are None.
    """

    rows: NDArray[np.int64]
    evals: Evals


@dataclass(frozen=True, eq=False)
class Gradient:
    """An estimate of the gradient of J(mean, scale) = E f(mean + scale * eps), with its error bars.

    ``mean`` is dJ/dmean, (d,). ``scale`` is dJ/dscale for a scalar scale, dJ/dlog(scale), (d,), for a vector, and
    L^T (dJ/dSigma) L = 1/2 L^T E[Hessian] L, (d, d), for a factor L of Sigma = L L^T; None where it was not asked for.
    Standard errors are nan where fewer than two independent blocks are left. ``snr`` is (|mean|^2 - sum stderr^2) /
    sum stderr^2, clipped at 0: the squared length of the true gradient, estimated without bias, over the total variance
    of the estimate. ``value`` estimates J itself, ``evaluations`` counts the rows used. ``notes`` say by name what the
    estimator chose or found, in numbers and sentences.
    """

    mean: Array
    mean_stderr: Array
    blocks: int
    value: float
    value_stderr: float
    evaluations: int
    scale: Scale | None = None
    scale_stderr: Scale | None = None
    notes: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def snr(self) -> float:
        """Squared signal over total variance of ``mean``; nan without a standard error, or if both are zero."""
        variance, length = float(self.mean_stderr @ self.mean_stderr), float(self.mean @ self.mean)
        if variance > 0.0:
            return max(0.0, length / variance - 1.0)
        return np.inf if variance == 0.0 < length else np.nan


@dataclass(frozen=True, eq=False)
class Info:
    """What one ``tell`` learned, for people; never part of a checkpoint.

    ``best`` is the row of a new best candidate, -1 for none, where more than its value says so, as under constraints.
    """

    generation: int
    gradient: Gradient | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    best: int | None = None


class Goal(NamedTuple):
    """Where a lap ends at the latest: after ``generations``, at a value <= ``target``, after ``steps``."""

    generations: int
    target: float
    steps: int


@dataclass(frozen=True, eq=False)
class Lap:
    """What happened in generations that a strategy ran by itself, in compiled code.

    ``x`` and ``value`` are the best of the lap (inf if no value was finite), ``values`` those of its last generation,
    ``nans`` counts failed evaluations. Without ``generations`` the next one must be run the usual way.
    """

    generations: int
    evaluations: int
    x: Array
    value: float
    values: Array
    nans: int
    steps: int


@dataclass(frozen=True, eq=False)
class Step:
    """What a callback sees after each generation.

    ``value`` is the mean of the generation's finite values, ``best_value`` the lowest value so far,
    ``evaluator_state`` what the evaluator knows after the generation.
    """

    generation: int
    evaluations: int
    steps: int
    seconds: float
    mean: Array
    value: float
    best_value: float
    values: Array
    failures: Mapping[str, int]
    info: Info
    evaluator_state: Any = ()
