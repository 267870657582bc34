"""Recurrent layers from the weights of another framework, already in this package's gate order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..allocation import unbounded
from ..arrays.checks import Array
from ..layers import Layer, Recurrent


class Option(NamedTuple):
    """The value of a constructor's argument, and what the file calls it."""

    value: Any
    foreign: str


@dataclass(frozen=True, eq=False)
class CellSpec:
    """One recurrent layer of one or two directions, as a file describes it.

    Attributes
    ----------
    where : str
        Operation and node, for messages.
    cls : type
        RNN, LSTM or GRU.
    direction : {"forward", "reverse", "bidirectional"}
        Over time.
    weights : tuple of dict
        For each direction the parameters of one layer without the suffix: weight_ih (G*H, I), weight_hh (G*H, H),
        and where there is a bias bias_ih and bias_hh (G*H,).
    options : dict
        Arguments of the constructor that are not its defaults.
    """

    where: str
    cls: type[Recurrent]
    direction: str
    weights: tuple[dict[str, Array], ...]
    options: dict[str, Option] = field(default_factory=dict)

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.weights[0]["weight_hh"].shape[1])

    @property
    def input_size(self) -> int:
        """I."""
        return int(self.weights[0]["weight_ih"].shape[1])

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return "bias_ih" in self.weights[0]

    @property
    def dtype(self) -> str:
        """The dtype of a layer that holds the weights: float64 for those, else float32."""
        return "float64" if self.weights[0]["weight_hh"].dtype == np.float64 else "float32"

    def only(self, direction: int) -> CellSpec:
        """Return the layer of one of two directions."""
        return replace(self, direction=("forward", "reverse")[direction], weights=(self.weights[direction],))


def same_but_for_weights(a: CellSpec, b: CellSpec) -> bool:
    """Return whether two layers differ at most in their place and their weights (the input size is a weight's)."""
    return (a.cls, a.hidden_size, a.bias, a.dtype) == (b.cls, b.hidden_size, b.bias, b.dtype) and {
        name: option.value for name, option in a.options.items()
    } == {name: option.value for name, option in b.options.items()}


def check_accepted(where: str, cls: type[Layer], options: Mapping[str, Option]) -> None:
    """Raise ValueError, naming what the file calls it, for an option that the layer's constructor does not take."""
    known = inspect.signature(cls.__init__).parameters
    for name, option in options.items():
        if name not in known:
            raise ValueError(f"{where}: {option.foreign}; fusedrnn.{cls.__name__} has no {name}=")


def recurrent_layer(specs: Sequence[CellSpec], *, batch_first: bool) -> Recurrent:
    """Make one layer of a stack of layers that match, the first at the bottom.

    Raises
    ------
    ValueError
        If the layer cannot be what one of them is; or a shape does not fit the others.
    """
    bottom = specs[0]
    for spec in specs:
        check_accepted(spec.where, spec.cls, spec.options)
    config: dict[str, Any] = {
        "input_size": bottom.input_size,
        "hidden_size": bottom.hidden_size,
        "num_layers": len(specs),
        "bias": bottom.bias,
        "batch_first": batch_first,
        "bidirectional": bottom.direction == "bidirectional",
        "dtype": bottom.dtype,
        **{name: option.value for name, option in bottom.options.items()},
        **({"reverse": True} if bottom.direction == "reverse" else {}),
    }
    state = {
        f"{name}_l{index}{suffix}": array
        for index, spec in enumerate(specs)
        for suffix, weights in zip(("", "_reverse"), spec.weights, strict=False)
        for name, array in weights.items()
    }
    try:
        layer = with_weights(bottom.cls, config, state)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{bottom.where}: {error}") from None
    assert isinstance(layer, Recurrent)
    return layer


def with_weights(cls: type[Layer], config: Mapping[str, Any], state: Mapping[str, Array]) -> Layer:
    """Make a layer of a configuration that holds these parameters; the random initialisation is skipped."""
    with unbounded():
        layer = cls.from_config(config)
    layer.load_state_dict(state)
    return layer
