"""Laws of rules."""

from __future__ import annotations

import numpy as np

from ..noise import Array
from ..protocols import Rule, State
from ._check import Check, bits, normals


def check_rule(rule: Rule, *, steps: int = 500) -> None:
    """Check that ``rule`` keeps the laws of :class:`esopt.protocols.Rule`.

    Shapes never change; a zero gradient from a fresh state gives a zero step; ``step`` is pure and shares no memory
    with its arguments or its state, so that nobody corrupts a state by writing to a step; the rule descends a
    parabola; states can be saved.

    Parameters
    ----------
    steps : number of steps after which the parabola |x|^2 / 2, begun at about 1, is to be below half of its start.

    Raises
    ------
    ConformanceError  at the first law that does not hold.

    Examples
    --------
    >>> from esopt import Momentum
    >>> from esopt.testing import check_rule
    >>> check_rule(Momentum(lr=0.1))
    """
    check = Check(rule)
    for dim in (1, 3, 50):
        _check_steps(check, rule, dim)
    _check_descent(check, rule, steps)


def _check_steps(check: Check, rule: Rule, dim: int) -> None:
    state = fresh = rule.init(dim)
    step, _ = rule.step(np.zeros(dim), fresh)
    check.require(
        not step.any(),
        "a zero gradient from a fresh state gives a zero step",
        got=step,
        expected="zeros",
        do="Start averages at zero, and do not divide by the length of a zero gradient.",
    )
    for generation, gradient in enumerate(normals(1, 6, dim)):
        if generation == 4:
            state = check.reload(state, fresh)
        state = _check_step(check, rule, gradient, state)
    check.same("init is pure", rule.init(dim), bits(fresh), do="Return a new state of zeros from init.")


def _check_step(check: Check, rule: Rule, gradient: Array, state: State) -> State:
    before, kept = bits(state), gradient.copy()
    step, after = rule.step(gradient, state)
    again, _ = rule.step(gradient, state)
    check.require(
        isinstance(step, np.ndarray) and step.shape == gradient.shape and step.dtype == np.float64,
        "the step has the shape of the gradient",
        got=f"{type(step).__name__} of shape {np.shape(step)}",
        expected=f"float64 array of shape {gradient.shape}",
        do="Return one float64 number per parameter.",
    )
    check.require(
        np.isfinite(step).all(), "steps are finite", got=step, expected="finite numbers", do="Guard divisions."
    )
    check.same("step does not change its state", state, before, do=_COPY)
    check.same("step does not change its gradient", gradient, bits(kept), do=_COPY)
    check.same("step is pure", again, bits(step), do="Keep what the next step needs in the state, nowhere else.")
    frozen = bits(after)
    for array in (step, again):
        array += 1.0
    gradient += 1.0
    check.same("a state shares no memory with the step or the gradient", after, frozen, do=_COPY)
    return after


_COPY = "Write to new arrays: copy what goes into the state, or out of it."


def _check_descent(check: Check, rule: Rule, steps: int) -> None:
    for dim in (1, 5):
        x, state = np.linspace(1.0, 0.5, dim), rule.init(dim)
        start, late = 0.5 * float(x @ x), []
        for count in range(steps):
            step, state = rule.step(x, state)
            if count == 0:
                check.require(
                    float(step @ x) < 0.0,
                    "the first step goes downhill",
                    got=f"step . gradient = {step @ x}",
                    expected="< 0",
                    do="Return the step that is added to the parameters: minus the gradient, not plus.",
                )
            x = x + step
            late.append(0.5 * float(x @ x))
        level = float(np.mean(late[-steps // 5 :]))
        check.require(
            level < 0.5 * start,
            "steps descend a parabola",
            got=f"{level} after {steps} steps in {dim} dimensions",
            expected=f"less than half of {start}",
            do="Check the sign and the size of the step, or pass more steps for a small rate.",
        )
