"""The metrics port has three paths, and no gauge of a pool that is gone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from tests.cases.place import Place


def case(place: Place) -> None:
    node = place.start_node("--metrics-listen", "127.0.0.1:0")
    lines = map(json.loads, node.log.read_text().splitlines())
    (serving,) = (line for line in lines if line["event"] == "metrics_serving")

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://{serving['address']}{path}", timeout=30
            ) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    assert [get(path)[0] for path in ("/healthz", "/readyz", "/")] == [200, 200, 404]
    assert place.seatkeeper("run", "--pool", "p", "--", "true").returncode == 0
    assert 'seatkeeper_pool_held{pool="p"} 0.0' in get("/metrics")[1]
    place.seatkeeper("run", "--pool", "made-up-by-a-client", "--", "true")
    assert place.seatkeeper("pool", "delete", "p").returncode == 0
    place.wait_until(lambda: 'pool="p"' not in get("/metrics")[1], what="no gauge of the pool")
    text = get("/metrics")[1]
    assert 'seatkeeper_denials_total{pool="",reason="POOL_NOT_FOUND"} 1.0' in text, text
    assert "made-up" not in text
    for name in ("process_resident_memory_bytes", "seatkeeper_build_info", "python_info"):
        assert name in text, f"no {name}"
