"""What esopt raises besides ValueError and TypeError.

::

    EsoptError
    ├── EvaluationError   the objective failed, and the failure policy is to stop
    ├── CheckpointError   a file that cannot be resumed from
    └── PolicyFileError   a file that holds no policy; a ValueError too
"""

from __future__ import annotations

from typing import Any


class EsoptError(Exception):
    """Base of every error that is esopt's own."""


class EvaluationError(EsoptError):
    """A candidate could not be evaluated, or no usable value was left in a generation.

    Attributes
    ----------
    x : the candidate as the objective saw it, where a single one is to blame, else None.
    seed : its evaluation seed, where the objective takes one, else None; that of the episode, where one failed.
    policy : the candidate as an :class:`esopt.rl.Policy`, normalised as it was, where an episode of it failed.
    result : the :class:`esopt.Result` so far, where :func:`esopt.minimize` raised it, else None.
    """

    x: Any = None
    seed: int | None = None
    policy: Any = None
    result: Any = None


class CheckpointError(EsoptError):
    """A checkpoint is damaged, foreign, or of another configuration.

    Attributes
    ----------
    damaged : whether its bytes are not those that were written, rather than those of something else.
    """

    damaged: bool = False


class PolicyFileError(EsoptError, ValueError):
    """A policy file is damaged, foreign, or of a newer version."""
