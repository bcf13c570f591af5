"""Messages that wait together travel in one broadcast."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import trio

from bacalhau_p2p.bprotocol import broadcasts
from bacalhau_p2p.bprotocol.broadcasts import (
    MAIL_FRAMES,
    MAIL_INTERVAL,
    STRANGER_MAIL_BURST,
    BroadcastQueue,
    Mail,
)
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, decode_broadcast, encode_frame
from bacalhau_p2p.bprotocol.messages import BidAccepted, JobClosed, SpecDelivered
from bacalhau_p2p.errors import MessageTooLarge
from bacalhau_p2p.transports.budgets import Budgets

FRIEND, STRANGER = "friend", "stranger"


class RecordingTransport:
    def __init__(self, limit: int = 2**30) -> None:
        self.limit = limit
        self.sent = []
        self.budgets = Budgets(
            trio.current_time, is_connected=lambda peer: False, cut_off=lambda peer, seconds: None
        )
        self.budgets.answered(FRIEND)

    async def broadcast(self, topic, payload):
        await trio.lowlevel.checkpoint()
        if len(payload) > self.limit:
            raise MessageTooLarge("too large")
        self.sent.append((trio.current_time(), topic, decode_broadcast(payload)))


def closed(number: int, reason: str = "") -> Envelope:
    message = JobClosed(job_id=f"j-{number}", reason=reason)
    return Envelope(id=MessageID(number.to_bytes(16, "big")), message=message)


def mailed(number: int) -> bytes:
    message = BidAccepted(job_id="j", execution_id=f"e-{number}")
    return encode_frame(Envelope(id=MessageID(number.to_bytes(16, "big")), message=message, to="bob"))


@asynccontextmanager
async def running(queue):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        yield queue
        nursery.cancel_scope.cancel()


async def test_messages_that_wait_travel_together(autojump_clock):
    transport = RecordingTransport()
    envelopes = [closed(number) for number in range(100)]
    async with running(BroadcastQueue(transport, "jobs")) as queue:
        for envelope in envelopes:
            queue.put(envelope)
        await trio.sleep(1)
    assert [(topic, sent) for _, topic, sent in transport.sent] == [("jobs", envelopes)]


async def test_broadcasts_keep_their_distance_in_time(autojump_clock):
    transport = RecordingTransport()
    async with running(BroadcastQueue(transport, "jobs")) as queue:
        for number in range(10):
            queue.put(closed(number))
            await trio.sleep(0.001)
        await trio.sleep(1)
    times = [time for time, _, _ in transport.sent]
    assert [len(sent) for _, _, sent in transport.sent] == [1, 9]
    assert times[1] - times[0] >= broadcasts.BROADCAST_INTERVAL


async def test_a_broadcast_is_cut_at_its_size_limit(autojump_clock, monkeypatch):
    monkeypatch.setattr(broadcasts, "BROADCAST_BYTES", 1000)
    transport = RecordingTransport()
    async with running(BroadcastQueue(transport, "jobs")) as queue:
        for number, length in enumerate([400, 400, 400, 4000, 10]):
            queue.put(closed(number, reason="x" * length))
        await trio.sleep(1)
    jobs = [[envelope.message.job_id for envelope in sent] for _, _, sent in transport.sent]
    assert jobs == [["j-0", "j-1"], ["j-2"], ["j-3"], ["j-4"]]


async def test_mail_travels_in_few_broadcasts(autojump_clock):
    transport, counters = RecordingTransport(), Counter()
    async with running(Mail(transport, "mail", counters)) as mail:
        mail.put(FRIEND, (mailed(number) for number in range(2 * MAIL_FRAMES + 1)))
        await trio.sleep(10)
    assert [len(sent) for _, _, sent in transport.sent] == [MAIL_FRAMES, MAIL_FRAMES, 1]
    assert transport.sent[1][0] - transport.sent[0][0] >= MAIL_INTERVAL
    assert counters["mailed"] == 2 * MAIL_FRAMES + 1


async def test_mail_that_is_too_large_does_not_stop_later_mail(autojump_clock):
    transport = RecordingTransport(limit=200)
    async with running(Mail(transport, "mail", Counter())) as mail:
        mail.put(FRIEND, [mailed(1) + bytes(1000)])
        await trio.sleep(1)
        mail.put(FRIEND, [mailed(2)])
        await trio.sleep(1)
    assert [e.message.execution_id for _, _, sent in transport.sent for e in sent] == ["e-2"]


async def test_strangers_make_a_node_mail_little_and_leave_room_for_others(autojump_clock):
    transport, counters = RecordingTransport(), Counter()
    async with running(Mail(transport, "mail", counters)) as mail:
        for number in range(1000):
            mail.put(f"{STRANGER}-{number}", [mailed(number)])
        mail.put(FRIEND, [mailed(1001)])
        await trio.sleep(100)
        assert counters == {"mailed": STRANGER_MAIL_BURST + 1, "not_mailed": 1000 - STRANGER_MAIL_BURST}
        mail.put(STRANGER, [mailed(1002)])  # a requester that nobody can dial, later
        await trio.sleep(1)
    assert counters["mailed"] == STRANGER_MAIL_BURST + 2


async def test_what_few_nodes_are_asked_is_not_mailed_to_everybody(autojump_clock):
    transport, counters = RecordingTransport(), Counter()
    async with running(Mail(transport, "mail", counters)) as mail:
        mail.put(FRIEND, [encode_frame(closed(1)), mailed(2)])
        await trio.sleep(1)
    assert counters == {"mailed": 1, "not_mailed": 1}


async def test_nothing_is_mailed_to_a_peer_that_was_cut_off(autojump_clock):
    transport, counters = RecordingTransport(), Counter()
    async with running(Mail(transport, "mail", counters)) as mail:
        transport.budgets.cut_off(FRIEND, "a test")
        mail.put(FRIEND, [mailed(1)])
        await trio.sleep(1)
    assert transport.sent == []


async def test_specs_are_never_mailed(autojump_clock):
    transport, counters = RecordingTransport(), Counter()
    spec = SpecDelivered(job_id="j", spec=bytes(100_000))
    frame = encode_frame(Envelope(id=MessageID(bytes(16)), message=spec, to=FRIEND))
    async with running(Mail(transport, "mail", counters)) as mail:
        mail.put(FRIEND, [frame, mailed(1)])
        await trio.sleep(1)
    assert counters == {"mailed": 1, "not_mailed": 1}
