"""The OpenAPI document: complete, up to date, and true of what the node answers.

Covers `bodies.base`, `bodies.content`, `bodies.errors`, `bodies.jobs`, `bodies.nodes` and `documented`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx import ASGITransport

from bacalhau_p2p.api.app import create_app, framework_app
from bacalhau_p2p.node import Node
from bacalhau_p2p.testing.network import NodeNetwork, open_network

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
JOB = {"Labels": {"a": "b"}, "Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hi"}}}]}

METHODS = ("get", "put", "post", "delete")


@pytest.fixture
async def network(tmp_path) -> AsyncIterator[NodeNetwork]:
    async with open_network(tmp_path, compute_nodes=1, api_port=0) as opened:
        yield opened


@pytest.fixture
def app(network: NodeNetwork) -> FastAPI:
    return framework_app(network.requester, {})


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                yield f"{method.upper()} {path}", operation


async def test_the_document_in_the_repository_is_up_to_date(app):
    assert json.loads(DOCUMENT.read_text()) == json.loads(json.dumps(app.openapi())), "run scripts/openapi"


async def test_every_operation_says_what_it_is_for_and_what_it_answers(app):
    document = app.openapi()
    schemas = document["components"]["schemas"]
    for name, operation in operations(document):
        assert operation["tags"], name
        assert operation["description"], name
        assert operation["responses"]["4XX"]["content"]["application/json"]["schema"], name
        content = operation["responses"]["200"].get("content", {})
        assert next(iter(content.values()))["schema"], name
    references = set(json.dumps(document).split('"#/components/schemas/')[1:])
    assert {each.partition('"')[0] for each in references} <= set(schemas)
    assert "HTTPValidationError" not in schemas


async def test_the_token_is_asked_for_everywhere_but_where_clients_get_it(app):
    document = app.openapi()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    without = {name for name, operation in operations(document) if not operation["security"]}
    assert without == {
        "GET /api/v1/agent/alive",
        "GET /api/v1/agent/version",
        "GET /api/v1/agent/authconfig",
        "GET /api/v1/auth",
        "POST /api/v1/auth/{method}",
    }


def unknown_keys(value: Any, schema: dict[str, Any], schemas: dict[str, Any], path: str = "$") -> list[str]:
    """The keys of an answer that its schema does not have."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    for choice in schema.get("anyOf", ()):
        if (choice.get("type") == "null") == (value is None):
            return unknown_keys(value, choice, schemas, path)
    if isinstance(value, list):
        items = schema.get("items", {})
        return [each for item in value for each in unknown_keys(item, items, schemas, f"{path}[]")]
    properties = schema.get("properties")
    if not isinstance(value, dict) or properties is None:
        return []
    found = [f"{path}.{key}" for key in value if key not in properties]
    missing = [f"{path}.{key} is missing" for key in schema.get("required", ()) if key not in value]
    for key in value.keys() & properties.keys():
        found += unknown_keys(value[key], properties[key], schemas, f"{path}.{key}")
    return found + missing


async def test_answers_have_the_keys_that_the_document_says(network: NodeNetwork, app):
    node: Node = network.requester
    document = app.openapi()
    transport = ASGITransport(create_app(node))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1234") as http:

        async def check(method: str, path: str, template: str = "", **request: Any) -> Any:
            answer = await http.request(method, f"/api/v1/{path}", **request)
            operation = document["paths"][f"/api/v1/{template or path}"][method.lower()]
            key = "200" if answer.status_code == 200 else "4XX"
            schema = operation["responses"][key]["content"]["application/json"]["schema"]
            assert unknown_keys(answer.json(), schema, document["components"]["schemas"]) == []
            return answer.json()

        jobs, one = "orchestrator/jobs", "orchestrator/jobs/{job_id}"
        job_id = (await check("PUT", jobs, json={"Job": {**JOB, "Name": "named"}}))["JobID"]
        await check("GET", f"{jobs}/{job_id}", one, params={"wait": 60, "include": "executions,history"})
        await check("GET", f"{jobs}/{job_id}/history", f"{one}/history")
        await check("GET", f"{jobs}/{job_id}/events", f"{one}/events")
        await check("GET", jobs, params={"include": "executions"})
        await check("GET", f"{jobs}/{job_id}/executions", f"{one}/executions")
        await check("GET", f"{jobs}/{job_id}/results", f"{one}/results")
        await check("GET", f"{jobs}/{job_id}/versions", f"{one}/versions")
        await check("PUT", f"{jobs}/{job_id}/rerun", f"{one}/rerun")
        await check("PUT", f"{jobs}/diff", json={"Job": {**JOB, "Name": "named"}})
        await check("DELETE", f"{jobs}/{job_id}", one)
        await check("PUT", jobs, json={"Job": {"Tasks": []}})
        nodes = await check("GET", "orchestrator/nodes")
        node_id = nodes["Nodes"][0]["Info"]["NodeID"]
        await check("GET", f"orchestrator/nodes/{node_id}", "orchestrator/nodes/{node_id}")
        await check("PUT", f"orchestrator/nodes/{node_id}", "orchestrator/nodes/{node_id}", json={})
        for path in ("agent/alive", "agent/version", "agent/authconfig", "agent/config", "agent/node"):
            await check("GET", path)
        await check("GET", "healthz")
        await check("GET", "auth")
        await check("POST", "auth/clientkey", "auth/{method}", json={"MethodData": ""})
        await check("GET", "content")
        await check("POST", "content/gc")
