"""Inputs by CID, from this node's own store or from peers that have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from bacalhau_p2p.errors import ContentError, ContentTooLarge, Fault, InvalidCID, InvalidContent, StorageError
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.quantities import format_bytes
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider

_NAME = "content"


class IpfsStorage(StorageProvider):
    """`{Type: ipfs, Params: {CID: bafy...}}`: a file or a folder, read-only.

    The content is fetched into the node's block store, where later jobs find it, and written into
    the folder of the execution. Symlinks that stay inside the content are kept, others left out.
    """

    def __init__(self, content: Content, *, timeout: float = 15.0) -> None:
        """`timeout`: seconds to find a peer that has the content."""
        self._content = content
        self._timeout = timeout

    @property
    def source(self) -> str:
        return "ipfs"

    def faults(self, source: SpecConfig) -> list[Fault]:
        try:
            requested_cid(source).require_fetchable()
        except ContentError as error:
            return [Fault("Params.CID", str(error))]
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        return await self._content.has(requested_cid(source))

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """For content that is not all here: what its root block claims, which a peer may provide."""
        cid = requested_cid(source)
        if await self._content.has(cid):
            total = await self._content.size(cid)
            return InputSize(total=total, local=total, disk=total)
        claimed = await self._content.claimed_size(cid, hints=hints)
        if claimed is None:
            return None
        held = min(await self._content.stored_size(cid), claimed)
        return InputSize(total=claimed, local=held, disk=2 * claimed - held)

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
            cid = requested_cid(source)
            with self._content.holding(cid):
                await self._content.fetch(cid, hints=hints, timeout=self._timeout, max_bytes=max_bytes)
                await self._content.export(cid, path, symlinks="keep", max_bytes=max_bytes)
        except (InvalidCID, InvalidContent) as error:
            raise StorageError(f"invalid ipfs input: {error}", permanent=True) from error
        except ContentTooLarge as error:
            if max_bytes is None or error.size is None or error.size <= max_bytes:
                raise StorageError(str(error)) from error
            needed, reserved = format_bytes(error.size), format_bytes(max_bytes)
            raise StorageError(f"{cid} needs {needed} of disk; {reserved} is reserved for inputs") from error
        except ContentError as error:
            raise StorageError(str(error)) from error
        return PreparedInput(path=path)

    async def cleanup(self, prepared: PreparedInput) -> None:
        await trio.to_thread.run_sync(discard_tree, prepared.path)


def requested_cid(source: SpecConfig) -> CID:
    """Raises InvalidCID."""
    text = source.params.get("CID")
    if not isinstance(text, str):
        raise InvalidCID("missing")
    return CID.parse(text)
