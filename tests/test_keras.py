"""``fusedrnn.keras`` against Keras itself: files of every format, both ways."""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import types
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.models import Heads, Masked, SequenceToVector
from packages import package_file

h5py = pytest.importorskip("h5py")
if find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)
os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")
L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # Keras's arrays under NumPy 2

TOLERANCE = 1e-6
FEATURES, TOKENS = 3, 11


def sequential(*layers: Any, tokens: bool = False, steps: int | None = None) -> Any:
    shape = (steps,) if tokens else (steps, FEATURES)
    return keras.Sequential([L.Input(shape, dtype="int32" if tokens else "float32"), *layers])


def functional(*layers: Any) -> Any:
    x = first = L.Input((None, FEATURES))
    for layer in layers:
        x = layer(x)
    return keras.Model(first, x)


def embedding(**options: Any) -> Any:
    return L.Embedding(TOKENS, 4, **options)


def bidirectional(layer: Any, **options: Any) -> Any:
    return L.Bidirectional(layer, **options)


MODELS: dict[str, Any] = {
    "lstm": lambda: sequential(L.LSTM(5, return_sequences=True)),
    "last": lambda: sequential(L.GRU(5)),
    "reset before": lambda: sequential(
        L.GRU(5, reset_after=False, return_sequences=True), bidirectional(L.GRU(4, reset_after=False, use_bias=False))
    ),
    "simple": lambda: sequential(L.SimpleRNN(5, return_sequences=True), L.SimpleRNN(4, activation="relu")),
    "stack": lambda: sequential(L.LSTM(5, return_sequences=True), L.LSTM(5, return_sequences=True), L.LSTM(5)),
    "no bias": lambda: sequential(L.LSTM(5, use_bias=False), L.Dense(2, use_bias=False)),
    "classifier": lambda: sequential(
        embedding(), bidirectional(L.LSTM(5)), L.Dropout(0.5), L.Dense(3, activation="softmax"), tokens=True
    ),
    "tagger": lambda: sequential(
        embedding(),
        bidirectional(L.GRU(5, return_sequences=True)),
        L.TimeDistributed(L.Dense(4, activation="tanh")),
        L.Dense(3, activation="sigmoid"),
        tokens=True,
    ),
    "functional": lambda: functional(
        L.Dense(4, activation="relu"), L.GRU(5, return_sequences=True), L.LSTM(3), L.Dense(2)
    ),
    "backwards": lambda: sequential(L.LSTM(5, return_sequences=True), L.LSTM(4, go_backwards=True), L.Dense(2)),
    "sum": lambda: sequential(bidirectional(L.LSTM(5, return_sequences=True), merge_mode="sum")),
    "mul": lambda: sequential(bidirectional(L.GRU(5, return_sequences=True), merge_mode="mul"), L.Dense(2)),
    "ave": lambda: sequential(bidirectional(L.SimpleRNN(5, return_sequences=True), merge_mode="ave")),
    "sum of the last": lambda: sequential(bidirectional(L.LSTM(5), merge_mode="sum")),
    "ave of the last": lambda: sequential(bidirectional(L.GRU(5), merge_mode="ave"), L.Dense(2)),
    "cells": lambda: sequential(L.RNN([L.LSTMCell(5), L.GRUCell(4), L.LSTMCell(4)], return_sequences=True)),
    "one cell": lambda: sequential(L.RNN(L.GRUCell(4)), L.Activation("tanh")),
    "mean": lambda: sequential(L.LSTM(5, return_sequences=True), L.GlobalAveragePooling1D(), L.Dense(2)),
    "maximum": lambda: sequential(L.LSTM(5, return_sequences=True), L.GlobalMaxPooling1D()),
    "noise": lambda: sequential(L.GaussianNoise(0.1), L.LSTM(5)),
    "two of a kind": lambda: sequential(
        L.LSTM(5, return_sequences=True), L.LSTM(4, return_sequences=True), L.Dense(3), L.LSTM(2), L.Dense(2)
    ),
}
MASKED: dict[str, Any] = {
    "tokens": lambda: sequential(embedding(mask_zero=True), L.LSTM(5, return_sequences=True), tokens=True),
    "last token": lambda: sequential(embedding(mask_zero=True), L.GRU(5), L.Dense(2), tokens=True),
    "both directions": lambda: sequential(
        embedding(mask_zero=True),
        bidirectional(L.LSTM(5, return_sequences=True)),
        L.Dense(3, activation="tanh"),
        bidirectional(L.GRU(4, return_sequences=True)),
        L.Dense(2),
        tokens=True,
    ),
    "values": lambda: sequential(L.Masking(0.5), L.LSTM(5, return_sequences=True), L.GRU(4, return_sequences=True)),
    "functional values": lambda: functional(L.Masking(0.5), bidirectional(L.LSTM(5)), L.Dense(2)),
    "backwards": lambda: sequential(L.Masking(0.5), L.LSTM(4, go_backwards=True)),
    "mean": lambda: sequential(L.Masking(0.5), L.LSTM(4, return_sequences=True), L.GlobalAveragePooling1D()),
    "zeros": lambda: sequential(L.Masking(0.5), L.LSTM(4, return_sequences=True, zero_output_for_mask=True)),
}


