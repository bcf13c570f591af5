"""The events of all jobs over HTTP (`events`), of a real node."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
import trio

from bacalhau_p2p.api import events
from bacalhau_p2p.client.client import Client
from bacalhau_p2p.model.history import EventKind
from tests.support.networks.served import JOB, JOBS, served

EVENTS = "/api/v1/events"
STREAM = {"Accept": "text/event-stream"}


async def submitted(http: httpx.AsyncClient, **job: object) -> str:
    """The id of a job that has ended."""
    job_id = (await http.put(JOBS, json={"Job": {**JOB, **job}})).json()["JobID"]
    await http.get(f"{JOBS}/{job_id}", params={"wait": 60}, timeout=None)
    return job_id


async def page(http: httpx.AsyncClient, **query: object) -> tuple[list[dict], int]:
    answer = (await http.get(EVENTS, params=query, timeout=None)).json()
    return answer["Items"], int(answer["NextToken"])


async def streamed(response: httpx.Response) -> AsyncIterator[tuple[int, dict]]:
    """The number and the data of each event of a stream."""
    number = 0
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            yield number, json.loads(line[6:])


async def read(http: httpx.AsyncClient, count: int, last: int, **query: object) -> list[tuple[int, dict]]:
    found: list[tuple[int, dict]] = []
    headers = {**STREAM, "Last-Event-ID": str(last)}
    with trio.fail_after(60):
        async with http.stream("GET", EVENTS, params=query, headers=headers, timeout=None) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for each in streamed(response):
                found.append(each)
                if len(found) == count:
                    return found
    raise AssertionError("the stream has ended")


async def test_the_events_of_all_jobs_are_streamed_and_resumed_by_the_last_id(tmp_path):
    async with served(tmp_path) as (_, url), httpx.AsyncClient(base_url=url) as http:
        first, second = await submitted(http), await submitted(http)
        items, last = await page(http, after=0)
        assert [item["Position"] for item in items] == list(range(1, last + 1))
        assert {item["JobID"] for item in items} == {first, second}
        whole = await read(http, len(items), 0)
        assert whole == [(item["Position"], item) for item in items]
        assert await read(http, len(items) - 3, 3) == whole[3:]
        assert await page(http, after=last) == ([], last)


async def test_a_stream_begins_with_now_and_goes_on_with_each_job(tmp_path):
    async with served(tmp_path) as (_, url), httpx.AsyncClient(base_url=url) as http:
        await submitted(http)
        async with http.stream("GET", EVENTS, headers=STREAM, timeout=None) as response:
            later = await submitted(http)
            with trio.fail_after(60):
                async for _, event in streamed(response):
                    assert event["JobID"] == later
                    if event["Kind"] == "Ended":
                        break


async def test_events_are_filtered_by_job_label_kind_and_time(tmp_path):
    async with served(tmp_path) as (_, url), httpx.AsyncClient(base_url=url) as http:
        red = await submitted(http, Name="red", Labels={"colour": "red"})
        blue = await submitted(http, Labels={"colour": "blue"})
        items, last = await page(http, after=0)

        async def found(**query: object) -> list[dict]:
            return (await page(http, after=0, **query))[0]

        assert await found(job="red") == [item for item in items if item["JobID"] == red]
        assert await found(job=["red", blue[:8]]) == items
        assert await found(labels="colour=blue") == [item for item in items if item["JobID"] == blue]
        assert [item["Kind"] for item in await found(kind=["Submitted", "Ended"])] == [
            "Submitted",
            "Ended",
        ] * 2
        assert [item["JobID"] for item in await found(kind="Ended", labels="colour!=blue")] == [red]
        assert await found(since=2**33) == []
        assert (await page(http, since=1))[0] == items
        assert (await page(http))[1] == last


async def test_a_request_waits_for_the_next_event(tmp_path):
    async with served(tmp_path) as (network, url), httpx.AsyncClient(base_url=url) as http:
        _, last = await page(http)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.requester.submit, JOB)
            with trio.fail_after(60):
                items, _ = await page(http, after=last, wait=300)
        assert items[0]["Kind"] == "Submitted"


async def test_a_client_iterates_the_events_of_all_jobs(tmp_path):
    async with served(tmp_path) as (_, url), Client(url) as client:
        job = await client.submit({**JOB, "Labels": {"a": "b"}})
        await job.wait_result(60)
        kinds = []
        with trio.fail_after(60):
            async for event in client.events(after=0, labels=["a=b"], kinds=["Submitted", "Ended"]):
                kinds.append((event.job_id, event.kind))
                if event.kind is EventKind.ENDED:
                    break
        assert kinds == [(job.id, EventKind.SUBMITTED), (job.id, EventKind.ENDED)]


@pytest.mark.parametrize(
    ("query", "status"),
    [({"job": "unknown"}, 404), ({"labels": "=="}, 400), ({"kind": "Nothing"}, 422), ({"after": -1}, 422),
     ({"limit": 1001}, 422), ({"since": "now"}, 422), ({"wait": -1}, 422), ({"after": 2**70}, 422)],
)  # fmt: skip
async def test_malformed_questions_are_refused(tmp_path, query, status):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        assert (await http.get(EVENTS, params=query)).status_code == status
        assert (await http.get(EVENTS, params=query, headers=STREAM)).status_code == status


async def test_an_id_that_is_none_is_refused(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        answer = await http.get(EVENTS, headers={**STREAM, "Last-Event-ID": "x"})
        assert (answer.status_code, answer.json()["Message"]) == (400, "invalid Last-Event-ID 'x'")


async def test_pages_of_other_sites_and_users_without_the_token_see_no_events(tmp_path):
    known = {**STREAM, "Authorization": "Bearer s3cret"}
    async with (
        served(tmp_path, compute_nodes=0, api_token="s3cret") as (_, url),
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert (await http.get(EVENTS, headers=STREAM)).status_code == 401
        assert (await http.get(EVENTS, headers={**known, "Origin": "http://evil"})).status_code == 403
        assert (await http.get(EVENTS, headers={**known, "Sec-Fetch-Site": "cross-site"})).status_code == 403
        async with http.stream("GET", EVENTS, headers=known) as response:
            assert response.status_code == 200


async def test_too_many_readers_are_refused_and_leave_room_when_they_go(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "MAX_FEED_READERS", 1)
    async with served(tmp_path, compute_nodes=0) as (_, url), httpx.AsyncClient(base_url=url) as http:
        async with http.stream("GET", EVENTS, headers=STREAM) as response:
            await anext(response.aiter_lines())
            refused = await http.get(EVENTS)
            assert (refused.status_code, refused.json()["Kind"]) == (503, "ApiError")

        with trio.fail_after(60):
            while (await http.get(EVENTS)).status_code != 200:
                pass
