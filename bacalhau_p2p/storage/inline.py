"""Inputs inside the job itself, as `data:` URLs (RFC 2397), encoded as Bacalhau encodes them."""

from __future__ import annotations

import binascii
import gzip
import io
import tarfile
import zlib
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes

import trio

from bacalhau_p2p.errors import Fault, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider
from bacalhau_p2p.storage.trees import remove_tree

FOLDER_TYPE = "application/gzip"
"""The media type of a gzipped TAR, which is unpacked into a folder. Bacalhau uses it for folders."""

MAX_INLINE = 10 * 1024 * 1024
"""Bytes of an input when unpacked, as in Bacalhau. Add larger data to a node instead."""

_TAR_OVERHEAD = 4 * 1024 * 1024
_FILE, _FOLDER = "file", "folder"


class InlineStorage(StorageProvider):
    """`{Type: inline, Params: {URL: "data:text/plain;base64,..."}}`.

    A URL of the media type `application/gzip` becomes a folder with the files and folders of the
    archive; other kinds of entries are left out. A URL of any other type becomes a file.
    """

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
            await trio.to_thread.run_sync(_read, source)
        except _Malformed as error:
            return [Fault("Params.URL", str(error))]
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        return True

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        try:
            content = await trio.to_thread.run_sync(_read, source)
        except _Malformed:
            return None
        total = len(content) if isinstance(content, bytes) else _total(content)
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
        return PreparedInput(path=await trio.to_thread.run_sync(_write, source, folder))

    async def cleanup(self, prepared: PreparedInput) -> None:
        await trio.to_thread.run_sync(remove_tree, prepared.path)


class _Malformed(ValueError):
    """What is wrong with a data URL, in words that follow its path."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file or folder of an archive."""

    path: PurePosixPath
    data: bytes | None
    """None for a folder."""
    executable: bool = False


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


def _read(source: SpecConfig) -> bytes | list[_Entry]:
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
    return _entries(data) if media_type == FOLDER_TYPE else data


def _split(source: SpecConfig) -> tuple[str, bool, str]:
    """Media type (lower case, without parameters), whether the data is base64, and the data, still
    encoded. Raises _Malformed."""
    url = source.params.get("URL")
    if not isinstance(url, str) or not url:
        raise _Malformed("missing")
    if url[:5].lower() != "data:":
        raise _Malformed("must begin with data:")
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise _Malformed("has no comma before its data")
    parts = [part.strip().lower() for part in head.split(";")]
    return parts[0], parts[-1] == "base64", body


def _decode_base64(data: bytes) -> bytes:
    """Accepts both alphabets, with or without padding."""
    text = b"".join(data.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return b64decode(text + b"=" * (-len(text) % 4), validate=True)


def _entries(data: bytes) -> list[_Entry]:
    """The files and folders of a gzipped TAR.

    Raises _Malformed when it is not one, is too large, or has a path that leads out of the folder.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unzipped:
            plain = unzipped.read(MAX_INLINE + _TAR_OVERHEAD + 1)
        if len(plain) > MAX_INLINE + _TAR_OVERHEAD:
            raise _Malformed(f"unpacks to more than {MAX_INLINE} bytes")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            found = [_entry(archive, info) for info in archive if info.isfile() or info.isdir()]
    except (OSError, EOFError, zlib.error, tarfile.TarError):
        raise _Malformed("is not a gzipped TAR") from None
    if _total(found) > MAX_INLINE:
        raise _Malformed(f"unpacks to more than {MAX_INLINE} bytes")
    _check_names(found)
    return found


def _entry(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry:
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts or "\0" in info.name:
        raise _Malformed(f"has an entry with the forbidden name {info.name!r}")
    if info.isdir():
        return _Entry(path, None)
    file = archive.extractfile(info)
    data = file.read() if file is not None else b""
    if len(data) != info.size:
        raise _Malformed("is truncated")
    return _Entry(path, data, executable=bool(info.mode & 0o111))


def _check_names(entries: Sequence[_Entry]) -> None:
    """Raises _Malformed when a file has the place of another entry."""
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for entry in entries:
        folders.update(entry.path.parents)
        if entry.data is None:
            folders.add(entry.path)
        elif entry.path in files:
            raise _Malformed(f"has two files named {str(entry.path)!r}")
        else:
            files.add(entry.path)
    if both := files & folders:
        raise _Malformed(f"has a file and a folder named {str(min(both))!r}")


def _total(entries: Sequence[_Entry]) -> int:
    return sum(len(entry.data or b"") for entry in entries)


def _unpack(entries: Sequence[_Entry], folder: Path) -> None:
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
