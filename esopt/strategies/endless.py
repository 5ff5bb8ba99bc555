"""A search that only its budget ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..protocols import State
from ._around import Around


@dataclass(frozen=True, eq=False)
class Endless(Around):
    """Go on with ``inner`` whatever its stop rules say: for noise, plateaus, and functions that change.

    Values that stay equal, or that do not improve, say little where a simulation is random, or where it rewards only
    what nobody has found yet. The run ends when the mean is not finite, or cannot be told from its neighbours any more.

    Parameters
    ----------
    inner : any strategy.

    Notes
    -----
    The state is that of ``inner``.

    Examples
    --------
    >>> import esopt
    >>> def plateau(x): return 0.0
    >>> short, long = (esopt.minimize(plateau, [0.0], strategy=s, evaluations=400, seed=1)
    ...                for s in (esopt.CMAES(), esopt.Endless(esopt.CMAES())))
    >>> dict(short.reason).keys(), dict(long.reason).keys()
    (dict_keys(['flat']), dict_keys(['evaluations']))
    """

    def stop(self, state: State) -> dict[str, float]:
        """Return the reasons of ``inner`` if its mean is not finite or its step too small or too large, else none."""
        reasons = super().stop(state)
        if not reasons:
            return {}
        if not np.isfinite(state.mean).all():
            return reasons
        deviations = self.inner.ask(state).deviations
        lost = bool(np.all(state.mean + 0.2 * deviations == state.mean)) or not math.isfinite(float(deviations.sum()))
        return reasons if lost else {}
