"""The ring, computed from docs/how-to/write-a-client.md alone, equals the one that nodes use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seatkeeper.core.ring import Ring

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "ring_vectors.json").read_text(encoding="ascii")
)
POINTS = 160


def number(text: str) -> int:
    """MD5 of the text's UTF-8 bytes, as one big-endian number of 128 bits."""
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest(), "big")


def owner(nodes: Sequence[str], pool: str) -> str:
    """The node of the first point above the pool's own, around the ring."""
    points = {}
    for node in sorted(nodes):  # the later node takes a point that two have
        for index in range(POINTS):
            points[number(f"{node}-{index}")] = node
    above = [point for point in points if point > number(pool)]
    return points[min(above) if above else min(points)]


def test_the_points_are_those_of_the_vectors() -> None:
    for point in VECTORS["points"]:
        assert number(point["text"]) == int(point["md5_as_number"])


@pytest.mark.parametrize("ring", VECTORS["owners"], ids=lambda ring: str(len(ring["nodes"])))
def test_the_description_gives_the_owners_of_the_vectors(ring: dict[str, Any]) -> None:
    for pool, expected in ring["owners"].items():
        assert owner(ring["nodes"], pool) == expected


@pytest.mark.parametrize("ring", VECTORS["owners"], ids=lambda ring: str(len(ring["nodes"])))
def test_the_nodes_agree_with_the_vectors(ring: dict[str, Any]) -> None:
    """A change of the ring changes it for every client: it must not."""
    for nodes in (ring["nodes"], list(reversed(ring["nodes"]))):
        addresses = dict.fromkeys(nodes, "")
        for pool, expected in ring["owners"].items():
            assert Ring(1, addresses).owner(pool) == expected


def test_the_vectors_distinguish_rings() -> None:
    """A wrong ring, such as one with 40 points a node, would not pass by chance."""
    owners = [set(ring["owners"].values()) for ring in VECTORS["owners"]]
    assert sum(map(len, owners)) > 20
