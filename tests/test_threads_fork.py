"""Threads, forks and interrupts."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from problems import LAYERS
from scripts import run_python
from tolerance import assert_same_bits


@pytest.mark.usefixtures("restore_threads")
def test_many_threads_share_a_layer(cell: str) -> None:
    """Inference and tapes from eight threads at once give the bits of one thread."""
    fr.set_num_threads(2)
    layer = LAYERS[cell](9, 65, 2, seed=1)
    inputs = [np.random.default_rng(k).normal(size=(1 + k % 4, 12, 9)).astype(np.float32) for k in range(16)]
    expected = [layer(x)[0] for x in inputs]

    def work(k: int) -> None:
        for x, y in list(zip(inputs, expected, strict=True))[k::2]:
            assert_same_bits(layer(x)[0], y)
            assert_same_bits(layer.forward(x)[0][0], y)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [k % 2 for k in range(24)]))


@pytest.mark.usefixtures("restore_threads")
def test_gradients_from_many_threads_add_up() -> None:
    """Two threads that go backward through one layer at the same time add their gradients one after the other."""
    fr.set_num_threads(1)
    model = fr.Sequential(fr.LSTM(64, 512, seed=0), fr.Linear(512, 700, seed=1))
    x = np.full((1, 1, 64), 1e-3, np.float32)
    dy = np.ones((1, 1, 700), np.float32)
    calls = 64

    def accumulate(pool: ThreadPoolExecutor) -> dict[str, Any]:
        model.zero_grad()
        tapes = [model.forward(x)[1] for _ in range(calls)]
        list(pool.map(lambda tape: model.backward(tape, dy), tapes))
        return {name: gradient.copy() for name, gradient in model.grads.items()}

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(4) as several:
        expected = accumulate(one)  # equal summands, so the order of the threads is of no account
        for _ in range(3):
            for name, gradient in accumulate(several).items():
                assert_same_bits(gradient, expected[name], name)


@pytest.mark.usefixtures("restore_threads")
def test_streams_in_threads() -> None:
    """Every thread may step a stream of its own, all of one layer."""
    layer = fr.LSTM(5, 33, seed=1)
    x = np.random.default_rng(0).normal(size=(1, 60, 5)).astype(np.float32)
    expected, _ = layer(x)

    def work(_: int) -> None:
        stream = layer.stream()
        for t in range(60):
            assert_same_bits(stream.step(x[:, t]), expected[:, t])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that binds processes to cores")
def test_threads_that_do_not_come() -> None:
    """Two threads on one core would wait for each other in every step: the call goes on alone, with the same bits."""
    run_python(
        """
        import os, time
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import numpy as np
        import fusedrnn as fr

        layer = fr.LSTM(8, 130, seed=1)
        x = np.random.default_rng(0).standard_normal((1, 200, 8), dtype=np.float32)

        def measured(threads):
            fr.set_num_threads(threads)
            times = []
            for _ in range(20):
                start = time.perf_counter()
                y, _ = layer(x)
                times.append(time.perf_counter() - start)
            return min(times), y  # other work can only make a call longer

        alone, expected = measured(1)
        assert layer.plan(200, 1) == "single x1"
        together, y = measured(2)
        assert layer.plan(200, 1) == "by_unit x2"
        assert np.array_equal(y, expected)
        assert together < 2 * alone, (together, alone)
        """
    )


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_set_num_threads(n: int) -> None:
    """What was set is what is in use."""
    fr.set_num_threads(n)
    assert fr.get_num_threads() == n
    assert fr.config()["threads"] == n


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-1, ValueError), (10**9, ValueError), (1.5, TypeError), ("2", TypeError), (None, TypeError)],
)
def test_wrong_number_of_threads(n: Any, error: type[Exception]) -> None:
    """Anything but a sensible positive integer is refused, and nothing changes."""
    before = fr.get_num_threads()
    with pytest.raises(error, match="threads") as caught:
        fr.set_num_threads(n)
    assert str(n).strip("'") in str(caught.value)
    assert fr.get_num_threads() == before


def test_environment_sets_the_threads() -> None:
    """FUSEDRNN_NUM_THREADS decides; what it cannot mean is an error at import that names it."""
    code = "import fusedrnn as fr; print(fr.get_num_threads())"
    assert run_python(code, FUSEDRNN_NUM_THREADS="3").stdout.strip() == "3"
    for wrong in ("0", "-2", "two", "1.5"):
        result = run_python(code, check=False, FUSEDRNN_NUM_THREADS=wrong)
        assert result.returncode == 1
        assert "FUSEDRNN_NUM_THREADS" in result.stderr
        assert wrong in result.stderr


def test_the_limit_of_openmp_holds_without_our_own() -> None:
    """OMP_NUM_THREADS allows fewer threads than there are processors, never more; its nonsense is not our error."""
    count = "fr.get_num_threads(), fr.config()['threads_available']"
    code = f"import os, sys; os.environ.pop('FUSEDRNN_NUM_THREADS', None); import fusedrnn as fr; print({count})"
    for value, expected in (("1", 1), ("1,4", 1), ("1000", None), ("0", None), ("many", None), ("", None)):
        threads, available = run_python(code, OMP_NUM_THREADS=value).stdout.split()
        assert int(threads) == (expected or int(available)), value
    own = "import fusedrnn as fr; print(fr.get_num_threads())"
    assert run_python(own, OMP_NUM_THREADS="1", FUSEDRNN_NUM_THREADS="3").stdout.strip() == "3"


def test_workers_of_joblib_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joblib tells its processes by OMP_NUM_THREADS how many threads each may have."""
    joblib = pytest.importorskip("joblib")
    monkeypatch.delenv("FUSEDRNN_NUM_THREADS", raising=False)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        threads = joblib.Parallel(n_jobs=2)(joblib.delayed(_threads_in_a_worker)() for _ in range(2))
    assert threads == [1, 1]


