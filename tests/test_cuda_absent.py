"""The CUDA backend on a machine that cannot use it: what is said, and that nothing else is disturbed."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import cuda
from fusedrnn.arrays import devices
from fusedrnn.arrays.devices import covers, summary, unavailable
from problems import Case
from scripts import run_python
from twin import Operands, imported, needs_cuda_module

H100 = {"name": "H100", "capability": (9, 0), "memory": 80 << 30}
BUILT = ("80-real", "90-real", "90-virtual")
NOT_BUILT: dict[str, Any] = {"built": (), "driver": None, "devices": [], "error": None}
NO_DRIVER = {**NOT_BUILT, "built": BUILT, "error": "CUDA driver version is insufficient for CUDA runtime version"}
NO_DEVICE = {**NO_DRIVER, "driver": 13000, "error": "no CUDA-capable device is detected"}
WRONG_ARCHITECTURE = {**NO_DEVICE, "built": ("120-real",), "devices": [H100], "error": None}
USABLE = {**WRONG_ARCHITECTURE, "built": BUILT}

# What was found: words that say what is missing, words that say what to do.
REASONS = {
    "not built": (NOT_BUILT, ["not built"], ["nvcc", "FUSEDRNN_CUDA=ON"]),
    "broken": ({**NOT_BUILT, "error": "fusedrnn._cuda cannot be loaded: ELF"}, ["cannot be loaded"], []),
    "no driver": (NO_DRIVER, ["no NVIDIA driver"], ["install"]),
    "no device": (NO_DEVICE, ["no device", "no CUDA-capable"], ["nvidia-smi", "CUDA_VISIBLE_DEVICES"]),
    "architecture": (WRONG_ARCHITECTURE, ["120-real", "H100 (9.0)"], ["CMAKE_CUDA_ARCHITECTURES"]),
}


@pytest.mark.parametrize("found", REASONS)
def test_each_reason(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    """Every way of not having CUDA is told apart, by the layers, by ``functional`` and in the configuration."""
    state, missing, remedy = REASONS[found]
    monkeypatch.setattr(devices, "status", lambda: state)
    reason = fr.config()["cuda"]["reason"]
    for words in missing + remedy:
        assert words in reason

    class OnDevice:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    arguments = Case("lstm").arguments()
    for call in (lambda: fr.GRU(3, 4, device="cuda"), lambda: fr.functional.lstm(**(arguments | {"x": OnDevice()}))):
        with pytest.raises(RuntimeError, match="device='cuda' cannot be used") as error:
            call()
        assert reason in str(error.value)
        assert "device='cpu'" in str(error.value)


def test_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of it there, nothing is said."""
    monkeypatch.setattr(devices, "status", lambda: USABLE)
    assert unavailable() is None
    cuda.require_device()
    expected = {"built": "80-real, 90-real, 90-virtual", "driver": "13.0", "device": "H100", "reason": None}
    assert summary() == fr.config()["cuda"] == expected


@pytest.mark.parametrize(
    ("built", "capability", "expected"),
    [
        (("90-real",), (9, 0), True),
        (("80-real",), (8, 6), True),  # machine code of an older chip of the same generation
        (("86-real",), (8, 0), False),
        (("90-real",), (10, 0), False),
        (("90-virtual",), (10, 0), True),  # the driver compiles it
        (("90-virtual",), (8, 9), False),
        (("90",), (9, 0), True),
        (("90",), (12, 0), True),
        (("90a-real",), (9, 0), True),
        (("90a-real",), (9, 1), False),
        (("100-real", "120-real"), (12, 0), True),
        (("native",), (8, 7), True),
        (("nonsense",), (9, 0), False),
    ],
)
def test_covers(built: tuple[str, ...], capability: tuple[int, int], expected: bool) -> None:
    """Which devices the code for some architectures runs on."""
    assert covers(built, capability) is expected


def test_module_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build without nvcc has no module; that is a fact, not an error."""
    monkeypatch.setitem(sys.modules, "fusedrnn._cuda", None)
    assert cuda.status() == NOT_BUILT


def test_cupy_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers on the device hold CuPy arrays; without CuPy the message names the extra."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"CuPy.*\[cuda\].*device='cpu'"):
        cuda.namespace()


def test_tf32_is_a_choice() -> None:
    """TF32 is off unless it is asked for."""
    assert not cuda.get_tf32()
    cuda.set_tf32(True)
    try:
        assert cuda.get_tf32()
    finally:
        cuda.set_tf32(False)


@needs_cuda_module
def test_import_reaches_no_driver() -> None:
    """Loading the module maps neither the driver nor cuBLAS, so that a process can fork and start without a GPU."""
    code = """
        import sys
        import fusedrnn
        assert "fusedrnn._cuda" not in sys.modules
        import fusedrnn._cuda
        import fusedrnn.cuda.stack
        with open("/proc/self/maps") as maps:
            loaded = maps.read()
        assert "_cuda" in loaded
        assert "libcuda.so" not in loaded and "libcublas" not in loaded
    """
    run_python(code)


@needs_cuda_module
def test_the_build_says_what_it_is_for() -> None:
    """The status of the module that is really there names its architectures and CUDA's version."""
    found = cuda.status()
    assert found["built"]
    assert found["runtime"] >= 12000
    assert (unavailable() is None) == (fr.config()["cuda"]["reason"] is None)


