"""CARv1: a DAG as one stream of blocks, written depth first and read with every block checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.encoding.varint import decode_varint, encode_varint
from bacalhau_p2p.errors import ContentTooLarge, InvalidCID, InvalidContent
from bacalhau_p2p.ipfs.format.block_source import BlockSource, Bulk, missing_block
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS, MAX_BLOCK, Limits
from bacalhau_p2p.ipfs.format.traversal import Walk

CAR_MEDIA_TYPE = "application/vnd.ipld.car"
CAR_MEDIA_TYPE_DEPTH_FIRST = f"{CAR_MEDIA_TYPE}; version=1; order=dfs; dups=n"
"""CARv1, depth first, no block twice."""
RAW_MEDIA_TYPE = "application/vnd.ipld.raw"
"""One block as it is."""

MAX_HEADER = 128 * 1024
"""Bytes of a header: room for some thousand roots."""

REASON = 0x0200
"""Codec (JSON) of a section that is no block of the DAG: it says why the stream breaks off behind it."""

_LEAVES = 128
"""Blocks of a walk that are looked for at one time."""
_MOST_AHEAD = 1024
_CID_ROOM = 160
_TRUNCATED = "the CAR stream is cut short"


# --- writing ------------------------------------------------------------------------------


def header(roots: Sequence[CID]) -> bytes:
    """The header of a CARv1 with these roots (DAG-CBOR, which is written by hand: it is so small)."""
    links = b"".join(b"\xd8\x2a" + _head(2, len(root.binary) + 1) + b"\0" + root.binary for root in roots)
    body = b"\xa2\x65roots" + _head(4, len(roots)) + links + b"\x67version\x01"
    return encode_frame(body)


def section(cid: CID, block: bytes) -> bytes:
    """One block as it stands in a CAR."""
    return section_head(cid, block) + block


def section_head(cid: CID, block: bytes) -> bytes:
    """What stands before a block in a CAR."""
    return encode_varint(len(cid.binary) + len(block)) + cid.binary


def reason(text: bytes) -> bytes:
    """A section that says, as JSON, why the stream breaks off."""
    return section(CID.of(REASON, text), text)


def write_car(roots: Sequence[CID], source: BlockSource, limits: Limits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The header, then each block below `roots` once, depth first, each as two items: head and block.

    Raises ContentNotFound at the first block that `source` lacks, InvalidContent as `Walk` does.
    """
    yield header(roots)
    walk = Walk(list(roots), limits)
    get = _Ahead(source, walk).get if isinstance(source, Bulk) else source.get
    while (cid := walk.expected) is not None:
        block = get(cid)
        if block is None:
            missing_block(cid)
        walk.take(block)
        yield section_head(cid, block)
        yield block


