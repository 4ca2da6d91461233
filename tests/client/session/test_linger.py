from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.client.session.linger import LingerCache
from seatkeeper.client.session.requests import Wanted

CV = Wanted(pool="tensorrt", project="cv")
NLP = Wanted(pool="tensorrt", project="nlp")
LABELLED = Wanted(pool="tensorrt", project="cv", labels=(("team", "a"),))
OTHER = Wanted(pool="matlab", project="cv")


def cache(unsafe: set[str] | None = None, *, kept_max: int = 8) -> LingerCache[str]:
    lost = set() if unsafe is None else unsafe
    return LingerCache(5.0, kept_max, is_safe=lambda item: item not in lost)


def test_what_is_kept_serves_the_next_who_wants_the_same() -> None:
    kept = cache()
    assert kept.put(CV, "seat", now=0.0) == []
    assert kept.take(NLP, now=1.0) is None
    assert kept.take(LABELLED, now=1.0) is None
    assert kept.take(CV, now=1.0) == "seat"
    assert kept.take(CV, now=1.0) is None


def test_nothing_is_kept_for_too_long() -> None:
    kept = cache()
    kept.put(CV, "seat", now=0.0)
    assert kept.next_expiry() == 5.0
    assert kept.take(CV, now=5.0) is None
    assert kept.expired(now=5.0) == ["seat"]
    assert kept.next_expiry() is None


def test_what_is_not_safe_is_neither_kept_nor_handed_out() -> None:
    unsafe: set[str] = {"doubtful"}
    kept = cache(unsafe)
    assert kept.put(CV, "doubtful", now=0.0) == ["doubtful"]
    kept.put(CV, "seat", now=0.0)
    unsafe.add("seat")
    assert kept.take(CV, now=1.0) is None
    assert kept.expired(now=1.0) == ["seat"]


def test_without_a_time_nothing_lingers() -> None:
    kept: LingerCache[str] = LingerCache(0.0, 8, is_safe=lambda item: True)
    assert kept.put(CV, "seat", now=0.0) == ["seat"]


def test_too_many_push_the_oldest_out() -> None:
    kept = cache(kept_max=2)
    surplus = [gone for i in range(4) for gone in kept.put(CV, f"seat-{i}", now=float(i))]
    assert surplus == ["seat-0", "seat-1"]


def test_a_pool_can_be_emptied() -> None:
    kept = cache()
    for key in (CV, NLP, OTHER):
        kept.put(key, key.pool + key.project, now=0.0)
    assert kept.of_pool("tensorrt") == ["tensorrtcv", "tensorrtnlp"]
    assert kept.everything() == ["matlabcv"]
    assert kept.everything() == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "take", "expire"]),
            st.sampled_from([CV, NLP, OTHER]),
            st.floats(0.0, 3.0),
        ),
        max_size=60,
    )
)
def test_every_seat_is_kept_handed_out_or_given_back_exactly_once(
    events: list[tuple[str, Wanted, float]],
) -> None:
    kept, now, inside = cache(kept_max=3), 0.0, dict[str, Wanted]()
    for number, (event, key, wait) in enumerate(events):
        now += wait
        gone: list[str] = []
        match event:
            case "put":
                inside[f"seat-{number}"] = key
                gone = kept.put(key, f"seat-{number}", now)
            case "take":
                taken = kept.take(key, now)
                assert taken is None or inside.pop(taken) == key
            case "expire":
                gone = kept.expired(now)
        for item in gone:
            del inside[item]
        assert len(inside) <= 3
    assert sorted(kept.everything()) == sorted(inside)
