"""Settings of :func:`esopt.rl.train` by name, with their sources.

A preset is a record; ``train(env, **ars("Hopper-v5").settings())`` runs it, and anything in it can be overridden.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from ..baselines.none import NoBaseline
from ..estimators.score import Score
from ..protocols import Strategy
from ..rules.sgd import SGD
from ..samplers.antithetic import Antithetic
from ..samplers.orthogonal import Orthogonal
from ..shaping import TopFraction
from ..strategies import named
from ..strategies.by_dimension import ByDimension
from ..strategies.cmaes import CMAES
from ..strategies.elitist import Elitist
from ..strategies.endless import Endless
from ..strategies.gradient_es import GradientES
from ..strategies.halving import Halving
from .normalisation import Normalise
from .policy import Policy, Recipe
from .searches import Searches

_ZOO = "RL Baselines3 Zoo; Mania, Guy, Recht (2018)"
_CLIPUP = "Toklu, Liskowski, Srivastava (2020), ClipUp"
_OPENAI = "Salimans, Ho, Chen, Sidor, Sutskever (2017), and the published code"
_OWN = "esopt"


@dataclass(frozen=True, eq=False)
class Preset:
    """Settings of a training run.

    Parameters
    ----------
    strategy, policy, normalise, bonus, episodes_per_candidate, check_every, check_episodes : as in
        :func:`esopt.rl.train`.
    confirm, lengthening, averaging, searches, target, steps : as there.
    source : where they come from.
    """

    strategy: Strategy
    source: str
    policy: Recipe = Policy.linear()  # noqa: RUF009  a frozen record
    normalise: Normalise = "running"
    bonus: float = 0.0
    episodes_per_candidate: int | None = 1
    check_every: int | None = None
    check_episodes: int | None = 10
    confirm: int = 0
    lengthening: float | None = None
    averaging: float | None = None
    searches: int | None = 1
    target: float | None = None
    steps: int | None = None

    def settings(self) -> dict[str, Any]:
        """Return keyword arguments of :func:`esopt.rl.train`."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "source"}


ALIVE_BONUS: Mapping[str, float] = {"Hopper": 1.0, "Walker2d": 1.0, "Ant": 1.0, "Humanoid": 5.0}
"""What an environment of gymnasium pays for every step without a fall, by its name without the version."""

_MUJOCO = (*ALIVE_BONUS, "HalfCheetah", "Swimmer")


class _Zoo(NamedTuple):
    """What RL Baselines3 Zoo sets; the defaults are those of sb3-contrib."""

    lr: float = 0.02
    sigma: float = 0.05
    pairs: int = 8
    top: int = 8
    policy: Recipe = Policy.linear()
    bonus: float = 0.0


_HIDDEN = Policy.mlp(16, activation="relu", squash="tanh")
_ARS: Mapping[str, _Zoo] = {
    "Swimmer": _Zoo(0.02, 0.01, 1, 1),
    "Hopper": _Zoo(0.01, 0.025, 8, 4),
    "HalfCheetah": _Zoo(0.02, 0.03, 32, 4),
    "Walker2d": _Zoo(0.03, 0.025, 40, 30),
    "Ant": _Zoo(0.015, 0.025, 60, 20),
    "Humanoid": _Zoo(0.02, 0.0075, 256, 256),
    "Pendulum": _Zoo(0.018, 0.1, 4, 1, _HIDDEN),
    "BipedalWalker": _Zoo(0.02, 0.0075, 64, 32, _HIDDEN, bonus=0.1),
    "BipedalWalkerHardcore": _Zoo(0.02, 0.0075, 64, 32, _HIDDEN, bonus=0.1),
}


