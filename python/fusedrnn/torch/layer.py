"""What RNN, LSTM and GRU do in a call: judge the tensors, choose the way, put the results together."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from .arguments import lengths_of, resets_of, restart_states
from .conditions import are_like, is_ours, is_traced
from .conversion import Convertible
from .direct import direct, key_of
from .function import Call, Fused
from .kernel import (
    NO_STATES,
    Config,
    Kernel,
    Kernels,
    Layout,
    States,
    addresses,
    dense,
    dense_states,
    readable,
    weight_shapes,
)
from .ops import traced_call
from .reference import run_torch

_CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


@lru_cache(maxsize=256)
def _config_of(mode: str, inputs: int, hidden: int, layers: int, both: bool, bias: bool, dtype: str | None) -> Config:
    return Config(_CELLS[mode], inputs, hidden, layers, bool(both), bool(bias), dtype or "")


class _Cut(NamedTuple):
    """Where samples end and start again."""

    lengths: Tensor | None = None
    resets: Tensor | None = None  # (T, B)
    batch_sizes: Tensor | None = None


_UNCUT = _Cut()
_TIME_MAJOR, _BATCH_MAJOR, _PACKED = Layout(False), Layout(True), Layout(False, True)


class FusedBase(Convertible, nn.RNNBase):
    """What RNN, LSTM and GRU share."""

    compute_dtype: str | None = None

    def __init__(self, mode: str, *args: Any, compute_dtype: str | None = None, **kwargs: Any) -> None:
        if compute_dtype not in (None, "bfloat16"):
            op = type(self).__name__
            raise ValueError(f"{op}: compute_dtype is {compute_dtype!r}; expected None or 'bfloat16'")
        super().__init__(mode, *args, **kwargs)
        self.compute_dtype = compute_dtype

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        extra = f", compute_dtype={self.compute_dtype}" if self.compute_dtype else ""
        return super().extra_repr() + extra

    def forward(
        self, input: Any, hx: Any = None, *, lengths: Any = None, resets: Any = None, reset_state: Any = None
    ) -> Any:
        """Compute (output, h_n), of an LSTM (output, (h_n, c_n)), as the module of torch.nn does.

        Parameters
        ----------
        input : Tensor or PackedSequence
            (T, B, I), or (B, T, I) with ``batch_first``; (T, I) without a batch.
        hx : Tensor or pair, optional
            Initial state h0, or (h0, c0) of an LSTM, each (num_layers*num_directions, B, H); zeros by default.
        lengths : Tensor or array_like of int (B,), optional
            Valid steps of each sample, in any order, 0 allowed: what a packed sequence says, without packing. The
            output past a sample's end is 0, the final state is the one at its end.
        resets : Tensor of bool, optional
            Laid out as the input, (T, B) or (B, T): before a marked step the state is zero again, or ``reset_state``.
            A reverse direction starts again where it enters the steps before a marked one.
        reset_state : Tensor or pair, optional
            Shaped as hx: the state after a reset.

        Returns
        -------
        output : Tensor or PackedSequence
            (T, B, num_directions*H), laid out as the input.
        state : Tensor or tuple
            h_n, or (h_n, c_n), shaped as hx.

        Raises
        ------
        RuntimeError, ValueError
            As torch's module; ValueError and TypeError for lengths, resets and reset_state.
        """
        if isinstance(input, Proxy):
            return self._recorded(input, hx=hx, lengths=lengths, resets=resets, reset_state=reset_state)
        cut = lengths is not None or resets is not None
        if cut or reset_state is not None:
            self._check_cut(input, cut)
        elif (made := direct(self, input, hx)) is not None:
            return made
        traced = is_traced()
        weights = self._weights()
        batch_sizes = order = unsorted_indices = None
        x = input
        if isinstance(input, PackedSequence):
            x, batch_sizes, order, unsorted_indices = input
        ours = is_ours(x, traced)
        plain = ours and not traced
        packed = batch_sizes is not None
        layout = _PACKED if packed else _BATCH_MAJOR if self.batch_first else _TIME_MAJOR
        if not (ours or cut):
            return self.torch_class.forward(self, input, hx)
        config = self._config(x)
        if not self._fits(x, packed, weights, config, plain):
            return self._by_torch(input, hx, cut)
        unbatched = x.dim() == 2 and not packed
        if unbatched:
            x = x.unsqueeze(0 if layout.batch_first else 1)
        batch = int(batch_sizes[0]) if batch_sizes is not None else x.shape[0 if layout.batch_first else 1]
        states = self._states(hx, x, batch, unbatched, plain)
        if states is None:
            return self._by_torch(input, hx, cut)
        limits = _Cut(batch_sizes=batch_sizes) if packed else _UNCUT
        if cut:
            states, limits = self._limits(x, layout, unbatched, states, lengths, resets, reset_state)
        elif order is not None:
            states = (
                States(*(None if s is None else s.index_select(1, order) for s in states))
                if states is not NO_STATES
                else states
            )
        y, h, c = self._layers(config, weights, layout, x, states, limits, ours, traced)
        output: Any = y
        if packed:
            output = PackedSequence(y, batch_sizes, order, unsorted_indices)
            if unsorted_indices is not None:
                h = h.index_select(1, unsorted_indices)
                c = None if c is None else c.index_select(1, unsorted_indices)
        elif unbatched:
            output, h = y.squeeze(0 if layout.batch_first else 1), h.squeeze(1)
            c = None if c is None else c.squeeze(1)
        return output, (h if c is None else (h, c))

    def _check_cut(self, input: Any, cut: bool) -> None:
        op = type(self).__name__
        if not cut:
            raise ValueError(f"{op}: reset_state is given without resets; expected both")
        if isinstance(input, PackedSequence):
            raise ValueError(f"{op}: lengths or resets are given with a PackedSequence; expected a tensor")
        if not isinstance(input, Tensor):
            raise TypeError(f"{op}: input is a {type(input).__name__}; expected a tensor")
        if self.proj_size:
            raise ValueError(f"{op}: lengths or resets are given with proj_size = {self.proj_size}; expected 0")

    def _by_torch(self, input: Any, hx: Any, cut: bool) -> Any:
        """Let torch's module decide, or find the words for what is wrong."""
        if not cut:
            return self.torch_class.forward(self, input, hx)
        self.torch_class.forward(self, input.detach(), hx)
        raise ValueError(f"{type(self).__name__}: input and weights differ in dtype or device; expected the same")

    def _weights(self) -> list[Any]:
        # Looked up in each call: weight_norm, functional_call and others put tensors of their own in their place.
        parameters = self._parameters
        weights: list[Any] = []
        for name in self._flat_weights_names:
            w = parameters.get(name)
            weights.append(getattr(self, name, None) if w is None else w)
        return weights

    def _config(self, x: Any) -> Config:
        # torch's compiler warns of a cache, through which it looks.
        make = _config_of.__wrapped__ if torch.compiler.is_compiling() else _config_of
        return make(
            self.mode,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bidirectional,
            self.bias,
            self.compute_dtype if self.compute_dtype and x.dtype == torch.float32 else None,
        )

    def _fits(self, x: Tensor, packed: bool, weights: list[Any], config: Config, plain: bool) -> bool:
        """Return whether shapes and dtypes are what they should be."""
        rank = x.dim()
        if self.proj_size or x.shape[-1] != self.input_size or (rank != 2 if packed else rank not in (2, 3)):
            return False
        if x.shape[1 if self.batch_first and rank == 3 else 0] == 0:
            return False
        return are_like(weights, x, weight_shapes(config), plain)

    def _states(self, hx: Any, x: Tensor, batch: int, unbatched: bool, plain: bool) -> States | None:
        """Return the initial states with a batch axis; None where torch is to find the words."""
        if hx is None:
            return NO_STATES
        pair = self.mode == "LSTM"
        if pair and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            return None
        slabs = self.num_layers * (2 if self.bidirectional else 1)
        shape = (slabs, self.hidden_size) if unbatched else (slabs, batch, self.hidden_size)
        parts = hx if pair else (hx,)
        if not are_like(parts, x, (shape,) * len(parts), plain):
            return None
        return States(*[part.unsqueeze(1) for part in parts] if unbatched else parts)

    def _limits(
        self, x: Tensor, layout: Layout, unbatched: bool, states: States, lengths: Any, resets: Any, reset_state: Any
    ) -> tuple[States, _Cut]:
        op = type(self).__name__
        if unbatched and lengths is not None:
            raise ValueError(f"{op}: lengths is given for an input without a batch; expected (batch, time, input)")
        batch, time = (x.shape[0], x.shape[1]) if layout.batch_first else (x.shape[1], x.shape[0])
        shape = (self.num_layers * (2 if self.bidirectional else 1), batch, self.hidden_size)
        restart = restart_states(op, reset_state, self.mode == "LSTM", shape, x, unbatched)
        ends = lengths_of(op, lengths, batch, time)
        marks = resets_of(op, resets, time, batch, layout.batch_first, unbatched)
        return States(states.h, states.c, *restart), _Cut(ends, marks)

    def _layers(
        self, config: Config, weights: list[Any], layout: Layout, x: Tensor, states: States, cut: _Cut, ours: bool,
        traced: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Return (y, h, c) of all layers: in one call, or layer by layer where dropout acts between them."""
        if not (self.training and self.dropout and self.num_layers > 1):
            return self._call(config, -1, weights, layout, x, states, cut, ours, traced)
        # As torch draws its masks: over (T, B, directions*H).
        time_major = Layout(False, layout.packed)
        y = x.transpose(0, 1) if layout.batch_first else x
        finals: list[tuple[Tensor, Tensor | None]] = []
        count, step = len(weights) // self.num_layers, (2 if self.bidirectional else 1)
        for layer in range(self.num_layers):
            one = config._replace(input_size=step * config.hidden_size if layer else config.input_size, num_layers=1)
            mine = States(*[None if s is None else s[layer * step : (layer + 1) * step] for s in states])
            part = weights[layer * count : (layer + 1) * count]
            y, h, c = self._call(one, layer, part, time_major, y, mine, cut, ours, traced)
            finals.append((h, c))
            if layer + 1 < self.num_layers:
                y = dropout(y, self.dropout, True)
        all_h = torch.cat([h for h, _ in finals])
        all_c = None if finals[0][1] is None else torch.cat([c for _, c in finals if c is not None])
        return y.transpose(0, 1) if layout.batch_first else y, all_h, all_c

    def _call(
        self, config: Config, layer: int, weights: list[Any], layout: Layout, x: Tensor, states: States, cut: _Cut,
        ours: bool, traced: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Return (y, h, c) of one fused call; layer -1 stands for all of them."""
        if not ours:
            return run_torch(config, layout, x, states, weights, *cut)
        if traced:
            return traced_call(config, layout, x, states, weights, *cut)
        kernel = self._kernel(config, layer, x.dtype)
        rows = kernel.rows(x, layout, *cut)
        if torch.is_grad_enabled() and (
            x.requires_grad
            or any([w.requires_grad for w in weights])
            or (states is not NO_STATES and any([s is not None and s.requires_grad for s in states]))
        ):
            results: tuple[Tensor, Tensor, Tensor | None] = Fused.apply(
                Call(kernel, layout, rows, *cut), x, *states, *weights
            )
            return results
        ready = list(map(dense, weights))  # kept until the call is over
        y, h, c, _ = kernel.forward(rows, layout, readable(x), dense_states(states), addresses(ready))
        return y, h, c

    def _kernel(self, config: Config, layer: int, dtype: torch.dtype) -> Kernel:
        kernels = self.__dict__.get("_kernels")
        if kernels is None:
            kernels = self.__dict__["_kernels"] = Kernels()
        key = key_of(self, dtype) if layer < 0 else (layer, config, dtype)
        found: Kernel | None = kernels.get(key)
        if found is None:
            kernels.forget_but_few()
            found = kernels[key] = Kernel(config, dtype)
        return found
