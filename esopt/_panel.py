"""The picture of a run that users of CMA-ES read; matplotlib is imported when it is drawn."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .noise import Array

if TYPE_CHECKING:
    from .history import Trace


def draw_panel(trace: Trace, path: str | os.PathLike[str], title: str) -> Path:
    """Draw the panels against evaluations, and return the path of the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 6.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3, sharex=True).ravel()
    x = trace.evaluations
    _draw_values(panels[0], trace)
    panels[1].plot(x, trace.sigma, color="#2f7d4f", label="sigma")
    panels[1].plot(x, trace.axis_ratio, color="#c4441c", label="axis ratio")
    _finish(panels[1], "sigma and axis ratio", legend=True)
    _draw_many(panels[2], x, trace.mean, "mean", log=False)
    _draw_many(panels[3], x, trace.axes, "square roots of eigenvalues")
    _draw_many(panels[4], x, trace.deviations, "standard deviations of coordinates")
    _draw_scalars(panels[5], trace)
    for panel in panels[3:]:
        panel.set_xlabel("evaluations")
    if title:
        figure.suptitle(title)
    figure.savefig(path)
    return Path(path)


def _draw_values(panel: Any, trace: Trace) -> None:
    """Draw f on a logarithmic axis if it is positive, else how far it is above the lowest value."""
    columns = {"best so far": trace.lowest, "best": trace.best, "median": trace.median}
    known = np.concatenate(list(columns.values()))
    known = known[np.isfinite(known)]
    positive = bool(known.size) and float(known.min()) > 0.0
    below = 0.0 if positive or not known.size else float(known.min())
    for (name, column), color in zip(columns.items(), ("#1f4e79", "#5b8db8", "#b98a2f"), strict=True):
        panel.plot(trace.evaluations, _positive(column - below), color=color, label=name, linewidth=1.2)
    _finish(panel, "f" if positive or not known.size else f"f - ({below:.6g})", legend=True)


def _draw_many(panel: Any, x: Any, columns: Array, title: str, *, log: bool = True) -> None:
    from matplotlib import colormaps

    colors = colormaps["viridis"](np.linspace(0.0, 0.9, max(1, columns.shape[1])))
    for column, color in zip(columns.T, colors, strict=True):
        panel.plot(x, _positive(column) if log else column, color=color, linewidth=0.9)
    _finish(panel, title, log=log and bool(np.isfinite(columns).any()))


def _draw_scalars(panel: Any, trace: Trace) -> None:
    names = json.loads(trace.names)
    shown = [(name, column) for name, column in zip(names, trace.scalars.T, strict=True) if name != "sigma"]
    if not shown:
        panel.set_axis_off()
        return
    for name, column in shown:
        panel.plot(trace.evaluations, column, linewidth=1.1, label=name)
    _finish(panel, "reported by the strategy", log=False, legend=True)
    if any(np.nanmax(np.abs(column)) > 100.0 for _, column in shown if np.isfinite(column).any()):
        panel.set_yscale("symlog")


def _positive(column: Array) -> Array:
    """Return the column with nan where a logarithm has no value."""
    return np.where(column > 0.0, column, np.nan)


def _finish(panel: Any, title: str, *, log: bool = True, legend: bool = False) -> None:
    panel.set_title(title, fontsize="medium")
    if log and any(np.isfinite(line.get_ydata()).any() for line in panel.lines):
        panel.set_yscale("log")
    panel.grid(alpha=0.25)
    if legend:
        panel.legend(frameon=False, fontsize="small")
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
