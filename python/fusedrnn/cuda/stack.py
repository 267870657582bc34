"""Stacks of recurrent layers on a GPU, with the methods of the stacks of the CPU backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from .. import _cuda
from ..arrays.devices import require_device
from ..cell_table import CELLS
from . import get_tf32
from .array_libraries import Library, by_protocol, library_of
from .cublas import prepare_cublas

T = TypeVar("T")


def path_from_environment() -> str:
    """Return the path that FUSEDRNN_CUDA_PATH asks for: "auto" if it is not set.

    Raises
    ------
    ValueError
        If it is not "auto", "fused" or "stepwise".
    """
    path = os.environ.get("FUSEDRNN_CUDA_PATH") or "auto"
    if path not in ("auto", "fused", "stepwise"):
        raise ValueError(f"FUSEDRNN_CUDA_PATH is {path!r}; expected 'auto', 'fused' or 'stepwise'")
    return path


class Stack:
    """Layers and directions of one cell. Calls put their work on the caller's current stream and do not wait for it.

    Parameters
    ----------
    cell : {"rnn_tanh", "rnn_relu", "lstm", "gru"}
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type of all arrays. With the last two, states, gate functions and sums are float32 inside.
    input_size, hidden_size, num_layers, num_directions, reverse, bias
        As in the layers.
    make : callable, optional
        Makes the kernels; the tests pass the twin that runs on the CPU.

    Raises
    ------
    RuntimeError
        If no device can be used; the message says why and what to do.
    """

    def __init__(
        self,
        cell: str,
        dtype: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_directions: int,
        reverse: bool,
        bias: bool,
        *,
        make: Callable[..., _cuda.Stack] | None = None,
    ) -> None:
        if make is None:
            require_device()
            prepare_cublas()
        self.op = CELLS[cell].op
        self.dtype = dtype
        self.chunk_bytes = 0  # of input projections kept at a time; 0: the default
        self.path = path_from_environment()  # "auto"; "fused": not the resident path; "stepwise": neither
        self._kernels = (make or _cuda.Stack)(
            cell, dtype, input_size, hidden_size, num_layers, num_directions, reverse, bias
        )

    def forward(
        self,
        weights: Sequence[Any],
        x: Any,
        h0: Any,
        c0: Any,
        lengths: Any,
        batch_first: bool,
        training: bool,
        serial: int = 0,
    ) -> tuple[Any, Any, Any, Any]:
        """Compute (y, h, c, tape); c is None for cells without one, the tape in inference.

        Arguments as those of the layers; ``weights`` in the order of ``params``, whose ``serial`` is of no use here:
        they are read where they are. Results are arrays of x's library.
        The tape refers to x, the initial state and the weights: leave them as they are until ``backward``.
        """
        library = library_of(self.op, "x", x)
        call = _Call(self.op, library)
        x_view = call.input("x", x)
        device = call.device = x_view.device
        y_shape, state_shape, has_c = self.output_shapes(x_view.shape, batch_first)
        views = [call.input(f"weights[{i}]", w, dense=True) for i, w in enumerate(weights)]
        h0_view, c0_view = call.optional("h0", h0), call.optional("c0", c0)
        y, h = (library.empty(shape, self.dtype, device) for shape in (y_shape, state_shape))
        c = library.empty(state_shape, self.dtype, device) if has_c else None
        tf32 = get_tf32()

        def run() -> _cuda.Tape | None:
            return self._kernels.forward(
                list(views),
                x_view,
                h0_view,
                c0_view,
                _lengths(lengths),
                batch_first,
                library.view(y),
                library.view(h),
                None if c is None else library.view(c),
                training,
                library.stream(device),
                tf32,
                self.chunk_bytes,
                self.path,
            )

        try:
            core = _with_free_memory(library, run)
        finally:
            keep_until_done(library, device, call.foreign)
        tape = None if core is None else Tape(core, call, x_view, state_shape, has_c, self.dtype)
        return library.result(y), library.result(h), None if c is None else library.result(c), tape

    def output_shapes(self, x: tuple[int, ...], batch_first: bool) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        """Return the shapes of y and of a state, and whether there is a c, for x of this shape; ValueError if wrong."""
        return self._kernels.outputs(x, batch_first)

    def convert(self, source: _cuda.View, target: _cuda.View, stream: int) -> None:
        """Round float32 to the dtype of this stack; or widen from there, and add to what is in ``target``."""
        self._kernels.convert(source, target, stream)

    def plan(self, time: int, batch: int) -> str:
        """Return which path a call on the current device takes, in words."""
        return self._kernels.plan(time, batch, self.path)

    def stream(self, weights: Sequence[Any], batch_size: int) -> Any:
        """Raise: single steps are served by the CPU."""
        raise RuntimeError(f"{self.op}: stream runs on the CPU; use layer.to('cpu').stream(...)")


class Tape:
    """What a training call keeps for its backward, and the arrays that it refers to."""

    def __init__(
        self, core: _cuda.Tape, call: _Call, x: _cuda.View, state_shape: tuple[int, ...], has_c: bool, dtype: str
    ) -> None:
        self._core, self._keep, self._foreign = core, call.keep, call.foreign
        self._op, self._library, self._device = call.op, call.library, x.device
        self._stream = call.library.stream(x.device)
        self._x_shape, self._state_shape, self._has_c, self._dtype = x.shape, state_shape, has_c, dtype

    def backward(
        self, dy: Any, dh: Any, dc: Any, gradients: Sequence[Any], want_dx: bool = True
    ) -> tuple[Any, Any, Any]:
        """Add the gradients of the weights into ``gradients``; return (dx, dh0, dc0)."""
        library, device = self._library, self._device
        call = _Call(self._op, library, device)
        dy_view, dh_view, dc_view = (call.optional(n, a) for n, a in (("dy", dy), ("dh", dh), ("dc", dc)))
        targets = [call.target(f"gradients[{i}]", g) for i, g in enumerate(gradients)]
        dx = library.empty(self._x_shape, self._dtype, device) if want_dx else None
        dh0 = library.empty(self._state_shape, self._dtype, device)
        dc0 = library.empty(self._state_shape, self._dtype, device) if self._has_c else None
        dx_view, dh0_view, dc0_view = (None if a is None else library.view(a) for a in (dx, dh0, dc0))
        stream = library.stream(device)

        def run() -> None:
            self._core.backward(dy_view, dh_view, dc_view, list(targets), dx_view, dh0_view, dc0_view, stream)

        try:
            _with_free_memory(library, run)
        finally:
            # Once given up, what the library owns is used again in the order of the stream of the forward.
            kept = self._foreign if stream == self._stream else self._keep
            keep_until_done(library, device, kept + call.foreign)
        out = [None if a is None else library.result(a) for a in (dx, dh0, dc0)]
        return out[0], out[1], out[2]


class _Call:
    """The arrays of one call as views.

    ``keep`` holds what must live as long as they; ``foreign`` those of them whose libraries would use the memory again
    before the device is done with it.
    """

    def __init__(self, op: str, library: Library, device: int | None = None) -> None:
        self.op, self.library, self.device = op, library, device
        self.keep: list[Any] = []
        self.foreign: list[Any] = []

    def input(self, name: str, array: Any, dense: bool = False) -> _cuda.View:
        """Return the view of an array, or of a copy in C order where the kernels could not read it as it lies."""
        library = self._library_for(name, array)
        given, view = array, library.view(array, self.device)
        if _needs_copy(view, dense):
            array = library.dense(array)
            view = library.view(array, self.device)
        self.keep += [array, view]
        if not library.owns(given):
            self.foreign += [given, array, view]
        return view

    def optional(self, name: str, array: Any) -> _cuda.View | None:
        return None if array is None else self.input(name, array)

    def target(self, name: str, array: Any) -> _cuda.View:
        """Return the view of an array that is written to: never a copy."""
        view = self._library_for(name, array).view(array, self.device)
        self.keep += [array, view]
        return view

    def _library_for(self, name: str, array: Any) -> Library:
        """Return x's library for its own arrays; those of others come by DLPack, which makes the streams agree."""
        library = library_of(self.op, name, array)
        if library.name == self.library.name:
            return self.library
        return library if library.name == "numpy" else by_protocol(array, self.library)


