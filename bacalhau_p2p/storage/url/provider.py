"""Inputs by URL: one file, streamed from a web server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx

from bacalhau_p2p.errors import Fault, InvalidJob, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import UrlSource
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.addresses import AddressGuard, AddressRefused, guarded_client
from bacalhau_p2p.outbound.http import redacted
from bacalhau_p2p.outbound.urls import InvalidWebURL, parse_web_url
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.storage.fetching.fetcher import Fetcher, InputUnchanged
from bacalhau_p2p.storage.fetching.input_cache import CachedInput
from bacalhau_p2p.storage.fetching.provider import FetchingProvider
from bacalhau_p2p.storage.interface import PreparedInput
from bacalhau_p2p.storage.url.download import HEADERS, Download
from bacalhau_p2p.storage.url.redirects import MAX_REDIRECTS, redirect_target

log = get_logger(__name__)


class UrlStorage(FetchingProvider[UrlSource]):
    """`{Type: url, Params: {URL: "https://...", SHA256: "..."}}`: one file, read-only.

    It is named as its server says, or by the last part of the URL's path. With `SHA256` it must have that
    hash, and is not requested again once it is cached; without, the server is asked whether it has changed.
    Redirects are followed, ten at most, but none from https to http.
    """

    def __init__(self, guard: AddressGuard, fetcher: Fetcher, *, source: str = "url") -> None:
        """`source` is the type to answer to: Bacalhau has `url` and `urlDownload` for the same."""
        super().__init__(source, fetcher)
        self._guard = guard

    async def prepare(
        self,
        source: SpecConfig,
        folder: Path,
        *,
        hints: Sequence[PeerID] = (),
        max_bytes: int | None = None,
    ) -> PreparedInput:
        """As `FetchingProvider.prepare`; the input has the name of its file."""
        prepared = await super().prepare(source, folder, hints=hints, max_bytes=max_bytes)
        (file,) = prepared.path.iterdir()
        return replace(prepared, path=file, name=file.name)

    async def cleanup(self, prepared: PreparedInput) -> None:
        await super().cleanup(replace(prepared, path=prepared.path.parent))

    def _params(self, source: SpecConfig) -> UrlSource:
        params = read_params(UrlSource, source)
        try:
            parse_web_url(params.url)
        except InvalidWebURL as error:
            raise InvalidJob([Fault("Params.URL", str(error))]) from None
        return params

    def _setting_faults(self, params: UrlSource) -> list[Fault]:
        host = parse_web_url(params.url).host
        is_address = re.fullmatch(r"[0-9.]+|.*:.*", host)
        if is_address and not self._guard.permits(host):
            return [
                Fault("Params.URL", "has an address that is not allowed on this node", this_node_only=True)
            ]
        return []

    def _key(self, params: UrlSource) -> str:
        return f"url {params.url} {params.sha256.lower()}"

    async def _remote_size(self, params: UrlSource) -> int | None:
        """What the server answers to HEAD; None when it does not say. Fetching reports any failure."""
        try:
            async with guarded_client(self._guard, idle=self._fetcher.limits.idle) as client:
                url = parse_web_url(params.url)
                for _ in range(MAX_REDIRECTS + 1):
                    response = await client.head(url, headers=HEADERS)
                    if not response.has_redirect_location:
                        length = response.headers.get("content-length", "")
                        known = response.status_code == 200 and re.fullmatch(r"[0-9]{1,18}", length)
                        return int(length) if known else None
                    url = redirect_target(params.url, url, response)
        except (AddressRefused, httpx.HTTPError, InvalidWebURL, StorageError) as error:
            log.debug("size_unknown", url=redacted(params.url), reason=type(error).__name__)
        return None

    async def _fetch(
        self, params: UrlSource, target: Path, cached: CachedInput | None, fetcher: Fetcher
    ) -> Mapping[str, str] | None:
        if cached is not None and params.sha256:
            raise InputUnchanged
        return await Download(params, self._guard, fetcher, target, cached).run()
