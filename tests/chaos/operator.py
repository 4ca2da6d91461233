"""What etcd's operator does by hand, with etcd's own tool; and what only its network interface can."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio

from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdProcess
from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store import StoreMember
from seatkeeper.server.store.etcd import EtcdStore
from seatkeeper.server.store.etcd.calls import ALARM, AUTHENTICATE, STATUS, Method, Req, Resp

SECONDS_MAX = 20.0
POLL_SECONDS = 0.2


class Operator:
    """Etcd's root."""

    def __init__(self, program: Path, etcd: EtcdCluster, store: EtcdStore) -> None:
        self._ctl = program.parent / "etcdctl"
        self._etcd = etcd
        self._store = store

    async def run(self, *words: str) -> None:
        """Run ``etcdctl``; one that fails is tried again for a while. Raises ``TimeoutError``."""
        async with asyncio.timeout(SECONDS_MAX):
            while not await self._try(*words, at=",".join(self._etcd.endpoints)):
                await asyncio.sleep(POLL_SECONDS)

    async def leader(self) -> EtcdProcess:
        """Return the member that leads. Raises ``TimeoutError``."""
        return await self._member(leads=True)

    async def follower(self) -> EtcdProcess:
        """Return a member that does not. Raises ``TimeoutError``."""
        return await self._member(leads=False)

    async def raise_alarm(self) -> None:
        """Say that a member's database is full, as it says itself when it is."""
        await self._alarm(pb.AlarmRequest.ACTIVATE)

    async def end_alarm(self) -> None:
        """Say that there is room again."""
        await self.run("alarm", "disarm")

    async def move_leader(self) -> str:
        """Have another member lead; return its name."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                leader, follower = await self.leader(), await self.follower()
                status = await self._call(follower.endpoint, STATUS, pb.StatusRequest())
                member = f"{status.header.member_id:x}"
                # It may have stopped leading since it was asked.
                if await self._try("move-leader", member, at=leader.endpoint):
                    return follower.name

    async def _try(self, *words: str, at: str) -> bool:
        process = await asyncio.create_subprocess_exec(
            *(str(self._ctl), f"--endpoints={at}", "--user=root:secret", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait() == 0

    async def _alarm(self, action: pb.AlarmRequest.AlarmAction.ValueType) -> None:
        endpoint = (await self.leader()).endpoint
        status = await self._call(endpoint, STATUS, pb.StatusRequest())
        request = pb.AlarmRequest(
            action=action, member_id=status.header.member_id, alarm=pb.NOSPACE
        )
        await self._call(endpoint, ALARM, request)

    async def _member(self, *, leads: bool) -> EtcdProcess:
        by_endpoint = {member.endpoint: member for member in self._etcd.members}
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                seen: list[StoreMember] = list((await self._store.health()).members)
                for each in seen:
                    if not each.failure and each.is_leader is leads:
                        return by_endpoint[each.endpoint]
                await asyncio.sleep(POLL_SECONDS)

    async def _call(self, endpoint: str, method: Method[Req, Resp], request: Req) -> Resp:
        async with grpc.aio.insecure_channel(endpoint) as channel:
            who = pb.AuthenticateRequest(name="root", password="secret")
            token = (await _send(channel, AUTHENTICATE, who, ())).token
            return await _send(channel, method, request, (("token", token),))


async def _send(
    channel: grpc.aio.Channel,
    method: Method[Req, Resp],
    request: Req,
    metadata: tuple[tuple[str, str], ...],
) -> Resp:
    call: grpc.aio.UnaryUnaryMultiCallable[Req, Resp] = channel.unary_unary(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    return await call(request, timeout=SECONDS_MAX, metadata=metadata)
