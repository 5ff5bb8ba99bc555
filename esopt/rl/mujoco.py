"""Compiled worlds of gymnasium's MuJoCo ids: the library's own physics, and everything around it compiled.

:func:`mujoco_world` makes a :class:`~esopt.rl.engine.World` of an id such as ``"HalfCheetah-v5"`` and the keyword
arguments of ``gymnasium.make``. It makes the environment once and takes its model and its settings from there, so that
every keyword argument counts. Threads share the model; each has its own ``MjData``, whose addresses are in the state.

Before a world is given out it plays a few steps side by side with gymnasium's own environment. Another version of
gymnasium or of MuJoCo that changed something is found there, and training takes the ordinary path instead.

As in gymnasium, MuJoCo itself writes warnings (old model files, unstable simulations) to ``MUJOCO_LOG.TXT`` in the
working directory. An unstable simulation is set back to the model's start by MuJoCo, and the episode goes on.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .._kernels import mujoco as kernels
from .._kernels import simulation as layout
from .engine import World

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Family:
    """How one of gymnasium's classes is played; ``bodies`` are names, or attributes of the environment with names."""

    reset: str
    step: str
    normal: bool = False  # noise of the first velocities: normal instead of uniform
    speed: float = np.inf  # velocities are clipped to +- speed in observations
    least: int = 0  # positions and velocities that the functions look at
    size: int = 0  # the same where it must be met exactly
    bodies: Mapping[int, str] = field(default_factory=dict)


_FAMILIES = {
    "half_cheetah_v5:HalfCheetahEnv": _Family("planar", "planar", normal=True, least=1),
    "hopper_v5:HopperEnv": _Family("planar", "planar", speed=10.0, least=3),
    "walker2d_v5:Walker2dEnv": _Family("planar", "planar", speed=10.0, least=3),
    "swimmer_v5:SwimmerEnv": _Family("planar", "planar", least=2),
    "ant_v5:AntEnv": _Family("body", "ant", normal=True, least=3, bodies={layout.BODY: "_main_body"}),
    "humanoid_v5:HumanoidEnv": _Family("body", "humanoid", least=6),
    "humanoidstandup_v5:HumanoidStandupEnv": _Family("body", "standup", least=6),
    "inverted_pendulum_v5:InvertedPendulumEnv": _Family("planar", "pendulum", least=2),
    "inverted_double_pendulum_v5:InvertedDoublePendulumEnv": _Family(
        "double_pendulum", "double_pendulum", normal=True, size=3
    ),
    "reacher_v5:ReacherEnv": _Family(
        "reacher", "reacher", size=4, bodies={layout.TOOL: "fingertip", layout.TARGET: "target"}
    ),
    "pusher_v5:PusherEnv": _Family(
        "pusher", "pusher", size=11, bodies={layout.BODY: "object", layout.TOOL: "tips_arm", layout.TARGET: "goal"}
    ),
}
_HOME = "gymnasium.envs.mujoco."

# Where the numbers and choices of the state stand in gymnasium's environments. What one of them lacks keeps a value
# that makes no difference: 0, or the range of all numbers.
_WEIGHTS = {
    layout.NOISE: ("_reset_noise_scale",),
    layout.FORWARD: ("_forward_reward_weight",),
    layout.COST: ("_ctrl_cost_weight", "_reward_control_weight"),
    layout.HEALTHY: ("_healthy_reward",),
    layout.CONTACT: ("_contact_cost_weight", "_impact_cost_weight"),
    layout.NEAR: ("_reward_near_weight",),
    layout.DISTANCE: ("_reward_dist_weight",),
}
_RANGES = {
    layout.Z_LOW: ("_healthy_z_range",),
    layout.ANGLE_LOW: ("_healthy_angle_range",),
    layout.STATE_LOW: ("_healthy_state_range",),
    layout.FORCE_LOW: ("_contact_force_range",),
    layout.CONTACT_LOW: ("_contact_cost_range", "_impact_cost_range"),
}
_PARTS = {
    layout.INERTIA: "_include_cinert_in_observation",
    layout.VELOCITY: "_include_cvel_in_observation",
    layout.ACTUATORS: "_include_qfrc_actuator_in_observation",
    layout.EXTERNAL: "_include_cfrc_ext_in_observation",
}
_FIELDS = {
    layout.QPOS: "qpos",
    layout.QVEL: "qvel",
    layout.CTRL: "ctrl",
    layout.XPOS: "xpos",
    layout.XIPOS: "xipos",
    layout.SITE_XPOS: "site_xpos",
    layout.CINERT: "cinert",
    layout.CVEL: "cvel",
    layout.QFRC_ACTUATOR: "qfrc_actuator",
    layout.QFRC_CONSTRAINT: "qfrc_constraint",
    layout.CFRC_EXT: "cfrc_ext",
}
_FUNCTIONS = {
    layout.MJ_STEP: "mj_step",
    layout.MJ_RESET: "mj_resetData",
    layout.MJ_FORWARD: "mj_forward",
    layout.MJ_POST: "mj_rnePostConstraint",
}
_SIZES = {layout.NQ: "nq", layout.NV: "nv", layout.NU: "nu", layout.NBODY: "nbody"}
_LIBRARIES = ("libmujoco*.so*", "libmujoco*.dylib", "mujoco.dll")
_WRAPPERS = ("TimeLimit", "OrderEnforcing", "PassiveEnvChecker")

