"""Inputs by CID, from this node's own store or from peers that have them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trio

from bacalhau_p2p.errors import (
    ContentError,
    ContentTooLarge,
    Fault,
    InvalidCID,
    InvalidContent,
    NoRoom,
    PathNotFound,
    StorageError,
)
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.files.reader import split_path
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import IpfsSource
from bacalhau_p2p.model.partition_keys import (
    ESTIMATE_TIMEOUT,
    Chooser,
    InvalidPattern,
    PartitionSpec,
    TooManyPaths,
)
from bacalhau_p2p.model.partitions import Partition, part_of
from bacalhau_p2p.model.quantities import format_bytes
from bacalhau_p2p.model.validation import param_faults, read_params
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.storage.fetching.input_cache import InputCache
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider

_NAME = "content"
LEAST_KEPT = 1024 * 1024
"""Bytes of content from which it is worth a copy on disk that executions share."""
SIZES_TIMEOUT = 1.0
"""Seconds to find out the sizes of all files of an input that is divided."""
MAX_SEEN = 1024
"""CIDs of which it is remembered that an execution got their content."""


class IpfsStorage(StorageProvider):
    """`{Type: ipfs, Params: {CID: bafy...[/path], Partition}}`: a file or a folder, read-only.

    The content is fetched into the node's block store, where later jobs find it, and written into
    the folder of the execution. Symlinks that stay inside the content are kept, others left out.
    """

    def __init__(self, content: Content, *, timeout: float = 15.0, cache: InputCache | None = None) -> None:
        """`timeout`: seconds to find a peer that has the content. `cache` keeps larger content that several
        executions get, as they share it."""
        self._content = content
        self._timeout = timeout
        self._cache = cache
        self._seen: dict[CID, None] = {}
        self._estimates = Threads(1)

    @property
    def source(self) -> str:
        return "ipfs"

    def faults(self, source: SpecConfig) -> list[Fault]:
        try:
            requested_path(source)[0].require_fetchable()
        except ContentError as error:
            return [Fault("Params.CID", str(error))]
        return param_faults(IpfsSource, source)

    async def has_locally(self, source: SpecConfig) -> bool:
        cid, names = requested_path(source)
        try:
            wanted = await self._content.located(cid, names)
        except PathNotFound:
            return False
        return wanted is not None and await self._content.has(wanted)

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """For content that is not all here: what its root block claims, which a peer may provide."""
        cid, names = requested_path(source)
        if names:
            found = await self._locate_soon(cid, names, hints)
            if found is None:
                return None
            cid = found
        if await self._content.has(cid):
            total = await self._content.size(cid)
            return InputSize(total=total, local=total, disk=total)
        claimed = await self._content.claimed_size(cid, hints=hints)
        if claimed is None:
            return None
        held = min(await self._content.stored_size(cid), claimed)
        return InputSize(total=claimed, local=held, disk=2 * claimed - held)

    async def part_size(
        self, source: SpecConfig, parts: int, *, hints: Sequence[PeerID] = ()
    ) -> InputSize | None:
        """By the sizes of all files, if their blocks are here or come soon, and they are not too many; else
        that of all parts."""
        cid, names = requested_path(source)
        found = await self._locate_soon(cid, names, hints) if names else cid
        files = None
        if found is not None:
            files = await self._content.paths.file_sizes(found, hints=hints, timeout=SIZES_TIMEOUT)
        if found is None or files is None or any(not path for path, _ in files):
            return await self.size(source, hints=hints)
        divided = source.replace(params=part_of(source.params, Partition(0, parts)))
        chooser = Chooser(read_params(IpfsSource, divided).partition, timeout=ESTIMATE_TIMEOUT)
        try:
            total = await self._estimates.run(
                chooser.largest, [("/".join(path), size) for path, size in files]
            )
        except TooManyPaths:
            return await self.size(source, hints=hints)
        except InvalidPattern as error:
            raise StorageError(f"{found} cannot be divided: {error}", permanent=True) from None
        if await self._content.has(found):
            return InputSize(total=total, local=total, disk=total)
        return InputSize.as_blocks(total)

    async def prepare(
        self,
        source: SpecConfig,
        folder: Path,
        *,
        hints: Sequence[PeerID] = (),
        max_bytes: int | None = None,
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; content that contradicts itself is a permanent failure.

        Nothing is written of content that expands to more than `max_bytes`.
        """
        path = folder / _NAME
        try:
            root, names = requested_path(source)
            with self._content.holding(root):
                cid = root
                if names:
                    cid = await self._content.locate(
                        root, names, hints=hints, timeout=self._timeout, max_bytes=max_bytes
                    )
                part = read_params(IpfsSource, source).partition
                if part.divides:
                    await self._prepare_part(cid, path, part, hints, max_bytes)
                    return PreparedInput(path=path)
                await self._content.fetch(cid, hints=hints, timeout=self._timeout, max_bytes=max_bytes)
                if not await self._link(cid, path, max_bytes):
                    exported = await self._content.export(cid, path, symlinks="keep", max_bytes=max_bytes)
                    await self._keep(cid, path, exported.bytes)
        except PathNotFound as error:
            raise StorageError(str(error), permanent=True) from error
        except (InvalidCID, InvalidContent) as error:
            raise StorageError(f"invalid ipfs input: {error}", permanent=True) from error
        except ContentTooLarge as error:
            if max_bytes is None or error.size is None or error.size <= max_bytes:
                # The limits of content are those of every node.
                raise StorageError(str(error), permanent=not isinstance(error, NoRoom)) from error
            needed, reserved = format_bytes(error.size), format_bytes(max_bytes)
            raise StorageError(f"{cid} needs {needed} of disk; {reserved} is reserved for inputs") from error
        except ContentError as error:
            raise StorageError(str(error)) from error
        return PreparedInput(path=path, content=str(cid.v1))

    async def _link(self, cid: CID, path: Path, max_bytes: int | None) -> bool:
        """Link the copy that executions share to `path`; False without one that is small enough."""
        cache, key = self._cache, str(cid.v1)
        if cache is None or cid.v1 not in self._seen:
            return False

        def link() -> bool:
            kept = cache.get(key)
            return (
                kept is not None and (max_bytes is None or kept.size <= max_bytes) and cache.link(key, path)
            )

        try:
            return await trio.to_thread.run_sync(link)
        except OSError:
            await trio.to_thread.run_sync(discard_tree, path)
            return False

    async def _keep(self, cid: CID, path: Path, size: int) -> None:
        """Keep what was written to `path` for the next executions, if this is the second that gets it."""
        if self._cache is None or size < LEAST_KEPT:
            return
        if cid.v1 in self._seen:
            with suppress(OSError):
                await trio.to_thread.run_sync(self._cache.put, str(cid.v1), path, {})
            return
        while len(self._seen) >= MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[cid.v1] = None

    async def _prepare_part(
        self, cid: CID, path: Path, part: PartitionSpec, hints: Sequence[PeerID], max_bytes: int | None
    ) -> None:
        """Fetch and write the files of a folder that are in this part, and no others."""
        left, timeout = max_bytes, self._timeout
        files = await self._content.files(cid, hints=hints, timeout=timeout, max_bytes=max_bytes)
        if any(not names for names, _ in files):
            raise StorageError(f"{cid} is a file, and only folders can be divided", permanent=True)
        try:
            chosen = await trio.to_thread.run_sync(_chosen, part, files)
        except InvalidPattern as error:
            raise StorageError(f"{cid} cannot be divided: {error}", permanent=True) from None
        done = False
        try:
            await trio.to_thread.run_sync(_make_folders, path, [names for names, _ in chosen])
            parts = [file for _, file in chosen]
            await self._content.fetch(cid, parts=parts, hints=hints, timeout=timeout, max_bytes=left)
            for names, file in chosen:
                written = await self._content.export(file, path.joinpath(*names), max_bytes=left)
                left = None if left is None else left - written.bytes
            done = True
        finally:
            if not done:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(discard_tree, path)

    async def _locate_soon(self, cid: CID, names: Sequence[str], hints: Sequence[PeerID]) -> CID | None:
        """What is at the path, if peers send the blocks on the way. The caller bounds the time."""
        try:
            return await self._content.located(cid, names) or await self._content.peek(cid, names, hints)
        except PathNotFound as error:
            raise StorageError(str(error), permanent=True) from error

    async def cleanup(self, prepared: PreparedInput) -> None:
        await trio.to_thread.run_sync(discard_tree, prepared.path)


def requested_path(source: SpecConfig) -> tuple[CID, tuple[str, ...]]:
    """The CID, and the names of the path below it, if any. Raises InvalidCID."""
    text = source.params.get("CID")
    if not isinstance(text, str):
        raise InvalidCID("missing")
    return split_path(text)


_Files = Sequence[tuple[tuple[str, ...], CID]]


def _chosen(part: PartitionSpec, files: _Files) -> _Files:
    """The files that are in a part. Blocks. Raises InvalidPattern."""
    chooser = Chooser(part)
    return [(names, file) for names, file in files if chooser.has("/".join(names))]


def _make_folders(target: Path, files: Sequence[tuple[str, ...]]) -> None:
    """The folders for files at these paths. Blocks. Raises StorageError for a name that is none."""
    target.mkdir()
    for names in files:
        if any(name in ("", ".", "..") or "/" in name or "\0" in name for name in names):
            raise StorageError(f"{'/'.join(names)!r} is not a path", permanent=True)
        target.joinpath(*names[:-1]).mkdir(parents=True, exist_ok=True)
