"""Files that are refused: each with the line, the column and the reason of every fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from seatkeeper.client.pools_file import FILE_BYTES_MAX, read_pools
from seatkeeper.client.pools_file.definition import FILE, OVERTAKING, POOL, POOLS_MAX, PROJECT
from seatkeeper.client.pools_file.tree import FAULTS_MAX
from seatkeeper.core.projects import PROJECTS_MAX, Overtaking, ProjectShare

HEAD = "version: 1\npools:\n"
SHARED = HEAD + "  p:\n    seats: 10\n    projects:\n"


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: a wheel has libyaml, and a build from its source may not."""
    if request.param == "libyaml":
        if not yaml.__with_libyaml__:
            pytest.skip("this PyYAML has no libyaml")
    else:
        monkeypatch.setattr(yaml, "__with_libyaml__", False)


def faults(text: str | bytes) -> list[str]:
    """Return the faults of a file, which must have some, and says nothing then."""
    found = read_pools(text.encode() if isinstance(text, str) else text)
    assert found.faults
    assert not found.pools
    return [str(fault) for fault in found.faults]


def pool(*lines: str) -> str:
    return HEAD + "  p:\n" + "".join(f"    {line}\n" for line in lines)


# The file, and what is said of it: all faults, in the order of the file, each by its beginning.
BAD: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["1:1: the file is empty: write `version: 1`"]),
    "only a comment": ("# pools\n", ["1:1: the file is empty"]),
    "no mapping": ("- 1\n", ["1:1: a list, where the file is a mapping with the keys"]),
    "a word": ("pools\n", ["1:1: 'pools', where the file is a mapping"]),
    "nothing of what it needs": (
        "{}",
        ["1:1: the file needs `pools`", "1:1: the file needs `version`"],
    ),
    "a newer version": ("version: 2\npools: {}\n", ["1:10: version: 2 is not the 1 that this"]),
    "no pools": ("version: 1\npools:\n", ["2:7: pools: nothing, where `pools` is a mapping"]),
    "pools as a list": (
        HEAD + "  - name: p\n    seats: 1\n",
        [
            "3:3: pools: a list, where `pools` is a mapping from names, as in `pools: {NAME: ...}`"
        ],
    ),
    "a pool that is nothing": (
        HEAD + "  p:\n",
        ["3:5: pools.p: nothing, where a pool is a mapping"],
    ),
    "a pool without seats": (pool("description: x"), ["4:5: pools.p: a pool needs `seats`"]),
    "a key that is nearly right": (
        pool("seats: 1", "descriptoin: x"),
        ["5:5: pools.p: a pool has no key 'descriptoin': did you mean `description`?"],
    ),
    "a key that is nothing like it": (
        pool("seats: 1", "zzz: x"),
        ["5:5: pools.p: a pool has no key 'zzz': it has `seats`, `description`"],
    ),
    "a key at the top": (
        "version: 1\npool: {}\npools: {}\n",
        ["2:1: the file has no key 'pool': did you mean `pools`?"],
    ),
    "a doubled key": (
        pool("seats: 1", "seats: 1"),
        ["5:5: pools.p: 'seats' is there twice: see line 4"],
    ),
    "a doubled pool": (
        HEAD + "  p: {seats: 1}\n  q: {seats: 1}\n  p: {seats: 2}\n",
        ["5:3: pools: 'p' is there twice: see line 3"],
    ),
    "a doubled project": (
        SHARED + "      a: {}\n      a: {}\n",
        ["7:7: pools.p.projects: 'a' is there twice: see line 6"],
    ),
    "a name with blanks": (
        HEAD + "  Big Models: {seats: 1}\n",
        ["3:3: pools: 'Big Models' is not the name of a pool: 1 to 63 of"],
    ),
    "a key that is a list": (
        HEAD + "  [a, b]: {seats: 1}\n",
        ["3:3: pools: a list, where a key belongs"],
    ),
    "a fraction": (pool("seats: 3.5"), ["4:12: pools.p.seats: '3.5' is not a whole number"]),
    "true for a number": (pool("seats: true"), ["4:12: pools.p.seats: 'true' is not a whole"]),
    "a number in quotes": (
        pool('seats: "12"'),
        ["4:12: pools.p.seats: the number '12' is in quotes, which make it text: write 12"],
    ),
    "octal": (
        pool("seats: 012"),
        ["4:12: pools.p.seats: '012' is not a whole number in plain"],
    ),
    "hexadecimal": (pool("seats: 0x10"), ["4:12: pools.p.seats: '0x10' is not a whole number"]),
    "with underscores": (pool("seats: 1_0"), ["4:12: pools.p.seats: '1_0' is not a whole"]),
    "sexagesimal": (pool("seats: 1:30"), ["4:12: pools.p.seats: '1:30' is not a whole number"]),
    "no number at all": (pool("seats: .nan"), ["4:12: pools.p.seats: '.nan' is not a whole"]),
    "infinity": (pool("seats: .inf"), ["4:12: pools.p.seats: '.inf' is not a whole number"]),
    "an exponent": (pool("seats: 1e3"), ["4:12: pools.p.seats: '1e3' is not a whole number"]),
    "null": (pool("seats: ~"), ["4:12: pools.p.seats: '~' is not a whole number"]),
    "left empty": (pool("seats:"), ["4:11: pools.p.seats: what is left empty is not a whole"]),
    "too many seats": (
        pool("seats: 100001"),
        ["4:12: pools.p.seats: 100001 is not from 0 to 100000"],
    ),
    "a number of a million digits": (
        pool("seats: " + "9" * 500_000),
        [f"4:12: pools.p.seats: {'9' * 20} is not from 0 to 100000"],
    ),
    "negative seats": (pool("seats: -1"), ["4:12: pools.p.seats: -1 is not from 0 to 100000"]),
    "seats in a list": (
        pool("seats: [1]"),
        ["4:12: pools.p.seats: a list, where a whole number belongs"],
    ),
    "text that is a number": (
        pool("seats: 1", "description: 12"),
        ["5:18: pools.p.description: '12' is a number: put text in quotes"],
    ),
    "text that is true": (
        pool("seats: 1", "description: yes"),
        ["5:18: pools.p.description: 'yes' is true or false"],
    ),
    "text that is a date": (
        pool("seats: 1", "description: 2026-01-01"),
        ["5:18: pools.p.description: '2026-01-01' is a date"],
    ),
    "text that is nothing": (
        pool("seats: 1", "description:"),
        ["5:17: pools.p.description: what is left empty is nothing"],
    ),
    "text that is too long": (
        pool("seats: 1", f"description: {'x' * 501}"),
        ["5:18: pools.p.description: has over 500 characters"],
    ),
    "text that hides something": (
        pool("seats: 1", 'description: "a\\u202eb"'),
        ["5:18: pools.p.description: has characters that cannot be shown, such as U+202E"],
    ),
    "half a character": (
        pool("seats: 1", 'description: "\\ud800"'),
        ["5:"],
    ),
    "a half-life without projects": (
        pool("seats: 1", "usage_half_life: 60"),
        ["5:22: pools.p.usage_half_life: there are no `projects`"],
    ),
    "a half-life of no number": (
        SHARED + "      a: {}\n    usage_half_life: an hour\n",
        ["7:22: pools.p.usage_half_life: 'an hour' is no length of time, as 45m, 2h or 1d12h"],
    ),
    "a half-life that is too short": (
        SHARED + "      a: {}\n    usage_half_life: 0.5\n",
        ["7:22: pools.p.usage_half_life: 0.5 seconds are not from 1 to 7776000"],
    ),
    "a half-life that is too exact": (
        SHARED + "      a: {}\n    usage_half_life: 1.0000001\n",
        ["7:22: pools.p.usage_half_life: '1.0000001' is no length of time"],
    ),
    "projects as a list": (
        SHARED + "      - a\n",
        ["6:7: pools.p.projects: a list, where `pools.p.projects` is a mapping from names"],
    ),
    "a negative weight": (
        SHARED + "      a: {weight: -1}\n",
        ["6:19: pools.p.projects.a.weight: -1 is not from 1 to 1000"],
    ),
    "a guarantee above the capacity": (
        SHARED + "      a: {guaranteed: 11}\n",
        ["6:23: pools.p.projects.a.guaranteed: 11 is more than the pool has seats: 10"],
    ),
    "guarantees that sum to more": (
        SHARED + "      a: {guaranteed: 6}\n      b: {}\n      c: {guaranteed: 5}\n",
        ["8:23: pools.p.projects.c.guaranteed: guarantees sum to 11, more than the pool has"],
    ),
    "a limit under a guarantee": (
        SHARED + "      a: {guaranteed: 3, limit: 2}\n",
        ["6:33: pools.p.projects.a.limit: 2 is under the 3 guaranteed seats"],
    ),
    "parts that are guaranteed more": (
        SHARED + "      a: {guaranteed: 1}\n      b: {guaranteed: 2, parent: a}\n",
        ["6:23: pools.p.projects.a.guaranteed: its parts' guarantees sum to 2, over its own 1"],
    ),
    "a cycle of parents": (
        SHARED + "      a: {parent: b}\n      b: {parent: a}\n",
        [
            "6:19: pools.p.projects.a.parent: a is a part of itself: a in b in a",
            "7:19: pools.p.projects.b.parent: b is a part of itself: b in a in b",
        ],
    ),
    "a part of what is in a cycle": (
        SHARED + "      a: {parent: b}\n      b: {parent: b}\n",
        ["7:19: pools.p.projects.b.parent: b is a part of itself: b in b"],
    ),
    "an unknown parent": (
        SHARED + "      a: {parent: b}\n",
        ["6:19: pools.p.projects.a.parent: no project b is listed"],
    ),
    "a parent that is a number": (
        SHARED + "      1: {}\n      a: {parent: 1}\n",
        ["7:19: pools.p.projects.a.parent: '1' is a number: put the name in quotes"],
    ),
    "a tree that is too deep": (
        SHARED
        + "".join(f"      p{n}: {{parent: p{n - 1}}}\n" for n in range(1, 5))
        + "      p0: {}\n",
        ["9:20: pools.p.projects.p4.parent: p4 is more than 4 levels deep"],
    ),
    "too many projects": (
        SHARED + "".join(f"      p{n}: {{}}\n" for n in range(PROJECTS_MAX + 1)),
        ["6:7: pools.p.projects: 501 entries: at most 500"],
    ),
    "too many pools": (
        HEAD + "".join(f"  p{n}: {{seats: 1}}\n" for n in range(POOLS_MAX + 1)),
        ["3:3: pools: 1001 entries: at most 1000"],
    ),
    "an anchor and an alias": (
        HEAD + "  p: &a {seats: 1}\n  q: *a\n",
        ["3:6: the anchor &a", "4:6: the alias *a: write what it stands for"],
    ),
    "a bomb": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
        [
            *("1:4: the anchor &a", "2:4: the anchor &b", "3:4: the anchor &c"),
            *("2:8: the alias *a", "2:12: the alias *a", "3:8: the alias *b"),
            *("3:12: the alias *b", "1:1: the file needs", "1:1: the file needs"),
            *(f"{n}:1: the file has no key '{key}'" for n, key in enumerate("abc", start=1)),
        ],
    ),
    "a tag": (
        HEAD + "  p: !!python/object/apply:os.system {seats: 1}\n",
        ["3:6: the tag 'tag:yaml.org,2002:python/object/apply:os.system': leave it out"],
    ),
    "a tag of one's own": (pool("seats: !n 1"), ["4:12: the tag '!n': leave it out"]),
    "a merge key": (
        HEAD + "  p: {seats: 1, <<: {description: x}}\n",
        ["3:17: pools.p: the merge key <<: write what it stands for"],
    ),
    "two documents": (
        "version: 1\npools: {}\n---\nversion: 1\n",
        ["3:1: a second document: one file has one"],
    ),
    "a tab": (
        "version: 1\npools:\n\tp: {seats: 1}\n  q:\n  \tseats: 1\n",
        ["3:1: a tab: indent with blanks", "5:3: a tab: indent with blanks"],
    ),
    "a NUL byte": (
        b"version: 1\npools: {}\0\n",
        ["2:10: a character that cannot be seen: U+0000"],
    ),
    "a hidden character in a comment": (
        "version: 1 # \u202e\npools: {}\n",
        ["1:14: a character that cannot be seen: U+202E RIGHT-TO-LEFT OVERRIDE"],
    ),
    "a carriage return in a line": ("version: 1\rpools: {}\n", ["1:11: a carriage return"]),
    "Latin-1": (
        HEAD.encode() + b"  p: {seats: 1, description: \xe9}\n",
        ["3:30: the byte E9 is not UTF-8: save it as UTF-8"],
    ),
    "UTF-16": (HEAD.encode("utf-16"), ["1:1: the file is UTF-16: save it as UTF-8"]),
    "no YAML": (pool("seats: 1") + "  q: [1\n", ["6:1: not YAML: "]),
    "an indentation that fits nothing": (
        HEAD + "    p: {seats: 1}\n  q: {seats: 1}\n",
        ["4:3: not YAML: "],
    ),
    "deeper than it can be": (HEAD + "  p: [[[[[[[[1]]]]]]]]\n", ["3:12: more than 8 levels"]),
    "too large": (
        b"#" * (FILE_BYTES_MAX + 1),
        [f"1:1: the file has more than {FILE_BYTES_MAX} bytes"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_refused(name: str) -> None:
    text, wanted = BAD[name]
    found = faults(text)
    assert len(found) == len(wanted), found
    for said, expected in zip(sorted(found), sorted(wanted), strict=True):
        assert said.startswith(expected), said


def test_all_faults_are_listed_at_once_in_the_order_of_the_file() -> None:
    text = """\
version: 1
pools:
  a:
    seats: many
    describtion: x
  b: &b
    seats: 1
  c:
    seats: 2
    projects:
      x: {guaranteed: 3, weight: 0}
      y: {parent: z}
  d: {}
"""
    assert [said.split(" ")[0] for said in faults(text)] == [
        *("4:12:", "5:5:", "6:6:", "11:23:", "11:34:", "12:19:", "13:6:")
    ]


def test_what_follows_from_another_fault_is_not_listed() -> None:
    """Without its parent, which has another name, the sum of guarantees would be too large."""
    text = SHARED + "      a: {guaranteed: 10}\n      b: {guaranteed: 9, parnet: a}\n"
    assert faults(text) == [
        "7:26: pools.p.projects.b: a project has no key 'parnet': did you mean `parent`?"
    ]


@pytest.mark.parametrize(
    "lines",
    [
        [f"  p{n}: {{seets: {n}}}" for n in range(3_000)],
        [f"\tp{n}: 1" for n in range(3_000)],
        [f"  p{n}: &a{n} x" for n in range(3_000)],
        [f"  p{n}: &a{n} {{}}" for n in range(3_000)],
    ],
    ids=["keys", "tabs", "anchors", "anchors of mappings"],
)
def test_faults_without_end_have_a_bound(lines: list[str]) -> None:
    assert len(faults(HEAD + "\n".join(lines))) <= FAULTS_MAX


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "a: [", '"', "&a ", "!!x ", "|\n "])
def test_what_is_only_opened_is_refused_soon(opening: str) -> None:
    faults(HEAD + opening * 20_000)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "  p: {seats: 1}\n",
        "\ufeff" + HEAD + "  p: {seats: 1}\n",
        (HEAD + "  p: {seats: 1}\n").replace("\n", "\r\n"),
        "%YAML 1.2\n---\n" + HEAD + "  p: {seats: 1}\n...\n",
        '{"version": 1, "pools": {"p": {"seats": 1}}}',
        HEAD + "  'p': {seats: 1} # a tab\there\n",
    ],
    ids=["plain", "byte-order mark", "CRLF", "marked", "JSON", "tab"],
)
def test_a_file_that_is_well(text: str) -> None:
    found = read_pools(text.encode())
    assert found.faults == ()
    (spec,) = found.pools.values()
    assert (spec.name, spec.seats) == ("p", 1)
    assert spec.HasField("policy")


