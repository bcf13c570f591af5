"""No request that fits or nearly fits the OpenAPI description is answered with a fault of the node.

`tests/api/test_error_responses` has the cases that this found.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from httpx import ASGITransport

from bacalhau_p2p.api import orchestrator
from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.node import Node
from bacalhau_p2p.testing.network import open_network

REQUESTS = 1500
ON_PURPOSE = frozenset({503, 507})
"""Statuses of 5xx that a healthy node may answer with."""
CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
# fmt: off
TEXTS = [
    "", "x", "0", "-1", "1", "1e400", "nan", "inf", "true", "null", "\ud7ff", "\U0010ffff", "\ufeff",
    "\0", "%", "%zz",
    "'\"; --", "..", "../..", "/", "//", "\r\nX: y", "\x1b[2J\u202e", "\u0661", "\u00b2", "9" * 18,
    "9" * 400, CID,
    f"{CID}/..", f"{CID}/a/b", "Qm" + "1" * 44, "bafy", "/ip4/127.0.0.1/tcp/1/p2p/x", "/ip4/\0", "1h",
    "9d9",
    "executions", "car", "raw", "tar", "all", "block", "first", "last", "a" * 3000, "[" * 300, "user",
    "execution:1",
]
VALUES: list[Any] = [
    None, True, -1, 0, 2**63, 2**64, 1e308, 0.5, [], {}, [[]], {"": {}}, "", "noop", "docker", "ipfs",
    "\0", "a" * 999,
    {"Type": "noop"}, {"Type": "docker", "Params": {}}, [{"Engine": {"Type": "noop"}}], CID, "1e9d",
    "\ud800", "\udfff",
]
KEYS = [
    "Job", "job", "IdempotencyToken", "Tasks", "Engine", "Type", "Params", "Name", "Count", "Labels",
    "Resources",
    "CPU", "InputSources", "Source", "Target", "CID", "URL", "Timeouts", "ExecutionTimeout", "Verifier",
    "Network",
    "", "\ud800",
]
HEADERS = [
    "accept", "range", "if-none-match", "if-range", "content-type", "authorization", "origin",
    "sec-fetch-site",
]
HEADER_VALUES = ["", "*/*", "bytes=0-", "bytes=9-1", f'"{CID}"', "none", "\xff",
    "application/vnd.ipld.car"]
# fmt: on


@pytest.fixture
async def node(tmp_path) -> AsyncIterator[Node]:
    async with open_network(tmp_path, compute_nodes=0, api_port=0, content_timeout=0.01) as network:
        yield network.requester


def text(generator: random.Random) -> str:
    if generator.random() < 0.8:
        return generator.choice(TEXTS)
    return "".join(chr(generator.choice([*range(0xD800), *range(0xE000, 0x110000, 97)])) for _ in range(5))


def value(generator: random.Random, depth: int = 0) -> Any:
    if depth > 4 or generator.random() < 0.4:
        return generator.choice(VALUES)
    if generator.random() < 0.3:
        return [value(generator, depth + 1) for _ in range(generator.randrange(3))]
    return {generator.choice(KEYS): value(generator, depth + 1) for _ in range(generator.randrange(5))}


def body(generator: random.Random) -> bytes:
    kind = generator.random()
    if kind < 0.6:
        return json.dumps(value(generator)).encode()
    if kind < 0.8:
        job = {"Tasks": [{"Engine": {"Type": "noop"}}], generator.choice(KEYS): value(generator)}
        return json.dumps({"Job": job, "IdempotencyToken": generator.choice(VALUES)}).encode()
    return generator.randbytes(generator.randrange(200))


def request(generator: random.Random, paths: dict[str, Any]) -> httpx.Request:
    """A request for one of the operations, with parameters that it has and values that it may not expect."""
    path, operations = generator.choice(list(paths.items()))
    method, operation = generator.choice(list(operations.items()))
    query = []
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(text(generator), safe=""))
        elif generator.random() < 0.6:
            query.append(f"{parameter['name']}={quote(text(generator))}")
    return httpx.Request(
        method.upper(),
        f"http://127.0.0.1:1234{path}?{'&'.join(query)}",
        content=body(generator) if method in ("put", "post") else b"",
        headers=[
            (name, generator.choice(HEADER_VALUES).encode("latin-1"))
            for name in HEADERS
            if generator.random() < 0.1
        ],
    )


async def test_no_request_is_a_fault_of_the_node(node, monkeypatch):
    monkeypatch.setattr(orchestrator, "MAX_WAIT", 0.001)
    seed = int(os.environ.get("API_FUZZ_SEED") or random.SystemRandom().randrange(2**32))
    generator = random.Random(seed)
    transport = ASGITransport(create_app(node), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1234") as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert len(paths) > 10
        statuses = set()
        for number in range(int(os.environ.get("API_FUZZ_REQUESTS") or REQUESTS)):
            made = request(generator, paths)
            answer = await http.send(made)
            statuses.add(answer.status_code)
            assert answer.status_code < 500 or answer.status_code in ON_PURPOSE, (
                seed,
                number,
                made,
                made.content,
            )
            if answer.status_code >= 400 and answer.status_code != 416 and made.method != "HEAD":
                assert answer.json()["Error"], (seed, number)
    assert {200, 400, 404} <= statuses
