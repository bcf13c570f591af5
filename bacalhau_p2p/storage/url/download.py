"""Downloads one file, with retries."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from email.message import Message
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

import httpx
import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.params import UrlSource
from bacalhau_p2p.outbound.addresses import AddressGuard, AddressRefused, guarded_client
from bacalhau_p2p.outbound.http import (
    RETRY_STATUSES,
    TEMPORARY_ERRORS,
    describe_error,
    describe_status,
    pause_before_retry,
    redacted,
)
from bacalhau_p2p.outbound.urls import InvalidWebURL, parse_web_url
from bacalhau_p2p.storage.fetching.fetcher import Fetcher, InputUnchanged
from bacalhau_p2p.storage.fetching.hashed_file import HashedFile
from bacalhau_p2p.storage.fetching.input_cache import CachedInput
from bacalhau_p2p.storage.url.redirects import MAX_REDIRECTS, redirect_target

HEADERS = {"User-Agent": "bacalhau_p2p", "Accept": "*/*", "Accept-Encoding": "identity"}
_GONE = frozenset({404, 410, 451})
_MAX_NAME = 255
"""Bytes of a file name."""
_MAX_DISPOSITION = 4096
"""Characters of a header that are looked at."""
_CHUNK = 1024 * 1024
"""Bytes that are written at once."""


class _TemporaryFailure(Exception):
    """A failure that may not occur again a moment later. The text is the cause."""

    def __init__(self, cause: str, response: httpx.Response | None = None) -> None:
        super().__init__(cause)
        self.response = response


class Download:
    """One file that is being downloaded into a new folder."""

    def __init__(
        self,
        params: UrlSource,
        guard: AddressGuard,
        fetcher: Fetcher,
        folder: Path,
        cached: CachedInput | None,
    ) -> None:
        self._params = params
        self._guard = guard
        self._fetcher = fetcher
        self._folder = folder
        self._cached = cached

    async def run(self) -> Mapping[str, str] | None:
        """As `Fetch`."""
        limits = self._fetcher.limits
        async with guarded_client(self._guard, idle=limits.idle) as client:
            for attempt in range(len(limits.pauses) + 1):
                try:
                    return await self._attempt(client)
                except _TemporaryFailure as failure:
                    pause = pause_before_retry(attempt, failure.response, limits.pauses)
                    if pause is None:
                        raise self._failure(str(failure)) from None
                await trio.sleep(pause)
        raise AssertionError("the last attempt gives up")

    async def _attempt(self, client: httpx.AsyncClient) -> Mapping[str, str] | None:
        url = parse_web_url(self._params.url)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                async with client.stream("GET", url, headers=self._headers()) as response:
                    if not response.has_redirect_location:
                        return await self._receive(response)
                    url = redirect_target(self._params.url, url, response)
        except AddressRefused as error:
            raise self._failure(str(error)) from None
        except InvalidWebURL:
            raise self._failure("redirect to an invalid URL", permanent=True) from None
        except TEMPORARY_ERRORS as error:
            raise _TemporaryFailure(describe_error(error, self._fetcher.limits.idle)) from error
        raise self._failure(f"more than {MAX_REDIRECTS} redirects", permanent=True)

    def _headers(self) -> dict[str, str]:
        headers = dict(HEADERS)
        if self._cached is not None:
            if etag := self._cached.fingerprint.get("etag"):
                headers["If-None-Match"] = etag
            elif modified := self._cached.fingerprint.get("modified"):
                headers["If-Modified-Since"] = modified
        return headers

    async def _receive(self, response: httpx.Response) -> Mapping[str, str] | None:
        status = response.status_code
        if status == 304 and self._cached is not None:
            raise InputUnchanged
        if status in RETRY_STATUSES:
            raise _TemporaryFailure(describe_status(response), response)
        if status != 200:
            raise self._failure(describe_status(response), permanent=status in _GONE)
        self._folder.mkdir(mode=0o755, exist_ok=True)
        for earlier in self._folder.iterdir():  # of an attempt that failed
            earlier.unlink()
        path = self._folder / response_name(response, self._params.url)
        sha256 = await self._write(response, path)
        wanted = self._params.sha256.lower()
        if wanted and sha256 != wanted:
            raise self._failure(f"wrong content: its SHA-256 is {sha256}, not {wanted}", permanent=True)
        return _fingerprint(response, hashed=bool(wanted))

    async def _write(self, response: httpx.Response, path: Path) -> str:
        """Write the body to a new file; its SHA-256, in hex."""
        too_large = self._fetcher.too_large(redacted(self._params.url))
        limit, threads = self._fetcher.limits.bytes, self._fetcher.threads
        length = response.headers.get("content-length", "")
        if re.fullmatch("[0-9]{1,18}", length) and int(length) > limit:
            raise too_large
        with HashedFile(path, limit=limit, too_large=too_large) as file:
            async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_raw())) as pieces:
                chunk = bytearray()
                async for piece in pieces:
                    chunk += piece
                    if len(chunk) >= _CHUNK:
                        await threads.run(file.write, chunk)
                        chunk = bytearray()
                await threads.run(file.write, chunk)
            return file.sha256.hex()

    def _failure(self, cause: str, *, permanent: bool = False) -> StorageError:
        return StorageError(f"download of {redacted(self._params.url)} failed: {cause}", permanent=permanent)


def _fingerprint(response: httpx.Response, *, hashed: bool) -> Mapping[str, str] | None:
    """By what to ask whether the file has changed; None when the server offers nothing."""
    headers = {"etag": "etag", "modified": "last-modified"}
    found = {name: value for name, header in headers.items() if (value := response.headers.get(header))}
    return found if found or hashed else None


def response_name(response: httpx.Response, asked: str) -> str:
    """The name of a downloaded file: what its server calls it in `Content-Disposition`, else the last part of
    the URL after redirects, else that of the URL that was asked for; `file` where there is none."""
    given = Message()
    given["Content-Disposition"] = response.headers.get("content-disposition", "")[:_MAX_DISPOSITION]
    try:
        name = re.split(r"[/\\]", given.get_filename("").strip())[-1]
    except (LookupError, ValueError):  # an unknown character set
        name = ""
    return _plain(name) or file_name(str(response.url), "") or file_name(asked)


def file_name(url: str, default: str = "file") -> str:
    """The last part of a URL's path, decoded, as a plain file name."""
    return _plain(unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])) or default


def _plain(name: str) -> str:
    name = re.sub(r"[\0-\x1f/\\\x7f]", "_", name).encode(errors="replace")[:_MAX_NAME].decode(errors="ignore")
    return "" if name in (".", "..") else name
