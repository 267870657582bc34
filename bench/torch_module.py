"""fusedrnn.torch beside torch.nn: python bench/compare.py --torch-module.

Every pair runs in turn in one process (harness.interleave) with the same weights; outputs are compared first. Ratios
are torch's median over ours.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from math import exp, log
from statistics import mean, median
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import fusedrnn as fr
import fusedrnn.torch as ft
import harness

SHAPES = [(100, 1, 64, 64), (100, 8, 64, 128), (50, 8, 128, 256), (100, 32, 64, 128), (50, 64, 128, 256)]  # T B I H
QUICK_SHAPES = [(50, 1, 32, 32), (50, 8, 64, 64)]
CELLS = ("LSTM", "GRU", "RNN")
Calls = dict[str, Callable[[], object]]


def pair(cell: str, inputs: int, hidden: int) -> dict[str, Any]:
    theirs = getattr(nn, cell)(inputs, hidden)
    ours = getattr(ft, cell)(inputs, hidden)
    ours.load_state_dict(theirs.state_dict())
    return {"fusedrnn": ours, "torch.nn": theirs}


def step_with_adam(module: Any, run: Callable[[], Any]) -> Callable[[], object]:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        run().square().mean().backward()
        optimizer.step()

    return step


def without_gradients(run: Callable[[], Any]) -> Callable[[], object]:
    def call() -> Any:
        with torch.no_grad():
            return run()

    return call


def steps_of(module: Any, x: Any, resets: Any) -> Any:
    """A loop over steps, as libraries for reinforcement learning write it."""
    state: Any = tuple(torch.zeros(1, x.shape[1], module.hidden_size) for _ in range(2))
    rows = []
    for row, reset in zip(x, resets, strict=True):
        state = tuple(s * (~reset).float()[None, :, None] for s in state)
        y, state = module(row[None], state)
        rows.append(y)
    return torch.cat(rows)


def cases(quick: bool) -> Iterator[tuple[str, Calls]]:
    for cell in CELLS:
        for steps, batch, inputs, hidden in QUICK_SHAPES if quick else SHAPES:
            x = torch.randn(steps, batch, inputs)
            modules = pair(cell, inputs, hidden)
            runs = {name: lambda m=m, x=x: m(x)[0] for name, m in modules.items()}
            torch.testing.assert_close(*(run() for run in runs.values()), atol=1e-5, rtol=1e-4)
            where = f"{steps}, {batch}, {inputs}, {hidden}"
            yield f"{cell} inference {where}", {name: without_gradients(run) for name, run in runs.items()}
            yield f"{cell} training {where}", {name: step_with_adam(modules[name], run) for name, run in runs.items()}
    steps, batch, inputs, hidden = (50, 8, 64, 64) if quick else (200, 32, 64, 128)
    for cell in CELLS:
        lengths = torch.linspace(0.1, 1, batch).mul(steps).long()  # 55 % valid
        packed = pack_padded_sequence(torch.randn(steps, batch, inputs), lengths, enforce_sorted=False)
        modules = pair(cell, inputs, hidden)
        runs = {name: lambda m=m, p=packed: m(p)[0].data for name, m in modules.items()}
        what = f"{cell} training {steps}, {batch}, {inputs}, {hidden}, packed"
        yield what, {name: step_with_adam(modules[name], run) for name, run in runs.items()}
    steps, batch, hidden = (32, 8, 64) if quick else (128, 8, 256)
    modules, x = pair("LSTM", hidden, hidden), torch.randn(steps, batch, hidden)
    resets = torch.rand(steps, batch, generator=torch.Generator().manual_seed(0)) < 0.05
    loops = {
        "fusedrnn": lambda: modules["fusedrnn"](x, resets=resets)[0],
        "torch.nn": lambda: steps_of(modules["torch.nn"], x, resets),
    }
    where = f"{steps}, {batch}, {hidden}, {hidden}, resets"
    yield f"LSTM inference {where}", {name: without_gradients(run) for name, run in loops.items()}
    yield f"LSTM training {where}", {name: step_with_adam(modules[name], run) for name, run in loops.items()}
    model = {name: nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for name in modules}
    modules, x = pair("GRU", 64, 64), torch.randn(50, 8, 64)
    compiled = {n: torch.compile(lambda v, n=n: modules[n](model[n](v))[0]) for n in modules}
    runs = {name: lambda f=f: f(x) for name, f in compiled.items()}
    for run in runs.values():
        run().sum().backward()
    yield "GRU training 50, 8, 64, 64, compiled", {n: step_with_adam(modules[n], run) for n, run in runs.items()}


def overheads() -> None:
    """Print what the module adds to the call on NumPy arrays, of one step of one small sample."""
    for cell in CELLS:
        module, layer = getattr(ft, cell)(8, 16), getattr(fr, cell)(8, 16, batch_first=False)
        x, dy = torch.randn(1, 1, 8), torch.randn(1, 1, 16)
        array, d_array = x.numpy(), dy.numpy()

        def train(layer: Any = layer, array: Any = array, d_array: Any = d_array) -> None:
            _, tape = layer.forward(array)
            layer.backward(tape, d_array)

        calls: Calls = {
            "module": without_gradients(lambda m=module, x=x: m(x)),
            "numpy": lambda n=layer, a=array: n(a),
            "module, training": lambda m=module, x=x, d=dy: m(x)[0].backward(d),
            "numpy, training": train,
        }
        timings, _ = harness.interleave(calls, harness.FULL)
        us = {name: timing.median * 1e6 for name, timing in timings.items()}
        plain, training = us["module"] - us["numpy"], us["module, training"] - us["numpy, training"]
        print(f"{cell}: module over the NumPy call {plain:.1f} us without gradients, {training:.1f} us a training step")


def memory() -> None:
    """Print by how much a training step raises the most memory that a process has had, of both."""
    grown = {}
    for name in ("fusedrnn.torch", "torch.nn"):
        code = f"""
            import torch
            from {name.rpartition(".")[0]} import {name.rpartition(".")[2]} as module

            def most():
                return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])

            torch.set_num_threads(1)
            layer, x = module.LSTM(128, 256), torch.randn(400, 64, 128)
            layer(x[:2])[0].sum().backward()
            before = most()
            layer(x)[0].sum().backward()
            print(most() - before)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        grown[name] = int(done.stdout) / 1024
    text = ", ".join(f"{name} {size:.0f} MiB" for name, size in grown.items())
    print(f"memory of a training step of LSTM 400, 64, 128, 256: {text}")


