"""How episodes are played: the choice of the engine, and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass

from .._kernels.objective import enabled
from .engine import CompiledEngine, Engine, World
from .environments import EnvSource, env_name, registered
from .envpool import EnvPoolEngine
from .gym_engine import GymEngine, Rules
from .policy import Policy
from .workers import Workers

PATHS = ("auto", "compiled", "workers", "process", "envpool")


@dataclass(frozen=True, eq=False)
class Choice:
    """An engine and why it plays."""

    engine: Engine
    why: str

    @property
    def law(self) -> str:
        """What the bits of a run depend on: engines of one law play the same episodes."""
        if isinstance(self.engine, EnvPoolEngine):
            return "envpool"
        return "gymnasium" if isinstance(self.engine, (GymEngine, Workers)) else "compiled"

    def __str__(self) -> str:
        return f"{self.engine.name}: {self.why}"


def choose_engine(
    env: EnvSource,
    policy: Policy,
    *,
    path: str = "auto",
    workers: int | None = None,
    rules: Rules | None = None,
    on_error: str = "raise",
    episode_timeout: float | None = None,
    retries: int = 0,
) -> Choice:
    """Return the engine that plays ``env``.

    Parameters
    ----------
    path : "compiled" for environments that are written in compiled code, :class:`esopt.rl.World` and the ids that have
        one; "workers" for processes, "process" for this one; "auto" for the first of them that serves; "envpool" for
        the ids of EnvPool, see :class:`esopt.rl.EnvPoolEngine`.
    workers : threads of compiled code or EnvPool, None for one per core; or processes, None for none but this one.
    rules, on_error, episode_timeout, retries : as in :class:`esopt.rl.Workers`. A timeout needs processes.

    Raises
    ------
    ValueError  for a path that does not serve the environment, with the reason.
    """
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, got {path!r}.")
    rules = Rules() if rules is None else rules
    reason = "it was asked for"
    if path in ("auto", "compiled") or isinstance(env, World):
        world, reason = find_world(env)
        if world is not None and path in ("auto", "compiled"):
            return Choice(_compiled(world, policy, rules, workers), reason)
        if path == "compiled" or isinstance(env, World):
            raise ValueError(
                f"{env_name(env)} cannot be played with path={path!r}: {reason}. "
                + ('Use path="auto".' if path == "compiled" else "A World is compiled: leave path= out.")
            )
    if path == "workers" or (path == "auto" and (episode_timeout is not None or (workers or 1) > 1)):
        return Choice(Workers(env, policy, workers or 1, rules, on_error, episode_timeout, retries), reason)
    if path == "envpool" and episode_timeout is None:
        return Choice(EnvPoolEngine(env, policy, workers, rules, on_error), reason)
    if episode_timeout is not None:
        raise ValueError('episode_timeout= needs processes that can be killed. Use path="workers".')
    return Choice(GymEngine(env, policy, rules, on_error), reason)


def find_world(env: EnvSource) -> tuple[World | None, str]:
    """Return the compiled world of ``env`` and why it is used; or None and why there is none."""
    if isinstance(env, World):
        return env, "it is a World"
    name, options = (env, {}) if isinstance(env, str) else (getattr(env, "id", None), getattr(env, "kwargs", {}))
    wrappers: tuple[object, ...] = getattr(env, "additional_wrappers", ())
    if not isinstance(name, str) or wrappers:
        return None, "it is a function or wrapped, which compiled code cannot look into"
    if not enabled():
        return None, "numba is switched off"
    from .classic_control import CLASSIC_CONTROL
    from .mujoco import family_of, mujoco_world

    spec = registered(name)
    name = name if spec is None else str(spec.id)
    if name in CLASSIC_CONTROL:
        try:
            world: World | None = CLASSIC_CONTROL[name](**options)
        except TypeError:
            return None, f"the compiled world does not know all of {', '.join(options)}"
        reason = ""
    elif spec is not None and family_of(spec.entry_point) is not None:
        world, reason = mujoco_world(name, **options)
    else:
        return None, "there is no compiled world for it"
    if world is not None and getattr(env, "max_episode_steps", int(world.max_steps)) != world.max_steps:
        return None, "its episodes have another length than those of the compiled world"
    return world, reason or "this id has a compiled world"


def _compiled(world: World, policy: Policy, rules: Rules, workers: int | None) -> Engine:
    return CompiledEngine(world, policy, threads=workers, max_steps=rules.max_steps, action_noise=rules.action_noise)
