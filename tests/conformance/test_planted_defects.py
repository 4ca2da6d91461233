"""Break a promise on purpose, and see that a script notices.

A script that passes whatever the server does would prove nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.conformance.client_runner import run_client
from tests.conformance.planted_client import DEFECTS
from tests.conformance.script import Result, Script, scripts
from tests.conformance.server_runner import Target, run_script

from seatkeeper.core.serving.failure import Failure
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.decide import draft, serving
from seatkeeper.server.domain import completed as finished
from seatkeeper.server.node import Node
from seatkeeper.server.service import event_encoder
from seatkeeper.server.service import seat_api as core
from seatkeeper.server.sessions import sessions
from seatkeeper.server.tokens import signer as tokens

SERVER = {script.name: script for script in scripts("server")}
CLIENT = {script.name: script for script in scripts("client")}
Patch = pytest.MonkeyPatch


def same_fence(patch: Patch) -> None:
    fill = core.Core.fill_granted

    def always_one(self: Any, granted: Any, *arguments: Any, **options: Any) -> None:
        fill(self, granted, *arguments, **options)
        granted.fence = 1

    patch.setattr(core.Core, "fill_granted", always_one)


def any_secret(patch: Patch) -> None:
    patch.setattr(sessions, "_check_owner", lambda *_: None)


def no_memory_of_ids(patch: Patch) -> None:
    patch.setattr(finished.CompletedIds, "contains", lambda *_: False)


def token_of_another_pool(patch: Patch) -> None:
    sign = tokens.TokenSigner.sign
    patch.setattr(
        tokens.TokenSigner, "sign", lambda self, pool, *a, **k: sign(self, "other", *a, **k)
    )


def token_with_unknown_key(patch: Patch) -> None:
    sign = tokens.TokenSigner.sign

    def forged(*arguments: Any, **named: Any) -> str:
        head, _, signature = sign(*arguments, **named).rpartition(".")
        return f"{head}.{signature[::-1]}"

    patch.setattr(tokens.TokenSigner, "sign", forged)


def a_seat_too_many(patch: Patch) -> None:
    snapshot = draft.snapshot

    def generous(made: Any) -> Any:
        pool = snapshot(made)
        return replace(pool, free=pool.free + 1)

    patch.setattr(serving, "snapshot", generous)


def no_details(patch: Patch) -> None:
    notify = Failure.notify

    async def bare(self: Failure, context: Any) -> None:
        self.details = ()
        await notify(self, context)

    patch.setattr(Failure, "notify", bare)


def releases_are_not_answered(patch: Patch) -> None:
    fill = event_encoder.EventEncoder.fill

    def silent(self: Any, event: Any, session: Any, item: Any) -> None:
        fill(self, event, session, item)
        if event.WhichOneof("event") == "released":
            event.Clear()

    patch.setattr(event_encoder.EventEncoder, "fill", silent)


def renewals_keep_nothing_alive(patch: Patch) -> None:
    async def without_renewal(_: Any, session: sessions.Session) -> Any:
        return session.ttl

    patch.setattr(sessions.Sessions, "renew", without_renewal)


@asynccontextmanager
async def a_node() -> AsyncIterator[Target]:
    config = NodeConfig(node_id="planted", listen="127.0.0.1:0", store="memory", stop_grace=0.5)
    node = await Node.start(config)
    try:
        yield Target((node.address,))
    finally:
        await node.stop()


@pytest.mark.parametrize(
    ("plant", "script"),
    [
        (same_fence, "queue-order"),
        (any_secret, "session-wrong-secret"),
        (no_memory_of_ids, "id-released-is-spent"),
        (token_of_another_pool, "acquire-grants"),
        (token_with_unknown_key, "acquire-grants"),
        (a_seat_too_many, "capacity-is-kept"),
        (no_details, "acquire-no-wait"),
        (releases_are_not_answered, "stream-release-of-nothing"),
        (renewals_keep_nothing_alive, "what-renews"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_script_notices_what_a_server_does_wrong(
    plant: Callable[[Patch], None], script: str, monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    # What is to be seen is seen at once; what never comes is not waited for so long.
    monkeypatch.setattr("tests.conformance.server_runner.CALL_SECONDS", 5.0)
    async with a_node() as target:
        result = await run_script(target, SERVER[script])
    assert not result.ok, f"{script} passed all the same"
    assert result.step > 1, result.line()


CLIENTS = (
    ("believes_any_answer", "old-answers-extend-nothing"),
    ("asks_anew_after_a_break", "broken-stream-same-id"),
    ("opens_anew_after_a_break", "resumes-and-keeps"),
    ("takes_the_transport_for_a_denial", "transport-resource-exhausted-is-no-denial"),
    ("stays_after_go_away", "go-away-moves-on"),
    ("stays_where_it_is_denied", "unavailable-moves-on"),
    ("moves_after_every_denial", "unavailable-everywhere-stays"),
    ("takes_any_denial_for_a_release", "release-put-off-is-repeated"),
    ("keeps_unwanted_grants", "unwanted-grant-is-returned"),
    ("numbers_nothing", "renews-in-time"),
    ("uses_random_ids", "fresh-ids"),
)
AT_ONCE = 4


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """What became of each defective client. Several at once: they wait for what never comes."""
    with Patch.context() as patch:
        patch.setattr("tests.conformance.client_runner.STEP_SECONDS", 8.0)
        return asyncio.run(_try_clients())


async def _try_clients() -> dict[str, Result]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(defect: str, script: str) -> Result:
        command = [sys.executable, "-m", "tests.conformance.planted_client", defect]
        async with gate:
            return await run_client(command, _with_short_waits(CLIENT[script]))

    done = await asyncio.gather(*(one(*each) for each in CLIENTS))
    return {defect: result for (defect, _), result in zip(CLIENTS, done, strict=True)}


@pytest.mark.parametrize(("defect", "script"), CLIENTS)
def test_a_script_notices_what_a_client_does_wrong(
    defect: str, script: str, results: dict[str, Result]
) -> None:
    assert not results[defect].ok, f"{script} passed all the same"
    assert results[defect].step > 1, results[defect].line()


def _with_short_waits(script: Script) -> Script:
    """Wait less for what a broken client never does."""
    steps = [
        {**s, "within": min(s["within"], 12)} if "within" in s else s for s in script.steps
    ]
    return Script(
        script.name, script.side, script.title, script.covers, tuple(steps), script.nodes
    )


def test_every_planted_defect_of_the_client_is_tried() -> None:
    assert {defect for defect, _ in CLIENTS} == DEFECTS.keys()
