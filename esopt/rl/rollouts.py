"""The evaluator of reinforcement learning: a population of policies in, values out, observations normalised on the way.

Every few generations it also plays the population's mean on episodes that candidates never see, and remembers the best
one: such checks of the centre are part of the evaluation, so that they count as steps and survive a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..evaluators._policy import check_policy
from ..evaluators._rows import GO_ON, check_count
from ..noise import check_seed, child
from ..objective import Objective, Outcome
from ..records import Evals, Population
from .checks import CHECK_SHARE, Check, RolloutState, averaged, doubtful, due, searching
from .engine import Array, Engine, Integers, Played
from .environments import CHECK, TRAIN, EnvSource, env_name, episode_seeds
from .gym_engine import EpisodeError, Rules
from .lengths import Lengthening
from .normalisation import Moments, Normalise, Running, check_normalise
from .paths import Choice, choose_engine
from .pieces import count_failures, play_rows, play_until
from .policy import Policy


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
    confirm : further rounds of as many episodes, at most, while a check finds a new best centre by less than three
        standard errors, so that luck does not choose. With ``check_every=None`` they come out of the same tenth.
    lengthening : a :class:`Lengthening` cuts the episodes of candidates, not those of checks. A run may be resumed with
        another one, for a larger budget.
    averaging : None to check the centre itself; else an average of the centres so far, the last 1 / (averaging + 1) of
        the generations above all: what a step of the search has too much, the next ones take back. A new start of the
        search, with another seed, begins a new average.
    seed : of the checks' episodes.
    path : "auto", "compiled", "workers", "process" or "envpool"; see :func:`esopt.rl.choose_engine`.
    workers : threads or processes that play. They change no bit.
    on_error : "raise" when an environment raises, hangs or returns nan, or "nan" to mark the candidate as failed.
    episode_timeout : seconds after which an episode counts as hung.
    retries : how often it is then played again.
    steps_per_generation : None to play the population as it is; else it grows, by more rows of the same noise, until
        its episodes took so many steps. For strategies that ``grows``, as :class:`esopt.GradientES`.
    engine : what plays instead of that, to be closed by whoever made it.
    planned : which of ``episodes`` and ``check_episodes`` follow from a budget. A run may then be resumed with more of
        them, for a larger one. Such ``episodes`` are one in populations whose candidates play different ones.

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
    confirm: int = 0
    lengthening: Lengthening | None = None
    averaging: float | None = None
    seed: int = 0
    path: str = "auto"
    workers: int | None = None
    on_error: str = "raise"
    episode_timeout: float | None = None
    retries: int = 0
    steps_per_generation: int | None = None
    engine: Engine | None = None
    planned: frozenset[str] = frozenset()
    _live: _Live = field(default_factory=_Live, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("episodes", "max_steps", "check_every", "workers", "steps_per_generation"):
            check_count(name, 0 if name == "episodes" and self.episodes is None else getattr(self, name))
        for name in ("check_episodes", "confirm"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f"{name} must be a whole number, 0 or more, got {number!r}.")
        if not isinstance(self.lengthening, Lengthening | None):
            raise TypeError(
                f"lengthening must be a Lengthening or None, got {self.lengthening!r}. "
                "Pass for example Lengthening(250, 1000, 200_000); train() takes a share, such as 0.25."
            )
        if self.averaging is not None and (isinstance(self.averaging, str) or not 0.0 <= self.averaging < np.inf):
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
        if not isinstance(self.planned, frozenset) or not self.planned <= {"episodes", "check_episodes"}:
            raise ValueError(f"planned must be a frozenset of 'episodes' and 'check_episodes', got {self.planned!r}.")
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
        state = searching(state, int(population.noise.key.seed))
        if self.steps_per_generation is not None and population.extra is not None:
            raise ValueError(
                f"steps_per_generation= needs a population that can grow, and {len(population) - population.n} rows of "
                "this one are explicit. Leave it out, or use an estimator without such rows: Score() with a baseline "
                "other than AtMean()."
            )
        try:
            population, played = self._play(population, mean, std, self._cut(state))
        except EpisodeError as error:
            raise self._stop(error, population, state) from error.__cause__
        self._refuse_nan(played, population, state)
        each = played.returns.mean(axis=1)
        # The one line where a return becomes a value.
        values = -(played.returns - self.bonus * played.lengths).mean(axis=1) if self.bonus else -each
        failures = count_failures(played)
        steps = int(played.lengths.sum())
        kind = check_normalise(self.normalise)
        moments = state.moments
        if isinstance(kind, Running) and state.generation >= kind.after:
            moments = moments.merged(int(played.counts.sum()), played.sums, played.squares)
        looked = self._check_due(averaged(state, population.mean, self.averaging), mean, std)
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
        return self._look(averaged(state, mean, self.averaging), *self.normalisation(state))

    def play(self, thetas: Array, seeds: Integers, state: RolloutState | None = None) -> Played:
        """Play ``seeds`` (m, e) with parameters ``thetas`` (m, dim), as a check does, normalised as ``state`` says.

        Without a state the normalisation is the policy's own.
        """
        own = self.policy.mean, self.policy.std
        folded = self.policy.fold(thetas, *(own if state is None else self.normalisation(state)))
        return self.choice.engine.play(folded, np.asarray(seeds, np.int64), quiet=True)

    def again(self, seed: int) -> Played:
        """Play the episode ``seed`` of a candidate with the policy as it is, as training does but for shorter cuts.

        Raises
        ------
        EvaluationError  if the environment fails in it and ``on_error`` is "raise".
        """
        return self.choice.engine.play(self.policy.folded[None, :], np.array([[seed]], np.int64))

    def kept(self) -> Rollouts:
        """Return the same evaluator, whose ``close`` leaves the engine open for this one."""
        return replace(self, engine=self.choice.engine)

    def close(self) -> None:
        """Close the engine, unless it was given."""
        choice, self._live.choice = self._live.choice, None
        if choice is not None and self.engine is None:
            choice.engine.close()

    def _cut(self, state: RolloutState) -> dict[str, int]:
        """Return how long the episodes of candidates may be, as an argument of an engine; empty for no cut."""
        return {} if self.lengthening is None else {"longest": self.lengthening.cut(state.steps + state.check_steps)}

    def _play(
        self, population: Population, mean: Array, std: Array, cut: Mapping[str, int]
    ) -> tuple[Population, Played]:
        """Play the candidates; return them, more than were asked for if that took too few steps, and what came."""
        engine, wanted = self.choice.engine, self.steps_per_generation
        episodes = self._each(population)
        if wanted is None:
            seeds = episode_seeds(population.seeds, episodes)
            return population, play_rows(engine, self.policy, population, seeds, mean, std, cut)
        return play_until(wanted, engine, self.policy, population, episodes, mean, std, cut)

    def _each(self, population: Population) -> int:
        """Return the episodes of a candidate: what the budget pays for only where all of them play the same ones."""
        return self.episodes if "episodes" not in self.planned or len(set(population.seeds)) == 1 else 1

    def _check_due(self, state: RolloutState, mean: Array, std: Array) -> RolloutState:
        if self.check_episodes and due(state, self.check_every, self.confirm):
            return self._look(state, mean, std)
        return state

    def _look(self, state: RolloutState, mean: Array, std: Array) -> RolloutState:
        """Check the average of ``state``, over more rounds of episodes while it may be the best only by luck."""
        rounds, most = self.check_episodes, 1 + self.confirm
        seeds = episode_seeds([child(self.seed, state.generation)], rounds * most, CHECK).T
        folded = np.repeat(self.policy.fold(state.average[None, :], mean, std), rounds, axis=0)
        returns, steps = np.empty(0), state.check_steps
        for first in range(0, rounds * most, rounds):
            try:
                played = self.choice.engine.play(folded, seeds[first : first + rounds], quiet=True)
            except EpisodeError as error:
                stop = EvaluationError(f"in the check of the centre in generation {state.generation}, {error} {GO_ON}")
                stop.seed, stop.x = error.seed, state.average
                stop.policy = self.policy.with_parameters(state.average).with_normalisation(mean, std)
                raise stop from error.__cause__
            returns = np.concatenate([returns, played.returns[~np.isnan(played.returns)]])
            steps += int(played.lengths.sum())
            spent = self.check_every is None and CHECK_SHARE * steps > state.steps
            if first + rounds == len(seeds) or spent or not doubtful(returns, state.best_return):
                break
        found = float(returns.mean()) if returns.size else np.nan
        row = Check(state.generation, state.steps, state.check_steps, found)
        after = replace(state, check_steps=steps, checks=np.concatenate([state.checks, [np.array(row, np.float64)]]))
        if not found >= state.best_return:
            return after
        return replace(after, best=state.average, best_mean=mean, best_std=std, best_return=found)

    def _refuse_nan(self, played: Played, population: Population, state: RolloutState) -> None:
        if self.on_error == "raise" and played.failed:
            row, episode = (int(at) for at in np.argwhere(np.isnan(played.returns))[0])
            seeds = episode_seeds(population.seeds, played.returns.shape[1])
            seed, what = seeds[row, episode], "returned nan, or raised"
            raise self._stop(EpisodeError(row, episode, int(seed), "nan", what), population, state)

    def _stop(self, error: EpisodeError, population: Population, state: RolloutState) -> EvaluationError:
        """Return the error that says how to see it again."""
        at, row = population.noise.key, error.row
        if row >= len(population):  # one of those that were added
            population = population.resize(row + 1)
        settings = {name: getattr(self, name) for name in ("path", "action_noise", "episode_timeout")}
        given = [f", {name}={value!r}" for name, value in settings.items() if value not in ("auto", 0.0, None)]
        again = f"esopt.rl.Rollouts(env, error.policy{''.join(given)}).again(error.seed)"
        stop = EvaluationError(
            f"candidate {row} of generation {at.generation} (run with seed {at.seed}): episode {error.episode}, "
            f"of seed {error.seed}, {error.what}.\n"
            f"Reproduce it with: {again}, where error is this exception. {GO_ON}"
        )
        stop.seed, stop.x = error.seed, population[row]
        stop.policy = self.policy.with_parameters(stop.x).with_normalisation(*self.normalisation(state))
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
            "confirm",
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
        about |= dict.fromkeys(its.planned, "by budget")
        if its.steps_per_generation is not None:  # files of earlier versions do not have it
            about["steps_per_generation"] = its.steps_per_generation
        object.__setattr__(self, "about", about)

    def __call__(self, theta: Array, seed: int) -> Outcome:
        """Return minus the mean return, and the steps."""
        seeds = episode_seeds([seed], self._rollouts.episodes, TRAIN)
        played = self._rollouts.play(theta[None, :], seeds, self._rollouts.init())
        rewards = played.returns - self._rollouts.bonus * played.lengths
        return Outcome(-float(rewards.mean()), int(played.lengths.sum()))
