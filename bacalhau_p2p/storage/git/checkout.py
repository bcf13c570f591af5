"""Fetches one commit and writes its files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import trio

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.ipfs.files.symlinks import stays_inside
from bacalhau_p2p.model.params import GitSource
from bacalhau_p2p.outbound.http import redacted
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.runtime.transfers import note_fetched
from bacalhau_p2p.storage.fetching.fetcher import Fetcher, InputUnchanged
from bacalhau_p2p.storage.fetching.input_cache import CachedInput
from bacalhau_p2p.storage.git.command import Git, GitError, OutputTooLarge
from bacalhau_p2p.storage.trees import MAX_DEPTH

MAX_FILES = 500_000
"""Files of one commit."""
_MAX_REFS = 1024 * 1024
"""Bytes of a listing of references."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MEASURE_INTERVAL = 0.25
"""Seconds between measurements of a repository that is being fetched."""
_FETCH = (
    *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head"),
    *("--no-recurse-submodules", "--no-auto-maintenance", "--end-of-options"),
)


def failure(params: GitSource, cause: str, *, permanent: bool = False) -> StorageError:
    return StorageError(f"fetching {redacted(params.url)} failed: {cause}", permanent=permanent)


class Checkout:
    """Brings the files of one commit to a new folder."""

    def __init__(self, params: GitSource, fetcher: Fetcher, target: Path) -> None:
        self._params = params
        self._fetcher = fetcher
        self._target = target
        self._limit = fetcher.limits.bytes
        self.repository = target.with_name(".repository")
        """A bare repository for the time of the fetch. The caller removes it."""

    async def run(self, resolve: str, cached: CachedInput | None) -> Mapping[str, str]:
        """As `Fetch`; `resolve` as in `Git`. Raises GitError too."""
        limits = self._fetcher.limits
        git = Git(self.repository, resolve=resolve, file_size=limits.bytes + 1024 * 1024, idle=limits.idle)
        commit = await self._find_commit(git)
        if cached is not None and cached.fingerprint.get("commit") == commit:
            raise InputUnchanged
        hash_format = "sha256" if len(commit) == 64 else "sha1"
        await git.run("init", "--quiet", "--bare", "--template=", f"--object-format={hash_format}")
        await self._fetch_limited(git, commit)
        await self._check_size(git, commit)
        await self._fetcher.threads.run(self._target.mkdir, 0o755)
        await git.run(f"--work-tree={self._target}", "checkout", "--quiet", "--force", "--detach", commit)
        await self._fetcher.threads.run(_remove_leading_out, self._target)
        return {"commit": commit}

    async def _find_commit(self, git: Git) -> str:
        """The commit of the reference. Raises StorageError when there is none."""
        ref = self._params.ref
        if _COMMIT.fullmatch(ref):
            return ref
        names = [ref] if ref.startswith("refs/") or not ref else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        wanted = [name or "HEAD" for name in names]
        wanted += [f"{name}^{{}}" for name in wanted if name.startswith("refs/tags/")]
        try:
            listing = await git.run(
                "ls-remote", "--quiet", "--end-of-options", self._params.url, *wanted, limit=_MAX_REFS
            )
        except OutputTooLarge:
            raise failure(self._params, "too many references", permanent=True) from None
        found = {name: commit for commit, _, name in (line.partition("\t") for line in listing.splitlines())}
        for name in [wanted[0], *reversed(wanted)]:  # a branch before a tag, and what a tag points to
            if _COMMIT.fullmatch(found.get(name, "")):
                return found[name]
        missing = f"no branch or tag {ref!r}" if ref else "no default branch"
        raise failure(self._params, missing, permanent=True)

    async def _fetch_limited(self, git: Git, commit: str) -> None:
        """Fetch, until the repository grows beyond the limit. Raises StorageError then."""
        too_large = False

        async def watch(fetching: trio.CancelScope) -> None:
            nonlocal too_large
            while not too_large:
                await trio.sleep(_MEASURE_INTERVAL)
                too_large = await self._is_too_large()
            fetching.cancel()

        failed: GitError | None = None
        async with background() as nursery:
            with trio.CancelScope() as fetching:
                nursery.start_soon(watch, fetching)
                try:
                    await git.run(*_FETCH, self._params.url, commit)
                except GitError as error:  # the size explains it best, if it is the cause
                    failed = error
        if too_large or await self._is_too_large():
            raise self._fetcher.too_large(redacted(self._params.url))
        if failed is not None:
            raise failed
        note_fetched(await self._fetcher.threads.run(_size_below, self.repository))

    async def _is_too_large(self) -> bool:
        return await self._fetcher.threads.run(_size_below, self.repository) > self._limit

    async def _check_size(self, git: Git, commit: str) -> None:
        """Add up the files before one is written: equal files are stored once and written often."""
        try:
            listing = await git.run("ls-tree", "-r", "--long", "--full-tree", "-z", commit)
        except OutputTooLarge:
            listing = "\0" * (MAX_FILES + 1)
        await self._fetcher.threads.run(self._check_listing, listing)

    def _check_listing(self, listing: str) -> None:
        entries = listing.split("\0")
        if len(entries) > MAX_FILES:
            raise failure(self._params, f"more than {MAX_FILES} files", permanent=True)
        total = 0
        for entry in filter(None, entries):
            about, _, path = entry.partition("\t")
            size = about.split()[3]
            total += int(size) if size.isdigit() else 0
            if path.count("/") >= MAX_DEPTH:
                raise failure(self._params, f"folders more than {MAX_DEPTH} deep", permanent=True)
        if total > self._limit:
            raise self._fetcher.too_large(redacted(self._params.url))


def _size_below(folder: Path) -> int:
    """Bytes of all files below a folder that may be changing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(where) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _remove_leading_out(folder: Path) -> None:
    """Remove symlinks that could lead out of the folder."""
    for where, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(where) / name
            if path.is_symlink():
                depth = len(path.relative_to(folder).parts) - 1
                if not stays_inside(os.fsdecode(path.readlink()), depth):
                    path.unlink()