def randomised(model: Any) -> Any:
    """Give every weight random values: Keras starts biases at 0 and 1."""
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.4, value.shape).astype(np.float32) for value in model.get_weights()])
    return model


def data(model: Any, *, masked: bool = False) -> Any:
    rng = np.random.default_rng(4)
    if "int" in str(model.inputs[0].dtype):
        x = rng.integers(1, TOKENS, (4, 7)).astype(np.int32)
    else:
        x = rng.normal(0.1, 1, (4, 7, FEATURES)).astype(np.float32)
    if masked:  # before, after, in between, everywhere
        missing = np.zeros((4, 7), bool)
        missing[0, :3], missing[1, 4:], missing[2, [1, 2, 5]], missing[3] = True, True, True, True
        x[missing] = 0 if x.ndim == 2 else 0.5
    return x


def keras_output(model: Any, x: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def assert_close(ours: Any, theirs: Any) -> None:
    ours = ours[0] if isinstance(ours, tuple) else ours
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE


def saved(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, ending: str, tmp_path: Path) -> None:
    model = randomised(MODELS[name]())
    ours = fr.keras.load(saved(model, tmp_path / f"model{ending}"))
    x = data(model)
    assert_close(ours(x), keras_output(model, x))
    ours.save(tmp_path / "ours.safetensors")
    assert_close(fr.load(tmp_path / "ours.safetensors")(x), keras_output(model, x))


@pytest.mark.parametrize("name", MASKED)
def test_masks(name: str, tmp_path: Path) -> None:
    model = randomised(MASKED[name]())
    ours = fr.keras.load(saved(model, tmp_path / "model.keras"))
    for x in (data(model), data(model, masked=True)):
        theirs = keras_output(model, x)
        assert_close(ours(x), np.nan_to_num(theirs) if name == "mean" else theirs)  # the mean of no steps is 0 here
    assert any(isinstance(layer, Masked) for layer in ours.layers())


def test_stacks_become_one_layer(tmp_path: Path) -> None:
    model = fr.keras.load(saved(MODELS["stack"](), tmp_path / "m.keras"))
    assert isinstance(model, SequenceToVector) and isinstance(model.layer, fr.LSTM) and model.layer.num_layers == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sequential(L.LSTM(4, activation="gelu")), r"layer 'it' \(LSTM\): activation is 'gelu'"),
        (lambda: sequential(L.Dense(4, activation="gelu")), r"layer 'it' \(Dense\): activation is 'gelu'"),
        (
            lambda: sequential(L.LSTM(4, go_backwards=True, return_sequences=True)),
            r"layer 'it' \(LSTM\): go_backwards with return_sequences",
        ),
        (lambda: sequential(bidirectional(L.LSTM(4), merge_mode="mul")), r"layer 'it' \(Bidirectional\): merge_mode"),
        (lambda: sequential(L.Conv1D(4, 2)), r"layer 'it' \(Conv1D\): nothing here does that"),
        (lambda: sequential(L.TimeDistributed(L.LayerNormalization())), r"\(TimeDistributed\): the layer inside is a"),
    ],
)
def test_errors_name_the_layer(make: Any, message: str, tmp_path: Path) -> None:
    model = make()
    model.layers[0].name = "it"
    path = saved(keras.Sequential.from_config(model.get_config()), tmp_path / "m.keras")
    with pytest.raises(ValueError, match=f"keras.load: .*{message}"):
        fr.keras.load(path)


