from __future__ import annotations

import gzip
import io
import tarfile
from base64 import b64encode, urlsafe_b64encode

import pytest

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.inline import MAX_INLINE, InlineStorage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit


def inline(url: object) -> SpecConfig:
    return SpecConfig(type="inline", params={"URL": url})


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> SpecConfig:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return inline("data:application/gzip;base64," + b64encode(buffer.getvalue()).decode())


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info, content


def other(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


ODD = bytes(range(250, 256)) + b"hello?>"
FOLDER = archive(other("data", tarfile.DIRTYPE), file("data/a.txt", b"a"), file("data/sub/b", b"b"))
SAMPLES = [
    Sample(
        source=inline("data:text/plain;charset=utf-8,hello%20w%C3%B6rld%0A"), content="hello wörld\n".encode()
    ),
    Sample(source=inline("data:,plain"), content=b"plain"),
    Sample(source=inline("data:;base64,"), content=b""),
    Sample(source=inline("DATA:;BASE64," + b64encode(ODD).decode()), content=ODD),
    Sample(source=inline("data:;base64," + urlsafe_b64encode(ODD).decode().rstrip("=")), content=ODD),
    Sample(source=inline("data:;base64," + b64encode(ODD).decode().replace("=", "%3D")), content=ODD),
    Sample(source=FOLDER, content={"data": None, "data/a.txt": b"a", "data/sub": None, "data/sub/b": b"b"}),
]
INVALID = [
    inline(""),
    inline(7),
    inline("http://example.com/"),
    inline("data:text/plain"),
    SpecConfig(type="inline"),
]
UNUSABLE = [
    inline("data:;base64,abc$"),
    inline("data:;base64,abcde"),
    inline("data:," + "x" * (MAX_INLINE + 1)),
    inline("data:application/gzip;base64,aGVsbG8="),
    inline("data:application/gzip;base64," + b64encode(gzip.compress(b"no tar")).decode()),
    archive(file("../evil")),
    archive(file("a/../../evil")),
    archive(file("/etc/evil")),
]


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
async def test_inline_storage_conforms(check, tmp_path):
    kit = StorageKit(
        provider=InlineStorage(),
        folder=tmp_path,
        samples=SAMPLES,
        invalid=[(source, "Params.URL") for source in INVALID],
        unusable=[(source, "Params.URL") for source in UNUSABLE],
        absent=None,
    )
    await check(kit)


async def test_links_and_devices_in_an_archive_are_left_out(tmp_path):
    source = archive(
        other("link", tarfile.SYMTYPE, "/etc"),
        other("hard", tarfile.LNKTYPE, "a"),
        other("fifo", tarfile.FIFOTYPE),
        file("a"),
    )
    prepared = await InlineStorage().prepare(source, tmp_path)
    assert [path.name for path in prepared.path.iterdir()] == ["a"]


async def test_executable_files_stay_executable(tmp_path):
    prepared = await InlineStorage().prepare(archive(file("run", mode=0o4777), file("data")), tmp_path)
    assert (prepared.path / "run").stat().st_mode & 0o7777 == 0o755
    assert (prepared.path / "data").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([file("a"), file("a")], "has two files named 'a'"),
        ([file("a"), file("a/b")], "has a file and a folder named 'a'"),
        ([file("a/b"), file("a")], "has a file and a folder named 'a'"),
        ([file("a"), other("a", tarfile.DIRTYPE)], "has a file and a folder named 'a'"),
    ],
)
async def test_an_archive_with_two_entries_of_one_name_is_refused(tmp_path, entries, problem):
    source = archive(*entries)
    assert [fault.problem for fault in await InlineStorage().input_faults(source)] == [problem]
    with pytest.raises(StorageError, match=problem) as caught:
        await InlineStorage().prepare(source, tmp_path)
    assert caught.value.permanent
    assert list(tmp_path.iterdir()) == []


BOMB = archive(file("zeros", bytes(MAX_INLINE * 3)))


async def test_a_small_archive_that_unpacks_to_too_much_is_refused():
    assert len(BOMB.params["URL"]) < 100_000
    [fault] = await InlineStorage().input_faults(BOMB)
    assert "unpacks to more than" in fault.problem
    assert not fault.this_node_only
    two = archive(file("a", bytes(MAX_INLINE // 2 + 1)), file("b", bytes(MAX_INLINE // 2 + 1)))
    assert "unpacks to more than" in str((await InlineStorage().input_faults(two))[0])


def test_the_parameters_are_checked_without_decoding_the_data(monkeypatch):
    for decoder in ("b64decode", "unquote_to_bytes", "read_archive"):
        monkeypatch.setattr(f"bacalhau_p2p.storage.inline.{decoder}", None)
    assert InlineStorage().faults(BOMB) == []


async def test_a_truncated_archive_is_refused():
    url = FOLDER.params["URL"]
    assert await InlineStorage().input_faults(inline(url[: len(url) // 2 // 4 * 4]))