@pytest.mark.parametrize(
    "imports",
    [
        "import threadpoolctl, fusedrnn as fr",
        "import fusedrnn as fr, threadpoolctl, fusedrnn.threadpools",
        "import fusedrnn as fr, threadpoolctl, fusedrnn.sklearn",
    ],
)
def test_threadpoolctl_limits_the_kernels(imports: str) -> None:
    """Where it has been imported before, or is asked to; and what it ends is what it began with."""
    pytest.importorskip("threadpoolctl")
    code = f"""
        {imports}

        fr.set_num_threads(3)
        (ours,) = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "fusedrnn"]
        assert ours["num_threads"] == 3 and ours["version"] == fr.__version__, ours
        with threadpoolctl.threadpool_limits(2):
            assert fr.get_num_threads() == 2
        with threadpoolctl.threadpool_limits(5000, user_api="fusedrnn"):
            assert fr.get_num_threads() == 1023
        assert fr.get_num_threads() == 3
    """
    run_python(code)


def _threads_in_a_worker() -> int:
    return fr.get_num_threads()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that binds processes to cores")
def test_affinity_limits_the_threads() -> None:
    """A process that may use one CPU starts with one thread."""
    code = """
        import os
        os.environ.pop("FUSEDRNN_NUM_THREADS", None)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import fusedrnn as fr
        assert fr.get_num_threads() == 1, fr.get_num_threads()
    """
    run_python(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use() -> None:
    """After the workers have run, children compute the same bits with workers of their own, and so do grandchildren."""
    run_python(
        """
        import os, warnings
        import numpy as np
        import fusedrnn as fr
        from fusedrnn import _core

        warnings.simplefilter("ignore", DeprecationWarning)  # about fork beside threads, which is the point here
        _core.wait_for_workers(True)  # a child without workers would otherwise go on alone
        fr.set_num_threads(2)
        lstm = fr.LSTM(16, 128, 2, seed=0)
        x = np.random.default_rng(0).normal(size=(8, 20, 16)).astype(np.float32)
        expected = lstm(x)[0].tobytes()

        def child(depth):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    status = int(lstm(x)[0].tobytes() != expected) or (child(depth - 1) if depth else 0)
                finally:
                    os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        for k in range(30):
            assert child(depth=k % 2) == 0
            assert lstm(x)[0].tobytes() == expected
        """
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("direction", "hidden", "layers"),
    [("inference", 512, 1), ("backward", 512, 1), ("inference", 100, 3)],  # the last one by layer
)
def test_interrupt(direction: str, hidden: int, layers: int, threads: int) -> None:
    """Ctrl-C during a long kernel raises KeyboardInterrupt soon, and the next call is right."""
    run_python(
        f"""
        import os, signal, threading, time
        import numpy as np
        import fusedrnn as fr
        from fusedrnn import _core

        signal.signal(signal.SIGINT, signal.default_int_handler)
        _core.wait_for_workers(True)
        fr.set_num_threads({threads})
        lstm = fr.LSTM(4, {hidden}, {layers}, seed=0)
        small = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
        expected = lstm(small)[0].tobytes()

        def prepare(steps):
            x = np.broadcast_to(small[:1, :1], (1, steps, 4))
            if "{direction}" == "inference":
                return lambda: lstm(x)
            y, tape = lstm.forward(x)
            dy = np.broadcast_to(np.float32(1), (1, steps, {hidden}))
            return lambda: lstm.backward(tape, dy)

        def seconds(steps):
            begin = time.monotonic()
            prepare(steps)()
            lstm.zero_grad()
            return time.monotonic() - begin

        shortest = min(seconds(1000) for _ in range(4))  # other work can only make a call longer
        call = prepare(int(1500 / shortest))  # at least 0.75 s, whatever the machine

        sent = []
        def interrupt():
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        timer = threading.Timer(0.2, interrupt)
        timer.start()
        try:
            call()
            late = None
        except KeyboardInterrupt:
            late = time.monotonic() - sent[0]
        timer.join()
        assert late is not None, "the call ended before the interrupt"
        assert late <= 0.3, f"answered after {{late:.2f}} s"
        assert lstm(small)[0].tobytes() == expected
        assert not any(gradient.any() for gradient in lstm.grads.values()), "half a backward was added"
        """
    )


def test_the_process_ends_while_threads_compute() -> None:
    """Python ends daemon threads when they ask for the GIL; kernels without it must not turn that into an abort."""
    run_python(
        """
        import threading, time
        import numpy as np
        import fusedrnn as fr

        lstm, linear = fr.LSTM(32, 64, 2, seed=0), fr.Linear(512, 512, seed=0)
        sequence, rows = np.ones((8, 400, 32), np.float32), np.ones((512, 512), np.float32)

        def compute(call):
            while True:
                call()

        for call in (lambda: lstm(sequence), lambda: lstm.forward(sequence), lambda: linear(rows)):
            threading.Thread(target=compute, args=(call,), daemon=True).start()
        time.sleep(0.3)
        """
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("layer", ["fr.RNN(1, 1, 3000, bias=False)", "fr.LSTM(3, 4)", "fr.Linear(300, 400)"])
def test_fork_during_use(layer: str) -> None:
    """A child of a process whose other threads compute finds no lock closed: it computes the same bits, at once."""
    run_python(
        f"""
        import os, threading, time, warnings
        import numpy as np
        import fusedrnn as fr

        warnings.simplefilter("ignore", DeprecationWarning)  # about fork beside threads, which is the point here
        layers = [{layer} for _ in range(2)]
        width = getattr(layers[0], "input_size", 300)
        x = np.ones((2, 3, width), np.float32)
        outputs = lambda layer: (lambda y: y[0] if isinstance(y, tuple) else y)(layer(x)).tobytes()
        expected = [outputs(layer) for layer in layers]

        def use(layer):
            while True:
                y, tape = layer.forward(x)
                layer.backward(tape, y[0] if isinstance(y, tuple) else y)
                layer.params  # so that the weights are looked at again

        for layer in layers:
            threading.Thread(target=use, args=(layer,), daemon=True).start()
        for _ in range(60):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    status = int([outputs(layer) for layer in layers] != expected)
                finally:
                    os._exit(status)
            end = time.monotonic() + 20
            while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
                assert time.monotonic() < end, "the child hangs"
                time.sleep(0.001)
            assert ended[1] == 0, ended
        os._exit(0)
        """,
        timeout=180,
    )


def test_a_tape_is_used_by_one_thread_at_a_time() -> None:
    """What reads the gates of a tape beside a backward, which consumes them, is refused or right, never wrong."""
    layer: Any = fr.LSTM(32, 128, seed=1)
    x = np.random.default_rng(0).standard_normal((4, 100, 32), dtype=np.float32)
    y, tape = layer.forward(x)
    core = tape.saved[0][0]
    gates, cells = core.gates(0), core.cell_states(0)
    outcomes = {"refused": 0, "right": 0}

    def look(_: int) -> None:
        try:
            assert_same_bits(core.gates(0), gates)
            assert_same_bits(core.cell_states(0), cells)
            outcomes["right"] += 1
        except ValueError as error:
            assert "tape is in use by another thread" in str(error)
            outcomes["refused"] += 1

    def backward(_: int) -> None:
        try:
            layer.backward(tape, y[0])
        except ValueError as error:
            assert "tape is in use by another thread" in str(error)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit((look, backward)[k % 2], k) for k in range(80)]
        for job in jobs:
            job.result()
    look(0)
    assert outcomes["right"], outcomes


@pytest.mark.memory_limit
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of threads that counts for root")
def test_threads_that_cannot_start() -> None:
    """Where the system has no memory for the stack of a worker, the call goes on alone."""
    run_python(
        """
        import resource
        import numpy as np
        import fusedrnn as fr

        fr.set_num_threads(1)
        layer = fr.LSTM(16, 256, seed=1)
        x = np.ones((64, 20, 16), np.float32)
        expected = layer(x)[0]
        layer(x)  # so that the memory of the next call is there already
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (7 << 20), resource.RLIM_INFINITY))
        fr.set_num_threads(8)
        assert layer.plan(20, 64) != "single x1"
        assert np.array_equal(layer(x)[0], expected)
        """,
        OPENBLAS_NUM_THREADS="1",
    )
