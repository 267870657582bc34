"""The kernels on the threads of an OpenMP library that the process has loaded: torch's, or LLVM's in its place."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import fusedrnn as fr
from scripts import run_python

pytest.importorskip("torch")

PREPARE = """
    import os, threading, time, numpy as np, torch
    import fusedrnn as fr
    from fusedrnn import _core
    _core.wait_for_workers(True)
    torch.set_num_threads(2)
    fr.set_num_threads(2)
    layer = fr.LSTM(64, 128, 2, seed=1)
    x = np.random.default_rng(0).normal(size=(16, 60, 64)).astype(np.float32)

    def results():
        (y, (h, c)), tape = layer.forward(x)
        layer.zero_grad()
        dx, (dh, dc) = layer.backward(tape, np.ones_like(y))
        return [y, h, c, dx, dh, dc, *layer.grads.values()]

    def same(a, b):
        return all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))

    def tasks():
        return len(os.listdir("/proc/self/task"))
"""


Run = Callable[..., str]


def llvm_library() -> str | None:
    """Where LLVM's or Intel's OpenMP is: of the package intel-openmp, or of the system."""
    try:
        files = importlib.metadata.files("intel-openmp") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [str(Path(str(f.locate())).resolve()) for f in files if f.name == "libiomp5.so"]
    return next(iter(paths), ctypes.util.find_library("omp5") or ctypes.util.find_library("omp"))


@pytest.fixture(params=["torchs", "llvms"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a piece of code in a process that has torch and one OpenMP library in use."""
    extra = {}
    code = textwrap.dedent(PREPARE)
    if request.param == "llvms":
        library = llvm_library()
        if library is None:
            pytest.skip("there is no OpenMP of LLVM's or Intel's: pip install intel-openmp")
        extra["LD_PRELOAD"] = library  # torch's calls go there too, as Intel advises its users
        code += f"import ctypes; assert ctypes.CDLL(None).__kmpc_fork_call, {library!r}\n"

    def run(then: str, **environment: str) -> str:
        return run_python(code + then, **extra, **environment).stdout

    return run


def test_same_bits_and_no_threads_of_our_own(run: Run) -> None:
    code = """
a = torch.randn(1000, 1000)
a.exp_()  # starts torch's threads
before = tasks()
fr.set_thread_pool("openmp")
assert fr.get_thread_pool() == "openmp"
on_openmp = results()
here, everywhere = time.thread_time(), time.process_time()
for _ in range(10):
    results()
here, everywhere = time.thread_time() - here, time.process_time() - everywhere
assert everywhere > 1.3 * here, "it ran alone"
assert tasks() == before, "a worker of our own was started"
fr.set_thread_pool("own")
assert same(results(), on_openmp)
assert tasks() == before + 1
fr.set_num_threads(1)
assert same(results(), on_openmp)
print("same")
"""
    assert run(code, OMP_WAIT_POLICY="passive") == "same\n"


def test_torch_modules_choose_it_unless_told_otherwise(run: Run) -> None:
    code = """
import fusedrnn.torch as ft
a = torch.randn(1000, 1000)
a.exp_()
before = tasks()
module, v = ft.GRU(64, 256), torch.randn(60, 32, 64)
y, _ = module(v)
y.sum().backward()
assert tasks() == before
assert fr.get_thread_pool() == "own"  # of layers on NumPy arrays
fr.set_thread_pool("own")
assert torch.equal(module(v)[0], y)
assert tasks() == before + 1
print("chosen")
"""
    assert run(code) == "chosen\n"


def test_several_threads_and_teams_inside_teams(run: Run) -> None:
    """Who finds the pool taken runs alone, with the same bits."""
    code = """
fr.set_thread_pool("openmp")
expected = layer(x)[0]
made = [[] for _ in range(3)]
def work(into):
    for _ in range(5):
        into.append(layer(x)[0])
threads = [threading.Thread(target=work, args=(into,)) for into in made]
for t in threads: t.start()
for t in threads: t.join()
assert all(np.array_equal(y, expected) for into in made for y in into)
print("same")
"""
    assert run(code) == "same\n"


def test_a_forked_child_keeps_to_its_own(run: Run) -> None:
    code = """
import warnings
warnings.simplefilter("ignore")
fr.set_thread_pool("openmp")
expected = layer(x)[0]
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(layer(x)[0], expected) else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(layer(x)[0], expected)
print("forked")
"""
    assert run(code) == "forked\n"


def test_one_library_of_several() -> None:
    """Another one that was loaded before, as by scikit-learn's wheel, is left alone: torch's threads are at work."""
    code = """
import fusedrnn.torch as ft
a = torch.randn(1000, 1000)
a.exp_()
before = tasks()
fr.set_thread_pool("openmp")
results()
assert tasks() == before, "the threads are not torch's"
print("torch's")
"""
    pytest.importorskip("sklearn")
    assert run_python("import sklearn.cluster\n" + textwrap.dedent(PREPARE) + code).stdout == "torch's\n"


def test_interrupt(run: Run) -> None:
    """Ctrl-C stops a long call, and the next one works."""
    code = """
import signal
fr.set_thread_pool("openmp")
expected = layer(x)[0]
long = np.zeros((64, 20000, 64), np.float32)
signal.setitimer(signal.ITIMER_REAL, 0.3)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    layer(long)
    print("not stopped")
except KeyboardInterrupt:
    print("stopped")
assert np.array_equal(layer(x)[0], expected)
"""
    assert run(code) == "stopped\n"


def test_a_team_that_is_too_small(run: Run) -> None:
    """With a limit on OpenMP's threads the call runs alone."""
    code = """
fr.set_thread_pool("openmp")
on_openmp = results()
fr.set_thread_pool("own")
assert same(results(), on_openmp)
print("same")
"""
    assert run(code, OMP_THREAD_LIMIT="1") == "same\n"


def test_errors() -> None:
    with pytest.raises(ValueError, match="set_thread_pool: name is 'tbb'; expected 'own' or 'openmp'"):
        fr.set_thread_pool("tbb")
    code = """
        import fusedrnn as fr
        try:
            fr.set_thread_pool("openmp")
        except RuntimeError as error:
            print(error)
    """
    printed = run_python(code).stdout
    assert printed.startswith("set_thread_pool: name is 'openmp'; expected 'own', or a library that brings OpenMP")
