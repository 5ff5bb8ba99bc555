"""A policy as an ONNX model, for programs that are not Python; needs the package ``onnx``.

The model takes a batch of observations and returns the actions and the outputs before them, with the normalisation
inside.

References
----------
https://onnx.ai/onnx/operators, operator set 17.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._archive import replacing
from .actions import BoxActions, DiscreteActions, MultiBinaryActions
from .observations import ArrayObservations

if TYPE_CHECKING:
    from .policy import Policy

OPSET, IR = 17, 8


def to_onnx(policy: Policy, path: str | os.PathLike[str], dtype: Literal["float32", "float64"] = "float64") -> Path:
    """Write the policy as an ONNX model, all or nothing, and return the path; see :meth:`Policy.to_onnx`."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ModuleNotFoundError(
            'writing ONNX needs the package onnx. Install it with: pip install "pyesopt[onnx]"', name="onnx"
        ) from None
    if dtype not in ("float32", "float64"):
        raise ValueError(f"to_onnx() got dtype {dtype!r}. Pass float32 or float64.")
    graph = _Graph(onnx, np.dtype(dtype))
    observations, single = policy.observations, policy.observations.inputs
    shape = observations.shape if isinstance(observations, ArrayObservations) else (single,)
    graph.outputs(policy, "observation" if len(shape) == 1 else graph.reshaped("observation", (single,)))
    kind, action_shape = graph.action(policy)
    number, value = graph.number(dtype), onnx.helper.make_tensor_value_info
    before, after = (
        [value(name, number, ["batch", policy.memory])] * (policy.memory > 0) for name in ("memory", "next_memory")
    )
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "policy",
            [value("observation", number, ["batch", *shape]), *before],
            [
                value("action", graph.number(kind), ["batch", *action_shape]),
                value("outputs", number, ["batch", policy.sizes[-1]]),
                *after,
            ],
            graph.constants,
        ),
        producer_name="esopt",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    onnx.helper.set_model_props(model, {"about": json.dumps(dict(policy.about))})
    onnx.checker.check_model(model, full_check=True)
    with replacing(os.path.realpath(path), "a model") as file:
        file.write(model.SerializeToString(deterministic=True))
    return Path(path)


class _Graph:
    """Nodes and constants, as they are added; ``real`` is the type of the numbers inside."""

    def __init__(self, onnx: Any, real: np.dtype[Any]) -> None:
        self.onnx, self.real = onnx, real
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def number(self, dtype: str) -> int:
        """Return ONNX's number of a type of numpy."""
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def constant(self, array: NDArray[Any]) -> str:
        """Add a constant and return its name; floats become ``real``."""
        name = f"constant_{len(self.constants)}"
        with np.errstate(over="ignore"):  # the largest number of float64, for no bound, becomes infinite
            stored = array.astype(self.real) if array.dtype.kind == "f" else array
        self.constants.append(self.onnx.numpy_helper.from_array(stored, name))
        return name

    def node(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"value_{len(self.nodes)}" if out is None else out
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def reshaped(self, name: str, shape: tuple[int, ...], out: str | None = None) -> str:
        """Add the reshaping of a batch to (batch, *shape)."""
        return self.node("Reshape", name, self.constant(np.array([-1, *shape], np.int64)), out=out)

    def outputs(self, policy: Policy, x: str) -> None:
        """Add everything from the inputs ``x`` to the outputs."""
        if policy.mean.any() or (policy.std != 1.0).any():
            x = self.node("Div", self.node("Sub", x, self.constant(policy.mean)), self.constant(policy.std))
        if policy.memory:
            x = self.node("Concat", x, "memory", axis=1)
        for weights, bias in policy.layers[:-1]:
            x = self.node("Gemm", x, self.constant(weights), self.constant(bias), transB=1)
            out = "next_memory" if policy.memory else None
            x = self.node("Relu" if policy.activation == "relu" else "Tanh", x, out=out)
        weights, bias = policy.layers[-1]
        self.node("Gemm", x, self.constant(weights), self.constant(bias), transB=1, out="outputs")

    def action(self, policy: Policy) -> tuple[str, tuple[int, ...]]:
        """Add everything from the outputs to the action; return its type and shape."""
        actions = policy.actions
        if isinstance(actions, DiscreteActions):
            best = self.node("ArgMax", "outputs", axis=1, keepdims=0)
            self.node("Add", best, self.constant(np.array(actions.start, np.int64)), out="action")
            return "int64", ()
        if isinstance(actions, BoxActions):
            middle, half, low, high = (self.constant(column) for column in actions.layout.T.copy())
            u = self.node("Tanh", "outputs") if actions.squash == "tanh" else "outputs"
            u = self.node("Add", self.node("Mul", u, half), middle)
            value, shape = self.node("Min", self.node("Max", u, low), high), actions.low.shape
        elif isinstance(actions, MultiBinaryActions):
            value, shape = self.node("Greater", "outputs", self.constant(np.zeros(1))), actions.shape
        else:
            counts = self.constant(np.array(actions.counts, np.int64))
            groups = [f"group_{k}" for k in range(len(actions.counts))]
            self.nodes.append(self.onnx.helper.make_node("Split", ["outputs", counts], groups, axis=1))
            best = self.node("Concat", *(self.node("ArgMax", g, axis=1, keepdims=1) for g in groups), axis=1)
            value = self.node("Add", best, self.constant(np.array(actions.start, np.int64)))
            shape = actions.shape
        self.reshaped(self.node("Cast", value, to=self.number(actions.dtype)), shape, out="action")
        return actions.dtype, tuple(shape)
