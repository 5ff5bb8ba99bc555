"""The figures of docs/which_side_is_more_precise.md, from results/which_side.json and the closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _which_side as theory
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

VALUES, SLOPES, HYBRID, INK, FAINT = "#1f5fa8", "#d9641e", "#2a8c5a", "#333333", "#8a8a8a"
STYLE: dict[str, tuple[str, Any, str]] = {
    "values, no baseline": ("#8fb4dc", "-", "o"),
    "values, f(mean)": ("#8fb4dc", (0, (4, 2)), "s"),
    "values, leave one out": (VALUES, "-", "o"),
    "values, antithetic": (VALUES, (0, (4, 2)), "s"),
    "gradients": (SLOPES, "-", "o"),
    "gradients, antithetic": (SLOPES, (0, (4, 2)), "s"),
}
Rows = list[dict[str, Any]]


def draw(data: dict[str, Rows], folder: Path) -> list[Path]:
    """Write the three figures and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in (
        ("waves", waves(data["waves"])),
        ("step", step(data["sigmoids"])),
        ("fourier", fourier(data["response"], data["boxcar"])),
    ):
        paths.append(folder / f"which_side_{name}.png")
        figure.savefig(paths[-1], facecolor="white")
    return paths


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, which="both", color=FAINT)
    axes.tick_params(which="minor", length=0)


def _say(axes: Axes, x: float, y: float, text: str, color: str, **options: Any) -> None:
    axes.text(x, y, text, color=color, **{"fontsize": 9, "ha": "left", "va": "center", **options})


