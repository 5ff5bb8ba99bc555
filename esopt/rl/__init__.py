"""Policies, rollouts and training on gymnasium environments: ``from esopt.rl import train``.

Names are imported from their modules when they are first used, so that a saved policy needs numpy alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "BoxActions": "actions",
    "DiscreteActions": "actions",
    "Episodes": "rollout",
    "MultiBinaryActions": "actions",
    "MultiDiscreteActions": "actions",
    "Policy": "policy",
    "Progress": "training",
    "Recipe": "policy",
    "TrainResult": "training",
    "draw_curve": "curve",
    "evaluate": "rollout",
    "normalise": "rollout",
    "train": "training",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from .actions import BoxActions as BoxActions
    from .actions import DiscreteActions as DiscreteActions
    from .actions import MultiBinaryActions as MultiBinaryActions
    from .actions import MultiDiscreteActions as MultiDiscreteActions
    from .curve import draw_curve as draw_curve
    from .policy import Policy as Policy
    from .policy import Recipe as Recipe
    from .rollout import Episodes as Episodes
    from .rollout import evaluate as evaluate
    from .rollout import normalise as normalise
    from .training import Progress as Progress
    from .training import TrainResult as TrainResult
    from .training import train as train
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