def test_everything_that_can_be_said() -> None:
    text = (
        SHARED
        + """\
      1: {}
      no: {guaranteed: 2, limit: 8, weight: 3, parent: "1"}
    description: |
      two lines are one
    usage_half_life: 3600.25
    overtaking: {seats: 4, within: 60, hold_back: 5m}
    reclaim: {notice: 2m, minimum_hold: 1h}
    hold: {longest: 1d12h, idle: 90.5, warning: 10m}
"""
    ).replace("|", ">-")
    found = read_pools(text.encode())
    assert found.faults == ()
    spec = found.pools["p"]
    assert spec.description == "two lines are one"
    assert [share.project for share in spec.policy.projects] == ["1", "no"]
    share = spec.policy.projects[1]
    assert (share.guaranteed, share.limit, share.weight, share.parent) == (2, 8, 3, "1")
    assert spec.policy.usage_half_life.ToTimedelta().total_seconds() == 3600.25
    overtaking = spec.policy.overtaking
    assert (overtaking.seats, overtaking.within.ToSeconds()) == (4, 60)
    assert overtaking.hold_back.ToSeconds() == 300
    reclaim = spec.policy.reclaim
    assert (reclaim.notice.ToSeconds(), reclaim.minimum_hold.ToSeconds()) == (120, 3600)
    hold = spec.policy.hold
    assert (hold.longest.ToSeconds(), hold.warning.ToSeconds()) == (129_600, 600)
    assert hold.idle.ToTimedelta().total_seconds() == 90.5


