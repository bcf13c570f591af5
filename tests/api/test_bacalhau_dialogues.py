"""What Bacalhau v1.9's command line asks, answered with the statuses and shapes of Bacalhau's own server.

Its dialogues, as raw HTTP to a node. Covers `orchestrator`, `authentication`, `nodes`,
`submissions` and `result_archives`.
"""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.errors import Fault
from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.testing.network import open_network
from tests.support.clients import bacalhau_requests as requests
from tests.support.clients import shapes
from tests.support.clients.shapes import mismatches, page_of

JOBS = "/api/v1/orchestrator/jobs"
NODES = "/api/v1/orchestrator/nodes"
UNKNOWN = "j-00000000-0000-0000-0000-000000000000"


class Echo(NoopExecutor):
    """Stands for Docker: writes the words of its command, and fails to start `missing`."""

    @property
    def engine(self) -> str:
        return "docker"

    def faults(self, engine: SpecConfig) -> list[Fault]:
        return []

    async def run(self, request: RunRequest) -> RunOutput:
        with ResultsFolder(request.results, request.result_paths) as results:
            results.stdout.write(" ".join(request.engine.params["Parameters"]).encode())
            results.stderr.write(b"err")
            return results.finish(3)


class Go:
    """Sends requests as Bacalhau's client in Go does."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(self, shape: Any, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """The answer, which has this status and shape."""
        answer = await self._http.request(method, path, json=body, headers=requests.HEADERS)
        assert answer.status_code == status, answer.text
        assert answer.content, "an empty answer is an error to the client"
        assert answer.headers["content-type"] == "application/json"
        assert mismatches(answer.json(), shape) == []
        return answer.json()

    async def run(self, specification: dict[str, Any]) -> str:
        """Submit a job and follow it to its end."""
        submitted = await self.ask(shapes.SUBMITTED, "PUT", JOBS, requests.submission(specification))
        job_id = str(submitted["JobID"])
        ended = await self.ask({"Job": shapes.JOB}, "GET", f"{JOBS}/{job_id}?wait=60")
        assert ended["Job"]["State"]["StateType"] == "Completed", ended["Job"]["State"]
        return job_id


@asynccontextmanager
async def served(folder: Path, *, compute_nodes: int = 1, **settings: Any) -> AsyncIterator[tuple[Go, str]]:
    """A requester, and a compute node that echoes. Yields a client, and the id of the requester."""
    async with (
        open_network(
            folder, compute_nodes=compute_nodes, api_port=0, executors={0: [Echo()]}, **settings
        ) as network,
        serve_api(network.requester) as url,
        httpx.AsyncClient(base_url=url, timeout=90) as http,
    ):
        yield Go(http), network.requester.peer_id


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


async def test_a_client_signs_in_before_its_first_request(tmp_path, key):
    method = {"type": shapes.TEXT, "params": {"InputPhrase": shapes.TEXT}}
    async with served(tmp_path, compute_nodes=0) as (go, _):
        shown = await go.ask(
            {"NextToken": shapes.TEXT, "Methods": {"clientkey": method}}, "GET", "/api/v1/auth"
        )
        phrase = base64.b64decode(shown["Methods"]["clientkey"]["params"]["InputPhrase"])
        allowed = {"Authentication": {"success": shapes.FLAG, "token": shapes.TEXT}}
        answer = await go.ask(allowed, "POST", "/api/v1/auth/clientkey", requests.signature(phrase, key))
        assert answer["Authentication"]["success"]
        assert answer["Authentication"]["token"]
        other = requests.signature(b"another phrase", key)
        await go.ask(shapes.ERROR, "POST", "/api/v1/auth/clientkey", other, status=403)


async def test_a_node_describes_itself(tmp_path):
    async with served(tmp_path) as (go, node_id):
        alive = await go.ask({"Status": shapes.TEXT}, "GET", "/api/v1/agent/alive")
        assert alive == {"Status": "OK"}
        version = await go.ask(shapes.VERSION, "GET", "/api/v1/agent/version")
        assert version["GOOS"] == "linux"
        config = {"config": {"API": {"Host": shapes.TEXT, "Port": shapes.WHOLE}}}
        await go.ask(config, "GET", "/api/v1/agent/config")
        await go.ask({"Version": shapes.TEXT, "Config": {}}, "GET", "/api/v1/agent/authconfig")
        node = await go.ask(shapes.NODE_INFO, "GET", "/api/v1/agent/node")
        assert (node["NodeID"], node["NodeType"]) == (node_id, "Requester")
        await go.ask({}, "GET", "/api/v1/agent/debug")


async def test_nodes_are_listed_and_described(tmp_path):
    async with served(tmp_path) as (go, requester):
        listed = await go.ask(page_of(shapes.NODE, "Nodes"), "GET", NODES)
        assert listed["nodes"] == listed["Nodes"], "clients in Python read the second key"
        (compute,) = (each for each in listed["Nodes"] if each["Info"]["NodeType"] == "Compute")
        assert mismatches(compute["Info"], shapes.COMPUTE_NODE_INFO) == []
        node_id = compute["Info"]["NodeID"]
        described = await go.ask({"Node": shapes.NODE}, "GET", f"{NODES}/{node_id}")
        assert described["Node"]["Info"]["NodeID"] == node_id
        assert described["node"] == described["Node"]
        for query, count in (
            ("labels=name%3Dcompute-0", 1),
            ("labels=name%21%3Dcompute-0", 1),
            ("filter-status=disconnected", 0),
            ("filter-status=CONNECTED&filter-approval=approved", 2),
            ("filter-approval=pending", 0),
            ("order_by=available_cpu&reverse=true&limit=1", 1),
        ):
            found = await go.ask(page_of(shapes.NODE, "Nodes"), "GET", f"{NODES}?{query}")
            assert (query, len(found["Nodes"])) == (query, count)
        first = await go.ask(page_of(shapes.NODE, "Nodes"), "GET", f"{NODES}?limit=1")
        rest = await go.ask({}, "GET", f"{NODES}?limit=1&next_token={first['NextToken']}")
        assert {page["Nodes"][0]["Info"]["NodeID"] for page in (first, rest)} == {node_id, requester}
        assert rest["NextToken"] == ""


async def test_a_node_that_nobody_knows_is_not_found_and_nobody_approves_nodes(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (go, node_id):
        unknown = await go.ask(shapes.ERROR, "GET", f"{NODES}/nosuch", status=404)
        assert (unknown["Code"], unknown["Component"]) == ("NotFound", "NodesManager")
        approve = {**requests.ENVELOPE, "Action": "approve", "Message": "", "NodeID": "nosuch"}
        await go.ask(shapes.ERROR, "PUT", f"{NODES}/nosuch", approve, status=404)
        refused = {"Success": shapes.FLAG, "Error": shapes.TEXT}
        answer = await go.ask(refused, "PUT", f"{NODES}/{node_id}", {**approve, "NodeID": node_id})
        assert not answer["Success"]


async def test_a_docker_job_is_run_listed_and_described(tmp_path):
    async with served(tmp_path) as (go, _):
        job_id = await go.run(requests.job(requests.docker("from-go")))
        followed = f"{JOBS}/{job_id}/history?event_type=all&limit=10"
        history = await go.ask(page_of(shapes.HISTORY), "GET", followed)
        while history["NextToken"]:
            query = f"{followed}&next_token={history['NextToken']}"
            history = await go.ask(page_of(shapes.HISTORY), "GET", query)
        described = {
            "Job": shapes.JOB,
            "Executions": page_of(shapes.EXECUTION),
            "History": page_of(shapes.HISTORY),
        }
        shown = await go.ask(described, "GET", f"{JOBS}/{job_id}?include=executions%2Chistory")
        assert shown["Job"]["Name"] == job_id
        assert all(isinstance(each, int) for each in shown["Job"]["Tasks"][0]["Timeouts"].values())
        (execution,) = shown["Executions"]["Items"]
        assert (execution["ComputeState"]["StateType"], execution["DesiredState"]["StateType"]) == (9, 2)
        assert execution["RunOutput"]["Stdout"] == "from-go"
        assert (execution["RunOutput"]["stderr"], execution["RunOutput"]["ExitCode"]) == ("err", 3)
        executions = f"{JOBS}/{job_id}/executions?limit=20"
        assert (await go.ask(page_of(shapes.EXECUTION), "GET", executions))["Items"] == [execution]
        blank = f"{JOBS}/{job_id}/executions?namespace=&limit=5&next_token=&reverse=False&order_by="
        assert (await go.ask(page_of(shapes.EXECUTION), "GET", blank))["Items"] == [execution]
        query = "labels=bacalhau_canary%21%3Dtrue&limit=10"
        listed = await go.ask(page_of(shapes.JOB), "GET", f"{JOBS}?{query}")
        assert [job["ID"] for job in listed["Items"]] == [job_id]
        none = await go.ask(page_of(shapes.JOB), "GET", f"{JOBS}?labels=a%3Db&limit=2&order_by=created_at")
        assert none == {"NextToken": "", "Items": []}
        versions = await go.ask(page_of(shapes.JOB), "GET", f"{JOBS}/{job_id}/versions")
        assert [job["Version"] for job in versions["Items"]] == [1]
        await go.ask(shapes.ERROR, "GET", f"{JOBS}/{job_id}?job_version=2", status=404)


async def test_a_job_that_nobody_knows_is_not_found(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (go, _):
        for path in (UNKNOWN, f"{UNKNOWN}/executions", f"{UNKNOWN}/results", f"{UNKNOWN}/versions"):
            unknown = await go.ask(shapes.ERROR, "GET", f"{JOBS}/{path}", status=404)
            assert (unknown["Code"], unknown["Component"]) == ("NotFound", "JobStore")
            assert UNKNOWN in unknown["Message"]
        await go.ask(shapes.ERROR, "DELETE", f"{JOBS}/{UNKNOWN}", requests.ENVELOPE, status=404)
        await go.ask(shapes.ERROR, "PUT", f"{JOBS}/{UNKNOWN}/rerun", requests.ENVELOPE, status=404)


async def test_every_error_has_the_same_body(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (go, _):
        for method, path, status in (
            ("GET", "/api/v1/nothing", 404),
            ("GET", "/nothing", 404),
            ("POST", JOBS, 405),
            ("GET", f"{JOBS}?limit=soon", 422),
            ("GET", f"{JOBS}?labels=a%20b", 400),
            ("GET", f"{JOBS}?state=Sleeping", 422),
            ("PUT", JOBS, 400),
        ):
            error = await go.ask(shapes.ERROR, method, path, status=status)
            assert error["Status"] == status
            assert "\n" not in error["Message"]


async def test_a_job_that_is_refused_names_every_fault(tmp_path):
    async with served(tmp_path) as (go, _):
        endless = requests.job(requests.docker("true")) | {"Type": "daemon", "Count": -1}
        error = await go.ask(shapes.ERROR, "PUT", JOBS, requests.submission(endless), status=400)
        assert error["Details"]["Type"].startswith("daemon jobs never end")
        assert set(error["Details"]) == {"Type", "Count"}


async def test_the_reason_of_a_stop_is_kept_from_the_body_or_the_query(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (go, _):
        for query, reason, kept in (
            ("", "Stopped at user request", "Stopped at user request"),
            ("?reason=enough", "", "enough"),
            ("", None, "cancelled by the user"),
        ):
            noop = requests.submission(requests.job({"Type": "noop", "Params": {}}))
            job_id = (await go.ask(shapes.SUBMITTED, "PUT", JOBS, noop))["JobID"]
            body = requests.ENVELOPE if reason is None else {**requests.ENVELOPE, "reason": reason}
            await go.ask({"EvaluationID": shapes.TEXT}, "DELETE", f"{JOBS}/{job_id}{query}", body)
            stopped = await go.ask({"Job": shapes.JOB}, "GET", f"{JOBS}/{job_id}?wait=60")
            assert stopped["Job"]["State"] == {"StateType": "Stopped", "Message": kept}
            ended = await go.ask(shapes.ERROR, "DELETE", f"{JOBS}/{job_id}{query}", body, status=409)
            assert ended["Message"] == f"job {job_id} cannot be stopped: it is stopped"


async def test_a_job_is_known_by_its_name_and_compared_and_run_again(tmp_path):
    async with served(tmp_path) as (go, _):
        named = requests.job(requests.docker("true"), name="Docker Job with Output")
        job_id = await go.run(named)
        path = f"{JOBS}/Docker%20Job%20with%20Output"
        assert (await go.ask({"Job": shapes.JOB}, "GET", path))["Job"]["ID"] == job_id
        difference = {"Diff": shapes.TEXT, "Warnings": (None, [shapes.TEXT])}
        same = await go.ask(difference, "PUT", f"{JOBS}/diff", requests.submission(named))
        assert same["Diff"] == ""
        more = requests.submission({**named, "Count": 2})
        lines = (await go.ask(difference, "PUT", f"{JOBS}/diff", more))["Diff"].splitlines()
        assert {"-Count: 1", "+Count: 2"} <= set(lines)
        other = requests.submission({**named, "Name": "unheard"})
        await go.ask(shapes.ERROR, "PUT", f"{JOBS}/diff", other, status=404)
        again = {**requests.ENVELOPE, "JobVersion": 0, "Reason": ""}
        rerun = {**shapes.SUBMITTED, "JobVersion": shapes.WHOLE}
        second = (await go.ask(rerun, "PUT", f"{JOBS}/{job_id}/rerun", again))["JobID"]
        assert second != job_id
        ambiguous = await go.ask(shapes.ERROR, "GET", path, status=409)
        assert ambiguous["Message"].startswith("several jobs have the name Docker Job with Output")
        latest = await go.ask({"Job": shapes.JOB}, "GET", f"{JOBS}/{second}?wait=60")
        assert latest["Job"]["Tasks"] == (await go.ask({}, "GET", f"{JOBS}/{job_id}"))["Job"]["Tasks"]


async def test_a_result_is_an_archive_at_a_url(tmp_path):
    item = {"Type": shapes.TEXT, "Params": {"URL": shapes.TEXT, "CID": shapes.TEXT}}
    async with served(tmp_path) as (go, _), httpx.AsyncClient() as anybody:
        paths = [{"Name": "out", "Path": "/out"}]
        job_id = await go.run(requests.job(requests.docker("hi"), ResultPaths=paths))
        (result,) = (await go.ask(page_of(item), "GET", f"{JOBS}/{job_id}/results"))["Items"]
        url = result["Params"]["URL"]
        assert (result["Type"], httpx.URL(url).path[-7:]) == ("urlDownload", ".tar.gz")
        archive = gzip.decompress((await anybody.get(url)).content)
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            names = {name.removeprefix("./") for name in opened.getnames()}
            stdout = opened.extractfile("./stdout")
            assert stdout is not None
            assert stdout.read() == b"hi"
        assert names == {".", "stdout", "stderr", "exitCode", "out"}
        unknown = url.replace(result["Params"]["CID"], "bafy")
        assert (await anybody.get(unknown)).json()["Message"].endswith("has no result bafy.tar.gz")


async def test_wherever_a_token_is_wanted_clients_can_ask_for_it(tmp_path):
    settings = {"api_token": "secret"}
    ask = {"type": shapes.TEXT, "params": {"properties": {"token": {}}}}
    async with served(tmp_path, **settings) as (go, _):
        for path in ("alive", "version", "authconfig"):
            await go.ask({}, "GET", f"/api/v1/agent/{path}")
        shown = await go.ask({"Methods": {"token": ask}}, "GET", "/api/v1/auth")
        assert list(shown["Methods"]) == ["token"]

        async def sign_in(token: str) -> dict[str, Any]:
            data = base64.b64encode(f'{{"token": "{token}"}}'.encode()).decode()
            body = {"Name": "token", "MethodData": data}
            answer = await go.ask({"Authentication": {}}, "POST", "/api/v1/auth/token", body)
            return dict(answer["Authentication"])

        assert await sign_in("secret") == {"success": True, "token": "secret"}
        assert not (await sign_in("guess"))["success"]
        await go.ask(shapes.ERROR, "GET", JOBS, status=401)
        await go.ask(shapes.ERROR, "POST", "/api/v1/auth/clientkey", {}, status=404)


async def test_a_result_is_fetched_without_the_token_by_its_signed_url_only(tmp_path):
    async with served(tmp_path, api_token="secret") as (go, _), httpx.AsyncClient() as anybody:
        go._http.headers["Authorization"] = "Bearer secret"
        job_id = await go.run(requests.job(requests.docker("hi")))
        (result,) = (await go.ask({}, "GET", f"{JOBS}/{job_id}/results"))["Items"]
        url = result["Params"]["URL"]
        assert (await anybody.get(url)).status_code == 200
        assert (await anybody.get(url.replace("signature=", "signature=0"))).status_code == 401
        assert (await anybody.get(url.partition("?")[0])).status_code == 401
        assert (await anybody.delete(url)).status_code == 401


async def test_jobs_are_found_by_labels_namespace_and_state_in_any_order(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (go, _):
        ids = []
        for number in range(6):
            noop = requests.job({"Type": "noop", "Params": {}})
            noop |= {"Labels": {"parity": str(number % 2)}, "Namespace": f"n{number // 3}"}
            ids.append((await go.ask({}, "PUT", JOBS, requests.submission(noop)))["JobID"])
        await go.ask({}, "DELETE", f"{JOBS}/{ids[4]}", requests.ENVELOPE)

        async def found(query: str) -> list[int]:
            page = await go.ask(page_of(shapes.JOB), "GET", f"{JOBS}?{query}")
            return [ids.index(job["ID"]) for job in page["Items"]]

        assert await found("labels=parity%3D1") == [1, 3, 5]
        assert await found("labels=parity%3D1&labels=%21parity") == []
        assert await found("labels=parity+in+%281%2C2%29&reverse=true&limit=2") == [5, 3]
        assert await found("namespace=n1") == [3, 4, 5]
        assert await found("namespace=*") == list(range(6))
        assert await found("state=Stopped") == [4]
        assert [ids[i] for i in await found("order_by=id")] == sorted(ids)
        assert sorted(await found("order_by=modified_at")) == list(range(6))
        for order in ("created_at", "id"):
            whole, token, pages = await found(f"order_by={order}"), "", []
            while token or not pages:
                query = f"order_by={order}&limit=4&next_token={token}"
                page = await go.ask(page_of(shapes.JOB), "GET", f"{JOBS}?{query}")
                pages += [ids.index(job["ID"]) for job in page["Items"]]
                token = page["NextToken"]
            assert pages == whole
