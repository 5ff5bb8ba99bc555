"""What states with a factor of the covariance have in common."""

from __future__ import annotations

from ..noise import Array


class Factored:
    """What states with x ~ N(mean, sigma^2 A A^T) and the ``factor`` A say of their covariance."""

    sigma: float
    factor: Array

    @property
    def cov(self) -> Array:
        """Covariance of the search, (d, d)."""
        return self.sigma**2 * (self.factor @ self.factor.T)

    @property
    def scale(self) -> Array:
        """Factor of the covariance that candidates are made with, (d, d)."""
        return self.sigma * self.factor
