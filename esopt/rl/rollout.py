"""Episodes of a gymnasium environment as an objective: parameters and a seed in, minus the mean return and the steps out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..objective import Outcome
from .policy import Policy

Array = NDArray[np.float64]
