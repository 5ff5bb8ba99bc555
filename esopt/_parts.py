"""Parts that are given by hand: an instance of the protocol, and not its class."""

from __future__ import annotations

import numpy as np


def check_instance(name: str, part: object, protocol: type, example: str) -> None:
    """Raise TypeError unless ``part`` is an instance with the members of ``protocol``; ``example`` is one to pass."""
    if isinstance(part, type):
        raise TypeError(f"{name} must be an instance, got the class {part.__name__}. Write {part.__name__}().")
    if not isinstance(part, protocol):
        raise TypeError(
            f"{name} must follow esopt.protocols.{protocol.__name__}, got {part!r}. Pass for example {example}."
        )


def check_flags(**flags: object) -> None:
    """Raise TypeError unless each flag is True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise TypeError(f"{name} must be True or False, got {flag!r}. Pass for example {name}=True.")


def check_injectable(strategy: object) -> None:
    """Raise TypeError unless ``strategy`` takes candidates from elsewhere."""
    if not hasattr(strategy, "inject"):
        raise TypeError(
            f"{type(strategy).__name__} takes no candidates from elsewhere. Use CMAES() or SepCMA(), also inside "
            "Restarts() and bounds, or Portfolio(); without integer= and constraints=."
        )
