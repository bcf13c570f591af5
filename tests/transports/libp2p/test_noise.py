"""Noise messages after the handshake: encrypted, and decrypted however the bytes are split into reads."""

from __future__ import annotations

import secrets

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.libp2p.noise import MAX_PLAINTEXT, NoiseReader, NoiseWriter
from tests.support.peers.byte_streams import cut

cipher = ChaCha20Poly1305(bytes(32))


def opened(reader: NoiseReader, pieces: list[bytes]) -> bytes:
    return b"".join(b"".join(reader.open(reader.unfinished + piece)) for piece in pieces)


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=100), max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_are_decrypted_however_they_are_split(plaintexts, places):
    writer = NoiseWriter(cipher)
    sealed = b"".join(b"".join(writer.seal(plaintext)) for plaintext in plaintexts)
    assert opened(NoiseReader(cipher), cut(sealed, places)) == b"".join(plaintexts)


@pytest.mark.parametrize("size", [0, 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 300_000])
def test_any_plaintext_is_split_into_messages_that_noise_allows(size):
    content = secrets.token_bytes(size)
    parts = NoiseWriter(cipher).seal(content)
    assert all(len(part) <= 65535 for part in parts)
    assert len(parts) == 2 * -(-size // MAX_PLAINTEXT)
    assert opened(NoiseReader(cipher), [b"".join(parts)]) == content


@pytest.mark.parametrize("place", [2, 10, -1])
def test_a_forged_message_is_rejected(place):
    sealed = bytearray(b"".join(NoiseWriter(cipher).seal(b"pay Alice")))
    sealed[place] ^= 1
    with pytest.raises(RemoteProtocolError, match="wrong tag"):
        NoiseReader(cipher).open(sealed)


def test_a_repeated_message_is_rejected():
    sealed = b"".join(NoiseWriter(cipher).seal(b"pay Alice"))
    with pytest.raises(RemoteProtocolError, match="wrong tag"):
        NoiseReader(cipher).open(sealed + sealed)


@pytest.mark.parametrize("length", [0, 15])
def test_a_message_too_short_for_its_tag_is_rejected(length):
    with pytest.raises(RemoteProtocolError, match="without a tag"):
        NoiseReader(cipher).open(length.to_bytes(2, "big") + bytes(length))
