"""One fused call on torch's tensors: their addresses go in, tensors made by torch come out."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
_NOTHING = (0, 0, 0)
_MOST_KERNELS = 64


class Config(NamedTuple):
    """What a stack of layers is, apart from its weights' values and dtype."""

    cell: str  # lstm, gru, rnn_tanh, rnn_relu
    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    bias: bool
    compute_dtype: str = ""

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def has_cell_state(self) -> bool:
        """Whether there is a c beside h."""
        return self.cell == "lstm"


def weight_shapes(config: Config) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all weights in torch's order."""
    return _weight_shapes.__wrapped__(config) if torch.compiler.is_compiling() else _weight_shapes(config)


@lru_cache(maxsize=256)
def _weight_shapes(config: Config) -> tuple[tuple[int, ...], ...]:
    rows = {"lstm": 4, "gru": 3}.get(config.cell, 1) * config.hidden_size
    shapes: list[tuple[int, ...]] = []
    for layer in range(config.num_layers):
        inputs = config.directions * config.hidden_size if layer else config.input_size
        slab = [(rows, inputs), (rows, config.hidden_size), *([(rows,)] * (2 * config.bias))]
        shapes += slab * config.directions
    return tuple(shapes)


class Layout(NamedTuple):
    """How the rows of x and y lie."""

    batch_first: bool
    packed: bool = False


class States(NamedTuple):
    """Initial states and those that segments start from, (layers*directions, B, H) each; None stands for zeros."""

    h: Tensor | None = None
    c: Tensor | None = None
    h_restart: Tensor | None = None
    c_restart: Tensor | None = None


NO_STATES = States()
_NO_STATES = (0, 0, 0, 0)


class Kernel:
    """The kernels of one stack, with a copy of the weights in their order, and the calls of them."""

    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        self.config = config
        self.dtype = dtype
        self.core = _core.AddressStack(
            config.cell,
            DTYPES[dtype],
            config.input_size,
            config.hidden_size,
            config.num_layers,
            config.directions,
            config.bias,
            config.compute_dtype,
        )
        self.shapes = weight_shapes(config)
        self.hidden_size = config.hidden_size
        self.has_cell_state = config.has_cell_state
        self.width = config.directions * config.hidden_size
        self.slabs = config.directions * config.num_layers
        # Back through time y is the history of h. torch lets y of a GRU or RNN be changed in place before its backward.
        self.keeps_y = not self.has_cell_state

    def saved_size(self, places: Any) -> Any:
        """Return the elements that a training call keeps of so many places (T*B, or rows of packed arrays)."""
        kept = self.config.num_layers - 1 + self.keeps_y
        return places * (self.core.saved_per_row + kept * self.width)

    def rows(self, x: Tensor, layout: Layout, lengths: Any, resets: Any, batch_sizes: Tensor | None) -> _core.Rows:
        """Return the order of the rows; lengths and resets, (T, B), are tensors on the cpu or None."""
        if batch_sizes is not None:
            return self.core.packed_rows(batch_sizes.tolist())
        batch, time = (x.shape[0], x.shape[1]) if layout.batch_first else (x.shape[1], x.shape[0])
        if lengths is None and resets is None:
            return self.core.rows(time, batch)
        return self.core.rows(
            time, batch, None if lengths is None else lengths.numpy(), None if resets is None else resets.numpy()
        )

    def forward(
        self,
        rows: _core.Rows,
        layout: Layout,
        x: Tensor,
        states: States,
        weights: tuple[int, ...],
        training: bool = False,
        saved: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Any]:
        """Return (y, h, c, tape), given the addresses of the weights.

        Tensors must be those that ``readable`` and ``dense`` return.
        """
        y = x.new_empty(*x.shape[:-1], self.width)
        h = x.new_empty(self.slabs, rows.batch, self.hidden_size)
        c = torch.empty_like(h) if self.has_cell_state else None
        tape = self.core.forward(
            rows,
            weights,
            _view(x, layout),
            _view(y, layout),
            _NO_STATES if states is NO_STATES else addresses(states),
            (h.data_ptr(), 0 if c is None else c.data_ptr()),
            training,
            training and self.keeps_y,
            0 if saved is None else saved.data_ptr(),
            torch.get_num_threads(),
        )
        return y, h, c, tape

    def backward(
        self,
        tape: Any,
        layout: Layout,
        x: Tensor,
        y: Tensor | None,
        states: States,
        weights: Any,
        dy: Tensor | None,
        dh: Tensor | None,
        dc: Tensor | None,
        wants_x: bool,
        wanted: Any,
    ) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
        """Return the gradients of x, of the four states (None where there was none) and of the weights wanted."""
        dx = _empty_like(x) if wants_x else None
        dstates = [None if s is None else _empty_like(s) for s in states]
        dweights = [_empty_like(w) if want else None for w, want in zip(weights, wanted, strict=True)]
        dy, dh, dc = None if dy is None else readable(dy), dense(dh), dense(dc)
        tape.backward(
            _view(x, layout),
            _NOTHING if y is None else _view(y, layout),
            addresses(states),
            _NOTHING if dy is None else _view(dy, layout),
            addresses((dh, dc)),
            _NOTHING if dx is None else _view(dx, layout),
            addresses(dstates),
            addresses(dweights),
            torch.get_num_threads(),
        )
        return dx, dstates, dweights


class Kernels(dict[Any, Kernel]):
    """The kernels of a module by all that they depend on; a copy or a pickle of the module makes its own."""

    def forget_but_few(self) -> None:
        """Make room: a module that changes its settings again and again does not grow."""
        for key in list(self)[: max(len(self) - _MOST_KERNELS + 1, 0)]:
            self.pop(key, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return Kernels, ()


def readable(t: Tensor) -> Tensor:
    """Return a tensor with the last axis dense: itself or a copy."""
    if t.is_neg():
        t = t.resolve_neg()
    return t if t.is_contiguous() or t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous()


def dense(t: Tensor | None) -> Tensor | None:
    """Return a tensor that lies in C order without a gap: itself or a copy."""
    if t is None or (t.is_contiguous() and not t.is_neg()):
        return t
    return t.resolve_neg().contiguous()


def dense_states(states: States) -> States:
    """Return the states, each as ``dense`` does."""
    return states if states is NO_STATES else States(*map(dense, states))


def _empty_like(t: Tensor) -> Tensor:
    return torch.empty_like(t) if t.is_contiguous() else t.new_empty(t.shape)


def addresses(tensors: Any) -> tuple[int, ...]:
    """Return where tensors lie; 0 for None."""
    return tuple([0 if t is None else t.data_ptr() for t in tensors])


def _view(t: Tensor, layout: Layout) -> tuple[int, int, int]:
    stride = t.stride()
    if layout.packed:
        return t.data_ptr(), 0, stride[0]
    if layout.batch_first:
        return t.data_ptr(), stride[1], stride[0]
    return t.data_ptr(), stride[0], stride[1]


_kernels: OrderedDict[tuple[Config, torch.dtype, int], Kernel] = OrderedDict()


def kernel_of(config: Config, weights: Any) -> Kernel:
    """Return the kernels for these weights, known by their address: those of a graph that has no module."""
    key = (config, weights[0].dtype, weights[0].data_ptr())
    found = _kernels.pop(key, None)
    if found is None:
        found = Kernel(config, weights[0].dtype)
        while len(_kernels) >= _MOST_KERNELS:
            _kernels.popitem(last=False)
    _kernels[key] = found
    return found
