"""A response that says how much is fetched for it, as long as it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from fastapi import Response
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from bacalhau_p2p.api.json_bodies import JSON
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.model.api_errors import error_to_json
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.runtime.transfers import Transfer, counted_in

INTERVAL = 0.5
"""Seconds between two lines."""


class ProgressLines(Response):
    """Lines of JSON: now and then `{"Fetched", "Total"}` in bytes, and at the end what the work returns, or
    the body of its error. `total` is asked meanwhile; its errors mean that it is not known."""

    media_type = "application/x-ndjson"

    def __init__(
        self, work: Callable[[], Awaitable[JSON]], total: Callable[[], Awaitable[int | None]]
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._work = work
        self._total = total
        self._known: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        transfer = Transfer()
        async with background() as nursery:
            nursery.start_soon(self._ask_total)
            nursery.start_soon(self._tell, transfer, send)
            with counted_in(transfer):
                last = await self._outcome()
        await send({"type": "http.response.body", "body": to_json(last) + b"\n"})

    async def _outcome(self) -> JSON:
        try:
            return await self._work()
        except BacalhauError as error:
            return error_to_json(error)

    async def _ask_total(self) -> None:
        with suppress(BacalhauError):
            self._known = await self._total()

    async def _tell(self, transfer: Transfer, send: Send) -> None:
        while True:
            await trio.sleep(INTERVAL)
            line = to_json({"Fetched": transfer.bytes, "Total": self._known}) + b"\n"
            with trio.CancelScope(shield=True):  # a line is sent whole, or not at all
                await send({"type": "http.response.body", "body": line, "more_body": True})
