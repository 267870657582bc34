"""What .ci/gpu does on a machine with a GPU, with stand-ins for the commands that it calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "gpu"
STEPS = ["build", "smoke", "bench", "tests", "sanitize"]
# Each writes down how it was called and fails where its name or an argument is what BROKEN says.
STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0") $* [path ${FUSEDRNN_CUDA_PATH-} archs ${CUDAARCHS-}]" >>"$CALLS"
[ "$(basename "$0")" = nvidia-smi ] && echo 9.0
[[ " $(basename "$0") $* " == *"$BROKEN"* ]] && { echo "no device"; exit 3; }
exit 0
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None or shutil.which("timeout") is None, reason="needs bash")


def run(folder: Path, *steps: str, broken: str = "nothing") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a copy of the script; return what it says and the calls it makes."""
    (folder / ".ci").mkdir(exist_ok=True)
    shutil.copy(SCRIPT, folder / ".ci" / "gpu")
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("python3", "nvidia-smi", "compute-sanitizer"):
        (folder / "bin" / name).write_text(STAND_IN)
        (folder / "bin" / name).chmod(0o755)
    calls = folder / "calls"
    calls.write_text("")
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls), "BROKEN": broken}
    for name in ("OUT", "LIMIT", "BENCH", "TOOLS", "CUDAARCHS", "FUSEDRNN_ISAS", "FUSEDRNN_CUDA_PATH"):
        environment[name] = ""
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    done = subprocess.run(
        [folder / ".ci" / "gpu", *steps],
        env=kept | {name: value for name, value in environment.items() if value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, calls.read_text().splitlines()


def test_all_steps_run(tmp_path: Path) -> None:
    """In order, each path of the benchmark once, for the device that is there; what they say is kept."""
    done, calls = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"=== (\w+) \(after", done.stdout) == STEPS
    results = tmp_path / "bench" / "results" / "gpu"
    assert {path.name for path in results.iterdir()} == {f"{step}.txt" for step in STEPS}
    assert any("pip install" in call and "archs 90-real" in call for call in calls)
    paths = [call.partition("[path ")[2].split()[0] for call in calls if "compare.py" in call]
    assert paths == ["auto", "fused", "stepwise"]
    assert sum("-n 8" in call for call in calls) == 1 and sum("cuda and alone" in call for call in calls) == 1
    assert [call.split("--tool ")[1].split()[0] for call in calls if "--tool" in call] == ["memcheck", "racecheck"]


@pytest.mark.parametrize("broken", ["pip install", "replays or half", "compare.py", "-n 8", "memcheck"])
def test_a_step_that_fails_costs_itself_alone(tmp_path: Path, broken: str) -> None:
    """The others run, what it said is kept, and the end names it."""
    expected = len(run(tmp_path)[1])
    done, calls = run(tmp_path, broken=broken)
    assert done.returncode == 1
    missing = 1 if broken == "pip install" else 0  # what would look at the build
    assert len(calls) == expected - missing, calls
    failed = STEPS[["pip install", "replays or half", "compare.py", "-n 8", "memcheck"].index(broken)]
    assert re.search(r"failed: (.*)", done.stdout)[1] == failed  # type: ignore[index]
    assert "no device" in (tmp_path / "bench" / "results" / "gpu" / f"{failed}.txt").read_text()


def test_limits_sum_to_ten_minutes(tmp_path: Path) -> None:
    """Should every command hang, the ten minutes are enough."""
    (tmp_path / "bin").mkdir()
    timeout = tmp_path / "bin" / "timeout"
    timeout.write_text('#!/usr/bin/env bash\necho "$2 ${1#--kill-after=}" >>"$CALLS.limits"\n')
    timeout.chmod(0o755)
    run(tmp_path)
    limits = [sum(map(int, line.split())) for line in (tmp_path / "calls.limits").read_text().splitlines()]
    assert len(limits) == 10 and sum(limits) <= 600, limits
