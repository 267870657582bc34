"""What a recurrent layer is made of: arguments, judged; parameters to begin with; the kernels of a device."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..allocation import Extent, check_extent, check_parameters
from ..arrays.checks import Array, brief, positive_int
from ..cell_table import CELLS
from ..init import Init, recurrent_parameters
from .variants import Variant

if TYPE_CHECKING:
    from .recurrent import Recurrent


def compute_dtype_of(op: str, value: Any, dtype: np.dtype[Any]) -> str | None:
    """Return what the products multiply if that is not dtype."""
    name = value if isinstance(value, (str, type(None))) else getattr(value, "name", value)  # a dtype says its name
    if name is None or (isinstance(name, str) and name == dtype.name):
        return None
    if not isinstance(name, str) or name not in ("bfloat16", "float16") or dtype != np.float32:
        expected = "None, or 'bfloat16' (on cuda also 'float16') with dtype float32"
        raise ValueError(f"{op}: compute_dtype is {brief(value)} with dtype {dtype.name}; expected {expected}")
    return name


def proj_size_of(op: str, value: Any, hidden_size: int, variant: Variant) -> int:
    """Return the size of a projection that an LSTM of this hidden size can have; 0: none."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value == 0:
        return 0
    size = positive_int(op, "proj_size", value)
    if size >= hidden_size:
        raise ValueError(f"{op}: proj_size is {size}; expected less than hidden_size = {hidden_size}")
    others = {
        "peephole": variant.peephole,
        "layer_norm": variant.layer_norm,
        "recurrent_dropout": variant.recurrent_dropout,
        "zoneout": any(variant.zoneout),
    }
    if other := next((name for name, there in others.items() if there), None):
        raise ValueError(f"{op}: proj_size is {size} with {other}; expected one of them")
    return size


def initial_parameters(layer: Recurrent, rng: np.random.Generator, init: Init) -> dict[str, Array]:
    """Return new parameters of a layer by name, in the order of the kernels."""
    inner, units = layer.num_directions * layer.output_size, layer.num_directions * layer.hidden_size
    columns = layer.input_size + (layer.num_layers - 1) * inner
    columns += layer.num_layers * (layer.output_size + 2 * layer.bias)
    cell = CELLS[layer._cell]
    more = 3 * layer.variant.peephole + layer.proj_size
    norms = 0  # of gains and biases, by names
    if layer.variant.layer_norm:
        norms = 2 + layer._has_cell_state * (1 + layer.bias)
        more += 2 * len(cell.gates) + norms - 2
    more *= units * layer.num_layers
    check_parameters(layer.op, len(cell.gates) * units * columns + more, layer.dtype)
    per_direction = 2 + 2 * layer.bias + layer.variant.peephole + bool(layer.proj_size) + norms
    check_extent(layer.op, Extent(names=layer.num_layers * layer.num_directions * per_direction))
    params: dict[str, Array] = {}
    for index in range(layer.num_layers):
        size = inner if index else layer.input_size
        for suffix in ("", "_reverse")[: layer.num_directions]:
            made = recurrent_parameters(
                cell.op.lower(), size, layer.hidden_size, layer.bias, layer.dtype, rng, init, layer.proj_size
            )
            if layer.variant.peephole:  # 0: the cell starts as one without
                made["weight_peephole"] = np.zeros(3 * layer.hidden_size, layer.dtype)
            if layer.variant.layer_norm:
                gates = len(cell.gates) * layer.hidden_size
                made |= {name: np.ones(gates, layer.dtype) for name in ("weight_ln_ih", "weight_ln_hh")}
                if layer._has_cell_state:
                    made["weight_ln_c"] = np.ones(layer.hidden_size, layer.dtype)
                    if layer.bias:
                        made["bias_ln_c"] = np.zeros(layer.hidden_size, layer.dtype)
            params |= {f"{name}_l{index}{suffix}": array for name, array in made.items()}
    return params


def kernels(layer: Recurrent, device: str) -> tuple[_core.Stack, list[_core.Stack]]:
    """Return the kernels for a device: those of all layers, and of each for when dropout parts them."""
    make: Any
    if layer.quantized and device != "cpu":
        raise RuntimeError(f"{layer.op}: {layer.quantized} weights are on the cpu only; expected device 'cpu'")
    plain = layer.variant.plain and not layer.proj_size
    if not plain and device != "cpu":
        what = str(layer.variant) or f"proj_size={layer.proj_size}"
        raise RuntimeError(f"{layer.op}: {what} is on the cpu only; expected device 'cpu'")
    cell = layer._cell if plain else layer.variant.kernel(layer._cell)
    if device == "cpu":
        if layer.compute_dtype == "float16":
            raise RuntimeError(f"{layer.op}: compute_dtype is 'float16'; expected None or 'bfloat16' on cpu")
        options: dict[str, Any] = {} if plain else {"options": layer.variant.kernel_options(layer._books)}
        if layer.proj_size:
            options["proj_size"] = layer.proj_size
        if layer.quantized:  # which sets what the products multiply
            options = {"int8_planes": 2 if layer._quantized_inputs == "int16" else 1}
        elif layer.compute_dtype:
            options["compute_dtype"] = layer.compute_dtype
        make = partial(_core.Stack, **options)
    elif layer.compute_dtype:
        make = partial(import_module("fusedrnn.cuda.mixed").MixedStack, compute_dtype=layer.compute_dtype)
    else:
        make = import_module("fusedrnn.cuda.stack").Stack

    def stack(input_size: int, num_layers: int) -> _core.Stack:
        made: _core.Stack = make(
            cell,
            layer.dtype.name,
            input_size=input_size,
            hidden_size=layer.hidden_size,
            num_layers=num_layers,
            num_directions=layer.num_directions,
            reverse=layer._reverse,
            bias=layer.bias,
        )
        return made

    # Dropout acts between the layers, so in training each of them is a call of its own.
    inner = layer.num_directions * layer.output_size
    layers = range(layer.num_layers if layer.num_layers > 1 and not layer.quantized else 0)
    return stack(layer.input_size, layer.num_layers), [stack(inner if i else layer.input_size, 1) for i in layers]
