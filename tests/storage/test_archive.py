"""Archives that a stranger made to hurt the node that reads them."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import PurePosixPath

import pytest

from bacalhau_p2p.storage.archive import (
    MAX_CONTENT,
    MAX_DEPTH,
    MAX_MEMBERS,
    MAX_NAME,
    MalformedArchive,
    read_archive,
)

LONG = "/".join(["a" * 200] * 10)


def zipped(plain: bytes) -> bytes:
    return gzip.compress(plain, 9)


def archive(*names: str, data: bytes = b"x", form: int = tarfile.PAX_FORMAT, **pax: str) -> bytes:
    """A gzipped TAR of files, each with these records in an extended header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), pax
            tar.addfile(info, io.BytesIO(data))
    return zipped(buffer.getvalue())


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", ["a", "b/c", LONG, "caf\u00e9/\u4f60", "x" * 150 + "/y"])
def test_names_are_read_in_every_format(form, name):
    [entry] = read_archive(archive(name, form=form))
    assert (entry.path, bytes(entry.data)) == (PurePosixPath(name), b"x")


def test_names_of_the_oldest_format_are_read():
    [entry] = read_archive(archive("p" * 90 + "/" + "n" * 90, form=tarfile.USTAR_FORMAT))
    assert entry.path == PurePosixPath("p" * 90 + "/" + "n" * 90)


def test_an_archive_that_another_program_wrote_is_read_whole(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "run").write_bytes(b"")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "link").symlink_to("/etc")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(tmp_path, arcname=".")
    entries = {str(entry.path): entry for entry in read_archive(buffer.getvalue())}
    assert set(entries) == {".", "sub", "sub/data", "run"}
    assert bytes(entries["sub/data"].data) == bytes(range(256)) * 10
    assert entries["run"].executable
    assert not entries["sub/data"].executable
    assert entries["sub"].data is None


SPARSE = {
    "a map that is no numbers": archive("f", **{"GNU.sparse.map": "x,y"}),
    "a hole of 800 MB": archive(
        "f", **{"GNU.sparse.map": f"{800 << 20},0", "GNU.sparse.size": str(800 << 20)}
    ),
    "version 1.0": archive("f", **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
    "of the GNU format": zipped(header(b"S", 0) + bytes(1024)),
}


@pytest.mark.parametrize("data", SPARSE.values(), ids=SPARSE)
def test_sparse_files_are_refused_without_their_size_being_allocated(data):
    tracemalloc.start()
    try:
        with pytest.raises(MalformedArchive, match="has a sparse file"):
            read_archive(data)
        assert tracemalloc.get_traced_memory()[1] < 1024**2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "size", ["9" * 23, "9" * 5000, "-1", "1e9", "", " 1", "99999999", "\u0661"], ids=lambda size: size[:8]
)
def test_a_size_that_the_archive_does_not_have_is_refused(size):
    with pytest.raises(MalformedArchive):
        read_archive(archive("f", size=size))


def test_a_binary_size_that_the_archive_does_not_have_is_refused():
    with pytest.raises(MalformedArchive, match="truncated"):
        read_archive(zipped(header(b"0", 2**70)))


def test_thousands_of_extended_headers_do_not_recurse():
    chain = b"".join((header(b"x", 9) + b"9 a=bcd\n\0".ljust(512, b"\0")) for _ in range(1000))
    with pytest.raises(MalformedArchive):
        read_archive(zipped(chain))
    names = (header(b"L", 5) + b"name\0".ljust(512, b"\0")) * 3000 + header(b"0", 0)
    [entry] = read_archive(zipped(names))
    assert entry.path == PurePosixPath("name")


def test_an_extended_header_of_digits_takes_no_longer_than_reading_it():
    digits = b"1" * (12 * 1024 * 1024)
    with pytest.raises(MalformedArchive):  # the quadratic expression of `tarfile` takes hours
        read_archive(zipped(header(b"x", len(digits)) + digits + header(b"0", 0)))


def test_the_number_of_entries_is_limited():
    with pytest.raises(MalformedArchive, match=f"more than {MAX_MEMBERS} entries"):
        read_archive(zipped(header(b"0", 0) * 27_000))


def test_the_sum_of_the_files_is_limited():
    assert read_archive(archive("a", data=bytes(MAX_CONTENT)))[0].size == MAX_CONTENT
    with pytest.raises(MalformedArchive, match="unpacks to more than"):
        read_archive(archive("a", "b", data=bytes(MAX_CONTENT // 2 + 1)))
    with pytest.raises(MalformedArchive, match="unpacks to more than"):
        read_archive(zipped(bytes(200 * 1024 * 1024)))


@pytest.mark.parametrize(
    "name",
    ["/".join(["d"] * (MAX_DEPTH + 1)), "n" * 256, "/".join(["d" * 200] * 30), "d/" * 2000, "x" * (1024**2)],
    ids=["deep", "long name", "long path", "very deep", "huge"],
)
def test_names_that_no_file_system_takes_are_refused_with_a_short_reason(name):
    with pytest.raises(MalformedArchive) as caught:
        read_archive(archive(name))
    assert len(str(caught.value)) < 200
    assert MAX_NAME == 4096


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a/.."])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_that_lead_out_of_the_folder_are_refused(name, form):
    with pytest.raises(MalformedArchive, match="forbidden name"):
        read_archive(archive(name, form=form))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", zipped(b"no tar"), zipped(b"x" * 600), archive("a")[:-12], zipped(header(b"0", 100))],
    ids=["nothing", "no gzip", "no TAR", "no header", "cut off", "without its file"],
)
def test_what_is_no_archive_is_refused(data):
    with pytest.raises(MalformedArchive):
        read_archive(data)
