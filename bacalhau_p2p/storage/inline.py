"""Inputs inside the job itself, as `data:` URLs (RFC 2397), encoded as Bacalhau encodes them."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

import trio

from bacalhau_p2p.errors import Fault, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.storage.archive import MAX_CONTENT, ArchiveEntry, MalformedArchive, read_archive
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider

FOLDER_TYPE = "application/gzip"
"""The media type of a gzipped TAR, which is unpacked into a folder. Bacalhau uses it for folders."""

MAX_INLINE = MAX_CONTENT
"""Bytes of an input when unpacked, as in Bacalhau. Add larger data to a node instead."""
MAX_HEAD = 1024
"""Characters before the comma of a data URL."""
MAX_DECODING = 2
"""Inputs that are decoded at the same time; each takes a few times `MAX_INLINE` of memory."""

_FILE, _FOLDER = "file", "folder"


class InlineStorage(StorageProvider):
    """`{Type: inline, Params: {URL: "data:text/plain;base64,..."}}`.

    A URL of the media type `application/gzip` becomes a folder with the files and folders of the
    archive; other kinds of entries are left out. A URL of any other type becomes a file.
    """

    def __init__(self) -> None:
        self._threads = Threads(MAX_DECODING)

    @property
    def source(self) -> str:
        return "inline"

    def faults(self, source: SpecConfig) -> list[Fault]:
        try:
            _split(source)
        except _Malformed as error:
            return [Fault("Params.URL", str(error))]
        return []

    async def input_faults(self, source: SpecConfig) -> list[Fault]:
        """Data that cannot be decoded or unpacked. Every node finds the same."""
        try:
            await self._threads.run(_read, source)
        except _Malformed as error:
            return [Fault("Params.URL", str(error))]
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        return True

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        try:
            content = await self._threads.run(_read, source)
        except _Malformed:
            return None
        total = len(content) if isinstance(content, bytes) else sum(entry.size for entry in content)
        return InputSize(total=total, local=total, disk=total)

    async def prepare(
        self,
        source: SpecConfig,
        folder: Path,
        *,
        hints: Sequence[PeerID] = (),
        max_bytes: int | None = None,
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; a malformed URL or archive is a permanent failure."""
        return PreparedInput(path=await self._threads.run(_write, source, folder))

    async def cleanup(self, prepared: PreparedInput) -> None:
        await trio.to_thread.run_sync(discard_tree, prepared.path)


class _Malformed(ValueError):
    """What is wrong with a data URL, in words that follow its path."""


def _write(source: SpecConfig, folder: Path) -> Path:
    try:
        content = _read(source)
        if isinstance(content, bytes):
            path = folder / _FILE
            path.write_bytes(content)
        else:
            path = folder / _FOLDER
            _unpack(content, path)
    except _Malformed as error:
        raise StorageError(f"invalid inline input: Params.URL: {error}", permanent=True) from None
    except OSError as error:
        raise StorageError(f"inline input cannot be written: {error.strerror or error}") from error
    return path


def _read(source: SpecConfig) -> bytes | list[ArchiveEntry]:
    """The content of the file, or the entries of the folder. Raises _Malformed."""
    media_type, is_base64, body = _split(source)
    try:
        data = unquote_to_bytes(body)
        if is_base64:
            data = _decode_base64(data)
    except (binascii.Error, ValueError):
        raise _Malformed("is not valid base64") from None
    if len(data) > MAX_INLINE:
        raise _Malformed(f"has {len(data)} bytes; at most {MAX_INLINE} are allowed")
    if media_type != FOLDER_TYPE:
        return data
    try:
        return read_archive(data)
    except MalformedArchive as error:
        raise _Malformed(str(error)) from None


def _split(source: SpecConfig) -> tuple[str, bool, str]:
    """Media type (lower case, without parameters), whether the data is base64, and the data, still
    encoded. Raises _Malformed."""
    url = source.params.get("URL")
    if not isinstance(url, str) or not url:
        raise _Malformed("missing")
    if url[:5].lower() != "data:":
        raise _Malformed("must begin with data:")
    comma = url.find(",", 5, 5 + MAX_HEAD)
    if comma < 0:
        raise _Malformed("has no comma before its data")
    head, body = url[5:comma], url[comma + 1 :]
    parts = [part.strip().lower() for part in head.split(";")]
    return parts[0], parts[-1] == "base64", body


def _decode_base64(data: bytes) -> bytes:
    """Accepts both alphabets, with or without padding."""
    text = b"".join(data.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return b64decode(text + b"=" * (-len(text) % 4), validate=True)


def _unpack(entries: Sequence[ArchiveEntry], folder: Path) -> None:
    """Makes only files and folders, each file only where nothing exists: no name can lead outside."""
    folder.mkdir()
    for entry in entries:
        target = folder / entry.path
        if entry.data is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(entry.data)
        target.chmod(0o755 if entry.executable else 0o644)
