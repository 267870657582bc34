"""The layers that a model of Keras consists of, in the order of its chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OP = "keras.load"
# The names of groups in files, by class.
GROUPS = {
    "Embedding": "embedding",
    "SimpleRNN": "simple_rnn",
    "LSTM": "lstm",
    "GRU": "gru",
    "CuDNNLSTM": "cu_dnnlstm",
    "CuDNNGRU": "cu_dnngru",
    "Bidirectional": "bidirectional",
    "RNN": "rnn",
    "TimeDistributed": "time_distributed",
    "Dense": "dense",
    "SimpleRNNCell": "simple_rnn_cell",
    "LSTMCell": "lstm_cell",
    "GRUCell": "gru_cell",
}


@dataclass(frozen=True)
class Entry:
    """One layer: its class, its configuration, and where its weights are."""

    cls: str
    config: dict[str, Any]
    name: str
    group: str
    version: int  # of Keras, the first number

    @property
    def where(self) -> str:
        """How messages name the layer."""
        return f"{OP}: layer {self.name!r} ({self.cls})"

    def inner(self, spec: Any) -> Entry:
        """Return a layer inside this one, named as this one in messages."""
        return Entry(str(spec["class_name"]), spec["config"], self.name, self.group, self.version)


def entries_of(model: Any, version: int) -> list[Entry]:
    """Return the layers between the input and the output of a Sequential or a Functional that is a chain.

    Raises
    ------
    ValueError
        If the model is of another class, or no chain: the message names the layer.
    """
    cls, config = str(model.get("class_name")), model.get("config")
    if cls == "Sequential":
        specs = config if isinstance(config, list) else config["layers"]  # a list in Keras 1 and early 2
        return [each for each in _entries(specs, version) if each.cls != "InputLayer"]
    if cls in ("Functional", "Model"):
        every = {entry.name: entry for entry in _entries(config["layers"], version)}
        return [every[name] for name in _chain(config) if every[name].cls != "InputLayer"]
    raise ValueError(f"{OP}: the model is a {cls}; expected a Sequential or a Functional")


def _entries(specs: list[Any], version: int) -> Iterator[Entry]:
    count: Counter[str] = Counter()
    for index, spec in enumerate(specs):
        cls, config = str(spec["class_name"]), spec["config"]
        group = GROUPS.get(cls, cls.lower())
        number = f"_{count[group]}" if count[group] else ""
        count[group] += 1
        name = str(config.get("name", spec.get("name", index)))
        yield Entry(cls, config, name, f"{group}{number}", version)


def _chain(config: dict[str, Any]) -> list[str]:
    """Return the names of the layers from the input to the output."""
    sources = {str(spec["name"]): _sources(spec) for spec in config["layers"]}
    outputs, inputs = (_ends(config[key]) for key in ("output_layers", "input_layers"))
    if len(outputs) != 1 or len(inputs) != 1:
        raise ValueError(f"{OP}: the model has {len(inputs)} inputs and {len(outputs)} outputs; expected one of each")
    names = [outputs[0]]
    while sources[names[-1]] and len(names) <= len(sources):
        before = sources[names[-1]]
        if len(before) != 1:
            raise ValueError(f"{OP}: layer {names[-1]!r} reads {', '.join(before)}; expected a chain of layers")
        names.append(before[0])
    if names[-1] != inputs[0]:
        raise ValueError(f"{OP}: layer {names[-1]!r} is no input of the model; expected a chain of layers")
    return names[::-1]


def _sources(spec: Any) -> list[str]:
    """Return the layers that one reads: those of its arguments but a mask."""
    nodes = spec.get("inbound_nodes", [])
    if len(nodes) > 1:
        raise ValueError(f"{OP}: layer {spec['name']!r} is called {len(nodes)} times; expected once")
    if not nodes:
        return []
    node = nodes[0]
    if isinstance(node, dict):  # Keras 3
        kwargs = {name: value for name, value in node.get("kwargs", {}).items() if name != "mask"}
        return list(_histories([node.get("args", []), kwargs]))
    calls = [node] if node and isinstance(node[0], str) else node
    found = [str(call[0]) for call in calls]
    for call in calls:
        if len(call) > 3 and call[3]:
            found += [f"{name}=" for name, value in call[3].items() if name != "mask" and isinstance(value, list)]
    return found


def _histories(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield str(value["config"]["keras_history"][0])
    elif isinstance(value, dict):
        for each in value.values():
            yield from _histories(each)
    elif isinstance(value, list):
        for each in value:
            yield from _histories(each)


def _ends(value: Any) -> list[str]:
    """Return the names in [name, 0, 0] or [[name, 0, 0], ...]."""
    if value and isinstance(value[0], str):
        return [str(value[0])]
    return [str(each[0]) for each in value]
