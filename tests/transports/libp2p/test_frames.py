"""What is cut out of a byte stream does not depend on where it was cut before."""

from __future__ import annotations

import secrets
import sys
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.libp2p.noise import MAX_PLAINTEXT, NoiseReader, NoiseWriter
from bacalhau_p2p.transports.libp2p.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Frame,
    FrameParser,
    encode_header,
)
from bacalhau_p2p.transports.libp2p.yamux.receive_buffer import ReceiveBuffer

flags = st.integers(0, SYN | ACK | FIN | RST)
stream_ids = st.integers(0, 2**32 - 1)
data_frames = st.tuples(flags, stream_ids, st.binary(max_size=60)).map(
    lambda parts: Frame(DATA, parts[0], parts[1], len(parts[2]), parts[2])
)
other_frames = st.tuples(
    st.sampled_from([WINDOW_UPDATE, PING, GO_AWAY]), flags, stream_ids, st.integers(0, 2**32 - 1)
).map(lambda parts: Frame(*parts))
frames = st.lists(st.one_of(data_frames, other_frames), max_size=12)


def encoded(wanted: list[Frame]) -> bytes:
    return b"".join(
        encode_header(frame.kind, frame.flags, frame.stream_id, frame.length) + frame.payload
        for frame in wanted
    )


def fed(parser: FrameParser, pieces: list[bytes]) -> list[Frame]:
    """What the parser makes of these pieces, with the pieces of one frame put together."""
    whole: list[Frame] = []
    for piece in pieces:
        for frame in parser.feed(piece):
            last = whole[-1] if whole else None
            if last is not None and last.kind == DATA and len(last.payload) < last.length:
                assert frame.stream_id == last.stream_id
                whole[-1] = last._replace(
                    flags=last.flags | frame.flags, payload=b"".join((last.payload, frame.payload))
                )
            else:
                whole.append(frame)
    return whole


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(frames, st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_come_out_as_they_were_wherever_they_are_cut(wanted, places):
    assert fed(FrameParser(), cut(encoded(wanted), places)) == wanted


def test_frames_cut_at_every_byte_come_out_as_they_were():
    wanted = [
        Frame(DATA, SYN | FIN, 1, 300, secrets.token_bytes(300)),
        Frame(PING, SYN, 0, 7),
        Frame(DATA, ACK | RST, 2, 1, b"x"),
        Frame(WINDOW_UPDATE, FIN, 2**32 - 1, 2**32 - 1),
    ]
    data = encoded(wanted)
    assert fed(FrameParser(), [data[place : place + 1] for place in range(len(data))]) == wanted
    for place in range(len(data)):
        assert fed(FrameParser(), [data[:place], data[place:]]) == wanted


def test_an_end_is_told_after_all_that_came_before_it():
    parser = FrameParser()
    data = encoded([Frame(DATA, SYN | FIN, 1, 4, b"last")])
    assert parser.feed(data[:14]) == [Frame(DATA, SYN, 1, 4, b"la")]
    assert parser.feed(data[14:15]) == [Frame(DATA, 0, 1, 0, b"s")]
    assert parser.feed(data[15:]) == [Frame(DATA, FIN, 1, 0, b"t")]


@pytest.mark.parametrize("header", ["010000000000000100000000", "000400000000000100000000"])
def test_what_is_no_frame_is_refused(header):
    with pytest.raises(RemoteProtocolError, match="not a Yamux frame"):
        FrameParser().feed(bytes.fromhex(header))


@given(st.lists(st.one_of(st.binary(max_size=30), st.integers(1, 40)), max_size=40))
def test_a_buffer_gives_what_it_got_in_the_same_order(steps):
    buffer, model = ReceiveBuffer(), b""
    for step in steps:
        if isinstance(step, bytes):
            buffer.append(step)
            model += step
        else:
            assert buffer.take(step) == model[:step]
            model = model[step:]
        assert len(buffer) == len(model)
    assert buffer.take(10_000) == model
    assert not buffer


def test_large_pieces_are_taken_in_parts_and_together():
    buffer = ReceiveBuffer()
    pieces = [secrets.token_bytes(size) for size in (5000, 10, 4096, 70_000, 3)]
    for piece in pieces:
        buffer.append(piece)
    whole = b"".join(pieces)
    assert buffer.take(4999) == whole[:4999]
    assert buffer.take(5000) == whole[4999:9999]
    assert buffer.take(1_000_000) == whole[9999:]


def test_bytes_that_come_one_by_one_take_little_more_than_they_are():
    buffer = ReceiveBuffer()
    for number in range(100_000):
        buffer.append(b"%d" % (number % 10))
    assert len(buffer) == 100_000
    assert len(buffer._pieces) < 100_000 / 4096 + 2


def test_what_waits_takes_little_more_than_it_is_whatever_it_came_with():
    buffer, kept = ReceiveBuffer(), 0
    for _ in range(20):
        plaintext = (
            encode_header(DATA, 0, 1, 5000) + bytes(5000) + encode_header(DATA, 0, 3, 60_000) + bytes(60_000)
        )
        ours, _ = FrameParser().feed(plaintext)
        buffer.append(ours.payload)
    for piece in buffer._pieces:
        kept += sys.getsizeof(piece.obj if isinstance(piece, memoryview) else piece)
    assert len(buffer) == 100_000
    assert kept < 2 * len(buffer)
    whole = secrets.token_bytes(60_000)
    (frame,) = FrameParser().feed(encode_header(DATA, 0, 1, 60_000) + whole)
    buffer.append(frame.payload)
    assert isinstance(buffer._pieces[-1], memoryview)  # which is what most bytes come in
    assert buffer.take(200_000) == bytes(100_000) + whole


# --- Noise --------------------------------------------------------------------------------------------

cipher = ChaCha20Poly1305(bytes(32))


def opened(reader: NoiseReader, pieces: list[bytes]) -> bytes:
    return b"".join(b"".join(reader.open(reader.unfinished + piece)) for piece in pieces)


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=100), max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_are_decrypted_wherever_they_are_cut(plaintexts, places):
    writer = NoiseWriter(cipher)
    sealed = b"".join(b"".join(writer.seal(plaintext)) for plaintext in plaintexts)
    assert opened(NoiseReader(cipher), cut(sealed, places)) == b"".join(plaintexts)


@pytest.mark.parametrize("size", [0, 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 300_000])
def test_any_length_is_cut_into_messages_that_noise_allows(size):
    content = secrets.token_bytes(size)
    parts = NoiseWriter(cipher).seal(content)
    assert all(len(part) <= 65535 for part in parts)
    assert len(parts) == 2 * -(-size // MAX_PLAINTEXT)
    assert opened(NoiseReader(cipher), [b"".join(parts)]) == content


@pytest.mark.parametrize("place", [2, 10, -1])
def test_a_forged_message_is_refused(place):
    sealed = bytearray(b"".join(NoiseWriter(cipher).seal(b"pay Alice")))
    sealed[place] ^= 1
    with pytest.raises(RemoteProtocolError, match="wrong tag"):
        NoiseReader(cipher).open(sealed)


def test_a_repeated_message_is_refused():
    sealed = b"".join(NoiseWriter(cipher).seal(b"pay Alice"))
    with pytest.raises(RemoteProtocolError, match="wrong tag"):
        NoiseReader(cipher).open(sealed + sealed)


@pytest.mark.parametrize("length", [0, 15])
def test_a_message_too_short_for_its_tag_is_refused(length):
    with pytest.raises(RemoteProtocolError, match="without a tag"):
        NoiseReader(cipher).open(length.to_bytes(2, "big") + bytes(length))
