"""Shorter steps where the gradient is more noise than signal."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocols import State
from ..records import Gradient, Population
from ..schedules import check_positive
from ._parts import NOTHING, SignalState, add

_GENERATIONS = 1000.0
"""Longest reach of the averages."""


@dataclass(frozen=True)
class SNRRateState:
    """Averages of signal and noise, and the factor that they gave last."""

    known: SignalState
    factor: float


@dataclass(frozen=True)
class SNRRate:
    """The factor S / (S + W): squared length S of the true gradient, and total variance W of its estimate.

    For N antithetic pairs and f of slope a it is N / (N + d + 1), the best step on 1/2 |x|^2, and in general N / (N +
    d_eff + 1), d_eff the number of dimensions that the noise has. With ``rule=SGD(1 / L)``, L the curvature, the
    learning rate has nothing left to tune. Near the optimum, or under noise, steps fade as the signal does.

    S and W come from the blocks of each generation as shares of the whole, averaged over generations. Only earlier
    generations count, so that a lucky gradient does not choose a long step. The averages reach back ``generations``, or
    4 over the factor where that is more (at most 1000): short steps leave the gradient as it is, and the less of it
    there is the longer it takes to see. The factor is in [0, 1]; an average without signal gives 0.

    Parameters
    ----------
    generations : shortest reach of the averages, at least 1.

    References
    ----------
    Nomura, Akimoto, Ono (2023), CMA-ES with learning rate adaptation: the signal-to-noise ratio as the guide.
    """

    generations: float = 20.0

    def __post_init__(self) -> None:
        check_positive("generations", self.generations)
        if self.generations < 1.0:
            raise ValueError(f"generations must be at least 1, got {self.generations}. The default is 20.")

    def init(self, dim: int) -> SNRRateState:
        return SNRRateState(NOTHING, 1.0)

    def factor(self, gradient: Gradient, population: Population, state: State) -> tuple[float, SNRRateState]:
        """Return the factor that earlier generations know, in the first one its own; 1 without any standard error."""
        reach = max(self.generations, min(_GENERATIONS, 4.0 / max(state.factor, 1e-300)))
        after = add(gradient, 1.0, 1.0 - 1.0 / reach, state.known)
        known = state.known if state.known.weight else after
        if not known.weight:
            return 1.0, SNRRateState(after, 1.0)
        signal = max(0.0, known.signal)
        factor = signal / (signal + known.noise) if signal else 0.0
        return factor, SNRRateState(after, factor)
