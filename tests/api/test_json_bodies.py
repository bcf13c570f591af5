"""JSON objects in the bodies of requests."""

from __future__ import annotations

import pytest
from fastapi import Request

from bacalhau_p2p.api.json_bodies import json_object, json_response, value_of
from bacalhau_p2p.errors import ApiError


def request(body: bytes) -> Request:
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)] or [b""]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    return Request({"type": "http", "method": "PUT", "headers": []}, receive)


async def test_a_body_is_an_object_or_absent():
    assert await json_object(request(b'{"reason": "enough"}'), most=20) == {"reason": "enough"}
    assert await json_object(request(b""), most=20) == {}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"[]", 400, "must be a JSON object"),
        (b"{", 400, "is not JSON"),
        (b"[" * 19, 400, "is not JSON"),
        (b'{"a": "\\ud800"}', 400, "half of a surrogate pair"),
        (b" " * 21, 413, "more than 20 bytes"),
    ],
)
async def test_any_other_body_is_refused(body, status, message):
    with pytest.raises(ApiError, match=message) as refused:
        await json_object(request(body), most=20)
    assert refused.value.status == status


def test_keys_may_have_any_letter_case():
    assert value_of({"reason": "a"}, "Reason") == "a"
    assert value_of({"REASON": 7}, "Reason") == 7
    assert value_of({}, "Reason") is None


def test_a_response_is_json():
    response = json_response({"a": [1, "\u00fc"]})
    assert (response.body, response.media_type) == ('{"a":[1,"\u00fc"]}'.encode(), "application/json")
