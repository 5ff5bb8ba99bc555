"""MuJoCo's worlds against gymnasium's own environments, step by step."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

mujoco = pytest.importorskip("mujoco")
gymnasium = pytest.importorskip("gymnasium")

from esopt.rl import mujoco as module  # noqa: E402
from esopt.rl.engine import CompiledEngine  # noqa: E402
from esopt.rl.mujoco import mujoco_world  # noqa: E402
from esopt.rl.policy import Policy  # noqa: E402
from esopt.testing import check_world  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-12

IDS = (
    "HalfCheetah-v5",
    "Hopper-v5",
    "Walker2d-v5",
    "Swimmer-v5",
    "Ant-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
    "Reacher-v5",
    "Pusher-v5",
)
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    (
        "HalfCheetah-v5",
        {
            "frame_skip": 2,
            "forward_reward_weight": 3.0,
            "ctrl_cost_weight": np.float64(0.3),
            "reset_noise_scale": 0.02,
            "exclude_current_positions_from_observation": False,
        },
    ),
    (
        "Hopper-v5",
        {
            "healthy_reward": 0.3,
            "healthy_state_range": (-2.0, 1.5),
            "healthy_z_range": (1.0, 1.3),
            "healthy_angle_range": (-0.1, 0.05),
            "terminate_when_unhealthy": False,
        },
    ),
    ("Hopper-v5", {"healthy_state_range": (-1.0, 1.0), "healthy_z_range": (0.0, 9.0)}),
    ("Walker2d-v5", {"healthy_z_range": (1.2, 1.3), "healthy_angle_range": (-0.5, 0.1), "ctrl_cost_weight": 0.2}),
    ("Swimmer-v5", {"frame_skip": 1, "exclude_current_positions_from_observation": False, "ctrl_cost_weight": 1}),
    (
        "Ant-v5",
        {
            "main_body": "front_left_leg",
            "contact_cost_weight": 0.1,
            "contact_force_range": (-0.5, 0.2),
            "healthy_z_range": (0.3, 0.7),
            "healthy_reward": 2.0,
        },
    ),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False, "main_body": 3, "terminate_when_unhealthy": False}),
    (
        "Humanoid-v5",
        {
            "include_cvel_in_observation": False,
            "include_qfrc_actuator_in_observation": False,
            "contact_cost_weight": 1e-3,
            "contact_cost_range": (0.5, 1.0),
            "healthy_z_range": (1.2, 1.5),
        },
    ),
    ("Humanoid-v5", {"include_cinert_in_observation": False, "include_cfrc_ext_in_observation": False}),
    ("HumanoidStandup-v5", {"impact_cost_weight": 1e-3, "ctrl_cost_weight": 0.7, "impact_cost_range": (0.1, 2.0)}),
    ("InvertedPendulum-v5", {"reset_noise_scale": 0.1, "frame_skip": 1}),
    ("InvertedDoublePendulum-v5", {"healthy_reward": 3.5, "frame_skip": 2}),
    ("Reacher-v5", {"reward_dist_weight": 2.0, "reward_control_weight": 0.3}),
    ("Pusher-v5", {"reward_near_weight": 0.7, "reward_dist_weight": 0.2, "reward_control_weight": 0.5}),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings to MUJOCO_LOG.TXT in the working directory."""
    monkeypatch.chdir(tmp_path)


def found(name: str, **options: Any) -> Any:
    world, reason = mujoco_world(name, **options)
    assert reason == ""
    assert world is not None
    return world


def simulation(state: np.ndarray) -> Any:
    return state.base.owners[1]