def test_stateful_is_told(tmp_path: Path) -> None:
    model = keras.Sequential([L.Input((None, FEATURES), batch_size=4), L.LSTM(4, stateful=True)])
    with pytest.warns(UserWarning, match=r"\(LSTM\): stateful is True"):
        fr.keras.load(saved(model, tmp_path / "m.keras"))


def test_models_that_are_no_chain(tmp_path: Path) -> None:
    x = L.Input((None, FEATURES))
    a, b = L.LSTM(4, name="a")(x), L.LSTM(4, name="b")(x)
    path = saved(keras.Model(x, L.Add(name="both")([a, b])), tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"layer 'both' reads a, b; expected a chain"):
        fr.keras.load(path)


LAYERS: dict[str, Any] = {
    "tagger": lambda: (
        [
            fr.Embedding(TOKENS, 4),
            fr.GRU(4, 5, bidirectional=True),
            fr.Linear(10, 4),
            fr.Activation("tanh"),
            fr.Linear(4, 3),
            fr.Activation("sigmoid"),
        ],
    ),
    "two of a kind": lambda: ([fr.LSTM(FEATURES, 5), fr.LSTM(5, 4), fr.Linear(4, 3), fr.LSTM(3, 2), fr.Linear(2, 2)],),
    "stack": lambda: ([fr.LSTM(FEATURES, 5, 3)],),
    "sum": lambda: ([fr.Bidirectional(fr.LSTM(FEATURES, 5), "sum")],),
    "simple": lambda: ([fr.RNN(FEATURES, 5), fr.RNN(5, 4, nonlinearity="relu")],),
}


def compared(name: str, layers: Any, x: Any) -> Any:
    y = fr.Sequential(*layers)(x)
    return y[:, -1] if name in ("two of a kind", "stack", "simple") else y


@pytest.mark.parametrize("kind", [".weights.h5", ".weights.json", "_weights.h5", ".keras"])
@pytest.mark.parametrize("name", LAYERS)
def test_weights_into_layers(name: str, kind: str, tmp_path: Path) -> None:
    """Files of weights alone, sharded or not, of Keras 3 and in the old layout."""
    model = randomised(MODELS[name]())
    path = tmp_path / f"m{kind}"
    if kind == ".weights.json":
        model.save_weights(path, max_shard_size=1e-6)
    elif kind == "_weights.h5":
        legacy_weights(model, path)
    elif kind == ".keras":
        saved(model, path)
    else:
        model.save_weights(path)
    (layers,) = LAYERS[name]()
    fr.keras.load(path, layers)
    x = data(model)
    assert_close(compared(name, layers, x), keras_output(model, x))


def legacy_weights(model: Any, path: Path) -> None:
    """Write what Keras 1 and 2 wrote by save_weights."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        file.attrs["keras_version"] = b"2.4.0"
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{index}:0" for index in range(len(layer.weights))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for each, value in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(each, data=value)


def test_layers_by_name(tmp_path: Path) -> None:
    model = randomised(MODELS["two of a kind"]())
    name = model.layers[1].name
    layer = fr.LSTM(5, 4)
    for path in (tmp_path / "m.weights.h5", tmp_path / "old.h5"):
        layer.load_state_dict({key: np.zeros_like(value) for key, value in layer.params.items()})
        model.save_weights(path) if path.name == "m.weights.h5" else legacy_weights(model, path)
        assert fr.keras.load(path, {name: layer}) == {name: layer}
        np.testing.assert_array_equal(layer.params["weight_hh_l0"].T, model.layers[1].get_weights()[1])


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    model = randomised(MODELS["last"]())
    model.save_weights(tmp_path / "m.weights.h5")
    layer = fr.GRU(FEATURES, 6)
    before = layer.state_dict()
    with pytest.raises(ValueError, match="of a GRU has shape"):
        fr.keras.load(tmp_path / "m.weights.h5", [layer])
    with pytest.raises(ValueError, match="the file has 0 weights"):
        fr.keras.load(tmp_path / "m.weights.h5", [layer, fr.GRU(6, 6)])
    for name, value in before.items():
        np.testing.assert_array_equal(layer.params[name], value)
    with pytest.raises(ValueError, match="has weights alone; expected layers="):
        fr.keras.load(tmp_path / "m.weights.h5")


def test_weights_into_a_model(tmp_path: Path) -> None:
    """What ``save_weights`` wrote goes back into a model as a whole."""
    path = tmp_path / "m.weights.h5"
    model, fresh = (SequenceToVector(fr.LSTM(3, 4, 2, seed=k), 2, seed=k) for k in (0, 1))
    heads = Heads(fr.LSTM(3, 4, 2, seed=2), {"a": 2}, seed=2)
    fr.keras.save_weights(model, path)
    assert fr.keras.load(path, fresh) is fresh and fr.keras.load(path, heads) is heads
    np.testing.assert_array_equal(heads.params["a.weight"], model.params["head.weight"])
    x = np.random.default_rng(2).normal(size=(2, 5, 3))
    assert_close(fresh(x), model(x))
    with pytest.raises(TypeError, match="layers has an int; expected layers"):
        fr.keras.load(path, [3])  # type: ignore[list-item]


def saved_as_npz(model: Any, path: Path) -> Path:
    """Keras's other format inside ``.keras``, where h5py is missing: a pickle of its own objects."""
    from keras.src.saving import saving_lib

    with open(path, "wb") as file:
        saving_lib._save_model_to_fileobj(model, file, "npz")
    return path


