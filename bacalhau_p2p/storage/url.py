"""Inputs by URL: one file, streamed from a web server."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

import httpx
import trio

from bacalhau_p2p.errors import Fault, InvalidJob, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import UrlSource
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.addresses import AddressGuard, AddressRefused, guarded_client
from bacalhau_p2p.outbound.http import PASSING, RETRY_STATUS, answered, in_words, pause_before, shown
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.storage.cache import Cached
from bacalhau_p2p.storage.fetching import Fetcher, Spool, UnchangedError
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider

log = get_logger(__name__)

MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410, 451})
_HEADERS = {"User-Agent": "bacalhau_p2p", "Accept": "*/*", "Accept-Encoding": "identity"}


class UrlStorage(StorageProvider):
    """`{Type: url, Params: {URL: "https://...", SHA256: "..."}}`: a folder with one file, read-only.

    The file has the name that ends the URL's path. With `SHA256` it must have that hash, and is not
    asked for again once it is here; without, the server is asked whether it has changed.
    """

    def __init__(self, guard: AddressGuard, fetcher: Fetcher, *, source: str = "url") -> None:
        """`source` is the type to answer to: Bacalhau has `url` and `urlDownload` for the same."""
        self._guard = guard
        self._fetcher = fetcher
        self._source = source

    @property
    def source(self) -> str:
        return self._source

    def faults(self, source: SpecConfig) -> list[Fault]:
        try:
            asked = _read(source)
        except InvalidJob as error:
            return list(error.faults)
        if not self._literal_is_permitted(asked.url):
            return [
                Fault("Params.URL", "has an address that is not allowed on this node", this_node_only=True)
            ]
        return []

    def _literal_is_permitted(self, url: str) -> bool:
        host = httpx.URL(url).host
        return self._guard.permits(host) if re.fullmatch(r"[0-9.]+|.*:.*", host) else True

    async def has_locally(self, source: SpecConfig) -> bool:
        try:
            return await self._fetcher.has(_key(_read(source)))
        except InvalidJob:
            return False

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """What the server says to HEAD; None when it does not say, or refuses it."""
        try:
            asked = _read(source)
        except InvalidJob:
            return None
        if (here := await self._fetcher.size_here(_key(asked))) is not None:
            return here
        length = await self._content_length(asked)
        return None if length is None else self._fetcher.size_there(length)

    async def _content_length(self, asked: UrlSource) -> int | None:
        """Whatever else the server says, fetching will tell."""
        try:
            async with guarded_client(self._guard, idle=self._fetcher.limits.idle) as client:
                url = httpx.URL(asked.url)
                for _ in range(MAX_REDIRECTS + 1):
                    response = await client.head(url, headers=_HEADERS)
                    if response.status_code not in _REDIRECTS or "location" not in response.headers:
                        length = response.headers.get("content-length", "")
                        known = response.status_code == 200 and re.fullmatch(r"[0-9]{1,18}", length)
                        return int(length) if known else None
                    url = _next(asked, url, response.headers["location"])
        except (AddressRefused, httpx.HTTPError, httpx.InvalidURL, StorageError) as error:
            log.debug("size_not_told", url=shown(asked.url), reason=type(error).__name__)
        return None

    async def prepare(
        self, source: SpecConfig, folder: Path, *, hints: Sequence[PeerID] = ()
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; a file that is not there, or has another hash, is a permanent
        failure. Redirects are followed, ten at most, but none from https to http."""
        try:
            asked = _read(source)
        except InvalidJob as error:
            raise StorageError(f"url input cannot be used: {error}", permanent=True) from None

        async def fetch(target: Path, known: Cached | None) -> Mapping[str, str] | None:
            if known is not None and asked.sha256:
                raise UnchangedError
            return await _Download(asked, self._guard, self._fetcher, target, known).run()

        return await self._fetcher.prepare(_key(asked), folder, fetch)

    async def cleanup(self, prepared: PreparedInput) -> None:
        await self._fetcher.cleanup(prepared)


def _read(source: SpecConfig) -> UrlSource:
    """Raises InvalidJob."""
    asked = read_params(UrlSource, source)
    try:
        httpx.URL(asked.url)
    except httpx.InvalidURL:
        raise InvalidJob([Fault("Params.URL", "is not a URL")]) from None
    return asked


def _key(asked: UrlSource) -> str:
    return f"url {asked.url} {asked.sha256.lower()}"


class _Passing(Exception):
    """A failure that may not be one in a moment. The text is the cause."""

    def __init__(self, cause: str, response: httpx.Response | None = None) -> None:
        super().__init__(cause)
        self.response = response


