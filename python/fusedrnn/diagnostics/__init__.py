"""Look inside recurrent layers: how gradients travel through time, and what the gates do.

Here is what watches a model and changes nothing in it, with its figures. Training and inference import nothing of it.
"""

from .direction_flow import DirectionFlow, GradientFlow
from .flow import gradient_flow
from .flow_plot import plot_gradient_flow
from .gates import DirectionTrace, GateTrace, Saturation, gate_trace
from .powers import power_norms, spectral_norm, spectral_radius

__all__ = [
    "DirectionFlow",
    "DirectionTrace",
    "GateTrace",
    "GradientFlow",
    "Saturation",
    "gate_trace",
    "gradient_flow",
    "plot_gradient_flow",
    "power_norms",
    "spectral_norm",
    "spectral_radius",
]


def __dir__() -> list[str]:
    return __all__
