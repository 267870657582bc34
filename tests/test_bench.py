"""What the benchmark draws of its records."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


def test_every_peer_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a colour and by a name of its own, those with weights in 8 bits included."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(BENCH))
    plot, peers = import_module("plot"), import_module("peers")
    records = [json.loads(line) for line in (BENCH / "results" / "zen5-1t.jsonl").read_text().splitlines()]
    timed = [record for record in records if "torch" in record.get("times", ())][:4]
    for record in timed:
        record["times"] = {name: record["times"]["torch"] for name in peers.PEERS}
    (path,) = plot.draw(timed, tmp_path / "run")
    assert path.stat().st_size > 10_000
    names, colours, markers = zip(*plot.STYLE.values(), strict=True)
    assert len(set(names)) == len(set(colours)) == len(peers.PEERS) <= len(markers)
