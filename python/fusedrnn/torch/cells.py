"""RNNCell, LSTMCell and GRUCell: torch's modules for one step over the fused kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from .conditions import are_like, is_ours, is_traced
from .conversion import Convertible
from .direct import plain_weights
from .function import Call, Fused
from .kernel import NO_STATES, Config, Kernel, Kernels, Layout, States, dense_states, readable

_ONE_STEP = Layout(False)
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def pays(cell: str, batch: int, hidden: int) -> bool:
    """Say whether a step is worth a call of the kernels: they look at all weights each time, in case they have changed.

    With few samples that takes as long as the step itself.
    """
    return batch * hidden >= 8192 if cell in ("rnn_tanh", "rnn_relu") else batch >= 8 and cell in ("lstm", "gru")


class FusedCellBase(Convertible, nn.RNNCellBase):
    """What RNNCell, LSTMCell and GRUCell share."""

    _cell: str

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Compute h, of an LSTMCell (h, c), after one step, as the module of torch.nn does.

        Parameters
        ----------
        input : Tensor
            (B, I), or (I,) without a batch.
        hx : Tensor or pair, optional
            h, or (h, c) of an LSTMCell, each (B, H) or (H,); zeros by default.

        Raises
        ------
        RuntimeError, ValueError
            As torch's module.
        """
        if isinstance(input, Proxy):
            return self._recorded(input, hx=hx)
        made = self._fused(input, hx)
        return self.torch_class.forward(self, input, hx) if made is None else made

    def _fused(self, input: Any, hx: Any) -> Any:
        """Return what the kernels make of it, or None where torch's own is to run."""
        if torch.compiler.is_compiling() or not isinstance(input, Tensor):  # torch's compiler makes as much of it
            return None
        unbatched = input.dim() == 1
        if not unbatched and input.dim() != 2:
            return None
        cell, hidden, bias, shape = self._cell, self.hidden_size, bool(self.bias), input.shape
        if shape[-1] != self.input_size or not pays(cell, 1 if unbatched else shape[0], hidden):
            return None
        if is_traced() or not is_ours(input, False):
            return None
        kernel = self._kernel(Config(cell, self.input_size, hidden, 1, False, bias), input.dtype)
        plain = plain_weights(_NAMES if bias else _NAMES[:2], self._parameters, kernel.shapes, input.dtype)
        if plain is None:
            return None
        weights, addresses, differentiable = plain
        states = NO_STATES
        x = input[None, None] if unbatched else input[None]
        if hx is not None:
            parts = hx if kernel.has_cell_state else (hx,)
            if not isinstance(parts, (tuple, list)) or len(parts) != 1 + kernel.has_cell_state:
                return None
            if not are_like(parts, input, ((*shape[:-1], hidden),) * len(parts), True):
                return None
            states = States(*[part[None, None] if unbatched else part[None] for part in parts])
            differentiable = differentiable or any([part.requires_grad for part in parts])
        rows = kernel.core.rows(1, x.shape[1])
        if (differentiable or x.requires_grad) and torch.is_grad_enabled():
            _, h, c = Fused.apply(Call(kernel, _ONE_STEP, rows), x, *states, *weights)
        else:
            _, h, c, _ = kernel.forward(rows, _ONE_STEP, readable(x), dense_states(states), addresses)
        h = h[0, 0] if unbatched else h[0]
        return h if c is None else (h, c[0, 0] if unbatched else c[0])

    def _kernel(self, config: Config, dtype: torch.dtype) -> Kernel:
        kernels = self.__dict__.get("_kernels")
        if kernels is None:
            kernels = self.__dict__["_kernels"] = Kernels()
        found: Kernel | None = kernels.get((config, dtype))
        if found is None:
            kernels.forget_but_few()
            found = kernels[config, dtype] = Kernel(config, dtype)
        return found


class RNNCell(FusedCellBase):
    """torch.nn.RNNCell over the fused kernels; arguments, parameters and results are its."""

    torch_class = nn.RNNCell
    __constants__ = nn.RNNCell.__constants__

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    @property
    def _cell(self) -> str:  # type: ignore[override]
        return f"rnn_{self.nonlinearity}"


class LSTMCell(FusedCellBase):
    """torch.nn.LSTMCell over the fused kernels; arguments, parameters and results are its."""

    torch_class = nn.LSTMCell
    _cell = "lstm"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)


class GRUCell(FusedCellBase):
    """torch.nn.GRUCell over the fused kernels; arguments, parameters and results are its."""

    torch_class = nn.GRUCell
    _cell = "gru"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)
