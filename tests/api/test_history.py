"""The history of jobs over HTTP (`history`), of a real node."""

from __future__ import annotations

import json

import httpx
import pytest
import trio

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.model.history import EventKind
from tests.support.networks.served import JOB, JOBS, served


async def events_of(http: httpx.AsyncClient, job_id: str) -> list[dict]:
    return (await http.get(f"{JOBS}/{job_id}/events")).json()["Items"]


async def test_a_client_iterates_the_events_of_a_job_until_it_has_ended(tmp_path):
    async with served(tmp_path) as (_, url), Client(url) as client:
        job = await client.submit(JOB)
        with trio.fail_after(30):
            events = [event async for event in job.events()]
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert (events[0].kind, events[-1].kind) == (EventKind.SUBMITTED, EventKind.ENDED)
        assert events[-1].state == "Completed"
        assert [event async for event in job.events(after=events[-2].number)] == events[-1:]


async def test_the_history_begins_with_what_the_inputs_lack(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        body = {"Job": JOB, "LeftOut": ["/inputs: pipe: not a file", *["x"] * 10_000]}
        job_id = (await http.put(JOBS, json=body)).json()["JobID"]
        (first, *_) = await events_of(http, job_id)
        assert first["Event"]["Message"].startswith(
            "submitted; for 1 node; left out of its inputs: /inputs: pipe: not a file; x"
        )
        assert len(first["Event"]["Message"]) < 1_000


async def test_a_node_iterates_the_events_of_its_own_job(tmp_path):
    async with served(tmp_path) as (network, url), Client(url) as client:
        job = await network.requester.submit(JOB)
        with trio.fail_after(30):
            events = [event async for event in job.events()]
        over_http = [event async for event in (await client.job(job.id)).events()]
        assert [event[1:2] + event[3:] for event in over_http] == [event[1:2] + event[3:] for event in events]


async def test_a_request_waits_for_the_next_event(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (network, url), httpx.AsyncClient(base_url=url) as http:
        job_id = (await http.put(JOBS, json={"Job": JOB})).json()["JobID"]
        seen = (await network.requester.requester.history(job_id)).events[-1].number
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.requester.requester.cancel, job_id, "enough")
            with trio.fail_after(30):
                query = {"after": seen, "wait": 300}
                page = (await http.get(f"{JOBS}/{job_id}/events", params=query, timeout=None)).json()
        assert page["Items"][-1]["Event"]["Details"]["NewState"] == "Stopped"


async def test_a_history_has_the_shape_of_bacalhau(tmp_path):
    async with served(tmp_path) as (network, url), httpx.AsyncClient(base_url=url) as http:
        job = await network.requester.submit(JOB)
        await job.wait_result(30)
        page = (await http.get(f"{JOBS}/{job.id}/history", params={"event_type": "all"})).json()
        first, last = page["Items"][0], page["Items"][-1]
        assert page["NextToken"] == ""
        assert {key: first[key] for key in ("SeqNum", "Type", "JobID", "JobVersion")} == {
            "SeqNum": 1, "Type": "JobLevel", "JobID": job.id, "JobVersion": 1,
        }  # fmt: skip
        assert first["Event"] == {
            "Message": "submitted; for 1 node",
            "Topic": "Submission",
            "Timestamp": first["Time"],
            "Details": {"NewState": "Pending"},
        }
        assert (last["Event"]["Topic"], last["Event"]["Details"]) == (
            "State Update",
            {"NewState": "Completed"},
        )
        proposed = next(item for item in page["Items"] if item["Kind"] == "Proposed")
        assert (proposed["Type"], proposed["Event"]["Topic"]) == ("ExecutionLevel", "Execution")
        included = (await http.get(f"{JOBS}/{job.id}", params={"include": "history"})).json()["History"]
        assert included == page


async def test_a_history_is_filtered_and_read_page_by_page(tmp_path):
    async with served(tmp_path) as (network, url), httpx.AsyncClient(base_url=url) as http:
        job = await network.requester.submit(JOB)
        await job.wait_result(30)
        events = await events_of(http, job.id)

        async def numbers(**query: object) -> list[int]:
            page = (await http.get(f"{JOBS}/{job.id}/history", params=query)).json()
            return [item["SeqNum"] for item in page["Items"]]

        of_job = [item["SeqNum"] for item in events if item["Type"] == "JobLevel"]
        execution = next(item["ExecutionID"] for item in events if "ExecutionID" in item)
        assert await numbers(event_type="job") == of_job
        assert await numbers(execution_id=execution) == [
            item["SeqNum"] for item in events if item.get("ExecutionID") == execution
        ]
        assert await numbers(node_id="", execution_id="", since=0) == [item["SeqNum"] for item in events]
        assert await numbers(since=2**33) == []
        first = (await http.get(f"{JOBS}/{job.id}/history", params={"event_type": "job", "limit": 1})).json()
        query = {"event_type": "job", "next_token": first["NextToken"]}
        rest = (await http.get(f"{JOBS}/{job.id}/history", params=query)).json()
        assert [item["SeqNum"] for item in first["Items"] + rest["Items"]] == of_job
        assert rest["NextToken"] == ""


async def test_the_token_of_a_history_is_never_empty_while_the_job_goes_on(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        job_id = (await http.put(JOBS, json={"Job": JOB})).json()["JobID"]
        page = (await http.get(f"{JOBS}/{job_id}/history")).json()
        again = (
            await http.get(
                f"{JOBS}/{job_id}/history", params={"next_token": page["NextToken"], "limit": 1000}
            )
        ).json()
        assert int(again["NextToken"]) >= int(page["NextToken"]) >= 1


async def test_events_are_streamed_and_resumed_by_the_last_id(tmp_path):
    async with served(tmp_path) as (network, url), httpx.AsyncClient(base_url=url) as http:
        job = await network.requester.submit(JOB)
        stream = {"Accept": "text/event-stream"}
        with trio.fail_after(30):
            whole = await http.get(f"{JOBS}/{job.id}/events", headers=stream, timeout=None)
        assert whole.headers["content-type"].startswith("text/event-stream")
        blocks = [block for block in whole.text.split("\n\n") if block.startswith("id: ")]
        read = [json.loads(block.split("\ndata: ")[1]) for block in blocks]
        assert read == await events_of(http, job.id)
        resumed = await http.get(f"{JOBS}/{job.id}/events", headers={**stream, "Last-Event-ID": "3"})
        assert [block for block in resumed.text.split("\n\n") if block.startswith("id: ")] == blocks[3:]
        over = await http.get(f"{JOBS}/{job.id}/events", headers={**stream, "Last-Event-ID": str(len(read))})
        assert over.status_code == 204


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("unknown/events", {}, 404),
        ("unknown/history", {}, 404),
        ("{id}/events", {"after": -1}, 422),
        ("{id}/history", {"next_token": "x"}, 400),
        ("{id}/history", {"since": "now"}, 400),
        ("{id}/history", {"event_type": "other"}, 422),
        ("{id}/history", {"limit": 1001}, 422),
    ],
)
async def test_a_faulty_request_is_answered_with_an_error(tmp_path, path, query, status):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        job_id = (await http.put(JOBS, json={"Job": JOB})).json()["JobID"]
        response = await http.get(f"{JOBS}/{path.format(id=job_id)}", params=query)
        assert (response.status_code, "Error" in response.json()) == (status, True)
