"""Messages of libp2p's Kademlia: a varint length, then a protobuf, as its specification has it.

Only what finding and naming providers takes; values are neither stored nor asked for. Whatever comes
from a peer is decoded within bounds; what cannot be used of it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import base58
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from bacalhau_p2p.encoding import framing
from bacalhau_p2p.encoding.protobuf import bytes_field, read_fields, varint_field
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID

MAX_MESSAGE = 64 * 1024
"""Bytes of a message; the longest answer of ours has about 8 KiB."""
MAX_KEY = 80
MAX_CONTACTS = 20
"""Peers of each kind that are taken from one message, or put into one."""
MAX_ADDRESSES = 8
"""Addresses of one peer."""

_MAX_PEER_ID = 64
_MAX_ADDRESS = 256
_HOSTS = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})


class Kind(IntEnum):
    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer, and multiaddrs at which it may be dialled, each ending in `/p2p/<peer id>`."""

    peer: PeerID
    addresses: tuple[str, ...] = ()

    def encode(self) -> bytes:
        parts = [bytes_field(1, base58.b58decode(self.peer))]
        for text in self.addresses[:MAX_ADDRESSES]:
            try:
                parts.append(bytes_field(2, Multiaddr(text.rpartition("/p2p/")[0] or text).to_bytes()))
            except (MultiaddrError, ValueError):
                continue
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Contact | None:
        """None for what is no peer. Raises IndexError, ValueError."""
        peer, addresses = None, dict[str, None]()
        for number, value in read_fields(data):
            if number == 1 and isinstance(value, bytes) and 2 <= len(value) <= _MAX_PEER_ID:
                peer = PeerID(base58.b58encode(value).decode("ascii"))
            elif number == 2 and isinstance(value, bytes) and len(addresses) < MAX_ADDRESSES:
                addresses |= dict.fromkeys(_address(value))
        return cls(peer, tuple(f"{address}/p2p/{peer}" for address in addresses)) if peer else None


def _address(data: bytes) -> list[str]:
    """The address, if it is one that we can dial: TCP at a host, without a relay."""
    if len(data) > _MAX_ADDRESS:
        return []
    try:
        address = Multiaddr(data)
        names = [protocol.name for protocol in address.protocols()]
        text = str(address)
    except (MultiaddrError, ValueError):
        return []
    if names[-1:] == ["p2p"]:
        names, text = names[:-1], text.rpartition("/p2p/")[0]
    dialable = names == ["memory"] or (len(names) == 2 and names[0] in _HOSTS and names[1] == "tcp")
    return [text] if dialable else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request or its answer. `key` is a multihash: of a CID, or a peer id."""

    kind: Kind
    key: bytes = b""
    closer: tuple[Contact, ...] = ()
    providers: tuple[Contact, ...] = ()

    def encode(self) -> bytes:
        """With its length in front."""
        parts = [varint_field(1, self.kind)]
        if self.key:
            parts.append(bytes_field(2, self.key))
        parts += [bytes_field(8, contact.encode()) for contact in self.closer[:MAX_CONTACTS]]
        parts += [bytes_field(9, contact.encode()) for contact in self.providers[:MAX_CONTACTS]]
        return framing.encode_frame(b"".join(parts))

    @classmethod
    def decode(cls, body: bytes) -> Message:
        """Raises RemoteProtocolError."""
        kind, key = Kind.PUT_VALUE, b""
        contacts: dict[int, list[Contact]] = {8: [], 9: []}
        try:
            for number, value in read_fields(body):
                if number == 1 and isinstance(value, int):
                    kind = Kind(value)
                elif number == 2 and isinstance(value, bytes):
                    key = value
                elif number in contacts and isinstance(value, bytes):
                    contact = Contact.decode(value) if len(contacts[number]) < MAX_CONTACTS else None
                    if contact is not None:
                        contacts[number].append(contact)
        except (IndexError, ValueError) as error:
            reason = "cut short" if isinstance(error, IndexError) else str(error)
            raise RemoteProtocolError(f"a DHT message is malformed: {reason}") from None
        if len(key) > MAX_KEY:
            raise RemoteProtocolError(f"a DHT message has a key of {len(key)} bytes")
        return cls(kind=kind, key=key, closer=tuple(contacts[8]), providers=tuple(contacts[9]))


def take_message(buffer: bytearray) -> bytes | None:
    """Remove the message at the front of `buffer`, None while it is not all there.

    Raises RemoteProtocolError.
    """
    return framing.take_frame(buffer, MAX_MESSAGE, "DHT")


def peer_key(peer: PeerID) -> bytes | None:
    """The multihash that a peer id is, None for what is no peer id."""
    try:
        return base58.b58decode(peer)
    except ValueError:
        return None


def usable(contacts: Iterable[Contact]) -> list[Contact]:
    """Those whose peer id can be put into a message."""
    return [contact for contact in contacts if peer_key(contact.peer)]
