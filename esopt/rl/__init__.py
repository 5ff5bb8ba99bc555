"""Policies, rollouts and training on gymnasium environments: ``from esopt.rl import train``.

Names are imported from their modules when they are first used, so that a saved policy needs numpy alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "BoxActions": "actions",
    "CLASSIC_CONTROL": "classic_control",
    "Check": "checks",
    "CompiledEngine": "engine",
    "DiscreteActions": "actions",
    "Engine": "engine",
    "EnvPoolEngine": "envpool",
    "EpisodeError": "gym_engine",
    "Estimate": "statistics",
    "GymEngine": "gym_engine",
    "Lengthening": "lengths",
    "Moments": "normalisation",
    "MultiBinaryActions": "actions",
    "MultiDiscreteActions": "actions",
    "Played": "engine",
    "Policy": "policy",
    "Preset": "presets",
    "Progress": "progress",
    "Recipe": "policy",
    "RolloutState": "checks",
    "Rollouts": "rollouts",
    "Rules": "gym_engine",
    "Run": "run_file",
    "Running": "normalisation",
    "Searches": "searches",
    "Table": "learning_table",
    "TensorBoard": "tensorboard",
    "TrainResult": "train_result",
    "Workers": "workers",
    "World": "engine",
    "bootstrap_interval": "statistics",
    "choose_engine": "paths",
    "draw_curve": "curve",
    "evaluate": "evaluation",
    "find_world": "paths",
    "interquartile_mean": "statistics",
    "make_env": "environments",
    "markdown": "learning_table",
    "mujoco_world": "mujoco",
    "normal": "engine",
    "preset": "presets",
    "read_progress": "progress",
    "render": "video",
    "summarise": "learning_table",
    "table": "learning_table",
    "train": "training",
    "uniform": "engine",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from .actions import BoxActions as BoxActions
    from .actions import DiscreteActions as DiscreteActions
    from .actions import MultiBinaryActions as MultiBinaryActions
    from .actions import MultiDiscreteActions as MultiDiscreteActions
    from .checks import Check as Check
    from .checks import RolloutState as RolloutState
    from .classic_control import CLASSIC_CONTROL as CLASSIC_CONTROL
    from .curve import draw_curve as draw_curve
    from .engine import CompiledEngine as CompiledEngine
    from .engine import Engine as Engine
    from .engine import Played as Played
    from .engine import World as World
    from .engine import normal as normal
    from .engine import uniform as uniform
    from .environments import make_env as make_env
    from .envpool import EnvPoolEngine as EnvPoolEngine
    from .evaluation import evaluate as evaluate
    from .gym_engine import EpisodeError as EpisodeError
    from .gym_engine import GymEngine as GymEngine
    from .gym_engine import Rules as Rules
    from .learning_table import Table as Table
    from .learning_table import markdown as markdown
    from .learning_table import summarise as summarise
    from .learning_table import table as table
    from .lengths import Lengthening as Lengthening
    from .mujoco import mujoco_world as mujoco_world
    from .normalisation import Moments as Moments
    from .normalisation import Running as Running
    from .paths import choose_engine as choose_engine
    from .paths import find_world as find_world
    from .policy import Policy as Policy
    from .policy import Recipe as Recipe
    from .presets import Preset as Preset
    from .presets import preset as preset
    from .progress import Progress as Progress
    from .progress import read_progress as read_progress
    from .rollouts import Rollouts as Rollouts
    from .run_file import Run as Run
    from .searches import Searches as Searches
    from .statistics import Estimate as Estimate
    from .statistics import bootstrap_interval as bootstrap_interval
    from .statistics import interquartile_mean as interquartile_mean
    from .tensorboard import TensorBoard as TensorBoard
    from .train_result import TrainResult as TrainResult
    from .training import train as train
    from .video import render as render
    from .workers import Workers as Workers
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