class Pair:
    """A world and gymnasium's environment, in the same state."""

    def __init__(self, name: str, **options: Any) -> None:
        self.world = found(name, **options)
        self.env = gymnasium.make(name, **options).unwrapped
        self.env.reset(seed=0)
        self.state = self.world.new_state()
        self.ours = np.zeros(self.world.inputs)

    def restart(self, seed: int) -> np.ndarray:
        self.world.reset(self.state, np.uint64(seed), self.ours)
        data = simulation(self.state)
        mujoco.mj_resetData(self.env.model, self.env.data)
        self.env.set_state(data.qpos.copy(), data.qvel.copy())
        theirs = self.env._get_obs()
        np.testing.assert_allclose(self.ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
        return theirs

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Both take the action; what gymnasium says, after it was found to be the same."""
        action = np.asarray(action, np.float32)
        reward, terminated = self.world.step(self.state, action.astype(np.float64), self.ours)
        observation, expected, ended, _, _ = self.env.step(action)
        np.testing.assert_allclose(self.ours, observation, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(reward, float(expected), rtol=TOLERANCE, atol=TOLERANCE)
        assert terminated is bool(ended)
        return observation, float(expected), bool(ended)

    def play(self, steps: int, seed: int) -> dict[str, float]:
        """Random actions, half as far again as the space, for so many steps: as many episodes as it takes."""
        rng = np.random.default_rng(seed)
        low, high = self.env.action_space.low, self.env.action_space.high
        rewards, ends = [], 0
        self.restart(seed)
        for _ in range(steps):
            _, reward, ended = self.step(1.5 * rng.uniform(low, high))
            rewards.append(reward)
            ends += ended
            if ended:
                self.restart(seed + ends)
        return {"ends": ends, "spread": float(np.ptp(rewards))}


@pytest.mark.parametrize("name", IDS)
def test_world_equals_gymnasium(name: str):
    pair = Pair(name)
    played = pair.play(200, seed=5)
    falls = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5")
    assert (played["ends"] > 0) == (name in falls)
    assert played["spread"] > 0.0


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "")
def test_keyword_arguments_count(name: str, options: dict[str, Any]):
    pair = Pair(name, **options)
    played = pair.play(120, seed=11)
    assert played["spread"] > 0.0
    if options.get("terminate_when_unhealthy") is False:
        assert played["ends"] == 0
    # ... and with the defaults the first steps come out differently.
    default = Pair(name)
    default.restart(11)
    pair.restart(11)
    same = default.ours.shape == pair.ours.shape and np.array_equal(default.ours, pair.ours)
    for step in range(60):
        action = np.sin(np.arange(pair.world.actions) + step)
        one, other = pair.step(action), default.step(action)
        same = same and one[1:] == other[1:]
    assert not same


def test_control_costs_are_rounded_as_numpy_does():
    """Squares of float32 actions are added in float32: 1e-8 beside the real number, which 1e-12 would see."""
    pair = Pair("Ant-v5", healthy_reward=0.0, forward_reward_weight=0.0, contact_cost_weight=0.0)
    pair.restart(3)
    action = np.sqrt(np.linspace(0.1, 0.9, 8, dtype=np.float32))
    cost = -pair.step(action)[1]
    assert cost == np.float32(0.5) * np.sum(np.square(action))
    assert cost != 0.5 * np.sum(np.square(action.astype(np.float64)))


@pytest.mark.parametrize(
    ("name", "gains"),
    [
        ("InvertedPendulum-v5", [0.3, 10.0, 0.5, 1.5]),
        ("InvertedDoublePendulum-v5", [-0.21, -1.81, -5.57, 0.0, 0.0, -0.31, -0.9, -0.85, 0.0]),
    ],
)
def test_balanced_pendulums_agree_for_a_whole_episode(name: str, gains: list[float]):
    pair = Pair(name)
    observation = pair.restart(2)
    for _ in range(pair.world.max_steps):
        action = np.clip(np.array([np.dot(gains, observation)]), pair.env.action_space.low, pair.env.action_space.high)
        observation, _, ended = pair.step(action)
        assert not ended


def test_swimmer_agrees_for_a_whole_episode():
    pair = Pair("Swimmer-v5")
    pair.play(pair.world.max_steps, seed=1)


@pytest.mark.parametrize("name", IDS)
def test_unstable_simulations_go_on_as_in_gymnasium(name: str):
    """MuJoCo sets the simulation back to the model's start; what that means for the episode is the environment's."""
    pair = Pair(name)
    pair.restart(4)
    quiet = np.zeros(pair.world.actions)
    pair.step(quiet)
    for data in (simulation(pair.state), pair.env.data):
        data.qvel[0] = np.nan
    pair.step(quiet)
    assert simulation(pair.state).warning[mujoco.mjtWarning.mjWARN_BADQVEL].number == 1
    assert np.isfinite(pair.ours).all()
    if name not in ("InvertedPendulum-v5", "Humanoid-v5", "HumanoidStandup-v5"):  # their rewards do not see the action
        reward, _ = pair.world.step(pair.state, np.full(pair.world.actions, np.nan), pair.ours)
        assert np.isnan(reward) == (name != "InvertedDoublePendulum-v5")


def rows_of(policy: Policy, count: int) -> np.ndarray:
    return 0.3 * np.random.default_rng(4).standard_normal((count, policy.dim))


@pytest.mark.parametrize(
    "name", ["HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5", "InvertedDoublePendulum-v5", "Reacher-v5"]
)
def test_engine_plays_what_gymnasium_plays(name: str):
    """The policy acts on what it sees, on both sides; nothing is handed over but the start state."""
    pair = Pair(name)
    policy = Policy.linear(pair.world)
    theta = rows_of(policy, 1)
    policy = policy.with_parameters(theta[0])
    played = CompiledEngine(pair.world, policy, threads=1, max_steps=60).play(theta, np.array([[3, 4]]))
    sums, squares = np.zeros((2, pair.world.inputs))
    for k, seed in enumerate((3, 4)):
        total, length, ended = 0.0, 0, False
        observation = pair.restart(seed)
        while length < min(60, pair.world.max_steps) and not ended:
            sums += observation
            squares += observation**2
            observation, reward, ended = pair.step(policy(observation))
            total, length = total + reward, length + 1
        assert played.lengths[0, k] == length
        np.testing.assert_allclose(played.returns[0, k], total, rtol=TOLERANCE)
    np.testing.assert_allclose(played.sums[0], sums, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(played.squares[0], squares, rtol=1e-9)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Hopper-v5", "Ant-v5"])
def test_engine_s_threads_do_not_change_a_bit(name: str):
    world = found(name)
    policy = Policy.linear(world)
    seeds = np.arange(24).reshape(12, 2)
    engines = [CompiledEngine(world, policy, threads=threads, max_steps=100) for threads in (1, 2, 3)]
    alone, *others = [engine.play(rows_of(policy, 12), seeds) for engine in engines]
    for other in others:
        for one, two in zip(alone, other, strict=True):
            np.testing.assert_array_equal(one, two)
    assert len(np.unique(alone.returns)) == seeds.size
    for engine in engines:
        engine.close()


def coordinates(model: Any, data: Any) -> np.ndarray:
    return np.concatenate((data.qpos, data.qvel))


@pytest.mark.parametrize("name", IDS)
def test_leaving_the_islands_out_changes_no_bit(name: str):
    """Chaotic ones too: had one operation been rounded otherwise, the ends would be far apart."""
    inner = gymnasium.make(name).unwrapped
    bit, alone = int(mujoco.mjtDisableBit.mjDSBL_ISLAND), module._one_island(inner.model)
    assert not inner.model.opt.disableflags & bit
    several = name in ("Reacher-v5", "Pusher-v5")
    assert alone is inner.model if several else alone.opt.disableflags & bit
    assert bool(found(name).new_state().base.owners[0].opt.disableflags & bit) is not several

    inner.reset(seed=1)
    actions = np.random.default_rng(2).uniform(inner.action_space.low, inner.action_space.high, (300, inner.model.nu))
    ends, most = [], 0
    for model in (inner.model, alone):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = inner.data.qpos, inner.data.qvel
        for action in actions:
            data.ctrl[:] = action
            mujoco.mj_step(model, data, inner.frame_skip)
            most = max(most, data.nefc)
        ends.append((data.qpos.tobytes(), data.qvel.tobytes(), data.qfrc_constraint.tobytes()))
    assert ends[0] == ends[1]
    assert most > 0
    inner.model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    assert module._one_island(inner.model) is inner.model


@pytest.mark.parametrize("name", IDS)
def test_start_states_have_gymnasium_s_law(name: str):
    """Every coordinate of the start state, in 500 resets of both (Kolmogorov and Smirnov's test of two samples)."""
    pair = Pair(name)
    ours, theirs = [], []
    for seed in range(500):
        pair.world.reset(pair.state, np.uint64(seed), pair.ours)
        ours.append(coordinates(pair.world, simulation(pair.state)))
        pair.env.reset(seed=seed)
        theirs.append(coordinates(pair.world, pair.env.data))
    for one, other in zip(np.transpose(ours), np.transpose(theirs), strict=True):
        if np.ptp(other) == 0.0:
            np.testing.assert_array_equal(one, other)
        else:
            assert stats.ks_2samp(one, other).pvalue > 1e-4
    correlations = np.corrcoef(np.transpose(ours)[np.ptp(ours, axis=0) > 0.0])
    strongest = np.abs(correlations - np.eye(len(correlations))).max()
    assert strongest < 5.0 / np.sqrt(500)


def test_start_states_have_the_documented_law():
    """HalfCheetah: positions uniform in +-0.1, velocities normal with standard deviation 0.1 (gymnasium's page)."""
    world = found("HalfCheetah-v5")
    state, observation = world.new_state(), np.zeros(world.inputs)
    n = 1500
    positions, velocities = np.empty((n, 9)), np.empty((n, 9))
    for seed in range(n):
        world.reset(state, np.uint64(seed), observation)
        positions[seed], velocities[seed] = simulation(state).qpos, simulation(state).qvel
        np.testing.assert_array_equal(observation, np.concatenate((positions[seed, 1:], velocities[seed])))
    assert stats.kstest(positions.ravel() / 0.1, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert stats.kstest(velocities.ravel() / 0.1, stats.norm.cdf).pvalue > 1e-3
    assert np.abs(positions).max() < 0.1 < np.abs(velocities).max()


def put(env: Any, state: np.ndarray) -> None:
    env.set_state(simulation(state).qpos.copy(), simulation(state).qvel.copy())


@pytest.mark.parametrize("name", IDS)
def test_worlds_conform(name: str):
    check_world(found(name), name, put, episodes=2, steps=40, rtol=TOLERANCE)


def test_state_keeps_its_simulation_alive():
    world = found("Hopper-v5")
    state = world.new_state()
    memory, view = weakref.ref(state.base), state[2:]
    del state, world
    gc.collect()
    assert memory() is not None
    del view
    gc.collect()
    assert memory() is None


def test_world_knows_what_gymnasium_knows():
    world = found("Reacher-v5")
    env = gymnasium.make("Reacher-v5")
    assert (world.name, world.max_steps) == ("Reacher-v5", 50)
    assert world.spaces() == (env.observation_space, env.action_space)
    assert (world.inputs, world.actions) == (10, 2)
    assert found("Reacher-v5", max_episode_steps=7).max_steps == 7


def test_fresh_process_compiles_nothing():
    """The library is reached through addresses, so that cached code does not care where it was loaded."""
    found("HalfCheetah-v5")
    script = """
import time
import gymnasium, mujoco, numpy
from esopt.rl.mujoco import mujoco_world
began = time.process_time()
world, reason = mujoco_world("HalfCheetah-v5")
state, observation = world.new_state(), numpy.zeros(world.inputs)
world.reset(state, numpy.uint64(1), observation)
world.step(state, numpy.zeros(world.actions), observation)
print(time.process_time() - began, *(sum(f.stats.cache_misses.values()) for f in (world.reset, world.step)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, *misses = done.stdout.splitlines()[-1].split()
    assert misses == ["0", "0"]
    assert float(seconds) < 1.0


class TestFallback:
    def test_other_environments(self):
        world, reason = mujoco_world("CartPole-v1")
        assert world is None
        assert "CartPole-v1 is none of gymnasium's v5 MuJoCo environments" in reason

    def test_unknown_id_is_gymnasium_s_error(self):
        with pytest.raises(gymnasium.error.Error, match="HalfCheeta"):
            mujoco_world("HalfCheeta-v5")

    def test_unknown_keyword_is_gymnasium_s_error(self):
        with pytest.raises(TypeError, match="healthy"):
            mujoco_world("HalfCheetah-v5", healthy_reward=2.0)

    def test_numba_switched_off(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module.layout, "enabled", lambda: False)
        assert mujoco_world("Hopper-v5") == (None, "numba is switched off (NUMBA_DISABLE_JIT)")

    def test_mujoco_not_installed(self, monkeypatch: pytest.MonkeyPatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "mujoco" or ".mujoco" in name]:
            if not name.startswith("esopt."):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(gymnasium.envs, "mujoco")
        monkeypatch.setitem(sys.modules, "mujoco", None)
        assert mujoco_world("Hopper-v5") == (None, 'mujoco is not installed: pip install "pyesopt[mujoco]"')

    def test_library_not_found(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setattr(mujoco, "__file__", str(tmp_path / "__init__.py"))
        world, reason = mujoco_world("Hopper-v5")
        assert world is None
        assert "C library of MuJoCo" in reason

    def test_library_without_a_function(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(module._FUNCTIONS, module.layout.MJ_STEP, "mj_stride")
        assert "C library of MuJoCo" in mujoco_world("Hopper-v5").reason

    @pytest.mark.parametrize("changed", ["_get_rew", "_get_obs"])
    def test_another_law_of_gymnasium_s(self, monkeypatch: pytest.MonkeyPatch, changed: str):
        from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

        before = getattr(HopperEnv, changed)

        def after(self: Any, *args: Any) -> Any:
            result = before(self, *args)
            return 1.001 * result if changed == "_get_obs" else (result[0] + 1e-6, result[1])

        monkeypatch.setattr(HopperEnv, changed, after)
        world, reason = mujoco_world("Hopper-v5")
        assert world is None
        assert "gymnasium's Hopper-v5 and MuJoCo" in reason
        assert "differ from the compiled form" in reason

    @pytest.mark.parametrize(
        ("name", "options", "expected"),
        [
            ("InvertedPendulum-v5", {"xml_file": "hopper.xml"}, "does not fit its spaces"),
            ("InvertedDoublePendulum-v5", {"xml_file": "inverted_pendulum.xml"}, "2 positions and 2 velocities"),
            ("Hopper-v5", {"max_episode_steps": -1}, "no time limit"),
            ("Swimmer-v5", {"xml_file": "small.xml"}, "little memory"),
        ],
    )
    def test_unusual_options(self, name: str, options: dict[str, Any], expected: str, tmp_path: Path):
        if options.get("xml_file") == "small.xml":
            from gymnasium.envs.mujoco import swimmer_v5

            text = (Path(swimmer_v5.__file__).parent / "assets" / "swimmer.xml").read_text()
            (tmp_path / "small.xml").write_text(text.replace("<worldbody>", '<size memory="200K"/><worldbody>'))
            options = {"xml_file": str(tmp_path / "small.xml")}
        world, reason = mujoco_world(name, **options)
        assert world is None
        assert expected in reason

    def test_wrappers(self):
        spec = gymnasium.spec("Hopper-v5")
        wrapper = gymnasium.envs.registration.WrapperSpec("ClipAction", "gymnasium.wrappers:ClipAction", {})
        gymnasium.register("Clipped-v0", spec.entry_point, max_episode_steps=10, additional_wrappers=(wrapper,))
        try:
            assert "the wrapper ClipAction is a Python object" in mujoco_world("Clipped-v0").reason
        finally:
            del gymnasium.registry["Clipped-v0"]

    def test_own_ids_of_the_same_class_are_compiled(self):
        gymnasium.register(
            "Stroll-v0",
            entry_point="gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv",
            max_episode_steps=10,
            kwargs={"forward_reward_weight": 0.1},
        )
        try:
            pair = Pair("Stroll-v0")
            pair.play(20, seed=0)
            assert pair.world.max_steps == 10
        finally:
            del gymnasium.registry["Stroll-v0"]