def beside_torch(threads: int) -> None:
    """Print our call alone and right after a product of torch, and torch's alone, after ours and after nn.LSTM.

    What nn.LSTM costs the product, too, is the cache's.
    """
    modules, x = pair("LSTM", 512, 448), torch.randn(30, 40, 512)
    a = torch.randn(900, 900)

    def timed(call: Callable[[], object], before: Callable[[], object]) -> float:
        times = []
        for _ in range(30):
            before()
            start = harness.clock()
            call()
            times.append(harness.clock() - start)
        return median(times)

    def nothing() -> None: ...

    ours, lstm = (without_gradients(lambda m=modules[name]: m(x)) for name in ("fusedrnn", "torch.nn"))

    def theirs() -> object:
        return a @ a

    for source in ("openmp", "own"):
        fr.set_thread_pool(source)
        turns = [
            [
                timed(ours, nothing),
                timed(ours, theirs),
                timed(theirs, nothing),
                timed(theirs, ours),
                timed(theirs, lstm),
            ]
            for _ in range(3)
        ]
        alone, after, product, product_after, control = (median(turn[i] for turn in turns) for i in range(5))
        print(
            f"{threads} threads, pool {source}: our call takes {after / alone:.2f} of its time alone after a product, "
            f"the product {product_after / product:.2f} after our call, {control / product:.2f} after nn.LSTM"
        )


def product_of_onnxruntime(threads: int) -> Callable[[], object]:
    """Return a product in a session whose threads spin after it."""
    import onnxruntime
    from onnx import TensorProto, helper

    a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [700, 700]) for name in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = torch.randn(700, 700).numpy()
    return lambda: session.run(None, {"a": values, "b": values})


def missed_by_workers(threads: int) -> None:
    """Print how many calls our own workers came too late for, with nothing before and after a session that spins.

    Such a call runs on one thread, and is known by the CPU time of that thread, which other work hardly changes.
    """
    layer, x = fr.LSTM(512, 448, batch_first=False, seed=0), torch.randn(30, 40, 512).numpy()

    def times(before: Callable[[], object], calls: int) -> list[float]:
        found = []
        for _ in range(calls):
            before()
            start = time.thread_time()
            layer(x)
            found.append(time.thread_time() - start)
        return found

    fr.set_thread_pool("own")
    fr.set_num_threads(1)
    alone = median(times(int, 20))
    fr.set_num_threads(threads)
    cases = {"nothing": int, "a session of ONNX Runtime that spins": product_of_onnxruntime(threads)}
    for name, before in cases.items():
        missed = sum(taken > 0.75 * alone for taken in times(before, 100))
        print(f"{threads} threads, pool own, after {name}: {missed} of 100 calls ran on one thread")


def main(quick: bool, threads: list[int]) -> int:
    """Print the table for each number of threads."""
    for count in threads:
        torch.set_num_threads(count)
        fr.set_num_threads(count)
        print(f"\n{count} thread{'s' * (count > 1)}: T, B, I, H | fusedrnn ms | torch.nn | quartiles of the rounds")
        ratios: dict[str, list[float]] = {}
        for name, calls in cases(quick):
            timings, _ = harness.interleave(calls, harness.QUICK if quick else harness.FULL)
            ratio, first, third = harness.paired_ratio(timings["torch.nn"], timings["fusedrnn"])
            print(
                f"{name:45} {timings['fusedrnn'].median * 1e3:9.3f} {ratio:7.2f}x  ({first:.2f} to {third:.2f})",
                flush=True,
            )
            if not any(word in name for word in ("packed", "resets", "compiled")):
                ratios.setdefault(name.split()[0], []).append(ratio)
        for cell, values in ratios.items():
            print(f"geometric mean {cell}: {exp(mean(map(log, values))):.2f}x, least {min(values):.2f}x")
        if count > 1:
            beside_torch(count)
            missed_by_workers(count)
    torch.set_num_threads(1)
    fr.set_num_threads(1)
    overheads()
    memory()
    return 0
