"""The CUDA kernels on a GPU: the tests of the CPU kernels once more, then what is particular to a device.

Needs a device, CuPy and torch. What is imported from other test modules runs with the device in the place of the CPU
kernels: NumPy arrays are copied there and back.
"""
# ruff: noqa: F401

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import tolerance
from fusedrnn import _core, cuda
from problems import FORWARD, LAYERS, Array, Case, flat
from test_bitwise import test_nan_stays_in_its_sample, test_padding_is_not_read
from test_gradients import (
    test_cotangents_of_none,
    test_every_element,
    test_many_steps,
    test_no_samples,
    test_no_steps,
    test_padding_has_no_gradient,
    test_relu_at_its_kink,
    test_sizes,
)
from test_kernels import test_1025, test_empty, test_grid, test_integers_are_exact, test_many_rows, test_tail_is_zero
from test_recurrent_layers import test_backward_accumulates, test_gradients, test_outputs, test_two_tapes
from tolerance import ON_DEVICE, ROUNDING, TF32_ROUNDING, assert_forward, assert_gradient, assert_same_bits
from twin import Operands, imported

UNAVAILABLE = cuda.unavailable()
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(UNAVAILABLE is not None, reason=f"device='cuda' cannot be used: {UNAVAILABLE}"),
]


def cupy() -> Any:
    """Return the module, which is imported on machines with a device only."""
    return imported("cupy")


def device_stack(*args: Any, **kwargs: Any) -> Any:
    """Make a stack on the device."""
    from fusedrnn.cuda.stack import Stack

    return Stack(*args, **kwargs)


def mixed_stack(*args: Any, **kwargs: Any) -> Any:
    """Make the stack of a layer with compute_dtype."""
    from fusedrnn.cuda.mixed import MixedStack

    return MixedStack(*args, **kwargs)


def foreign(array: Array) -> Any:
    """Return a CuPy array in the memory of a torch tensor."""
    return cupy().from_dlpack(imported("torch").from_numpy(array).cuda())


def assert_path(stack: Any, steps: int, batch: int) -> None:
    """Demand the path that FUSEDRNN_CUDA_PATH asks for, of a size for which there is each."""
    kind = "resident" if stack.path == "auto" else stack.path
    assert stack.plan(steps, batch).startswith(f"cuda: {kind}")


class RoundTrip:
    """A stack on the device that takes and returns NumPy arrays."""

    def __init__(self, *args: Any, compute_dtype: str = "", **kwargs: Any) -> None:
        assert compute_dtype in ("", args[1]), "the CUDA kernels have no compute_dtype"
        self._stack = device_stack(*args, **kwargs)

    def forward(self, weights: list[Array], x: Array, h0: Any, c0: Any, *rest: Any) -> tuple[Any, ...]:
        up = cupy().asarray
        *outputs, tape = self._stack.forward([up(w) for w in weights], up(x), *_lifted(up, h0, c0), *rest)
        return (*_lowered(*outputs), tape and RoundTripTape(tape))


class RoundTripTape:
    """Its tape."""

    def __init__(self, tape: Any) -> None:
        self._tape = tape

    def backward(self, dy: Any, dh: Any, dc: Any, gradients: list[Array], want_dx: bool = True) -> tuple[Any, ...]:
        up = cupy().asarray
        on_device = [up(g) for g in gradients]
        results = self._tape.backward(*_lifted(up, dy, dh, dc), on_device, want_dx)
        for host, device in zip(gradients, on_device, strict=True):
            host[...] = device.get()
        return tuple(_lowered(*results))


def _lifted(up: Callable[[Any], Any], *arrays: Any) -> list[Any]:
    return [None if a is None else up(a) for a in arrays]


def _lowered(*arrays: Any) -> list[Any]:
    return [None if a is None else a.get() for a in arrays]


