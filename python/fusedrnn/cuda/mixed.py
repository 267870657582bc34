"""Stacks with float32 arrays whose kernels take 16 bits: ``compute_dtype`` of layers on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .. import _cuda
from .array_libraries import Library, NarrowArray, library_of, narrow_library
from .stack import Stack, Tape, keep_until_done


class MixedStack:
    """A stack whose inputs, outputs, parameters and gradients are float32.

    Whatever goes into the kernels is rounded to ``compute_dtype``, and what comes out of them has its precision; sums,
    states and gate functions are float32 inside. That is what ``torch.autocast`` does around a layer.

    Parameters
    ----------
    cell, dtype, sizes, make
        As :class:`Stack`; dtype is "float32".
    compute_dtype : {"bfloat16", "float16"}
        Type that the kernels compute with.
    """

    def __init__(
        self,
        cell: str,
        dtype: str,
        *sizes: Any,
        compute_dtype: str,
        make: Callable[..., _cuda.Stack] | None = None,
        **named_sizes: Any,
    ) -> None:
        self._stack = Stack(cell, compute_dtype, *sizes, make=make, **named_sizes)
        self.op = self._stack.op
        self.stream, self.plan = self._stack.stream, self._stack.plan
        self._dtype, self._compute_dtype = dtype, compute_dtype
        # At addresses that stay, because recorded loops depend on them; and where these are.
        self._weights: list[NarrowArray] = []
        self._place: tuple[str, int] | None = None

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
        """Compute (y, h, c, tape), as ``Stack.forward``. The tape refers to a copy of x and to one of the weights.

        The copy of the weights is made anew by every call: leave them as they are until ``backward``.
        """
        library = library_of(self.op, "x", x)
        view = library.view(x)
        self._stack.output_shapes(view.shape, batch_first)  # raises for a wrong x, before anything is copied
        narrow = narrow_library(library, self._compute_dtype)
        conversion = partial(_Conversion, self._stack, library, self._dtype, narrow, view.device)
        with conversion() as convert:
            if self._place != (library.name, view.device) or len(self._weights) != len(weights):
                self._weights, self._place = [convert.rounded(w) for w in weights], (library.name, view.device)
            else:
                self._weights = [convert.rounded(w, old) for w, old in zip(weights, self._weights, strict=True)]
            x, h0, c0 = (None if a is None else convert.rounded(a) for a in (x, h0, c0))
            *outputs, tape = self._stack.forward(self._weights, x, h0, c0, lengths, batch_first, training, serial)
            y, h, c = (None if out is None else convert.widened(out) for out in outputs)
        return y, h, c, None if tape is None else MixedTape(tape, conversion)


class MixedTape:
    """The tape of such a call."""

    def __init__(self, tape: Tape, conversion: Callable[[], _Conversion]) -> None:
        self._tape, self._conversion = tape, conversion

    def backward(
        self, dy: Any, dh: Any, dc: Any, gradients: Sequence[Any], want_dx: bool = True
    ) -> tuple[Any, Any, Any]:
        """Add the gradients of the weights into ``gradients``; return (dx, dh0, dc0)."""
        with self._conversion() as convert:
            dy, dh, dc = (None if d is None else convert.rounded(d) for d in (dy, dh, dc))
            sums = [convert.zeros(gradient) for gradient in gradients]
            narrow = self._tape.backward(dy, dh, dc, sums, want_dx)
            dx, dh0, dc0 = (None if d is None else convert.widened(d) for d in narrow)
            # Last: nothing is added if memory runs out before.
            for gradient, total in zip(gradients, sums, strict=True):
                convert.add(total, gradient)
        return dx, dh0, dc0


class _Conversion:
    """Between the arrays of a library and narrow ones, on one device, in the library's current stream.

    Leaving it holds what was rounded in it until the device is done, as ``keep_until_done`` says.
    """

    def __init__(self, stack: Stack, library: Library, dtype: str, narrow: Library, device: int) -> None:
        self._stack, self._library, self._dtype = stack, library, dtype
        self._narrow, self._device = narrow, device
        self._foreign: list[Any] = []

    def __enter__(self) -> _Conversion:
        return self

    def __exit__(self, *_: object) -> None:
        keep_until_done(self._library, self._device, self._foreign)

    def rounded(self, array: Any, target: NarrowArray | None = None) -> NarrowArray:
        """Return an array rounded: in ``target``, if that has its shape."""
        given, array = array, self._library.dense(array)
        view = self._library.view(array, self._device)
        if not self._library.owns(given):
            self._foreign += [given, array, view]
        if target is None or self._narrow.view(target).shape != view.shape:
            fresh: NarrowArray = self._narrow.empty(view.shape, "", self._device)
            target = fresh
        self._convert(view, self._narrow.view(target))
        return target

    def zeros(self, like: Any) -> NarrowArray:
        """Return narrow zeros of the shape of an array."""
        zeros: NarrowArray = self._narrow.zeros(self._library.view(like, self._device).shape, "", self._device)
        return zeros

    def widened(self, array: NarrowArray) -> Any:
        """Return a narrow array as one of the library."""
        wide = self._library.zeros(self._narrow.view(array).shape, self._dtype, self._device)
        self.add(array, wide)
        return self._library.result(wide)

    def add(self, array: NarrowArray, to: Any) -> None:
        """Add a narrow array to one of the library."""
        self._convert(self._narrow.view(array), self._library.view(to, self._device))

    def _convert(self, source: _cuda.View, target: _cuda.View) -> None:
        self._stack.convert(source, target, self._library.stream(self._device))
