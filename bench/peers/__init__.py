"""The implementations that are compared, one file each, all with the interface of `Peer`.

Each gets its data in its own array type and in the layout that suits it, and converts the weights once: none of that
is timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cases import Array, Case, Problem

PEERS = ("torch", "onnxruntime", "jax", "keras", "onnxruntime-int8", "torch-int8")
PACKAGES = (
    "fusedrnn",
    "numpy",
    "torch",
    "onnxruntime",
    "onnx",
    "jax",
    "jaxlib",
    "keras",
    "tensorflow-cpu",
    "tensorflow",
)


@dataclass(frozen=True)
class Runner:
    """A case, built and ready."""

    call: Callable[[], object]
    """What is timed: one inference, one forward + backward, or one streaming step. Returns when the result is there."""
    check: Callable[[], dict[str, Array]]
    """Results as NumPy arrays in the project's layouts: y, or y, dx and the weight gradients under torch's names,
    or h after each of the first streaming steps (steps, B, H), from a zero state."""


class Peer(Protocol):
    """What each module of this package offers."""

    def configure(self, threads: int) -> None:
        """Set the number of threads."""

    def refuses(self, case: Case) -> str | None:
        """Return why this implementation has no answer to the case, None where it has one."""

    def build(self, case: Case, problem: Problem) -> Runner:
        """Prepare the case."""


def load(name: str) -> Peer:
    """Import a peer; ImportError where its package is not installed."""
    return importlib.import_module("peers.ours" if name == "ours" else f"peers.{name.replace('-', '_')}_peer")  # type: ignore[return-value]


def reorder_gates(array: Array, order: tuple[int, ...]) -> Array:
    """Permute the gate blocks along the first axis."""
    gates = array.reshape(len(order), -1, *array.shape[1:])
    return gates[list(order)].reshape(array.shape)
