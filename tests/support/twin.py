"""The host twin of the CUDA kernels, their orchestration and formulas in plain loops; and operands for any stack."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reference import CELLS

Array = NDArray[Any]

needs_cuda_module = pytest.mark.skipif(
    find_spec("fusedrnn._cuda") is None, reason="the CUDA module is not built; FUSEDRNN_CUDA=ON builds it where nvcc is"
)


CAPTURED = 0xCA  # the handle of a stream that is being captured, to the twin


def imported(name: str) -> Any:
    """Import a library; skip the test where it is not installed, fail where it is broken.

    What it warns of meanwhile is shown, and fails nothing.
    """
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return import_module(name)


class BusyDevice:
    """A device that has not done its work yet, in the place of the twin's, which is done at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from fusedrnn.cuda.array_libraries import _NumPy

        self.done = False
        monkeypatch.setattr(_NumPy, "mark", lambda library, device: lambda: self.done)

    def assert_holds(self, arrays: Sequence[weakref.ref[Any]], another_call: Callable[[], object]) -> None:
        """Demand that arrays live until it is done; the next call lets go of them."""
        gc.collect()
        assert all(array() is not None for array in arrays)
        self.done = True
        another_call()
        gc.collect()
        assert all(array() is None for array in arrays)


def twin_stack(*args: Any, chunk_bytes: int = 0, compute_dtype: str = "", **kwargs: Any) -> Any:
    """Make a stack of the CUDA backend whose kernels run on the CPU; arguments as ``fusedrnn._core.Stack``."""
    assert compute_dtype in ("", args[1]), "the CUDA kernels have no compute_dtype"
    from fusedrnn import _cuda
    from fusedrnn.cuda.stack import Stack

    stack = Stack(*args, **kwargs, make=_cuda.host_stack)
    stack.chunk_bytes = chunk_bytes
    return stack


def _same(array: Any) -> Any:
    return array


@dataclass
class Operands:
    """Random operands of a stack, and what a stack makes of them.

    ``lift`` below turns NumPy arrays into those of the library under test.
    """

    cell: str
    dtype: str
    layers: int = 1
    directions: int = 1
    batch_first: bool = True
    ragged: bool = False
    reverse: bool = False
    batch: int = 5
    steps: int = 9
    inputs: int = 4
    hidden: int = 6
    seed: int = 0
    weights: Any = None
    x: Any = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        slabs, gates = self.layers * self.directions, CELLS[self.cell].gates * self.hidden

        def normal(scale: float, *shape: int) -> Array:
            return rng.normal(0.05, scale, shape).astype(np.float32).astype(_dtype(self.dtype))

        axes = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        x = normal(1, *axes, self.inputs)
        self.x = x if self.x is None else self.x
        states = CELLS[self.cell].states
        self.start = [normal(0.5, slabs, self.batch, self.hidden) for _ in states]
        self.cotangents = [normal(1, *axes, self.directions * self.hidden)]
        self.cotangents += [normal(1, slabs, self.batch, self.hidden) for _ in states]
        lengths = rng.permutation([0, self.steps, *rng.integers(1, self.steps + 1, max(0, self.batch - 2))])
        self.lengths = lengths[: self.batch] if self.ragged else None
        weights = []
        for slab in range(slabs):
            size = self.directions * self.hidden if slab >= self.directions else self.inputs
            weights += [normal(size**-0.5, gates, size), normal(self.hidden**-0.5, gates, self.hidden)]
            weights += [normal(0.3, gates), normal(0.3, gates)]
        self.weights = weights if self.weights is None else self.weights

    @property
    def step_bytes(self) -> int:
        """Bytes of the input projections of one step."""
        return self.batch * CELLS[self.cell].gates * self.hidden * np.dtype(_dtype(self.dtype)).itemsize

    def replaced(self, **changes: Any) -> Operands:
        """Return these operands with another x or other weights."""
        return replace(self, **changes)

    def damped(self) -> Operands:
        """Return these operands with weights under which a large layer, too, forgets: no rounding grows with time."""
        weights = [((w - w.mean(dtype=np.float32)) / 2).astype(w.dtype) for w in self.weights]
        return replace(self, weights=weights)

    def astype(self, dtype: str) -> Operands:
        """Return the same numbers in a wider dtype."""
        wide = replace(self, dtype=dtype, weights=[w.astype(dtype) for w in self.weights], x=self.x.astype(dtype))
        wide.start = [s.astype(dtype) for s in self.start]
        wide.cotangents = [d.astype(dtype) for d in self.cotangents]
        return wide

    def stack(self, make: Callable[..., Any], **options: Any) -> Any:
        """Make a stack for these operands."""
        sizes = (self.inputs, self.hidden, self.layers, self.directions, self.reverse, True)
        return make(self.cell, self.dtype, *sizes, **options)

    def outputs(self, stack: Any, lift: Callable[[Any], Any] = _same) -> list[Any]:
        """Return (y, h) or (y, h, c) of an inference."""
        return self._forward(stack, lift, self._lifted_weights(lift), False)[0]

    def gradients(self, stack: Any, lift: Callable[[Any], Any] = _same) -> list[Any]:
        """Return the outputs of a training call, then the gradients of x, of the states and of the weights."""
        outputs, tape = self.train(stack, lift)
        return outputs + self.backward(tape, lift)

    def train(self, stack: Any, lift: Callable[[Any], Any] = _same) -> tuple[list[Any], Any]:
        """Return the outputs of a training call and its tape."""
        return self._forward(stack, lift, self._lifted_weights(lift), True)

    def backward(self, tape: Any, lift: Callable[[Any], Any] = _same) -> list[Any]:
        """Return the gradients of x, of the states and of the weights."""
        grads = [lift(np.zeros(w.shape, _dtype(self.dtype))) for w in self.weights]
        dy, dh, *dc = (lift(d) for d in self.cotangents)
        inputs = tape.backward(dy, dh, dc[0] if dc else None, grads)
        return [g for g in inputs if g is not None] + grads

    def _lifted_weights(self, lift: Callable[[Any], Any]) -> list[Any]:
        return [lift(w) if isinstance(w, np.ndarray) else w for w in self.weights]

    def _forward(
        self, stack: Any, lift: Callable[[Any], Any], weights: list[Any], training: bool
    ) -> tuple[list[Any], Any]:
        h0, *c0 = (lift(s) for s in self.start)
        x = lift(self.x) if isinstance(self.x, np.ndarray) else self.x  # else it has been lifted already
        y, h, c, tape = stack.forward(weights, x, h0, c0[0] if c0 else None, self.lengths, self.batch_first, training)
        return [out for out in (y, h, c) if out is not None], tape


def _dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return name
