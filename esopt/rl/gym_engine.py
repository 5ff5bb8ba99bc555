"""Any gymnasium environment, played in this process by the numpy form of a policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..errors import EvaluationError
from ..noise import EVAL, Key
from ..samplers.gaussian import Gaussian
from .engine import Array, Integers, Played
from .environments import EnvSource, bad_step, bare_step, make_env, reset_env
from .observations import ArrayObservations
from .policy import Policy

_NOISE_ROWS = 64
_FIRST_ROWS = 256


class EpisodeError(EvaluationError):
    """An episode failed, and the failure policy is to stop.

    Attributes
    ----------
    row, episode : which one it was in the arguments of ``play``.
    seed : its seed.
    kind : "exception", "nan", "timeout" or "died".
    what : what happened, in words that follow "the episode with seed ...".
    """

    seed: int

    def __init__(self, row: int, episode: int, seed: int, kind: str, what: str) -> None:
        super().__init__(f"the episode with seed {seed} (row {row}, episode {episode}) {what}.")
        self.row, self.episode, self.seed, self.kind, self.what = row, episode, seed, kind, what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.row, self.episode, self.seed, self.kind, self.what)


class Fault(NamedTuple):
    """Why an episode failed."""

    kind: str
    what: str
    error: Exception | None = None


class Episode(NamedTuple):
    """One episode: its return, its length, and sums over the observations that were acted on."""

    total: float
    steps: int
    sums: Array
    squares: Array
    fault: Fault | None = None


@dataclass(frozen=True, eq=False)
class Rules:
    """How episodes are played.

    Parameters
    ----------
    max_steps : an episode is cut after so many steps, if the environment does not end it before; None for never.
    action_noise : standard deviation of Gaussian noise on the outputs of the policy, before they become an action.
    """

    max_steps: int | None = None
    action_noise: float = 0.0

    def __post_init__(self) -> None:
        steps = self.max_steps
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1):
            raise ValueError(f"max_steps must be a positive whole number or None, got {steps!r}.")
        if not 0.0 <= self.action_noise < np.inf:
            raise ValueError(f"action_noise must be 0 or more, and finite, got {self.action_noise!r}.")


class Stage:
    """An environment that is open, and the policy that acts in it; belongs to one thread.

    The environment is made at the first episode. One that raised is closed, and another made for the next episode.
    """

    def __init__(self, env: EnvSource, policy: Policy, rules: Rules) -> None:
        self.source, self.policy, self.rules = env, policy, rules
        self._env: Any = None
        self._seen = np.empty((_FIRST_ROWS, policy.observations.inputs))

    def open(self) -> None:
        """Make the environment, if it is not there."""
        if self._env is None:
            self._env = make_env(self.source)

    def play(self, theta: Array, seed: int, quiet: bool = False, longest: int | None = None) -> Episode:
        """Play one episode with folded parameters ``theta`` (dim,), ``quiet`` without noise, ``longest`` steps at most.

        Whatever the environment raises is in ``fault``.
        """
        self.open()  # outside of the net below: this would fail in every episode
        actor = self.policy.actor(theta)
        counted = [0]
        try:
            total = self._play(actor, seed, counted, 0.0 if quiet else self.rules.action_noise, longest)
        except Exception as error:
            self.close()
            fault = Fault("exception", f"raised {type(error).__name__} in step {counted[0]}: {error}", error)
            return self._failed(counted[0], fault)
        steps = counted[0]
        seen = self._seen[:steps]
        sums, squares = seen.sum(axis=0), np.square(seen).sum(axis=0)
        if total != total or not np.isfinite(sums).all():
            name = "a reward that is nan" if total != total else "an observation that is not finite"
            return self._failed(steps, Fault("nan", f"returned {name} within {steps} steps"))
        return Episode(total, steps, sums, squares)

    def close(self) -> None:
        """Close the environment; an exception in that is no news."""
        env, self._env = self._env, None
        if env is not None:
            try:
                env.close()
            except Exception:
                pass

    def _play(self, actor: Any, seed: int, counted: list[int], deviation: float, longest: int | None) -> float:
        """Return the sum of the rewards; ``counted[0]`` is the number of steps, also when the environment raises."""
        outputs, act, flat = actor.outputs, self.policy.actions.act, self.policy.observations.flat
        shape = self._seen.shape[1:] if isinstance(self.policy.observations, ArrayObservations) else None
        noise = _noise(seed, self.policy.actions.outputs, deviation) if deviation else None
        observation = reset_env(self._env, seed)
        step, cut = bare_step(self._env)
        cut = min(cut, *(n for n in (longest, self.rules.max_steps) if n is not None), math.inf)
        total, steps = 0.0, 0
        while True:
            if steps == len(self._seen):
                self._seen = np.concatenate([self._seen, np.empty_like(self._seen)])
            flat_already = type(observation) is np.ndarray and observation.shape == shape
            self._seen[steps] = observation if flat_already else flat(observation)
            wanted = outputs(observation)
            if noise is not None:
                wanted = [u + z for u, z in zip(wanted, next(noise), strict=True)]
            counted[0] = steps + 1
            found = step(act(wanted))
            try:
                observation, reward, terminated, truncated, _ = found
                total += float(reward)
            except (TypeError, ValueError):
                raise bad_step(found) from None
            steps += 1
            if terminated or truncated or steps >= cut or total != total:
                return total

    def _failed(self, steps: int, fault: Fault) -> Episode:
        nothing = np.zeros(self.policy.observations.inputs)
        return Episode(np.nan, steps, nothing, nothing, fault)


def plain_episode(
    env: Any, act: Callable[[Any], Any], seed: int, max_steps: int | None, watch: Callable[[], object]
) -> float:
    """Play one episode of an environment that is open, with ``watch()`` before each step and at the end."""
    getattr(act, "reset", tuple)()
    observation = reset_env(env, seed)
    total, steps = 0.0, 0
    while True:
        watch()
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total, steps = total + float(reward), steps + 1
        if terminated or truncated or steps == max_steps:
            watch()
            return total


@dataclass(frozen=True, eq=False)
class GymEngine:
    """Plays episodes of any gymnasium environment, one after the other, in this process.

    The environment is reset with the seed of each episode, so that nothing of an episode reaches the next one.

    Parameters
    ----------
    env : a gymnasium id, an EnvSpec, or a function that makes an environment. It is kept until :meth:`close`.
    policy : whose parameters the rows replace.
    rules : how episodes are played.
    on_error : "raise" stops with an :class:`EpisodeError` when an environment raises or returns nan; "nan" makes the
        return of the episode nan and counts it.
    """

    env: EnvSource
    policy: Policy
    rules: Rules = field(default_factory=Rules)
    on_error: str = "raise"
    _open: list[Stage] = field(default_factory=list, init=False, repr=False)

    @property
    def name(self) -> str:
        """How the episodes are played."""
        return "gymnasium, in this process"

    def play(self, thetas: Array, seeds: Integers, *, quiet: bool = False, longest: int | None = None) -> Played:
        """Play ``seeds`` (m, e) with the folded parameters ``thetas`` (m, dim), ``quiet`` without action noise.

        ``longest`` cuts the episodes of this call earlier still.
        """
        if not self._open:
            self._open.append(Stage(self.env, self.policy, self.rules))
        table = Table(seeds, self.policy.observations.inputs, self.on_error)
        for unit, (row, seed) in enumerate(table.units()):
            table.put(unit, self._open[0].play(thetas[row], seed, quiet, longest))
        return table.played()

    def close(self) -> None:
        """Close the environment; playing again makes a new one."""
        while self._open:
            self._open.pop().close()


class Table:
    """Episodes as they arrive, in any order; unit row * e + k is episode k of a row."""

    def __init__(self, seeds: Integers, inputs: int, on_error: str) -> None:
        self.seeds, self.on_error = np.asarray(seeds, np.int64), on_error
        units = self.seeds.size
        self.returns, self.lengths = np.full(units, np.nan), np.zeros(units, np.int64)
        self._sums, self._squares = np.zeros((units, inputs)), np.zeros((units, inputs))
        self.failures: dict[str, int] = {}

    def units(self) -> Iterator[tuple[int, int]]:
        """Yield (row, seed) of each unit."""
        episodes = self.seeds.shape[1]
        for unit, seed in enumerate(self.seeds.ravel().tolist()):
            yield unit // episodes, seed

    def put(self, unit: int, episode: Episode) -> None:
        """Keep an episode, or stop because of it."""
        if episode.fault is not None:
            self.fail(unit, episode.fault, episode.steps)
            return
        self.returns[unit], self.lengths[unit] = episode.total, episode.steps
        self._sums[unit], self._squares[unit] = episode.sums, episode.squares

    def put_all(self, start: int, returns: Array, lengths: Integers, sums: Array, squares: Array) -> None:
        """Keep the units from ``start`` on, (k,) and (k, inputs)."""
        stop = start + len(returns)
        self.returns[start:stop], self.lengths[start:stop] = returns, lengths
        self._sums[start:stop], self._squares[start:stop] = sums, squares

    def fail(self, unit: int, fault: Fault, steps: int = 0) -> None:
        """Count a failed episode, or stop because of it."""
        self.lengths[unit] = steps
        if self.on_error == "raise":
            row, episode = divmod(unit, self.seeds.shape[1])
            raise EpisodeError(row, episode, int(self.seeds[row, episode]), fault.kind, fault.what) from fault.error
        self.failures[fault.kind] = self.failures.get(fault.kind, 0) + 1

    def played(self) -> Played:
        """Return the finished record; the sums of a row are those of its episodes, added in order."""
        shape = self.seeds.shape
        sums, squares = (
            np.add.accumulate(a.reshape(*shape, a.shape[1]), axis=1)[:, -1] for a in (self._sums, self._squares)
        )
        return Played(self.returns.reshape(shape), self.lengths.reshape(shape), sums, squares, self.failures)


def _noise(seed: int, outputs: int, deviation: float) -> Iterator[list[float]]:
    """Yield the noise of one step after the other, from counters of the episode's seed."""
    first, rows = 0, Gaussian().noise(Key(seed, 0, EVAL), 2**31, outputs)
    while True:
        yield from (deviation * rows.rows(first, first + _NOISE_ROWS).astype(np.float64)).tolist()
        first += _NOISE_ROWS
