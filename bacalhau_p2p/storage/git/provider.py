"""Inputs from Git: the files of one commit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import trio

from bacalhau_p2p.errors import Fault, InvalidJob, StorageError
from bacalhau_p2p.ipfs.files.export import stays_inside
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import GitSource
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.addresses import AddressGuard, AddressRefused
from bacalhau_p2p.outbound.http import shown
from bacalhau_p2p.storage.cache import Cached
from bacalhau_p2p.storage.fetching import Fetcher, UnchangedError
from bacalhau_p2p.storage.files import remove_tree
from bacalhau_p2p.storage.git.command import Git, GitFault, OutputTooLarge
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider

MAX_FILES = 500_000
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HOST = re.compile(r"(?:[a-z0-9_-]+\.)*(?!0x|[0-9])[a-z0-9_-]*[a-z0-9]")
"""A name in ASCII, whose last part is no number: that would be an address in disguise."""
_WATCH_EVERY = 0.25
_MAX_REFS = 1024 * 1024
_FOREVER = ("not found", "could not read Username", "not our ref", "couldn't find remote ref", "did not send")
"""What git says when it would say so to everybody; `could not read Username`: it needs credentials."""


class GitStorage(StorageProvider):
    """`{Type: git, Params: {URL: "https://...", Ref: main}}`: a folder with the files of one commit.

    `Ref` is a branch, a tag, a full name (`refs/...`) or a whole commit id; the default branch without
    it. Read-only, without history, hooks, submodules and LFS content. Only http and https, to
    addresses that the guard permits; redirects are not followed.
    """

    def __init__(self, guard: AddressGuard, fetcher: Fetcher) -> None:
        self._guard = guard
        self._fetcher = fetcher

    @staticmethod
    def installed() -> bool:
        """Whether there is a git that can be told where to connect; an older one would look it up."""
        return version() >= (2, 37)

    @property
    def source(self) -> str:
        return "git"

    def faults(self, source: SpecConfig) -> list[Fault]:
        try:
            _read(source)
        except InvalidJob as error:
            return list(error.faults)
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        try:
            return await self._fetcher.has(_key(_read(source)))
        except InvalidJob:
            return False

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """Only of what was fetched before: nobody tells what a commit adds up to."""
        try:
            return await self._fetcher.size_here(_key(_read(source)))
        except InvalidJob:
            return None

    async def prepare(
        self, source: SpecConfig, folder: Path, *, hints: Sequence[PeerID] = ()
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; a repository or commit that is not there is a permanent failure."""
        try:
            asked = _read(source)
        except InvalidJob as error:
            raise StorageError(f"git input cannot be used: {error}", permanent=True) from None

        async def fetch(target: Path, known: Cached | None) -> Mapping[str, str]:
            if known is not None and known.note.get("commit") == asked.ref:
                raise UnchangedError
            checkout = _Checkout(asked, self._fetcher, target)
            try:
                return await checkout.run(await self._resolve(asked), known)
            except GitFault as fault:
                permanent = any(words in str(fault) for words in _FOREVER)
                raise StorageError(
                    f"{shown(asked.url)} cannot be had: {fault}", permanent=permanent
                ) from None
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(remove_tree, checkout.repository)

        return await self._fetcher.prepare(_key(asked), folder, fetch)

    async def cleanup(self, prepared: PreparedInput) -> None:
        await self._fetcher.cleanup(prepared)

    async def _resolve(self, asked: GitSource) -> str:
        """Where to connect, for curl. Raises StorageError."""
        parts = urlsplit(asked.url)
        port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
        try:
            addresses = await self._guard.resolve(parts.hostname or "", port)
        except AddressRefused as error:
            raise StorageError(f"{shown(asked.url)} cannot be had: {error}") from None
        except OSError as error:
            problem = (
                f"{shown(asked.url)} cannot be had: its name cannot be resolved: {error.strerror or error}"
            )
            raise StorageError(problem) from None
        if _is_address(parts.hostname or ""):
            return ""  # there is nothing to look up
        listed = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
        return f"{parts.hostname}:{port}:{listed}"