@pytest.mark.parametrize(
    ("overtaking", "expected"),
    [
        ("4", "5:17: pools.p.overtaking: '4', where overtaking is a mapping with the keys"),
        ("{seats: 4}", "5:17: pools.p.overtaking: overtaking needs `within`"),
        ("{seats: 0, within: 9}", "5:25: pools.p.overtaking.seats: 0 is not from 1 to"),
        (
            "{seats: 1, within: 9, hold_back: 0}",
            "5:50: pools.p.overtaking.hold_back: 0 seconds",
        ),
        (
            "{seats: 4, within: a minute}",
            "5:36: pools.p.overtaking.within: 'a minute' is no length of",
        ),
        (
            "{seats: 4, within: 9, for: 1}",
            "5:39: pools.p.overtaking: overtaking has no key 'for'",
        ),
    ],
)
def test_overtaking_that_cannot_be(overtaking: str, expected: str) -> None:
    (fault,) = faults(HEAD + f"  p:\n    seats: 1\n    overtaking: {overtaking}\n")
    assert fault.startswith(expected)


@pytest.mark.parametrize(
    ("hold", "expected"),
    [
        ("8h", "5:11: pools.p.hold: '8h', where hold is a mapping with the keys"),
        ("{longest: 8h}", "5:11: pools.p.hold: hold needs `warning`"),
        ("{warning: 10m}", "5:11: pools.p.hold: needs the longest hold, or after what"),
        (
            "{longest: 8 hours, warning: 1m}",
            "5:21: pools.p.hold.longest: '8 hours' is no length of time",
        ),
        ("{longest: 1s, warning: 1s}", "5:21: pools.p.hold.longest: '1s' is not from 2 s to"),
        ("{longest: 91d, warning: 1}", "5:21: pools.p.hold.longest: '91d' is not from 2 s to"),
        ("{longest: 60, warning: 1m}", "5:34: pools.p.hold.warning: 60 s is not less than the"),
    ],
)
def test_a_hold_that_cannot_be(hold: str, expected: str) -> None:
    (fault,) = faults(HEAD + f"  p:\n    seats: 1\n    hold: {hold}\n")
    assert fault.startswith(expected)


