"""Inputs inside the job itself, as `data:` URLs (RFC 2397) in Bacalhau's manner."""

from __future__ import annotations

import binascii
import gzip
import io
import tarfile
import zlib
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes

import trio

from bacalhau_p2p.errors import Fault, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.files import remove_tree
from bacalhau_p2p.storage.interface import InputSize, PreparedInput

FOLDER_TYPE = "application/gzip"
"""The media type that says: a gzipped TAR, to be unpacked into a folder. Bacalhau writes it so."""

MAX_INLINE = 10 * 1024 * 1024
"""Bytes of an input when unpacked, as in Bacalhau. Larger data has no place in a job."""

_TAR_OVERHEAD = 4 * 1024 * 1024
_FILE, _FOLDER = "file", "folder"


class InlineStorage:
    """`{Type: inline, Params: {URL: "data:text/plain;base64,..."}}`.

    A URL of the media type `application/gzip` becomes a folder with what the archive holds: files
    and folders, nothing else. Any other becomes a file.
    """

    @property
    def source(self) -> str:
        return "inline"

    def faults(self, source: SpecConfig) -> list[Fault]:
        try:
            media_type, data = _parse(source)
            if media_type == FOLDER_TYPE:
                _members(data)
        except _Malformed as error:
            return [Fault("Params.URL", str(error))]
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        return True

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        try:
            media_type, data = _parse(source)
            if media_type == FOLDER_TYPE:
                members = await trio.to_thread.run_sync(_members, data)
                total = sum(len(content or b"") for _, _, content in members)
            else:
                await trio.lowlevel.checkpoint()
                total = len(data)
        except _Malformed:
            return None
        return InputSize(total=total, local=total, disk=total)

    async def prepare(
        self, source: SpecConfig, folder: Path, *, hints: Sequence[PeerID] = ()
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; a malformed URL or archive is a permanent failure."""
        return PreparedInput(path=await trio.to_thread.run_sync(_write, source, folder))

    async def cleanup(self, prepared: PreparedInput) -> None:
        await trio.to_thread.run_sync(remove_tree, prepared.path)


class _Malformed(ValueError):
    """What is wrong with a data URL, in words."""


def _write(source: SpecConfig, folder: Path) -> Path:
    try:
        media_type, data = _parse(source)
        if media_type != FOLDER_TYPE:
            path = folder / _FILE
            path.write_bytes(data)
        else:
            path = folder / _FOLDER
            _unpack(_members(data), path)
        return path
    except _Malformed as error:
        raise StorageError(f"inline input cannot be used: Params.URL: {error}", permanent=True) from None
    except OSError as error:
        raise StorageError(f"inline input cannot be written: {error.strerror or error}") from error


def _parse(source: SpecConfig) -> tuple[str, bytes]:
    """Media type (lower case, without parameters) and content of the URL. Raises _Malformed."""
    url = source.params.get("URL")
    if not isinstance(url, str) or not url:
        raise _Malformed("missing")
    if url[:5].lower() != "data:":
        raise _Malformed("must begin with data:")
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise _Malformed("has no comma before its data")
    parts = [part.strip().lower() for part in head.split(";")]
    try:
        data = unquote_to_bytes(body)
        if parts[-1] == "base64":
            data = _decode_base64(data)
    except (binascii.Error, ValueError):
        raise _Malformed("is not valid base64") from None
    if len(data) > MAX_INLINE:
        raise _Malformed(f"has {len(data)} bytes; at most {MAX_INLINE} are allowed")
    return parts[0], data


def _decode_base64(data: bytes) -> bytes:
    """Both alphabets, with or without padding."""
    text = b"".join(data.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return b64decode(text + b"=" * (-len(text) % 4), validate=True)


def _members(data: bytes) -> list[tuple[PurePosixPath, bool, bytes | None]]:
    """Path, whether it may be executed, and content of each file of the archive; None is a folder.

    Raises _Malformed for what would leave the folder, is not an archive or is too large.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unzipped:
            plain = unzipped.read(MAX_INLINE + _TAR_OVERHEAD + 1)
        if len(plain) > MAX_INLINE + _TAR_OVERHEAD:
            raise _Malformed(f"unpacks to more than {MAX_INLINE} bytes")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            found = [_member(archive, info) for info in archive if info.isfile() or info.isdir()]
    except (OSError, EOFError, zlib.error, tarfile.TarError):
        raise _Malformed("is not a gzipped TAR") from None
    if sum(len(content or b"") for _, _, content in found) > MAX_INLINE:
        raise _Malformed(f"unpacks to more than {MAX_INLINE} bytes")
    return found


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> tuple[PurePosixPath, bool, bytes | None]:
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts or "\0" in info.name:
        raise _Malformed(f"holds an entry with the forbidden name {info.name!r}")
    if info.isdir():
        return path, True, None
    file = archive.extractfile(info)
    content = file.read() if file is not None else b""
    if len(content) != info.size:
        raise _Malformed("is cut short")
    return path, bool(info.mode & 0o111), content


def _unpack(members: list[tuple[PurePosixPath, bool, bytes | None]], folder: Path) -> None:
    """Only files and folders are made, each where nothing is yet: no name can lead outside."""
    folder.mkdir()
    for path, executable, content in members:
        target = folder / path
        try:
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(content)
        except (FileExistsError, NotADirectoryError):
            raise _Malformed(f"holds {str(path)!r} twice") from None
        target.chmod(0o755 if executable else 0o644)
