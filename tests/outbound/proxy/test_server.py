"""The proxy of a job: what it lets through, what not, and what it costs the node at most; with it `exchange`,
`targets`, `traffic` and `dialing`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import trio

from bacalhau_p2p.outbound.proxy.connections import (
    GUARANTEED_CONNECTIONS,
    MAX_CONNECTIONS,
    SharedConnections,
)
from bacalhau_p2p.outbound.proxy.server import MAX_HEADER, HttpProxy
from bacalhau_p2p.outbound.proxy.traffic import Traffic
from tests.support.servers.public_web import PUBLIC, PublicWeb, public_web
from tests.support.waiting import until

DOMAINS = ["allowed.test", "*.allowed.test", "private.test", "local.test", "metadata.test", "shared.test"]
DOMAINS += ["mapped.test", "half.test", "closed.test", "unknown.test"]


@asynccontextmanager
async def proxy(
    web: PublicWeb, domains: Sequence[str] = DOMAINS, **options: object
) -> AsyncIterator[tuple[HttpProxy, int]]:
    """A proxy that serves, and its port."""
    options.setdefault("shared", SharedConnections())
    served = HttpProxy(domains, web.dialer(), **options)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(served.serve, listener)
        yield served, listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def ask(port: int, request: str) -> str:
    """All that comes back for what is sent."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request.encode())
        if request.startswith("CONNECT"):
            await stream.send_eof()
        return await rest_of(stream)


async def rest_of(stream: trio.abc.ReceiveStream) -> str:
    data = b""
    with trio.fail_after(30):
        async for more in stream:
            data += more
    return data.decode()


def get(url: str, headers: str = "") -> str:
    return f"GET {url} HTTP/1.1\r\nHost: other.test\r\n{headers}\r\n"


def connect(target: str, early: str = "") -> str:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n{early}"


def status(answer: str) -> int:
    return int(answer.split(" ")[1])


async def test_plain_http_to_an_allowed_domain_is_passed_on_with_the_host_of_its_url():
    async with public_web() as web, proxy(web) as (served, port):
        answer = await ask(port, get("http://allowed.test/a?b=c", "Proxy-Foo: 1\r\nX-Own: 2\r\n"))
        head, _, body = answer.partition("\r\n\r\n")
        assert (status(answer), body) == (200, "this is /a?b=c\n")
        assert "x-kept: yes" in head.lower()
        assert "x-dropped" not in head.lower()
        (request,) = web.requests
        lines = request.decode().lower().split("\r\n")
        assert lines[0] == "get /a?b=c http/1.1"
        assert sorted(lines[1:4]) == ["connection: close", "host: allowed.test", "x-own: 2"]
        assert web.dialled == [(PUBLIC, 80)]
        assert served.traffic.sent == len(request)
        assert served.traffic.received > len(body)


async def test_a_body_is_passed_on_whatever_its_framing():
    async with public_web() as web, proxy(web) as (_, port):
        chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        head = "POST http://allowed.test:80/form HTTP/1.1\r\nHost: x\r\n"
        assert status(await ask(port, head + "Content-Length: 5\r\n\r\nhello")) == 200
        assert web.requests[0].endswith(b"\r\n\r\nhello")
        assert status(await ask(port, head + chunked)) == 200
        assert b"transfer-encoding: chunked" in web.requests[1].lower()


async def test_a_second_request_in_the_same_connection_reaches_nobody():
    async with public_web() as web, proxy(web) as (_, port):
        hidden = get("http://allowed.test/") + get("http://other.test/hidden")
        assert (await ask(port, hidden)).count("HTTP/1.1 ") == 1
        empty = "POST http://allowed.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        assert (await ask(port, empty + get("/hidden"))).count("HTTP/1.1 ") == 1
        assert not any(b"hidden" in request for request in web.requests)


