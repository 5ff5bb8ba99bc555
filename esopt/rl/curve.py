"""The learning curve of a run as a picture; needs matplotlib, which is imported when it is drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def draw_curve(
    history: Mapping[str, Array],
    path: str | os.PathLike[str],
    *,
    checks: Mapping[str, Array] | None = None,
    title: str = "",
    target: float = np.nan,
    growing: bool = False,
) -> Path:
    """Draw mean, best and centre return against environment steps, and return the path of the picture.

    Parameters
    ----------
    history : arrays named like the fields of :class:`esopt.rl.Progress`, one entry per generation.
    checks : arrays named like the fields of :class:`esopt.rl.Check`; None for the centre returns in ``history``.
    path : where to write; the suffix decides on the format.
    title : line above the picture.
    target : return to mark with a line; nan for none.
    growing : whether the candidates' episodes were cut at first (``lengthening``), which the legend then says.

    Raises
    ------
    ModuleNotFoundError  without matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = history["steps"] + history["check_steps"]
    short = ", shorter episodes at first" if growing else ""
    axes.plot(steps, history["best_return"], color="#b9cfe4", linewidth=1.0, label=f"best candidate{short}")
    axes.plot(steps, history["mean_return"], color="#5b8db8", linewidth=1.2, label=f"mean of the candidates{short}")
    if checks is None:
        checked = np.isfinite(history["centre_return"])
        looked, centre = steps[checked], history["centre_return"][checked]
    else:
        looked, centre = checks["steps"] + checks["check_steps"], checks["mean_return"]
    axes.plot(looked, centre, "o-", color="#c4441c", linewidth=1.6, markersize=3.5, label="centre, held out")
    if np.isfinite(target):
        axes.axhline(target, color="0.45", linewidth=0.8, linestyle="--", label=f"target {target:g}")
    axes.set(xlabel="environment steps, checks included", ylabel="return of an episode", title=title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize="small")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path)
    return Path(path)
