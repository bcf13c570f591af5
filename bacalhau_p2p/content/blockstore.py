"""Blocks on disk, one file each, and the pins that say who needs which root.

    <folder>/blocks/<000 to 3ff>/<digest in hex>     1,024 sub-folders, by the first ten bits
    <folder>/tmp/                                    blocks that are being written
    <folder>/pins.db                                 SQLite: who needs what, until when
    <folder>/lock                                    held while the store is open

A block is written under a temporary name and renamed: a process that dies leaves a whole block or
none. Nothing waits for the disk (no fsync); what a power cut damages is noticed when it is read,
since every read checks the hash, and counts as missing from then on.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bacalhau_p2p.content.cid import CID
from bacalhau_p2p.content.dag import Survey, survey
from bacalhau_p2p.content.limits import DEFAULT_LIMITS, MAX_BLOCK, Limits
from bacalhau_p2p.errors import ContentError, ContentTooLarge, InvalidContent

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pins (
    cid BLOB NOT NULL,
    owner TEXT NOT NULL,
    expires REAL,
    PRIMARY KEY (cid, owner)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Pin:
    """`owner` needs everything below `cid` until `expires` (UNIX seconds), or until it unpins (None)."""

    cid: CID
    owner: str
    expires: float | None


class BlockStore:
    """The blocks of one node. Every method blocks; all may be called from any thread, at once.

    Blocks are kept by digest: the same bytes under another codec or CID version are stored once.
    """

    def __init__(self, folder: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Open the store in `folder`, made when it is not there.

        Raises ContentError when another process has it open or the folder cannot be used.
        """
        self.limits = limits
        self._blocks = str(folder / "blocks")
        self._temporary = str(folder / "tmp")
        self._serial = itertools.count()
        self._mutex = threading.Lock()
        self._complete: dict[CID, Survey] = {}
        try:
            self._prepare(folder)
        except (OSError, sqlite3.Error) as error:
            raise ContentError(f"the block store in {folder} cannot be used: {error}") from None

    def _prepare(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ContentError(f"the block store in {folder} is in use by another process") from None
            Path(self._blocks).mkdir(exist_ok=True)
            temporary = Path(self._temporary)
            temporary.mkdir(exist_ok=True)
            for left_over in temporary.iterdir():
                left_over.unlink()
            self._pins = sqlite3.connect(folder / "pins.db", check_same_thread=False, isolation_level=None)
            self._pins.execute("PRAGMA journal_mode=WAL")
            self._pins.execute("PRAGMA synchronous=NORMAL")
            self._pins.executescript(_SCHEMA)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Give the folder free for another process. No other call may follow."""
        self._pins.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- blocks

    def put(self, cid: CID, block: bytes) -> None:
        """Store one block; one that is there already is left as it is.

        Raises InvalidContent when `block` is not what `cid` names, ContentError when the disk refuses.
        """
        if not cid.verify(block):
            cid.require_fetchable()
            raise InvalidContent(f"block {cid} was tampered with: its bytes have another hash")
        self.put_verified(cid, block)

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """`put` for each."""
        for cid, block in blocks:
            self.put(cid, block)

    def put_verified(self, cid: CID, block: bytes) -> None:
        """`put` for a caller who has just hashed the block, or checked its hash."""
        if len(block) > MAX_BLOCK:
            raise ContentTooLarge(f"block {cid} has {len(block)} bytes; at most {MAX_BLOCK} are allowed")
        path = self._path(cid)
        if os.path.exists(path):  # noqa: PTH110 - this is the hot path; a Path costs as much as the call
            return
        temporary = f"{self._temporary}/{next(self._serial)}"
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                rest = memoryview(block)
                while rest:
                    rest = rest[os.write(file, rest) :]
            finally:
                os.close(file)
            try:
                os.rename(temporary, path)  # noqa: PTH104
            except FileNotFoundError:  # the first block of its sub-folder
                Path(path).parent.mkdir(exist_ok=True)
                os.rename(temporary, path)  # noqa: PTH104
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            raise ContentError(f"block {cid} cannot be stored: {error.strerror or error}") from None

    def get(self, cid: CID) -> bytes | None:
        """The block, its hash checked, or None. A damaged one is removed and counts as missing."""
        try:
            file = os.open(self._path(cid), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            block = os.read(file, MAX_BLOCK + 1)
            while more := os.read(file, MAX_BLOCK + 1):
                block += more
        finally:
            os.close(file)
        if cid.verify(block):
            return block
        self.delete(cid)
        return None

    def size(self, cid: CID) -> int | None:
        """Bytes of the block as it lies on disk, or None. The block is not read."""
        try:
            return os.stat(self._path(cid)).st_size  # noqa: PTH116
        except FileNotFoundError:
            return None

    def has(self, cid: CID) -> bool:
        """Whether this one block is there; see `has_all` for what is below it."""
        return cid.fetchable and self.size(cid) is not None

    def delete(self, cid: CID) -> None:
        """Remove one block, pinned or not; one that is not there is no error."""
        Path(self._path(cid)).unlink(missing_ok=True)
        self.forget_complete()

    def _path(self, cid: CID) -> str:
        cid.require_fetchable()
        digest = cid.digest
        return f"{self._blocks}/{digest[0] << 2 | digest[1] >> 6:03x}/{digest.hex()}"

    # --- DAGs

    def survey(self, cid: CID, *, missing_limit: int = 1000) -> Survey:
        """What the DAG below `cid` adds up to, and which of its blocks are missing; remembered once
        it is complete. Raises InvalidContent, ContentTooLarge."""
        with self._mutex:
            known = self._complete.get(cid.v1)
        if known is None:
            known = survey(cid, self, self.limits, missing_limit=missing_limit)
            if known.complete:
                with self._mutex:
                    self._complete[cid.v1] = known
        return known

    def forget_complete(self) -> None:
        """Remember no DAG as complete: a block of one has turned out to be missing."""
        with self._mutex:
            self._complete.clear()

    def has_all(self, cid: CID) -> bool:
        """Whether the complete DAG below `cid` is here and within the limits."""
        if not self.has(cid):
            return False
        try:
            return self.survey(cid, missing_limit=1).complete
        except (InvalidContent, ContentTooLarge):
            return False

    # --- pins

    def pin(self, cid: CID, owner: str, expires: float | None = None) -> None:
        """Note that `owner` needs the DAG below `cid`; the same owner pinning again moves the expiry."""
        with self._mutex:
            self._pins.execute(
                "INSERT INTO pins (cid, owner, expires) VALUES (?, ?, ?)"
                " ON CONFLICT (cid, owner) DO UPDATE SET expires = excluded.expires",
                (cid.v1.binary, owner, expires),
            )

    def unpin(self, cid: CID, owner: str) -> bool:
        """Whether there was such a pin; there is none now."""
        with self._mutex:
            return (
                self._pins.execute(
                    "DELETE FROM pins WHERE cid = ? AND owner = ?", (cid.v1.binary, owner)
                ).rowcount
                > 0
            )

    def pins(self, cid: CID | None = None, *, now: float | None = None) -> list[Pin]:
        """The pins of one root, or all; with `now` (UNIX seconds) only those that have not expired."""
        query = "SELECT cid, owner, expires FROM pins WHERE (?1 IS NULL OR cid = ?1)"
        query += " AND (?2 IS NULL OR expires IS NULL OR expires > ?2) ORDER BY cid, owner"
        with self._mutex:
            rows = self._pins.execute(query, (None if cid is None else cid.v1.binary, now)).fetchall()
        return [Pin(CID(binary), owner, expires) for binary, owner, expires in rows]
