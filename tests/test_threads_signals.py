"""Signal handlers in the middle of a call: whatever they raise comes out, and whatever they do works."""

from __future__ import annotations

import sys

import pytest

from scripts import run_python

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and fork")

PREPARE = """
    import os, signal, sys, time, warnings
    import numpy as np
    import fusedrnn as fr
    from fusedrnn import _core

    warnings.simplefilter("ignore", DeprecationWarning)  # about fork beside threads
    _core.wait_for_workers(True)
    fr.set_num_threads(THREADS)
    lstm = fr.LSTM(64, 256, seed=1)
    linear = fr.Linear(64, 64, seed=2)
    small = np.random.default_rng(0).standard_normal((2, 5, 64), dtype=np.float32)
    x = np.random.default_rng(1).standard_normal((4, 1500, 64), dtype=np.float32)

    def trained(layer, x):
        layer.zero_grad()
        y, tape = layer.forward(x)
        dx = layer.backward(tape, y[0] if isinstance(y, tuple) else y)
        return [np.copy(y[0]), np.copy(dx[0]), *(g.copy() for g in layer.grads.values())]

    def same(a, b):
        return len(a) == len(b) and all(map(np.array_equal, a, b))

    begin = time.monotonic()
    expected = trained(lstm, x)
    duration = time.monotonic() - begin
    of_small, of_linear = trained(lstm, small), trained(linear, small)
"""


def run(code: str, threads: int) -> None:
    run_python(f"    THREADS = {threads}\n" + PREPARE + code, timeout=180)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("number", "error"), [("SIGALRM", "TimeoutError"), ("SIGUSR1", "SystemExit")])
def test_an_exception_of_any_handler_comes_out(number: str, error: str, threads: int) -> None:
    """From anywhere in a forward and a backward; what was stopped has added nothing to the gradients."""
    run(
        f"""
    import threading

    class Raised({error}): pass

    def handler(number, frame):
        raise Raised("from the handler")

    signal.signal(signal.{number}, handler)
    stopped = 0
    for k in range(24):
        lstm.zero_grad()
        timer = threading.Timer(duration * (k + 0.5) / 24, os.kill, (os.getpid(), signal.{number}))
        added = False
        try:
            timer.start()
            y, tape = lstm.forward(x)
            lstm.backward(tape, y[0])
            added = True
            timer.join()
            time.sleep(0.05)
        except Raised as raised:
            assert raised.args == ("from the handler",)
            stopped += 1
        timer.join()
        gradients = list(lstm.grads.values())
        # The handler may run between the end of the kernel and the next line.
        assert same(gradients, expected[2:]) or not (added or any(g.any() for g in gradients)), k
    assert stopped > 12, stopped
    assert same(trained(lstm, small), of_small)
    """,
        threads,
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_a_handler_may_compute(threads: int) -> None:
    """With the layer that is in the middle of a call, and with another; both calls give their bits."""
    run(
        """
    ran = []

    def handler(number, frame):
        y, tape = lstm.forward(small)
        lstm.backward(tape, np.zeros_like(y[0]))
        assert np.array_equal(lstm(small)[0], y[0])
        assert np.array_equal(lstm.stream(2).step(small[:, 0]), y[0][:, 0])
        other = fr.LSTM(64, 256, seed=1)
        assert same(trained(other, small), of_small)
        assert same(trained(linear, small), of_linear)
        ran.append(number)
        signal.setitimer(signal.ITIMER_REAL, 0.03)  # not before this one is over

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    for _ in range(4):
        assert same(trained(lstm, x), expected)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(ran) > 3, ran
    """,
        threads,
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_a_handler_may_fork(threads: int) -> None:
    """The parent's call gives its bits. The child's, which lacks the other threads, is an error; the next one works."""
    run(
        """
    parent, children = os.getpid(), []

    def handler(number, frame):
        children.append(os.fork())

    def in_the_child():
        try:
            assert same(trained(lstm, small), of_small)
            os._exit(0)
        finally:
            os._exit(1)

    signal.signal(signal.SIGALRM, handler)
    for k in range(6):
        signal.setitimer(signal.ITIMER_REAL, duration * (k + 0.5) / 6)
        try:
            got = trained(lstm, x)
        except RuntimeError as error:
            assert os.getpid() != parent, "in the parent"
            assert "signal handler forked" in str(error)
            in_the_child()
        if len(children) <= k:  # the call was over before
            time.sleep(duration)
        if os.getpid() != parent:  # forked elsewhere, or in a call of one thread, which goes on as if nothing were
            assert same(got, expected)
            in_the_child()
        assert same(got, expected), k
    for child in children:
        end = time.monotonic() + 60
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            assert time.monotonic() < end, "a child hangs"
            time.sleep(0.01)
        assert ended[1] == 0, ended
    assert len(children) >= 3
    """,
        threads,
    )
