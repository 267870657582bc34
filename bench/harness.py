"""Timing, pinning, the roof and the record of the machine: what measuring needs and no framework decides."""

from __future__ import annotations

import datetime
import gc
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from itertools import repeat
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
clock = time.perf_counter


@dataclass(frozen=True)
class Budget:
    """How long one implementation is timed in one case."""

    seconds: float  # of timed calls, over all rounds
    block: float  # of timed calls in one round
    min_rounds: int
    max_rounds: int
    warm_up: float


FULL = Budget(seconds=0.5, block=0.03, min_rounds=7, max_rounds=40, warm_up=0.1)
QUICK = Budget(seconds=0.1, block=0.01, min_rounds=3, max_rounds=10, warm_up=0.03)
SAMPLE_SECONDS = 200e-6  # calls shorter than this are timed several at once: the clock costs 0.1 us


@dataclass
class Timing:
    """Seconds a call: all samples, and the median of each round."""

    samples: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)

    def add(self, samples: list[float]) -> None:
        self.samples += samples
        self.rounds.append(median(samples))

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.samples)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = quantiles(values, n=4, method="inclusive")
    return first, third


def paired_ratio(peer: Timing, ours: Timing) -> tuple[float, float, float]:
    """Return the ratio of medians peer/ours, and the quartiles of the ratio round by round."""
    first, third = quartiles([a / b for a, b in zip(peer.rounds, ours.rounds, strict=True)])
    return peer.median / ours.median, first, third


def settle(limit: float = 0.5) -> bool:
    """Wait until no thread of this process is busy; False where one still is after `limit` seconds.

    Thread pools spin for a while after their last call (ONNX Runtime for tens of milliseconds, longer on some hosts),
    and JAX frees memory in a thread of its own after its last call, on the same core where there is but one. In their
    own turn they may: switching it off would slow their back-to-back calls. In the next one's they must not.
    """
    end = clock() + limit
    while clock() < end:
        wall, busy = clock(), time.process_time()
        time.sleep(0.005)  # longer than a scheduler tick, by which the CPU time of other threads is brought up to date
        if time.process_time() - busy < 0.15 * (clock() - wall):
            return True
    return False


def _seconds_per_call(call: Callable[[], object], at_least: float) -> float:
    calls = 0
    start = clock()
    fastest = float("inf")
    while calls < 2 or clock() - start < at_least:
        before = clock()
        call()
        fastest = min(fastest, clock() - before)
        calls += 1
    return fastest


def _block(call: Callable[[], object], calls: int, seconds: float) -> list[float]:
    samples: list[float] = []
    end = clock() + seconds
    while True:
        start = clock()
        for _ in repeat(None, calls):
            call()
        stop = clock()
        samples.append((stop - start) / calls)
        if stop >= end:
            return samples


def interleave(
    calls: dict[str, Callable[[], object]], budget: Budget, *, roof: Callable[[], float] | None = None
) -> tuple[dict[str, Timing], list[float]]:
    """Time all `calls` in turn (A B C, B C A, ...), so that a change of the machine's speed meets all of them.

    Returns the timings and what `roof` measured in each round.
    """
    per_call = {name: _seconds_per_call(call, budget.warm_up) for name, call in calls.items()}
    timings = {name: Timing() for name in calls}
    roofs: list[float] = []
    order = list(calls)
    spent = 0.0
    gc.collect()
    gc.disable()
    try:
        for done in range(budget.max_rounds):
            if done >= budget.min_rounds and spent >= budget.seconds * len(calls):
                break
            for name in order:
                settle()
                if per_call[name] < 0.02:
                    calls[name]()  # wakes its threads and refills the caches; lost in the noise for longer calls
                start = clock()
                timings[name].add(_block(calls[name], max(1, int(SAMPLE_SECONDS / per_call[name])), budget.block))
                spent += clock() - start
            if roof is not None:
                roofs.append(roof())
            order = order[1:] + order[:1]
    finally:
        gc.enable()
    return timings, roofs


class Foreign:
    """How much of this process's cores other work took since the object was made, as a share (Linux; else 0)."""

    def __init__(self, cpus: Sequence[int]) -> None:
        self._cpus = cpus
        self._start = self._read()

    def _read(self) -> tuple[float, float, float]:
        stat = Path("/proc/stat")
        busy = 0.0
        if self._cpus and stat.exists():
            for line in stat.read_text().splitlines():
                name, *ticks = line.split()
                if name in {f"cpu{cpu}" for cpu in self._cpus}:
                    idle = int(ticks[3]) + int(ticks[4])
                    busy += (sum(map(int, ticks[:8])) - idle) / os.sysconf("SC_CLK_TCK")
        return clock(), busy, time.process_time()

    def share(self) -> float:
        wall, busy, own = (now - then for now, then in zip(self._read(), self._start, strict=True))
        return max(0.0, (busy - own) / (wall * max(1, len(self._cpus))))


class Roof:
    """The machine's roof: multiply-adds in registers, on as many threads as the kernels get, in GFLOP/s."""

    def __init__(
        self, fma_peak: Callable[[str, float], float], threads: int, dtype: str = "float32", seconds: float = 0.004
    ) -> None:
        self._measure = lambda _: float(fma_peak(dtype, seconds))
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self) -> float:
        """Measure once; the turbo frequency moves, so this is done again in every round of every case."""
        settle()
        if self._threads == 1:
            return self._measure(0)
        return sum(self._pool.map(self._measure, range(self._threads)))


def separate_cores(threads: int) -> list[int]:
    """Return `threads` CPUs of this process's affinity mask that share no physical core.

    Raises RuntimeError where there are not as many.
    """
    seen: set[str] = set()
    cpus: list[int] = []
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = siblings.read_text() if siblings.exists() else str(cpu)
        if core not in seen:
            seen.add(core)
            cpus.append(cpu)
    if len(cpus) < threads:
        raise RuntimeError(f"{threads} threads asked for, but this process may use {len(cpus)} physical cores")
    return cpus[:threads]


def pin(threads: int) -> list[int]:
    """Bind this process to `threads` cores; must run before any library makes its threads. [] where the OS cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cpus = separate_cores(threads)
    os.sched_setaffinity(0, cpus)
    return cpus


# ONNX Runtime has no such switch: it keeps its full ISA.
_PEER_ISA = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }
}


def environment(threads: int, isa: str | None) -> dict[str, str]:
    """Return the environment of a measuring process: every library's own switch for the number of threads."""
    env = dict(os.environ)
    for name in ("OMP", "MKL", "OPENBLAS", "FUSEDRNN"):
        env[f"{name}_NUM_THREADS"] = str(threads)
    env.update(TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
    env.update(JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="", KERAS_BACKEND="tensorflow")
    if isa is not None:
        env["FUSEDRNN_ISA"] = isa
        env.update(_PEER_ISA.get(isa, {}))
    return env


def _cpu_model() -> str:
    """Return the processor's name, with family and model: generations may share a name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = {}
        for line in info.read_text().partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
        if "model name" in fields:
            return f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"
    return platform.processor() or platform.machine()


def _system() -> str:
    release = ".".join(platform.release().split(".")[:2])
    return ", ".join(
        filter(None, (f"{platform.system()} {release}", platform.machine(), " ".join(platform.libc_ver())))
    )


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def describe(packages: Sequence[str]) -> dict[str, Any]:
    """Return what a reader needs to judge a figure: commit, CPU, versions, date, load."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": (_git("rev-parse", "--short", "HEAD") or "none")
        + ("+" if _git("status", "--porcelain", "--untracked-files=no") else ""),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": _system(),
        "python": platform.python_version(),
        "versions": versions,
    }
