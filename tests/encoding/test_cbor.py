from __future__ import annotations

import cbor2
import pytest

from bacalhau_p2p.encoding.cbor import strict_loads
from bacalhau_p2p.errors import RemoteProtocolError


def test_plain_data_is_decoded():
    value = {"text": "é", "bytes": b"\0\xff", "list": [1, -1, 1.5, True, None], "map": {"a": {}}}
    assert strict_loads(cbor2.dumps(value), max_depth=4) == value


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not plain CBOR"),
        (b"\xa1\x61a", "not plain CBOR"),
        (cbor2.dumps({"a": 1}) + b"\0", "bytes after the end"),
        (b"\xa2\x61a\x01\x61a\x02", "not plain CBOR"),  # a repeated key
        (b"\x9f\x01\xff", "not plain CBOR"),  # an indefinite length
        (b"\xc1\x00", "tags are not allowed"),  # a time, which cbor2 would decode
        (b"\xd8\x1c\x80", "tags are not allowed"),  # a shared value
        (b"\xd9\x30\x39\x00", "tags are not allowed"),  # a tag that nobody knows
        (b"\xf7", "simple values are not allowed"),  # undefined
        (b"\x81\xf8\x63", "simple values are not allowed"),
        (b"\xa1\x61a\xf9\x7c\x00", "not finite"),
        (b"\xfb\x7f\xf8\0\0\0\0\0\0", "not finite"),
        (b"\xa1\x01\x02", "key of a map is not text"),
        (b"\xa1\x80\x02", "key of a map is not text"),
        (b"\x81\x1b" + b"\xff" * 8, "more than 64 bits"),
        (b"\x3b" + b"\xff" * 8, "more than 64 bits"),
        (b"\x9a\x00\x03\x0d\x41" + b"\x00" * 200_001, "more than 200000 values"),
    ],
)
def test_whatever_is_not_plain_data_is_refused(payload, reason):
    with pytest.raises(RemoteProtocolError, match=reason):
        strict_loads(payload, max_depth=4)


def test_nesting_is_limited():
    assert strict_loads(cbor2.dumps([[[]]]), max_depth=2) == [[[]]]
    with pytest.raises(RemoteProtocolError, match="depth"):
        strict_loads(cbor2.dumps([[[[]]]]), max_depth=2)
