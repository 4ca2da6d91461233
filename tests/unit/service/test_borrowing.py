"""``BorrowService`` over a socket: seats that leave with a machine, and come back."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.kit import POOL, eventually, uuid7
from tests.unit.service.test_engine_service import an_agent
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import (
    DEADLINE,
    STORE_KEYS,
    TTL,
    Services,
    Who,
    ref_of,
    refused,
    running_services,
)

from seatkeeper.core.errors import TokenExpired
from seatkeeper.core.jws import public_jwk, sign_jws
from seatkeeper.core.machine_statement import BORROW_KIND, RETURN_KIND, signed_statement
from seatkeeper.core.tokens import verify_token
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.v1 import borrow_service_pb2, seat_service_pb2
from seatkeeper.v1 import pool_service_pb2 as pb

DAY, SKEW = timedelta(days=1), timedelta(minutes=10)
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
DENIED = grpc.StatusCode.PERMISSION_DENIED
MACHINE, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ENVELOPE = timedelta(seconds=1)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with running_services(tmp_path) as services:
        await create(services, lending())
        yield services


def lending(seats: int = 2, most: int = 1, longest: timedelta = 30 * DAY) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.policy.borrow.seats = most
    wanted.policy.borrow.longest.FromTimedelta(longest)
    wanted.policy.borrow.skew.FromTimedelta(SKEW)
    return wanted


def signed(kind: str, number: int = 1, fence: int = 1, key: Ed25519PrivateKey = MACHINE) -> str:
    return signed_statement(key, kind, POOL, uuid7(number), fence)


def raw(key: Ed25519PrivateKey = MACHINE) -> bytes:
    return key.public_key().public_bytes_raw()


async def borrow(
    services: Services,
    who: Who,
    number: int = 1,
    length: timedelta = DAY,
    *,
    proof: str = "",
    key: Ed25519PrivateKey = MACHINE,
) -> borrow_service_pb2.BorrowGrantResponse:
    request = borrow_service_pb2.BorrowGrantRequest(
        credentials=who.credentials,
        grant=ref_of(number),
        machine_key=raw(key),
        proof=proof or signed(BORROW_KIND, number, number, key),
    )
    request.length.FromTimedelta(length)
    return await services.borrowing.BorrowGrant(request, timeout=DEADLINE)


async def give_back(
    services: Services, statement: str = "", number: int = 1
) -> borrow_service_pb2.ReturnGrantResponse:
    request = borrow_service_pb2.ReturnGrantRequest(
        pool=POOL,
        grant_id=uuid7(number),
        statement=statement or signed(RETURN_KIND, number, number),
    )
    return await services.borrowing.ReturnGrant(request, timeout=DEADLINE)


async def borrowed(services: Services, length: timedelta = DAY) -> str:
    """Have the machine borrow a seat; return its token."""
    who = await services.session()
    await services.acquire(who, 1)
    return (await borrow(services, who, length=length)).token


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == name]


async def close(services: Services, who: Who) -> None:
    request = seat_service_pb2.CloseSessionRequest(credentials=who.credentials)
    await services.seats.CloseSession(request, timeout=DEADLINE)


async def test_it_stays_borrowed_when_its_session_has_ended(services: Services) -> None:
    who = await services.session()
    await services.acquire(who, 1)
    answer = await borrow(services, who, length=3 * DAY)
    assert answer.grant.borrowed.machine == public_jwk(raw())["kid"]
    await close(services, who)
    services.pass_time(2 * DAY)
    pool = await services.look()
    assert (pool.held, pool.borrowed, pool.free) == (1, 1, 1)
    assert pool.grants[0].session_id == ""
    assert pool.grants[0].borrowed == answer.grant.borrowed


async def test_a_session_that_is_never_closed_takes_nothing_with_it(services: Services) -> None:
    await borrowed(services)
    services.pass_time(10 * TTL)
    assert (await services.look()).borrowed == 1


async def test_the_token_is_the_machines_until_the_day(services: Services) -> None:
    who = await services.session()
    await services.acquire(who, 1)
    answer = await borrow(services, who)
    now = datetime.fromtimestamp(services.clock.now() / 1000, UTC)
    claims = verify_token(answer.token, answer.jwks, pool=POOL, now=now)
    assert claims.machine == public_jwk(raw())["kid"]
    assert claims.certificate_sha256 is None
    assert claims.expires_at == answer.grant.borrowed.until.ToDatetime(UTC)
    with pytest.raises(TokenExpired):
        verify_token(answer.token, answer.jwks, now=now + DAY + timedelta(minutes=1))


async def test_the_key_is_published_for_as_long_as_the_token_lives(services: Services) -> None:
    """The node that signed it may be gone long before."""
    await borrowed(services)
    await services.store.revoke_lease(
        next(
            entry.lease_id
            for entry in (await services.store.list(STORE_KEYS.signing_keys())).entries
            if not entry.key.endswith(uuid7(1))
        )
    )
    listing = await services.store.list(STORE_KEYS.signing_keys())
    (kept,) = listing.entries
    left = await services.store.lease_remaining(kept.lease_id)
    assert left is not None
    assert DAY <= left <= DAY + SKEW + ENVELOPE
    assert isinstance(services.signer, TokenSigner)
    assert services.signer.kid in kept.key


@pytest.mark.parametrize(
    ("after", "held"),
    [(DAY - 2 * ENVELOPE, 1), (DAY + SKEW - 2 * ENVELOPE, 1), (DAY + SKEW, 0)],
)
async def test_it_is_free_at_its_day_and_skew(
    services: Services, after: timedelta, held: int, caplog: pytest.LogCaptureFixture
) -> None:
    await borrowed(services)
    with caplog.at_level(logging.INFO, "seatkeeper.events"):
        services.pass_time(after)
        who = await services.session()  # somebody uses the pool, so that it is looked at
        await services.acquire(who, 2)
        pool = await services.look()
    assert pool.borrowed == held
    assert len(events(caplog, "borrowed_seat_freed")) == 1 - held


async def test_it_is_free_though_no_client_uses_the_pool(services: Services) -> None:
    await borrowed(services)
    services.pass_time(DAY + SKEW)

    async def is_free() -> bool:
        return (await services.look()).held == 0

    await eventually(is_free, within=20)


async def test_its_machine_gives_it_back_and_again_changes_nothing(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    await borrowed(services)
    with caplog.at_level(logging.INFO, "seatkeeper.events"):
        answer = await give_back(services)
        assert answer.grant.grant_id == uuid7(1)
        assert (await services.look()).held == 0
        assert not (await give_back(services)).HasField("grant")
    assert len(events(caplog, "seat_returned")) == 1
    assert not events(caplog, "borrowed_seat_freed")


async def test_a_copy_of_the_request_that_comes_late_is_granted_nothing(
    services: Services,
) -> None:
    who = await services.session()
    await services.acquire(who, 1)
    await borrow(services, who)
    await give_back(services)
    failure = await refused(services.acquire(who, 1))
    assert failure.code is grpc.StatusCode.ABORTED


@pytest.mark.parametrize(
    "statement",
    [
        signed(RETURN_KIND, key=OTHER),
        signed(BORROW_KIND),
        signed(RETURN_KIND, fence=2),
        signed(RETURN_KIND, number=2),
        "no statement",
        sign_jws(json.dumps({}).encode(), MACHINE, kind=RETURN_KIND),
        sign_jws(b"[" * 500, MACHINE, kind=RETURN_KIND),
    ],
)
async def test_only_its_own_machine_gives_it_back(services: Services, statement: str) -> None:
    await borrowed(services)
    failure = await refused(give_back(services, statement))
    assert (failure.code, failure.reason) == (DENIED, "DENIAL_REASON_NOT_YOURS")
    assert (await services.look()).borrowed == 1


async def test_what_the_pool_does_not_allow_is_refused_by_name(services: Services) -> None:
    who = await services.session()
    await services.acquire(who, 1)
    failure = await refused(borrow(services, who, length=31 * DAY))
    assert (failure.code, failure.reason) == (PRECONDITION, "DENIAL_REASON_BORROW_REFUSED")
    assert failure.message.startswith("borrow.longest")
    await borrow(services, who)
    await services.acquire(who, 2)
    failure = await refused(borrow(services, who, 2))
    assert failure.message.startswith("borrow.seats")
    await update(services, _lends_none())
    failure = await refused(borrow(services, who, 2))
    assert failure.message.startswith("borrow.off")
    assert (await services.look()).borrowed == 1, "the rule takes no seat from a machine"


def _lends_none() -> pb.PoolSpec:
    wanted = spec(seats=2)
    wanted.policy.SetInParent()
    return wanted


async def test_only_the_session_that_holds_it_lends_it_and_with_the_machines_key(
    services: Services,
) -> None:
    who, other = await services.session(), await services.session()
    await services.acquire(who, 1)
    failure = await refused(borrow(services, other))
    assert failure.code is DENIED
    failure = await refused(borrow(services, who.impostor))
    assert failure.code is DENIED
    failure = await refused(borrow(services, who, proof=signed(BORROW_KIND, key=OTHER)))
    assert failure.fields == ["proof"]
    assert (await services.look()).borrowed == 0


async def test_asked_again_the_answer_is_the_same_day(services: Services) -> None:
    who = await services.session()
    await services.acquire(who, 1)
    first = await borrow(services, who)
    services.pass_time(ENVELOPE)
    again = await borrow(services, who)
    assert again.grant == first.grant
    failure = await refused(borrow(services, who, key=OTHER))
    assert failure.code is PRECONDITION


async def test_a_seat_that_a_session_holds_is_not_given_back_by_a_machine(
    services: Services,
) -> None:
    await services.acquire(await services.session(), 1)
    failure = await refused(give_back(services))
    assert failure.code is PRECONDITION
    assert (await services.look()).held == 1


async def test_the_session_releases_and_renews_nothing_of_it(services: Services) -> None:
    who = await services.session()
    await services.acquire(who, 1)
    await borrow(services, who)
    assert (await refused(services.release(who, 1))).code is DENIED
    renew = seat_service_pb2.Renew(tokens_for=[ref_of(1)])
    request = seat_service_pb2.RenewRequest(credentials=who.credentials, renew=renew)
    answer = await services.seats.Renew(request, timeout=DEADLINE)
    assert not answer.renewed.tokens
    assert (await services.look()).borrowed == 1


async def test_an_agent_works_under_no_borrowed_seat(services: Services) -> None:
    who = await services.session()
    token = (await services.acquire(who, 1)).token
    agent = await an_agent(services)
    claim = await agent.claim(token)
    failure = await refused(borrow(services, who))
    assert failure.message.startswith("borrow.in_use")
    await agent.give_up(1)
    await claim.end()
    await borrow(services, who)
    failure = await refused(agent.claim(token))
    assert "borrowed" in failure.message
    assert (await services.look()).grants[0].agent_id == ""


async def test_an_administrator_frees_it_at_once_and_cannot_warn_its_machine(
    services: Services,
) -> None:
    await borrowed(services)
    warn = pb.RevokeGrantRequest(pool=POOL, grant_id=uuid7(1), reason="lost")
    warn.notice.FromTimedelta(timedelta(minutes=1))
    failure = await refused(services.pools.RevokeGrant(warn, timeout=DEADLINE))
    assert failure.code is PRECONDITION
    assert "borrowed" in failure.message
    free = pb.ReleaseGrantRequest(pool=POOL, grant_id=uuid7(1), reason="lost", now=True)
    await services.pools.ReleaseGrant(free, timeout=DEADLINE)
    assert (await services.look()).held == 0
    assert not (await give_back(services)).HasField("grant")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("longest", timedelta(0)),
        ("longest", timedelta(days=400)),
        ("skew", timedelta(days=2)),
        ("seats", -1),
        ("low_water", 200_000),
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused(
    services: Services, field: str, value: timedelta | int
) -> None:
    wanted = lending()
    if isinstance(value, timedelta):
        getattr(wanted.policy.borrow, field).FromTimedelta(value)
    else:
        setattr(wanted.policy.borrow, field, value)
    failure = await refused(update(services, wanted))
    assert failure.fields == [f"spec.policy.borrow.{field}"]
