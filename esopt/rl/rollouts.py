"""The evaluator of reinforcement learning: a population of policies in, values out, observations normalised on the way.

Every few generations it also plays the population's mean on episodes that candidates never see, and remembers the best
one: such checks of the centre are part of the evaluation, so that they count as steps and survive a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import EvaluationError
from ..evaluators._policy import check_policy
from ..evaluators._rows import GO_ON, check_count
from ..noise import check_seed, child
from ..objective import Objective, Outcome
from ..records import Evals, Population
from .engine import Array, Engine, Integers, Played
from .environments import CHECK, TRAIN, EnvSource, env_name, episode_seeds
from .gym_engine import EpisodeError, Rules
from .normalisation import Moments, Normalise, Running, check_normalise
from .paths import Choice, choose_engine
from .policy import Policy

CHECK_SHARE = 10
"""Unless said otherwise, one step in so many may go into checks of the centre."""

_NUMBERS = 1 << 22


class Check(NamedTuple):
    """A look at the centre: its mean return, and the environment steps before it, of candidates and of checks."""

    generation: int
    steps: int
    check_steps: int
    mean_return: float


@dataclass(frozen=True, eq=False)
class RolloutState:
    """What an evaluator of rollouts knows.

    Parameters
    ----------
    generation : generations evaluated.
    steps, check_steps : environment steps, those of candidates and those of checks.
    moments : of the observations so far.
    best, best_mean, best_std : (dim,), (inputs,), (inputs,)  the best centre that a check saw, and its normalisation.
    best_return : its mean return; -inf before the first check.
    average : (dim,)  of the centres so far, as ``averaging`` weighs them.
    mean_return, top_return : of the candidates of the last generation, with every reward.
    checks : (k, 4)  the fields of :class:`Check`.
    """

    generation: int
    steps: int
    check_steps: int
    moments: Moments
    best: Array
    best_mean: Array
    best_std: Array
    best_return: float
    mean_return: float
    top_return: float
    checks: Array
    average: Array


@dataclass
class _Live:
    choice: Choice | None = None


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Evaluate policies by playing episodes: the value of a candidate is minus its mean return.

    Parameters
    ----------
    env : a gymnasium id, an EnvSpec, a function that makes an environment, or a :class:`esopt.rl.World`.
    policy : whose parameters the candidates replace.
    episodes : episodes of a candidate. Their seeds come from the candidate's own, which antithetic pairs share.
    max_steps : cut of an episode, besides the environment's own.
    bonus : subtracted from the reward of every step, for candidates only: without the bonus for being alive, standing
        still is not worth anything.
    action_noise : standard deviation of noise on the outputs of candidates.
    normalise : "running", "off", a :class:`esopt.rl.Running` or given :class:`esopt.rl.Moments`. A policy that brings a
        normalisation of its own keeps it with "off".
    check_every : generations from one check of the centre to the next, starting with the first; None for as many as
        keep them below a tenth of the steps.
    check_episodes : episodes of a check; 0 for no checks.
    averaging : None to check the centre itself; else an average of the centres so far, the last 1 / (averaging + 1) of
        the generations above all: what a step of the search has too much, the next ones take back.
    seed : of the checks' episodes.
    path : "auto", "compiled", "workers" or "process"; see :func:`esopt.rl.choose_engine`.
    workers : threads or processes that play. They change no bit.
    on_error : "raise" when an environment raises, hangs or returns nan, or "nan" to mark the candidate as failed.
    episode_timeout : seconds after which an episode counts as hung.
    retries : how often it is then played again.
    engine : what plays instead of that, to be closed by whoever made it.

    Notes
    -----
    The normalisation is frozen within a generation, and the moments of its observations are merged in the order of the
    rows afterwards. Failed episodes leave no trace in them.

    Examples
    --------
    >>> import esopt
    >>> from esopt.rl import Policy, Rollouts, make_env
    >>> policy = Policy.linear(make_env("CartPole-v1"))
    >>> rollouts = Rollouts("CartPole-v1", policy)
    >>> result = esopt.minimize(None, policy.parameters, evaluator=rollouts, strategy=esopt.ars(n=8), generations=2)
    >>> result.evaluator_state.moments.count == result.evaluator_state.steps
    True
    """

    env: EnvSource
    policy: Policy
    episodes: int = 1
    max_steps: int | None = None
    bonus: float = 0.0
    action_noise: float = 0.0
    normalise: Normalise = "running"
    check_every: int | None = None
    check_episodes: int = 0
    averaging: float | None = None
    seed: int = 0
    path: str = "auto"
    workers: int | None = None
    on_error: str = "raise"
    episode_timeout: float | None = None
    retries: int = 0
    engine: Engine | None = None
    _live: _Live = field(default_factory=_Live, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("episodes", "max_steps", "check_every", "workers"):
            check_count(name, 0 if name == "episodes" and self.episodes is None else getattr(self, name))
        if isinstance(self.check_episodes, bool) or not isinstance(self.check_episodes, int) or self.check_episodes < 0:
            raise ValueError(f"check_episodes must be a whole number, 0 or more, got {self.check_episodes!r}.")
        if self.averaging is not None and not 0.0 <= self.averaging < np.inf:
            raise ValueError(
                f"averaging must be None, 0 or a positive number, got {self.averaging!r}. Pass for example 7."
            )
        if not np.isfinite(self.bonus):
            raise ValueError(f"bonus must be a finite number, got {self.bonus!r}. Pass for example 1.0.")
        if not isinstance(self.policy, Policy):
            raise TypeError(
                f"policy must be a Policy for the spaces of {env_name(self.env)}, got {type(self.policy).__name__}. "
                "Pass Policy.linear(env), or Policy.mlp(64, 64).of(env)."
            )
        check_seed(self.seed)
        check_policy(self.on_error)
        kind = check_normalise(self.normalise)
        if isinstance(kind, Moments) and kind.sums.size != self._inputs:
            raise ValueError(
                f"normalise= got moments of {kind.sums.size} inputs, but the policy has {self._inputs}. "
                "Pass the moments of its own observations."
            )

    @property
    def _inputs(self) -> int:
        return self.policy.observations.inputs

    @property
    def objective(self) -> Objective:
        """What is evaluated, as a seeded objective: a run is resumed only if it is of the same."""
        return Objective(_Candidate(self), seeded=True)

    @property
    def choice(self) -> Choice:
        """The engine that plays, and why it is that one."""
        if self._live.choice is None:
            if self.engine is not None:
                self._live.choice = Choice(self.engine, "it was given")
            else:
                self._live.choice = choose_engine(
                    self.env,
                    self.policy,
                    path=self.path,
                    workers=self.workers,
                    rules=Rules(self.max_steps, self.action_noise),
                    on_error=self.on_error,
                    episode_timeout=self.episode_timeout,
                    retries=self.retries,
                )
        return self._live.choice

    def init(self) -> RolloutState:
        """Return what is known before the first generation: nothing."""
        kind = check_normalise(self.normalise)
        moments = kind if isinstance(kind, Moments) else Moments.none(self._inputs)
        mean, std = np.zeros(self._inputs), np.ones(self._inputs)
        best, empty = np.array(self.policy.parameters), np.empty((0, len(Check._fields)))
        return RolloutState(0, 0, 0, moments, best, mean, std, -np.inf, np.nan, np.nan, empty, best)

    def normalisation(self, state: RolloutState) -> tuple[Array, Array]:
        """Return the mean and the standard deviation (inputs,) that the next generation is normalised by."""
        kind = check_normalise(self.normalise)
        if kind is None:
            return np.array(self.policy.mean), np.array(self.policy.std)
        if not state.moments.count:
            return np.zeros(self._inputs), np.ones(self._inputs)
        return state.moments.mean, state.moments.std(kind.floor) if isinstance(kind, Running) else state.moments.std()

    def evaluate(self, population: Population, state: RolloutState) -> tuple[Evals, RolloutState]:
        """Return the values (n + k,), and what is known after this generation.

        Raises
        ------
        EvaluationError  if an episode failed and ``on_error`` is "raise"; it has the seed, the row and the generation.
        """
        if population.needs != {"values"}:
            raise ValueError(
                f"the population needs {', '.join(sorted(population.needs - {'values'}))}, but episodes have no "
                "derivatives. Use an estimator that needs values only, such as Score()."
            )
        mean, std = self.normalisation(state)
        seeds = episode_seeds(population.seeds, self.episodes)
        try:
            played = self._play(population, seeds, mean, std)
        except EpisodeError as error:
            raise self._stop(error, population, state) from error.__cause__
        self._refuse_nan(played, seeds, population, state)
        rewards = played.returns - self.bonus * played.lengths
        values = -rewards.mean(axis=1)  # the one line where a return becomes a value
        failures = _failures(played)
        steps = int(played.lengths.sum())
        kind = check_normalise(self.normalise)
        moments = state.moments
        if isinstance(kind, Running) and state.generation >= kind.after:
            moments = moments.merged(int(played.counts.sum()), played.sums, played.squares)
        looked = self._check_due(self._averaged(population.mean, state), mean, std)
        each = played.returns.mean(axis=1)
        known = each[~np.isnan(each)]
        after = replace(
            looked,
            generation=state.generation + 1,
            steps=state.steps + steps,
            moments=moments,
            mean_return=float(known.mean()) if known.size else np.nan,
            top_return=float(known.max()) if known.size else np.nan,
        )
        return Evals(values, steps=steps + looked.check_steps - state.check_steps, failures=failures), after

    def look(self, mean: Array, state: RolloutState) -> RolloutState:
        """Return what is known after a check of the centre ``mean`` (dim,), with the normalisation of ``state``."""
        return self._look(self._averaged(mean, state), *self.normalisation(state))

    def play(self, thetas: Array, seeds: Integers, state: RolloutState | None = None) -> Played:
        """Play ``seeds`` (m, e) with parameters ``thetas`` (m, dim), as a check does, normalised as ``state`` says.

        Without a state the normalisation is the policy's own.
        """
        own = self.policy.mean, self.policy.std
        folded = self.policy.fold(thetas, *(own if state is None else self.normalisation(state)))
        return self.choice.engine.play(folded, np.asarray(seeds, np.int64), quiet=True)

    def kept(self) -> Rollouts:
        """Return the same evaluator, whose ``close`` leaves the engine open for this one."""
        return replace(self, engine=self.choice.engine)

    def close(self) -> None:
        """Close the engine, unless it was given."""
        choice, self._live.choice = self._live.choice, None
        if choice is not None and self.engine is None:
            choice.engine.close()

    def _play(self, population: Population, seeds: Integers, mean: Array, std: Array) -> Played:
        """Play the candidates: as a recipe where the engine takes that, else row by row, a few megabytes at a time."""
        engine: Any = self.choice.engine
        if hasattr(engine, "play_population"):
            played: Played = engine.play_population(population, seeds, mean, std)
            return played
        height = max(2, _NUMBERS // population.dim // 2 * 2)
        pieces = []
        for first in range(0, len(population), height):
            last = min(first + height, len(population))
            folded = self.policy.fold(population.rows(first, last), mean, std)
            try:
                pieces.append(engine.play(folded, seeds[first:last]))
            except EpisodeError as error:
                raise EpisodeError(first + error.row, error.episode, error.seed, error.kind, error.what) from (
                    error.__cause__
                )
        return pieces[0] if len(pieces) == 1 else _joined(pieces)

    def _averaged(self, centre: Array, state: RolloutState) -> RolloutState:
        """Return ``state`` with what is checked next (Shamir and Zhang 2013, section 4): the centre, or an average."""
        if self.averaging is None:
            return replace(state, average=np.array(centre))
        weight = (self.averaging + 1.0) / (self.averaging + 1.0 + state.generation)
        return replace(state, average=state.average + weight * (centre - state.average))

    def _check_due(self, state: RolloutState, mean: Array, std: Array) -> RolloutState:
        if not self.check_episodes:
            return state
        if self.check_every is None:
            due = state.generation == 0 or CHECK_SHARE * state.check_steps <= state.steps
        else:
            due = state.generation % self.check_every == 0
        return self._look(state, mean, std) if due else state

    def _look(self, state: RolloutState, mean: Array, std: Array) -> RolloutState:
        seeds = episode_seeds([child(self.seed, state.generation)], self.check_episodes, CHECK).T
        folded = np.repeat(self.policy.fold(state.average[None, :], mean, std), self.check_episodes, axis=0)
        try:
            played = self.choice.engine.play(folded, seeds, quiet=True)
        except EpisodeError as error:
            raise EvaluationError(
                f"in the check of the centre in generation {state.generation}, {error} {GO_ON}"
            ) from error.__cause__
        returns = played.returns[~np.isnan(played.returns)]
        found = float(returns.mean()) if returns.size else np.nan
        row = Check(state.generation, state.steps, state.check_steps, found)
        steps = state.check_steps + int(played.lengths.sum())
        after = replace(state, check_steps=steps, checks=np.concatenate([state.checks, [np.array(row, np.float64)]]))
        if not found >= state.best_return:
            return after
        return replace(after, best=state.average, best_mean=mean, best_std=std, best_return=found)

    def _refuse_nan(self, played: Played, seeds: Integers, population: Population, state: RolloutState) -> None:
        if self.on_error == "raise" and np.isnan(played.returns).any():
            row, episode = (int(at) for at in np.argwhere(np.isnan(played.returns))[0])
            what = "returned nan, or raised"
            raise self._stop(EpisodeError(row, episode, int(seeds[row, episode]), "nan", what), population, state)

    def _stop(self, error: EpisodeError, population: Population, state: RolloutState) -> EvaluationError:
        """Return the error that says how to see it again."""
        at, row = population.noise.key, error.row
        stop = EvaluationError(
            f"candidate {row} of generation {at.generation} (run with seed {at.seed}): episode {error.episode}, "
            f"of seed {error.seed}, {error.what}.\n"
            f"Reproduce it with: rollouts.play(population.rows({row}, {row + 1}), [[{error.seed}]], state), where "
            f"population and state are those of that generation. {GO_ON}"
        )
        stop.seed, stop.x = error.seed, population[row]
        return stop


@dataclass(frozen=True, eq=False)
class _Candidate:
    """One candidate as an objective f(theta, seed), without normalisation by what others observed."""

    _rollouts: Rollouts
    about: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        its = self._rollouts
        names = (
            "episodes",
            "max_steps",
            "bonus",
            "action_noise",
            "check_every",
            "check_episodes",
            "averaging",
            "seed",
            "on_error",
        )
        about = {
            "env": env_name(its.env),
            "hidden": its.policy.hidden,
            "actions": its.policy.actions,
            "observations": its.policy.observations,
            "law": its.choice.law,
            "normalise": check_normalise(its.normalise),
            **{name: getattr(its, name) for name in names},
        }
        object.__setattr__(self, "about", about)

    def __call__(self, theta: Array, seed: int) -> Outcome:
        """Return minus the mean return, and the steps."""
        seeds = episode_seeds([seed], self._rollouts.episodes, TRAIN)
        played = self._rollouts.play(theta[None, :], seeds, self._rollouts.init())
        rewards = played.returns - self._rollouts.bonus * played.lengths
        return Outcome(-float(rewards.mean()), int(played.lengths.sum()))


def _failures(played: Played) -> dict[str, int]:
    """Return failed episodes by kind; those that the engine did not name are "nan"."""
    failures = dict(played.failures)
    rest = int(np.isnan(played.returns).sum()) - sum(failures.values())
    if rest:
        failures["nan"] = failures.get("nan", 0) + rest
    return failures


def _joined(pieces: list[Played]) -> Played:
    failures: dict[str, int] = {}
    for piece in pieces:
        for kind, count in piece.failures.items():
            failures[kind] = failures.get(kind, 0) + count
    columns = [np.concatenate(column) for column in list(zip(*pieces, strict=True))[:4]]
    return Played(columns[0], columns[1], columns[2], columns[3], failures)