async def test_a_tunnel_to_port_443_of_an_allowed_domain_carries_anything_both_ways():
    async with public_web() as web, proxy(web) as (served, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(connect("www.allowed.test:443", "early").encode())
            await stream.send_all(b" and late")
            await stream.send_eof()
            answer = await rest_of(stream)
        assert answer == "HTTP/1.1 200 Connection established\r\n\r\necho\nearly and late"
        assert web.dialled == [(PUBLIC, 443)]
        assert (served.traffic.sent, served.traffic.received) == (14, 19)


@pytest.mark.parametrize(
    ("request_text", "answered", "why"),
    [
        (get("http://other.test/"), 403, "other.test is not among the domains"),
        (connect("other.test:443"), 403, "other.test is not among the domains"),
        (get("http://notallowed.test/"), 403, "not among the domains"),
        (get(f"http://{PUBLIC}/"), 403, "is not a domain"),
        (connect(f"{PUBLIC}:443"), 403, "is not a domain"),
        (get("http://127.1/"), 403, "is not a domain"),
        (get("http://[::1]/"), 403, "is not a domain"),
        (connect("[::ffff:127.0.0.1]:443"), 403, "is not a domain"),
        (get("http://localhost/"), 403, "is not a domain"),
        (get("http://allowed.test:8080/"), 403, "only the ports 80"),
        (get("http://allowed.test:443/"), 403, "only the ports 80"),
        (connect("allowed.test:80"), 403, "only the ports 80"),
        (connect("allowed.test:22"), 403, "only the ports 80"),
        (get("http://other.test@allowed.test/"), 403, "is not a domain"),
        (get("http://allowed.test@other.test/"), 403, "is not a domain"),
        (get("http://allowed.test#@other.test/"), 200, ""),
        (get("https://allowed.test/"), 400, "https and others need CONNECT"),
        (get("ftp://allowed.test/"), 400, "https and others need CONNECT"),
        (get("/"), 400, "this is a proxy"),
        ("nonsense\r\n\r\n", 400, "not an HTTP request"),
        (get("http://allowed.test/", "X: " + "x" * 2 * MAX_HEADER + "\r\n"), 431, "not an HTTP request"),
        (get("http://private.test/"), 403, "an address that is not public"),
        (connect("local.test:443"), 403, "an address that is not public"),
        (get("http://metadata.test/"), 403, "an address that is not public"),
        (get("http://shared.test/"), 403, "an address that is not public"),
        (get("http://mapped.test/"), 403, "an address that is not public"),
        (get("http://half.test/"), 403, "an address that is not public"),
        (get("http://unknown.test/"), 502, "unknown.test: "),
        (connect("closed.test:443"), 502, "closed.test: Connection refused"),
    ],
)
async def test_what_is_not_allowed_is_refused_with_the_reason(request_text, answered, why):
    async with public_web() as web, proxy(web) as (served, port):
        answer = await ask(port, request_text)
        assert status(answer) == answered, answer
        assert why in answer
        permitted = {(PUBLIC, 80), ("93.184.216.36", 443)}
        assert set(web.dialled) <= permitted
        if answered == 403:
            assert sum(served.traffic.refused.values()) == 1
            assert web.dialled == []


async def test_a_redirect_is_the_clients_next_request_and_checked_like_any():
    async with public_web() as web, proxy(web) as (_, port):
        async with httpx.AsyncClient(proxy=f"http://127.0.0.1:{port}", follow_redirects=True) as client:
            followed = await client.get("http://allowed.test/moved/www.allowed.test")
            assert followed.text == "this is /\n"
            for host in ("private.test", "other.test", "127.0.0.1", "metadata.test"):
                refused = await client.get(f"http://allowed.test/moved/{host}")
                assert (refused.status_code, refused.url.host) == (403, host)
        assert {address for address, _ in web.dialled} == {PUBLIC}


async def test_a_name_is_resolved_once_and_its_next_addresses_have_no_effect():
    class Rebinding(PublicWeb):
        def _resolve(self, name, port):
            addresses = super()._resolve(name, port)
            self.names[name.decode()] = ["127.0.0.1"]
            return addresses

    async with public_web() as real:
        web = Rebinding(ports=real.ports)
        async with proxy(web) as (_, port):
            await ask(port, connect("allowed.test:443") + "x")
            assert web.resolved == ["allowed.test"]
            assert web.dialled == [(PUBLIC, 443)]
            assert status(await ask(port, get("http://allowed.test/"))) == 403


async def test_a_job_that_has_used_up_its_bytes_gets_no_more():
    async with public_web() as web, proxy(web, traffic=Traffic(limit=300_000)) as (served, port):
        cut = await ask(port, get("http://allowed.test/big/1000000"))
        assert len(cut) < 400_000
        assert 300_000 < served.traffic.received < 400_000
        assert "this job has used up the 300 kB" in await ask(port, get("http://allowed.test/"))
        assert "used up" in await ask(port, connect("allowed.test:443"))


async def test_a_connection_on_which_nothing_moves_is_closed():
    async with public_web() as web, proxy(web, idle=0.2) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(connect("allowed.test:443").encode())
            await rest_of(stream)  # ends


async def test_a_job_that_sends_no_request_is_answered_and_closed(autojump_clock):
    class Client:
        sent = b""
        silent = True

        async def receive_some(self, limit):
            await trio.sleep_forever()

        async def send_all(self, data):
            self.sent += data

        async def send_eof(self):
            pass

    client = Client()
    await HttpProxy(DOMAINS, PublicWeb().dialer(), SharedConnections())._answer(client)  # type: ignore[arg-type]
    assert client.sent.startswith(b"HTTP/1.1 408 no request within 30 s\r\n")


async def test_so_many_connections_are_served_at_a_time_and_the_next_one_waits():
    async with public_web() as web, proxy(web) as (_, port), trio.open_nursery() as nursery:
        streams = []
        for _ in range(MAX_CONNECTIONS):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(connect("allowed.test:443").encode())
            streams.append(stream)
        await until(lambda: len(web.dialled) == MAX_CONNECTIONS)
        answers: list[str] = []

        async def one_more() -> None:
            answers.append(await ask(port, get("http://allowed.test/")))

        nursery.start_soon(one_more)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (answers, web.requests) == ([], [])
        await streams.pop().aclose()
        await until(lambda: answers)
        assert status(answers[0]) == 200
        for stream in streams:
            await stream.aclose()


async def test_a_job_is_served_however_many_connections_the_others_have():
    shared = SharedConnections(total=1)
    async with (
        public_web() as web,
        proxy(web, shared=shared) as (_, greedy),
        proxy(web, shared=shared) as (_, modest),
    ):
        held = [await trio.open_tcp_stream("127.0.0.1", greedy) for _ in range(10)]
        for stream in held:
            await stream.send_all(connect("allowed.test:443").encode())
        await until(lambda: len(web.dialled) == GUARANTEED_CONNECTIONS + 1)
        assert status(await ask(modest, get("http://allowed.test/"))) == 200
        for stream in held:
            await stream.aclose()


async def test_a_job_that_ends_leaves_the_shared_connections_to_others():
    shared = SharedConnections(total=3)
    async with public_web() as web:
        for _ in range(2):
            async with proxy(web, shared=shared) as (_, port):
                streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(10)]
                await until(lambda: shared.left == 0)
            assert shared.left == 3
            for stream in streams:
                await stream.aclose()


async def test_when_a_proxy_ends_its_connections_end():
    async with public_web() as web:
        async with proxy(web) as (_, port):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(connect("allowed.test:443").encode())
            await until(lambda: web.dialled)
        with trio.fail_after(30), suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        await stream.aclose()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)
