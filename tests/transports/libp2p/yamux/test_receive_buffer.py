"""The receive buffer of a stream: all bytes in order, in little more memory than their size."""

from __future__ import annotations

import secrets
import sys

from hypothesis import given
from hypothesis import strategies as st

from bacalhau_p2p.transports.libp2p.yamux.frames import DATA, FrameParser, encode_header
from bacalhau_p2p.transports.libp2p.yamux.receive_buffer import ReceiveBuffer


@given(st.lists(st.one_of(st.binary(max_size=30), st.integers(1, 40)), max_size=40))
def test_bytes_come_out_in_the_order_in_which_they_went_in(steps):
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


def test_single_bytes_are_joined():
    buffer = ReceiveBuffer()
    for number in range(100_000):
        buffer.append(b"%d" % (number % 10))
    assert len(buffer) == 100_000
    assert len(buffer._pieces) < 100_000 / 4096 + 2


def test_a_small_part_of_a_large_read_does_not_keep_the_whole_read_in_memory():
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
    assert isinstance(buffer._pieces[-1], memoryview)  # the usual case: no copy
    assert buffer.take(200_000) == bytes(100_000) + whole
