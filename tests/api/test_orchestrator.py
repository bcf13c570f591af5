"""`/api/v1/orchestrator` of a real node."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
import trio

from bacalhau_p2p.api import orchestrator
from bacalhau_p2p.client.client import Client
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.errors import AmbiguousID, InvalidJob, UnknownJob
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.store import EXECUTIONS_AT_ONCE
from tests.support.networks.served import JOB, JOBS, served


async def test_a_client_submits_waits_and_fetches(tmp_path):
    async with served(tmp_path) as (_, url), Client(url) as client:
        job = await client.submit(JOB)
        result = await job.wait_result(30)
        assert (result.exit_code, result.stdout) == (0, b"hello\n")
        folder = await result.fetch(tmp_path / "results")
        assert (folder / "stdout").read_text() == "hello\n"
        assert [node.requester for node in await client.nodes()].count(True) == 1


async def test_a_long_poll_returns_when_the_job_ends(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (network, url), httpx.AsyncClient(base_url=url) as http:
        job_id = (await http.put(JOBS, json={"Job": JOB})).json()["JobID"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.requester.requester.cancel, job_id, "enough")
            with trio.fail_after(30):
                ended = (await http.get(f"{JOBS}/{job_id}", params={"wait": 300}, timeout=None)).json()
        assert ended["Job"]["State"] == {"StateType": "Stopped", "Message": "enough"}


@pytest.mark.parametrize(("asked", "waited"), [("0.3", 0.3), ("300", 300), ("1e9", 300), ("inf", 300)])
async def test_a_long_poll_waits_as_long_as_asked_and_at_most_300_seconds(
    tmp_path, monkeypatch, asked, waited
):
    async with served(tmp_path, compute_nodes=0) as (network, url), httpx.AsyncClient(base_url=url) as http:
        job_id = (await http.put(JOBS, json={"Job": JOB})).json()["JobID"]
        service, timeouts = network.requester.requester, []

        async def wait(job_id: JobID, timeout: float) -> Job:
            timeouts.append(timeout)
            return service.job(job_id)

        monkeypatch.setattr(service, "wait", wait)
        answer = (await http.get(f"{JOBS}/{job_id}", params={"wait": asked})).json()
        assert answer["Job"]["State"]["StateType"] in ("Pending", "Queued")
        assert timeouts == [waited]


async def test_jobs_are_listed_page_by_page(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        ids = [(await http.put(JOBS, json={"Job": JOB})).json()["JobID"] for _ in range(5)]
        first = (await http.get(JOBS, params={"limit": 3})).json()
        rest = (await http.get(JOBS, params={"limit": 3, "next_token": first["NextToken"]})).json()
        assert [job["ID"] for job in first["Items"] + rest["Items"]] == ids
        assert rest["NextToken"] == ""
        newest = (await http.get(JOBS, params={"limit": 1, "reverse": True})).json()
        assert newest["Items"][0]["ID"] == ids[-1]
        one = (await http.get(JOBS, params={"id_prefix": ids[2][:13]})).json()
        assert [job["ID"] for job in one["Items"]] == [ids[2]]


async def stopped(http: httpx.AsyncClient, job: Mapping[str, object]) -> JobID:
    """A job that has ended, so that it changes no more."""
    job_id = (await http.put(JOBS, json={"Job": job})).json()["JobID"]
    await http.delete(f"{JOBS}/{job_id}")
    answer = (await http.get(f"{JOBS}/{job_id}", params={"wait": 60}, timeout=None)).json()
    assert answer["Job"]["State"]["StateType"] == "Stopped"
    return JobID(job_id)


async def test_a_list_shows_each_job_and_its_executions_as_the_job_itself_does(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (network, url), httpx.AsyncClient(base_url=url) as http:
        ids = [await stopped(http, job) for job in (JOB, {**JOB, "Count": 2, "Name": "two"})]
        attempts = [
            Execution(
                id=ExecutionID(f"e-{slot}"), job_id=job_id, node_id=PeerID("n"), state=state, slot=slot,
                created=1.0, modified=2.0,
            )
            for job_id, slot, state in (
                (ids[0], 0, ExecutionState.COMPLETED),
                (ids[1], None, ExecutionState.BID_REJECTED),
                (ids[1], 1, ExecutionState.BID_ACCEPTED),
            )
        ]  # fmt: skip
        network.requester.requester._store.commit(Commit(records=tuple(attempts)), delivered=())
        asked = {"include": "executions"}
        items = (await http.get(JOBS, params=asked)).json()["Items"]
        assert [each["Slot"] for each in items[1]["Executions"]["Items"] if "Slot" in each] == [1]
        for item in items:
            single = (await http.get(f"{JOBS}/{item['ID']}", params=asked)).json()
            assert item == {**single["Job"], "Executions": single["Executions"]}
            assert list(item) == [*single["Job"], "Executions"]


@pytest.mark.parametrize(
    "damage", ["no json", '{"Spec": {"Tasks": [{"Engine": {}, "Timeouts": {"TotalTimeout": "x"}}]}}']
)
async def test_a_record_that_cannot_be_read_is_left_out_of_a_list_with_all_others_in_it(tmp_path, damage):
    async with served(tmp_path, compute_nodes=0) as (network, url), httpx.AsyncClient(base_url=url) as http:
        ids = [await stopped(http, JOB) for _ in range(3)]
        store = network.requester.requester._store
        store.db.execute("UPDATE job SET record = ? WHERE id = ?", (damage, ids[1]))
        for asked in ({"include": "executions"}, {}):
            listed = (await http.get(JOBS, params=asked)).json()["Items"]
            assert [item["ID"] for item in listed] == [ids[0], ids[2]]


async def test_the_same_idempotency_token_gives_the_same_job(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        body = {"Job": JOB, "IdempotencyToken": "once"}
        answers = [(await http.put(JOBS, json=body)).json()["JobID"] for _ in range(3)]
        assert len(set(answers)) == 1


async def test_errors_keep_their_type_over_http(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (network, url), Client(url) as client:
        with pytest.raises(UnknownJob, match="00000000"):
            await client.job("00000000")
        with pytest.raises(InvalidJob) as refused:
            await client.submit({"Tasks": [{"Engine": {"Type": "dokcer"}}]})
        assert refused.value.faults[0].path == "Tasks[0].Engine.Type"
        ids: list[str] = []
        while len({job_id[0] for job_id in ids}) == len(ids):
            ids.append((await network.requester.submit(JOB)).id)
        with pytest.raises(AmbiguousID):
            await client.job(ids[-1][0])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"Job": 3}', 400),
        (b'{"Job": {"Tasks": []}, "IdempotencyToken": 7}', 400),
        (b'{"Job": {"Tasks": []}, "LeftOut": "a"}', 400),
        (b'{"Job": {"Tasks": []}, "LeftOut": [7]}', 400),
        (b"[" * 100_000, 400),
        (b'"' + b"x" * (1024 * 1024) + b'"', 413),
    ],
    ids=lambda value: value[:12].decode() if isinstance(value, bytes) else "",
)
async def test_a_malformed_request_gets_a_json_error(tmp_path, body, status):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        answer = await http.put(JOBS, content=body)
        assert answer.status_code == status
        assert answer.json()["Error"]


async def test_others_work_while_the_executions_of_a_large_job_are_shown(tmp_path, monkeypatch):
    """A job of 1,000 partitions kept everything else on its node waiting for 70 ms."""
    sizes: list[int] = []

    def executions_to_json(some, spec):
        sizes.append(len(some))
        return shown(some, spec)

    shown = orchestrator.executions_to_json
    monkeypatch.setattr(orchestrator, "executions_to_json", executions_to_json)
    many = 2 * EXECUTIONS_AT_ONCE + 1
    async with served(tmp_path, compute_nodes=0) as (network, url), httpx.AsyncClient(base_url=url) as http:
        job_id = (await http.put(JOBS, json={"Job": JOB})).json()["JobID"]
        names = [f"e-{number}" for number in range(many)]
        attempts = [
            Execution(
                id=ExecutionID(name),
                job_id=JobID(job_id),
                node_id=PeerID("node"),
                state=ExecutionState.BID_REJECTED,
                created=1.0,
                modified=2.0,
            )
            for name in names
        ]
        network.requester.requester._store.commit(Commit(records=attempts), delivered=())
        listed = (await http.get(JOBS, params={"include": "executions"})).json()["Items"][0]["Executions"]
        alone = (await http.get(f"{JOBS}/{job_id}/executions")).json()
        with_job = (await http.get(f"{JOBS}/{job_id}", params={"include": "executions"})).json()["Executions"]
    for found in (listed, alone, with_job):
        assert [each["ID"] for each in found["Items"]] == names
    assert sizes == 3 * [EXECUTIONS_AT_ONCE, EXECUTIONS_AT_ONCE, 1]


async def test_an_execution_that_cannot_be_read_is_left_out(tmp_path):
    async with served(tmp_path) as (network, url), httpx.AsyncClient(base_url=url) as http:
        job_id = (await http.put(JOBS, json={"Job": JOB})).json()["JobID"]
        await http.get(f"{JOBS}/{job_id}", params={"wait": 60}, timeout=None)
        store = network.requester.requester._store
        store.db.execute("""UPDATE execution SET record = '{"Created": "yesterday", "Modified": 1}'""")
        answer = await http.get(f"{JOBS}/{job_id}/executions")
        assert (answer.status_code, answer.json()["Items"]) == (200, [])


async def test_nodes_are_listed_with_their_freshness(tmp_path):
    async with served(tmp_path) as (network, url), httpx.AsyncClient(base_url=url) as http:
        nodes = (await http.get("/api/v1/orchestrator/nodes")).json()["Nodes"]
        ids = {network.requester.peer_id, network.compute[0].peer_id}
        shown = {(each["Info"]["NodeID"], each["Connection"]) for each in nodes}
        assert shown == {(peer, "CONNECTED") for peer in ids}
