"""CIDs as text and bytes. What the type for CIDs makes of them is in `tests/ipfs/format/test_cid.py`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bacalhau_p2p.encoding.cids import binary_of_text, end_of_v1, split_v1, text_of_binary
from bacalhau_p2p.errors import InvalidCID
from bacalhau_p2p.model.fields import CIDText

V1 = b"\x01\x70\x12\x20" + bytes(range(32))
USUAL = "bafybeiaaaebagbafaydqqcikbmga2dqpcaireeyuculbogazdinryhi6d4"
CID_TEXT: TypeAdapter[str] = TypeAdapter(CIDText)


@pytest.mark.parametrize("text", [USUAL, "B" + USUAL[1:].upper(), "f" + V1.hex()])
def test_every_form_of_a_cid_has_the_same_bytes_and_the_same_usual_text(text):
    assert binary_of_text(text) == V1
    assert text_of_binary(V1) == USUAL
    assert CID_TEXT.validate_python(text) == USUAL


def test_the_text_of_version_0_stays_base58():
    text = text_of_binary(V1[2:])
    assert text.startswith("Qm")
    assert binary_of_text(text) == V1[2:]


def test_a_cid_of_version_1_has_codec_hash_function_and_digest():
    assert split_v1(V1) == (0x70, 0x12, V1[4:])
    assert end_of_v1(b"xx" + V1 + b"yy", 2) == 2 + len(V1)


@pytest.mark.parametrize(
    "binary", [b"", b"\x01", V1[:-1], V1 + b"x", b"\x02" + V1[1:], b"\x01" + b"\xff" * 40], ids=bytes.hex
)
def test_malformed_bytes_are_no_cid(binary):
    with pytest.raises(InvalidCID):
        split_v1(binary)


@pytest.mark.parametrize(
    "text",
    ["", "../../ESCAPED/dir/x", "\x1b[2J", "bafy", "Qm", "b", "z", "f01", "b" * 400, "k0"],
)
def test_other_text_is_no_cid(text):
    with pytest.raises(InvalidCID):
        binary_of_text(text)
    with pytest.raises(ValidationError):
        CID_TEXT.validate_python(text)


@given(st.one_of(st.text(max_size=80), st.text("0123456789abcdefghijkmnpqrstuvwxyzABCQ", max_size=80)))
def test_what_is_taken_for_a_cid_is_letters_and_digits_only(text: str) -> None:
    try:
        accepted: Any = CID_TEXT.validate_python(text)
    except ValidationError:
        return
    assert accepted.isascii()
    assert accepted.isalnum()
    assert CID_TEXT.validate_python(accepted) == accepted
