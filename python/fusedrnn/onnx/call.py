"""A node of a chain and what is known of its inputs, while the chain is read."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import onnx

from ..arrays.checks import Array
from .graph import Model, NotConstant, Place
from .values import FromInput, Stack, Static, Value

Known: TypeAlias = "Value | Stack | FromInput | Static | None"  # None: a constant


class Unknown(Exception):
    """The chain ends here; the text says why."""


class Call:
    """A node with what is known of its inputs."""

    def __init__(self, model: Model, place: Place, env: dict[str, Known], ranks: dict[str, int]) -> None:
        self.model, self.place, self.node, self.env, self.ranks = model, place, place.node, env, ranks
        self.attributes = {each.name: onnx.helper.get_attribute_value(each) for each in place.node.attribute}

    def operand(self, index: int) -> Known:
        """Return what an input is; None for a constant and for none."""
        name = self.name(index)
        return self.env[name] if name else None

    def name(self, index: int) -> str:
        """Return the name of an input; "" for none."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def data(self, index: int = 0) -> Value | Stack:
        """Return an input that must be a value of the chain."""
        known = self.operand(index)
        if not isinstance(known, (Value, Stack)):
            raise Unknown(f"input {index} is not what the layers before return")
        return known

    def value(self, index: int = 0) -> Value:
        """Return an input that must be an array of the chain, not a stack of several."""
        known = self.data(index)
        if isinstance(known, Stack):
            raise Unknown("it takes the directions or layers of a recurrent node apart")
        return known

    def constant(self, index: int, what: str) -> Array:
        """Return the value of a constant input."""
        if not self.name(index):
            raise Unknown(f"{what} is not given")
        try:
            return self.model.constant(self.place.scope, self.name(index))
        except NotConstant as error:
            raise Unknown(f"{what} is not constant: {error}") from None

    def numbers(self, attribute: str, index: int) -> list[int] | None:
        """Return integers that are an attribute in old operators and an input in new ones; None if not given."""
        if attribute in self.attributes:
            return [int(each) for each in np.ravel(self.attributes[attribute])]
        return [int(each) for each in self.constant(index, attribute).ravel()] if self.name(index) else None
