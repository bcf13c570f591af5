"""Small blocks in one SQLite file: a folder of many small files is many small blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bacalhau_p2p.ipfs.store.block_table import BlockTable

MAX_SMALL = 16 * 1024
"""Bytes of the largest block that is stored here."""


class SmallBlocks(BlockTable):
    """Blocks as rows of a table."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "body BLOB NOT NULL", "length(body)")

    def put_all(self, blocks: Sequence[tuple[bytes, bytes]], stored: int) -> int:
        """Store digests with their bodies in one transaction; returns the bytes of those that were new.

        `stored` is in UNIX seconds.
        """
        statement, added = "INSERT OR IGNORE INTO blocks (digest, stored, body) VALUES (?, ?, ?)", 0
        with self.transaction() as db:
            for digest, body in blocks:
                if db.execute(statement, (digest, stored, body)).rowcount > 0:
                    added += len(body)
        return added

    def get(self, digest: bytes) -> bytes | None:
        row = self.row("body", digest)
        return None if row is None else bytes(row[0])

    def get_all(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those blocks that are present."""
        return dict(self.rows("body", digests))
