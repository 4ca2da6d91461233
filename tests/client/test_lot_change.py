"""What becomes of a pool's lots when some are given and some are taken out."""

from __future__ import annotations

import pytest

from seatkeeper.client.admin.lots import LotChange, change_lots
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb


def a_lot(name: str, *, burst: bool = False, ended: bool = False) -> pb.Lot:
    return pb.Lot(
        name=name,
        seats=2,
        kind=pb.LOT_KIND_BURST if burst else pb.LOT_KIND_BASE,
        state=pb.LOT_STATE_ENDED if ended else pb.LOT_STATE_IN_FORCE,
    )


def a_pool(*lots: pb.Lot) -> pb.PoolSpec:
    return pb.PoolSpec(name="p", seats=4, lots=pb.PoolLots(lots=lots, seats=1))


def names(spec: pb.PoolSpec) -> list[str]:
    return [lot.name for lot in spec.lots.lots]


def test_a_burst_forgets_bursts_that_have_ended_and_a_contract_all_that_has() -> None:
    """A burst leaves the pool's file as it is, and what guarantees are bounded by."""
    ended = a_lot("acme", ended=True), a_lot("b", burst=True, ended=True)
    spec = a_pool(*ended, a_lot("live", burst=True))
    change_lots(spec, LotChange([a_lot("more", burst=True)]))
    assert names(spec) == ["acme", "live", "more"]
    change_lots(spec, LotChange([a_lot("next")]))
    assert names(spec) == ["live", "more", "next"]
    assert (spec.seats, spec.lots.seats) == (1, 1)


@pytest.mark.parametrize("ended", [False, True])
def test_a_burst_takes_no_name_of_a_contract(ended: bool) -> None:
    spec = a_pool(a_lot("acme", ended=ended))
    with pytest.raises(InvalidArgument, match="has a contract acme: take another name"):
        change_lots(spec, LotChange([a_lot("acme", burst=True)]))


def test_a_contract_ends_no_burst_by_taking_its_name() -> None:
    spec = a_pool(a_lot("b", burst=True))
    with pytest.raises(InvalidArgument, match="has a burst b: stop it first"):
        change_lots(spec, LotChange([a_lot("b")]))
    assert names(spec) == ["b"]
    change_lots(spec, LotChange([a_lot("b")], without=["b"]))
    ended = a_pool(a_lot("b", burst=True, ended=True))
    change_lots(ended, LotChange([a_lot("b")]))
    assert [lot.kind for each in (spec, ended) for lot in each.lots.lots] == [
        pb.LOT_KIND_BASE
    ] * 2
