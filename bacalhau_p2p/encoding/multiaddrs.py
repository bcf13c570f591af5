"""Multiaddrs of strangers. Only addresses of TCP at a host are used; they are read and written here.

libp2p's own parser takes 0.2 ms for an address, and its codecs raise whatever the bytes provoke. It is called
through `parse_multiaddr`, and only for an address that is dialled or that the operator gave.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from bacalhau_p2p.encoding.varint import decode_varint, encode_varint
from bacalhau_p2p.errors import RemoteProtocolError

if TYPE_CHECKING:
    from multiaddr import Multiaddr

MAX_MULTIADDR = 256
"""Characters or bytes of a multiaddr."""

_IP4, _TCP, _IP6, _P2P, _MEMORY = 4, 6, 41, 421, 777
_NAMES = {53: "dns", 54: "dns4", 55: "dns6"}
_NAME_CODES = {name: code for code, name in _NAMES.items()}

_HOST_NAME = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?"
_HOST_NAME_ONLY = re.compile(_HOST_NAME)
_TCP_ADDRESS = re.compile(
    rf"/(?:(ip4)/([0-9.]{{7,15}})|(ip6)/([0-9A-Fa-f:.]{{2,45}})|(dns[46]?)/({_HOST_NAME}))/tcp/([0-9]{{1,5}})"
)
_HASHED_PEER_ID = re.compile(r"Qm[1-9A-HJ-NP-Za-km-z]{44}", re.ASCII)
"""SHA-256 of a key, in base58."""
_ED25519_PEER_ID = re.compile(r"12D3Koo[1-9A-HJ-NP-Za-km-z]{45}")
_MEMORY_ADDRESS = re.compile(r"/memory/([0-9]{1,18})", re.ASCII)
_MEMORY_PEER_ADDRESS = re.compile(r"/memory/[0-9]{1,18}/p2p/([A-Za-z0-9_-]{1,128})")


def parse_multiaddr(address: str | bytes) -> Multiaddr:
    """A multiaddr by libp2p's parser, from text or binary. Raises RemoteProtocolError for anything else."""
    if len(address) > MAX_MULTIADDR:
        raise RemoteProtocolError(f"a multiaddr of {len(address)} characters; the limit is {MAX_MULTIADDR}")
    from multiaddr import Multiaddr  # slow to import, and clients of the API do not need it

    try:
        parsed = Multiaddr(address)
        if not str(parsed) or not list(parsed.protocols()):
            raise ValueError("it is empty")
    except Exception as error:
        raise RemoteProtocolError(f"a malformed multiaddr: {error}") from error
    return parsed


def peer_of_address(address: str) -> str | None:
    """The peer in `/<host>/tcp/<port>/p2p/<peer id>`, or None for all other texts.

    In networks in memory, which tests use, in `/memory/<number>/p2p/<any word>`.
    """
    if len(address) > MAX_MULTIADDR:
        return None
    if address.startswith("/memory/"):
        match = _MEMORY_PEER_ADDRESS.fullmatch(address)
        return match[1] if match else None
    where, _, peer = address.rpartition("/p2p/")
    return peer if _ED25519_PEER_ID.fullmatch(peer) and _binary(where) is not None else None


def is_user_peer_address(address: str) -> bool:
    """Whether a user may name a peer so: as for `peer_of_address`, or with the hash of another key, as the
    RSA keys of some nodes of IPFS are named."""
    if peer_of_address(address) is not None:
        return True
    where, _, peer = address.rpartition("/p2p/")
    short = len(address) <= MAX_MULTIADDR
    return short and _HASHED_PEER_ID.fullmatch(peer) is not None and _binary(where) is not None


def check_user_peer_address(address: str) -> None:
    """Raises ValueError for a text that names no peer to a user, with what to write instead."""
    if not is_user_peer_address(address):
        raise ValueError(
            f"{address!r} is not an address of a peer; it must be /ip4/ADDRESS/tcp/PORT/p2p/PEER-ID,"
            " with ip6, dns, dns4 or dns6 instead of ip4 where needed (other transports are not supported)"
        )


def address_of_binary(data: bytes) -> str | None:
    """The text of a binary TCP address, without a `/p2p/` part at its end; None for all other bytes."""
    if len(data) > MAX_MULTIADDR:
        return None
    try:
        code, at = decode_varint(data)
        if code == _MEMORY:
            text, at = f"/memory/{int.from_bytes(_take(data, at, 8), 'big')}", at + 8
        else:
            host, at = _read_host(code, data, at)
            transport, at = decode_varint(data, at)
            if transport != _TCP:
                return None
            text, at = f"{host}/tcp/{int.from_bytes(_take(data, at, 2), 'big')}", at + 2
        if at < len(data):
            code, at = decode_varint(data, at)
            length, at = decode_varint(data, at)
            if code != _P2P or at + length != len(data):
                return None
    except (IndexError, ValueError, OSError):
        return None
    return text


def binary_of_address(address: str) -> bytes | None:
    """The inverse of `address_of_binary`. Ignores `/p2p/<peer id>` at the end of the text."""
    return _binary(address.rpartition("/p2p/")[0] or address)


def _read_host(code: int, data: bytes, at: int) -> tuple[str, int]:
    """Raises IndexError, ValueError, OSError."""
    if code == _IP4:
        return f"/ip4/{socket.inet_ntop(socket.AF_INET, _take(data, at, 4))}", at + 4
    if code == _IP6:
        return f"/ip6/{socket.inet_ntop(socket.AF_INET6, _take(data, at, 16))}", at + 16
    length, at = decode_varint(data, at)
    name = _take(data, at, length).decode("ascii")
    if code not in _NAMES or not _HOST_NAME_ONLY.fullmatch(name):
        raise ValueError("not a host")
    return f"/{_NAMES[code]}/{name}", at + length


def _take(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise IndexError
    return data[at : at + length]


def _binary(address: str) -> bytes | None:
    if len(address) > MAX_MULTIADDR:
        return None
    if memory := _MEMORY_ADDRESS.fullmatch(address):
        return encode_varint(_MEMORY) + int(memory[1]).to_bytes(8, "big")
    match = _TCP_ADDRESS.fullmatch(address)
    if match is None or int(match[7]) > 0xFFFF:
        return None
    try:
        if match[1]:
            host = encode_varint(_IP4) + socket.inet_pton(socket.AF_INET, match[2])
        elif match[3]:
            host = encode_varint(_IP6) + socket.inet_pton(socket.AF_INET6, match[4])
        else:
            host = encode_varint(_NAME_CODES[match[5]]) + encode_varint(len(match[6])) + match[6].encode()
    except OSError:
        return None
    return host + encode_varint(_TCP) + int(match[7]).to_bytes(2, "big")