def version() -> tuple[int, ...]:
    """Of the program `git`, (0,) when there is none. Blocks for some milliseconds."""
    program = shutil.which("git")
    if program is None:
        return (0,)
    try:
        said = subprocess.run(  # noqa: S603 - the operator's own git
            [program, "version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return (0,)
    found = re.search(r"\d+(\.\d+)+", said)
    return tuple(int(part) for part in found[0].split(".")) if found else (0,)


def _read(source: SpecConfig) -> GitSource:
    """Raises InvalidJob, also for a host that git might spell otherwise than we do: it is told where to
    connect for exactly that name, and would look up any other by itself."""
    asked = read_params(GitSource, source)
    host = urlsplit(asked.url).hostname or ""
    if not _HOST.fullmatch(host) and not _is_address(host):
        raise InvalidJob([Fault("Params.URL", "has a host that is neither a plain name nor an address")])
    return asked


def _is_address(host: str) -> bool:
    try:
        return str(ip_address(host)) == host
    except ValueError:
        return False


def _key(asked: GitSource) -> str:
    return f"git {asked.url} {asked.ref}"


class _Checkout:
    """The files of one commit being brought to a new folder."""

    def __init__(self, asked: GitSource, fetcher: Fetcher, target: Path) -> None:
        self._asked = asked
        self._fetcher = fetcher
        self._target = target
        self._limit = fetcher.limits.bytes
        self.repository = target.with_name(".repository")

    async def run(self, resolve: str, known: Cached | None) -> Mapping[str, str]:
        """Raises GitFault, StorageError, UnchangedError."""
        limits = self._fetcher.limits
        git = Git(self.repository, resolve=resolve, file_size=limits.bytes + 1024 * 1024, idle=limits.idle)
        commit = await self._commit(git)
        if known is not None and known.note.get("commit") == commit:
            raise UnchangedError
        kind = "sha256" if len(commit) == 64 else "sha1"
        await git.run("init", "--quiet", "--bare", "--template=", f"--object-format={kind}")
        await self._watched(
            git,
            *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head"),
            *(
                "--no-recurse-submodules",
                "--no-auto-maintenance",
                "--end-of-options",
                self._asked.url,
                commit,
            ),
        )
        await self._measure(git, commit)
        await self._fetcher.thread(self._target.mkdir, 0o755)
        await git.run(f"--work-tree={self._target}", "checkout", "--quiet", "--force", "--detach", commit)
        await self._fetcher.thread(_remove_leading_out, self._target)
        return {"commit": commit}

    async def _commit(self, git: Git) -> str:
        """The commit that the reference is now. Raises StorageError when there is none."""
        ref = self._asked.ref
        if _COMMIT.fullmatch(ref):
            return ref
        names = [ref] if ref.startswith("refs/") or not ref else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        wanted = [name or "HEAD" for name in names]
        wanted += [f"{name}^{{}}" for name in wanted if name.startswith("refs/tags/")]
        try:
            listing = await git.run(
                "ls-remote", "--quiet", "--end-of-options", self._asked.url, *wanted, limit=_MAX_REFS
            )
        except OutputTooLarge:
            raise StorageError(f"{shown(self._asked.url)} has too many references", permanent=True) from None
        there = {name: commit for commit, _, name in (line.partition("\t") for line in listing.splitlines())}
        for name in [wanted[0], *reversed(wanted)]:  # a branch before a tag, and what a tag stands for
            if _COMMIT.fullmatch(there.get(name, "")):
                return there[name]
        what = f"no branch or tag {ref}" if ref else "no default branch"
        raise StorageError(f"{shown(self._asked.url)} has {what}", permanent=True)

    async def _watched(self, git: Git, *arguments: str) -> None:
        """Run a command, and end it when the repository grows beyond the limit."""
        too_large = False
        failure: GitFault | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal too_large
                while True:
                    await trio.sleep(_WATCH_EVERY)
                    if await self._fetcher.thread(_size, self.repository) > self._limit:
                        too_large = True
                        nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                await git.run(*arguments)
            except GitFault as fault:  # carried out of the nursery, which would wrap it
                failure = fault
            nursery.cancel_scope.cancel()
        if too_large or await self._fetcher.thread(_size, self.repository) > self._limit:
            raise StorageError(
                f"{shown(self._asked.url)} is larger than the {self._limit} bytes that this node takes"
            )
        if failure is not None:
            raise failure

    async def _measure(self, git: Git, commit: str) -> None:
        """What the files add up to, before one is written: equal ones are stored once and written often."""
        try:
            listing = await git.run("ls-tree", "-r", "--long", "--full-tree", "-z", commit)
        except OutputTooLarge:
            listing = "\0" * (MAX_FILES + 1)
        entries = listing.split("\0")
        if len(entries) > MAX_FILES:
            raise StorageError(f"{shown(self._asked.url)} has too many files", permanent=True)
        sizes = [entry.split(None, 4)[3] for entry in entries if entry]
        if sum(int(size) for size in sizes if size.isdigit()) > self._limit:
            raise StorageError(
                f"{shown(self._asked.url)} is larger than the {self._limit} bytes that this node takes"
            )


def _size(folder: Path) -> int:
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