_LEAST_MEMORY = 1 << 20
_STEPS = 3  # that a new world is compared with gymnasium's environment over
_CLOSE = 1e-9


class Found(NamedTuple):
    """A world, or None and in words why there is none."""

    world: World | None
    reason: str


class _Unplayable(Exception):
    """Why an environment has no compiled world."""


class _Memory:
    """The memory of a state, with what its addresses point to; the array that is made of it keeps this alive."""

    def __init__(self, memory: Array, *owners: Any) -> None:
        self.memory = memory
        self.owners = owners

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.memory.__array_interface__


def mujoco_world(name: str, **options: Any) -> Found:
    """Return the compiled world of a gymnasium id, or None with the reason.

    Parameters
    ----------
    name : an id, for example ``"HalfCheetah-v5"``; any id whose class is one of gymnasium's v5 MuJoCo environments.
    options : keyword arguments for ``gymnasium.make``.

    Raises
    ------
    gymnasium.error.Error : what ``gymnasium.make`` says about unknown ids.
    TypeError : what it says about keyword arguments.
    """
    import gymnasium
    from gymnasium.error import DependencyNotInstalled

    spec = gymnasium.spec(name)
    family = family_of(spec.entry_point)
    if family is None:
        return Found(None, f"{name} is none of gymnasium's v5 MuJoCo environments")
    if not layout.enabled():
        return Found(None, "numba is switched off (NUMBA_DISABLE_JIT)")
    try:
        env = gymnasium.make(name, **options)
    except DependencyNotInstalled:
        return Found(None, 'mujoco is not installed: pip install "pyesopt[mujoco]"')
    try:
        return Found(_world(spec.id, family, env), "")
    except _Unplayable as reason:
        return Found(None, str(reason))
    finally:
        env.close()


def family_of(entry: object) -> _Family | None:
    """Return the family of an entry point, which is a text or the class itself."""
    if isinstance(entry, type):
        entry = f"{entry.__module__}:{entry.__qualname__}"
    return _FAMILIES.get(entry.removeprefix(_HOME)) if isinstance(entry, str) else None


def _world(name: str, family: _Family, env: Any) -> World:
    """Return the world of an environment as gymnasium.make returned it, once it agrees with it."""
    inner = env.unwrapped
    steps = _time_limit(env)
    if family is not family_of(type(inner)):
        raise _Unplayable(f"{name} makes a {type(inner).__name__}, not what its entry point says")
    _check_sizes(name, family, inner)
    template = _template(family, inner)
    model = _one_island(inner.model)

    def new_state() -> Array:
        return _new_state(template, model)

    world = World(
        name=name,
        inputs=inner.observation_space.shape[0],
        actions=inner.action_space.shape[0],
        max_steps=steps,
        reset=getattr(kernels, f"reset_{family.reset}"),
        step=getattr(kernels, f"step_{family.step}"),
        new_state=new_state,
        spaces=lambda: (inner.observation_space, inner.action_space),
    )
    _compare(world, inner)
    return world


def _time_limit(env: Any) -> int:
    """Return after how many steps gymnasium cuts an episode, if nothing else is wrapped around the environment."""
    limit = None
    while env is not env.unwrapped:
        kind = type(env).__name__
        if kind not in _WRAPPERS:
            raise _Unplayable(f"the wrapper {kind} is a Python object")
        if kind == "TimeLimit":
            limit = env.spec.max_episode_steps
        env = env.env
    if limit is None:
        raise _Unplayable("its episodes have no time limit; pass max_episode_steps")
    return int(limit)


def _check_sizes(name: str, family: _Family, inner: Any) -> None:
    """Refuse models that the compiled functions would read or write beyond, such as another xml_file."""
    import mujoco

    model = inner.model
    if getattr(mujoco, "MJTNUM_BYTES", 8) != 8:
        raise _Unplayable("this build of MuJoCo computes in single precision")
    if model.narena < _LEAST_MEMORY:
        raise _Unplayable(f"{name} has a model with little memory; where it runs out, MuJoCo ends the process")
    sizes = model.nq, model.nv
    if min(sizes) < family.least or (family.size and sizes != (family.size, family.size)):
        raise _Unplayable(f"{name} has an unusual model, with {model.nq} positions and {model.nv} velocities")
    if family.step == "double_pendulum" and model.nsite < 1:
        raise _Unplayable(f"{name} has an unusual model, without a site")
    shapes = inner._get_obs().shape, (model.nu,)
    if shapes != (inner.observation_space.shape, inner.action_space.shape) or inner.action_space.dtype != np.float32:
        raise _Unplayable(f"{name} has an unusual model, which does not fit its spaces")


