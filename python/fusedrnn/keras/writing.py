"""Weights for Keras to load."""

from __future__ import annotations

import os

import h5py

from ..arrays.checks import Array, described
from ..layers import Layer
from ..layers.quantization import refuse_quantized
from .weights import keras_arrays, named_groups, plain_arrays, slots_of

_SUFFIX = ".weights.h5"


def save_weights(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write the weights of a model so that Keras's ``model.load_weights(path)`` takes them (Keras 3, or 2.13 on).

    The model of Keras has the same layers in the same order: Embedding for Embedding, Dense for Linear, one LSTM, GRU
    or SimpleRNN for each layer of a stack, in a Bidirectional where there are two directions.

    Parameters
    ----------
    model : Layer
        A layer or a model of such layers.
    path : path
        The file; its name ends in ".weights.h5", as Keras demands.

    Raises
    ------
    TypeError
        If ``model`` is no layer.
    ValueError
        For another ending, or a layer that is nothing in Keras.
    OSError
        If the file cannot be written.
    """
    if not isinstance(model, Layer):
        raise TypeError(f"keras.save_weights: model is {described(model)}; expected a Layer")
    refuse_quantized("keras.save_weights", model)
    name = os.fspath(path)
    if not name.endswith(_SUFFIX):
        raise ValueError(f"keras.save_weights: path is {name!r}; expected a name that ends in {_SUFFIX}")
    slots = list(slots_of([model]))
    temporary = f"{name}.{os.urandom(6).hex()}.tmp"
    try:
        with h5py.File(temporary, "w") as file:
            for slot, group in zip(slots, named_groups(slots), strict=True):
                if not slot.cells:
                    _write(file, f"layers/{group}", plain_arrays(slot.layer))
                for cell in slot.cells:
                    _write(file, f"layers/{group}/{cell.path}", keras_arrays(cell))
        os.replace(temporary, name)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _write(file: h5py.File, path: str, arrays: list[Array]) -> None:
    group = file.create_group(f"{path}/vars")
    for index, array in enumerate(arrays):
        group.create_dataset(str(index), data=array)
