"""A target for libFuzzer: any bytes are a ValueError of ``load``, or a layer.

    pip install atheris
    mkdir -p corpus && cp tests/data/*.safetensors corpus
    python tests/fuzz/load.py corpus -max_total_time=600 -rss_limit_mb=1024 -timeout=10

Half of the inputs get the right length of the header and no look at the checksum, so that they reach what lies behind.
"""

from __future__ import annotations

import inspect
import os
import sys

import atheris

import fusedrnn as fr
from fusedrnn.layers import registry
from fusedrnn.serialization import container, files

NAME = f"/dev/shm/fusedrnn-fuzz-{os.getpid()}"


def one_input(data: bytes) -> None:
    """Load a file of these bytes."""
    choices, data = data[:1], bytearray(data[1:])
    repair = bool(choices and choices[0] % 2)
    if repair and len(data) >= 8:
        brace = data.rfind(b"}")
        data[:8] = max(0, brace - 7).to_bytes(8, "little")
    with open(NAME, "wb") as file:
        file.write(data)
    try:
        fr.load(NAME, verify=not repair)
    except ValueError as error:
        assert str(error).startswith(f"load: {NAME}: ") and len(str(error)) < 1300


if __name__ == "__main__":
    for module in (container, files, registry):  # what is imported already, from an editable install as well
        for function in [each for each in vars(module).values() if inspect.isfunction(each)]:
            atheris.instrument_func(function)
    atheris.Setup(sys.argv, one_input)
    try:
        atheris.Fuzz()
    finally:
        os.unlink(NAME)
