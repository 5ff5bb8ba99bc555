"""What samplers declare unless they say otherwise: independent Gaussian rows, which ``fill`` makes whole."""

from __future__ import annotations

from ..noise import Law


class Filled:
    """Defaults of the members of :class:`esopt.protocols.Sampler`; a sampler states what differs."""

    @property
    def block(self) -> int:
        return 1

    @property
    def mirrored(self) -> bool:
        return False

    @property
    def separable(self) -> bool:
        return False

    @property
    def fused(self) -> bool:
        return False

    @property
    def law(self) -> Law:
        return Law.GAUSSIAN