_waiting: list[tuple[Callable[[], bool], list[Any]]] = []
_waiting_lock = Lock()


def keep_until_done(library: Library, device: int, arrays: list[Any]) -> None:
    """Hold arrays until the device has come to this point of the library's current stream, and let go of earlier ones.

    Other libraries give memory to somebody else as soon as nobody holds it, in the order of streams of their own.
    """
    with _waiting_lock:
        _waiting[:] = [(done, held) for done, held in _waiting if not done()]
        if arrays and (done := library.mark(device)) is not None:
            _waiting.append((done, arrays))


def _needs_copy(view: _cuda.View, dense: bool) -> bool:
    if 0 in view.shape:
        return False
    expected = 1
    for size, stride in reversed(list(zip(view.shape, view.strides, strict=True))):
        if size > 1 and stride != expected:
            return True
        if not dense:
            return False
        expected *= size
    return False


def _lengths(lengths: Any) -> Any:
    """Return lengths on the CPU: they decide which work is put on the stream."""
    if lengths is None or isinstance(lengths, (np.ndarray, list, tuple)):
        return lengths
    return library_of("lengths", "lengths", lengths).to_numpy(lengths)


def _with_free_memory(library: Library, run: Callable[[], T]) -> T:
    """Run a call; if the device has no memory for it, once more after the caller's library gave up what it hoards.

    That is safe for gradients too: once the kernels have added to one, they raise another error.
    """
    try:
        return run()
    except MemoryError:
        library.release_cached()
        return run()


class DeviceBackend:
    """How ``fusedrnn.functional`` calls the kernels: for the array library of x, one call and its backward."""

    Stack = Stack

    def __init__(self, op: str, x: Any) -> None:
        self._library = library_of(op, "x", x)
        view = self._library.view(x)
        self.dtype, self._device = view.dtype, view.device

    def zeros(self, like: Any) -> Any:
        """Return zeros of the shape of a weight, into which the kernels may add."""
        return self._library.zeros(tuple(like.shape), self.dtype, self._device)

    def result(self, array: Any) -> Any:
        """Return what ``zeros`` made as the caller should see it."""
        return self._library.result(array)
