"""Long runs that are not part of the tests: python tests/endurance.py [soak | kills | processes | long | peers] ...

Each prints what it measured, and ends with an error where a promise of docs/reliability.md is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fusedrnn as fr

RNG = np.random.default_rng(0)


def resident_mb() -> float:
    """Return the memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def soak(calls: int) -> None:
    """Make so many calls of each kind, with layers made and dropped and thread counts changed."""
    cells = (fr.RNN, fr.LSTM, fr.GRU)
    x = RNG.standard_normal((5, 7, 3)).astype(np.float32)
    kept = [cell(3, 6, 2, bidirectional=True, seed=1) for cell in cells]
    right = [layer(x)[0] for layer in kept]

    def infer(i: int) -> None:
        assert np.array_equal(kept[i % 3](x)[0], right[i % 3])

    def train(i: int) -> None:
        (y, _), tape = kept[i % 3].forward(x, lengths=RNG.integers(0, 8, 5))
        kept[i % 3].backward(tape, y)

    def make(i: int) -> None:
        cells[i % 3](1 + i % 5, 1 + i % 9, seed=i)(np.zeros((2, 3, 1 + i % 5), np.float32))

    def stream(i: int) -> None:
        fr.LSTM(3, 6, seed=i % 4).stream(5).step(x[:, 0])

    def change_threads(i: int) -> None:
        fr.set_num_threads(1 + i % 3)
        infer(i)

    def refused(i: int) -> None:
        try:
            kept[i % 3](x[..., :2])
        except ValueError:
            return
        raise AssertionError("wrong input was taken")

    for kind in (infer, train, make, stream, change_threads, refused):
        for i in range(calls // 10):
            kind(i)
        gc.collect()
        before = resident_mb(), open_files(), threads()
        start = time.perf_counter()
        for i in range(calls):
            kind(i)
        gc.collect()
        seconds = time.perf_counter() - start
        after = resident_mb(), open_files(), threads()
        grown = f"{after[0] - before[0]:+.1f} MB, {after[1] - before[1]:+d} files, {after[2] - before[2]:+d} threads"
        print(f"soak {kind.__name__:15s} {calls} calls, {seconds:5.1f} s: {grown}", flush=True)
        assert after[0] - before[0] < 8 and after[1:] == before[1:]


SAVE = """
import sys, fusedrnn as fr
layer = fr.LSTM(64, 128, seed=int(sys.argv[2]))
print(flush=True)
while True: layer.save(sys.argv[1])
"""


def kills(times: int) -> None:
    """Kill a process that saves, so many times; every file must load."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "layer.safetensors")
        fr.LSTM(64, 128, seed=0).save(path)
        for i in range(times):
            child = subprocess.Popen([sys.executable, "-c", SAVE, path, str(i)], stdout=subprocess.PIPE)
            assert child.stdout is not None
            assert child.stdout.readline(), "the child did not come to save"
            time.sleep(float(RNG.uniform(0, 0.02)))
            child.send_signal(signal.SIGKILL)
            child.wait()
            fr.load(path)
        fr.LSTM(64, 128, seed=0).save(path)
        left = [name for name in os.listdir(folder) if name != path.name]
    print(f"kills: {times} of {times} files load; {len(left)} temporary files after the next save")
    assert not left


def compute(seed: int) -> bytes:
    """Return the bits of a call in this process."""
    y, _ = fr.LSTM(8, 32, seed=3)(np.full((4, 20, 8), seed, np.float32))
    return bytes(y.tobytes())


def processes() -> None:
    """Compute in children of every kind, and in the threads of an event loop: the same bits as here."""
    right = [compute(seed) for seed in range(8)]
    for method in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(compute, range(8), chunksize=1) == right
        print(f"processes: {method}: the same bits")

    async def together() -> list[bytes]:
        return await asyncio.gather(*(asyncio.to_thread(compute, seed) for seed in range(8)))

    assert asyncio.run(together()) == right
    print("processes: asyncio.to_thread: the same bits")


def long() -> None:
    """Go through a million steps and back."""
    layer = fr.LSTM(8, 8, seed=0)
    x = RNG.standard_normal((1, 1_000_000, 8)).astype(np.float32)
    start = time.perf_counter()
    (y, _), tape = layer.forward(x)
    dx, _ = layer.backward(tape, np.ones_like(y))
    print(f"long: T = 10^6, H = 8, forward and backward: {time.perf_counter() - start:.2f} s")
    assert np.isfinite(y).all() and np.isfinite(dx).all()


def _median(f: Callable[[], Any], times: int = 15) -> float:
    f()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[times // 2]


def peers() -> None:
    """Compare the time that subnormal and normal inputs take, here and in PyTorch."""
    import torch

    x = RNG.standard_normal((8, 100, 64)).astype(np.float32)
    small = (x * 1e-40).astype(np.float32)
    ours = fr.LSTM(64, 64, seed=0)
    theirs = torch.nn.LSTM(64, 64, batch_first=True)
    for array in (*ours.params.values(), *(p.data.numpy() for p in theirs.parameters())):
        array *= 1e-3  # so that what is subnormal stays so
    a, b = torch.from_numpy(x), torch.from_numpy(small)
    with torch.no_grad():
        shares = [
            _median(lambda: ours(small)) / _median(lambda: ours(x)),
            _median(lambda: theirs(b)) / _median(lambda: theirs(a)),
        ]
    print(f"peers: subnormal over normal inputs: fusedrnn {shares[0]:.2f}, torch {shares[1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs = ("soak", "kills", "processes", "long", "peers")
    parser.add_argument("runs", nargs="*", metavar="run", help=f"of {', '.join(runs)}; all by default")
    parser.add_argument("--calls", type=int, default=100_000, help="of each kind in soak (default 100,000)")
    parser.add_argument("--kills", type=int, default=500, help="default 500")
    options = parser.parse_args()
    for run in options.runs or runs:
        if run == "soak":
            soak(options.calls)
        elif run == "kills":
            kills(options.kills)
        elif run in runs:
            {"processes": processes, "long": long, "peers": peers}[run]()
        else:
            parser.error(f"no run {run!r}; expected one of {', '.join(runs)}")


if __name__ == "__main__":
    main()
