"""The host twin of the CUDA kernels passes the tests of the CPU kernels.

What is imported from other test modules runs here once more, with the twin in the place of the CPU kernels.
"""
# ruff: noqa: F401

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from itertools import count
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from fusedrnn import _core
from problems import Array, Case, backward, gradients, train
from reference import CELLS
from test_bad_operands import test_cotangents, test_foreign_tape, test_good_after_bad, test_shapes
from test_bitwise import (
    test_batch_position as same_bits_in_every_batch,
)
from test_bitwise import (
    test_broadcast_views,
    test_dtype_of_lengths,
    test_nan_stays_in_its_sample,
    test_padding_is_not_read,
    test_strides,
    test_training_is_inference,
)
from test_gradients import (
    test_cotangents_of_none,
    test_every_element,
    test_many_steps,
    test_no_samples,
    test_no_steps,
    test_padding_has_no_gradient,
    test_relu_at_its_kink,
    test_sizes,
    test_zero_initial_state,
)
from test_kernels import test_empty, test_grid, test_integers_are_exact, test_many_rows, test_tail_is_zero
from test_recurrent_dropout import test_gradients_through_dropout
from test_recurrent_layers import (
    test_backward_accumulates,
    test_cotangent_of_outputs_or_state_alone,
    test_default_state_is_zero,
    test_gradients,
    test_outputs,
    test_state_continues_a_sequence,
    test_two_tapes,
    test_unbatched,
)
from tolerance import ROUNDING, assert_gradient, assert_same_bits
from twin import CAPTURED, BusyDevice, Operands, needs_cuda_module, twin_stack

pytestmark = needs_cuda_module


