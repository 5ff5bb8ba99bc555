"""What a training run returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..result import Result
from .policy import Policy

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A trained policy and how it came about; prints as a table.

    Parameters
    ----------
    policy : the best centre that a check saw, with the normalisation that it had there. In a resumed run that may be
        the policy which an earlier part ended with, where ``out=`` has it.
    returns : (final_episodes,)  its returns over the final evaluation; fewer, or none, if Ctrl-C cut that short.
    interval : 95 % t interval of their mean.
    history : one array per field of :class:`Progress`, one entry per generation. A resumed run has those of its earlier
        parts only where they were written, with ``out=``.
    checks : one array per field of :class:`Check`, one entry per check; those of earlier parts of a resumed run
        included, but for the one at their end.
    steps, check_steps, evaluation_steps : environment steps of candidates, of checks, of the final evaluation.
    target : the mean return that training was after; nan if there was none.
    reason : why training ended, each with its number: "target" (a check reached the given target), "settled" (checks
        beyond the environment's threshold got no better), or what :func:`esopt.minimize` says: "steps", "evaluations",
        "generations", "seconds", "callback", "interrupted".
    path : how episodes were played, and why that way.
    result : what :func:`esopt.minimize` returned.
    """

    policy: Policy
    returns: Array
    interval: tuple[float, float]
    history: Mapping[str, Array]
    checks: Mapping[str, Array]
    steps: int
    check_steps: int
    evaluation_steps: int
    target: float
    reason: Mapping[str, float]
    path: str
    result: Result

    @property
    def mean(self) -> float:
        """Mean return over the final evaluation; nan if no episode of it was played."""
        return float(self.returns.mean()) if self.returns.size else np.nan

    def __str__(self) -> str:
        run, about, (low, high) = self.result, self.policy.about, self.interval
        between = "" if np.isnan(low) else f", 95 % interval [{low:.6g}, {high:.6g}]"
        rows = {
            "mean": f"{self.mean:.6g}{between}, over {self.returns.size} held-out episodes",
            "environment": str(about.get("env")),
            "reason": replace(run, reason=self.reason).message,
            "steps": f"{self.steps}, {self.check_steps} of checks, {self.evaluation_steps} of the final evaluation",
            "evaluations": f"{run.evaluations}",
            "generations": f"{run.generations}",
            "seconds": f"{run.seconds:.3g}",
            "failures": ", ".join(f"{kind}: {count}" for kind, count in run.failures.items()),
            "strategy": str(about.get("strategy")),
            "path": self.path,
        }
        return "\n".join(f"{name:>12}: {text}" for name, text in rows.items() if text)