def test_a_closed_pool_keeps_its_guarantees() -> None:
    text = HEAD + "  p: {seats: 0, projects: {a: {guaranteed: 9}}}\n"
    assert read_pools(text.encode()).faults == ()


def keys() -> Iterator[str]:
    for table in (FILE, POOL, PROJECT):
        yield from table.fields


def test_the_definition_has_what_a_share_has() -> None:
    assert set(OVERTAKING.fields) == set(Overtaking.__dataclass_fields__)
    assert {"project", *PROJECT.fields} == set(ProjectShare.__dataclass_fields__)
    assert len(set(keys())) == len(list(keys()))


ACME = 'acme-2026: {seats: 16, from: "2026-01-01", until: 2026-12-31, price: "1250.50 EUR/seat-year"}'


def lots_file(*lots: str) -> bytes:
    lines = ["version: 1", "pools:", "  p:", "    seats: 4", "    lots:"]
    return "\n".join([*lines, *(f"      {lot}" for lot in lots)]).encode()


def test_lots_of_a_pool() -> None:
    found = read_pools(lots_file(ACME, "open: {seats: 2, owner: ml platform}"))
    assert found.faults == ()
    lots = found.pools["p"].lots
    assert (found.pools["p"].seats, lots.seats) == (4, 4)
    first, second = lots.lots
    assert first.begins_at.ToJsonString() == "2026-01-01T00:00:00Z"
    assert first.ends_at.ToJsonString() == "2027-01-01T00:00:00Z", "the whole of its last day"
    assert (first.price.amount, first.price.currency) == ("1250.50", "EUR")
    assert (second.seats, second.owner, second.HasField("ends_at")) == (2, "ml platform", False)


