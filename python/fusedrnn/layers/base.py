"""What every layer and model is: named parameters with gradients, a forward, a backward, a state, a configuration."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from ..allocation import Extent, check_extent
from ..arrays.checks import Array, described, flag, parse_device, parse_dtype, seed_sequence
from ..arrays.namespace import from_host, host_copy, namespace, to_host
from .parameters import LoadedNames, Parameters, ReadOnly, load_values, renamed, witness_of
from .protocol import LayerProtocol
from .registry import constructor_call
from .summary import Summary, summarize

if TYPE_CHECKING:
    from ..data import Preprocessor

_Self = TypeVar("_Self", bound="Layer")


@dataclass(frozen=True, slots=True)
class Tape:
    """What a forward call keeps for its backward call; it belongs to the layer that made it."""

    owner: Layer
    saved: tuple[Any, ...]
    witness: int | None = None  # of the weights that backward reads again

    def __repr__(self) -> str:
        return f"Tape of {self.owner.op}"


class Layer(LayerProtocol):
    """Base of layers (with parameters of their own) and of composites (with children).

    What a layer answers to those who put layers together, and the defaults, are in :class:`LayerProtocol`.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Type of parameters, inputs and outputs.
    device : {"cpu", "cuda"}
        Where parameters, inputs and outputs are: NumPy arrays, or CuPy's. RuntimeError where there is no GPU.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        The same keys, shapes and dtype. ``backward`` adds into the gradients. The arrays of a composite are its
        children's own, under "child.name"; its dictionary is read-only. Change the arrays in place.
    xp : module
        The namespace that computes with the layer's arrays: NumPy, or CuPy.
    op : str
        Name of the layer in error messages: that of its class.
    preprocessing : mapping of str to Preprocessor
        What the user has put here, as ``{"text": vocabulary}``, is saved in the layer's file (see ``fusedrnn.data``).
    """

    op: ClassVar[str] = "Layer"
    preprocessing: Mapping[str, Preprocessor] = MappingProxyType({})
    xp: Any = np  # of the class: a layer on the cpu holds no module
    _trainable: bool = True
    _fixed: ClassVar[frozenset[str]] = frozenset()  # attributes that only the constructor may set
    _not_pickled: ClassVar[frozenset[str]] = frozenset()  # those that __setstate__ makes from the others

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "op" not in vars(cls):
            cls.op = cls.__name__

    def __init__(self, *, dtype: Any = "float32", device: str = "cpu") -> None:
        self.dtype = parse_dtype(self.op, dtype)
        self.device = parse_device(self.op, device)
        if self.device != "cpu":
            self.xp = namespace(self.device)
        self._params = Parameters()
        self._grads: dict[str, Array] = {}
        self._children: dict[str, Layer] = {}
        self._inside = Extent()  # without the parameters of its own
        self._rng: np.random.Generator | None = None  # set by layers that draw at every forward call

    def __setattr__(self, name: str, value: Any) -> None:
        # Not vars(self): a dictionary that somebody has asked for makes every later access to an attribute slower.
        if name in self._fixed and hasattr(self, name):
            raise AttributeError(f"{self.op}: {name} is fixed when the layer is made; expected a new layer with it")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: the attributes without modules and kernels."""
        return {name: value for name, value in vars(self).items() if name not in ("xp", *self._not_pickled)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            super().__setattr__(name, value)
        # Calls ask whether the dtype of x is this object: a copy, which is only equal, would cost half a microsecond.
        super().__setattr__("dtype", np.dtype(self.dtype.type))
        if self.device != "cpu":
            self.xp = namespace(parse_device(self.op, self.device))

    @abstractmethod
    def forward(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Compute the outputs in training mode; return (outputs, tape)."""

    @abstractmethod
    def backward(self, tape: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the gradients of the parameters into ``grads``; return those of the inputs."""

    @abstractmethod
    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs in inference mode: nothing is kept, dropout is inactive."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values; seed and device are not among them."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Layer:
        """Make a layer from what ``config`` returned."""
        return cls(**config)

    @property
    def params(self) -> dict[str, Array]:
        """Parameters by name."""
        return self._merged("_params")

    @property
    def grads(self) -> dict[str, Array]:
        """Gradients by the names of the parameters."""
        return self._merged("_grads")

    @property
    def num_parameters(self) -> int:
        """Number of parameter elements; an array that two children share counts once."""
        return sum(array.size for array in {id(array): array for array in self.params.values()}.values())

    @property
    def _extent(self) -> Extent:
        return self._inside._replace(names=self._inside.names + len(self._params))

    @property
    def trainable(self) -> bool:
        """Whether optimizers change the parameters of this layer; may be set, for all layers inside as well.

        In training, ``Sequential`` and the models keep nothing for frozen layers in front of the first one that learns,
        and compute no gradient.
        """
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = flag(self.op, "trainable", value)
        for layer in self.layers():
            layer._trainable = value

    def freeze(self, *names: str) -> None:
        """Set ``trainable`` of the layers inside with these names, such as "encoder" or "0", to False.

        Parameters
        ----------
        *names : str
            Shell patterns of names, in which a dot stands before a layer inside: "layer.*". None: all layers.

        Raises
        ------
        ValueError
            If a name fits no layer.
        """
        self._set_trainable(False, names)

    def unfreeze(self, *names: str) -> None:
        """Set ``trainable`` of the layers inside with these names to True; the arguments are those of ``freeze``."""
        self._set_trainable(True, names)

    def frozen_names(self) -> frozenset[str]:
        """Return the names of the parameters that are not trainable."""
        if all(layer._trainable for layer in self.layers()):
            return frozenset()
        own = () if self._trainable else self._params
        inside = (f"{name}.{each}" for name, child in self._children.items() for each in child.frozen_names())
        return frozenset((*own, *inside))

    def zero_grad(self) -> None:
        """Fill all gradients with 0."""
        for layer in self.layers():
            layer._zero_own_grads()

    def gradient_rows(self) -> dict[str, Array]:
        """Return, for each parameter with a sparse gradient, the ascending numbers of the rows that may not be 0."""
        inside = {
            f"{name}.{each}": rows
            for name, child in self._children.items()
            for each, rows in child.gradient_rows().items()
        }
        return self._own_gradient_rows() | inside

    def to(self: _Self, device: str) -> _Self:
        """Move the parameters and gradients of this layer and of all inside it; on an error nothing has changed.

        The arrays are new ones: an optimizer made before, a tape or a stream belongs to the old ones. Call it on the
        whole model, not on its parts.

        Parameters
        ----------
        device : {"cpu", "cuda"}
            Where to.

        Returns
        -------
        Layer
            This one.

        Raises
        ------
        RuntimeError
            If there is no such device; the message says why.
        MemoryError
            If the arrays do not fit into the device's memory.
        """
        device = parse_device(self.op, device)
        moved = [(layer, layer._attributes_on(device)) for layer in self.layers() if layer.device != device]
        for layer, attributes in moved:
            for name, value in attributes.items():
                setattr(layer, name, value)
            if device == "cpu":
                del layer.xp
        return self

    def reseed(self, seed: int | None) -> None:
        """Restart the random numbers of every dropout in this layer; the parameters stay as they are.

        They are drawn on the host: a seed means the same masks on every device.
        """
        random = [layer for layer in self.layers() if layer._rng is not None]
        for layer, child_seed in zip(random, seed_sequence(self.op, seed).spawn(len(random)), strict=True):
            layer._rng = np.random.default_rng(child_seed)

    def children(self) -> dict[str, Layer]:
        """Return the layers right inside this one by name."""
        return dict(self._children)

    def layers(self) -> Iterator[Layer]:
        """Yield this layer and all layers inside it, each once."""
        seen: set[int] = set()
        stack: list[Layer] = [self]
        while stack:
            layer = stack.pop()
            if id(layer) not in seen:
                seen.add(id(layer))
                yield layer
                stack.extend(reversed(layer._children.values()))

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name: NumPy arrays, whatever the device."""
        return {name: host_copy(array) for name, array in self.params.items()}

    def load_state_dict(
        self, state: Mapping[str, Any], strict: bool = True, *, rename: Mapping[str, str | None] | None = None
    ) -> LoadedNames:
        """Copy values into the parameters; on an error nothing has changed.

        Parameters
        ----------
        state : mapping of str to array_like
            Values of any real dtype and device, shaped as the parameters.
        strict : bool
            Whether missing and unexpected names are errors; wrong shapes always are.
        rename : mapping of str to str or None, optional
            Other names for those of ``state``: for whole ones, or for what they begin with, up to a dot. Of several
            that fit, the longest counts. ``{"encoder.rnn": "0", "fc": "1"}`` makes "0.weight_ih_l0" of
            "encoder.rnn.weight_ih_l0"; None leaves names out, and "" drops a beginning.

        Returns
        -------
        LoadedNames
            The missing_keys, whose parameters are what they were, and the unexpected_keys; as in torch.

        Raises
        ------
        ValueError
            One message with all missing names, unexpected names and wrong shapes; or if a parameter is read-only.
        TypeError
            If ``state`` is not a mapping, or a value is not real.
        """
        if rename is not None:
            state = renamed(self.op, state, rename)
        return load_values(self.op, self.params, state, strict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and configuration to a safetensors file; ``fusedrnn.load`` reads it."""
        from ..serialization import save

        save(self, path)

    def summary(self) -> Summary:
        """Return a table of the layers inside this one: names, output shapes, numbers of parameters.

        In shapes, B is the batch, T the time steps (S those of a source), and ... stands for any axes. How many
        parameters are frozen stands below the total. Print it: ``print(model.summary())``.
        """
        return summarize(self)

    def __repr__(self) -> str:
        return constructor_call({"class": self.op, "config": self.config()})

    def __str__(self) -> str:
        return str(self.summary()) if self._children else repr(self)

    def _repr_html_(self) -> str:
        """Return the table of layers for a notebook."""
        return self.summary()._repr_html_()

    def _set_parameters(self, params: Mapping[str, Array]) -> None:
        """Take the values of these NumPy arrays as own parameters, with zero gradients."""
        self._params = Parameters({name: from_host(self.xp, array) for name, array in params.items()})
        # zeros, not zeros_like: pages that inference never touches are never paged in.
        self._grads = {name: self.xp.zeros(array.shape, dtype=array.dtype) for name, array in params.items()}

    def _attributes_on(self, device: str) -> dict[str, Any]:
        """Return the attributes that a move to another device changes; a subclass with more of them adds its own."""
        xp = namespace(device)
        own, grads = (
            {name: from_host(xp, to_host(array)) for name, array in arrays.items()}
            for arrays in (self._params, self._grads)
        )
        return {"device": device, "xp": xp, "_params": Parameters(own), "_grads": grads}

    def _set_trainable(self, value: bool, names: tuple[str, ...]) -> None:
        if not names:
            self.trainable = value
        named = dict(named_layers(self))
        for pattern in names:
            fitting = [layer for name, layer in named.items() if fnmatchcase(name, pattern)]
            if not fitting:
                raise ValueError(f"{self.op}: no layer is named {pattern!r}; expected one of {', '.join(named)}")
            for layer in fitting:
                layer.trainable = value
        for layer in reversed(list(self.layers())):  # a composite is frozen if all inside it is
            if layer._children and not layer._params:
                layer._trainable = any(child._trainable for child in layer._children.values())

    def _needs_cpu(self, what: str) -> None:
        """Raise the RuntimeError of what has no CUDA version, unless the layer is on the cpu."""
        if self.device != "cpu":
            raise RuntimeError(f"{self.op}: {what} is on the cpu only; the layer is on {self.device}: layer.to('cpu')")

    def _add_child(self, name: str, child: Layer) -> None:
        """Take a layer in. One without parameters comes along to this layer's device."""
        if not isinstance(child, Layer):
            raise TypeError(f"{self.op}: {name} is {described(child)}; expected a Layer")
        inside = self._inside.around(child._extent)
        check_extent(self.op, inside)
        if child.device != self.device:
            if child.params:
                raise RuntimeError(f"{self.op}: {name} is on {child.device}; expected {self.device}, as its siblings")
            child.to(self.device)
        self._children[name] = child
        self._inside = inside

    def _zero_own_grads(self) -> None:
        for grad in self._grads.values():
            grad.fill(0)

    def _own_gradient_rows(self) -> dict[str, Array]:
        """Return ``gradient_rows`` of the parameters of its own."""
        return {}

    def _occurrences(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield this layer and those inside it that have parameters, as often as they occur, with their prefixes."""
        if self._params:
            yield prefix, self
        for name, child in self._children.items():
            yield from child._occurrences(f"{prefix}{name}.")

    def _own_params(self) -> dict[str, Array]:
        """Return the parameters of its own, which the caller may write to."""
        self._params.handed_out = True
        return self._params

    def _merged(self, attribute: str) -> dict[str, Array]:
        own: dict[str, Array] = self._own_params() if attribute == "_params" else self._grads
        if not self._children:
            return own
        merged = dict(own)
        for child_name, child in self._children.items():
            merged |= {f"{child_name}.{name}": array for name, array in child._merged(attribute).items()}
        return ReadOnly(self.op, attribute.removeprefix("_"), merged)

    def _saved(self, tape: Any) -> tuple[Any, ...]:
        """Return what forward saved, after checking that the tape is this layer's."""
        if not isinstance(tape, Tape) or tape.owner is not self:
            got = f"a tape of {tape.owner.op}" if isinstance(tape, Tape) else f"a {type(tape).__name__}"
            raise ValueError(f"{self.op}: tape is {got}; expected the tape that this layer's forward returned")
        if tape.witness is not None and tape.witness != self._witness():
            raise ValueError(
                f"{self.op}: the weights have been written to since the forward call of this tape; expected backward "
                "before they change"
            )
        return tape.saved

    def _witnessed(self, *saved: Any) -> Tape:
        """Return a tape whose ``backward`` reads the parameters again, and notices if they are others by then."""
        return Tape(self, saved, self._witness() if self.device == "cpu" else None)

    def _witness(self) -> int:
        """Return a number for the contents of the parameters that ``backward`` reads."""
        return witness_of(self)


def named_layers(layer: Layer, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield the layers inside a layer with their names, in which a dot stands before a layer inside."""
    for name, child in layer._children.items():
        yield f"{prefix}{name}", child
        yield from named_layers(child, f"{prefix}{name}.")
