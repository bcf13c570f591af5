"""The output of jobs over HTTP (`logs`), of a real node: lines of JSON, and Bacalhau's WebSocket."""

from __future__ import annotations

import base64
import json
import os
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest
import trio

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.errors import ExecutorError, LogsUnavailable
from bacalhau_p2p.model.logs import LogStream
from tests.support.networks.served import JOB, JOBS, served
from tests.support.programs.writing_executor import WritingExecutor


@asynccontextmanager
async def node(tmp_path):
    """A served node, and the program that its only compute node runs."""
    program = WritingExecutor()
    async with served(tmp_path, executors={0: [program]}) as (network, url):
        with trio.fail_after(60):
            yield network.requester, url, program


async def test_a_client_follows_a_job_and_reads_it_again(tmp_path):
    async with node(tmp_path) as (_, url, program), Client(url) as client:
        job = await client.submit(JOB)
        async with aclosing(job.logs(follow=True)) as pieces:
            await program.write(b"caf\xc3")
            assert (await anext(pieces)).data == b"caf\xc3"
            await program.write(b"\xa9\n", b"oh\n")
            assert [(await anext(pieces))[1:] for _ in range(2)] == [
                (LogStream.STDOUT, 4, b"\xa9\n"),
                (LogStream.STDERR, 0, b"oh\n"),
            ]
            program.end()
            assert [piece async for piece in pieces] == []
        await job.wait_result(30)
        assert b"".join([piece.data async for piece in job.logs()]) == b"caf\xc3\xa9\noh\n"


async def test_lines_of_json_tell_the_streams_apart(tmp_path):
    async with node(tmp_path) as (requester, url, program), httpx.AsyncClient(base_url=url) as http:
        job = await requester.submit(JOB)
        await program.write(b"words\n", b"\xff")
        program.end(failure=ExecutorError("lost", permanent=True))
        await job.wait(30)
        response = await http.get(f"{JOBS}/{job.id}/logs")
        (execution,) = await job.executions()
        assert response.headers["content-type"].startswith("application/x-ndjson")
        assert [json.loads(line) for line in response.text.splitlines() if line] == [
            {"ExecutionID": execution.id, "Stream": "stdout", "Offset": 0, "Text": "words\n"},
            {
                "ExecutionID": execution.id,
                "Stream": "stderr",
                "Offset": 0,
                "Data": base64.b64encode(b"\xff").decode(),
            },
        ]


async def test_errors_have_their_type(tmp_path):
    async with (
        served(tmp_path, compute_nodes=0) as (_, url),
        Client(url) as client,
        httpx.AsyncClient(base_url=url) as http,
    ):
        job = await client.submit(JOB)
        with pytest.raises(LogsUnavailable, match="has begun"):
            _ = [piece async for piece in job.logs()]
        assert (await http.get(f"{JOBS}/{job.id}/logs")).status_code == 404
        assert (await http.get(f"{JOBS}/unknown/logs")).status_code == 404
        assert (await http.get(f"{JOBS}/{job.id}/logs", params={"tail": -1})).status_code == 422


# --- the WebSocket ----------------------------------------------------------------------------


class Socket:
    """As much of a WebSocket client as these tests need."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    @classmethod
    async def open(cls, url: str, path: str, *headers: str) -> tuple[Socket, str]:
        """The socket, and the status line of the response."""
        host, port = url.removeprefix("http://").split(":")
        socket = cls(await trio.open_tcp_stream(host, int(port)))
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            *headers,
        ]
        await socket._stream.send_all("\r\n".join([*lines, "", ""]).encode())
        head = await socket._until(b"\r\n\r\n")
        return socket, head.split(b"\r\n")[0].decode()

    async def receive(self) -> dict | int:
        """The next message; the code of a close frame."""
        first, length = await self._take(2)
        if length == 126:
            length = int.from_bytes(await self._take(2), "big")
        payload = await self._take(length)
        return int.from_bytes(payload[:2], "big") if first & 0xF == 8 else json.loads(payload)

    async def close(self) -> None:
        await self._stream.aclose()

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += await self._stream.receive_some()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            more = await self._stream.receive_some()
            assert more
            self._buffer += more
        head, _, self._buffer = self._buffer.partition(mark)
        return head


async def test_a_websocket_sends_line_by_line_and_closes_when_the_job_has_ended(tmp_path):
    async with node(tmp_path) as (requester, url, program):
        job = await requester.submit(JOB)
        socket, status = await Socket.open(url, f"{JOBS}/{job.id}/logs?follow=true")
        assert status.split()[1] == "101"
        await program.write(b"one\ntw")
        assert await socket.receive() == {"value": {"Type": 1, "Line": "one\n"}}
        await program.write(b"o\n", b"oh\n")
        assert await socket.receive() == {"value": {"Type": 1, "Line": "two\n"}}
        assert await socket.receive() == {"value": {"Type": 2, "Line": "oh\n"}}
        await program.write(b"end")
        program.end()
        assert await socket.receive() == {"value": {"Type": 1, "Line": "end"}}
        assert await socket.receive() == 1000
        await socket.close()


async def test_a_websocket_for_an_unknown_job_says_so(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url):
        with trio.fail_after(60):
            socket, status = await Socket.open(url, f"{JOBS}/unknown/logs?follow=true")
            assert status.split()[1] == "101"
            assert await socket.receive() == {
                "error": "no job has the id unknown",
                "value": {"Type": 0, "Line": ""},
            }
            assert await socket.receive() == 1000
            await socket.close()


async def test_a_websocket_of_a_foreign_page_is_refused(tmp_path):
    async with served(tmp_path, compute_nodes=0) as (_, url):
        with trio.fail_after(60):
            socket, status = await Socket.open(
                url, f"{JOBS}/unknown/logs", "Origin: http://elsewhere.example"
            )
            assert status.split()[1] == "403"
            await socket.close()
