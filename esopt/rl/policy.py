"""Policies that need numpy alone: observation in, action out, one ``.npz`` file on disk.

A policy is a frozen record of arrays. Its parameters are one vector theta (dim,), which is what a strategy searches
over; the law from observation to action does not depend on what trained it. :attr:`Policy.form` is what compiled code
needs to play it; both forms choose the same actions, to the bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .actions import Actions, actions_of
from .network import ACTIVATIONS, Network, count, fold, layers
from .observations import ArrayObservations, Observations, observations_of

Array = NDArray[np.float64]
Activation = Literal["tanh", "relu", "elman"]
Squash = Literal["clip", "tanh"]


class Form(NamedTuple):
    """A policy for compiled code, besides its folded parameters: plain numbers, in arrays that can be written.

    Arrays that cannot be are of another type to numba.

    Parameters
    ----------
    sizes : (layers + 1,) int64  inputs, widths of the hidden layers, outputs.
    activation : of hidden layers; 0 tanh, 1 relu, 2 tanh of a layer whose activations are the last inputs of the next
        step, zero at the start.
    kind, layout : how outputs become an action, (numbers of an action, 4); see :mod:`esopt.rl.actions`.
    """

    sizes: NDArray[np.int64]
    activation: int
    kind: int
    layout: Array


class Actor:
    """A policy at work: what its parameters make of an observation, without a check of anything else.

    A recurrent one remembers from call to call, from its making or :meth:`reset` on.

    Parameters
    ----------
    policy : whose observations and actions to use.
    folded : (dim,)  parameters with the normalisation folded in.
    """

    __slots__ = ("_actions", "_memory", "_network", "_observations", "_rows", "_shape")

    def __init__(self, policy: Policy, folded: Array) -> None:
        self._observations, self._actions = policy.observations, policy.actions
        self._shape = policy.observations.shape if isinstance(policy.observations, ArrayObservations) else None
        self._network = Network(folded, policy.sizes, policy.activation)
        self._rows = self._network.rows
        self._memory = np.zeros(policy.memory) if policy.memory else None

    def reset(self) -> None:
        """Forget everything: an episode begins."""
        if self._memory is not None:
            self._memory = np.zeros(len(self._memory))

    def __call__(self, observation: Any) -> Any:
        """Return the action for one observation."""
        return self._actions.act(self.outputs(observation))

    def outputs(self, observation: Any) -> list[float]:
        """Return the outputs for one observation; ``policy.actions.act`` makes an action of them."""
        rows = self._rows
        if self._memory is not None:
            outputs = self._network(np.concatenate([self._observations.flat(observation), self._memory]))
            self._memory = self._network.last
            return outputs
        if rows is None or not isinstance(observation, np.ndarray) or observation.shape != self._shape:
            return self._network(self._observations.flat(observation))
        inputs, outputs = observation.tolist() if observation.ndim == 1 else observation.ravel().tolist(), []
        for row, total in rows:
            for weight, value in zip(row, inputs):  # noqa: B905  (the shape was checked; strict= costs a tenth of the call)
                total += weight * value
            outputs.append(total)
        return outputs


@dataclass(frozen=True, eq=False)
class Policy:
    """A linear policy, a multilayer perceptron, or a recurrent network: outputs = network((observation - mean) / std).

    Parameters
    ----------
    parameters : (dim,)  layer by layer, the weights (outputs, inputs) row by row, then the biases.
    actions : how outputs become an action.
    observations : how an observation becomes ``inputs`` numbers.
    mean, std : (inputs,)  normalisation of the inputs; no parameters, nothing changes them.
    hidden : widths of the hidden layers; empty for a linear policy.
    activation : of the hidden layers, "tanh" or "relu"; or "elman", one hidden layer of tanh that also sees its own
        activations of the step before (Elman 1990, Finding structure in time), zero at the start of an episode.
    about : names, numbers and strings that people may want to know later.

    Notes
    -----
    The normalisation is folded into the first layer once, see :meth:`fold`. An output is then its bias, plus weight
    times input, input by input, in float64.
    """

    parameters: Array
    actions: Actions
    observations: Observations
    mean: Array
    std: Array
    hidden: tuple[int, ...] = ()
    activation: Activation = "tanh"
    about: Mapping[str, Any] = field(default_factory=dict)
    folded: Array = field(init=False, repr=False)
    _actor: Actor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_architecture(self.hidden, self.activation)
        inputs, outputs = self.observations.inputs, self.actions.outputs
        if not (inputs and outputs):
            raise ValueError(f"Policy() got spaces of {inputs} inputs and {outputs} outputs. Both need at least one.")
        for name, size in (("parameters", self.dim), ("mean", inputs), ("std", inputs)):
            array = np.array(getattr(self, name), np.float64)
            if array.shape != (size,):
                raise ValueError(
                    f"Policy() got {name} of shape {array.shape}. Pass ({size},): the policy has {inputs} inputs, "
                    f"hidden layers {self.hidden} and {outputs} outputs."
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        folded = self.fold(self.parameters[None, :], self.mean, self.std)[0]
        folded.setflags(write=False)
        object.__setattr__(self, "folded", folded)
        object.__setattr__(self, "_actor", Actor(self, folded))

    @overload
    @classmethod
    def linear(cls, env: None = None, *, squash: Squash = "clip") -> Recipe: ...
    @overload
    @classmethod
    def linear(cls, env: object, *, squash: Squash = "clip") -> Policy: ...
    @classmethod
    def linear(cls, env: object = None, *, squash: Squash = "clip") -> Recipe | Policy:
        """Return the recipe of a linear policy, which starts with every parameter 0; with ``env``, the policy itself.

        ``squash`` is what happens to the outputs for a Box of actions, see :class:`esopt.rl.BoxActions`.
        """
        recipe = Recipe(squash=squash)
        return recipe if env is None else recipe.of(env)

    @classmethod
    def mlp(cls, *hidden: int, activation: Activation = "tanh", squash: Squash = "clip", seed: int = 0) -> Recipe:
        """Return the recipe of a multilayer perceptron, for example ``Policy.mlp(64, 64)``; see :class:`Recipe`."""
        if not hidden:
            raise ValueError("Policy.mlp() got no hidden layers. Pass their widths, or use Policy.linear().")
        return Recipe(hidden, activation, squash, seed)

    @classmethod
    def rnn(cls, width: int, *, squash: Squash = "clip", seed: int = 0) -> Recipe:
        """Return the recipe of a recurrent policy: a hidden layer of ``width`` tanh that sees what it was before.

        It can act on what it does not see at the moment, velocities for example. The library's engines start every
        episode anew; a loop of one's own calls :meth:`reset`.
        """
        return Recipe((width,), "elman", squash, seed)

    @property
    def memory(self) -> int:
        """How many numbers it remembers from step to step: the hidden layer of a recurrent policy, else 0."""
        return self.hidden[0] if self.activation == "elman" else 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, with what is remembered at their end, widths of the hidden layers, outputs."""
        return self.observations.inputs + self.memory, *self.hidden, self.actions.outputs

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return count(self.sizes)

    @property
    def layers(self) -> list[tuple[Array, Array]]:
        """The weights (outputs, inputs) and biases (outputs,) of each layer, without the normalisation."""
        return [(weights[0], bias[0]) for weights, bias in layers(self.parameters[None, :], self.sizes)]

    @property
    def form(self) -> Form:
        """What compiled code needs, besides folded parameters."""
        sizes = np.array(self.sizes, np.int64)
        return Form(sizes, ACTIVATIONS.index(self.activation), self.actions.kind, self.actions.layout.copy())

    def with_parameters(self, theta: ArrayLike) -> Policy:
        """Return the policy with parameters ``theta`` (dim,)."""
        vector = np.asarray(theta, np.float64)
        if vector.shape != (self.dim,):
            raise ValueError(f"the policy has {self.dim} parameters, got shape {vector.shape}. Pass ({self.dim},).")
        return replace(self, parameters=vector)

    def with_normalisation(self, mean: ArrayLike, std: ArrayLike) -> Policy:
        """Return the policy with the same parameters for inputs normalised by ``mean`` and ``std``, both (inputs,)."""
        return replace(self, mean=np.asarray(mean, np.float64), std=np.asarray(std, np.float64))

    def fold(self, thetas: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Array:
        """Return the parameters that do to observations what ``thetas`` do to normalised ones.

        Weights of the first layer become w_ji / std_i, biases b_j - sum_i (w_ji / std_i) mean_i, input by input.

        Parameters
        ----------
        thetas : (m, dim)
        mean, std : (inputs,)  finite, std > 0.

        Returns
        -------
        (m, dim), a new array; a row has the same bits whatever the other rows are.
        """
        rows, centre, width = (np.asarray(a, np.float64) for a in (thetas, mean, std))
        inputs = self.observations.inputs
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"fold() got parameters of shape {rows.shape}. Pass (m, {self.dim}).")
        if not centre.shape == width.shape == (inputs,):
            raise ValueError(f"fold() got mean {centre.shape} and std {width.shape}. Pass ({inputs},) for both.")
        if not (np.isfinite(centre).all() and width.min() > 0.0 and width.max() < math.inf):
            raise ValueError(f"the normalisation has mean {centre} and std {width}. Pass finite numbers, and std > 0.")
        if self.memory:
            centre, width = np.append(centre, np.zeros(self.memory)), np.append(width, np.ones(self.memory))
        return fold(rows, self.sizes, centre, width)

    def actor(self, folded: ArrayLike) -> Actor:
        """Return the function from observation to action for parameters of :meth:`fold`, (dim,)."""
        vector = np.asarray(folded, np.float64)
        if vector.shape != (self.dim,):
            raise ValueError(f"the policy has {self.dim} parameters, got shape {vector.shape}. Pass ({self.dim},).")
        return Actor(self, vector)

    def __call__(self, observation: Any) -> Any:
        """Return the action for one observation: an int for Discrete actions, else an array.

        A recurrent policy remembers the calls since :meth:`reset`.

        Raises
        ------
        ValueError  if the observation does not fit the policy's observations.
        """
        return self._actor(observation)

    def reset(self) -> None:
        """Forget what a recurrent policy remembers, at the start of an episode; others have nothing to forget."""
        self._actor.reset()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the policy to ``path``, all or nothing, and return the path; equal policies give equal bytes."""
        from .policy_file import save

        return save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Return the policy in the file ``path``.

        Raises
        ------
        FileNotFoundError  if there is no such file.
        PolicyFileError  (a ValueError) if it is damaged, no policy, or of a newer version.
        """
        from .policy_file import load

        return load(path, cls)

    def to_onnx(self, path: str | os.PathLike[str], dtype: Literal["float32", "float64"] = "float64") -> Path:
        """Write the policy as an ONNX model, all or nothing, and return the path; needs the package onnx.

        The model has the input ``observation`` (batch, *shape), or (batch, inputs) with what ``observations.flat``
        returns where an observation is no array, and the outputs ``action`` (batch, *shape of an action) and
        ``outputs`` (batch, outputs), what the action is chosen from. A recurrent policy also has the input ``memory``
        (batch, width), zeros at the start of an episode, and the output ``next_memory``. Numbers are of type ``dtype``.

        Raises
        ------
        ModuleNotFoundError  without onnx; it says how to install it.
        """
        from .onnx import to_onnx

        return to_onnx(self, path, dtype)