@pytest.mark.parametrize(
    ("lot", "expected"),
    [
        ("a: {seats: -1}", "6:18: pools.p.lots.a.seats: -1 is not from 1 to 100000"),
        ("a: {seats: 0}", "6:18: pools.p.lots.a.seats: 0 is not from 1 to 100000"),
        ("a: {}", "6:10: pools.p.lots.a: a lot needs `seats`"),
        (
            'a: {seats: 1, price: "-2 EUR/seat-year"}',
            "6:28: pools.p.lots.a.price: '-2' is not a decimal number from 0 on, with at most 12 "
            "digits, and 6 after the point",
        ),
        (
            "a: {seats: 1, price: 12}",
            "6:28: pools.p.lots.a.price: '12' is no price, as 1250.50 EUR/seat-year, or /seat-hour",
        ),
        (
            "a: {seats: 1, from: 2026-05-02, until: 2026-05-01}",
            "6:46: pools.p.lots.a.until: is not after `from`",
        ),
        (
            "a: {seats: 1, until: 31.12.2026}",
            "6:28: pools.p.lots.a.until: '31.12.2026' is no date: write a day, as 2026-12-31, or a "
            "time with its offset, as 2026-12-31T18:00:00Z",
        ),
        (
            'a: {seats: 1, until: "2026-12-31T18:00:00"}',
            "6:28: pools.p.lots.a.until: '2026-12-31T18:00:00' has no offset, so it is another moment "
            "in every place: add Z for UTC, or one as +01:00",
        ),
        (
            'a: {seats: 1, until: "2026-12-31T18:00 Europe/Berlin"}',
            "6:28: pools.p.lots.a.until: ' Europe/Berlin' is no offset from UTC, as Z or +01:00; names "
            "of zones are not read, because their rules change",
        ),
        (
            "a: {seats: 1, until: 2026-02-30}",
            "6:28: pools.p.lots.a.until: '2026-02-30' is not in the calendar: day is out of range "
            "for month",
        ),
        (
            "a: {seats: 1, until: [1]}",
            "6:28: pools.p.lots.a.until: a list, where a day or a time belongs",
        ),
        (
            "a: {seats: 1, untl: 2026-12-31}",
            "6:21: pools.p.lots.a: a lot has no key 'untl': did you mean `until`?",
        ),
    ],
)
def test_a_lot_that_is_refused(lot: str, expected: str) -> None:
    assert [str(fault) for fault in read_pools(lots_file(lot)).faults] == [expected]


