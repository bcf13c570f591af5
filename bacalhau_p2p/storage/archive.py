"""Reads a gzipped TAR that a stranger made.

Not with `tarfile`: it allocates what a sparse entry claims, recurses for each extended header, and searches
these with quadratic regular expressions while it holds the interpreter's lock. This reader knows files,
folders and long names; it passes over the data once, and each amount has a limit.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

MAX_CONTENT = 10 * 1024 * 1024
"""Bytes of all files of an archive together."""
MAX_MEMBERS = 4096
"""Headers of an archive, those of links and of extended attributes included."""
MAX_NAME = 4096
"""Bytes of the path of an entry."""
MAX_DEPTH = 64
"""Names in the path of an entry."""

_HEADERS = 4 * 1024 * 1024
"""Bytes of an archive besides its files: headers, and what fills the last block of each file."""
_BLOCK = 512
_PIECE = 256 * 1024
"""Bytes that are unpacked at once."""
_EXTENDED, _EXTENDED_FOR_ALL, _LONG_NAME, _SPARSE = b"x", b"g", b"L", b"S"
_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_SHOWN = 80
"""Characters of a name that an error shows."""


class MalformedArchive(ValueError):
    """What is wrong with an archive, in words that follow its name."""


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A file or folder of an archive."""

    path: PurePosixPath
    data: memoryview | None
    """None for a folder."""
    executable: bool = False

    @property
    def size(self) -> int:
        return 0 if self.data is None else len(self.data)


def read_archive(data: bytes) -> list[ArchiveEntry]:
    """The files and folders of a gzipped TAR; other kinds of entries are left out.

    Raises MalformedArchive when it is not one, exceeds a limit, has a sparse file, or a name that leads out
    of the folder. Takes memory and time in proportion to `MAX_CONTENT` at most.
    """
    entries: list[ArchiveEntry] = []
    content = 0
    for entry in _members(memoryview(_unzipped(data))):
        content += entry.size
        if content > MAX_CONTENT:
            raise MalformedArchive(f"unpacks to more than {MAX_CONTENT} bytes")
        entries.append(entry)
    _check_names(entries)
    return entries


def _unzipped(data: bytes) -> bytearray:
    plain = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unzipped:
            while piece := unzipped.read(_PIECE):
                plain += piece
                if len(plain) > MAX_CONTENT + _HEADERS:
                    raise MalformedArchive(f"unpacks to more than {MAX_CONTENT} bytes")
    except (OSError, EOFError, zlib.error):
        raise MalformedArchive("is not a gzipped TAR") from None
    if len(plain) < _BLOCK:
        raise MalformedArchive("is not a gzipped TAR")
    return plain


def _members(plain: memoryview) -> Iterator[ArchiveEntry]:
    """The files and folders, in their order."""
    at, count = 0, 0
    name: bytes | None = None
    size: int | None = None
    while (header := bytes(plain[at : at + _BLOCK])).strip(b"\0"):
        count += 1
        if count > MAX_MEMBERS:
            raise MalformedArchive(f"has more than {MAX_MEMBERS} entries")
        kind = header[156:157]
        _check_header(header)
        # An extended header gives the size of the entry that follows it, not its own.
        describes_next = kind in (_EXTENDED, _EXTENDED_FOR_ALL, _LONG_NAME, b"K")
        own = _number(header[124:136]) if describes_next or size is None else size
        at += _BLOCK
        if own > len(plain) - at:
            raise MalformedArchive("is truncated")
        data = plain[at : at + own]
        at += -(-own // _BLOCK) * _BLOCK
        if kind == _LONG_NAME:
            name = _limited(bytes(data[: MAX_NAME + 2]).rstrip(b"\0"))
        elif kind in (_EXTENDED, _EXTENDED_FOR_ALL):
            records = _records(data)
            if kind == _EXTENDED:  # those for all entries hold dates and comments
                name = _limited(records["path"]) if "path" in records else name
                size = _decimal(records["size"]) if "size" in records else size
        elif not describes_next:
            path = _path(name if name is not None else _short_name(header))
            name = size = None
            if kind == _SPARSE:
                raise MalformedArchive("has a sparse file")
            if kind == _FOLDER or (kind == b"\0" and _short_name(header).endswith(b"/")):
                yield ArchiveEntry(path, None)
            elif kind in _FILES:
                yield ArchiveEntry(path, data, executable=bool(_number(header[100:108]) & 0o111))


def _check_header(header: bytes) -> None:
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if len(header) < _BLOCK or _number(header[148:156]) != total:
        raise MalformedArchive("is not a gzipped TAR")


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or with its first bit set, binary."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise MalformedArchive("is not a gzipped TAR")
    return int(digits, 8) if digits else 0


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 15:
        raise MalformedArchive("has an entry of an invalid size")
    return int(text)


def _records(data: memoryview) -> dict[str, bytes]:
    """The records that this reader uses, `LENGTH KEY=VALUE` and a line feed each."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        digits = bytes(data[at : at + 9]).partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        record = bytes(data[at : at + length])
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if length <= len(digits) + 2 or len(record) < length or not equals or record[-1:] != b"\n":
            raise MalformedArchive("has an invalid extended header")
        if key.startswith(b"GNU.sparse"):
            raise MalformedArchive("has a sparse file")
        if key in (b"path", b"size"):
            found[key.decode()] = value
        at += length
    return found


def _short_name(header: bytes) -> bytes:
    name, prefix = header[:100].partition(b"\0")[0], b""
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _limited(name: bytes) -> bytes:
    if len(name) > MAX_NAME:
        raise MalformedArchive(f"has an entry whose name is longer than {MAX_NAME} bytes")
    return name


def _path(name: bytes) -> PurePosixPath:
    """A path that stays inside the folder, and that a file system takes."""
    text = name.decode("utf-8", "surrogateescape")
    parts = text.split("/")
    shown = repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
    if text.startswith("/") or ".." in parts or "\0" in text:
        raise MalformedArchive(f"has an entry with the forbidden name {shown}")
    path = PurePosixPath(text)
    if len(path.parts) > MAX_DEPTH or any(len(part) > 255 for part in name.split(b"/")):
        raise MalformedArchive(f"has an entry whose name is too deep or too long: {shown}")
    return path


def _check_names(entries: list[ArchiveEntry]) -> None:
    """Raises MalformedArchive when a file has the place of another entry."""
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for entry in entries:
        if entry.path.parent not in folders:
            folders.update(entry.path.parents)
        if entry.data is None:
            folders.add(entry.path)
        elif entry.path in files:
            raise MalformedArchive(f"has two files named {str(entry.path)!r}")
        else:
            files.add(entry.path)
    if both := files & folders:
        raise MalformedArchive(f"has a file and a folder named {str(min(both))!r}")
