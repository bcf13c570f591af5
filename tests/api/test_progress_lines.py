"""Responses that say how much is fetched for them: `progress_lines`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import trio

from bacalhau_p2p.api.progress_lines import ProgressLines
from bacalhau_p2p.errors import ContentNotFound
from bacalhau_p2p.runtime.transfers import note_fetched


async def lines(
    work: Callable[[], Awaitable[dict[str, object]]], total: Callable[[], Awaitable[int | None]], clock
) -> list[dict[str, object]]:
    clock.autojump_threshold = 0
    sent: list[dict[str, object]] = []

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        raise AssertionError("nothing is read")

    await ProgressLines(work, total)({"type": "http"}, receive, send)
    start, *parts = sent
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert (b"content-type", b"application/x-ndjson") in start["headers"]
    assert not any(name == b"content-length" for name, _ in start["headers"])
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    return [json.loads(part["body"]) for part in parts]


async def known() -> int | None:
    await trio.sleep(1.2)
    return 100


async def test_lines_say_how_much_is_fetched_and_the_last_is_the_result(autojump_clock):
    async def work() -> dict[str, object]:
        note_fetched(10)
        await trio.sleep(0.7)
        note_fetched(5)
        await trio.sleep(1.1)
        return {"CID": "bafy"}

    assert await lines(work, known, autojump_clock) == [
        {"Fetched": 10, "Total": None},
        {"Fetched": 15, "Total": None},
        {"Fetched": 15, "Total": 100},
        {"CID": "bafy"},
    ]


async def test_an_error_is_the_last_line_and_one_of_the_total_is_none(autojump_clock):
    async def work() -> dict[str, object]:
        await trio.sleep(0.6)
        raise ContentNotFound("nobody has it")

    async def unknown() -> int | None:
        raise ContentNotFound("no root")

    first, last = await lines(work, unknown, autojump_clock)
    assert first == {"Fetched": 0, "Total": None}
    assert (last["Code"], last["Message"]) == ("NotFound", "nobody has it")
