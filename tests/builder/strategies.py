"""Every kind of valid plan, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from seatkeeper.artifacts.plan import TARGETS, BuildPlan, Profile, ProfileShape

names = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters=","),
    min_size=1,
    max_size=20,
)


@st.composite
def shapes(draw: st.DrawFn, name: str) -> ProfileShape:
    rank = draw(st.integers(1, 4))
    triples = [sorted(draw(st.tuples(*[st.integers(1, 2_000)] * 3))) for _ in range(rank)]
    # Volumes stay under 2^34 when only the first two sizes may be large.
    triples = [
        triple if axis < 2 else [min(size, 16) for size in triple]
        for axis, triple in enumerate(triples)
    ]
    low, best, high = zip(*triples, strict=True)
    return ProfileShape(input=name, min=low, opt=best, max=high)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    inputs = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return Profile(shapes=tuple(draw(shapes(name)) for name in inputs))


@st.composite
def plans(draw: st.DrawFn) -> BuildPlan:
    backend = draw(st.sampled_from(sorted(TARGETS)))
    targets_max = 1 if backend == "tensorrt" else 4
    return BuildPlan(
        backend=backend,
        targets=tuple(
            draw(st.lists(st.sampled_from(TARGETS[backend]), min_size=1, max_size=targets_max))
        ),
        profiles=tuple(draw(st.lists(profiles(), max_size=3))),
        workspace_bytes=draw(st.none() | st.integers(1, 2**48)),
        optimisation_level=draw(st.integers(0, 5)),
    )
