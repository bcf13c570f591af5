"""Packed records: each is read back as it was, with nothing but its database."""

from __future__ import annotations

import zlib
from contextlib import closing

import pytest

from bacalhau_p2p.components.packing import LARGEST_PACKED, Packer, add_dictionary
from bacalhau_p2p.runtime.database import open_database

RECORD = '{"State":"Completed","Message":"published","Name":"\u00e4\U0001f600"}'
DICTIONARY = b'{"State":"Completed","Message":"published","'


def opened(path, dictionary=DICTIONARY):
    return closing(open_database(path, [lambda db: add_dictionary(db, dictionary)]))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.db"


@pytest.mark.parametrize("record", ["", "{}", RECORD, "\U0001f600" * LARGEST_PACKED])
def test_a_record_is_unpacked_as_it_was(path, record):
    with opened(path) as db:
        packed = Packer(db).pack(record)
        assert isinstance(packed, bytes)
        assert Packer(db).unpack(packed) == record.encode()


def test_what_records_share_is_stored_once(path):
    with opened(path) as db:
        assert len(Packer(db).pack(RECORD)) < len(zlib.compress(RECORD.encode()))


def test_a_long_record_stays_as_it_is(path):
    with opened(path) as db:
        packer, record = Packer(db), "x" * (LARGEST_PACKED + 1)
        assert (packer.pack(record), packer.unpack(record)) == (record, record)


def test_a_database_keeps_its_dictionary(path):
    with opened(path) as db:
        packed = Packer(db).pack(RECORD)
    with opened(path, b"that of a later program") as db:
        assert Packer(db).unpack(packed) == RECORD.encode()


@pytest.mark.parametrize(
    "damage", [lambda packed: b"", lambda packed: packed[:-3], lambda packed: b"\xff" * 9]
)
def test_what_cannot_be_unpacked_is_a_value_error(path, damage):
    with opened(path) as db:
        packer = Packer(db)
        with pytest.raises(ValueError, match="cannot be unpacked"):
            packer.unpack(damage(packer.pack(RECORD)))
