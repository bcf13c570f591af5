"""Noise after its handshake: all messages of a read are decrypted together, and all of a write encrypted.

The handshake is py-libp2p's. Its transport phase awaits several times for each message, even for the
12 bytes of a Yamux header.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.libp2p.tcp import TCPStream

TAG_SIZE: Final = 16
MAX_PLAINTEXT: Final = 65535 - TAG_SIZE
"""Maximum bytes of plaintext in one Noise message."""

_NONCE: Final = struct.Struct("<4xQ")
_LENGTH: Final = struct.Struct(">H")


class NoiseReader:
    """Splits received bytes into messages and decrypts them. `cipher` is a ChaCha20Poly1305."""

    def __init__(self, cipher: Any, nonce: int = 0) -> None:
        self._cipher = cipher
        self._nonce = nonce
        self.unfinished = b""
        """The beginning of a message, to put before the bytes of the next read."""

    def open(self, data: bytes | memoryview) -> list[bytes]:
        """Decrypt `unfinished` and the bytes after it. Raises RemoteProtocolError for a forged message."""
        view = memoryview(data)
        plaintexts: list[bytes] = []
        position = 0
        while len(view) - position >= _LENGTH.size:
            start = position + _LENGTH.size
            end = start + _LENGTH.unpack_from(view, position)[0]
            if end > len(view):
                break
            if end - start < TAG_SIZE:
                raise RemoteProtocolError("a Noise message without a tag")
            try:
                plaintexts.append(self._cipher.decrypt(_NONCE.pack(self._nonce), view[start:end], None))
            except InvalidTag as fault:
                raise RemoteProtocolError("a Noise message with a wrong tag") from fault
            self._nonce += 1
            position = end
        self.unfinished = bytes(view[position:])
        return plaintexts


class NoiseWriter:
    """Encrypts bytes into messages."""

    def __init__(self, cipher: Any, nonce: int = 0) -> None:
        self._cipher = cipher
        self._nonce = nonce

    def seal(self, plaintext: bytes | bytearray | memoryview) -> list[bytes]:
        """The bytes to write for this plaintext, in parts."""
        view = memoryview(plaintext)
        parts: list[bytes] = []
        for start in range(0, len(view), MAX_PLAINTEXT):
            message = self._cipher.encrypt(
                _NONCE.pack(self._nonce), view[start : start + MAX_PLAINTEXT], None
            )
            self._nonce += 1
            parts += (_LENGTH.pack(len(message)), message)
        return parts


class NoiseSession(SecureSession):  # type: ignore[misc]
    """An authenticated connection.

    py-libp2p negotiates the muxer on it with `read` and `write`; then Yamux uses `receive` and `send_now`.
    """

    def __init__(self, stock: SecureSession, tcp: TCPStream) -> None:
        super().__init__(
            local_peer=stock.local_peer,
            local_private_key=stock.local_private_key,
            remote_peer=stock.remote_peer,
            remote_permanent_pubkey=stock.remote_permanent_pubkey,
            is_initiator=stock.is_initiator,
            conn=stock.conn,
        )
        self.tcp = tcp
        protocol = stock.conn.noise_state.noise_protocol
        incoming, outgoing = protocol.cipher_state_decrypt, protocol.cipher_state_encrypt
        self._reader = NoiseReader(incoming.cipher.cipher, incoming.n)
        self._writer = NoiseWriter(outgoing.cipher.cipher, outgoing.n)
        self._plain = b""

    async def receive(self) -> list[bytes]:
        """Decrypted bytes in one or more pieces; none at the end.

        Raises ConnectionClosedError after a reset, RemoteProtocolError for a forged message.
        """
        if self._plain:
            plain, self._plain = self._plain, b""
            return [plain]
        while data := await self.tcp.receive(self._reader.unfinished):
            if plaintexts := self._reader.open(data):
                return plaintexts
        return []

    def send_now(self, *plaintexts: bytes | memoryview) -> None:
        """Encrypt each plaintext into messages of its own, and send all in one write."""
        parts: list[bytes] = []
        for plaintext in plaintexts:
            parts += self._writer.seal(plaintext)
        self.tcp.send_now(parts)

    async def read(self, n: int | None = None) -> bytes:
        """py-libp2p's interface: exactly so many bytes, or fewer at the end."""
        while not self._plain or (n is not None and len(self._plain) < n):
            held, self._plain = self._plain, b""
            try:
                pieces = await self.receive()
            except RemoteProtocolError as fault:
                raise ConnectionClosedError(str(fault), transport="noise") from fault
            if not pieces and not held:
                raise ConnectionClosedError("Connection closed")
            self._plain = held + b"".join(pieces)
            if not pieces:
                break
        end = len(self._plain) if n is None else n
        piece, self._plain = self._plain[:end], self._plain[end:]
        return piece

    async def write(self, data: bytes) -> None:
        """py-libp2p's interface, until Yamux takes over."""
        await self.tcp.write(b"".join(self._writer.seal(data)))

    async def close(self) -> None:
        await self.tcp.close()


class NoiseSecurity(NoiseTransport):  # type: ignore[misc]
    """py-libp2p's handshake, which results in a `NoiseSession`."""

    async def secure_inbound(self, conn: Any) -> NoiseSession:
        return NoiseSession(await super().secure_inbound(conn), conn.stream)

    async def secure_outbound(self, conn: Any, peer_id: ID) -> NoiseSession:
        return NoiseSession(await super().secure_outbound(conn, peer_id), conn.stream)
