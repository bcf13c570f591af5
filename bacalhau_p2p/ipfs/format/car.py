"""CARv1: a DAG as one stream of blocks, written depth first; the reader verifies every block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.encoding.varint import decode_varint, encode_varint
from bacalhau_p2p.errors import InvalidCID, InvalidContent
from bacalhau_p2p.ipfs.format.block_source import BlockSource, BulkBlockSource, require_block
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, MAX_BLOCK, Limits
from bacalhau_p2p.ipfs.format.traversal import Walk

CAR_MEDIA_TYPE = "application/vnd.ipld.car"
CAR_MEDIA_TYPE_DEPTH_FIRST = f"{CAR_MEDIA_TYPE}; version=1; order=dfs; dups=n"
"""CARv1, depth first, no block twice."""
RAW_MEDIA_TYPE = "application/vnd.ipld.raw"
"""One block as it is."""

MAX_HEADER = 128 * 1024
"""Bytes of a header, which fit some thousand roots."""

ERROR_CODEC = 0x0200
"""Codec (JSON) of a last section that is no block of the DAG but says why the stream ends before its end."""

_PREFETCH = 128
"""Pending blocks of a walk whose leaves are read in one call."""
_MAX_PREFETCHED = 1024
_MAX_CID = 160


# --- writing ------------------------------------------------------------------------------


def header(roots: Sequence[CID]) -> bytes:
    """The header of a CARv1 with these roots: a small DAG-CBOR map, encoded by hand."""
    links = b"".join(b"\xd8\x2a" + _head(2, len(root.binary) + 1) + b"\0" + root.binary for root in roots)
    body = b"\xa2\x65roots" + _head(4, len(roots)) + links + b"\x67version\x01"
    return encode_frame(body)


def section(cid: CID, block: bytes) -> bytes:
    """A block as a section of a CAR."""
    return section_head(cid, block) + block


def section_head(cid: CID, block: bytes) -> bytes:
    """The bytes of a section before the block."""
    return encode_varint(len(cid.binary) + len(block)) + cid.binary


def error_section(text: bytes) -> bytes:
    """A last section that says, as JSON, why the stream ends before its end."""
    return section(CID.of(ERROR_CODEC, text), text)


def write_car(roots: Sequence[CID], source: BlockSource, limits: Limits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """Yield the header, then the head and the bytes of each block below `roots` once, depth first.

    Raises ContentNotFound at the first missing block, InvalidContent and ContentTooLarge as `Walk` does.
    """
    yield header(roots)
    walk = Walk(list(roots), limits)
    blocks = _LeafPrefetch(source, source, walk) if isinstance(source, BulkBlockSource) else source
    while (cid := walk.expected) is not None:
        block = require_block(cid, blocks)
        walk.take(block)
        yield section_head(cid, block)
        yield block


class _LeafPrefetch:
    """The blocks on a walk, with small leaves read many at a time."""

    def __init__(self, source: BlockSource, bulk: BulkBlockSource, walk: Walk) -> None:
        self._source, self._bulk, self._walk = source, bulk, walk
        self._requested: set[CID] = set()
        self._prefetched: dict[CID, bytes] = {}

    def get(self, cid: CID) -> bytes | None:
        if cid.codec == RAW and cid not in self._requested:
            if len(self._requested) > _MAX_PREFETCHED:
                self._requested.clear()
                self._prefetched.clear()
            leaves = [leaf for leaf in self._walk.leaves_ahead(_PREFETCH) if leaf not in self._requested]
            self._requested.update(leaves)
            self._prefetched.update(self._bulk.get_small(leaves))
        block = self._prefetched.pop(cid, None)
        return self._source.get(cid) if block is None else block

    def size(self, cid: CID) -> int | None:
        return self._source.size(cid)


def batches(items: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Join small pieces into ones of `size` bytes or a little more; the last may be smaller."""
    batch: list[bytes] = []
    length = 0
    for item in items:
        batch.append(item)
        length += len(item)
        if length >= size:
            yield b"".join(batch)
            batch, length = [], 0
    if batch:
        yield b"".join(batch)


def _head(major: int, length: int) -> bytes:
    """The head of a CBOR item."""
    if length < 24:
        return bytes((major << 5 | length,))
    width = 1 if length < 0x100 else 2 if length < 0x10000 else 4
    return bytes((major << 5 | {1: 24, 2: 25, 4: 26}[width],)) + length.to_bytes(width, "big")


# --- reading ------------------------------------------------------------------------------


