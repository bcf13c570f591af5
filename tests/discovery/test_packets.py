"""What is said in mDNS packets, and what is read from those of strangers."""

from __future__ import annotations

import random
import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import DNSAddress, DNSIncoming, DNSOutgoing, DNSPointer, DNSQuestion, DNSService, DNSText

from bacalhau_p2p.discovery import packets
from bacalhau_p2p.discovery.packets import MAX_ADDRESSES, MAX_PEERS, MAX_RECORDS, NOTHING, SERVICE, Heard
from bacalhau_p2p.identity.identity import Identity

PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
OWN = [f"/ip4/10.0.0.1/tcp/1235/p2p/{PEER}", f"/ip6/fd00::1/tcp/1235/p2p/{PEER}"]
INSTANCE = f"somebody.{SERVICE}"
ANSWER = packets.answer("name", ip_address("10.0.0.1"), 1235, OWN)


def texts(*strings: bytes, name: str = INSTANCE, ttl: int = 120) -> DNSText:
    return DNSText(name, 16, 1, ttl, b"".join(bytes([len(text)]) + text for text in strings))


def packet(*records: DNSText, flags: int = 0x8400) -> bytes:
    outgoing = DNSOutgoing(flags)
    for record in records:
        outgoing.add_answer_at_time(record, 0)
    return outgoing.packets()[0]


def question(name: str, kind: int = 12) -> bytes:
    outgoing = DNSOutgoing(0)
    outgoing.add_question(DNSQuestion(name, kind, 1))
    return outgoing.packets()[0]


def dnsaddr(peer: str, host: str = "10.0.0.2") -> bytes:
    return f"dnsaddr=/ip4/{host}/tcp/1/p2p/{peer}".encode()


def test_what_a_node_says_of_itself_is_what_others_read():
    assert packets.read(ANSWER) == Heard(peers={PEER: tuple(OWN)})
    assert packets.read(packets.query()) == Heard(asks=True)


def test_an_answer_has_all_that_go_libp2p_wants():
    records = DNSIncoming(ANSWER).answers()
    by_kind = {type(record): record for record in records}
    assert by_kind[DNSPointer].name == SERVICE
    assert by_kind[DNSPointer].alias == by_kind[DNSText].name == by_kind[DNSService].name
    assert by_kind[DNSService].server == by_kind[DNSAddress].name
    assert (by_kind[DNSService].port, by_kind[DNSAddress].address) == (1235, bytes([10, 0, 0, 1]))


@pytest.mark.parametrize(
    ("name", "kind", "asks"),
    [
        (SERVICE, 12, True),
        (SERVICE.upper(), 12, True),
        (SERVICE, 255, True),
        (SERVICE, 16, False),
        ("_http._tcp.local.", 12, False),
        ("x" + SERVICE, 12, False),
    ],
)
def test_only_questions_for_the_service_are_answered(name, kind, asks):
    assert packets.read(question(name, kind)).asks is asks


def test_addresses_come_in_any_number_of_records_beside_other_texts():
    one, other = dnsaddr(PEER), dnsaddr(PEER, "10.0.0.3")
    heard = packets.read(packet(texts(b"txtvers=1", one, b"dnsaddr"), texts(b"", other)))
    assert heard.peers == {PEER: (one[8:].decode(), other[8:].decode())}


@pytest.mark.parametrize(
    "record",
    [
        texts(dnsaddr(PEER), name="somebody._http._tcp.local."),
        texts(dnsaddr(PEER), name="x" + SERVICE),
        texts(dnsaddr(PEER), ttl=0),
        texts(b"dnsaddr=/ip4/10.0.0.2/tcp/1"),
        texts(b"dnsaddr=/ip4/10.0.0.2/udp/1/quic-v1/p2p/" + PEER.encode()),
        texts(b"dnsaddr=/ip4/10.0.0.2/tcp/1/p2p/Qm\xff\x00"),
        texts(b"dnsaddr=" + b"/p2p/" * 40),
        DNSText(INSTANCE, 16, 1, 120, b"\xff" + dnsaddr(PEER)),
    ],
)
def test_what_is_no_address_of_a_peer_is_left_out(record):
    assert packets.read(packet(record)) == NOTHING


def test_the_peers_and_addresses_of_a_packet_are_limited():
    peers = [Identity.generate().peer_id for _ in range(MAX_PEERS + 1)]
    many = packet(*(texts(dnsaddr(peer), name=f"{peer[-9:]}.{SERVICE}") for peer in peers))
    assert list(packets.read(many).peers) == peers[:MAX_PEERS]
    heard = packets.read(packet(texts(*(dnsaddr(PEER, f"10.0.0.{host}") for host in range(12)))))
    assert len(heard.peers[PEER]) == MAX_ADDRESSES


def test_a_packet_of_too_many_records_is_not_read():
    few, many = ([texts(dnsaddr(PEER))] * count for count in (MAX_RECORDS, MAX_RECORDS + 1))
    header = (0x8400).to_bytes(2, "big")
    body = packet(texts(dnsaddr(PEER)))[12:]

    def repeated(records):
        count = len(records).to_bytes(2, "big")
        return bytes(2) + header + bytes(2) + count + bytes(4) + body * len(records)

    assert packets.read(repeated(few)).peers
    assert packets.read(repeated(many)) == NOTHING


def test_a_long_answer_is_cut_to_what_may_be_sent():
    heard = packets.read(packets.answer("name", ip_address("fd00::1"), 1, OWN * 20))
    assert heard.peers == {PEER: tuple(OWN * 20)[:MAX_ADDRESSES]}


@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_no_bytes_are_a_fault_of_the_reader(data, seed):
    rng = random.Random(seed)
    for start in (ANSWER, packets.query()):
        mutated = bytearray(start)
        for _ in range(rng.randrange(1, 8)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        for hostile in (
            data,
            start[:12] + data,
            bytes(mutated),
            bytes(mutated[: rng.randrange(len(mutated))]),
        ):
            heard = packets.read(hostile)
            assert len(heard.peers) <= MAX_PEERS


def test_names_that_point_to_each_other_cost_little():
    pointers = b"".join((0xC000 | (12 + 2 * (at + 1))).to_bytes(2, "big") for at in range(4000))
    for answers, questions in ((MAX_RECORDS, 0), (0, MAX_RECORDS)):
        counts = questions.to_bytes(2, "big") + answers.to_bytes(2, "big") + bytes(4)
        hostile = bytes(2) + (0x8400 if answers else 0).to_bytes(2, "big") + counts + pointers
        started = time.process_time()
        assert packets.read(hostile) == NOTHING
        assert time.process_time() - started < 0.5
