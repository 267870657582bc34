"""RNN, LSTM, GRU and their cells for PyTorch: torch.nn's modules over the fused kernels.

``import fusedrnn.torch as ft`` and write ``ft.LSTM`` for ``nn.LSTM``, or call ``ft.replace(model)``. Needs torch 2.6.
"""

try:
    import torch
except ImportError as error:
    raise ImportError("fusedrnn.torch needs PyTorch: pip install torch") from error

if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6):
    raise ImportError(f"fusedrnn.torch: torch is {torch.__version__}; expected 2.6 or newer")

from .cells import GRUCell, LSTMCell, RNNCell
from .modules import GRU, LSTM, RNN
from .replacing import Report, patched, replace, restore

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Report",
    "patched",
    "replace",
    "restore",
]


def __dir__() -> list[str]:
    return __all__
