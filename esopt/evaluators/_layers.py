"""Functions with threads of their own, in worker threads: refused where that would end the whole program."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from .._kernels import objective as kernels
from ..objective import PARTS, Objective


def refuse_work_queue(objective: Objective) -> None:
    """Refuse a numba function with ``parallel=True`` for worker threads on numba's own work queue.

    That layer aborts the process when two threads enter it. OpenMP and TBB can be entered.

    Raises
    ------
    ValueError  if such a function is one of the objective's, itself and not inside another.
    """
    for part in ("f", *(kind.part for kind in PARTS.values())):
        function = getattr(objective, part)
        if function is not None and kernels.threaded(function) and _layer(function) == "workqueue":
            raise ValueError(
                f"{part} is a numba function with parallel=True, on numba's threading layer 'workqueue': that ends the "
                "program when two threads enter it. Expected a layer that is safe. Use Joblib(f, workers=...) with "
                'backend="loky", Compiled(f), or install OpenMP or TBB for numba.'
            )


def _layer(function: Any) -> str:
    """Return the threading layer of the numba that compiled ``function``, or the one that it would take."""
    numba = sys.modules[type(function).__module__.partition(".")[0]]
    try:
        return str(numba.threading_layer())
    except ValueError:  # no parallel function has run yet
        chosen = str(numba.config.THREADING_LAYER)
    pools = ("numba.np.ufunc.omppool", "numba.np.ufunc.tbbpool")
    return chosen if chosen != "default" or any(map(importlib.util.find_spec, pools)) else "workqueue"
