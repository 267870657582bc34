"""What the importers share: recurrent layers from another framework's weights, and models from a chain of layers.

Here is the one place that asks whether a layer's constructor takes what a file wants of it.
"""

from .assembly import Pool, assemble
from .cells import CellSpec, Option, recurrent_layer, same_but_for_weights, with_weights

__all__ = ["CellSpec", "Option", "Pool", "assemble", "recurrent_layer", "same_but_for_weights", "with_weights"]