def default(env: str) -> Preset:
    """Return one rule for all environments, which knows the alive bonus alone: a search by dimension, then by budget.

    Up to 100 parameters three searches of CMA-ES begin, with 14 candidates whose best is seen again in the next
    generation, and the one that found most in seven generations goes on; a budget of 2,000 of the longest episodes is
    shared with a search by eight antithetic pairs in orthogonal directions, with the step of ARS, which noise harms
    less. Beyond 100 parameters there are 16 such pairs. Observations are normalised from the second generation on.

    With an alive bonus, a body that may fall, there are eight such pairs up to 100 parameters, sigma is 0.03 in place
    of 0.1, and episodes are whole: what leaps farthest in a quarter of the time has fallen by the end.

    Elsewhere episodes are cut after a quarter of the longest length in the first third of the budget of steps and after
    half of it in the second: that makes twice as many generations. The candidates of a generation of CMA-ES all play
    the same episodes, so that ranks compare policies. Policies are linear, or have eight hidden units where a linear
    one would have fewer than 16 parameters. A richer budget also buys CMA-ES averages over episodes, and further
    searches, of both kinds in turn, one for every 15,000 of the longest episodes: the best centre of all is
    returned. The search goes on whatever plateaus and noise look like, an average of the last tenth of the centres is
    checked, and a new best one has to hold up over more episodes.

    References
    ----------
    Hansen (2016), The CMA evolution strategy: a tutorial; Hansen (2011), Injecting external solutions into CMA-ES;
    Jamieson and Talwalkar (2016), Non-stochastic best arm identification and hyperparameter optimization; Mania, Guy,
    Recht (2018), Simple random search provides a competitive approach to reinforcement learning; Choromanski et al.
    (2018), Structured evolution with compact architectures for scalable policy optimization; Fuks, Awad, Hutter,
    Lindauer (2019), An evolution strategy with progressive episode lengths for playing games; Shamir and Zhang (2013),
    Stochastic gradient descent for non-smooth optimization, section 4, for the average.
    """
    search = Endless(Elitist(CMAES(sigma=1.0, n=14, share="generation")))
    several, bonus = Halving(search, starts=3, generations=7), ALIVE_BONUS.get(_family(env), 0.0)
    few: Strategy = Searches(several, other=_ars_of_orthogonal_pairs(0.3, n=16))
    sigma, few = (0.03, _ars_of_orthogonal_pairs(0.03, n=16)) if bonus else (0.1, few)
    return Preset(
        ByDimension(few, _ars_of_orthogonal_pairs(sigma, n=32), limit=100),
        _OWN,
        policy=Recipe(hidden=(8,), linear_from=16),
        bonus=bonus,
        episodes_per_candidate=None,
        check_episodes=None,
        confirm=8,
        lengthening=None if bonus else 0.25,
        averaging=9.0,
        searches=None,
    )


def orthogonal(env: str) -> Preset:
    """Return one setting for all environments, but for the alive bonus: antithetic pairs in orthogonal directions.

    Eight pairs make a generation. Observations are normalised from the second generation on, and ``sigma`` = 1 then
    saturates most actions at once: exploration is as large as it can be, and weights that grow make it smaller. The
    step is that of ARS, in proportion to the deviation of the returns, and an average of the last tenth of the centres
    is checked, every eight generations on five episodes.

    References
    ----------
    Choromanski et al. (2018), Structured evolution with compact architectures for scalable policy optimization; Shamir
    and Zhang (2013), Stochastic gradient descent for non-smooth optimization, section 4, for the average.
    """
    return Preset(
        _ars_of_orthogonal_pairs(1.0, n=16),
        _OWN,
        bonus=ALIVE_BONUS.get(_family(env), 0.0),
        check_every=8,
        check_episodes=5,
        averaging=9.0,
    )


def ars(env: str) -> Preset:
    """Return augmented random search as RL Baselines3 Zoo sets it for MuJoCo, Pendulum and BipedalWalker.

    ``sigma`` and ``lr`` are nu and alpha of the paper, ``n`` twice its N, ``top`` its b. Swimmer is not normalised;
    Pendulum and BipedalWalker have 16 hidden units. Everything else has the defaults of sb3-contrib and linear
    policies. (The Zoo trains networks on Acrobot, LunarLanderContinuous and MountainCarContinuous by now, with 2
    million steps for 168 on the second one.)

    References
    ----------
    Mania, Guy, Recht (2018), Simple random search provides a competitive approach to reinforcement learning; RL
    Baselines3 Zoo.
    """
    family = _family(env)
    zoo = _ARS.get(family, _Zoo())
    return Preset(
        named.ars(n=2 * zoo.pairs, top=zoo.top, sigma=zoo.sigma, lr=zoo.lr),
        _ZOO,
        policy=zoo.policy,
        normalise="off" if family == "Swimmer" else "running",
        bonus=zoo.bonus + ALIVE_BONUS.get(family, 0.0),
    )


def pgpe(env: str) -> Preset:
    """Return PGPE with ClipUp: a speed limit of 0.015 for MuJoCo's robots, 0.3 for LunarLander, 0.15 elsewhere.

    The radius of the search is 15 times that limit, the step half of it, and 100 candidates make a generation (the
    paper's populations also grow within a generation, which this does not).

    References
    ----------
    Toklu, Liskowski, Srivastava (2020), ClipUp: a simple and powerful optimizer for distribution-based policy
    evolution.
    """
    family = _family(env)
    speed = 0.3 if family.startswith("LunarLander") else 0.015 if family in _MUJOCO else 0.15
    return Preset(named.pgpe(n=100, max_speed=speed), _CLIPUP, bonus=ALIVE_BONUS.get(family, 0.0))