@needs_cuda_module
def test_kernels_without_a_driver_are_an_error() -> None:
    """Whoever gets as far as the kernels gets CUDA's words, and the process and the CPU path go on."""
    if cuda.status()["devices"]:
        pytest.skip("is about machines without a CUDA device, and this one has one")
    from fusedrnn import _cuda

    views = [_cuda.View(4096, shape, None, "float32", 0) for shape in ((2, 3, 4), (2, 3, 5), (1, 2, 5))]
    weights = [_cuda.View(4096, shape, None, "float32", 0) for shape in ((5, 4), (5, 5))]
    stack = _cuda.Stack("rnn_tanh", "float32", 4, 5, 1, 1, False, False)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"CUDA: cuda.* failed: "):
            stack.forward(weights, views[0], None, None, None, True, views[1], views[2], None, False, 0, False)
    assert np.all(np.isfinite(fr.RNN(4, 5)(np.ones((2, 3, 4), np.float32))[0]))


@needs_cuda_module
def test_views_are_judged() -> None:
    """Wrong device, dtype, strides or a read-only target: an error that names the array, before anything runs."""
    from fusedrnn import _cuda

    def view(shape: tuple[int, ...], **changes: Any) -> Any:
        given = {"pointer": 4096, "shape": shape, "strides": None, "dtype": "float32", "device": 0} | changes
        return _cuda.View(**given)

    stack = _cuda.Stack("lstm", "float32", 4, 5, 1, 1, False, False)
    state = (1, 2, 5)

    def forward(**changes: Any) -> None:
        given = {"weights": [view((20, 4)), view((20, 5))], "x": view((2, 3, 4)), "h0": None, "c0": None}
        given |= {"lengths": None, "batch_first": True, "y": view((2, 3, 5)), "h": view(state), "c": view(state)}
        stack.forward(**(given | {"training": False, "stream": 0, "tf32": False} | changes))

    cases: dict[str, tuple[type[Exception], dict[str, Any]]] = {
        "LSTM: x is on the CPU; expected a CUDA array.*cupy.asarray": (
            RuntimeError,
            {"x": view((2, 3, 4), device=-1)},
        ),
        "LSTM: h0 is on CUDA device 1; expected an array on CUDA device 0": (
            RuntimeError,
            {"h0": view(state, device=1)},
        ),
        "LSTM: weight_hh_l0 is on the CPU": (RuntimeError, {"weights": [view((20, 4)), view((20, 5), device=-1)]}),
        "LSTM: c0 has dtype float64; expected float32": (TypeError, {"c0": view(state, dtype="float64")}),
        "LSTM: x has dtype >f4": (TypeError, {"x": view((2, 3, 4), dtype=">f4")}),
        "LSTM: x is misaligned": (ValueError, {"x": view((2, 3, 4), pointer=4097)}),
        "LSTM: x has strides": (ValueError, {"x": view((2, 3, 4), strides=(12, 4, 2))}),
        "LSTM: y is read-only": (ValueError, {"y": view((2, 3, 5), read_only=True)}),
        "LSTM: h is strided": (ValueError, {"h": view(state, strides=(10, 6, 1))}),
        "LSTM: h has shape .*hidden": (ValueError, {"h": view((1, 2, 4))}),
        "LSTM: c is None": (TypeError, {"c": None}),
        "LSTM: weights has 1 arrays; expected 2": (ValueError, {"weights": [view((20, 4))]}),
        "LSTM: weight_ih_l0 is None": (TypeError, {"weights": [None, view((20, 5))]}),
        "LSTM: x has shape": (ValueError, {"x": view((2, 3, 5))}),
    }
    for message, (kind, changes) in cases.items():
        with pytest.raises(kind, match=message):
            forward(**changes)
    with pytest.raises(TypeError, match="int8"):
        _cuda.Stack("lstm", "int8", 4, 5, 1, 1, False, False)
    with pytest.raises(ValueError, match="hidden_size"):
        _cuda.Stack("lstm", "float32", 4, 0, 1, 1, False, False)


@needs_cuda_module
def test_numpy_is_refused_by_the_device() -> None:
    """NumPy arrays are not copied to the device behind the caller's back."""
    from fusedrnn import _cuda
    from fusedrnn.cuda.stack import Stack

    operands = Operands("gru", "float32")
    stack = operands.stack(partial(Stack, make=_cuda.Stack))
    with pytest.raises(RuntimeError, match=r"GRU: x is on the CPU.*cupy\.asarray"):
        operands.outputs(stack)
    with pytest.raises(TypeError, match="GRU: x is a list"):
        operands.replaced(x=[[1.0]]).outputs(stack)


@needs_cuda_module
def test_where_cublas_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FUSEDRNN_CUBLAS comes first, then files of a toolkit that are there."""
    from fusedrnn import _cuda
    from fusedrnn.cuda.cublas import cublas_candidates

    library = tmp_path / "lib64" / f"libcublas.so.{_cuda.status()['runtime'] // 1000}"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setenv("FUSEDRNN_CUBLAS", "/somewhere/libcublas.so")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = cublas_candidates()
    assert found[0] == "/somewhere/libcublas.so"
    assert str(library) in found


def test_warnings_of_libraries_are_no_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests on a device show what a library warns of when it is imported, and go on."""
    (tmp_path / "library_that_warns.py").write_text("import warnings\nwarnings.warn('old driver')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(UserWarning, match="old driver") as shown:
        warnings.simplefilter("error")
        imported("library_that_warns")
    assert len(shown) == 1