@pytest.mark.parametrize("name", ["lstm", "reset before", "classifier", "tagger", "cells", "no bias"])
def test_npz(name: str, tmp_path: Path) -> None:
    model = randomised(MODELS[name]())
    x = data(model)
    assert_close(fr.keras.load(saved_as_npz(model, tmp_path / "m.keras"))(x), keras_output(model, x))


class Variable:
    """What the backends of Keras put into an npz file, as pickle writes it."""

    def __init__(self, array: Any, kind: str) -> None:
        self.array, self.kind = array, kind

    def __reduce__(self) -> Any:
        if self.kind == "tensorflow":
            return functools.partial(named("tensorflow.x", "ResourceVariable"), initial_value=self.array), ()
        if self.kind == "jax":
            rebuild, arguments, state = self.array.__reduce__()
            return named("jax._src.array", "_reconstruct_array"), (rebuild, arguments, state, {"weak_type": False})
        if self.kind == "evil":
            return os.system, ("false",)
        return self.array.__reduce__()


def named(module: str, name: str) -> Any:
    """Return a function that pickle writes under this name."""
    for end in (*(i for i, each in enumerate(module) if each == "."), len(module)):
        holder = sys.modules.setdefault(module[:end], types.ModuleType(module[:end]))
    if not hasattr(holder, name):

        def function(*arguments: Any, **more: Any) -> None:
            raise AssertionError("this is not to be called")

        function.__module__, function.__qualname__ = module, name
        setattr(holder, name, function)
    return getattr(holder, name)


