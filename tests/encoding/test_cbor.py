from __future__ import annotations

import os

import cbor2
import pytest

from bacalhau_p2p.encoding import cbor
from bacalhau_p2p.encoding.cbor import MAX_CONTAINERS, array_length, strict_loads
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


def test_one_payload_leaves_nothing_behind_for_the_next():
    value = {"a": [1, 2, {"b": b"bytes"}]}
    good = cbor2.dumps(value)
    for bad in (good + good, good[:-1], b"\xc1\x00", b"\x9f\x01\xff", b"\x81" * 9, cbor2.dumps("x" * 9)[:-1]):
        assert strict_loads(good, max_depth=4) == value
        with pytest.raises(RemoteProtocolError):
            strict_loads(bad, max_depth=4)
    assert strict_loads(good, max_depth=4) == value


def test_each_payload_may_have_its_own_number_of_tags():
    tags = cbor2.dumps([cbor2.CBORTag(12345, n) for n in range(cbor.MAX_TAGS)])
    for _ in range(3):
        assert len(cbor.loads_unchecked(tags, max_depth=4)) == cbor.MAX_TAGS
    with pytest.raises(RemoteProtocolError, match="tags are not allowed"):
        strict_loads(tags, max_depth=4)


def test_nesting_is_limited():
    assert strict_loads(cbor2.dumps([[[]]]), max_depth=2) == [[[]]]
    with pytest.raises(RemoteProtocolError, match="depth"):
        strict_loads(cbor2.dumps([[[[]]]]), max_depth=2)


def test_a_million_empty_lists_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(cbor, "CBORDecoder", None)
    payload = b"\x9a" + (1_000_000).to_bytes(4, "big") + b"\x80" * 1_000_000
    with pytest.raises(RemoteProtocolError, match="more than 30000 maps and arrays"):
        strict_loads(payload, max_depth=4)


def test_a_million_numbers_beside_many_lists_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(cbor, "CBORDecoder", None)
    payload = b"\x9a" + (1_000_000).to_bytes(4, "big") + b"\x01" * 960_000 + b"\x80" * 40_000
    with pytest.raises(RemoteProtocolError, match="more than 200000 values"):
        strict_loads(payload, max_depth=4)


@pytest.mark.parametrize("container", [[], {}, [1], {"a": 1.5}, {"a": "x" * 300}])
def test_as_many_maps_and_arrays_as_allowed_are_decoded(container):
    value = [container] * (MAX_CONTAINERS - 1)
    assert strict_loads(cbor2.dumps(value), max_depth=4) == value
    with pytest.raises(RemoteProtocolError, match="more than 30000 maps and arrays"):
        strict_loads(cbor2.dumps([*value, [container]]), max_depth=4)


@pytest.mark.parametrize("length", [23, 24, 255, 256, 65_535, 65_536, 300_000])
def test_bytes_that_look_like_maps_and_arrays_are_not_counted(length):
    value = [b"\x80" * length, os.urandom(200_000), "\u00a0" * length, 1, 2**40, -1.5, {"a": [None]}]
    assert strict_loads(cbor2.dumps(value), max_depth=4) == value


@pytest.mark.parametrize("end", [b"\x5b\xff", b"\x5b" + b"\xff" * 8, b"\x9c", b"\xff"])
def test_what_is_malformed_after_many_bytes_is_refused(end):
    payload = cbor2.dumps([b"\x80" * 40_000, 1])[:-1] + end
    with pytest.raises(RemoteProtocolError, match="not plain CBOR"):
        strict_loads(payload, max_depth=4)


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 65_536])
def test_the_length_of_an_array_is_in_its_first_bytes(count):
    assert array_length(cbor2.dumps([1] * count)) == count


@pytest.mark.parametrize("payload", [b"", b"\x9f\x01\xff", cbor2.dumps({}), cbor2.dumps("text"), b"\x9c"])
def test_what_is_no_array_has_no_length(payload):
    assert array_length(payload) is None
