"""Who may use the API: local programs, or with a token its bearers; never a foreign web page."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest
from httpx import ASGITransport
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from bacalhau_p2p.api.access import AccessControl
from bacalhau_p2p.page.login import COOKIE
from bacalhau_p2p.runtime.token_guesses import GUESSES_AT_ONCE, TokenGuesses

URL = "http://127.0.0.1:1234"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    public = scope.get("state", {}).get("public", False)
    await PlainTextResponse("public" if public else "private")(scope, receive, send)


def client(token: str = "", *, gateway: bool = False, url: str = URL) -> httpx.AsyncClient:
    guesses = TokenGuesses(Counter())
    access = AccessControl(app, token=token, url_key=b"key", guesses=guesses, gateway=gateway)
    transport = ASGITransport(access)
    return httpx.AsyncClient(transport=transport, base_url=url)


@pytest.mark.parametrize("host", ["127.0.0.1:1234", "127.8.9.1", "localhost:1234", "[::1]:1234"])
async def test_local_programs_need_no_token(host):
    async with client(url=f"http://{host}") as http:
        assert (await http.get("/")).text == "private"
        assert (await http.get("/", headers={"Origin": f"http://{host}"})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Origin": "http://evil.example"}, "requests from web pages of http://evil.example are not allowed"),
        ({"Origin": "null"}, "requests from web pages of null are not allowed"),
        (
            {"Host": "evil.example"},
            "host 'evil.example' is not allowed: without a token, use localhost or 127.0.0.1",
        ),
    ],
)
async def test_web_pages_and_foreign_hosts_are_refused(headers, message):
    async with client() as http:
        answer = await http.get("/", headers=headers)
        assert (answer.status_code, answer.json()["Message"]) == (403, message)


@pytest.mark.parametrize(
    "host",
    [
        "127.evil.com",
        "127.0.0.1.evil.com:1234",
        "localhost.evil.com",
        "evil.com@127.0.0.1:1234",
        "127.0.0.1:1234@evil.com",
        "127.0.0.1:x",
        "[127.0.0.1",
        "[::1",
        "[::1%lo]",
        "0.0.0.0",
        "2130706433",
        "127.1",
        "",
    ],
)
async def test_a_host_that_only_looks_local_is_refused(host):
    async with client() as http:
        answer = await http.put("/", headers={"Host": host, "Origin": f"http://{host}"})
        assert answer.status_code == 403


@pytest.mark.parametrize("origin", ["http://[", "http://127.0.0.1:1234@evil.com", "//"])
async def test_an_origin_that_is_no_url_is_refused(origin):
    async with client() as http:
        assert (await http.get("/", headers={"Origin": origin})).status_code == 403


@pytest.mark.parametrize(
    ("site", "status"),
    [
        ("cross-site", 403),
        ("same-site", 403),
        ("Cross-Site", 403),
        ("x", 403),
        ("same-origin", 200),
        ("none", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("token", ["", "secret"])
async def test_pages_of_other_sites_may_not_even_read(site, status, method, token):
    """An `<img>` sends no Origin, and `/ipfs/CID?provider=` or `?wait=` would make the node work."""
    headers = {"Sec-Fetch-Site": site, "Authorization": f"Bearer {token}"}
    async with client(token) as http:
        answer = await http.request(method, "/ipfs/bafy?provider=/ip4/192.0.2.1/tcp/1", headers=headers)
        assert answer.status_code == status


async def test_an_open_gateway_shows_stored_content_to_pages_of_other_sites():
    async with client(gateway=True) as http:
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert (await http.get("/ipfs/bafy", headers=headers)).text == "public"
        assert (await http.get("/api/v1/agent/node", headers=headers)).status_code == 403


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "secret", "Basic secret"])
async def test_a_wrong_token_is_refused(authorization):
    async with client("secret") as http:
        answer = await http.get("/", headers={"Authorization": authorization} if authorization else {})
        assert answer.status_code == 401
        assert answer.json()["Message"] == "missing or wrong API token; set BACALHAU_P2P_API_TOKEN"


async def test_the_token_allows_any_host_but_no_web_page():
    headers = {"Authorization": "bearer secret"}
    async with client("secret", url="http://node.example") as http:
        assert (await http.get("/", headers=headers)).text == "private"
        foreign = {**headers, "Origin": "http://evil.example"}
        assert (await http.get("/", headers=foreign)).status_code == 403


async def test_an_open_gateway_lets_strangers_read_content_and_nothing_else():
    async with client("secret", gateway=True, url="http://node.example") as http:
        assert (await http.get("/ipfs/bafy")).text == "public"
        assert (await http.head("/ipfs/bafy")).status_code == 200
        assert (await http.post("/ipfs/bafy")).status_code == 401
        assert (await http.get("/api/v1/content")).status_code == 401
        allowed = await http.get("/ipfs/bafy", headers={"Authorization": "Bearer secret"})
        assert allowed.text == "private"


async def open_socket(token: str = "", **headers: str) -> tuple[bool, int]:
    """Whether a WebSocket gets through, and else the status that it is refused with."""
    reached, statuses = [], list[int]()

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["path"])

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    scope = {
        "type": "websocket",
        "path": "/api/v1/orchestrator/jobs/x/logs",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    access = AccessControl(handler, token=token, url_key=b"key", guesses=TokenGuesses(Counter()))
    await access(scope, receive, send)
    return bool(reached), statuses[0] if statuses else 0


async def test_websockets_are_guarded_as_requests_are():
    local = {"Host": "127.0.0.1:1234"}
    assert await open_socket(**local) == (True, 0)
    assert await open_socket(**local, Origin="http://127.0.0.1:1234") == (True, 0)
    assert await open_socket(**local, Origin="http://evil.example") == (False, 403)
    assert await open_socket(Host="evil.example") == (False, 403)
    assert await open_socket("secret", **local) == (False, 401)
    assert await open_socket("secret", **local, Authorization="Bearer secret") == (True, 0)


@pytest.mark.parametrize("path", ["agent/alive", "agent/version", "agent/authconfig", "auth", "auth/token"])
async def test_what_clients_ask_before_they_have_a_token_needs_none(path):
    async with client("secret", url="http://node.example") as http:
        assert (await http.get(f"/api/v1/{path}")).text == "private"
        foreign = {"Origin": "http://evil.example"}
        assert (await http.get(f"/api/v1/{path}", headers=foreign)).status_code == 403
        assert (await http.get("/api/v1/authority")).status_code == 401


@pytest.mark.parametrize("header", ["Authorization", "Cookie", "signature"])
async def test_whatever_a_token_can_be_guessed_with_is_refused_after_some_guesses(header):
    async with client("secret", url="http://node.example") as http:
        for number in range(GUESSES_AT_ONCE + 1):
            guess = {"Authorization": f"Bearer {number}", "Cookie": f"{COOKIE}={number}"}
            path = f"/x.tar.gz?signature={number}" if header == "signature" else "/x"
            answer = await http.get(path, headers={header: guess[header]} if header in guess else {})
            assert answer.status_code == (401 if number < GUESSES_AT_ONCE else 429)
        assert 0 < int(answer.headers["Retry-After"]) <= 10
        assert "too many wrong API tokens from 127.0.0.1; try again in" in answer.json()["Message"]
        assert answer.json()["Code"] == "TooManyRequests"
        right = {"Authorization": "Bearer secret"}
        assert (await http.get("/x", headers=right)).status_code == 429  # or guesses would not be limited
        assert (await http.get("/x")).status_code == 401
        assert (await http.get("/api/v1/agent/alive")).status_code == 200


async def test_an_old_cookie_is_no_obstacle_for_the_token():
    async with client("secret", url="http://node.example") as http:
        headers = {"Authorization": "Bearer secret", "Cookie": f"{COOKIE}=old"}
        for _ in range(2 * GUESSES_AT_ONCE):
            assert (await http.get("/x", headers=headers)).status_code == 200
