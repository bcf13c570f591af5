"""Every view of the page, on real nodes in one process: `view`, `job_views`, `node_views`,
`content_view`, `site`."""

from __future__ import annotations

import base64
import re
from collections import Counter
from contextlib import asynccontextmanager
from html.parser import HTMLParser

import httpx
import pytest
import trio
from httpx import ASGITransport

from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.page import job_views
from bacalhau_p2p.page.routes import Page
from bacalhau_p2p.runtime.token_guesses import GUESSES_AT_ONCE, TokenGuesses
from bacalhau_p2p.testing.network import open_network

NOOP = {"Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hello from the job"}}}]}
EVIL = "<script>alert('x')</script>\u202e"


def client_of(node, **headers):
    page = Page(node, TokenGuesses(Counter()))
    transport = ASGITransport(create_app(node, page=page))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1234", headers=headers)


@asynccontextmanager
async def opened(tmp_path, **settings):
    async with (
        open_network(tmp_path, compute_nodes=1, **settings) as network,
        client_of(network.requester) as http,
    ):
        yield network, http


class Balanced(HTMLParser):
    """Fails for an element that is not closed."""

    EMPTY = frozenset({"meta", "link", "input", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_html(text):
    page = Balanced()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)), "an id is used twice"


async def test_every_view_is_whole_html_with_a_strict_policy(tmp_path):
    async with opened(tmp_path) as (network, http):
        job = await network.requester.submit({**NOOP, "Verifier": {"Type": "deterministic"}, "Deal": {}})
        await job.wait()
        paths = ["/", "/jobs", f"/jobs/{job.id}", "/nodes", f"/nodes/{network.compute[0].peer_id}"]
        for path in [*paths, "/content", "/submit", "/settings"]:
            response = await http.get(path)
            assert response.status_code == 200, path
            assert "script-src 'self'" in response.headers["content-security-policy"]
            assert "unsafe" not in response.headers["content-security-policy"]
            assert not re.search(r"<script(?! src=)|\son\w+=|style=", response.text), path
            check_html(response.text)
        for path in ("style.css", "htmx.min.js", "sse.min.js", "icon.svg", "LICENSE-htmx.txt"):
            assert (await http.get(f"/static/{path}")).status_code == 200
        assert (await http.get("/static/../routes.py")).status_code == 404


async def test_a_job_shows_its_executions_output_result_and_yaml(tmp_path):
    async with opened(tmp_path) as (network, http):
        job = await network.requester.submit({**NOOP, "Name": "greeting"})
        result = await job.wait_result()
        text = (await http.get(f"/jobs/{job.id}")).text
        for shown in (
            "greeting",
            "hello from the job",
            str(result.cid),
            network.compute[0].peer_id,
            "Engine:",
        ):
            assert shown in text
        assert f'href="/ipfs/{result.cid}?format=tar"' in text
        assert "greeting" in (await http.get("/")).text


async def test_a_job_with_partitions_shows_which_each_execution_does(tmp_path):
    async with opened(tmp_path) as (network, http):
        whole = await network.requester.submit(NOOP)
        divided = await network.requester.submit({**NOOP, "Count": 2, "Deal": {"Replicas": 1}})
        await whole.wait()
        await divided.wait()
        assert 'data-label="Partition"' not in (await http.get(f"/jobs/{whole.id}")).text
        text = (await http.get(f"/jobs/{divided.id}")).text
        assert re.findall(r'data-label="Partition" class="number">(\d+)<', text) == ["0", "1"]


async def test_a_job_with_many_executions_is_shown_page_by_page(tmp_path, monkeypatch):
    monkeypatch.setattr(job_views, "EXECUTIONS", 2)
    async with opened(tmp_path) as (network, http):
        job = await network.requester.submit({**NOOP, "Count": 3, "Deal": {"Replicas": 1}})
        await job.wait()
        first, second = [(await http.get(f"/jobs/{job.id}{query}")).text for query in ("", "?from=2")]
        for text, partitions in ((first, ["0", "1"]), (second, ["2"])):
            check_html(text)
            assert re.findall(r'data-label="Partition" class="number">(\d+)<', text) == partitions
        assert re.search(r"1 to 2 of \d\.", first)  # with the bids that were not needed
        assert f'<a href="/jobs/{job.id}?from=2" rel="next">' in first
        assert f'<a href="/jobs/{job.id}?from=0" rel="prev">' in second
        assert (await http.get(f"/jobs/{job.id}?from=x")).status_code == 400


async def test_equal_results_are_grouped_within_their_partition(tmp_path):
    divided = {**NOOP, "Count": 2, "Deal": {"Replicas": 2}, "Verifier": {"Type": "deterministic"}}
    async with open_network(tmp_path, compute_nodes=2) as network, client_of(network.requester) as http:
        job = await network.requester.submit(divided)
        assert (await job.wait()).state == "Completed"
        text = (await http.get(f"/jobs/{job.id}")).text
        assert re.findall(r"Partition (\d): <code>.*</code>, the result of (\d) of (\d):", text) == [
            ("0", "2", "2"),
            ("1", "2", "2"),
        ]
        assert "4/4" in (await http.get("/jobs")).text


