"""``BorrowService``: seats that leave with machines, and come back."""

from __future__ import annotations

from datetime import timedelta

import grpc

from seatkeeper.core.jws import public_jwk
from seatkeeper.core.machine_statement import BORROW_KIND, RETURN_KIND, is_signed
from seatkeeper.core.serving.call_origin import peer_of_call
from seatkeeper.core.serving.failure import Context, Failure
from seatkeeper.core.validate import Malformed
from seatkeeper.server.domain import BorrowGrant, Grant, Noted, Refusal, ReturnGrant
from seatkeeper.server.domain.borrow import NO_SESSION
from seatkeeper.server.events import log as events
from seatkeeper.server.identity.peer import identity_of
from seatkeeper.server.pool.admin import PoolError, Pools, PoolView
from seatkeeper.server.pool.messages import grant_message
from seatkeeper.server.pool.requests import RequestDiffers, RequestNotFound, Requests, grant_in
from seatkeeper.server.service.failures import answers
from seatkeeper.server.service.pool_failures import failure
from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.tokens.verification_keys import VerificationKeys
from seatkeeper.server.wire.borrowing import (
    check_borrow_request,
    check_return_request,
)
from seatkeeper.server.wire.denials import denial_info
from seatkeeper.v1 import borrow_service_pb2, borrow_service_pb2_grpc

NOT_SIGNED = "the machine of this key has not signed this of the grant"
MILLI = timedelta(milliseconds=1)


class BorrowService(borrow_service_pb2_grpc.BorrowServiceServicer):
    """Lends seats to machines, and takes them back."""

    def __init__(self, core: Core, pools: Pools, keys: VerificationKeys) -> None:
        self._core = core
        self._pools = pools
        self._keys = keys
        self._requests = Requests(pools, core.seats)

    @answers
    async def BorrowGrant(
        self, request: borrow_service_pb2.BorrowGrantRequest, context: Context
    ) -> borrow_service_pb2.BorrowGrantResponse:
        """Give a session's grant to a machine, and sign a token for it."""
        length = check_borrow_request(request)
        session = await self._core.sessions.find(request.credentials, identity_of(context).name)
        pool, grant_id, key = request.grant.pool, request.grant.grant_id, request.machine_key
        try:
            found = grant_in(await self._pools.read(pool), grant_id)
            said = {"pool": pool, "grant_id": grant_id}
            if not is_signed(request.proof, key, BORROW_KIND, **said, fence=found.fence):
                raise Malformed("proof", NOT_SIGNED)
            if found.session_id not in (session.session_id, NO_SESSION):
                raise _not_yours("the grant belongs to another session")
            machine = public_jwk(key)["kid"]
            command = BorrowGrant(
                *(grant_id, session.session_id, found.fence, length, key, machine)
            )
            outcome = await self._requests.decided(pool, command, peer_of_call(context))
        except PoolError as error:
            raise failure(pool, error, grant_id) from error
        assert isinstance(outcome, Noted)
        if found.borrow is None:
            events.happened("seat_borrowed", **_about(pool, outcome.grant, context))
        return await self._answer(pool, outcome.grant)

    async def _answer(self, pool: str, grant: Grant) -> borrow_service_pb2.BorrowGrantResponse:
        borrow, now = grant.borrow, self._core.clock.now()
        assert borrow is not None
        signer = self._core.signer
        # Before the token is anywhere: who has it finds the key.
        lives = (borrow.free_at - now) * MILLI
        await self._keys.keep(signer.kid, signer.jwk_json, grant.grant_id, lives)
        token = signer.sign(
            pool, grant, issued_at=now, expires_at=borrow.until, machine=borrow.machine
        )
        return borrow_service_pb2.BorrowGrantResponse(
            grant=grant_message(grant), token=token, jwks=await self._keys.jwks()
        )

    @answers
    async def ReturnGrant(
        self, request: borrow_service_pb2.ReturnGrantRequest, context: Context
    ) -> borrow_service_pb2.ReturnGrantResponse:
        """Take borrowed seats back from their machine."""
        check_return_request(request)
        pool, grant_id = request.pool, request.grant_id
        response = borrow_service_pb2.ReturnGrantResponse()
        try:
            view = await self._pools.read(pool)
            if (found := _held(view, grant_id)) is None:
                return response
            if found.borrow is None:
                raise RequestDiffers(f"grant {grant_id} of pool {pool} is not borrowed")
            said, key = {"pool": pool, "grant_id": grant_id}, found.borrow.machine_key
            if not is_signed(request.statement, key, RETURN_KIND, **said, fence=found.fence):
                raise _not_yours(NOT_SIGNED)
            command = ReturnGrant(grant_id, NO_SESSION, found.fence)
            await self._requests.decided(pool, command, peer_of_call(context))
        except PoolError as error:
            raise failure(pool, error, grant_id) from error
        events.happened("seat_returned", **_about(pool, found, context))
        response.grant.CopyFrom(grant_message(found))
        return response


def _held(view: PoolView, grant_id: str) -> Grant | None:
    try:
        return grant_in(view, grant_id)
    except RequestNotFound:
        return None


def _not_yours(message: str) -> Failure:
    info = denial_info(Refusal.NOT_YOURS)
    return Failure(grpc.StatusCode.PERMISSION_DENIED, message, info)


def _about(pool: str, grant: Grant, context: Context) -> dict[str, object]:
    borrow = grant.borrow
    assert borrow is not None
    return {
        "pool": pool,
        "grant_id": grant.grant_id,
        "holder": grant.holder,
        "project": grant.project,
        "seats": grant.seats,
        "fence": grant.fence,
        "machine": borrow.machine,
        "until_millis": borrow.until,
        "free_at_millis": borrow.free_at,
        "peer": peer_of_call(context),
    }
