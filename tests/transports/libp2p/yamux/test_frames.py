"""Yamux frames, encoded and parsed: the result does not depend on how the bytes are split into reads."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.errors import RemoteProtocolError
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
from tests.support.peers.byte_streams import cut

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
    """The frames that the parser finds in these reads, with the pieces of each put together."""
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


@given(frames, st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_are_parsed_however_they_are_split(wanted, places):
    assert fed(FrameParser(), cut(encoded(wanted), places)) == wanted


def test_frames_are_parsed_when_split_at_every_byte():
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


def test_the_end_flag_comes_with_the_last_piece():
    parser = FrameParser()
    data = encoded([Frame(DATA, SYN | FIN, 1, 4, b"last")])
    assert parser.feed(data[:14]) == [Frame(DATA, SYN, 1, 4, b"la")]
    assert parser.feed(data[14:15]) == [Frame(DATA, 0, 1, 0, b"s")]
    assert parser.feed(data[15:]) == [Frame(DATA, FIN, 1, 0, b"t")]


@pytest.mark.parametrize("header", ["010000000000000100000000", "000400000000000100000000"])
def test_an_invalid_frame_is_rejected(header):
    with pytest.raises(RemoteProtocolError, match="not a Yamux frame"):
        FrameParser().feed(bytes.fromhex(header))