def test_lots_together() -> None:
    (fault,) = read_pools(lots_file("a: {seats: 1}", "a: {seats: 1}")).faults
    assert "is there twice" in fault.reason
    (fault,) = read_pools(lots_file("a: {seats: 100000}")).faults
    assert (fault.line, fault.path) == (6, "pools.p.lots.a.seats")
    many = [f"lot-{n}: {{seats: 1}}" for n in range(33)]
    (fault,) = read_pools(lots_file(*many)).faults
    assert "33 entries: at most 32" in fault.reason


def test_for_how_long_seats_are_kept() -> None:
    rule = "{linger: 10m, resurrection: 90.5, lock_delay: 15}"
    found = read_pools((HEAD + f"  p:\n    seats: 1\n    stay: {rule}\n").encode())
    assert found.faults == ()
    said = found.pools["p"].policy.stay
    assert said.linger.ToSeconds() == 600
    assert said.resurrection.ToTimedelta().total_seconds() == 90.5
    assert said.lock_delay.ToSeconds() == 15


@pytest.mark.parametrize(
    ("stay", "expected"),
    [
        ("10m", "5:11: pools.p.stay: '10m', where stay is a mapping with the keys"),
        ("{}", "5:11: pools.p.stay: needs one of linger, resurrection, lock_delay"),
        ("{linger: 91d}", "5:20: pools.p.stay.linger: '91d' is not from 1 s to"),
        ("{resurrection: 2d}", "5:26: pools.p.stay.resurrection: '2d' is not from 1 s to"),
        ("{lock_delay: 0}", "5:24: pools.p.stay.lock_delay: 0 seconds are not from 1 to"),
        ("{lock-delay: 5}", "5:12: pools.p.stay: stay has no key 'lock-delay': did you mean"),
    ],
)
def test_seats_that_cannot_be_kept_so(stay: str, expected: str) -> None:
    (fault,) = faults(HEAD + f"  p:\n    seats: 1\n    stay: {stay}\n")
    assert fault.startswith(expected)
