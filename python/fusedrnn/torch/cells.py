"""RNNCell, LSTMCell and GRUCell: torch's modules for one step over the fused kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .conditions import are_like, is_ours, is_traced
from .conversion import Convertible
from .function import Call, Fused
from .kernel import Config, Kernel, Kernels, Layout, States, addresses, dense, dense_states, readable, weight_shapes

_ONE_STEP = Layout(False)


def pays(cell: str, batch: int, hidden: int) -> bool:
    """Say whether a step is worth a call of the kernels: they look at all weights each time, in case they have changed.

    With few samples that takes as long as the step itself.
    """
    return batch * hidden >= 8192 if cell.startswith("rnn") else batch >= 8


class FusedCellBase(Convertible, nn.RNNCellBase):
    """What RNNCell, LSTMCell and GRUCell share."""

    _cell: str

    def forward(self, input: Tensor, hx: Any = None) -> Any:
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
        weights = [self.weight_ih, self.weight_hh, *([self.bias_ih, self.bias_hh] if self.bias else [])]
        if (
            is_traced()  # torch's compiler makes as much of it
            or not is_ours(input, False)
            or input.dim() not in (1, 2)
            or input.shape[-1] != self.input_size
            or not pays(self._cell, input.numel() // self.input_size, self.hidden_size)
        ):
            return self.torch_class.forward(self, input, hx)
        config = Config(self._cell, self.input_size, self.hidden_size, 1, False, bool(self.bias))
        parts: Any = () if hx is None else hx if config.has_cell_state else (hx,)
        shape = (*input.shape[:-1], self.hidden_size)
        if (
            (hx is not None and (not isinstance(parts, (tuple, list)) or len(parts) != 1 + config.has_cell_state))
            or not are_like(weights, input, weight_shapes(config), True)
            or not are_like(parts, input, (shape,) * len(parts), True)
        ):
            return self.torch_class.forward(self, input, hx)
        unbatched = input.dim() == 1
        x = input[None, None] if unbatched else input[None]
        states = States(*[part[None, None] if unbatched else part[None] for part in parts])
        _, *made = self._call(config, x, states, weights)
        final = [s[0, 0] if unbatched else s[0] for s in made if s is not None]
        return tuple(final) if config.has_cell_state else final[0]

    def _call(
        self, config: Config, x: Tensor, states: States, weights: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        kernels = self.__dict__.get("_kernels")
        if kernels is None:
            kernels = self.__dict__["_kernels"] = Kernels()
        kernel = kernels.get(x.dtype)
        if kernel is None or kernel.config != config:
            kernel = kernels[x.dtype] = Kernel(config, x.dtype)
        rows = kernel.rows(x, _ONE_STEP, None, None, None)
        if torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in (x, *states, *weights)]):
            made: tuple[Tensor, Tensor, Tensor | None] = Fused.apply(
                Call(kernel, _ONE_STEP, rows), x, *states, *weights
            )
            return made
        ready = list(map(dense, weights))  # kept until the call is over
        y, h, c, _ = kernel.forward(rows, _ONE_STEP, readable(x), dense_states(states), addresses(ready))
        return y, h, c


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
