"""Inputs from Git: the files of one commit."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import trio

from bacalhau_p2p.errors import Fault, InvalidJob
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import GitSource
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.addresses import AddressGuard, AddressRefused
from bacalhau_p2p.outbound.urls import InvalidWebURL, parse_web_url
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.storage.fetching.fetcher import Fetcher, InputUnchanged
from bacalhau_p2p.storage.fetching.input_cache import CachedInput
from bacalhau_p2p.storage.fetching.provider import FetchingProvider
from bacalhau_p2p.storage.git.checkout import Checkout, failure
from bacalhau_p2p.storage.git.command import GitError

_MINIMUM_VERSION = (2, 37)
"""The first that has `http.curloptResolve`: an older one would look up the host itself."""
_HOST = re.compile(r"(?:[a-z0-9_-]+\.)*(?!0x|[0-9])[a-z0-9_-]*[a-z0-9]")
"""An ASCII name whose last part is not a number, which would be an address in another notation."""
_PERMANENT_ERRORS = (
    "not found",
    "could not read Username",  # it needs credentials
    "not our ref",
    "couldn't find remote ref",
    "did not send",
)
"""Parts of git's messages that every node would get."""


class GitStorage(FetchingProvider[GitSource]):
    """`{Type: git, Params: {URL: "https://...", Ref: main}}`: a folder with the files of one commit.

    `Ref` is a branch, a tag, a full name (`refs/...`) or a whole commit id; without it, the default
    branch. Read-only, without history, hooks, submodules and LFS content. Only http and https, to
    addresses that the guard permits; redirects are not followed.
    """

    def __init__(self, guard: AddressGuard, fetcher: Fetcher) -> None:
        super().__init__("git", fetcher)
        self._guard = guard

    @staticmethod
    def installed() -> bool:
        """Whether a recent git is installed."""
        return version() >= _MINIMUM_VERSION

    def _params(self, source: SpecConfig) -> GitSource:
        """Refuses any host that git might read differently: git is told the addresses of exactly this
        name, and would look up any other name itself."""
        params = read_params(GitSource, source)
        host = urlsplit(params.url).hostname or ""
        try:
            parse_web_url(params.url)
        except InvalidWebURL as error:
            raise InvalidJob([Fault("Params.URL", str(error))]) from None
        if not _HOST.fullmatch(host) and not _is_address(host):
            raise InvalidJob([Fault("Params.URL", "must have a plain host name or an IP address")])
        return params

    def _key(self, params: GitSource) -> str:
        return f"git {params.url} {params.ref}"

    async def _remote_size(self, params: GitSource) -> int | None:
        """None: Git servers do not offer the size of a commit."""
        return None

    async def _fetch(
        self, params: GitSource, target: Path, cached: CachedInput | None, fetcher: Fetcher
    ) -> Mapping[str, str] | None:
        if cached is not None and cached.fingerprint.get("commit") == params.ref:
            raise InputUnchanged
        checkout = Checkout(params, fetcher, target)
        try:
            return await checkout.run(await self._resolve(params), cached)
        except GitError as error:
            permanent = any(part in str(error) for part in _PERMANENT_ERRORS)
            raise failure(params, str(error), permanent=permanent) from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(discard_tree, checkout.repository)

    async def _resolve(self, params: GitSource) -> str:
        """The permitted addresses of the host, in curl's format. Raises StorageError."""
        parts = urlsplit(params.url)
        port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
        try:
            addresses = await self._guard.resolve(parts.hostname or "", port)
        except AddressRefused as error:
            raise failure(params, str(error)) from None
        except OSError as error:
            raise failure(params, f"unknown host: {error.strerror or error}") from None
        if _is_address(parts.hostname or ""):
            return ""  # there is nothing to look up
        listed = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
        return f"{parts.hostname}:{port}:{listed}"


def version() -> tuple[int, ...]:
    """The version of the program `git`, (0,) when it is not installed. Blocks for some milliseconds."""
    program = shutil.which("git")
    if program is None:
        return (0,)
    try:
        text = subprocess.run(  # noqa: S603 - the operator's own git
            [program, "version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return (0,)
    found = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else (0,)


def _is_address(host: str) -> bool:
    try:
        return str(ip_address(host)) == host
    except ValueError:
        return False
