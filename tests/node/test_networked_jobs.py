"""Networked jobs from their submission to the usage in their result, on a node that accepts them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.node import open_node
from bacalhau_p2p.settings import Settings
from tests.support.servers.public_web import PublicWeb, public_web
from tests.support.waiting import until

SCRIPT = "wget -q -O - http://allowed.test/one; wget -q -O - http://other.test/ || exit 3"


def job(*domains: str, engine: str = "docker", network: str = "HTTP") -> dict[str, object]:
    params = {"Image": "busybox:latest", "Entrypoint": ["sh", "-c", SCRIPT]} if engine == "docker" else {}
    task = {"Engine": {"Type": engine, "Params": params}, "Network": {"Type": network, "Domains": domains}}
    return {"Tasks": [task], "Labels": {"of": "a test"}}


def settings(folder: Path, **given: object) -> Settings:
    return Settings(data_dir=folder, swarm_host="127.0.0.1", swarm_port=0, mdns=False, **given)


@pytest.mark.docker
async def test_a_job_runs_with_its_network_and_its_result_says_what_went_in_and_out(tmp_path, docker_client):
    async with public_web() as web:
        executor = DockerExecutor("node-of-networked-jobs", dialer=web.dialer())
        if problem := executor.network_problem("HTTP"):
            pytest.skip(problem)
        given = settings(tmp_path, accept_networked="http", network_domains=(".allowed.test",))
        async with open_node(given, executors=[executor]) as node:
            with trio.fail_after(120):
                submitted = await node.submit(job("allowed.test"))
                result = await outcome(submitted)
            assert result.stdout == b"this is /one\n"
            assert b"hint: the network proxy of the job refused: other.test (1)" in result.stderr
            usage = (await submitted.executions())[-1].usage
            assert usage is not None
            assert usage.network_bytes_sent == sum(map(len, web.requests))
            assert usage.network_bytes_received
            refused = await node.submit(job("other.test"))
            assert "lets no job reach other.test" in await reason_to_wait(refused)
            await refused.cancel()


async def outcome(submitted):
    """The output of a job whose program fails."""
    await submitted.wait()
    return (await submitted.executions())[-1].proposal.output


async def reason_to_wait(submitted) -> str:
    """What the history says of nodes that do not bid."""
    texts: list[str] = []

    async def listen() -> None:
        async for event in submitted.events():
            texts.append(event.message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        found = await until(lambda: [text for text in texts if "reach" in text], 60)
        nursery.cancel_scope.cancel()
    return found[0]


async def test_a_node_announces_the_networks_that_its_jobs_may_have(tmp_path, monkeypatch):
    class Networked(DockerExecutor):
        async def unavailable(self) -> str | None:
            return None

    executor = Networked("node", dialer=PublicWeb().dialer())

    async def announced(folder: str, problem: str | None, **given: object) -> tuple[str, ...]:
        monkeypatch.setattr(executor, "network_problem", lambda network: problem)
        async with open_node(settings(tmp_path / folder, **given), executors=[executor]) as node:
            await node.wait_for_compute_nodes(1)
            return (await node.nodes())[0].compute.networks

    assert await announced("http", None, accept_networked="http") == ("HTTP",)
    assert await announced("full", None, accept_networked="full") == ("Full", "HTTP")
    assert await announced("cannot", "no rights", accept_networked="full") == ()
    assert await announced("none", None) == ()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (job(), "name the domains"),
        (job("127.0.0.1"), "must be a domain"),
        (job("example.com:80"), "must be a domain"),
        (job("example.com", network="Full"), "Domains require the Type HTTP"),
    ],
)
async def test_a_network_that_makes_no_sense_is_refused_at_submission(tmp_path, given, fault):
    async with open_node(settings(tmp_path)) as node:
        with pytest.raises(InvalidJob, match=fault):
            await node.submit(given)
