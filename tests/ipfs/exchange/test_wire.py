from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.exchange.wire import Answer, Operation, Request, Status, take_message
from bacalhau_p2p.ipfs.format.car import header, section
from bacalhau_p2p.ipfs.format.cid import CID, RAW

HELLO = CID.of(RAW, b"hello\n")


def test_the_example_in_the_documentation_is_what_we_send():
    document = (Path(__file__).parents[3] / "docs" / "content.md").read_text()
    example = dict(line.split() for line in document.split("```")[-2].strip().splitlines() if line)
    assert {name: bytes.fromhex(text) for name, text in example.items()} == {
        "have": Request(operation=Operation.HAVE, cid=HELLO).encode(),
        "get": Request(operation=Operation.GET, cid=HELLO).encode(),
        "ok": Answer(status=Status.OK).encode(),
        "CAR": header([HELLO]),
        "block": section(HELLO, b"hello\n"),
    }


@pytest.mark.parametrize(
    "message",
    [
        Request(operation=Operation.HAVE, cid=HELLO, wanted=(HELLO,)),
        Request(operation=Operation.GET, cid=HELLO, wanted=(HELLO, HELLO), flat=True),
        Answer(status=Status.BUSY, reason="too many requests"),
        Answer(status=Status.MISSING, holds=b"\x00\x01\x02"),
    ],
)
def test_messages_survive_a_round_trip(message):
    assert type(message).decode(take_message(bytearray(message.encode())) or b"") == message


@pytest.mark.parametrize(
    "tag", [0, 1, 2, 4, 5, 25, 28, 29, 30, 35, 36, 37, 42, 100, 258, 260, 1004, 55799, 99999]
)
def test_every_cbor_tag_is_refused(tag):
    payload = b"\xa1\x62op\xda" + tag.to_bytes(4, "big") + b"\x61a"
    with pytest.raises(RemoteProtocolError, match="tag"):
        Request.decode(payload)
