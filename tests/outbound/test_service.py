"""Requests to a service, with `bodies`. Its retries are in the tests of remote publishers."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.outbound.bodies import multipart
from bacalhau_p2p.outbound.service import Service, json_at


@pytest.mark.parametrize("endpoint", ["", "pin.example", "ftp://pin.example", "https://"])
def test_an_endpoint_that_is_not_a_url_is_a_settings_error(endpoint):
    with pytest.raises(SettingsError, match="is not an http or https URL"):
        Service(endpoint)


async def test_a_form_with_a_file_is_streamed():
    async def pieces():
        yield b"one"
        yield b"two"

    body, content_type = multipart("file", "a.car", "application/x", pieces)
    boundary = content_type.partition("boundary=")[2].encode()
    sent = b"".join([piece async for piece in body()])
    head, _, rest = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"--" + boundary + b"\r\n")
    assert b'name="file"; filename="a.car"' in head
    assert rest == b"onetwo\r\n--" + boundary + b"--\r\n"


def test_the_token_is_removed_from_a_services_text():
    service = Service("https://pin.example", "Basic c2VzYW1l")
    assert service.sanitized("bad token c2VzYW1l,\nBasic c2VzYW1l") == "bad token ***, ***"
    assert len(service.sanitized("x" * 1000)) == 200


def test_a_value_is_looked_up_in_nested_objects():
    assert json_at({"a": {"b": 1}}, "a", "b") == 1
    assert json_at({"a": [1]}, "a", "b") is None
    assert json_at(None, "a") is None
