"""Messages of libp2p's Kademlia DHT: a varint length, then a protobuf, as in its specification.

Only messages about providers are supported; values are neither stored nor requested. Messages from peers are
decoded within bounds, and parts that cannot be used are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import base58
import trio
from trio.abc import ReceiveStream

from bacalhau_p2p.encoding import framing
from bacalhau_p2p.encoding.multiaddrs import address_of_binary, binary_of_address
from bacalhau_p2p.encoding.protobuf import bytes_field, read_fields, varint_field
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID

MAX_MESSAGE = 64 * 1024
"""Bytes of a message; the longest answer that we send has about 8 KiB."""
MAX_KEY = 80
"""Bytes of a key."""
MAX_CONTACTS = 20
"""Closer peers in one message, and providers in one message."""
MAX_ADDRESSES = 8
"""Addresses of one peer in a message."""

_MAX_PEER_ID = 64
_READ_SIZE = 16 * 1024


class MessageType(IntEnum):
    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer and the multiaddrs to dial it at, each ending in `/p2p/<peer id>`."""

    peer: PeerID
    addresses: tuple[str, ...] = ()

    def encode(self) -> bytes:
        parts = [bytes_field(1, base58.b58decode(self.peer))]
        for text in self.addresses[:MAX_ADDRESSES]:
            if (binary := binary_of_address(text)) is not None:
                parts.append(bytes_field(2, binary))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Contact | None:
        """None when `data` has no usable peer id. Raises IndexError, ValueError."""
        peer, addresses = None, dict[str, None]()
        for number, value in read_fields(data):
            if number == 1 and isinstance(value, bytes) and 2 <= len(value) <= _MAX_PEER_ID:
                peer = PeerID(base58.b58encode(value).decode("ascii"))
            elif number == 2 and isinstance(value, bytes) and len(addresses) < MAX_ADDRESSES:
                text = address_of_binary(value)
                addresses |= {text: None} if text else {}
        return cls(peer, tuple(f"{address}/p2p/{peer}" for address in addresses)) if peer else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request or its answer. `key` is a multihash: that of a CID, or a peer id."""

    type: MessageType
    key: bytes = b""
    closer: tuple[Contact, ...] = ()
    providers: tuple[Contact, ...] = ()

    def encode(self) -> bytes:
        """The message with its length prefix."""
        parts = [varint_field(1, self.type)]
        if self.key:
            parts.append(bytes_field(2, self.key))
        parts += [bytes_field(8, contact.encode()) for contact in self.closer[:MAX_CONTACTS]]
        parts += [bytes_field(9, contact.encode()) for contact in self.providers[:MAX_CONTACTS]]
        return framing.encode_frame(b"".join(parts))

    @classmethod
    def decode(cls, body: bytes) -> Message:
        """Raises RemoteProtocolError."""
        kind, key = MessageType.PUT_VALUE, b""
        contacts: dict[int, list[Contact]] = {8: [], 9: []}
        try:
            for number, value in read_fields(body):
                if number == 1 and isinstance(value, int):
                    kind = MessageType(value)
                elif number == 2 and isinstance(value, bytes):
                    key = value
                elif number in contacts and isinstance(value, bytes):
                    contact = Contact.decode(value) if len(contacts[number]) < MAX_CONTACTS else None
                    if contact is not None:
                        contacts[number].append(contact)
        except (IndexError, ValueError) as error:
            reason = "truncated" if isinstance(error, IndexError) else str(error)
            raise RemoteProtocolError(f"malformed DHT message: {reason}") from None
        if len(key) > MAX_KEY:
            raise RemoteProtocolError(f"DHT key of {len(key)} bytes; the limit is {MAX_KEY}")
        return cls(type=kind, key=key, closer=tuple(contacts[8]), providers=tuple(contacts[9]))


def take_message(buffer: bytearray) -> bytes | None:
    """Remove the first message from `buffer`; None while it is incomplete. Raises RemoteProtocolError."""
    return framing.take_frame(buffer, MAX_MESSAGE, "DHT")


async def read_message(stream: ReceiveStream, buffer: bytearray, idle_timeout: float) -> bytes | None:
    """The next message of a stream, None at its end; bytes after the message stay in `buffer`.

    Raises RemoteProtocolError, trio.TooSlowError after `idle_timeout` seconds without a byte.
    """
    while (body := take_message(buffer)) is None:
        with trio.fail_after(idle_timeout):
            data = await stream.receive_some(_READ_SIZE)
        if not data:
            return None
        buffer += data
    return body


def key_of(cid: CID) -> bytes:
    """The key of content in the DHT: the multihash of its CID, whatever the codec and version."""
    return cid.binary if cid.version == 0 else cid.binary[-34:]


def peer_key(peer: PeerID) -> bytes | None:
    """The multihash in a peer id, None when it is malformed."""
    try:
        return base58.b58decode(peer)
    except ValueError:
        return None