def openai_es(env: str) -> Preset:
    """Return OpenAI-ES: centred ranks, Adam, two hidden layers of 64 tanh units, all rewards kept.

    The width of the search and the learning rate are those of the published code; 64 candidates a generation are fewer
    than it had, for one machine.

    References
    ----------
    Salimans, Ho, Chen, Sidor, Sutskever (2017), Evolution strategies as a scalable alternative to reinforcement
    learning.
    """
    return Preset(named.openai_es(n=64, sigma=0.02, lr=0.01), _OPENAI, policy=Policy.mlp(64, 64))


PRESETS: Mapping[str, Callable[[str], Preset]] = {
    "ars": ars,
    "default": default,
    "openai-es": openai_es,
    "orthogonal": orthogonal,
    "pgpe": pgpe,
}
"""By the names of the command line."""


def preset(name: str, env: str) -> Preset:
    """Return the preset ``name`` for the environment ``env``, an id.

    Raises
    ------
    ValueError  for a name that is not in :data:`PRESETS`.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        raise ValueError(
            f"there is no preset {name!r}. {f'Did you mean {near[0]}? ' if near else ''}Pass {', '.join(PRESETS)}."
        )
    return PRESETS[name](env)


def with_strategy(base: Preset, name: str, n: int | None, sigma: float | None) -> Preset:
    """Return ``base`` with another strategy, whose steps are in proportion to ``sigma``.

    "ars", "openai_es" and "pgpe" train linear policies on whole episodes, as in their papers; "cmaes" changes nothing
    else in ``base``.
    """
    width, rows = 1.0 if sigma is None else sigma, 16 if n is None else n
    if name == "cmaes":
        return replace(
            base, strategy=Endless(CMAES(0.3 if sigma is None else sigma, 20 if n is None else n, share="generation"))
        )
    plain = Preset(base.strategy, base.source, bonus=base.bonus)
    if name == "ars":
        return replace(plain, strategy=named.ars(n=rows, sigma=width, lr=width))
    if name == "openai_es":
        return replace(plain, strategy=named.openai_es(n=rows, sigma=width, lr=0.3 * width))
    if name == "pgpe":
        return replace(plain, strategy=replace(named.pgpe(n=rows, max_speed=0.25 * width), sigma=width))
    raise ValueError(f"there is no strategy {name!r} here. Pass ars, cmaes, openai_es or pgpe.")


def resized(strategy: Any, n: int | None, sigma: float | None) -> Any:
    """Return ``strategy``, of the kinds that the default preset is made of, with n candidates and the width ``sigma``.

    None leaves either as it is. The step of :class:`esopt.SGD` is kept in proportion to the width.
    """
    if isinstance(strategy, ByDimension):
        return replace(strategy, few=resized(strategy.few, n, sigma), many=resized(strategy.many, n, sigma))
    if isinstance(strategy, Searches):
        inner, other = (each and resized(each, n, sigma) for each in (strategy.inner, strategy.other))
        return replace(strategy, inner=inner, other=other)
    if isinstance(strategy, (Halving, Endless, Elitist)):
        return replace(strategy, inner=resized(strategy.inner, n, sigma))
    changes: dict[str, Any] = {} if n is None else {"n": n}
    if sigma is not None:
        changes["sigma"] = sigma
        if isinstance(strategy, GradientES) and isinstance(strategy.rule, SGD):
            before: Any = strategy
            changes["rule"] = replace(strategy.rule, lr=before.rule.lr * (sigma / before.sigma) ** 2)
    return replace(strategy, **changes)


def parse_policy(text: str) -> Recipe:
    """Return the recipe that ``text`` describes: "linear", "mlp:64,64", "mlp:64,64:relu" or "rnn:16".

    Raises
    ------
    ValueError  for anything else.
    """
    kind, _, rest = text.partition(":")
    widths, _, activation = rest.partition(":")
    try:
        if text == "linear":
            return Policy.linear()
        if kind == "rnn" and text.count(":") == 1:
            return Policy.rnn(int(widths))
        if kind == "mlp" and activation in ("", "tanh", "relu"):
            hidden = [int(width) for width in widths.split(",")]
            return Policy.mlp(*hidden, activation="relu" if activation == "relu" else "tanh")
    except ValueError:
        pass
    raise ValueError(f"the policy got {text!r}. Pass linear, mlp:64,64 (also mlp:64,64:relu), or rnn:16.")


def _ars_of_orthogonal_pairs(sigma: float, n: int) -> GradientES:
    """Return the step of ARS, with pairs of orthogonal directions; its length is in proportion to ``sigma``."""
    return GradientES(
        sigma=sigma,
        n=n,
        sampler=Antithetic(Orthogonal()),
        shaping=TopFraction(1.0),
        estimator=Score(NoBaseline()),
        rule=SGD(1.4 * sigma**2),
    )


def _family(env: str) -> str:
    """Return the name of an id without module, namespace and version."""
    name = env.rpartition(":")[2].rpartition("/")[2]
    return name.rpartition("-v")[0] or name
