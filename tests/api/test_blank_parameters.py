"""A parameter without a value is as good as none."""

from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from bacalhau_p2p.api.blank_parameters import IgnoreBlankParameters


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (b"", b""),
        (b"a=1&b=2", b"a=1&b=2"),
        (b"a=&b=2", b"b=2"),
        (b"a=1&b=", b"a=1"),
        (b"a=&b=&c=", b""),
        (b"a=x%3D&b", b"a=x%3D&b"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_parameters_without_a_value_are_left_out(given, left, kind):
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["query_string"])

    async def nothing(*_: object) -> dict[str, object]:
        return {}

    await IgnoreBlankParameters(app)({"type": kind, "query_string": given}, nothing, nothing)
    await IgnoreBlankParameters(app)({"type": "lifespan", "query_string": b""}, nothing, nothing)
    assert seen == [left, b""]