class _Download:
    """One file being fetched into a new folder."""

    def __init__(
        self, asked: UrlSource, guard: AddressGuard, fetcher: Fetcher, folder: Path, known: Cached | None
    ) -> None:
        self._asked = asked
        self._guard = guard
        self._fetcher = fetcher
        self._folder = folder
        self._known = known
        self._limits = fetcher.limits

    async def run(self) -> Mapping[str, str] | None:
        async with guarded_client(self._guard, idle=self._limits.idle) as client:
            for attempt in range(len(self._limits.pauses) + 1):
                try:
                    return await self._attempt(client)
                except _Passing as failure:
                    pause = pause_before(attempt, failure.response, self._limits.pauses)
                    if pause is None:
                        raise StorageError(f"{shown(self._asked.url)} cannot be had: {failure}") from None
                await trio.sleep(pause)
        raise AssertionError("the last attempt gives up")

    async def _attempt(self, client: httpx.AsyncClient) -> Mapping[str, str] | None:
        url = httpx.URL(self._asked.url)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                async with client.stream("GET", url, headers=self._headers()) as response:
                    if response.status_code in _REDIRECTS and "location" in response.headers:
                        url = _next(self._asked, url, response.headers["location"])
                        continue
                    return await self._take(url, response)
        except AddressRefused as error:
            raise StorageError(f"{shown(self._asked.url)} cannot be had: {error}") from None
        except PASSING as error:
            raise _Passing(in_words(error, self._limits.idle)) from error
        except httpx.InvalidURL as error:
            raise StorageError(
                f"{shown(self._asked.url)} leads to what is not a URL", permanent=True
            ) from error
        raise StorageError(
            f"{shown(self._asked.url)} has more than {MAX_REDIRECTS} redirects", permanent=True
        )

    def _headers(self) -> dict[str, str]:
        headers = dict(_HEADERS)
        if self._known is not None:
            if etag := self._known.note.get("etag"):
                headers["If-None-Match"] = etag
            elif modified := self._known.note.get("modified"):
                headers["If-Modified-Since"] = modified
        return headers

    async def _take(self, url: httpx.URL, response: httpx.Response) -> Mapping[str, str] | None:
        if response.status_code == 304 and self._known is not None:
            raise UnchangedError
        if response.status_code in RETRY_STATUS:
            raise _Passing(f"the server answered {answered(response)}", response)
        if response.status_code != 200:
            problem = f"{shown(self._asked.url)} cannot be had: the server answered {answered(response)}"
            raise StorageError(problem, permanent=response.status_code in _GONE)
        self._folder.mkdir(mode=0o755, exist_ok=True)
        path = self._folder / file_name(self._asked.url)
        path.unlink(missing_ok=True)  # of an attempt before
        spool = Spool(path, self._limits.bytes)
        try:
            length = response.headers.get("content-length", "")
            spool.check(int(length) if length.isdigit() else 0)
            async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_raw())) as chunks:
                await spool.take(chunks, self._fetcher.thread)
        except StorageError as error:
            raise StorageError(f"{shown(self._asked.url)} cannot be had: {error}") from None
        if self._asked.sha256 and spool.sha256 != self._asked.sha256.lower():
            problem = (
                f"{shown(self._asked.url)} has the SHA-256 {spool.sha256}, not {self._asked.sha256.lower()}"
            )
            raise StorageError(problem, permanent=True)
        return _note(response, bool(self._asked.sha256))


def _next(asked: UrlSource, url: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect leads. Raises StorageError where it may not."""
    there = url.join(location)
    if there.scheme not in ("http", "https") or not there.host:
        problem = f"{shown(asked.url)} leads to {there.scheme}, which is not fetched"
        raise StorageError(problem, permanent=True)
    if url.scheme == "https" and there.scheme == "http":
        raise StorageError(f"{shown(asked.url)} leads from https to http", permanent=True)
    return there.copy_with(username=None, password=None)


def _note(response: httpx.Response, hashed: bool) -> Mapping[str, str] | None:
    """By what to ask whether the file has changed; None when the server gives nothing for it."""
    names = {"etag": "etag", "modified": "last-modified"}
    note = {name: value for name, header in names.items() if (value := response.headers.get(header))}
    return note if note or hashed else None


def file_name(url: str) -> str:
    """The last name in the path of a URL, as a plain file name; `file` where there is none."""
    name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    name = re.sub(r"[\0-\x1f/\\\x7f]", "_", name)
    while len(name.encode()) > 255:
        name = name[:-1]
    return name if name not in ("", ".", "..") else "file"