async def test_nodes_stand_in_order_with_this_one_first(tmp_path):
    async with open_network(tmp_path, compute_nodes=2) as network, client_of(network.requester) as http:
        ids = re.findall(r'id="node-(\w+)"', (await http.get("/nodes")).text)
        assert ids == [network.requester.peer_id, *(node.peer_id for node in network.compute)]


async def test_text_of_strangers_is_text(tmp_path):
    async with opened(tmp_path) as (network, http):
        job = await network.requester.submit(
            {
                "Name": EVIL,
                "Labels": {"l": EVIL},
                "Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": EVIL, "Stderr": EVIL}}}],
            }
        )
        await job.wait()
        await (await network.requester.job(job.id)).cancel(reason=EVIL)
        for path in ("/", "/jobs", f"/jobs/{job.id}", f"/jobs?text={EVIL}"):
            text = (await http.get(path)).text
            assert "<script>alert" not in text
            assert "\u202e" not in text
            assert "&lt;script&gt;alert" in text, path


async def test_a_node_shows_which_jobs_it_refused_and_why(tmp_path):
    async with opened(tmp_path) as (network, http):
        large = {"Tasks": [{**NOOP["Tasks"][0], "Resources": {"CPU": "900"}}]}
        job = await network.requester.submit(large)
        async for event in job.events():
            if event.kind == "Declined":
                break
        page = (await http.get(f"/nodes/{network.compute[0].peer_id}")).text
        refused = page[page.index("Refused jobs") :]
        assert f'href="/jobs/{job.id}"' in refused
        assert "is too small for the requested resources" in refused
        assert "Refused jobs" not in (await http.get(f"/nodes/{network.requester.peer_id}")).text


async def test_jobs_are_filtered_and_paged(tmp_path):
    async with opened(tmp_path) as (network, http):
        for number in range(53):
            await network.requester.submit(
                {**NOOP, "Name": f"job-{number:02}", "Labels": {"odd": str(number % 2)}}
            )
        first = (await http.get("/jobs")).text
        assert len(set(re.findall(">(job-[0-9]{2})<", first))) == 50
        following = re.search(r'<a href="([^"]*)" rel="next">', first)[1].replace("&amp;", "&")
        assert set(re.findall(">(job-[0-9]{2})<", (await http.get(following)).text)) == {
            "job-00",
            "job-01",
            "job-02",
        }
        odd = (await http.get("/jobs?label=odd%3D1&text=JOB-1")).text
        assert set(re.findall(">(job-[0-9]{2})<", odd)) == {f"job-{n}" for n in range(11, 20, 2)}
        assert "No jobs." in (await http.get("/jobs?state=Stopped")).text
        for wrong in ("after=nonsense", "state=Odd", "label=a=b=c"):
            assert (await http.get(f"/jobs?{wrong}")).status_code == 400


async def test_what_does_not_exist_is_a_page_that_says_so(tmp_path):
    async with opened(tmp_path) as (_, http):
        for path in ("/jobs/none", "/nodes/none"):
            response = await http.get(path)
            assert response.status_code == 404
            assert 'role="alert"' in response.text
            check_html(response.text)
            assert (await http.get(f"/live{path}")).status_code == 404
        assert (await http.get("/live/elsewhere")).status_code == 404


async def test_a_job_is_submitted_by_a_form_and_its_faults_stand_at_their_fields(tmp_path):
    async with opened(tmp_path) as (_, http):
        refused = await http.post("/submit/docker", data={"image": "", "command": "echo hi", "cpu": "<b>"})
        assert refused.status_code == 400
        assert 'id="docker-image-fault">missing' in refused.text
        assert 'id="docker-cpu-fault"' in refused.text
        assert 'value="echo hi"' in refused.text
        assert "<b>" not in refused.text
        check_html(refused.text)
        text = "Name: by form\nTasks: [{Engine: {Type: noop}}]"
        accepted = await http.post("/submit/file", data={"text": text})
        assert accepted.status_code == 303
        assert "by form" in (await http.get(accepted.headers["location"])).text
        wrong = await http.post("/submit/file", data={"text": "Tasks: [{Engine: {Type: unknown}}]"})
        assert wrong.status_code == 400
        assert "<code>Tasks[0].Engine" in wrong.text
        assert (await http.post("/submit/other", data={})).status_code == 404
        assert (await http.post("/submit/file", content=b"x=" + b"y" * 600_000)).status_code == 413


async def test_a_job_that_this_node_cannot_take_now_is_refused_with_the_reason(tmp_path):
    async with opened(tmp_path, min_free_disk="1EB") as (_, http):
        refused = await http.post("/submit/file", data={"text": "Tasks: [{Engine: {Type: noop}}]"})
        assert refused.status_code == 507
        assert "almost no free disk" in refused.text
        assert "Not found" not in refused.text


