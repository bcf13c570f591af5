"""The error of a fetch that failed says what was tried, in order of importance."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import ContentNotFound, InvalidContent, PeerUnreachable
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import PROTOCOL as BITSWAP_PROTOCOL
from bacalhau_p2p.ipfs.exchange.bitswap.bitswap import Bitswap
from bacalhau_p2p.ipfs.exchange.exchange import Exchange
from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.fetch_report import FetchReport, Outcome
from bacalhau_p2p.ipfs.exchange.interface import ExchangeLimits, Sources
from bacalhau_p2p.ipfs.exchange.wire import Status
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID
from tests.support.blocks.content_net import ALICE, BOB, CAROL, answering, hangs_up, silent
from tests.support.blocks.inline_threads import InlineThreads

X = CID.of(RAW, b"x")


def test_invalid_data_is_reported_before_everything_else():
    report = FetchReport()
    report.answered(BOB, Outcome.HAS)
    report.transfer_failed(BOB, PeerFault("connection lost"))
    report.gateway_failed("gateway http://gate", PeerFault("unexpected block y", invalid=True))
    error = report.error(X, partial_providers=0)
    assert isinstance(error, InvalidContent)
    assert str(error) == f"cannot fetch {X}: gateway http://gate sent invalid data: unexpected block y"


def test_a_failed_transfer_is_reported_with_everything_that_was_tried():
    report = FetchReport()
    for peer, outcome in ((ALICE, Outcome.MISSING), (BOB, Outcome.HAS), (CAROL, Outcome.HAS)):
        report.answered(peer, outcome)
    report.transfer_failed(BOB, PeerFault("connection lost"))
    report.finder = "DHT lookup (1 node) found no other provider"
    report.gateway_failed("gateway http://gate.example", PeerFault("404 Not Found"))
    error = report.error(X, partial_providers=1)
    assert isinstance(error, ContentNotFound)
    assert str(error) == (
        f"cannot fetch {X} from peer bob: connection lost (asked 3 peers; 1 peer with parts of it; "
        "DHT lookup (1 node) found no other provider; gateway http://gate.example: 404 Not Found)"
    )


async def test_the_outcome_of_each_peer_is_counted(net, autojump_clock):
    net.peer(ALICE, limits=ExchangeLimits(find=20, idle=15))
    net.handlers |= {
        "missing": answering(Status.MISSING),
        "missing too": answering(Status.MISSING),
        "refuses": answering(Status.REFUSED),
        "busy": answering(Status.BUSY),
        "busy too": answering(Status.BUSY),
        "hangs up": hangs_up,
        "silent": silent,
    }
    details = (
        r"asked 8 peers \(2 without it, 2 busy, 1 refused, 1 unreachable, 1 failed to answer, 1 timed out\)$"
    )
    peers = [PeerID(name) for name in net.handlers if name != ALICE]
    with pytest.raises(ContentNotFound, match=details):
        await net.fetch(ALICE, X, [*peers, PeerID("away")])


@pytest.mark.parametrize(
    ("own", "bitswap", "outcome"),
    [
        (None, None, "unreachable"),
        (hangs_up, None, "failed to answer"),
        (None, hangs_up, "timed out"),  # a bitswap peer may answer later, on a stream of its own
        (silent, None, "timed out"),
    ],
    ids=["neither protocol", "hangs up", "mute bitswap", "silent"],
)
async def test_the_outcome_takes_both_protocols_into_account(net, autojump_clock, own, bitswap, outcome):
    store = net.peer(ALICE)
    limits = ExchangeLimits(find=20, idle=5)

    async def open_stream(to: PeerID, protocol: str) -> trio.abc.HalfCloseableStream:
        net.handlers[to] = bitswap if protocol == BITSWAP_PROTOCOL else own
        if net.handlers[to] is None:
            raise PeerUnreachable(f"{to} does not speak {protocol}")
        return await net.open_stream(ALICE, to)

    fallback = Bitswap(store, open_stream, limits=limits, threads=InlineThreads())
    exchange = Exchange(store, open_stream, limits=limits, threads=InlineThreads(), fallback=fallback)
    with pytest.raises(ContentNotFound, match=rf"asked 1 peer \(1 {outcome}\)$"):
        await exchange.fetch(X, Sources(peers=[BOB]))
