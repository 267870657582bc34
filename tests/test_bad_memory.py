"""Memory that runs out anywhere: a MemoryError, nothing half done, and nothing lost.

    FUSEDRNN_TRIES=1000 pytest tests/test_bad_memory.py

makes so many tries of each kind; without it a few dozen.
"""

from __future__ import annotations

import os
import sys

import pytest

from scripts import run_python

TRIES = int(os.environ.get("FUSEDRNN_TRIES", "40"))

PREPARE = """
    import gc, os, resource, tempfile
    import numpy as np
    import fusedrnn as fr
    import fusedrnn.functional as F

    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((24, 40, 48)).astype(np.float32)
    layers = [fr.LSTM(48, 160, 2, seed=1, dropout=0.3), fr.GRU(48, 130, bidirectional=True, seed=2),
              fr.RNN(48, 200, seed=3, dtype="float64"), fr.LSTM(48, 90, seed=4, peephole=True)]
    model = fr.Sequential(fr.GRU(48, 64, seed=5), fr.Dropout(0.2), fr.Linear(64, 48, seed=6))
    head = fr.models.SequenceToVector(fr.LSTM(48, 72, seed=7), fr.Linear(72, 3, seed=8))
    path = os.path.join(tempfile.mkdtemp(), "layer.safetensors")
    layers[0].save(path)
    weights = layers[1].state_dict()

    def train(layer):
        layer.zero_grad(), layer.reseed(0)
        outputs, tape = layer.forward(x)
        y = outputs[0] if isinstance(outputs, tuple) else outputs
        d = layer.backward(tape, y)
        return [y, *(d if isinstance(d, tuple) else (d,))[:1], *layer.grads.values()]

    wide = rng.standard_normal((3, 2000, 48)).astype(np.float32)  # states larger than what malloc keeps

    def steps(layer):
        stream = layer.stream(2000)
        return [stream.step(x) for x in wide]

    def fitted():
        model = fr.Sequential(fr.LSTM(48, 32, seed=1), fr.Linear(32, 2, seed=2))
        fr.fit(model, x, x[..., :2], loss="mse", optimizer="adam", epochs=2, batch_size=12, seed=0,
               progress=False)
        return list(model.state_dict().values())

    KINDS = {
        "infer": [lambda layer=layer: [layer(x)[0]] for layer in layers],
        "train": [lambda layer=layer: train(layer) for layer in [*layers, model, head]],
        "stream": [lambda layer=layer: steps(layer) for layer in (layers[0], layers[2])],
        "fit": [fitted],
        "load": [lambda: list(fr.load(path).state_dict().values())],
        "save": [lambda: layers[0].save(path) or [np.fromfile(path, np.uint8)]],
        "quantities": [
            lambda: list(fr.diagnostics.gate_trace(layers[0], x)["l1"].values()),
            lambda: [fr.diagnostics.gradient_flow(model.children()["0"], x[:2, :12])["l0"].jacobian],
            lambda: list(layers[1].state_dict().values()),
            lambda: layers[1].load_state_dict(weights) and list(layers[1].params.values()),
            lambda: [F.lstm(x, *list(layers[0].state_dict().values())[:4])[0]],
            lambda: list(fr.GRU(48, 130, 2, seed=9, init="torch").state_dict().values()),
        ],
    }
"""


TRY = """
    import sys

    def size():
        return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    def resident():
        gc.collect()
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def counts():
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    calls = KINDS[KIND]
    expected = [call() for call in calls]  # and everything is imported
    outcomes = {"worked": 0, "out of memory": 0}
    before = None
    for k in range(TRIES):
        if k == max(10, TRIES // 10):  # by now every size has been there
            before = resident(), counts()
        which = int(rng.integers(len(calls)))
        allowed = int(rng.choice([0, 2e4, 2e5, 2e6, 2e7, 8e7]) * rng.random())
        resource.setrlimit(resource.RLIMIT_AS, (size() + allowed, resource.RLIM_INFINITY))
        got = None
        try:
            got = calls[which]()
        except MemoryError:
            pass
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        outcomes["out of memory" if got is None else "worked"] += 1
        for a, b in zip(got or (), expected[which], strict=got is not None):
            assert np.array_equal(a, b, equal_nan=True), (k, which)
        got = None
        if k % 10 == 9:  # whatever has failed works again, to the same bits
            for which, call in enumerate(calls):
                for a, b in zip(call(), expected[which], strict=True):
                    assert np.array_equal(a, b, equal_nan=True), (k, which)
    after = resident(), counts()
    assert after[1] == before[1], (before, after)
    grown = (after[0] - before[0]) / 2**20
    assert grown < 8, grown
    assert outcomes["out of memory"], outcomes
    print(outcomes, f"grown by {grown:.1f} MB")
"""


@pytest.mark.memory_limit
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of the address space")
@pytest.mark.parametrize("kind", ["infer", "train", "stream", "fit", "load", "save", "quantities"])
def test_any_limit_is_a_memory_error(kind: str) -> None:
    """Random limits of the address space: each call works, to the same bits, or raises MemoryError and nothing else."""
    settings = f"""
    TRIES, KIND, SEED = {TRIES}, {kind!r}, 0
"""
    printed = run_python(
        settings + PREPARE + TRY,
        timeout=60 + TRIES,
        OPENBLAS_NUM_THREADS="1",
        # Freed memory goes back to the system, so that the next call has to ask for it.
        MALLOC_MMAP_THRESHOLD_="65536",
        MALLOC_TRIM_THRESHOLD_="65536",
    )
    print(kind, printed.stdout)
