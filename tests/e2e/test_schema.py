"""schemathesis against a node in a process of its own: whatever the OpenAPI document allows is answered as it
says, and what it does not allow is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.networks.networks import Node

pytest.importorskip("schemathesis", reason="scripts/setup --test installs it")
pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[2]
TOKEN = "the-token"
CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 406, 409, 413, 429, "5xx"]

[[operations]]
include-name = "PUT /api/v1/content"
checks.positive_data_acceptance.expected-statuses = ["2xx", 422]

[[operations]]
include-name = "PUT /api/v1/orchestrator/jobs/diff"
checks.allow_header_conformance.enabled = false
"""
"""400: what no schema can say, such as which CID is one, or which selector."""


def known(node: Node) -> dict[str, str]:
    """Things that exist: a job that has ended, its result, and the node."""
    job = {"Name": "known", "Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hello\n"}}}]}

    def ask(method: str, path: str, body: object = None) -> dict:
        url = f"http://127.0.0.1:{node.network.port}/api/v1/orchestrator/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Authorization": f"Bearer {TOKEN}"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    job_id = ask("PUT", "jobs", {"Job": job})["JobID"]
    assert ask("GET", f"jobs/{job_id}?wait=60")["Job"]["State"]["StateType"] == "Completed"
    (result,) = ask("GET", f"jobs/{job_id}/results")["Items"]
    return {"KNOWN_JOB": job_id, "KNOWN_NODE": node.peer_id, "KNOWN_CID": result["Params"]["CID"]}


def test_a_node_answers_as_its_document_says(tmp_path, monkeypatch):
    monkeypatch.setenv("BACALHAU_P2P_API_TOKEN", TOKEN)
    node = Node(tmp_path / "node", "--engine", "noop", "--no-mdns")
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    url = f"http://127.0.0.1:{node.network.port}"
    try:
        checked = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
                *("--header", f"Authorization: Bearer {TOKEN}", "--phases", "examples,coverage,fuzzing"),
                *("--max-examples", "3", "--seed", "1", "--no-shrink", "--no-color", "--continue-on-failure"),
                *("--request-timeout", "60", "--generation-database", "none", "--workers", "1"),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                **known(node),
                "PYTHONPATH": str(ROOT),
                "SCHEMATHESIS_HOOKS": "tests.support.clients.schemathesis_hooks",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert checked.returncode == 0, checked.stdout[-20_000:] + checked.stderr[-2_000:]
    finally:
        log = node.stop()
    assert "Traceback" not in log
