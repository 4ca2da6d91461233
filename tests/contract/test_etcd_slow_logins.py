"""A login that takes longer than the call that asked for it: it is finished, and used by the next."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store import StoreUnavailable
from seatkeeper.server.store.etcd import EtcdConfig
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.endpoint import Endpoint

CONFIG = EtcdConfig(endpoints=("127.0.0.1:1",), username="node", password="hush")


class SlowMember:
    """A member that answers a login when it is let to."""

    def __init__(self, address: str = "one") -> None:
        self.address = address
        self.asked = 0
        self.answer = asyncio.Event()

    def unary(self, method: object) -> Any:
        async def log_in(request: object, **_: object) -> pb.AuthenticateResponse:
            self.asked += 1
            await self.answer.wait()
            return pb.AuthenticateResponse(token=f"{self.address}.{self.asked}")

        return log_in


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.01


def in_time() -> float:
    return asyncio.get_running_loop().time() + 20


def at(member: SlowMember) -> Endpoint:
    return cast("Endpoint", member)


async def test_a_login_that_outlasts_its_caller_is_not_asked_for_again() -> None:
    member, credentials = SlowMember(), Credentials(CONFIG)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="no token in time"):
            await credentials.fetch(at(member), soon())
    assert member.asked == 1
    waiting = asyncio.create_task(credentials.fetch(at(member), in_time()))
    member.answer.set()
    assert ("token", "one.1") in list(await waiting)
    assert credentials.metadata is await waiting
    assert (await credentials.fetch(at(member), soon())) is credentials.metadata
    assert member.asked == 1


async def test_another_member_is_asked_meanwhile_and_the_first_answer_is_used() -> None:
    slow, other, credentials = SlowMember(), SlowMember("two"), Credentials(CONFIG)
    with pytest.raises(StoreUnavailable):
        await credentials.fetch(at(slow), soon())
    other.answer.set()
    found = await credentials.fetch(at(other), in_time())
    assert ("token", "two.1") in list(found)
    slow.answer.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert credentials.metadata is found


async def test_a_refused_token_is_replaced_once_for_all_who_had_it() -> None:
    member, credentials = SlowMember(), Credentials(CONFIG)
    member.answer.set()
    first = await credentials.fetch(at(member), in_time())
    again = await asyncio.gather(
        *(credentials.fetch(at(member), in_time(), instead_of=first) for _ in range(5))
    )
    assert {id(each) for each in again} == {id(credentials.metadata)}
    assert ("token", "one.2") in list(again[0])
    assert member.asked == 2
