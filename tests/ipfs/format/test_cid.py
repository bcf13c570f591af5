from __future__ import annotations

import hashlib

import pytest

from bacalhau_p2p.errors import InvalidCID, InvalidContent
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW, SHA2_256

EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
README_V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
README_V1 = "bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34"


def test_the_cid_of_an_empty_raw_block_is_the_known_one():
    cid = CID.of(RAW, b"")
    assert str(cid) == EMPTY
    assert (cid.version, cid.codec, cid.hash_code) == (1, RAW, SHA2_256)
    assert cid.digest == hashlib.sha256(b"").digest()


def test_a_cid_of_version_0_prints_as_base58_and_has_an_equivalent_of_version_1():
    cid = CID.parse(README_V0)
    assert str(cid) == README_V0
    assert (cid.version, cid.codec) == (0, DAG_PB)
    assert cid != CID.parse(README_V1)
    assert cid.v1 == CID.parse(README_V1)
    assert cid.digest == CID.parse(README_V1).digest


@pytest.mark.parametrize(
    "text",
    [
        README_V1,
        README_V1.upper(),
        "zdj7Wg2Qkk4mYgAkVU1kppfQ2sMGz5zPwERVpeWmxCQLDxVoC",
        "f01701220" + CID.parse(README_V1).digest.hex(),
    ],
    ids=["base32", "base32 upper", "base58", "hex"],
)
def test_a_cid_is_parsed_from_every_base(text):
    assert CID.parse(text) == CID.parse(README_V1)
    assert str(CID.parse(text)) == README_V1


def test_base36_parses_to_the_same_cid():
    number = int.from_bytes(CID.parse(EMPTY).binary, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    assert CID.parse("k" + digits) == CID.parse(EMPTY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bafy",
        f"ipfs://{EMPTY}",
        f"{EMPTY}/stdout",
        f" {EMPTY}",
        EMPTY[:-1],
        EMPTY + "a",
        EMPTY[:-1] + "v",  # the last character carries bits that must be zero
        EMPTY[:10].upper() + EMPTY[10:],
        README_V0[:-1],
        "Qm" + "l" * 44,
        "zzz",
        "k" + "0" * 10,
        "k51QZI5UQU5DGO",
        "m" + "A" * 48,
        "b" * 400,
        "bäfy",
    ],
)
def test_text_that_is_no_cid_is_refused(text):
    with pytest.raises(InvalidCID, match="CID"):
        CID.parse(text)


def test_only_the_block_of_a_cid_verifies():
    cid = CID.of(DAG_PB, b"block")
    assert cid.verify(b"block")
    assert not cid.verify(b"blocK")
    assert not CID.of(0x71, b"block").verify(b"block")
    cid.require_match(b"block")
    with pytest.raises(InvalidContent, match=f"block {cid} does not match its hash"):
        cid.require_match(b"blocK")
    with pytest.raises(InvalidContent, match="codec 0x71"):
        CID.of(0x71, b"block").require_match(b"block")


@pytest.mark.parametrize(
    ("binary", "message"),
    [
        (CID.of(0x71, b"x").binary, "codec 0x71"),
        (b"\x01\x55\x13\x40" + bytes(64), "hash function 0x13"),
        (b"\x01\x55\x00\x03abc", "hash function 0x0"),
    ],
)
def test_only_raw_and_dag_pb_with_sha2_256_are_fetchable(binary, message):
    cid = CID(binary)
    assert not cid.fetchable
    with pytest.raises(InvalidContent, match=message):
        cid.require_fetchable()


@pytest.mark.parametrize(
    "binary", [b"", b"\x01", b"\x01\x55\x12\x20abc", b"\x01\x55\x12\x10" + bytes(16), bytes(36)]
)
def test_malformed_bytes_are_no_cid(binary):
    with pytest.raises(InvalidCID):
        CID(binary)


def test_equal_cids_have_equal_hashes():
    assert {CID.parse(EMPTY): 1}[CID.of(RAW, b"")] == 1


def test_a_cid_is_read_from_the_middle_of_other_bytes():
    cid = CID.parse(README_V0)
    assert CID.read(b"x" + cid.binary + b"rest", 1) == (cid, 35)
    with pytest.raises(InvalidCID):
        CID.read(CID.parse(EMPTY).binary[:-1])