def waves(rows: Rows) -> Figure:
    """Variance per evaluation of sin(omega . x + phase) against |omega| sigma, for d = 1, 10, 100."""
    figure = Figure(figsize=(11.0, 4.9), dpi=130, layout="constrained")
    s = np.geomspace(0.045, 55.0, 400)
    for axes, d in zip(figure.subplots(1, 3, sharey=True), (1, 10, 100), strict=True):
        edge = np.sqrt(d)
        axes.axvline(edge, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
        axes.fill_between(s, 2.0 * theory.wave_signal(s), 1e-9, color="#eeeeee", linewidth=0.0, zorder=-1)
        for name, (color, dash, marker) in STYLE.items():
            axes.plot(s, 2.0 * theory.wave(name, s, d, 100), color=color, linestyle=dash, linewidth=1.5)
            dots = [r for r in rows if r["estimator"] == name and r["d"] == d]
            x, y, e = (np.array([r[key] for r in dots]) for key in ("s", "value", "error"))
            axes.errorbar(
                x, 2.0 * y, 4.0 * e, fmt=marker, color=color, markersize=3.6, linewidth=0.8, markeredgecolor="white"
            )
            axes.lines[-1].set_markeredgewidth(0.4)
        axes.set(xscale="log", yscale="log", xlim=(0.045, 55.0), ylim=(3e-9, 2e4), title="")
        axes.set_title(f"d = {d}", fontsize=11, color=INK, loc="left")
        axes.set_xlabel("|ω|σ  (radians per σ)", color=INK)
        axes.set_xticks([0.1, 1.0, 10.0], ["0.1", "1", "10"])
        label = "√d = 1" if d == 1 else f"√d = {edge:.3g}"
        _say(axes, edge * 1.12, 1e-8, label, INK, fontweight="bold")
        _tidy(axes)
    first = figure.axes[0]
    first.set_ylabel("σ² × variance × evaluations / E f²", color=INK)
    _say(first, 4.6, 4e-5, "grey: W₁, the signal\nσ²|∇J|² / E f²", FAINT)
    last = figure.axes[2]
    _say(last, 0.05, 9.0, "values", VALUES, fontweight="bold")
    _say(last, 0.42, 3e-4, "gradients", SLOPES, fontweight="bold")
    _say(last, 9.0, 2e-5, "gradients win", SLOPES, ha="right")
    _say(last, 11.2, 2e-5, "values win", VALUES)
    handles = [
        Line2D([], [], color=c, linestyle=dash, marker=m, markersize=4, linewidth=1.5, label=name)
        for name, (c, dash, m) in STYLE.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9, handlelength=2.6)
    figure.suptitle(
        "Derivatives win until f turns more than √d radians per σ.  Waves sin(ω·x + φ): curves exact, dots measured",
        fontsize=12,
        color=INK,
        x=0.01,
        ha="left",
    )
    return figure


def _by_r(rows: Rows, name: str, key: str) -> tuple[np.ndarray, np.ndarray, float]:
    """The slopes, the numbers under ``key``, and the number at the step."""
    mine = [r for r in rows if r["estimator"] == name]
    at = sorted((r["r"], r[key]) for r in mine if r["r"] > 0.0)
    (jump,) = [r[key] for r in mine if r["r"] == 0.0]
    return *(np.array(part) for part in zip(*at, strict=True)), jump


STEP = 4e-5
"""Where the step itself is drawn."""


def step(rows: Rows) -> Figure:
    """Errors at n = 100 and coverage, from a smooth sigmoid to the step."""
    figure = Figure(figsize=(11.0, 4.6), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.45, 1.0])
    r = np.geomspace(9e-5, 11.0, 300)
    d = rows[0]["d"]
    for name, color in (("values, leave one out", VALUES), ("gradients", SLOPES)):
        left.plot(r, np.sqrt(theory.sigmoid(name, r, d, 100) / 100.0), color=color, linewidth=1.6)
    names = [
        "values, leave one out",
        "gradients",
        *(["hybrid"] if any(q["estimator"] == "hybrid" for q in rows) else []),
    ]
    colors = dict(zip(names, (VALUES, SLOPES, HYBRID), strict=False))
    for name, color in colors.items():
        x, y, jump = _by_r(rows, name, "rmse")
        dots = {"color": color, "markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.4}
        left.plot([STEP, *x], [jump, *y], "o", **dots, zorder=3)
        x, y, jump = _by_r(rows, name, "coverage")
        right.plot(x, 100.0 * y, "-o", **dots, linewidth=1.4)
        right.plot([STEP], [100.0 * jump], "o", **dots, zorder=3)
    x, y, _ = _by_r(rows, "gradients", "declared")
    left.plot(x, np.maximum(y, 1e-9), color=SLOPES, linestyle=(0, (1, 1.5)), linewidth=2.0)
    for name in names[1:]:
        x, y, _ = _by_r(rows, name, "typical")
        left.plot(x, y, color=colors[name], linestyle=(0, (4, 2)), linewidth=1.3)
    left.axhline(theory.sigmoid_gradient(0.0), color=FAINT, linewidth=0.9, zorder=0)
    left.set(xscale="log", yscale="log", xlim=(2.6e-5, 12.0), ylim=(4e-4, 12.0))
    left.set_ylabel("σ × error of the gradient, n = 100", color=INK)
    left.set_title(f"Error of 100 rows on Φ(u·x/δ), d = {d}", fontsize=11, color=INK, loc="left")
    _say(left, 4e-4, 2.9, "gradients: RMSE", SLOPES, fontweight="bold", rotation=-14)
    _say(left, 9e-5, 0.285, "gradients: typical", SLOPES)
    _say(left, 2.9e-5, 0.43, "|∇J|: all of it missed", FAINT, va="bottom")
    _say(left, 4e-5, 0.012, "gradients: the error that\na typical run reports,\nfalling to 0", SLOPES)
    _say(left, 2.9e-5, 0.115, "values: RMSE", VALUES, fontweight="bold", va="top")
    if "hybrid" in colors:
        _say(left, 0.0052, 0.045, "Hybrid: RMSE,\ntypical dashed", HYBRID, fontweight="bold")
    right.axhline(95.0, color=FAINT, linewidth=0.9, zorder=0)
    right.set(xscale="log", xlim=(2.6e-5, 12.0), ylim=(-3.0, 103.0))
    right.set_title("How often a 95 % interval holds the truth, %", fontsize=11, color=INK, loc="left")
    _say(right, 0.007, 24.0, "gradients:\nconfidently wrong", SLOPES, fontweight="bold", ha="left")
    _say(right, 2.9e-5, 98.5, "values", VALUES, fontweight="bold", va="bottom")
    if "hybrid" in colors:
        _say(right, 1.6e-4, 98.5, "and Hybrid", HYBRID, fontweight="bold", va="bottom")
    for axes in (left, right):
        axes.set_xlabel("δ/σ: width of the slope over the width of the search", color=INK)
        axes.set_xticks([STEP, 1e-3, 1e-2, 1e-1, 1.0, 10.0], ["step", "0.001", "0.01", "0.1", "1", "10"])
        _tidy(axes)
    return figure


def fourier(response: Rows, boxcar: Rows) -> Figure:
    """The shared multiplier, a boxcar and a disc: what smoothing does, and which side sees it."""
    figure = Figure(figsize=(11.0, 3.9), dpi=130, layout="constrained")
    wave, box, disc = figure.subplots(1, 3, width_ratios=[1.0, 1.0, 0.9])
    s = np.linspace(0.0, 4.8, 200)
    wave.plot(s, s * np.exp(-0.5 * s**2), color=INK, linewidth=1.3)
    x = np.linspace(-2.1, 2.1, 400)
    box.plot(x, theory.fourier_1d(theory.boxcar_transform, x, 0.3), color=INK, linewidth=1.3)
    for axes, rows, key, shift in ((wave, response, "s", 0.05), (box, boxcar, "x", 0.0)):
        for name, color, sign in (("values, leave one out", VALUES, -1.0), ("gradients", SLOPES, 1.0)):
            at, y, e = (np.array([r[k] for r in rows if r["estimator"] == name]) for k in (key, "value", "error"))
            axes.errorbar(at + sign * shift, y, 2.0 * e, fmt="o", color=color, markersize=3.4, linewidth=1.1)
    wave.set_title("Waves: one multiplier, two error bars", fontsize=11, color=INK, loc="left")
    wave.set_xlabel("|ω|σ", color=INK)
    _say(wave, 1.75, 0.56, "|ω|σ exp(−|ω|²σ²/2)", INK)
    _say(wave, 0.08, 0.83, "values", VALUES, fontweight="bold")
    _say(wave, 0.08, 0.75, "gradients, ± 2 s.e. of 1,000 rows, d = 1", SLOPES, fontweight="bold")
    wave.set_ylim(-0.42, 0.88)
    box.set_title("Boxcar, σ = 0.3: J′ by Fourier", fontsize=11, color=INK, loc="left")
    box.set_xlabel("x", color=INK)
    _say(box, 0.25, 1.1, "E f ε/σ: values", VALUES, fontweight="bold")
    _say(box, -2.05, -0.15, "E f′ = 0: gradients", SLOPES, fontweight="bold")
    _disc(disc)
    for axes in (wave, box):
        axes.axhline(0.0, color=FAINT, linewidth=0.6, zorder=0)
        _tidy(axes)
    return figure


def _disc(axes: Axes) -> None:
    """|grad J| of the disc as shades, its direction as arrows."""
    side = np.linspace(-1.9, 1.9, 61)
    points = np.stack([g.ravel() for g in np.meshgrid(side, side)], 1)
    gradient = theory.fourier_2d(theory.disc_transform, points, 0.3)
    length = np.linalg.norm(gradient, axis=1).reshape(61, 61)
    axes.imshow(length, extent=(-1.9, 1.9, -1.9, 1.9), origin="lower", cmap="Greys", vmax=2.2, interpolation="bilinear")
    angle = 2.0 * np.pi * np.arange(20) / 20
    for radius in (0.75, 1.0, 1.3):
        at = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
        arrows = theory.disc_score(at, 0.3)
        axes.quiver(*at.T, *arrows.T, color=VALUES, angles="xy", scale_units="xy", scale=4.5, width=0.007)
    axes.plot(np.cos(np.linspace(0, 2 * np.pi, 200)), np.sin(np.linspace(0, 2 * np.pi, 200)), color=INK, linewidth=0.8)
    axes.set_title("Disc, σ = 0.3: |∇J| by Fourier", fontsize=11, color=INK, loc="left")
    _say(axes, -1.85, -1.78, "arrows: E f ε/σ", VALUES, fontweight="bold")
    axes.set(xlim=(-1.9, 1.9), ylim=(-1.9, 1.9))
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    _tidy(axes)
