"""Episodes that grow while a policy is trained: many short ones first, whole ones in the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lengthening:
    """Cut the episodes of candidates, at first after ``first`` steps, and later and later, up to ``last``.

    The cut doubles, and every length gets the same share of ``steps`` environment steps; after them it is ``last``. A
    gait shows within a few strides, so that a budget of steps pays for more candidates: from a quarter on 7/3 times as
    many.

    Parameters
    ----------
    first, last : the shortest cut, and the longest one.
    steps : environment steps, those of checks included, of all the lengths together, ``last`` included.
    again : begin with the shortest cut again after them, as a new search does, rather than stay at the longest one.

    References
    ----------
    Fuks, Awad, Hutter, Lindauer (2019), An evolution strategy with progressive episode lengths for playing games.

    Examples
    --------
    >>> from esopt.rl import Lengthening
    >>> lengths = Lengthening(250, 1000, 300_000)
    >>> [lengths.cut(used) for used in (0, 99_999, 100_000, 200_000, 400_000)]
    [250, 250, 500, 1000, 1000]
    """

    first: int
    last: int
    steps: int
    again: bool = False

    def __post_init__(self) -> None:
        for name in ("first", "last", "steps"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
                raise ValueError(f"Lengthening() got {name}={number!r}. Pass a positive whole number.")
        if self.first > self.last:
            raise ValueError(f"Lengthening() got first={self.first} and last={self.last}. Pass first <= last.")

    @classmethod
    def over(cls, share: float, last: int, steps: int, *, again: bool = False) -> Lengthening:
        """Return the lengthening from ``share`` of ``last`` on, over a budget of ``steps``.

        Raises
        ------
        ValueError  unless the share is in (0, 1].
        """
        if isinstance(share, str) or not 0.0 < share <= 1.0:
            raise ValueError(
                f"lengthening must be in (0, 1], got {share!r}. It is the share of the longest episode that the first "
                "candidates play: pass for example 0.25."
            )
        return cls(max(1, round(share * last)), last, steps, again)

    def cut(self, used: int) -> int:
        """Return the longest episode after ``used`` steps."""
        lengths = [self.first]
        while lengths[-1] < self.last:
            lengths.append(min(self.last, 2 * lengths[-1]))
        if self.again:
            used %= self.steps
        return lengths[min(used * len(lengths) // self.steps, len(lengths) - 1)]
