"""Time by CUDA events: implementations in turn (A B, B A, ...), so that a change of the clock meets both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from harness import Timing

Call = Callable[[], object]


class Clock(Protocol):
    """What measures the time of some calls."""

    def seconds(self, call: Call, calls: int) -> float:
        """Return the time of so many calls in a row, from an idle device until their results are there."""


class Events:
    """CUDA events on the current stream of torch; the host may run ahead of the device, as it does for a user."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def seconds(self, call: Call, calls: int) -> float:
        """See :class:`Clock`."""
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._torch.cuda.synchronize()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3


class WallClock:
    """For calls that return with their results."""

    def seconds(self, call: Call, calls: int) -> float:
        """See :class:`Clock`."""
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Budget:
    """How long one implementation is timed in one case."""

    warm_up: float  # seconds, and at least 3 calls: libraries choose algorithms and capture graphs in the first ones
    block: float  # seconds of one sample
    seconds: float  # of all samples
    min_rounds: int
    max_rounds: int


FULL = Budget(warm_up=0.05, block=0.005, seconds=0.2, min_rounds=7, max_rounds=25)
QUICK = Budget(warm_up=0.02, block=0.003, seconds=0.05, min_rounds=5, max_rounds=9)


def interleave(calls: dict[str, Call], clock: Clock, budget: Budget) -> dict[str, Timing]:
    """Return the timings of each call; a sample is the mean of as many calls as fill a block."""
    per_call = {name: _warm(call, clock, budget.warm_up) for name, call in calls.items()}
    timings = {name: Timing() for name in calls}
    order, spent = list(calls), 0.0
    for done in range(budget.max_rounds):
        if done >= budget.min_rounds and spent >= budget.seconds * len(calls):
            break
        for name in order:
            count = max(1, math.ceil(budget.block / per_call[name]))
            elapsed = clock.seconds(calls[name], count)
            timings[name].add([elapsed / count])
            spent += elapsed
        order.reverse()
    return timings


def _warm(call: Call, clock: Clock, seconds: float) -> float:
    """Run a call for a while; return the time of the last one."""
    end = time.perf_counter() + seconds
    for done in range(10**6):
        last = clock.seconds(call, 1)
        if done >= 2 and time.perf_counter() >= end:
            break
    return max(last, 1e-7)
