"""The frames of the protocol for logs: strict, and bounded (`log_streams`)."""

from __future__ import annotations

import cbor2
import pytest
import trio

from bacalhau_p2p.bprotocol.log_streams import (
    MAX_ERROR,
    MAX_PIECE,
    MAX_TAIL,
    FrameReader,
    LogEnd,
    LogRequest,
    decode_answer,
    decode_request,
    encode_end,
    encode_piece,
    encode_request,
)
from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.logs import LogPiece, LogStream

RUN = ExecutionID("e-1")


class Bytes(trio.abc.ReceiveStream):
    """Gives the bytes one by one."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        first, self.data = self.data[:1], self.data[1:]
        return first

    async def aclose(self):
        await trio.lowlevel.checkpoint()


async def only_frame(data: bytes) -> bytes:
    return await FrameReader(Bytes(data), 2 * MAX_PIECE).next()


@pytest.mark.parametrize(
    "request_",
    [
        LogRequest(execution_id=RUN),
        LogRequest(execution_id=RUN, follow=True, tail=0, offsets=(7, 2**40)),
    ],
)
async def test_a_question_is_read_as_it_was_written(request_):
    assert decode_request(await only_frame(encode_request(request_))) == request_


async def test_an_answer_is_read_as_it_was_written():
    piece = await only_frame(encode_piece(LogStream.STDERR, 5, b"\xff"))
    assert decode_answer(piece, RUN) == LogPiece(RUN, LogStream.STDERR, 5, b"\xff")
    assert decode_answer(await only_frame(encode_end()), RUN) == LogEnd("")
    assert decode_answer(await only_frame(encode_end("x" * 9999)), RUN) == LogEnd("x" * MAX_ERROR)


async def test_the_end_of_a_stream_is_no_frame():
    assert await FrameReader(Bytes(b""), 9).next() is None
    assert await FrameReader(Bytes(b"\x05abc"), 9).next() is None


async def test_a_frame_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(RemoteProtocolError, match="the limit is 9"):
        await FrameReader(Bytes(encode_frame(b"x" * 10)), 9).next()


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"execution": 3},
        {"execution": "e", "follow": 1},
        {"execution": "e", "stdout": -1},
        {"execution": "e", "stdout": 2**61},
        {"execution": "e", "stderr": True},
        {"execution": "e", "tail": "9"},
    ],
)
def test_a_malformed_question_is_refused(value):
    with pytest.raises(RemoteProtocolError):
        decode_request(cbor2.dumps(value))


def test_what_is_unknown_is_ignored_and_what_is_absent_has_its_default():
    assert decode_request(cbor2.dumps({"execution": "e-1", "new": {}})) == LogRequest(execution_id=RUN)
    many = decode_request(cbor2.dumps({"execution": "e-1", "tail": 10**9}))
    assert many.tail == MAX_TAIL


@pytest.mark.parametrize(
    "value",
    [
        "text",
        {},
        {"stream": 3, "offset": 0, "data": b""},
        {"stream": 1, "offset": -1, "data": b""},
        {"stream": 1, "offset": 0, "data": "text"},
        {"stream": 1, "offset": 0, "data": b"x" * (MAX_PIECE + 1)},
        {"end": 1},
    ],
    ids=range(7),
)
def test_a_malformed_answer_is_refused(value):
    with pytest.raises(RemoteProtocolError):
        decode_answer(cbor2.dumps(value), RUN)
