"""Packs the records of what has ended, so that the database of a component stays small.

Records of one kind are alike: deflate finds most of each in a text that has what they share, the dictionary.
That is in the database, so it takes no more than the database to read what is in it:
`zlib.decompressobj(-12, dictionary).decompress(record)` is the JSON of a record that is a BLOB. One that is
TEXT is not packed.
"""

from __future__ import annotations

import sqlite3
import zlib

LARGEST_PACKED = 16 * 1024
"""Characters of a record that is packed: it takes less than a millisecond. A longer one stays as it is."""
MAX_UNPACKED = 4 * LARGEST_PACKED
"""Bytes that a packed record can have: UTF-8 takes up to four for a character."""

_WINDOW = -12
"""4 KiB, without a header: room for a dictionary and most records."""
_LEVEL, _MEMORY = 6, 4
"""Packing takes 8 us a record, and unpacking 2."""

Packed = str | bytes
"""A record as it is stored: its JSON, or this packed."""


def add_dictionary(db: sqlite3.Connection, text: bytes) -> None:
    """Give a new database its dictionary, within the open transaction."""
    db.execute("CREATE TABLE dictionary (text BLOB NOT NULL) STRICT")
    db.execute("INSERT INTO dictionary (text) VALUES (?)", (text,))


class Packer:
    """Packs and unpacks records with the dictionary of their database."""

    def __init__(self, db: sqlite3.Connection) -> None:
        (self._dictionary,) = db.execute("SELECT text FROM dictionary").fetchone()
        self._packer = zlib.compressobj(
            _LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, self._dictionary
        )

    def pack(self, record: str) -> Packed:
        """The record as it is stored."""
        if len(record) > LARGEST_PACKED:
            return record
        packer = self._packer.copy()
        return packer.compress(record.encode()) + packer.flush()

    def unpack(self, packed: Packed) -> Packed:
        """The JSON of a record, as text or in UTF-8. Raises ValueError for what is not packed with this
        dictionary."""
        if isinstance(packed, str):
            return packed
        unpacker = zlib.decompressobj(_WINDOW, self._dictionary)
        try:
            record = unpacker.decompress(packed, MAX_UNPACKED)
        except zlib.error as error:
            raise ValueError(f"the record cannot be unpacked: {error}") from error
        if not unpacker.eof:
            raise ValueError("the record cannot be unpacked: its end is missing")
        return record