@pytest.fixture(autouse=True, params=["auto", "fused", "stepwise"])
def twin(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Put the twin in the place of the CPU kernels: on each path, where it fits."""
    monkeypatch.setattr(_core, "Stack", twin_stack)
    monkeypatch.setenv("FUSEDRNN_CUDA_PATH", request.param)


@pytest.mark.parametrize("twin", ["auto", "stepwise"], indirect=True)
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
def test_batch_position(cell: str, dtype: str, batch_first: bool, twin: None) -> None:
    """Not between the fused and the stepwise path, of which the batch chooses one: see test_cuda_fused.py."""
    same_bits_in_every_batch(cell, dtype, batch_first)


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
@pytest.mark.parametrize("directions", [1, 2], ids=["one_way", "two_way"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_chunks(cell: str, batch_first: bool, directions: int, ragged: bool) -> None:
    """Projecting a step, a few or all steps at a time gives the same bits, in inference and with gradients."""
    operands = Operands(cell, "float32", layers=3, directions=directions, batch_first=batch_first, ragged=ragged)
    whole = operands.gradients(operands.stack(twin_stack))
    for steps in (1, 4):
        stack = operands.stack(twin_stack, chunk_bytes=operands.step_bytes * steps)
        for out, expected in zip(operands.gradients(stack), whole, strict=True):
            assert_same_bits(out, expected)
        for out, expected in zip(operands.outputs(stack), whole, strict=False):
            assert_same_bits(out, expected)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_recorded_loops_hold_for_other_arrays(cell: str, ragged: bool, reverse: bool) -> None:
    """A loop is recorded in its second call and replayed from then on: with other inputs, lengths and tapes."""
    first = Operands(cell, "float64", ragged=ragged, reverse=reverse, seed=1)
    stack, fresh = first.stack(twin_stack), first.stack(_cpu_stack)
    for seed in range(2, 6):
        other = Operands(cell, "float64", ragged=ragged, reverse=reverse, seed=seed, weights=first.weights)
        for out, expected in zip(other.gradients(stack), other.gradients(fresh), strict=True):
            assert_gradient(out, expected)


def test_outputs_belong_to_the_caller(cell: str, dtype: str) -> None:
    """The tape does not read y again, so that it may be overwritten, and a second backward leaves it alone."""
    case = Case(cell, ragged=True)
    arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
    expected = gradients(cell, arguments, cotangents)
    outputs, tape = train(cell, arguments)
    for out in outputs:
        out[...] = np.nan
    for _ in range(2):
        actual = backward(cell, tape, cotangents)
        assert all(np.all(np.isnan(out)) for out in outputs)
        for name, value in actual.items():
            assert_same_bits(value, expected[name], name)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_memory_runs_out_in_forward(monkeypatch: pytest.MonkeyPatch, cell: str, training: bool) -> None:
    """Whichever piece is refused: the call is made again, and what it had put out is done before its tape goes."""
    from fusedrnn import _cuda
    from fusedrnn.cuda.array_libraries import _NumPy

    operands = Operands(cell, "float32", layers=3, directions=2, ragged=True)
    expected = operands.outputs(operands.stack(twin_stack))
    again: list[int] = []
    monkeypatch.setattr(_NumPy, "release_cached", lambda _: again.append(pieces))
    for pieces in count():
        _cuda.forget_loops_on_host()  # of an earlier try whose weights stood at the same addresses
        fresh = operands.replaced(weights=[w.copy() for w in operands.weights])
        stack = fresh.stack(twin_stack)
        _cuda.refuse_on_host(pieces)
        outputs = fresh.train(stack)[0] if training else fresh.outputs(stack)
        _cuda.refuse_on_host(-1)
        for out, value in zip(outputs, expected, strict=True):
            assert_same_bits(out, value, pieces)
        if pieces not in again:
            break
    assert again


@pytest.mark.parametrize("seen", [False, True], ids=["first_call", "recording"])
@pytest.mark.parametrize("directions", [1, 2], ids=["one_way", "two_way"])
def test_memory_runs_out_in_backward(
    monkeypatch: pytest.MonkeyPatch, cell: str, directions: int, seen: bool, request: pytest.FixtureRequest
) -> None:
    """Whichever piece is refused: the call is made again and adds nothing twice, or says that it must not be."""
    from fusedrnn import _cuda
    from fusedrnn.cuda.array_libraries import _NumPy

    operands = Operands(cell, "float32", layers=3, directions=directions, ragged=True)
    expected = operands.gradients(operands.stack(twin_stack))
    again: list[int] = []
    monkeypatch.setattr(_NumPy, "release_cached", lambda _: again.append(pieces))
    half_way: list[int] = []
    for pieces in count():
        _cuda.forget_loops_on_host()  # of an earlier try whose weights stood at the same addresses
        fresh = operands.replaced(weights=[w.copy() for w in operands.weights])
        stack = fresh.stack(twin_stack)
        if seen:
            fresh.gradients(stack)
        outputs, tape = fresh.train(stack)
        _cuda.refuse_on_host(pieces)
        try:
            gradients = fresh.backward(tape)
        except RuntimeError as error:
            assert "set all of them to zero before you try again" in str(error)
            half_way.append(pieces)
            gradients = fresh.backward(tape)
        _cuda.refuse_on_host(-1)
        for place, (out, value) in enumerate(zip(outputs + gradients, expected, strict=True)):
            assert_same_bits(out, value, (pieces, place))
        if pieces not in again + half_way:
            break
    assert again
    resident = request.node.callspec.params["twin"] == "auto"
    assert bool(half_way) == (seen and not resident)


@pytest.mark.parametrize("kind", ROUNDING)
@pytest.mark.parametrize("directions", [1, 2], ids=["one_way", "two_way"])
def test_half_precision(cell: str, kind: str, directions: int) -> None:
    """16-bit arrays: outputs within two roundings of the same numbers in float64, gradients within eight.

    Sums and states are float32. A gradient has passed a few roundings of the saved gates, of dz and of its own.
    """
    operands = Operands(cell, kind, layers=2, directions=directions, ragged=True)
    exact = operands.astype("float64")
    outputs = operands.gradients(operands.stack(twin_stack))
    truth = exact.gradients(exact.stack(twin_stack))
    states = 1 + len(CELLS[cell].states)
    for place, (out, true) in enumerate(zip(outputs, truth, strict=True)):
        assert out.dtype.name == kind
        error = np.linalg.norm((out.astype(np.float64) - true).ravel()) / np.linalg.norm(true.ravel())
        assert error <= ROUNDING[kind] * (2 if place < states else 8), place


def _cpu_stack(*args: Any, **kwargs: Any) -> Any:
    return CPU_STACK(*args, **kwargs)


CPU_STACK = _core.Stack


class Shared:
    """An array of a library that is not known by name: it has DLPack and nothing else."""

    def __init__(self, values: Array) -> None:
        self._values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def test_torch_tensors(cell: str) -> None:
    """Tensors go in without a copy, also as gradients to add into, and tensors come out."""
    torch = pytest.importorskip("torch")
    operands = Operands(cell, "float32", layers=2, directions=2, ragged=True)
    expected = operands.gradients(operands.stack(twin_stack))
    outputs = operands.gradients(operands.stack(twin_stack), torch.from_numpy)
    for out, value in zip(outputs, expected, strict=True):
        assert isinstance(out, torch.Tensor)
        assert_same_bits(out.numpy(), value)


def test_arrays_by_dlpack(cell: str) -> None:
    """Any object with DLPack goes in; of another library than x's as well."""
    operands = Operands(cell, "float32", ragged=True)
    y = operands.outputs(operands.stack(twin_stack))[0]
    assert_same_bits(operands.outputs(operands.stack(twin_stack), Shared)[0], y)
    torch = pytest.importorskip("torch")
    x_of_torch = operands.replaced(x=torch.from_numpy(operands.x))
    mixed = x_of_torch.outputs(operands.stack(twin_stack))[0]
    assert isinstance(mixed, torch.Tensor)
    assert_same_bits(mixed.numpy(), y)


def _of_another_library() -> Any:
    """Return the library of an x whose current stream is not CuPy's: 100 on device 0, 101 on device 1."""
    from fusedrnn.cuda.array_libraries import _NumPy

    class Elsewhere(_NumPy):
        name = "elsewhere"

        def stream(self, device: int) -> int:
            return 100 + device

    return Elsewhere()


def test_arrays_by_dlpack_are_ready_in_the_stream_of_the_call() -> None:
    """Their library is told the current stream of x's library, which the call runs on."""
    from fusedrnn.cuda.stack import _Call

    class OnDevice(Shared):
        streams: ClassVar[list[int]] = []

        def __dlpack__(self, *, stream: int) -> Any:
            self.streams.append(stream)
            return super().__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 1

    array = OnDevice(np.zeros((2, 3), np.float32))
    call = _Call("LSTM", _of_another_library(), 1)
    call.input("h0", array)
    call.target("gradients[0]", array)
    assert array.streams == [101, 101]


def test_arrays_by_interface_are_ready_in_the_stream_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream of the call waits for the one that the interface names."""
    from fusedrnn.cuda import array_libraries
    from fusedrnn.cuda.stack import _Call

    done: list[tuple[str, int, int]] = []
    runtime = SimpleNamespace(
        eventRecord=lambda event, stream: done.append(("record", event, stream)),
        streamWaitEvent=lambda stream, event: done.append(("wait", stream, event)),
    )
    cuda = SimpleNamespace(
        Device=lambda ordinal: nullcontext(), Event=lambda disable_timing: SimpleNamespace(ptr=9), runtime=runtime
    )
    monkeypatch.setattr(array_libraries, "cupy_namespace", lambda: SimpleNamespace(cuda=cuda))
    interface = {"data": (0, False), "typestr": "<f4", "shape": (0, 3), "strides": None, "stream": 7}
    _Call("LSTM", _of_another_library()).input("h0", SimpleNamespace(__cuda_array_interface__=interface))
    assert done == [("record", 9, 7), ("wait", 100, 9)]


def test_arrays_of_other_libraries_are_held_until_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory would be somebody else's as soon as nobody holds them; a tape may be gone by then."""
    device = BusyDevice(monkeypatch)
    operands = Operands("lstm", "float32")
    stack = operands.stack(twin_stack)

    def still_held(training: bool) -> weakref.ref[Any]:
        c0 = Shared(operands.start[1])
        *_, tape = stack.forward(operands.weights, operands.x, None, c0, None, True, training)
        if tape is not None:
            tape.backward(operands.cotangents[0], None, None, [np.zeros_like(w) for w in operands.weights])
        return weakref.ref(c0)

    held = [still_held(training) for training in (False, True)]
    device.assert_holds(held, lambda: operands.outputs(stack))


def test_foreign_arrays_that_are_copied_are_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is made in the order of the stream as well."""
    from fusedrnn.cuda.array_libraries import _NumPy

    device = BusyDevice(monkeypatch)
    monkeypatch.setattr(_NumPy, "owns", lambda self, array: array.flags.owndata)
    operands = Operands("lstm", "float32")
    x = np.repeat(operands.x, 2, axis=-1)[..., ::2]
    operands.replaced(x=x).outputs(operands.stack(twin_stack))
    held = [weakref.ref(x)]
    del x
    device.assert_holds(held, lambda: operands.outputs(operands.stack(twin_stack)))


@pytest.mark.parametrize("backward_stream", [1, 2], ids=["same_stream", "other_stream"])
def test_copies_of_a_tape_are_held_for_another_stream(monkeypatch: pytest.MonkeyPatch, backward_stream: int) -> None:
    """Once given up they are used again in the order of the forward's stream, whatever the backward's has to do."""
    from fusedrnn.cuda.array_libraries import _NumPy

    device, stream = BusyDevice(monkeypatch), 1
    copies: list[weakref.ref[Any]] = []

    def dense(self: Any, array: Array) -> Array:
        copy = np.ascontiguousarray(array)
        copies.append(weakref.ref(copy))
        return copy

    monkeypatch.setattr(_NumPy, "stream", lambda self, device: stream)
    monkeypatch.setattr(_NumPy, "dense", dense)
    operands = Operands("lstm", "float32")
    stack = operands.stack(twin_stack)
    tape = operands.replaced(x=np.repeat(operands.x, 2, axis=-1)[..., ::2]).train(stack)[1]
    stream = backward_stream
    operands.backward(tape)
    del tape
    gc.collect()
    assert [copy() is not None for copy in copies] == [backward_stream == 2]
    device.done = True
    operands.outputs(stack)
    gc.collect()
    assert copies[0]() is None


def test_a_captured_stream_is_refused(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    """Before a mark is left there, by which the tape or what is held would never be given back."""
    from fusedrnn.cuda.array_libraries import _NumPy

    operands = Operands(cell, "float32")
    stack = operands.stack(twin_stack)
    outputs, tape = operands.train(stack)
    expected = operands.gradients(stack)
    with monkeypatch.context() as captured:
        captured.setattr(_NumPy, "stream", lambda self, device: CAPTURED)
        captured.setattr(_NumPy, "mark", lambda self, device: None)
        captured.setattr(_NumPy, "owns", lambda self, array: False)
        with pytest.raises(RuntimeError, match="the current stream is being captured"):
            operands.outputs(stack)
        with pytest.raises(RuntimeError, match="the current stream is being captured"):
            operands.backward(tape)
    for out, value in zip(outputs + operands.backward(tape), expected, strict=True):
        assert_same_bits(out, value)
