"""What the benchmark reads of a load generator's report, and what it refuses to count."""

from __future__ import annotations

import pytest
from bench.limit import framed, guarded_put, read_report

from seatkeeper.etcd.v3 import etcd_pb2 as pb

REPORT = """\
finished in 1.50s, 13300.67 req/s, 2.91MB/s
requests: 19951 total, 20015 started, 19951 done, {counts}, 0 timeout
status codes: 19951 2xx, 0 3xx, 0 4xx, 0 5xx
"""


def test_rate_and_number_are_read() -> None:
    report = REPORT.format(counts="19951 succeeded, 0 failed, 0 errored")
    assert read_report(report) == (13300.67, 19951)


@pytest.mark.parametrize(
    "counts",
    [
        "19950 succeeded, 1 failed, 0 errored",
        "19950 succeeded, 0 failed, 1 errored",
        "0 succeeded, 0 failed, 0 errored",
        "nothing",
    ],
)
def test_a_report_of_failures_is_no_figure(counts: str) -> None:
    with pytest.raises(RuntimeError, match="h2load reports"):
        read_report(REPORT.format(counts=counts))


def test_the_request_is_one_message_of_grpc() -> None:
    message = guarded_put("bench/limit", b"x")
    assert framed(message)[:5] == b"\0" + len(message).to_bytes(4, "big")
    request = pb.TxnRequest.FromString(message)
    assert len(request.compare) == len(request.success) == 1