async def test_a_job_is_stopped_and_run_again(tmp_path):
    async with opened(tmp_path) as (network, http):
        job = await network.requester.submit({**NOOP, "Count": 2})  # there is one node
        stopped = await http.post(f"/jobs/{job.id}/stop")
        assert (stopped.status_code, stopped.headers["location"]) == (303, f"/jobs/{job.id}")
        assert (await job.wait()).state == "Stopped"
        assert "stopped on the page of the node" in (await http.get(f"/jobs/{job.id}")).text
        again = await http.post(f"/jobs/{job.id}/rerun")
        assert again.status_code == 303
        assert again.headers["location"] != f"/jobs/{job.id}"
        assert (await http.post("/jobs/none/stop")).status_code == 404


async def test_content_is_listed_unpinned_and_collected(tmp_path):
    (tmp_path / "data").write_text("data")
    async with opened(tmp_path / "net") as (network, http):
        cid = await network.requester.add(tmp_path / "data")
        assert str(cid) in (await http.get("/content")).text
        removed = await http.post("/content/unpin", data={"cid": str(cid), "owner": "user"})
        assert "is no longer pinned" in removed.text
        assert "deleted 1 block, 4 B" in (await http.post("/content/collect")).text
        assert (await http.post("/content/unpin", data={"cid": "x", "owner": "user"})).status_code == 400


@pytest.mark.parametrize("path", ["/", "/jobs?state=Running", "/nodes"])
async def test_the_live_part_of_a_view_comes_as_an_event(tmp_path, path):
    async with opened(tmp_path) as (network, http):
        page = (await http.get(path)).text
        stream = re.search(r'sse-connect="([^"]*)"', page)[1].replace("&amp;", "&")
        async with client_of(network.requester) as other:
            assert stream.startswith("/live")
            event = await first_event(other, stream)
        drawn = "\n".join(line.removeprefix("data: ") for line in event.splitlines())
        assert "<table" in drawn
        assert "<html" not in drawn


async def first_event(http, path):
    """The first event of a stream. httpx gives what an ASGI application sends only at its end."""
    received = []

    async def send(message):
        if message["type"] == "http.response.body" and message["body"]:
            received.append(message["body"])
            scope_of_call.cancel()

    url = http.build_request("GET", path).url
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": url.path, "raw_path": url.raw_path,
        "query_string": url.query, "headers": [(b"host", b"127.0.0.1:1234")], "scheme": "http",
        "server": ("127.0.0.1", 1234), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip
    with trio.CancelScope() as scope_of_call:
        await http._transport.app(scope, trio.sleep_forever, send)
    return received[0].decode()


async def test_with_a_token_a_browser_logs_in_by_a_form(tmp_path):
    async with (
        open_network(tmp_path, compute_nodes=0, api_token="secret") as network,
        client_of(network.requester, accept="text/html") as http,
    ):
        if True:
            asked = await http.get("/jobs?state=Failed")
            assert asked.status_code == 303
            form = await http.get(asked.headers["location"])
            assert 'value="/jobs?state=Failed"' in form.text
            assert (await http.get("/static/style.css")).status_code == 200
            assert (await http.get("/api/v1/orchestrator/jobs")).status_code == 401
            assert (await http.post("/login", data={"token": "wrong"})).status_code == 403
            done = await http.post("/login", data={"token": "secret", "next": "/jobs?state=Failed"})
            assert done.headers["location"] == "/jobs?state=Failed"
            assert (await http.get("/jobs")).status_code == 200
            foreign = await http.post("/content/collect", headers={"origin": "http://evil.example"})
            assert foreign.status_code == 403
            await http.post("/logout")
            assert (await http.get("/jobs")).status_code == 303


async def test_a_node_without_a_requester_shows_what_it_has(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as network, client_of(network.compute[0]) as http:
        overview = (await http.get("/")).text
        assert "executions here" in overview
        assert 'href="/jobs"' not in overview
        assert (await http.get("/jobs")).status_code == 404
        assert (await http.get(f"/nodes/{network.compute[0].peer_id}")).status_code == 200


async def test_the_form_to_log_in_and_the_api_share_what_an_address_may_guess(tmp_path):
    async with opened(tmp_path, api_token="secret") as (_, http):
        for number in range(GUESSES_AT_ONCE - 1):
            assert (await http.post("/login", data={"token": f"wrong {number}"})).status_code == 403
        guess = base64.b64encode(b'{"token": "guess"}').decode()
        answer = await http.post("/api/v1/auth/token", json={"MethodData": guess})
        assert answer.json()["Authentication"]["success"] is False
        for form in ({"token": "one more"}, {"token": "secret"}):
            refused = await http.post("/login", data=form)
            assert refused.status_code == 429
            assert "too many wrong API tokens" in refused.text
            assert int(refused.headers["Retry-After"]) > 0
        right = base64.b64encode(b'{"token": "secret"}').decode()
        assert (await http.post("/api/v1/auth/token", json={"MethodData": right})).status_code == 429
