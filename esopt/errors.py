"""What esopt raises besides ValueError and TypeError.

::

    EsoptError
    ├── EvaluationError   the objective failed, and the failure policy is to stop
    └── CheckpointError   a file that cannot be resumed from
"""


class EsoptError(Exception):
    """Base of every error that is esopt's own."""


class EvaluationError(EsoptError):
    """A candidate could not be evaluated, or no usable value was left in a generation."""


class CheckpointError(EsoptError):
    """A checkpoint is damaged, foreign, or of another configuration."""
