"""What the tests of whole runs share: trees frozen to bits, objectives, and a loop of one's own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from esopt import Optimizer, Result
from esopt._tree import flatten

Array = np.ndarray[Any, Any]
Bits = tuple[str, dict[str, tuple[str, tuple[int, ...], bytes]]]


def bits(tree: object) -> Bits:
    """Freeze a tree of records, arrays and numbers for comparison to the bit."""
    skeleton, arrays = flatten(tree)
    return json.dumps(skeleton), {path: (a.dtype.str, a.shape, a.tobytes()) for path, a in arrays.items()}


def outcome(result: Result) -> Bits:
    """Freeze everything of a result that must not depend on time, place or interruptions."""
    counts = (result.evaluations, result.gradients, result.generations, result.steps)
    numbers = (result.value, result.value_stderr, result.best.value, *counts, *result.reason, *result.failures)
    return bits((np.array(result.x), np.array(result.mean), np.array(result.best.x), numbers))


def sphere(x: Array) -> float:
    return float((x * x).sum())


def bumpy(x: Array) -> float:
    """A quadratic plus cosines, written without reductions whose order a library may choose."""
    total = 0.0
    for i, v in enumerate(x.reshape(-1).tolist()):
        total += (1.0 + i) * (v - 0.5) * (v - 0.5) - 0.3 * math.cos(3.0 * v)
    return total


def bumpy_grad(x: Array) -> Array:
    return 2.0 * np.arange(1.0, x.size + 1.0) * (x - 0.5) + 0.9 * np.sin(3.0 * x)


def rosenbrock(x: Array) -> float:
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def rosenbrock_grad(x: Array) -> Array:
    out = np.zeros(x.size)
    inner = x[1:] - x[:-1] ** 2
    out[:-1] = -400.0 * x[:-1] * inner - 2.0 * (1.0 - x[:-1])
    out[1:] += 200.0 * inner
    return out


def run(es: Optimizer, f: Callable[[Array], float], generations: int | None = None) -> Optimizer:
    """Ask and tell until the optimizer stops, or for so many generations."""
    while not es.stop() and (generations is None or generations > 0):
        es.tell([f(x) for x in es.ask()])
        generations = None if generations is None else generations - 1
    return es
