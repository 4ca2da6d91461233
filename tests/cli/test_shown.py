"""Whatever comes from outside reaches a terminal escaped, in every view, and is no markup there."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.progress import Progress
from tests.cli.commands import in_process

from seatkeeper.cli import build as build_command
from seatkeeper.cli import render, views, waiting
from seatkeeper.cli.doctor import _table as findings_table
from seatkeeper.cli.encoding import as_json
from seatkeeper.cli.exits import Exit, fail, fail_in_json
from seatkeeper.cli.failures import explain
from seatkeeper.cli.status import OnePool, Overview, Silence
from seatkeeper.client.diagnosis.diagnosis import Seen, diagnose
from seatkeeper.client.session.requests import EstimateBasis, QueuePosition
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.text import hidden_in
from seatkeeper.v1 import build_pb2, build_service_pb2, cluster_service_pb2, pool_service_pb2

CLI = Path(render.__file__).parent
NASTY = "[red]a\x1b]0;owned\x07\x00\x9b2J\u202e\u2066\u200b\u2028b\nc\rd[/red][/nothing]"
ENTRIES = 2


def filled(message: Message) -> Any:
    """Put the same text into every field of text, however deep."""
    given: Any = message
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            if field.is_repeated:
                getattr(given, field.name).append(NASTY)
            else:
                setattr(given, field.name, NASTY)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(given, field.name)[NASTY] = NASTY  # of text to text
        elif field.message_type is not None and field.is_repeated:
            for _ in range(ENTRIES):
                filled(getattr(given, field.name).add())
        elif field.message_type is not None:
            getattr(given, field.name).SetInParent()
            filled(getattr(given, field.name))
    return given


POOL = filled(pool_service_pb2.Pool())
REPORT = filled(cluster_service_pb2.GetReportResponse())
NODE = filled(cluster_service_pb2.Node())
AGENT = filled(build_service_pb2.AgentInfo())
MANIFEST = filled(build_pb2.EngineManifest())


def answering() -> cluster_service_pb2.GetReportResponse:
    """The same of nodes that answer, of a store that is etcd."""
    report = cluster_service_pb2.GetReportResponse()
    report.CopyFrom(REPORT)
    for node in report.nodes:
        node.failure = ""
    report.store.kind = "etcd"
    for member in report.store.members:
        member.failure = ""
    return report


def findings() -> RenderableType:
    seen = [
        Seen(
            report=report,
            here=datetime.now(UTC),
            took=timedelta(0),
            given=[NASTY],
            unreached={NASTY: NASTY},
            agents=[AGENT],
            pools=[POOL],
        )
        for report in (REPORT, answering())
    ]
    return findings_table([finding for each in seen for finding in diagnose(each)])


VIEWS: dict[str, Callable[[], RenderableType]] = {
    "nodes": lambda: views.nodes_table([NODE]),
    "reports": lambda: views.reports_view(REPORT.nodes),
    "reports of those that answer": lambda: views.reports_view(answering().nodes),
    "store": lambda: views.store_view(REPORT.store),
    "store of etcd": lambda: views.store_view(answering().store),
    "agents": lambda: views.agents_table([AGENT]),
    "builds": lambda: views.builds_table([AGENT]),
    "pools": lambda: views.pools_table([POOL]),
    "grants": lambda: views.grants_table(POOL),
    "queue": lambda: views.queue_table(POOL),
    "engine": lambda: render.facts(render.engine_facts(MANIFEST)),
    "status": lambda: Overview(answering(), (AGENT,), (POOL,)).view(),
    "status of one pool": lambda: OnePool(POOL).view(),
    "silence": lambda: Silence(NASTY).view(),
    "doctor": findings,
    "words": lambda: render.words(NASTY),
}


@pytest.mark.parametrize("name", VIEWS)
def test_no_view_writes_what_comes_from_outside_as_it_is(name: str) -> None:
    out = io.StringIO()
    # As on a terminal, where markup and escapes would be obeyed; without colours of rich's own.
    console = Console(
        file=out, force_terminal=True, color_system=None, width=4000, markup=False
    )
    console.print(VIEWS[name]())
    written = out.getvalue()
    assert [hidden_in(line) for line in written.split("\n") if hidden_in(line)] == []
    assert "[red]a\\x1b]0;owned" in written or name in ("store", "reports of those that answer")
    assert r"\x1b" in written


def test_an_estimate_is_shown_with_its_interval() -> None:
    minute = timedelta(minutes=1)
    basis = EstimateBasis(holds=20, hold_median=minute, holders=3, holders_overdue=0)
    place = QueuePosition(2, 2 * minute, basis, between=(minute, 5 * minute))
    assert waiting.outlook(place) == (
        ", about 2 min 0 s to go, 1 min 0 s to 5 min 0 s in 4 of 5 (by the last 20 holds, median "
        "1 min 0 s)"
    )
    assert waiting.queued_event(place)["estimate_between_seconds"] == [60.0, 300.0]


@pytest.mark.parametrize(
    "as_what", ["said", "lines", "failed", "explained", "waiting", "build"]
)
def test_no_line_does_so_either(as_what: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = QueuePosition(1, None)
    match as_what:
        case "said":
            render.say(NASTY)
        case "lines":
            for line in [*OnePool(POOL).lines(), *Overview(REPORT, (), (POOL,)).lines()]:
                render.say(line)
        case "failed":
            with pytest.raises(SystemExit):
                fail(Exit.FAILED, NASTY)
        case "explained":
            explained = explain(InvalidArgument(NASTY))
            assert explained is not None
            with pytest.raises(SystemExit):
                fail(*explained)
        case "waiting":
            waiting.Waiting(NASTY).queued(place)
            waiting.Waiting("a").queued(replace(place, pool=NASTY))
        case "build":
            screen = build_command._Screen(NASTY, as_json=False)
            screen.queued(place)
            screen.stderr_tail(NASTY)
            screen.progress(build_service_pb2.BuildProgress(step=NASTY))
    said = capsys.readouterr()
    written = said.out + said.err
    assert r"\x1b" in written
    assert hidden_in(written.replace("\n", "")) == ""


def test_markup_in_the_name_of_a_model_is_no_markup() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=200)
    for column in build_command.columns():
        progress = Progress(column, console=console)
        progress.add_task("[red]model[/nothing]", steps="[/]")
        console.print(progress.make_tasks_table(progress.tasks))
    assert "[red]model[/nothing]" in out.getvalue()


def test_json_is_ascii_and_the_same_text_again(capsys: pytest.CaptureFixture[str]) -> None:
    reported = render.pool_json(POOL, details=True)
    render.write_json(reported)
    render.write_event(reported)
    said = capsys.readouterr()
    for written in (said.out, said.err):
        assert written.isascii()
        assert hidden_in(written.rstrip("\n")) == ""
        assert json.loads(written) == reported
    assert json.loads(as_json("out\udce9")) == "out\udce9"
    fail_in_json(True)
    try:
        with pytest.raises(SystemExit):
            fail(Exit.FAILED, NASTY)
    finally:
        fail_in_json(False)
    assert json.loads(capsys.readouterr().err)["error"] == NASTY


def test_a_command_that_wrote_json_leaves_the_next_in_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = in_process("pool", "create", "no name", "--seats", "x", "--json")
    assert json.loads(ended.err)["event"] == "failed"
    with pytest.raises(SystemExit):
        fail(Exit.FAILED, "no more")
    assert capsys.readouterr().err == "seatkeeper: no more\n"


SHOWERS = {"render", "exits", "encoding", "app", "run_report", "waiting"}
"""Modules that write by themselves; the others have `say`, `show`, `write_json` and `fail` for it."""


@pytest.mark.parametrize("file", sorted(CLI.rglob("*.py")), ids=lambda file: file.stem)
def test_all_output_is_escaped(file: Path) -> None:
    if file.stem in SHOWERS:
        pytest.skip("tried above, and by the tests of its own")
    tree = ast.parse(file.read_text("utf-8"))
    prints = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (node.func.id == "print" or (node.func.id == "Text" and node.args))
        and "as_json" not in ast.unparse(node)
    ]
    assert prints == [], "use say or words of seatkeeper.cli.render"


def test_a_pool_without_seats_is_shown_as_closed() -> None:
    pool = pool_service_pb2.Pool(spec=pool_service_pb2.PoolSpec(name="p", seats=0), queued=2)
    out = io.StringIO()
    Console(file=out, width=200).print(views.pools_table([pool]))
    assert "closed" in out.getvalue()


def test_a_phase_that_is_newer_than_this_version_is_shown_by_its_number() -> None:
    info = build_service_pb2.AgentInfo(agent_id="a")
    info.load.builds.add(phase=99)
    assert render.agent_json(info)["load"]["builds"][0]["phase"] == "99"
    assert render.phase_of(build_service_pb2.BUILD_PHASE_BUILDING) == "building"
