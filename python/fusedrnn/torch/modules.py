"""RNN, LSTM and GRU: torch's modules over the fused kernels."""

from __future__ import annotations

from typing import Any

from torch import nn

from .layer import FusedBase


class RNN(FusedBase):
    """torch.nn.RNN over the fused kernels; arguments, parameters and results are its, and ``compute_dtype`` ours.

    ``h(t) = tanh(W_ih x(t) + b_ih + W_hh h(t-1) + b_hh)``, or relu (Elman 1990).
    """

    torch_class = nn.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        compute_dtype: str | None = None,
    ) -> None:
        if proj_size:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        self.nonlinearity = nonlinearity
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            compute_dtype=compute_dtype,
        )


class LSTM(FusedBase):
    """torch.nn.LSTM over the fused kernels; arguments, parameters and results are its, and ``compute_dtype`` ours.

    ``i, f, o = sigmoid(W_ih x(t) + b_ih + W_hh h(t-1) + b_hh)``, ``g = tanh(...)``, ``c(t) = f c(t-1) + i g``,
    ``h(t) = o tanh(c(t))`` (Hochreiter & Schmidhuber 1997; Gers et al. 2000). With ``proj_size`` torch's own runs.
    """

    torch_class = nn.LSTM
    # What torch's forward calls of itself, for when it runs.
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]
    permute_hidden = nn.LSTM.permute_hidden  # type: ignore[assignment]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        compute_dtype: str | None = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            compute_dtype=compute_dtype,
        )


class GRU(FusedBase):
    """torch.nn.GRU over the fused kernels; arguments, parameters and results are its, and ``compute_dtype`` ours.

    ``r, z = sigmoid(W_ih x(t) + b_ih + W_hh h(t-1) + b_hh)``, ``n = tanh(W_in x(t) + b_in + r (W_hn h(t-1) + b_hn))``,
    ``h(t) = (1-z) n + z h(t-1)`` (Cho et al. 2014).
    """

    torch_class = nn.GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        compute_dtype: str | None = None,
    ) -> None:
        if proj_size:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            compute_dtype=compute_dtype,
        )
