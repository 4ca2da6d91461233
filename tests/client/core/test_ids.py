from __future__ import annotations

import re
import threading
import uuid

from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.core.ids import IdGenerator, new_id

CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_ids_are_version_7_and_canonical() -> None:
    text = new_id()
    assert CANONICAL.fullmatch(text)
    assert str(uuid.UUID(text)) == text
    assert uuid.UUID(text).variant == uuid.RFC_4122


def test_an_id_says_when_it_was_made() -> None:
    make = IdGenerator(now_millis=lambda: 1_700_000_000_123)
    assert uuid.UUID(make()).int >> 80 == 1_700_000_000_123


@given(st.lists(st.integers(0, 5), min_size=2, max_size=50), st.randoms(use_true_random=False))
def test_ids_increase_whatever_the_clock_does(clock: list[int], random: object) -> None:
    assert hasattr(random, "getrandbits")
    times = iter([*clock])
    make = IdGenerator(
        now_millis=lambda: 1_700_000_000_000 + next(times), random_bits=random.getrandbits
    )
    ids = [make() for _ in clock]
    assert ids == sorted(set(ids))
    assert all(CANONICAL.fullmatch(text) for text in ids)


def test_a_full_counter_runs_over_into_the_time() -> None:
    bits = iter([(1 << 73) - 1, *[(1 << 32) - 1] * 10])
    make = IdGenerator(now_millis=lambda: 5, random_bits=lambda count: next(bits))
    ids = [make() for _ in range(10)]
    assert ids == sorted(set(ids))


def test_threads_get_different_ids() -> None:
    make, ids = IdGenerator(), list[list[str]]()

    def work() -> None:
        ids.append([make() for _ in range(2000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({text for made in ids for text in made}) == 8000
    assert all(made == sorted(made) for made in ids)
