"""What Python knows of the cells, in one table: their gates, by letters. The formulas are in csrc/cells."""

from __future__ import annotations

from typing import NamedTuple

SIGMOID = "ifozr"  # the gates with values in (0, 1)


class Cell(NamedTuple):
    """The letters of a cell.

    Attributes
    ----------
    op : str
        Name of the cell in errors.
    gates : str
        The blocks of W_ih and W_hh, in torch's order; the one block of a cell without gates is h.
    slots : str
        What a tape keeps of a step, in the order of the kernel; m = W_n h + b_hn.
    shown : str
        What ``diagnostics.gate_trace`` shows, in this order.
    """

    op: str
    gates: str
    slots: str
    shown: str


CELLS = {
    "rnn_tanh": Cell("RNN", "h", "h", "h"),
    "rnn_relu": Cell("RNN", "h", "h", "h"),
    "lstm": Cell("LSTM", "ifgo", "ifgo", "ifogch"),
    "gru": Cell("GRU", "rzn", "mrzn", "rznh"),
}