# These set the path of a stack themselves.
OWN_PATH = {
    "test_paths_agree",
    "test_resident_bits_do_not_depend_on_the_batch",
    "test_two_samples_of_a_block",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on each path."""
    paths = ["auto"] if metafunc.function.__name__ in OWN_PATH else ["auto", "fused", "stepwise"]
    metafunc.parametrize("on_device", paths, indirect=True)


@pytest.fixture(autouse=True)
def on_device(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Put the device in the place of the CPU kernels, with its tolerances, on each of its paths."""
    cupy()  # before the package imports it, which would let a warning be an error
    monkeypatch.setattr(_core, "Stack", RoundTrip)
    monkeypatch.setenv("FUSEDRNN_CUDA_PATH", request.param)
    for name, value in ON_DEVICE.items():
        monkeypatch.setitem(tolerance.TOLERANCE, name, value)


SHAPES = [{"layers": 3}, {"layers": 2, "directions": 2, "ragged": True}, {"reverse": True, "batch_first": False}]


@pytest.mark.parametrize("batch", [4, 9, 33])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_on_every_run(cell: str, dtype: str, shape: dict[str, Any], batch: int) -> None:
    """Run as it is, recorded, replayed: the same bits, whatever the lanes do beside each other."""
    operands = Operands(cell, dtype, batch=batch, steps=70, inputs=40, hidden=64, **shape).damped()
    stack = operands.stack(device_stack)
    if batch <= (9 if dtype == "float32" else 4):
        assert_path(stack, 70, batch)
    operands.weights = [cupy().asarray(w) for w in operands.weights]  # at other addresses they would be recorded anew
    expected = [a.get() for a in operands.gradients(stack, cupy().asarray)]
    for _ in range(4):
        for out, first in zip(operands.gradients(stack, cupy().asarray), expected, strict=True):
            assert_same_bits(out.get(), first)


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_replays_hold_for_other_arrays(cell: str, ragged: bool) -> None:
    """Recorded loops read the inputs, lengths and tapes of their call. Small enough for compute-sanitizer."""
    first = Operands(cell, "float64", layers=2, ragged=ragged, batch=4, seed=1)
    weights = [cupy().asarray(w) for w in first.weights]
    stack = first.stack(device_stack)
    assert_path(stack, first.steps, first.batch)
    for seed in range(2, 6):
        other = Operands(cell, "float64", layers=2, ragged=ragged, batch=4, seed=seed, weights=weights)
        expected = other.replaced(weights=first.weights)
        truth = expected.gradients(expected.stack(CPU_STACK))
        for out, value in zip(other.gradients(stack, cupy().asarray), truth, strict=True):
            assert_gradient(out.get(), value)


CPU_STACK = _core.Stack


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_two_samples_of_a_block(cell: str, ragged: bool) -> None:
    """More samples than blocks run at a time, and one block half empty. Few steps: compute-sanitizer runs this too."""
    batch = 2 * cupy().cuda.Device().attributes["MultiProcessorCount"] + 1
    operands = Operands(cell, "float32", batch=batch, steps=3, hidden=100, ragged=ragged).damped()
    stack = operands.stack(device_stack)
    stack.path = "auto"
    assert "(2 x " in stack.plan(3, batch)
    truth = operands.gradients(operands.stack(CPU_STACK))
    for place, (out, true) in enumerate(zip(operands.gradients(stack, cupy().asarray), truth, strict=True)):
        (assert_forward if place < 2 + (cell == "lstm") else assert_gradient)(out.get(), true.astype(np.float64), place)


# (batch, hidden): slices of W_hh and one more, weights beyond the registers, more samples than blocks run at a time.
RESIDENT = [(1, 1), (3, 7), (17, 33), (5, 64), (16, 100), (3, 128), (300, 64), (200, 128), (2, 256), (9, 513)]


@pytest.mark.parametrize("sizes", RESIDENT, ids=str)
@pytest.mark.parametrize("directions", [1, 2], ids=["one_way", "two_way"])
def test_paths_agree(cell: str, dtype: str, sizes: tuple[int, int], directions: int) -> None:
    """Each path that is taken against the CPU, and its bits on a second run."""
    batch, hidden = sizes
    operands = Operands(cell, dtype, 2, directions, batch=batch, steps=20, hidden=hidden, ragged=batch % 2 == 1)
    operands = operands.damped()
    truth = operands.gradients(operands.stack(CPU_STACK))
    few = batch <= (16 if dtype == "float32" else 4)
    for path in ("auto", "fused", "stepwise"):
        stack = operands.stack(device_stack)
        stack.path = path
        plan = stack.plan(20, batch)
        assert path != "stepwise" or plan == "cuda: stepwise"
        assert path != "fused" or plan == ("cuda: fused" if few else "cuda: stepwise")
        assert path != "auto" or hidden > 64 or plan.startswith("cuda: resident")
        first, second = ([a.get() for a in operands.gradients(stack, cupy().asarray)] for _ in range(2))
        for place, (out, again, true) in enumerate(zip(first, second, truth, strict=True)):
            assert_same_bits(again, out, (plan, place))
            check = assert_forward if place < 2 + (cell == "lstm") else assert_gradient
            check(out, true.astype(np.float64), (plan, place))


@pytest.mark.parametrize("hidden", [33, 64, 128])
def test_resident_bits_do_not_depend_on_the_batch(cell: str, hidden: int) -> None:
    """What the resident path adds to given input projections: the same bits alone and in batches of one or two a block.

    The projections are cuBLAS's and may depend on the batch; x of zeros takes them out.
    """
    operands = Operands(cell, "float32", batch=300, steps=20, hidden=hidden)
    operands.x[...] = 0
    stack = operands.stack(device_stack)
    stack.path = "auto"
    if not stack.plan(20, 1).startswith("cuda: resident"):
        assert hidden == 128, "smaller sizes are resident on every device"
        return  # the paths that run here choose their kernels by the batch
    weights = [cupy().asarray(w) for w in operands.weights]

    def outputs(samples: slice) -> Array:
        h0, *c0 = (cupy().asarray(s[:, samples]) for s in operands.start)
        x = cupy().asarray(operands.x[samples])
        return stack.forward(weights, x, h0, c0[0] if c0 else None, None, True, False)[0].get()  # type: ignore[no-any-return]

    whole = outputs(slice(None))
    for samples in (slice(0, 1), slice(7, 24), slice(100, 300)):
        assert_same_bits(outputs(samples), whole[samples])


@pytest.mark.parametrize("kind", ROUNDING)
@pytest.mark.parametrize("directions", [1, 2], ids=["one_way", "two_way"])
def test_half_precision(cell: str, kind: str, directions: int) -> None:
    """16-bit tensors: outputs within two roundings of the same numbers in float64, gradients within eight."""
    torch = imported("torch")
    pytest.importorskip("ml_dtypes")
    operands = Operands(cell, kind, 2, directions, ragged=True, inputs=40, hidden=64).damped()

    def lift(array: Array) -> Any:
        return torch.from_numpy(array.astype(np.float32)).to("cuda", getattr(torch, kind))  # torch knows no ml_dtypes

    exact = operands.astype("float64")
    outputs = operands.gradients(operands.stack(device_stack), lift)
    truth = exact.gradients(exact.stack(CPU_STACK))
    states = 2 + (cell == "lstm")
    for place, (out, true) in enumerate(zip(outputs, truth, strict=True)):
        if cell == "rnn_relu" and place >= states:
            break  # a rounding may put a unit on the other side of its kink, where its gradient is another
        assert out.dtype == getattr(torch, kind)
        error = np.linalg.norm((out.double().cpu().numpy() - true).ravel()) / np.linalg.norm(true.ravel())
        assert error <= ROUNDING[kind] * (2 if place < states else 8), place


@pytest.mark.parametrize("kind", ROUNDING)
def test_compute_dtype(cell: str, kind: str) -> None:
    """Arrays of float32 over kernels of 16 bits: to the bit what these make of rounded tensors."""
    torch = imported("torch")
    pytest.importorskip("ml_dtypes")
    operands = Operands(cell, "float32", 2, ragged=True, inputs=40, hidden=64).damped()

    def lift(array: Array) -> Any:
        return torch.from_numpy(array.astype(np.float32)).cuda()

    def lift_rounded(array: Array) -> Any:
        return lift(array).to(getattr(torch, kind))

    expected = operands.gradients(operands.replaced(dtype=kind).stack(device_stack), lift_rounded)
    outputs = operands.gradients(operands.stack(mixed_stack, compute_dtype=kind), lift)
    for out, truth in zip(outputs, expected, strict=True):
        assert out.dtype == torch.float32
        assert torch.equal(out, truth.float())


def test_tf32() -> None:
    """TF32 is off by default; allowed, it rounds the inputs of products and no more."""
    operands = Operands("lstm", "float32", batch=32, steps=20, inputs=256, hidden=256)
    stack = operands.stack(device_stack)
    exact = operands.astype("float64")
    truth = exact.outputs(exact.stack(CPU_STACK))[0]
    precise = np.max(np.abs(operands.outputs(stack, cupy().asarray)[0].get() - truth))
    cuda.set_tf32(True)
    try:
        rough = np.max(np.abs(operands.outputs(stack, cupy().asarray)[0].get() - truth))
    finally:
        cuda.set_tf32(False)
    assert precise <= 1e-5
    assert precise < rough <= 8 * TF32_ROUNDING


@pytest.mark.alone
@pytest.mark.parametrize("library", ["cupy", "torch"])
def test_callers_stream(library: str) -> None:
    """Work of the caller's stream before the call is waited for, and work after it sees the results."""
    operands = Operands("lstm", "float32", batch=16, steps=200, inputs=64, hidden=64)
    expected = operands.outputs(operands.stack(CPU_STACK))[0]
    stack = operands.stack(device_stack)
    if library == "cupy":
        xp = cupy()
        stream = xp.cuda.Stream(non_blocking=True)
        with stream:
            noise = xp.random.default_rng(0).standard_normal((4096, 4096), dtype=np.float32)
            for _ in range(20):  # keeps the stream busy while the call below is put on it
                noise = noise @ noise / 64
            x = xp.zeros_like(xp.asarray(operands.x)) * noise[0, 0]
            x[...] = xp.asarray(operands.x)
            y = operands.replaced(x=x).outputs(stack, xp.asarray)[0] + 0
            result = y.get()
    else:
        torch = imported("torch")
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            noise = torch.randn(4096, 4096, device="cuda")
            for _ in range(20):
                noise = noise @ noise / 64
            x = torch.zeros(operands.x.shape, device="cuda") * noise[0, 0].nan_to_num()
            x.copy_(torch.from_numpy(operands.x))
            y = operands.replaced(x=x).outputs(stack, lambda a: torch.from_numpy(a).cuda())[0] + 0
            result = y.cpu().numpy()
    assert_forward(result, expected)


def test_nothing_is_copied() -> None:
    """Torch tensors and CuPy arrays are read and written where they are; results are of x's library."""
    torch = imported("torch")
    operands = Operands("gru", "float32", layers=2)
    on_cupy = operands.gradients(operands.stack(device_stack), cupy().asarray)
    on_torch = operands.gradients(operands.stack(device_stack), lambda a: torch.from_numpy(a).cuda())
    for one, other in zip(on_cupy, on_torch, strict=True):
        assert isinstance(one, cupy().ndarray)
        assert isinstance(other, torch.Tensor) and other.is_cuda
        assert_same_bits(other.cpu().numpy(), one.get())
    x_of_torch = operands.replaced(x=torch.from_numpy(operands.x).cuda())
    mixed = x_of_torch.outputs(operands.stack(device_stack), cupy().asarray)[0]
    assert_same_bits(mixed.cpu().numpy(), on_cupy[0].get())


def test_jax_arrays() -> None:
    """JAX arrays go in by DLPack, and JAX arrays come out."""
    jax = imported("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("this JAX has no GPU")
    arguments = Case("lstm").arguments("float32")
    on_jax = {name: jax.numpy.asarray(a) if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
    y = FORWARD["lstm"](**on_jax)[0]
    assert isinstance(y, jax.Array)
    assert_forward(np.asarray(y), FORWARD["lstm"](**arguments)[0])


def test_functional_takes_device_arrays(cell: str) -> None:
    """The raw kernels: arrays of the device in, arrays of the device out, gradients included."""
    case = Case(cell, ragged=True)
    arguments = case.arguments("float32")
    lifted = {n: cupy().asarray(a) if isinstance(a, np.ndarray) and n != "lengths" else a for n, a in arguments.items()}
    *outputs, tape = FORWARD[cell](**lifted, training=True)
    *expected, host_tape = FORWARD[cell](**arguments, training=True)
    for out, value in zip(outputs, expected, strict=True):
        assert_same_bits(out.get(), value)
    backward = getattr(fr.functional, f"{cell.partition('_')[0]}_backward")
    cotangents = case.cotangents("float32")
    for out, value in zip(
        backward(tape, *map(cupy().asarray, cotangents)), backward(host_tape, *cotangents), strict=True
    ):
        assert (out is None) == (value is None)
        if out is not None:
            assert_same_bits(out.get(), value)
    with pytest.raises(TypeError, match="weight_ih is an ndarray; expected an array on a device"):
        FORWARD[cell](**lifted | {"weight_ih": arguments["weight_ih"]})


def test_layers_on_the_device(cell: str) -> None:
    """A layer with device="cuda" holds CuPy arrays and computes what its copy on the CPU computes."""
    host = LAYERS[cell](4, 6, 2, bidirectional=True, seed=1)
    layer = LAYERS[cell](4, 6, 2, bidirectional=True, seed=1, device="cuda")
    x = np.random.default_rng(0).normal(size=(3, 7, 4)).astype(np.float32)
    (y, state), tape = layer.forward(cupy().asarray(x), lengths=np.array([7, 0, 3]))
    expected, host_tape = host.forward(x, lengths=np.array([7, 0, 3]))
    for out, value in zip(flat(y, state), flat(*expected), strict=True):
        assert_forward(out.get(), value)
    dx, _ = layer.backward(tape, cupy().ones_like(y))
    host_dx, _ = host.backward(host_tape, np.ones(y.shape, np.float32))
    assert_gradient(dx.get(), host_dx.astype(np.float64))
    for name, gradient in layer.grads.items():
        assert_gradient(gradient.get(), host.grads[name].astype(np.float64), name)
    with pytest.raises(RuntimeError, match="cuda"):
        layer(x)


def test_what_the_kernels_lack_is_named() -> None:
    """The raw functions refuse arrays of the device with options that only the CPU kernels have."""
    arguments = Case("gru").arguments("float32")
    lifted = {n: cupy().asarray(a) if isinstance(a, np.ndarray) and n != "lengths" else a for n, a in arguments.items()}
    with pytest.raises(RuntimeError, match="gru: resets is given for an array on a device; expected one on the cpu"):
        fr.functional.gru(**lifted, resets=np.zeros(arguments["x"].shape[:2], bool))
    with pytest.raises(RuntimeError, match="gru: reset_after is False for an array on a device; expected one on"):
        fr.functional.gru(**lifted, reset_after=False)


@pytest.mark.alone
def test_out_of_memory_is_an_error() -> None:
    """A call that does not fit raises MemoryError with the bytes; the device and the CPU then go on."""
    cuda.release_memory()
    free = cupy().cuda.runtime.memGetInfo()[0]
    hidden, steps = 1024, 64
    batch = int(free // (steps * hidden * 4 * 4)) + 1  # the saved gates alone would take all of it
    operands = Operands("lstm", "float32", batch=2, steps=2, inputs=1, hidden=hidden)
    big = cupy().broadcast_to(cupy().zeros((1, 1, 1), np.float32), (batch, steps, 1))
    stack = operands.stack(device_stack)
    weights = [cupy().asarray(w) for w in operands.weights]
    with pytest.raises(MemoryError):
        stack.forward(weights, big, None, None, None, True, True)
    cupy().get_default_memory_pool().free_all_blocks()
    expected = operands.outputs(operands.stack(CPU_STACK))[0]
    assert_forward(operands.outputs(stack, cupy().asarray)[0].get(), expected)


@pytest.mark.alone
def test_tapes_of_many_streams() -> None:
    """Calls on several streams, tapes that die in any order, a backward on another stream than its forward."""
    operands = Operands("gru", "float32", layers=2, directions=2, ragged=True, batch=9, steps=30, hidden=32)
    stack = operands.stack(device_stack)
    expected = [a.get() for a in operands.gradients(stack, cupy().asarray)]
    streams = [cupy().cuda.Stream(non_blocking=True) for _ in range(6)]
    results = []
    for _ in range(3):
        for stream in streams:
            with stream:
                results.append(operands.gradients(stack, cupy().asarray))
    cupy().cuda.Device().synchronize()
    for outputs in results:
        for out, value in zip(outputs, expected, strict=True):
            assert_same_bits(out.get(), value)


@pytest.mark.alone
def test_two_threads_share_a_stack() -> None:
    """Two threads on one stack: each gets its own results."""
    from concurrent.futures import ThreadPoolExecutor

    operands = Operands("lstm", "float32", batch=9, steps=30, hidden=32)
    stack = operands.stack(device_stack)
    weights = [cupy().asarray(w) for w in operands.weights]
    expected = operands.outputs(operands.stack(CPU_STACK))[0]

    def work(_: int) -> Array:
        return operands.replaced(weights=weights).outputs(stack, cupy().asarray)[0].get()  # type: ignore[no-any-return]

    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(work, range(32)):
            assert_forward(y, expected)


@pytest.mark.alone
def test_others_may_synchronise_the_device() -> None:
    """A thread that waits for the device again and again spoils what is being recorded, but no call."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    operands = Operands("lstm", "float32", layers=2, batch=9, steps=70, hidden=32)
    stack = operands.stack(device_stack)
    expected = [a.get() for a in operands.gradients(stack, cupy().asarray)]
    done = Event()

    def synchronise() -> None:
        while not done.is_set():
            try:
                cupy().cuda.Device().synchronize()
            except cupy().cuda.runtime.CUDARuntimeError:  # CUDA refuses while a recording goes on
                pass

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(synchronise)
        try:
            alive = []  # weights at other addresses are recorded anew
            for _ in range(10):
                alive.append(operands.replaced(weights=[cupy().asarray(w) for w in operands.weights]))
                for _ in range(3):
                    for out, value in zip(alive[-1].gradients(stack, cupy().asarray), expected, strict=True):
                        assert_same_bits(out.get(), value)
        finally:
            done.set()
        other.result()


@pytest.mark.alone
def test_a_captured_stream_is_refused() -> None:
    """By forward and backward, which leave no mark in it: the tape and what was held before can still be given back."""
    operands = Operands("lstm", "float32")
    stack = operands.stack(device_stack)
    expected = operands.gradients(stack, foreign)[3:]
    weights = [foreign(w) for w in operands.weights]
    inputs = [foreign(a) for a in (operands.x, *operands.start)]
    cotangents = [foreign(d) for d in operands.cotangents]
    gradients = [cupy().zeros(w.shape, w.dtype) for w in weights]
    *_, tape = stack.forward(weights, *inputs, None, True, True)
    cupy().cuda.Device().synchronize()  # the stream below does not wait for the default one
    stream = cupy().cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture(cupy().cuda.runtime.streamCaptureModeRelaxed)
        try:
            with pytest.raises(RuntimeError, match="is being captured"):
                stack.forward(weights, *inputs, None, True, True)
            with pytest.raises(RuntimeError, match="is being captured"):
                tape.backward(*cotangents, gradients)
        finally:
            stream.end_capture()
    for out, value in zip([*tape.backward(*cotangents, gradients), *gradients], expected, strict=True):
        assert_same_bits(out.get(), value.get())


@pytest.mark.alone
def test_captures_of_others_are_left_alone() -> None:
    """Foreign arrays are held and let go while a stream is being captured in the strictest mode."""
    operands = Operands("lstm", "float32")
    stack = operands.stack(device_stack)
    weights = [foreign(w) for w in operands.weights]
    inputs = [foreign(a) for a in (operands.x, *operands.start)]
    counter = cupy().zeros(4, np.int32)
    counter += 1  # loads the kernel
    cupy().cuda.Device().synchronize()
    captured, own = (cupy().cuda.Stream(non_blocking=True) for _ in range(2))

    def outputs() -> list[Any]:
        with own:
            return [stack.forward(weights, *inputs, None, True, False)[0] for _ in range(3)]

    expected = [y.get() for y in outputs()]  # leaves enough memory with CuPy: it could ask for none below
    own.synchronize()
    with captured:
        captured.begin_capture(cupy().cuda.runtime.streamCaptureModeGlobal)
        try:
            counter += 1
            results = outputs()
        finally:
            graph = captured.end_capture()
        graph.launch(captured)
    cupy().cuda.Device().synchronize()
    assert counter.get().tolist() == [2] * 4
    for out, value in zip(results, expected, strict=True):
        assert_same_bits(out.get(), value)