@pytest.mark.parametrize("kind", ["numpy", "tensorflow", "jax", "evil", "integers", "words"])
def test_npz_of_other_backends(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only arrays are rebuilt, and nothing else is called."""
    modules = dict(sys.modules)
    model = randomised(MODELS["lstm"]())
    arrays = [*model.get_weights()]
    if kind == "integers":
        arrays = [array.astype(np.int32) for array in arrays]
    held = {str(i): "no" if kind == "words" else Variable(array, kind) for i, array in enumerate(arrays)}
    content = io.BytesIO()
    np.savez(content, **{"layers/lstm/cell": np.array(held, dtype=object)})
    saved(model, tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive, zipfile.ZipFile(tmp_path / "n.keras", "w") as other:
        for name in ("metadata.json", "config.json"):
            other.writestr(name, archive.read(name))
        other.writestr("model.weights.npz", content.getvalue())
    for name in set(sys.modules) - set(modules):
        monkeypatch.delitem(sys.modules, name)
    if kind in ("evil", "integers", "words"):
        expected = {"evil": r"the weights need \w+.system; expected arrays"}.get(kind, "/0 is .* expected an array of")
        with pytest.raises(ValueError, match=f"keras.load: .*{expected}"):
            fr.keras.load(tmp_path / "n.keras")
        return
    x = data(model)
    assert_close(fr.keras.load(tmp_path / "n.keras")(x), keras_output(model, x))


def test_recurrent_dropout_is_carried_over(tmp_path: Path) -> None:
    layers = [L.LSTM(5, recurrent_dropout=0.3, return_sequences=True), L.GRU(4, recurrent_dropout=0.1)]
    model = randomised(sequential(*layers))
    ours = fr.keras.load(saved(model, tmp_path / "m.keras"))
    rates = [layer.variant.recurrent_dropout for layer in ours.layers() if isinstance(layer, fr.layers.Recurrent)]
    assert rates == [0.3, 0.1]
    x = data(model)
    assert_close(ours(x), keras_output(model, x))
    assert np.any(ours.forward(x)[0] != ours(x))


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("both", [False, True])
def test_models_of_keras_1(cell: str, both: bool, tmp_path: Path) -> None:
    """There each gate had arrays of its own, hard_sigmoid was the default, and arguments had other names."""
    gates = {"LSTM": "icfo", "GRU": "zrh", "SimpleRNN": "h"}[cell]
    order = {"LSTM": "ifco", "GRU": "rzh", "SimpleRNN": "h"}[cell]
    rng = np.random.default_rng(3)
    sides = [
        {gate: [rng.normal(0, 0.4, shape).astype("f") for shape in ((3, 5), (5, 5), (5,))] for gate in gates}
        for _ in range(1 + both)
    ]
    dense = [rng.normal(0, 0.4, shape).astype("f") for shape in ((5 * (1 + both), 2), (2,))]
    inner = {} if cell == "SimpleRNN" else {"inner_activation": "hard_sigmoid"}
    recurrent: dict[str, Any] = {"name": "rnn_1", "output_dim": 5, "activation": "tanh", **inner, "dropout_U": 0.2}
    recurrent |= {"return_sequences": True, "go_backwards": False, "stateful": False, "consume_less": "cpu"}
    spec: dict[str, Any] = {"class_name": cell, "config": recurrent}
    if both:
        config = {"name": "both_1", "merge_mode": "concat", "layer": spec}
        spec = {"class_name": "Bidirectional", "config": config}
    rest = [
        {"class_name": "Dropout", "config": {"name": "dropout_1", "p": 0.5}},
        {"class_name": "Dense", "config": {"name": "dense_1", "output_dim": 2, "activation": "linear", "bias": True}},
    ]
    arrays = {
        "both_1" if both else "rnn_1": [array for side in sides for gate in gates for array in side[gate]],
        "dropout_1": [],
        "dense_1": dense,
    }
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["keras_version"] = b"1.2.2"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [spec, *rest]}).encode()
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, values in arrays.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}_{index}".encode() for index in range(len(values))]
            for index, value in enumerate(values):
                group.create_dataset(f"{name}_{index}", data=value)
    ours = fr.keras.load(tmp_path / "m.h5")
    hard = ("hard_sigmoid", 0.2, 0.5)
    made: Any = {
        "LSTM": lambda: fr.LSTM(3, 5, bidirectional=both, activations=[hard, "tanh", "tanh"]),
        "GRU": lambda: fr.GRU(3, 5, bidirectional=both, activations=[hard, "tanh"], reset_after=False),
        "SimpleRNN": lambda: fr.RNN(3, 5, bidirectional=both),
    }[cell]()
    for side, suffix in zip(sides, ("_l0", "_l0_reverse"), strict=False):
        for index, name in enumerate(("weight_ih", "weight_hh", "bias_ih")):
            made.params[name + suffix][...] = np.concatenate([side[gate][index].T for gate in order])
        made.params[f"bias_hh{suffix}"][...] = 0
    x = rng.normal(size=(2, 6, 3)).astype("f")
    assert_close(ours(x), made(x)[0] @ dense[0] + dense[1])
    rates = [each.variant.recurrent_dropout for each in ours.layers() if isinstance(each, fr.layers.Recurrent)]
    assert rates == [0.2]


@pytest.mark.parametrize(
    "name", ["lstm", "stack", "tagger", "two of a kind", "functional", "sum", "no bias", "simple", "reset before"]
)
def test_weights_go_back(name: str, tmp_path: Path) -> None:
    """What is written here, Keras loads into a model of the same layers."""
    if name == "tagger":  # a TimeDistributed is a Dense here
        make: Any = lambda: sequential(  # noqa: E731
            embedding(), bidirectional(L.GRU(5, return_sequences=True)), L.Dense(4), L.Dense(3), tokens=True
        )
    else:
        make = MODELS[name]
    first, second = randomised(make()), make()
    ours = fr.keras.load(saved(first, tmp_path / "m.keras"))
    rng = np.random.default_rng(5)
    for value in ours.params.values():
        value += rng.normal(0, 0.1, value.shape).astype(value.dtype)
    fr.keras.save_weights(ours, tmp_path / "back.weights.h5")
    second.load_weights(tmp_path / "back.weights.h5")
    x = data(first)
    assert_close(ours(x), keras_output(second, x))
    assert np.abs(keras_output(second, x) - keras_output(first, x)).max() > 1e-3


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends in .weights.h5"):
        fr.keras.save_weights(fr.LSTM(3, 4), tmp_path / "m.h5")
    with pytest.raises(TypeError, match="model is an int"):
        fr.keras.save_weights(3, tmp_path / "m.weights.h5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds a stack"):
        fr.keras.save_weights(fr.Bidirectional(fr.LSTM(3, 4, 2)), tmp_path / "m.weights.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and so on", b"\x89HDF\r\n\x1a\n", b"anything"])
def test_what_is_no_file_of_keras(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"keras.load: "):
        fr.keras.load(path)
    with pytest.raises(OSError):
        fr.keras.load(tmp_path / "nothing.keras")


def test_damaged_files(tmp_path: Path) -> None:
    """Whatever bytes are wrong, a file is read or refused."""
    whole = saved(MODELS["functional"](), tmp_path / "whole.keras")
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    rng = np.random.default_rng(0)
    refused = 0
    for round_ in range(120):
        name = list(parts)[round_ % len(parts)]
        broken = bytearray(parts[name])
        for at in rng.integers(0, len(broken), 3):
            broken[at] = rng.integers(256)
        with zipfile.ZipFile(tmp_path / "broken.keras", "w") as archive:
            for each, content in (parts | {name: bytes(broken)}).items():
                archive.writestr(each, content)
        try:
            fr.keras.load(tmp_path / "broken.keras")
        except (ValueError, OSError):
            refused += 1
    assert refused >= 40


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for index, shape in enumerate(((2**20, 2**16), (2**14, 2**16), (2**16,))):
            file.create_dataset(f"layers/lstm/cell/vars/{index}", shape, np.float32, chunks=True)
    with pytest.raises(ValueError, match="of which the file holds next to nothing"):
        fr.keras.load(tmp_path / "m.weights.h5", [fr.LSTM(3, 4)])


def test_a_trained_file_of_keras_2(tmp_path: Path) -> None:
    """The weights of textgenrnn, in CuDNN's layout, still know English."""
    package = "textgenrnn==2.0.0"
    path = package_file(package, "textgenrnn/textgenrnn_weights.hdf5")
    vocabulary = json.loads(package_file(package, "textgenrnn/textgenrnn_vocab.json").read_text())
    layers: dict[str, Any] = {
        "embedding": fr.Embedding(465, 100),
        "rnn_1": fr.LSTM(100, 128),
        "rnn_2": fr.LSTM(128, 128),
        "output": fr.Linear(356, 465),
    }
    fr.keras.load(path, layers)
    with h5py.File(path) as file:
        group = file["attention"]
        attention = np.asarray(group[group.attrs["weight_names"][0]])
    characters = {index: character for character, index in vocabulary.items()}

    def following(text: str) -> str:
        """Return the likeliest next character: the layers and the average over time that the package makes of them."""
        tokens = [vocabulary[each] for each in text][-40:]
        x = layers["embedding"](np.array([[0] * (40 - len(tokens)) + tokens]))
        first = layers["rnn_1"](x)[0]
        second = layers["rnn_2"](first)[0]
        every = np.concatenate([x, first, second], axis=2)
        weights = np.exp(every @ attention)
        return characters[int(layers["output"]((weights / weights.sum(axis=1) * every).sum(axis=1))[0].argmax())]

    known = {"what is the best wa": "y", "I think the peopl": "e", "how to make an awesom": "e", "the governmen": "t"}
    assert sum(following(text) == answer for text, answer in known.items()) >= 3