def _one_island(model: Any) -> Any:
    """Return the model without the search for islands, bodies that touch, where there is one tree of bodies only.

    All of it is one island then: the solver does the same arithmetic, and a step costs up to a twelfth less.
    Early versions of MuJoCo search only if they are asked to; bodies that may sleep need the search.
    """
    import mujoco

    search = getattr(mujoco.mjtDisableBit, "mjDSBL_ISLAND", None)
    sleep = int(getattr(mujoco.mjtEnableBit, "mjENBL_SLEEP", 0))
    if search is None or model.ntree != 1 or model.opt.enableflags & sleep:
        return model
    alone = copy.copy(model)
    alone.opt.disableflags |= int(search)
    return alone


def _template(family: _Family, inner: Any) -> Array:
    """Return a state with everything in it that the threads share."""
    model = inner.model
    memory = np.zeros(layout.START + model.nq + model.nv)
    words = memory.view(np.int64)
    for at, names in _WEIGHTS.items():
        memory[at] = _first(inner, names, 0.0)
    for at, names in _RANGES.items():
        memory[at : at + 2] = _first(inner, names, (-np.inf, np.inf))
    memory[layout.DT], memory[layout.TIMESTEP], memory[layout.SPEED] = inner.dt, model.opt.timestep, family.speed
    memory[layout.START :] = np.concatenate((inner.init_qpos, inner.init_qvel))
    for at, name in _SIZES.items():
        words[at] = getattr(model, name)
    for at, name in family.bodies.items():
        words[at] = inner.data.body(getattr(inner, name, name)).id
    structure = getattr(inner, "observation_structure", {})
    words[layout.HIDDEN] = structure.get("skipped_qpos", 0)
    words[layout.PARTS] = sum(bit for bit, name in _PARTS.items() if getattr(inner, name, False))
    words[layout.CHECKS] = hasattr(inner, "_healthy_angle_range") + hasattr(inner, "_healthy_state_range")
    words[layout.ENDS] = bool(getattr(inner, "_terminate_when_unhealthy", False))
    words[layout.NORMAL] = family.normal
    words[layout.FRAME_SKIP] = inner.frame_skip
    words[layout.NARROW] = np.result_type(_first(inner, _WEIGHTS[layout.COST], 0.0), np.float32) == np.float32
    for at, address in _functions().items():
        words[at] = address
    return memory


def _first(inner: Any, names: tuple[str, ...], default: Any) -> Any:
    return next((getattr(inner, name) for name in names if hasattr(inner, name)), default)


def _functions() -> dict[int, int]:
    """Return the addresses of the library's functions."""
    import mujoco

    home = Path(mujoco.__file__).parent
    for path in (path for pattern in _LIBRARIES for path in sorted(home.glob(pattern))):
        try:
            library = ctypes.CDLL(str(path))
            addresses = {at: ctypes.cast(library[name], ctypes.c_void_p).value for at, name in _FUNCTIONS.items()}
        except (OSError, AttributeError):
            continue
        if library.mj_version() == mujoco.mj_version() and all(addresses.values()):
            return {at: int(address) for at, address in addresses.items() if address}
    raise _Unplayable(f"the C library of MuJoCo {mujoco.__version__} was not found beside its Python package")


def _new_state(template: Array, model: Any) -> Array:
    """Return a state: a new simulation of the model, and where its fields are."""
    import mujoco

    data = mujoco.MjData(model)
    memory = template.copy()
    words = memory.view(np.int64)
    try:
        words[layout.MODEL], words[layout.DATA] = model._address, data._address
    except AttributeError as error:
        raise _Unplayable(f"MuJoCo {mujoco.__version__} does not tell addresses: {error}") from error
    for at, name in _FIELDS.items():
        words[at] = getattr(data, name).ctypes.data
    words[layout.BODY_MASS] = model.body_mass.ctypes.data
    return np.asarray(_Memory(memory, model, data))


def _compare(world: World, inner: Any) -> None:
    """Play a few steps of the world and of gymnasium's environment from the same start."""
    import mujoco

    state, ours = world.new_state(), np.zeros(world.inputs)
    data = cast(_Memory, state.base).owners[1]
    world.reset(state, np.uint64(1), ours)
    mujoco.mj_resetData(inner.model, inner.data)
    inner.set_state(data.qpos.copy(), data.qvel.copy())
    pairs = [(ours.copy(), inner._get_obs())]
    low, high = (np.clip(bound, -1.0, 1.0) for bound in (inner.action_space.low, inner.action_space.high))
    for step in range(_STEPS):
        part = np.modf(0.3 + 0.618 * np.arange(1 + step, 1 + step + world.actions))[0]
        action = np.float32(low + (high - low) * part)
        reward, terminated = world.step(state, action.astype(np.float64), ours)
        expected, *ends = inner.step(action)[:3]
        pairs.append((np.array([*ours, reward, terminated]), np.array([*expected, *ends], np.float64)))
    worst = max(float(np.max(np.abs(a - b) / (1.0 + np.abs(b)))) for a, b in pairs)
    if not worst <= _CLOSE:
        raise _Unplayable(
            f"gymnasium's {world.name} and MuJoCo {mujoco.__version__} differ from the compiled form by {worst:.1e}"
        )
