"""Results as `.tar.gz`, for clients that know no CIDs: Bacalhau's fetch such a URL, without the API token.

On a node with a token the URL is signed. So whoever was told the URL may fetch this one result.
"""

from __future__ import annotations

import hmac
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs

import trio
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.types import Scope

from bacalhau_p2p.api.documented import answers
from bacalhau_p2p.errors import ContentNotFound, InvalidCID
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.node import Node

JOBS = "/api/v1/orchestrator/jobs"
SUFFIX = ".tar.gz"
_GZIP = 16 + zlib.MAX_WBITS
_FAST = 1
_QUERY = "signature"


def signing_key(node: Node) -> bytes:
    """The key of signatures, empty on a node without a token. Made with the node's own key as well: who has a
    URL cannot try guesses of the token on it."""
    token = node.settings.api_token.encode()
    return hmac.digest(node.identity.seed, b"URLs of results " + token, "sha256") if token else b""


def signature_of(path: str, key: bytes) -> str:
    """What proves that a bearer of the token was told this path; empty without a key."""
    return hmac.digest(key, b"GET " + path.encode(), "sha256").hex() if key else ""


def signature_in(scope: Scope) -> str:
    """The signature that comes with a request for a path that may be signed; empty if there is none."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return ""
    path: str = scope["path"]
    if not path.endswith(SUFFIX) or not path.isascii():
        return ""
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get(_QUERY, [""])[0]


def archive_urls(host: str, job_id: str, results: Sequence[PublishedResult], key: bytes) -> list[Any]:
    """Each distinct result as Bacalhau's `urlDownload`, with its CID and where it is published beside it.

    `host` is what the client calls this node.
    """
    items: dict[str, dict[str, Any]] = {}
    for result in results:
        path = f"{JOBS}/{job_id}/results/{result.cid}{SUFFIX}"
        signature = signature_of(path, key)
        location = {"Type": result.location.type, "Params": result.location.params}
        params = {
            **result.location.params,
            "URL": f"http://{host}{path}" + (f"?{_QUERY}={signature}" if signature else ""),
            "CID": result.cid,
        }
        item = items.setdefault(result.cid, {"Type": "urlDownload", "Params": params, "Location": location})
        if item["Params"] is not params:
            item["Params"]["Providers"] = [*_providers(item["Params"]), *_providers(params)]
    return list(items.values())


def result_archive_routes(node: Node) -> APIRouter:
    routes = APIRouter()

    @routes.get(
        "/jobs/{job_id}/results/{name}",
        response_class=StreamingResponse,
        responses=answers("application/gzip"),
    )
    async def get_result_archive(job_id: str, name: str) -> StreamingResponse:
        """A result of a job as a gzipped TAR, whose root holds stdout, stderr, exitCode and the outputs."""
        results = await node.requester.results(node.requester.resolve(job_id))
        published = [result for result in results if result.cid == name.removesuffix(SUFFIX)]
        try:
            root = CID.parse(name.removesuffix(SUFFIX))
        except InvalidCID:
            published = []
        if not published or not name.endswith(SUFFIX):
            raise ContentNotFound(f"job {job_id} has no result {name}")
        hints = node.learn([text for result in published for text in _providers(result.location.params)])
        with node.content.holding(root):
            await node.content.fetch(root, hints=hints, timeout=node.settings.content_timeout)
            pieces = node.content.reader.tar(root, name=".")
            first = await anext(pieces, b"")  # what is missing is an error response
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(_gzipped(first, pieces), media_type="application/gzip", headers=headers)

    return routes


async def _gzipped(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP)
    async with aclosing(rest):
        yield await trio.to_thread.run_sync(packer.compress, first)
        async for piece in rest:
            if packed := await trio.to_thread.run_sync(packer.compress, piece):
                yield packed
        yield packer.flush()


def _providers(params: Any) -> list[str]:
    providers = params.get("Providers")
    return (
        [each for each in providers if isinstance(each, str)] if isinstance(providers, list | tuple) else []
    )
