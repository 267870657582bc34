"""Ctrl-C is answered within 100 ms wherever time goes, and what was interrupted is as it was."""

from __future__ import annotations

import pytest

from scripts import run_python

# What takes long outside the time loops of one long sequence (tests/test_threads_fork.py), each at a size of about a
# second on a slow machine: how it is made, and what is called.
CASES = {
    "steps of many samples": (
        "lstm = fr.LSTM(1024, 1024, init='torch'); x = np.ones((512, 4, 1024), np.float32)",
        "lstm(x)",
    ),
    "backward of many samples": (
        "lstm = fr.LSTM(512, 512, init='torch'); x = np.ones((512, 6, 512), np.float32)",
        "lstm.backward(lstm.forward(x)[1], x)",
    ),
    "packing": (
        "lstm = fr.LSTM(64, 3000, init='torch'); x = np.ones((1, 1, 64), np.float32)",
        "(lstm.params['weight_hh_l0'][:1].fill(0), lstm.forward(x))",
    ),
    "a stream's step": (
        "stream = fr.GRU(256, 512, 2, init='torch').stream(15_000); x = np.ones((15_000, 256), np.float32)",
        "stream.step(x)",
    ),
    "a linear layer": (
        "linear = fr.Linear(2048, 2048); x = np.ones((12_000, 2048), np.float32)",
        "linear.backward(linear.forward(x)[1], x)",
    ),
    "gates by time": (
        "lstm = fr.LSTM(64, 512, init='torch'); x = np.ones((32, 400, 64), np.float32)",
        "fr.diagnostics.gate_trace(lstm, x)",
    ),
    "Jacobians": (
        "gru = fr.GRU(64, 256, init='torch'); x = np.ones((2, 60, 64), np.float32)",
        "fr.diagnostics.gradient_flow(gru, x)",
    ),
    "uniform numbers": ("", "fr.LSTM(2500, 2500, init='torch')"),
    "normal numbers": ("", "fr.Embedding(200_000, 200)"),
    "orthogonal matrices": ("", "fr.LSTM(16, 1100)"),
    "spectral norms": ("", "fr.GRU(16, 800, init='spectral')"),
    "singular values": (
        "rnn = fr.RNN(8, 900, seed=1); limit = fr.SpectralNormLimit(0.5)",
        "(rnn.params['weight_hh_l0'].__imul__(2), limit.apply(rnn))",
    ),
    "eigenvalues": (
        "matrix = np.random.default_rng(0).standard_normal((600, 600))",
        "fr.diagnostics.spectral_radius(matrix)",
    ),
    "threads of unlike work on OpenMP": (
        "import torch; torch.set_num_threads(2); torch.ones(1000, 1000).exp_(); fr.set_thread_pool('openmp');"
        "fr.set_num_threads(2); lstm = fr.LSTM(64, 256, init='torch'); x = np.ones((2, 12_000, 64), np.float32)",
        "lstm(x, lengths=[12_000, 9_000])",
    ),
    "threads of unlike work": (
        "fr.set_num_threads(2); lstm = fr.LSTM(64, 256, init='torch'); x = np.ones((2, 12_000, 64), np.float32)",
        "lstm(x, lengths=[12_000, 9_000])",
    ),
}


@pytest.mark.parametrize(("make", "call"), CASES.values(), ids=CASES)
def test_interrupt(make: str, call: str) -> None:
    """The median of five answers, because other work may delay one; the next call works."""
    run_python(
        f"""
        import os, signal, threading, time
        import numpy as np
        import fusedrnn as fr
        from fusedrnn import _core

        signal.signal(signal.SIGINT, signal.default_int_handler)
        _core.wait_for_workers(True)
        {make}
        begin = time.monotonic()
        {call}
        duration = time.monotonic() - begin
        late = []
        sent = 0.0

        def interrupt():
            global sent
            sent = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)

        for k in range(25):
            timer = threading.Timer(duration * (0.1 + 0.15 * (k % 5)), interrupt)
            try:
                timer.start()
                {call}
                timer.join()
                time.sleep(0.05)
            except KeyboardInterrupt:
                late.append(time.monotonic() - sent)
            if len(late) == 5:
                break
        assert len(late) == 5, late
        assert sorted(late)[2] <= 0.1, late
        {call}
        """,
        timeout=180,
        OPENBLAS_NUM_THREADS="1",  # whose threads wait for each other where other work takes the cores
    )


def test_an_interrupted_step_has_not_happened() -> None:
    """A stream of two layers, interrupted in either, is in the state that it was in, and goes on with the same bits."""
    run_python(
        """
        import os, signal, threading, time
        import numpy as np
        import fusedrnn as fr

        signal.signal(signal.SIGINT, signal.default_int_handler)
        layer = fr.LSTM(64, 256, 2, seed=1)
        x = np.random.default_rng(0).standard_normal((10_000, 64), dtype=np.float32)
        stream = layer.stream(len(x))
        stream.step(x)
        before = stream.state
        begin = time.monotonic()
        expected = stream.step(x)
        duration = time.monotonic() - begin
        undone = 0
        for k in range(10):
            stream.reset(before)
            timer = threading.Timer(duration * 0.1 * k, os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                stream.step(x)
                timer.join()
                time.sleep(0.05)
            except KeyboardInterrupt:
                if not all(map(np.array_equal, stream.state, before)):  # the step was done when the signal came
                    continue
                undone += 1
                assert np.array_equal(stream.step(x), expected)
        assert undone >= 3, undone
        """,
        timeout=120,
    )
