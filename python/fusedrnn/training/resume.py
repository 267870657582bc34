"""The file from which a run of ``fit`` goes on to the same bits."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array
from ..arrays.namespace import to_host
from ..layers.base import Layer
from ..serialization import atomic, container
from .callbacks import Callback, Training
from .data import Samples
from .feeds import Feed, SourceFeed

_STATE, _CHECKSUM = "fusedrnn.training", "sha256"
_FORMAT = 1
_ARRAY = "array"  # the one key of a dictionary that stands for a tensor of the file


class Record:
    """The state of a run after its last finished epoch, in a safetensors file.

    Arrays are tensors, everything else is JSON in the metadata: nothing is unpickled.

    Parameters
    ----------
    path : path
        Read if it is there.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    IsADirectoryError
        If the path is one.
    ValueError
        If the file is not such a state, or not whole.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        atomic.check_folder("fit", "resume", self.path)
        if os.path.isdir(self.path):
            raise IsADirectoryError(f"fit: resume is {self.path!r}, a folder; expected a file in it")
        self.state: dict[str, Any] | None = _read(self.path) if os.path.exists(self.path) else None

    def save(
        self,
        training: Training,
        feed: Feed,
        callbacks: tuple[Callback, ...],
        rng: np.random.Generator,
        arguments: dict[str, Any],
    ) -> None:
        """Write the state: atomically, so that a run that is killed meanwhile finds the one before."""
        tree = {
            "arguments": arguments,
            "epochs": training.history.epochs,
            "step": training.step,
            "stopped": training.history.stopped,
            "history": dict(training.history),
            "order": rng.bit_generator.state,
            "seen": feed.seen if isinstance(feed, SourceFeed) else None,
            "layers": [_random_state(layer) for layer in training.model.layers()],
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "callbacks": [[type(each).__name__, state] for each in callbacks if (state := each.state_dict())],
        }
        atomic.write(self.path, _packed(tree))

    def restore(
        self,
        training: Training,
        feed: Feed,
        callbacks: tuple[Callback, ...],
        rng: np.random.Generator,
    ) -> None:
        """Restore the state, if there is one."""
        state = self.state
        if state is None:
            return
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        for layer, random in zip(training.model.layers(), state["layers"], strict=True):
            if layer._rng is not None and random is not None:
                layer._rng.bit_generator.state = random
        for callback, each in self._matched(callbacks):
            callback.load_state_dict(each)
        rng.bit_generator.state = state["order"]
        if isinstance(feed, SourceFeed):
            feed.seen = state["seen"]
        training.history.update(state["history"])
        training.history.stopped = state["stopped"]
        training.epoch, training.step = state["epochs"], state["step"]

    def check(self, callbacks: tuple[Callback, ...], arguments: dict[str, Any]) -> None:
        """Raise ValueError if the state is that of another run."""
        state = self.state
        if state is None:
            return
        for name, value in arguments.items():
            written = state["arguments"].get(name)
            if name != "start" and written != value:
                if isinstance(written, dict) and isinstance(value, dict):  # the parameters: those that differ
                    written, value = (
                        {key: of[key] for key in of if of[key] != other.get(key)}
                        for of, other in ((written, value), (value, written))
                    )
                raise ValueError(
                    f"fit: resume: {self.path} was written with {name} {_short(written)}; expected the same, got "
                    f"{_short(value)}"
                )
        self._matched(callbacks)

    def _matched(self, callbacks: tuple[Callback, ...]) -> list[tuple[Callback, Any]]:
        """Return each state with the next callback of its class; those that had none may come and go."""
        assert self.state is not None
        states = self.state["callbacks"]
        rest, pairs = iter(callbacks), []
        for name, state in states:
            callback = next((each for each in rest if type(each).__name__ == name), None)
            if callback is None:
                expected = ", ".join(name for name, _ in states)
                raise ValueError(f"fit: resume: {self.path} has the state of a {name}; expected callbacks {expected}")
            pairs.append((callback, state))
        return pairs

    @property
    def epochs(self) -> int:
        """How many epochs are finished."""
        return 0 if self.state is None else int(self.state["epochs"])

    @property
    def start(self) -> Any:
        """The state of the random generator when the run began; None without a file."""
        return None if self.state is None else self.state["arguments"]["start"]


def described_run(
    training: Training,
    feed: Feed,
    start: Any,
    **sizes: Any,
) -> dict[str, Any]:
    """Return what must be the same for a run to go on."""
    return {
        "model": {name: list(array.shape) for name, array in training.model.params.items()},
        "optimizer": training.optimizer.op,
        "samples": None if feed.samples is None else len(feed.samples),
        "data": None if feed.samples is None else _checksum(feed.samples),
        "start": start,
        **sizes,
    }


def _checksum(samples: Samples) -> str:
    """Return a number that other data would hardly have."""
    columns = list(samples.inputs)
    for each in samples.parts.values() or [samples]:
        columns += [each.target, *([] if each.weight is None else [each.weight])]
    sum_ = 0
    for column in columns:
        values, some = column.values, 1 if column.ragged else 1024  # of views that overlap a copy may be large
        for start in range(0, len(values), some):
            part = to_host(values[start] if column.ragged else values[start : start + some])
            sum_ = zlib.crc32(_bytes_of(part), sum_)
        for lengths in [] if column.lengths is None else [column.lengths]:
            sum_ = zlib.crc32(_bytes_of(lengths), sum_)
    return f"{sum_:08x}"


def _bytes_of(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _random_state(layer: Layer) -> Any:
    return None if layer._rng is None else layer._rng.bit_generator.state


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _packed(tree: Any) -> Iterator[Any]:
    """Return the parts of the file of a state."""
    tensors: dict[str, Array] = {}
    text = json.dumps({"format": _FORMAT, "state": _without_arrays(tree, tensors)})
    return container.encode(tensors, {_STATE: text, _CHECKSUM: container.digest(tensors, text)})


def _without_arrays(tree: Any, tensors: dict[str, Array]) -> Any:
    """Return a tree of dictionaries and lists with names instead of arrays, which go into ``tensors``."""
    if isinstance(tree, np.ndarray):
        if tree.dtype not in container.DTYPES.values():
            raise TypeError(f"fit: resume: a callback's state has an array of {tree.dtype}; expected floats")
        name = str(len(tensors))
        tensors[name] = tree
        return {_ARRAY: name}
    if isinstance(tree, Mapping):
        return {str(key): _without_arrays(value, tensors) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_without_arrays(value, tensors) for value in tree]
    if isinstance(tree, np.generic):
        return tree.item()
    return tree


def _with_arrays(tree: Any, tensors: Mapping[str, Array]) -> Any:
    if isinstance(tree, dict):
        if tree.keys() == {_ARRAY}:
            return tensors[tree[_ARRAY]]
        return {key: _with_arrays(value, tensors) for key, value in tree.items()}
    return [_with_arrays(value, tensors) for value in tree] if isinstance(tree, list) else tree


def _read(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        try:
            metadata, tensors = container.decode(file, os.fstat(file.fileno()).st_size)
            text = metadata.get(_STATE)
            if text is None:
                raise ValueError("does not hold the state of a run; expected a file that fit(resume=...) wrote")
            if container.digest(tensors, text) != metadata.get(_CHECKSUM):
                raise ValueError("was changed after it was written: its checksum differs")
            content = container.parse(text)
            if content["format"] != _FORMAT:
                raise ValueError(f"has format {content['format']}; expected {_FORMAT}")
            state: dict[str, Any] = _with_arrays(content["state"], tensors)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"fit: resume: {path}: {error}") from None
    return state
