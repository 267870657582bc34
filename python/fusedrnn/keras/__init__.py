"""Models in Keras's files, read and written without TensorFlow, JAX or Keras.

Needs h5py: ``pip install h5py``.
"""

try:
    import h5py as _installed  # noqa: F401
except ImportError as _error:
    raise ImportError("fusedrnn.keras needs h5py: pip install h5py") from _error

from .reading import load
from .writing import save_weights

__all__ = ["load", "save_weights"]


def __dir__() -> list[str]:
    return __all__
