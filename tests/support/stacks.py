"""Stacks of layers with random input, and the reference that they should agree with."""

from __future__ import annotations

from typing import Any

import numpy as np

import reference
from problems import LAYERS, Array, as_state, flat

B, T, INPUTS, H = 3, 5, 4, 7


class Stack:
    """A layer with random input, state and cotangents, and the reference that it should agree with."""

    def __init__(self, cell: str, **options: Any) -> None:
        self.cell, self.lengths = cell, options.pop("lengths", None)
        self.layers, self.bidirectional = options.get("num_layers", 1), options.get("bidirectional", False)
        self.batch_first = options.get("batch_first", True)
        self.layer = LAYERS[cell](INPUTS, H, **({"seed": 3, "init": "torch"} | options))
        self.dtype = self.layer.params["weight_ih_l0"].dtype.name
        self.states = reference.CELLS[cell].states
        rng = np.random.default_rng(5)
        directions = 1 + self.bidirectional
        axes = (B, T) if self.batch_first else (T, B)

        def normal(*shape: int) -> Array:
            return rng.normal(0.1, 1, shape).astype(np.float32).astype(self.dtype)

        self.x = normal(*axes, INPUTS)
        self.start = [normal(self.layers * directions, B, H) for _ in self.states]
        self.dy = normal(*axes, directions * H)
        self.dfinal = [normal(self.layers * directions, B, H) for _ in self.states]

    def arguments(self) -> dict[str, Array]:
        """Return input, states and parameters in float64 for ``reference``."""
        named = {"x": self.x, **{f"{name}0": value for name, value in zip(self.states, self.start, strict=True)}}
        return {name: value.astype(np.float64) for name, value in (named | self.layer.params).items()}

    def reference(self, **arguments: Array) -> tuple[Array, ...]:
        """Run the reference on what ``arguments`` returned."""
        inputs = {name: arguments.pop(name) for name in ("x", "h0", "c0") if name in arguments}
        return reference.stack(
            self.cell,
            arguments,
            **inputs,
            num_layers=self.layers,
            bidirectional=self.bidirectional,
            lengths=self.lengths,
            batch_first=self.batch_first,
        )

    def train(self) -> tuple[tuple[Array, ...], Any]:
        """Return the outputs and the tape."""
        outputs, tape = self.layer.forward(self.x, as_state(self.start), self.lengths)
        return flat(*outputs), tape

    def gradients(self, tape: Any) -> dict[str, Array]:
        """Return the gradients of input, states and parameters by name."""
        dx, dstate = self.layer.backward(tape, self.dy, as_state(self.dfinal))
        _, *dstart = flat(dx, dstate)
        return {"x": dx, **{f"{n}0": d for n, d in zip(self.states, dstart, strict=True)}, **self.layer.grads}
