"""What RNN, LSTM and GRU share: stacks of recurrent layers over the fused kernels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from .. import _core
from ..arrays.checks import Array, as_real, check_shape, flag, positive_int, probability, seed_sequence
from ..arrays.lengths import unragged
from ..init import Init, check_init
from .base import Layer, Tape
from .dropout import dropout_mask
from .integers import IntegerWeights
from .parameters import serial_of
from .protocol import Shape
from .recurrent_parts import compute_dtype_of, initial_parameters, kernels, proj_size_of
from .restarts import NO_RESTARTS, Restarts, restarts_of
from .states import StateSize, StateSizes, state_arrays
from .stream import Stream
from .variants import Variant

_MOST_LAYERS = 10_000  # more are a mistake, and making their parameters one by one would take minutes


def _noise_of(factors: tuple[Array | None, ...] | None, slabs: slice) -> dict[str, Any]:
    """Return the noise of some of the layers as an argument of the kernels."""
    if factors is None:
        return {}
    return {"factors": tuple(each if each is None else each[slabs] for each in factors)}


class Recurrent(IntegerWeights):
    """What RNN, LSTM and GRU share. See the subclasses for the parameters.

    Parameters are named as torch's: weight_ih_l0 (G*H, I), weight_hh_l0 (G*H, H), bias_ih_l0 and bias_hh_l0 (G*H,),
    then _l1 and so on, with the suffix _reverse for the second direction.
    """

    takes = frozenset({"lengths", "resets"})
    _cell: str  # name of the cell in cell_table.CELLS, which is the kernels' too
    _has_cell_state = False
    _draws = False  # whether there is noise inside the cells in training
    _books: tuple[str, ...]  # names of its functions, where a variant has no others
    _fixed = frozenset(
        {"input_size", "hidden_size", "num_layers", "bias", "bidirectional", "dtype", "compute_dtype", "variant"}
        | {"proj_size"}
    )
    _not_pickled = frozenset({"_stack", "_per_layer"})

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        device: str = "cpu",
        seed: int | None = None,
        init: Init = "default",
        compute_dtype: str | None = None,
        variant: Variant = Variant(),  # noqa: B008
        proj_size: int = 0,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.variant = variant
        self.compute_dtype = compute_dtype_of(self.op, compute_dtype, self.dtype)
        self.input_size = positive_int(self.op, "input_size", input_size)
        self.hidden_size = positive_int(self.op, "hidden_size", hidden_size)
        self.proj_size = proj_size_of(self.op, proj_size, self.hidden_size, variant)
        self.num_layers = positive_int(self.op, "num_layers", num_layers)
        if self.num_layers > _MOST_LAYERS:
            raise ValueError(f"{self.op}: num_layers is {num_layers}; expected at most {_MOST_LAYERS}")
        self.bias = flag(self.op, "bias", bias)
        self.batch_first = flag(self.op, "batch_first", batch_first)
        self.bidirectional = flag(self.op, "bidirectional", bidirectional)
        check_init(self.op, init, recurrent=True)
        self._init = init
        self._reverse = False
        weights, self._mask_seed = seed_sequence(self.op, seed).spawn(2)
        self.dropout = dropout
        self._draws = variant.draws
        if self._draws and self._rng is None:
            self._rng = np.random.default_rng(self._mask_seed)
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"{self.op}: dropout is {self.dropout} with num_layers 1, and does nothing: it is between layers. "
                "A fusedrnn.Dropout behind the layer drops its outputs",
                stacklevel=3 if "__init__" in vars(type(self)) else 2,
            )
        params = initial_parameters(self, np.random.default_rng(weights), init)
        self._in_order = itemgetter(*params)
        self._set_parameters(params)
        self._make_kernels()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._make_kernels()

    @property
    def dropout(self) -> float:
        """Probability with which, in training, outputs between layers are zeroed. May be changed."""
        return self._dropout

    @dropout.setter
    def dropout(self, value: float) -> None:
        self._dropout = probability(self.op, "dropout", value)
        if self._dropout and self._rng is None:
            self._rng = np.random.default_rng(self._mask_seed)

    def input_shape(self) -> Shape:
        """Return (B, T, I), or (T, B, I)."""
        return ("B", "T", self.input_size) if self.batch_first else ("T", "B", self.input_size)

    @property
    def output_size(self) -> int:
        """Size of h: proj_size of an LSTM that has it, else hidden_size."""
        return self.proj_size or self.hidden_size

    def output_shape(self, x: Shape) -> Any:
        """Return x's shape with num_directions*H features."""
        return (*x[:-1], self.num_directions * self.output_size)

    def state_sizes(self) -> StateSizes:
        """Return the size of h, or those of (h, c)."""
        slabs = self.num_layers * self.num_directions
        h = StateSize(slabs, self.output_size)
        return (h, StateSize(slabs, self.hidden_size)) if self._has_cell_state else h

    def reads_future(self) -> bool:
        """Return whether there is a direction that begins at the end."""
        return self.bidirectional or self._reverse

    def final_output(self, y: Any, state: Any, lengths: Any) -> Array:
        """Return the last layer's final h of each direction, side by side (B, num_directions*H)."""
        h: Array = (state[0] if self._has_cell_state else state)[-self.num_directions :]
        flat: Array = h.transpose(1, 0, 2).reshape(h.shape[1], h.shape[0] * h.shape[2])
        return flat

    def final_output_backward(self, d: Array, y_shape: Any, lengths: Any) -> tuple[None, Any]:
        """Return (None, dstate) for the gradient d of ``final_output``."""
        directions = self.num_directions
        dh = self.xp.zeros((self.num_layers * directions, len(d), self.output_size), dtype=d.dtype)
        dh[-directions:] = d.reshape(len(d), directions, self.output_size).transpose(1, 0, 2)
        return None, (dh, None) if self._has_cell_state else dh

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
            "dtype": self.dtype.name,
            **({"compute_dtype": self.compute_dtype} if self.compute_dtype else {}),
            **self.variant.config(),
            **({"proj_size": self.proj_size} if self.proj_size else {}),
            # Not arguments of the constructor: of a reversed copy, of an inference copy.
            **({"reverse": True} if self._reverse else {}),
            **({"quantized": self.quantization} if self.quantized else {}),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Layer:
        """Make a layer from what ``config`` returned."""
        arguments = dict(config)
        reverse = arguments.pop("reverse", False)
        quantization = arguments.pop("quantized", None)
        layer = cls(**arguments)
        if reverse is True:
            layer._set_reverse()
        layer._set_quantization(quantization)
        return layer

    def __call__(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None, reset_state: Any = None
    ) -> tuple[Array, Any]:
        """Compute the outputs in inference mode: nothing is kept, dropout is inactive.

        Parameters
        ----------
        x : array_like
            (B, T, I), or (T, B, I) with ``batch_first=False``; (T, I) without a batch. Any real dtype. With
            ``batch_first`` also a list of B arrays (T_b, I) of unequal length, which are padded.
        state : array_like or pair, optional
            Initial state h0, or (h0, c0) of an LSTM, each (num_layers*num_directions, B, H); zeros by default.
        lengths : array_like of int (B,), optional
            Valid steps of each sample, in any order, 0 allowed.
        resets : array_like of bool, optional
            Laid out as x, (B, T): before a marked step the state is zero again, or ``reset_state``, in one call and
            with the bits of a call for each piece. ``state`` is where a sample begins: a mark at its first step
            replaces it. A reverse direction starts again where it enters the steps before a marked one, and a mark
            at the first step says nothing to it. On the cpu.
        reset_state : array_like or pair, optional
            The state after a reset, of each layer, direction and sample, shaped as ``state``; zeros by default.

        Returns
        -------
        y : ndarray
            (B, T, num_directions*H), the last layer's h; 0 past a sample's end.
        state : ndarray or tuple
            h, or (h, c), at each sample's true end, shaped as the initial state.

        Raises
        ------
        ValueError, TypeError
            For wrong shapes, lengths and dtypes; the message names the argument, what was got and what was expected.
        """
        if type(x) is not np.ndarray or x.dtype is not self.dtype or self.xp is not np:
            x, lengths = self._converted(x, lengths)
        x, h0, c0, batched = self._inputs(x, state, lengths)
        plain = resets is None and reset_state is None  # the usual call, which takes two microseconds
        again = {} if plain else self._restarts(x, resets, reset_state, batched).of()
        serial = serial_of(self)  # first: a list of the arrays holds them
        y, h, c, _ = self._stack.forward(self._weights, x, h0, c0, lengths, self.batch_first, False, serial, **again)
        return self._outputs(y, h, c, batched)

    def forward(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None, reset_state: Any = None
    ) -> tuple[tuple[Array, Any], Tape]:
        """Compute ((y, state), tape) in training mode; arguments as in ``__call__``.

        The tape refers to x and y: leave both as they are until ``backward`` (y is read-only). It has copies of the
        state and of the weights. A tape may be used again: it then computes the forward once more and gives the same
        bits.
        """
        if self._quantized_inputs:
            self._refuse_training("forward")
        if type(x) is not np.ndarray or x.dtype is not self.dtype or self.xp is not np:
            x, lengths = self._converted(x, lengths)
        x, h0, c0, batched = self._inputs(x, state, lengths)
        if self.device != "cpu":  # there the kernels copy it
            h0, c0 = (None if each is None else each.copy() for each in (h0, c0))
        plain = resets is None and reset_state is None
        again = NO_RESTARTS if plain else self._restarts(x, resets, reset_state, batched)
        serial = serial_of(self)
        factors = self._factors(x) if self._draws else None
        if not self.dropout or self.num_layers == 1:
            more = {} if again is NO_RESTARTS and factors is None else again.of() | _noise_of(factors, slice(None))
            y, h, c, core = self._stack.forward(
                self._weights, x, h0, c0, lengths, self.batch_first, True, serial, **more
            )
            outputs = self._outputs(y, h, c, batched)
            return outputs, Tape(self, ((core,), (), batched, outputs[0].shape))
        y = x
        tapes: list[_core.Tape] = []
        masks: list[Array] = []
        states: list[list[Any]] = []
        if x.ndim == 3:
            self._check_states(self._batch_of(x.shape), h0=h0, c0=c0)
        else:  # which the kernels refuse
            h0 = c0 = None
        for index, stack in enumerate(self._per_layer):
            if index:
                masks.append(dropout_mask(y.shape, self.dropout, self.dtype, self._rng, self.xp))
                y = y * masks[-1]
            slabs = self._slabs(index)
            y, *state_l, core = stack.forward(
                self._layer_arrays(self._weights, index),
                y,
                None if h0 is None else h0[slabs],
                None if c0 is None else c0[slabs],
                lengths,
                self.batch_first,
                True,
                serial,
                **again.of(slabs),
                **_noise_of(factors, slabs),
            )
            tapes.append(core)
            states.append(state_l)
        h, c = self._joined(states)
        outputs = self._outputs(y, h, c, batched)
        return outputs, Tape(self, (tuple(tapes), tuple(masks), batched, outputs[0].shape))

    def backward(self, tape: Tape, dy: Any, dstate: Any = None) -> Any:
        """Add the gradients of the parameters into ``grads``; return those of the inputs.

        Parameters
        ----------
        tape : Tape
            From ``forward``.
        dy : array_like or None
            dL/dy, shaped as y; may be None where dstate is given. Values past a sample's end are not read.
        dstate : array_like or pair, optional
            dL/dh, or (dL/dh, dL/dc) of an LSTM, of the final state; None for either stands for zeros.

        Returns
        -------
        dx : ndarray
            Shaped as x; 0 past a sample's end.
        dstate0 : ndarray or tuple
            dh0, or (dh0, dc0), of the initial state.
        dreset_state : ndarray or tuple
            The same of ``reset_state``; only if the forward call had one.
        """
        if self._quantized_inputs:
            self._refuse_training("backward")
        cores, masks, batched, y_shape = self._saved(tape)
        if dy is None and dstate is None:
            raise ValueError(f"{self.op}: dy and dstate are None; expected at least one gradient")
        if dy is not None:
            dy = as_real(self.op, "dy", dy, self.dtype, self.xp)
            if not batched:
                check_shape(self.op, "dy", dy, "time, num_directions*hidden", y_shape)
                dy = self._add_batch(dy)
        dh, dc = state_arrays(self, "dstate", ("dh", "dc"), dstate, batched)
        grads = self._in_order(self._grads)
        if len(cores) == 1:
            d, *dstates = cores[0].backward(dy, dh, dc, grads)
        else:
            d = dy
            states: list[list[Any]] = []
            self._check_states(self._batch_of(y_shape) if batched else 1, dh=dh, dc=dc)
            for index in reversed(range(self.num_layers)):
                slabs = self._slabs(index)
                dh_l, dc_l = (None if g is None else g[slabs] for g in (dh, dc))
                d, *dstate_l = cores[index].backward(d, dh_l, dc_l, self._layer_arrays(grads, index))
                states.insert(0, dstate_l)
                if index:
                    d = d * masks[index - 1]
            dstates = self._joined(states)
        dh0, dc0, *dagain = dstates
        dx, dstate0 = self._outputs(d, dh0, dc0, batched)
        if not any(each is not None for each in dagain):
            return dx, dstate0
        _, dreset_state = self._outputs(d, dagain[0], dagain[1], batched)
        return dx, dstate0, dreset_state

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a :class:`Stream`: one time step per call, with the weights as they are now.

        Raises
        ------
        ValueError
            If the layer is bidirectional or reversed: the future is not known yet.
        RuntimeError
            If the layer is not on the cpu.
        """
        self._needs_cpu("stream")
        if self.reads_future():
            raise ValueError(f"{self.op}: stream needs one forward direction; this layer also reads the future")
        batch = positive_int(self.op, "batch_size", batch_size)
        return Stream(self, self._stack.stream(self._weights, batch), batch)

    def reversed_copy(self, seed: int | None = None) -> Recurrent:
        """Return a layer of this configuration with fresh weights that walks each sample's valid steps backwards.

        They are initialised as this layer's were; as by default if it was loaded from a file.
        """
        arguments = self.config()
        arguments.pop("reverse", None)
        arguments.pop("quantized", None)
        layer = type(self)(**arguments, device=self.device, seed=seed, init=self._init)
        layer._set_reverse()
        layer._set_quantization(self.quantization)
        return layer

    def _set_reverse(self) -> None:
        """Let this layer walk backwards from now on."""
        self._reverse = True
        self._make_kernels()

    def _make_kernels(self) -> None:
        self._stack, self._per_layer = kernels(self, self.device)

    def plan(self, time: int, batch: int) -> str:
        """Return how an inference call of (batch, time) runs: "by_sample x2" on two threads; on cuda, which path.

        The others are "single", "by_unit", "by_direction" and "by_layer"; the same bits come from all of them.
        """
        return self._stack.plan(time, batch)

    def _attributes_on(self, device: str) -> dict[str, Any]:
        stack, per_layer = kernels(self, device)
        return {**super()._attributes_on(device), "_stack": stack, "_per_layer": per_layer}

    @property
    def _weights(self) -> tuple[Array, ...]:
        weights: tuple[Array, ...] = self._in_order(self._params)
        return weights

    def _layer_arrays(self, arrays: tuple[Array, ...], layer: int) -> tuple[Array, ...]:
        count = len(arrays) // self.num_layers
        return arrays[layer * count : (layer + 1) * count]

    def _joined(self, states: list[list[Any]]) -> list[Any]:
        """Return the states of all layers, h and c and more, from those of each; None for what a cell has not."""
        parts = zip(*states, strict=True)
        return [None if part[0] is None else self.xp.concatenate(part) for part in parts]

    def _factors(self, x: Array) -> tuple[Array | None, ...] | None:
        """Draw the noise inside the cells of all layers for a call in training."""
        if x.ndim != 3:  # which the kernels refuse
            return None
        batch, steps = x.shape[:2] if self.batch_first else x.shape[1::-1]
        slabs = self.num_layers * self.num_directions
        return self.variant.factors(slabs, steps, batch, self.hidden_size, self.dtype, self._rng)

    def _restarts(self, x: Array, resets: Any, reset_state: Any, batched: bool) -> Restarts:
        return restarts_of(self, x, resets, reset_state, batched)

    def _batch_of(self, shape: tuple[int, ...]) -> int:
        return shape[0 if self.batch_first else 1]

    def _check_states(self, batch: int, **states: Array | None) -> None:
        """Raise the ValueError of the kernels for states of all layers, of which each layer gets its own."""
        for name, state in states.items():
            is_c = name.removeprefix("d").startswith("c")
            size, axis = (
                (self.output_size, "proj_size") if self.proj_size and not is_c else (self.hidden_size, "hidden")
            )
            shape = (self.num_layers * self.num_directions, batch, size)
            if state is not None:
                check_shape(self.op, name, state, f"num_layers*num_directions, batch, {axis}", shape)

    def _slabs(self, layer: int) -> slice:
        return slice(layer * self.num_directions, (layer + 1) * self.num_directions)

    def _converted(self, x: Any, lengths: Any) -> tuple[Array, Any]:
        """Return x as an array of the layer's dtype and device, which the kernels judge, and its lengths."""
        if self.batch_first:
            x, lengths = unragged(self.op, "x", x, lengths)
        return as_real(self.op, "x", x, self.dtype, self.xp), lengths

    def _inputs(self, x: Array, state: Any, lengths: Any) -> tuple[Array, Array | None, Array | None, bool]:
        """Return (x, h0, c0, batched) with a batch axis everywhere; what is batched is judged by the kernels."""
        batched = x.ndim != 2
        if not batched:
            if lengths is not None:
                raise ValueError(f"{self.op}: lengths is given for x of shape {x.shape}; expected x with a batch axis")
            check_shape(self.op, "x", x, "time, input_size", (len(x), self.input_size))
            x = self._add_batch(x)
        if state is None:
            return x, None, None, batched
        h0, c0 = state_arrays(self, "state", ("h0", "c0"), state, batched)
        return x, h0, c0, batched

    def _add_batch(self, array: Array) -> Array:
        """Return an unbatched (T, F) sequence with a batch axis of 1."""
        return array[np.newaxis] if self.batch_first else array[:, np.newaxis]

    def _outputs(self, y: Array, h: Array, c: Array | None, batched: bool) -> tuple[Array, Any]:
        if not batched:
            y = y[0] if self.batch_first else y[:, 0]
            h = h[:, 0]
            c = None if c is None else c[:, 0]
        return y, ((h, c) if self._has_cell_state else h)
