"""How composites and ``fit`` call a layer of any kind: with what describes the batch where it takes it, y by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arrays.checks import as_array
from ..arrays.lengths import without_padding
from .protocol import LayerProtocol


def run(layer: Any, training: bool, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Call ``layer.forward`` in training, else the layer itself; return (outputs, tape or None)."""
    return layer.forward(*args, **kwargs) if training else (layer(*args, **kwargs), None)


def run_layer(layer: Any, training: bool, x: Any, lengths: Any, resets: Any = None) -> tuple[Any, Any, Any]:
    """Call a layer of any kind; return (y, state, tape), with None for what there is not."""
    outputs, tape = run(layer, training, x, **options(layer, lengths, resets))
    y, state = outputs if isinstance(outputs, tuple) else (outputs, None)
    return y, state, tape


def run_on(layer: Any, training: bool, x: Any, lengths: Any, state: Any, resets: Any = None) -> tuple[Any, Any, Any]:
    """Call a layer of any kind from a state on, None for zeros; return (y, state, tape), with None for what is not."""
    if layer.carried_sizes() is None:
        return run_layer(layer, training, x, lengths)
    wanted = {} if layer.state_sizes() is not None else {"return_state": True}
    (y, state), tape = run(layer, training, x, state=state, **wanted, **options(layer, lengths, resets))
    return y, state, tape


def backward_on(layer: Any, tape: Any, d: Any, dstate: Any) -> tuple[Any, Any]:
    """Return (dx, dstate0) of what ``run_on`` did; None for d, dstate and either result stands for zeros."""
    if layer.carried_sizes() is None:
        return (None if d is None else first(layer.backward(tape, d))), None
    if d is None and dstate is None:
        return None, None
    dx, dstate0 = layer.backward(tape, d, dstate=dstate)
    return dx, dstate0


def check_carried(op: str, layer: LayerProtocol) -> None:
    """Raise ValueError if there is no state that a call could take or return."""
    if layer.carried_sizes() is None:
        raise ValueError(f"{op}: state= and return_state= need a layer with a state inside; there is none")


def check_gradients(op: str, carried: bool, dy: Any, dstate: Any) -> None:
    """Raise ValueError for gradients that do not belong to a composite's tape, ``carried`` if it has return_state."""
    if dstate is not None and not carried:
        raise ValueError(f"{op}: dstate is given; expected None for a tape without return_state=True")
    if carried and dy is None and dstate is None:
        raise ValueError(f"{op}: dy and dstate are None; expected at least one gradient")


def forward_layer(layer: Any, x: Any, lengths: Any, resets: Any = None) -> tuple[Any, Any]:
    """Call ``layer.forward``, with lengths if it takes them; return (y, tape) without a recurrent layer's state."""
    return forward_inputs(layer, (x,), lengths, resets)


def call_layer(layer: Any, x: Any, lengths: Any, resets: Any = None) -> Any:
    """Call ``layer`` for inference, with lengths if it takes them; return y without a recurrent layer's state."""
    return call_inputs(layer, (x,), lengths, resets)


def forward_inputs(layer: Any, inputs: tuple[Any, ...], lengths: Any, resets: Any = None) -> tuple[Any, Any]:
    """As ``forward_layer``, for a layer of several inputs."""
    outputs, tape = layer.forward(*inputs, **options(layer, lengths, resets))
    return first(outputs), tape


def call_inputs(layer: Any, inputs: tuple[Any, ...], lengths: Any, resets: Any = None) -> Any:
    """As ``call_layer``, for a layer of several inputs."""
    return first(layer(*inputs, **options(layer, lengths, resets)))


def options(layer: LayerProtocol, lengths: Any, resets: Any = None) -> dict[str, Any]:
    """Return the keywords of a call: of what describes the batch, what is there and the layer takes."""
    given: dict[str, Any] = {"lengths": lengths} if lengths is not None and "lengths" in layer.takes else {}
    if resets is not None and "resets" in layer.takes and layer.carried_sizes() is not None:
        given["resets"] = resets
    return given


def check_resets(op: str, resets: Any, *layers: Any) -> None:
    """Raise ValueError for resets that no layer, or not every one with a state, could heed."""
    if resets is None:
        return
    with_state = [layer for layer in layers if any(each.state_sizes() is not None for each in layer.layers())]
    if not with_state:
        raise ValueError(f"{op}: resets is given, but no layer has a state; expected None")
    for layer in with_state:
        if "resets" not in layer.takes or layer.carried_sizes() is None:
            raise ValueError(f"{op}: resets is given, but {layer.op} cannot start its state again; expected None")


def clean_input(op: str, layer: LayerProtocol, x: Any, lengths: Any, *, time_major: bool = False) -> Any:
    """Return x (B, T, I), or tokens (B, T), as a layer can read it that knows no lengths: with 0 past a sample's end.

    So what is there reaches no gradient, and any token may be there. For a layer that takes lengths, x comes back as it
    is; so do vectors (B, I).
    """
    if lengths is None or "lengths" in layer.takes:
        return x
    array = as_array(op, "x", x, layer.xp)
    reads = layer.input_shape()
    if array.ndim < (len(reads) if "T" in reads else 3):
        return x
    if time_major:
        return without_padding(op, array.swapaxes(0, 1), lengths).swapaxes(0, 1)
    return without_padding(op, array, lengths)


def frozen_bottom(layers: Sequence[Any]) -> int:
    """Return how many of the first layers of a chain need no backward: frozen ones, up to the first that learns.

    0 if none learns, as then the gradient of the input is all that a backward can be for, or if none is frozen.
    """
    if all(layer.trainable for layer in layers):
        return 0
    learning = [bool(layer.params.keys() - layer.frozen_names()) for layer in layers]
    if True not in learning:
        return 0
    bottom = learning.index(True)
    return bottom if any(layer.params for layer in layers[:bottom]) else 0


def runs_in_training(layer: Any, frozen: bool) -> bool:
    """Return whether a layer is called with ``forward`` in training: a frozen one if it draws, or is being watched."""
    return not frozen or any(each._rng is not None or "forward" in vars(each) for each in layer.layers())


def first(outputs: Any) -> Any:
    """Return y of (y, state), or anything but a tuple as it is."""
    return outputs[0] if isinstance(outputs, tuple) else outputs