class _Ahead:
    """Blocks on a walk, small leaves read many at a time."""

    def __init__(self, source: BlockSource, walk: Walk) -> None:
        assert isinstance(source, Bulk)
        self._get, self._small, self._walk = source.get, source.small, walk
        self._asked: set[CID] = set()
        self._found: dict[CID, bytes] = {}
        """Of those that were asked for, what is there and was not expected yet."""

    def get(self, cid: CID) -> bytes | None:
        if cid.codec == RAW and cid not in self._asked:
            if len(self._asked) > _MOST_AHEAD:
                self._asked.clear()
                self._found.clear()
            leaves = [leaf for leaf in self._walk.leaves_ahead(_LEAVES) if leaf not in self._asked]
            self._asked.update(leaves)
            self._found.update(self._small(leaves))
        block = self._found.pop(cid, None)
        return self._get(cid) if block is None else block


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
    """Takes a CARv1 in pieces as they come and gives its blocks, each one checked against its CID.

    `roots` is known once the header was read. Whether the blocks make a complete DAG is for the
    caller to find out: the roots of a header prove nothing.
    """

    def __init__(self, *, reasons: bool = False) -> None:
        """With `reasons`, a stream may end with one; `reason` has it then."""
        self.roots: tuple[CID, ...] | None = None
        self.latest: CID | None = None
        """Of the last block."""
        self.reason: bytes | None = None
        self._reasons = reasons
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[CID, bytes]]:
        """The blocks that `data` completes.

        Raises InvalidContent for a block that is not what its CID says, has a codec or hash that is
        not handled here, or is longer than 2 MiB, and for whatever is not CARv1.
        """
        self._buffer += data
        found: list[tuple[CID, bytes]] = []
        offset = 0
        with memoryview(self._buffer) as view:
            while (frame := self._frame(offset)) is not None:
                start, offset = frame
                if self.roots is None:
                    self.roots = _read_header(bytes(view[start:offset]))
                else:
                    self._read_section(view[start:offset], found)
        del self._buffer[:offset]
        return found

    def _read_section(self, body: memoryview, found: list[tuple[CID, bytes]]) -> None:
        try:
            cid, start = CID.read(bytes(body[:_CID_ROOM]))
        except InvalidCID as error:
            raise InvalidContent(f"a block of the CAR stream has no CID: {error}") from None
        block = bytes(body[start:])
        if self._reasons and not cid.fetchable and cid == CID.of(REASON, block):
            self.reason = block
            return
        cid.require_fetchable()
        if len(block) > MAX_BLOCK:
            raise InvalidContent(f"block {cid} has {len(block)} bytes; at most {MAX_BLOCK} are allowed")
        if not cid.verify(block):
            raise InvalidContent(f"block {cid} was tampered with: its bytes have another hash")
        self.latest = cid
        found.append((cid, block))

    def finish(self) -> None:
        """Raises InvalidContent unless the stream ended behind a whole block."""
        if self.roots is None or self._buffer:
            raise InvalidContent(_TRUNCATED)

    def _frame(self, offset: int) -> tuple[int, int] | None:
        """Where the next frame's body starts and ends, None while it is not all there."""
        try:
            length, start = decode_varint(self._buffer, offset)
        except IndexError:
            return None
        except ValueError:
            raise InvalidContent("this is not a CAR stream: a length is malformed") from None
        if self.roots is None and length > MAX_HEADER:
            raise InvalidContent("this is not a CAR stream: its header is too long")
        if length > MAX_BLOCK + _CID_ROOM:
            raise InvalidContent(f"a block of {length} bytes is larger than the {MAX_BLOCK} that are allowed")
        if length == 0:
            raise InvalidContent("the CAR stream has an empty section")
        return (start, start + length) if start + length <= len(self._buffer) else None


def _read_header(body: bytes) -> tuple[CID, ...]:
    try:
        return _Header(body).read()
    except (IndexError, ValueError, InvalidCID) as error:
        reason = str(error) if isinstance(error, _Refused) else "its header is malformed"
        raise InvalidContent(f"this is not a CAR stream: {reason}") from None


class _Refused(ValueError):
    """A header that is understood and not accepted."""


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
                raise _Refused("its header has unknown or repeated fields")
        if version != 1:
            raise _Refused(f"version {version} is not supported, only 1")
        if roots is None or self._at != len(self._body):
            raise _Refused("its header is malformed")
        return roots

    def _root(self) -> CID:
        if self._expect(6) != 42:
            raise _Refused("a root is not a CID")
        link = self._take(self._expect(2))
        if link[:1] != b"\0":
            raise _Refused("a root is not a CID")
        return CID(link[1:])

    def _expect(self, major: int) -> int:
        """The argument of the next item, which must be of this major type."""
        first = self._body[self._at]
        self._at += 1
        if first >> 5 != major:
            raise _Refused("its header is malformed")
        small = first & 31
        if small < 24:
            return small
        if small > 26:
            raise _Refused("its header is malformed")
        return int.from_bytes(self._take(1 << (small - 24)), "big")

    def _take(self, length: int) -> bytes:
        if self._at + length > len(self._body):
            raise IndexError
        value = self._body[self._at : self._at + length]
        self._at += length
        return value


def check_budget(used: int, limits: Limits) -> None:
    """Raises ContentTooLarge when a stream has brought more bytes of blocks than its files may have.

    Blocks with links come on top of the content: a small part of it, and some hundred bytes an entry.
    """
    if used > limits.bytes + limits.bytes // 8 + limits.entries * 512:
        raise ContentTooLarge(f"the content has more than {limits.bytes} bytes")