@dataclass(frozen=True)
class Recipe:
    """A policy whose spaces are not known yet; :meth:`of` an environment it becomes a :class:`Policy`.

    Parameters
    ----------
    hidden : widths of the hidden layers; empty for a linear policy.
    activation : of the hidden layers, "tanh" or "relu"; or "elman", see :class:`Policy`.
    squash : "clip" or "tanh", for a Box of actions.
    seed : of the weights that a hidden layer starts with.
    linear_from : without hidden layers wherever a linear policy has at least so many parameters; None for nowhere.

    Notes
    -----
    The last layer and all biases start at 0, so that a linear policy starts at 0 altogether and every policy with
    outputs 0. The weights of a hidden layer of k inputs are normal with mean 0 and variance 1/k for tanh (LeCun et al.
    1998, Efficient BackProp, section 4.6), 2/k for relu (He et al. 2015, Delving deep into rectifiers, equation 10);
    layer l takes row l of the library's own noise.
    """

    hidden: tuple[int, ...] = ()
    activation: Activation = "tanh"
    squash: Squash = "clip"
    seed: int = 0
    linear_from: int | None = None

    def __post_init__(self) -> None:
        _check_architecture(self.hidden, self.activation)
        least = self.linear_from
        if least is not None and (isinstance(least, bool) or not isinstance(least, int) or least < 1):
            raise ValueError(
                f"linear_from must be a positive whole number or None, got {least!r}. Pass for example 16."
            )
        if self.squash not in ("clip", "tanh"):
            raise ValueError(f'squash must be "clip" or "tanh", got {self.squash!r}.')

    def of(self, env: Any) -> Policy:
        """Return the policy for the spaces of a gymnasium environment."""
        return self.for_spaces(env.observation_space, env.action_space)

    def for_spaces(self, observation_space: Any, action_space: Any) -> Policy:
        """Return the policy for two gymnasium spaces, without a normalisation.

        Raises
        ------
        ValueError  for spaces that a policy does not serve; it says which it does.
        """
        observations, actions = observations_of(observation_space), actions_of(action_space, self.squash)
        inputs = observations.inputs
        if self.linear_from is not None and count((inputs, actions.outputs)) >= self.linear_from:
            return replace(self, hidden=(), linear_from=None).for_spaces(observation_space, action_space)
        sizes = (inputs + (self.hidden[0] if self.activation == "elman" else 0), *self.hidden, actions.outputs)
        theta = self._start(sizes)
        return Policy(theta, actions, observations, np.zeros(inputs), np.ones(inputs), self.hidden, self.activation)

    def _start(self, sizes: tuple[int, ...]) -> Array:
        theta = np.zeros(count(sizes))
        if not self.hidden:
            return theta
        from ..noise import INIT, Key, Philox
        from ..samplers.gaussian import Gaussian

        for index, (weights, _) in enumerate(layers(theta[None, :], sizes)[:-1]):
            rows = Philox(Gaussian(), Key(self.seed, 2, INIT), index + 1, weights[0].size).rows(index)
            variance = (2.0 if self.activation == "relu" else 1.0) / weights.shape[2]
            weights[0] = math.sqrt(variance) * rows.astype(np.float64).reshape(weights[0].shape)
        return theta


def _check_architecture(hidden: tuple[int, ...], activation: str) -> None:
    whole = isinstance(hidden, tuple) and all(type(width) is int and width >= 1 for width in hidden)
    if not whole:
        raise ValueError(f"a policy got hidden layers {hidden!r}. Pass a tuple of positive whole numbers, as (64, 64).")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    if activation == "elman" and len(hidden) != 1:
        raise ValueError(f"a recurrent policy has one hidden layer, got {hidden}. Pass for example Policy.rnn(16).")
