"""A layer keeps packed copies of its weights between calls; no way of writing to them may go unnoticed."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.layers.parameters import Parameters, serial_of

NAME = "weight_hh_l0"
X = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)


def make() -> fr.LSTM:
    """Return a layer that has settled: it knows that nobody else holds its weights."""
    layer = fr.LSTM(3, 7, seed=1)
    layer(X)
    layer(X)
    assert serial_of(layer) > 0
    return layer


def outputs_of_fresh(layer: fr.LSTM) -> np.ndarray:
    fresh = fr.LSTM(3, 7, seed=2)
    fresh.load_state_dict(layer.state_dict())
    return fresh(X)[0]


def hold_array(layer: fr.LSTM) -> Callable[[], None]:
    array = layer.params[NAME]
    return lambda: array.__setitem__((0, 0), 3)


def hold_row(layer: fr.LSTM) -> Callable[[], None]:
    row = layer.params[NAME][2]
    return lambda: row.fill(-1)


def hold_transposed(layer: fr.LSTM) -> Callable[[], None]:
    transposed = layer.params[NAME].T
    return lambda: transposed.fill(0.25)


def hold_dict(layer: fr.LSTM) -> Callable[[], None]:
    params = layer.params
    return lambda: params[NAME].fill(0.5)


def hold_memoryview(layer: fr.LSTM) -> Callable[[], None]:
    view = memoryview(layer.params[NAME])
    return lambda: view.__setitem__((1, 1), 2.0)


def hold_weak_reference(layer: fr.LSTM) -> Callable[[], None]:
    reference = weakref.ref(layer.params[NAME])
    return lambda: reference().fill(0.75)


def hold_ctypes_pointer(layer: fr.LSTM) -> Callable[[], None]:
    pointer = layer.params[NAME].ctypes.data_as(np.ctypeslib.ctypes.POINTER(np.ctypeslib.ctypes.c_float))
    return lambda: pointer.__setitem__(0, 5.0)


def hold_torch_tensor(layer: fr.LSTM) -> Callable[[], None]:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(layer.params[NAME])
    return lambda: tensor.fill_(0.1)


def hold_nothing(layer: fr.LSTM) -> Callable[[], None]:
    return lambda: layer.params[NAME].__imul__(2)


def hold_parent(layer: fr.LSTM) -> Callable[[], None]:
    parent = fr.Sequential(layer)
    return lambda: parent.params[f"0.{NAME}"].__imul__(2)


def hold_shallow_copy(layer: fr.LSTM) -> Callable[[], None]:
    other = copy.copy(layer)
    return lambda: other.params[NAME].__imul__(2)


def hold_optimizer(layer: fr.LSTM) -> Callable[[], None]:
    optimizer = fr.SGD(layer, lr=0.5)

    def change() -> None:
        for grad in layer.grads.values():
            grad.fill(1)
        optimizer.step()

    return change


def hold_shared_array(layer: fr.LSTM) -> Callable[[], None]:
    other = fr.LSTM(3, 7, seed=3)
    other.params[NAME] = layer.params[NAME]
    return lambda: other.params[NAME].__imul__(2)


def replace_array(layer: fr.LSTM) -> Callable[[], None]:
    return lambda: layer.params.update({NAME: layer.params[NAME] * 2})


def load(layer: fr.LSTM) -> Callable[[], None]:
    state = {name: array + 1 for name, array in layer.state_dict().items()}
    return lambda: layer.load_state_dict(state)


WAYS = [
    hold_array,
    hold_row,
    hold_transposed,
    hold_dict,
    hold_memoryview,
    hold_weak_reference,
    hold_ctypes_pointer,
    hold_torch_tensor,
    hold_nothing,
    hold_parent,
    hold_shallow_copy,
    hold_optimizer,
    hold_shared_array,
    replace_array,
    load,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_no_change_goes_unnoticed(way: Callable[[fr.LSTM], Callable[[], None]], calls: int) -> None:
    layer = make()
    change = way(layer)
    for _ in range(calls):
        layer(X)
    before = layer(X)[0]
    for _ in range(2):  # a second change, by the same holder
        change()
        after = layer(X)[0]
        assert (after == outputs_of_fresh(layer)).all()
    assert (after != before).any()


def test_training_forward_sees_changes_too() -> None:
    layer = make()
    layer.forward(X)
    before = layer.forward(X)[0][0]
    layer.params[NAME][...] *= 2
    after = layer.forward(X)[0][0]
    assert (after == outputs_of_fresh(layer)).all()
    assert (after != before).any()


def test_each_stack_of_a_layer_sees_changes() -> None:
    """With dropout between layers, training and inference pack for themselves."""
    layer = fr.LSTM(3, 7, num_layers=2, dropout=0.5, seed=1)
    for _ in range(2):
        layer(X)
        layer.forward(X)
    layer.params["weight_ih_l1"][...] *= 2
    layer(X)
    fresh = fr.LSTM(3, 7, num_layers=2, dropout=0.5, seed=2)
    fresh.load_state_dict(layer.state_dict())
    layer.reseed(5)
    fresh.reseed(5)
    assert (layer.forward(X)[0][0] == fresh.forward(X)[0][0]).all()


def test_weights_that_nobody_holds_are_read_once() -> None:
    """A write that Python cannot see changes nothing: proof that the check is skipped, and its stated limit."""
    layer = make()
    address = layer._params[NAME].ctypes.data
    gc.collect()
    before = layer(X)[0]
    np.ctypeslib.ctypes.memset(address, 0, 4)
    assert layer._params[NAME][0, 0] == 0
    assert (layer(X)[0] == before).all()


def test_serial_numbers() -> None:
    layer = make()
    first = serial_of(layer)
    assert serial_of(layer) == first
    held = layer.params[NAME]
    assert serial_of(layer) == 0
    del held
    settled = serial_of(layer)
    assert settled > first
    (y, _), tape = layer.forward(X)
    layer.backward(tape, y)
    assert serial_of(layer) == settled, "neither a tape nor a backward is a reason to look at the weights"


@pytest.mark.parametrize("again", [lambda p: pickle.loads(pickle.dumps(p)), copy.copy, copy.deepcopy])
def test_copies_of_parameters_start_unknown(again: Callable[[Any], Any]) -> None:
    layer = make()
    made = again(layer._params)
    assert type(made) is Parameters
    assert made.handed_out
    assert made.keys() == layer._params.keys()


def test_foreign_memory_is_never_trusted() -> None:
    layer = make()
    memory = bytearray(layer.params[NAME].tobytes())
    layer.params[NAME] = np.frombuffer(memory, np.float32).reshape(28, 7)
    before = layer(X)[0]
    memory[:4] = np.float32(9).tobytes()
    assert (layer(X)[0] != before).any()