class CarReader:
    """Reads a CARv1 in pieces of any size and returns its blocks, each verified against its CID.

    `roots` is set once the header was read. It is the caller's job to check that the blocks are a complete
    DAG: the roots in a header prove nothing.
    """

    def __init__(self, *, accept_error: bool = False) -> None:
        """With `accept_error`, the stream may end with an `error_section`, whose text is in `error` then."""
        self.roots: tuple[CID, ...] | None = None
        self.latest: CID | None = None
        """The CID of the last block."""
        self.error: bytes | None = None
        self._accept_error = accept_error
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[CID, bytes]]:
        """The blocks that `data` completes.

        Raises InvalidContent for a block that does not match its CID, has an unsupported codec or hash
        function, or is longer than 2 MiB, and for anything that is not CARv1.
        """
        self._buffer += data
        blocks: list[tuple[CID, bytes]] = []
        offset = 0
        with memoryview(self._buffer) as view:
            while (section := self._next_section(offset)) is not None:
                start, offset = section
                if self.roots is None:
                    self.roots = _read_header(bytes(view[start:offset]))
                else:
                    self._read_section(view[start:offset], blocks)
        del self._buffer[:offset]
        return blocks

    def _read_section(self, body: memoryview, blocks: list[tuple[CID, bytes]]) -> None:
        try:
            cid, start = CID.read(bytes(body[:_MAX_CID]))
        except InvalidCID as error:
            raise InvalidContent(f"a section of the CAR stream has no CID: {error}") from None
        block = bytes(body[start:])
        if self._accept_error and not cid.fetchable and cid == CID.of(ERROR_CODEC, block):
            self.error = block
            return
        cid.require_fetchable()
        if len(block) > MAX_BLOCK:
            raise InvalidContent(f"block {cid} has {len(block)} bytes; the limit is {MAX_BLOCK}")
        cid.require_match(block)
        self.latest = cid
        blocks.append((cid, block))

    def finish(self) -> None:
        """Raises InvalidContent unless the stream ended after a whole section."""
        if self.roots is None or self._buffer:
            raise InvalidContent("the CAR stream is truncated")

    def _next_section(self, offset: int) -> tuple[int, int] | None:
        """Start and end of the body of the section (or header) at `offset`; None while it is incomplete."""
        try:
            length, start = decode_varint(self._buffer, offset)
        except IndexError:
            return None
        except ValueError:
            raise InvalidContent("not a CAR stream: a length is malformed") from None
        if self.roots is None and length > MAX_HEADER:
            raise InvalidContent(f"not a CAR stream: its header is longer than {MAX_HEADER} bytes")
        if length > MAX_BLOCK + _MAX_CID:
            raise InvalidContent(f"a block in the CAR stream has {length} bytes; the limit is {MAX_BLOCK}")
        if length == 0:
            raise InvalidContent("the CAR stream has an empty section")
        return (start, start + length) if start + length <= len(self._buffer) else None


def _read_header(body: bytes) -> tuple[CID, ...]:
    try:
        return _Header(body).read()
    except (IndexError, ValueError, InvalidCID) as error:
        reason = str(error) if isinstance(error, _UnsupportedHeader) else "its header is malformed"
        raise InvalidContent(f"not a CAR stream: {reason}") from None


class _UnsupportedHeader(ValueError):
    """A header that can be decoded and is not supported."""


class _Header:
    """The DAG-CBOR map `{roots: [CID...], version: 1}` and nothing else."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def read(self) -> tuple[CID, ...]:
        roots: tuple[CID, ...] | None = None
        version = None
        for _ in range(self._expect(5)):
            key = self._take(self._expect(3))
            if key == b"version" and version is None:
                version = self._expect(0)
            elif key == b"roots" and roots is None:
                roots = tuple(self._root() for _ in range(self._expect(4)))
            else:
                raise _UnsupportedHeader("its header has unknown or repeated fields")
        if version != 1:
            raise _UnsupportedHeader(f"version {version} is not supported, only version 1")
        if roots is None or self._at != len(self._body):
            raise ValueError("malformed header")
        return roots

    def _root(self) -> CID:
        if self._expect(6) != 42:
            raise _UnsupportedHeader("a root is not a CID")
        link = self._take(self._expect(2))
        if link[:1] != b"\0":
            raise _UnsupportedHeader("a root is not a CID")
        return CID(link[1:])

    def _expect(self, major: int) -> int:
        """The argument of the next item, which must be of this major type."""
        first = self._body[self._at]
        self._at += 1
        if first >> 5 != major:
            raise ValueError("malformed header")
        small = first & 31
        if small < 24:
            return small
        if small > 26:
            raise ValueError("malformed header")
        return int.from_bytes(self._take(1 << (small - 24)), "big")

    def _take(self, length: int) -> bytes:
        if self._at + length > len(self._body):
            raise IndexError
        value = self._body[self._at : self._at + length]
        self._at += length
        return value
