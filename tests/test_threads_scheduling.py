"""What the workers ask of the scheduler: a CPU other than the caller's, and short time slices."""

from __future__ import annotations

import os
import platform

import pytest

from scripts import run_python

several_cpus = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs of a Linux system"
)

# Leaves a layer whose calls use two threads, its input x and the worker's thread id.
ONE_WORKER = """
import os, time
import numpy as np
import fusedrnn as fr

layer = fr.LSTM(8, 64, seed=1)
x = np.zeros((8, 100, 8), dtype=np.float32)
fr.set_num_threads(2)
assert layer.plan(100, 8) == "by_sample x2"
others = set(os.listdir("/proc/self/task"))
layer(x)
(worker,) = set(os.listdir("/proc/self/task")) - others

def fields_of(thread):
    with open(f"/proc/{thread}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()

def cpu_of(thread):
    return int(fields_of(thread)[36])

def wait_until_the_worker_sleeps():
    while fields_of(worker)[0] != "S":
        time.sleep(0.002)
"""


@several_cpus
def test_a_worker_wakes_on_another_cpu() -> None:
    """Than the caller's, however often that changes: a sleeping worker may run on all CPUs but this one."""
    run_python(
        ONE_WORKER
        + """
everywhere = os.sched_getaffinity(0)
seen = []
for cpu in 3 * sorted(everywhere)[:2]:
    os.sched_setaffinity(0, {cpu})  # moves the caller there
    os.sched_setaffinity(0, everywhere)
    before = cpu_of("self")
    layer(x)
    if cpu_of("self") == before:  # else nobody knows where the call began
        seen.append(cpu_of(worker) != before)
        wait_until_the_worker_sleeps()
        assert everywhere - os.sched_getaffinity(int(worker)) == {before}
    wait_until_the_worker_sleeps()
assert sum(seen) > len(seen) / 2, seen  # the system may have moved it since
"""
    )


@several_cpus
def test_more_threads_than_cpus() -> None:
    """They share all CPUs, the caller's too: it will have done its part long before the others."""
    run_python(
        """
import os
import numpy as np
import fusedrnn as fr

everywhere = os.sched_getaffinity(0)
threads = len(everywhere) + 1
fr.set_num_threads(threads)
layer = fr.LSTM(8, 64, seed=1)
assert layer.plan(100, 4 * threads) == f"by_sample x{threads}"
others = set(os.listdir("/proc/self/task"))
layer(np.zeros((4 * threads, 100, 8), dtype=np.float32))
workers = set(os.listdir("/proc/self/task")) - others
assert len(workers) == threads - 1
assert all(os.sched_getaffinity(int(worker)) == everywhere for worker in workers)
"""
    )


@pytest.mark.skipif(
    platform.machine() != "x86_64" or tuple(map(int, platform.release().split(".")[:2])) < (6, 12),
    reason="needs Linux 6.12 or newer on x86-64, whose threads may have time slices of their own",
)
@several_cpus
def test_a_worker_has_short_slices() -> None:
    """A tenth of a millisecond; the caller keeps its own."""
    run_python(
        ONE_WORKER
        + """
import ctypes

def slice_ns(thread):
    attributes = (ctypes.c_uint64 * 6)()
    sched_getattr = 315
    assert ctypes.CDLL(None).syscall(sched_getattr, thread, attributes, ctypes.sizeof(attributes), 0) == 0
    return attributes[3]

wait_until_the_worker_sleeps()  # it may have begun after a call that did not wait for it
assert slice_ns(int(worker)) == 100_000
assert slice_ns(0) > 100_000
"""
    )
