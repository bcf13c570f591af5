"""DNS packets as libp2p's mDNS has them: `_p2p._udp.local`. Pure.

A peer asks for the pointers of the service. Each peer answers with a pointer to a name that it made up for
itself, and beside it with the TXT record of that name: one `dnsaddr=<multiaddr>` for each of its addresses.
Only these are read. go-libp2p also wants a port and an IP address (SRV, A, AAAA), so they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from zeroconf import DNSAddress, DNSIncoming, DNSOutgoing, DNSPointer, DNSQuestion, DNSService, DNSText

from bacalhau_p2p.encoding.multiaddrs import MAX_MULTIADDR, peer_of_address
from bacalhau_p2p.model.base import PeerID

SERVICE = "_p2p._udp.local."
TTL = 120
"""Seconds for which others may keep an answer."""
MAX_PEERS = 8
"""Peers that are read from one packet."""
MAX_ADDRESSES = 8
"""Addresses of one peer that are read from one packet, and that are sent."""
MAX_RECORDS = 64
"""Questions, or records, of a packet. One with more is not read."""
_QUERY, _RESPONSE = 0x0000, 0x8400
_PTR, _TXT, _SRV, _A, _AAAA, _ANY = 12, 16, 33, 1, 28, 255
_IN, _IN_UNIQUE = 0x0001, 0x8001
_PREFIX = b"dnsaddr="
_MAX_STRING = 255


@dataclass(frozen=True)
class Heard:
    """What a packet says."""

    asks: bool = False
    """Somebody wants to know which peers are there."""
    peers: dict[PeerID, tuple[str, ...]] = field(default_factory=dict)
    """Addresses of peers, each ending in `/p2p/<peer id>`."""


NOTHING = Heard()


def query() -> bytes:
    """The question which peers are there."""
    packet = DNSOutgoing(_QUERY)
    packet.add_question(DNSQuestion(SERVICE, _PTR, _IN))
    return packet.packets()[0]


def answer(name: str, ip: IPv4Address | IPv6Address, port: int, addresses: Sequence[str]) -> bytes:
    """The answer of the peer that is called `name`. `ip` and `port` are one place where it listens."""
    instance, host = f"{name}.{SERVICE}", f"{name}.local."
    texts = [_PREFIX + address.encode("ascii") for address in addresses[:MAX_ADDRESSES]]
    data = b"".join(bytes([len(text)]) + text for text in texts if len(text) <= _MAX_STRING)
    packet = DNSOutgoing(_RESPONSE)
    packet.add_answer_at_time(DNSPointer(SERVICE, _PTR, _IN, TTL, instance), 0)
    packet.add_additional_answer(DNSText(instance, _TXT, _IN_UNIQUE, TTL, data))
    packet.add_additional_answer(DNSService(instance, _SRV, _IN_UNIQUE, TTL, 0, 0, port, host))
    kind = _A if ip.version == 4 else _AAAA
    packet.add_additional_answer(DNSAddress(host, kind, _IN_UNIQUE, TTL, ip.packed))
    return packet.packets()[0]


def read(data: bytes) -> Heard:
    """What any bytes say. Whatever is malformed or about something else is left out."""
    if len(data) < 12 or max(_counts(data)) > MAX_RECORDS:
        return NOTHING
    packet = DNSIncoming(data)
    if not packet.valid:
        return NOTHING
    if packet.is_query():
        return Heard(asks=any(_is_ours(question) for question in packet.questions))
    peers: dict[PeerID, list[str]] = {}
    for record in packet.answers():
        if isinstance(record, DNSText) and record.ttl > 0 and record.key.endswith("." + SERVICE):
            for address in _addresses(record.text):
                peer = PeerID(peer_of_address(address) or "")
                if peer and (peer in peers or len(peers) < MAX_PEERS):
                    peers.setdefault(peer, []).append(address)
    return Heard(peers={peer: tuple(own[:MAX_ADDRESSES]) for peer, own in peers.items()})


def _counts(data: bytes) -> tuple[int, int]:
    """How many questions and how many records of all kinds a packet claims to have."""
    questions, *records = (int.from_bytes(data[at : at + 2], "big") for at in range(4, 12, 2))
    return questions, sum(records)


def _is_ours(question: DNSQuestion) -> bool:
    return question.key == SERVICE and question.type in (_PTR, _ANY)


def _addresses(data: bytes) -> Iterator[str]:
    """The multiaddrs in the strings of a TXT record."""
    at = 0
    while at < len(data):
        length = data[at]
        text = data[at + 1 : at + 1 + length]
        at += 1 + length
        if (
            len(text) == length
            and text.startswith(_PREFIX)
            and len(text) <= len(_PREFIX) + MAX_MULTIADDR
            and text.isascii()
        ):
            yield text.removeprefix(_PREFIX).decode("ascii")
