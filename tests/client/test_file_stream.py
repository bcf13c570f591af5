"""A file is read while its CAR arrives, each block verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bacalhau_p2p.client.file_stream import FileStream
from bacalhau_p2p.errors import InvalidContent, PathNotFound
from bacalhau_p2p.ipfs.files.importer import build
from bacalhau_p2p.ipfs.format.car import write_car
from bacalhau_p2p.ipfs.format.cid import CID

SIZE = 5_000_000
DATA = bytes(range(251)) * (SIZE // 251)


class Blocks(dict[CID, bytes]):
    def size(self, cid: CID) -> int | None:
        return len(self[cid]) if cid in self else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "outputs").mkdir(parents=True)
    (folder / "outputs" / "data").write_bytes(DATA)
    (folder / "outputs" / "zeros").write_bytes(bytes(SIZE))
    (folder / "stdout").write_bytes(b"hello\n")
    return folder


def car_of(folder: Path) -> tuple[CID, list[bytes]]:
    blocks = Blocks()
    root = build(folder, blocks.__setitem__).cid
    return root, list(write_car([root], blocks))


def read(root: CID, car: Sequence[bytes], path: str) -> list[bytes]:
    with FileStream(root, path=tuple(path.split("/"))) as stream:
        pieces = [piece for received in car for piece in stream.feed(received)]
        stream.finish()
    return pieces


@pytest.mark.parametrize(("path", "content"), [("outputs/data", DATA), ("stdout", b"hello\n")])
def test_a_file_is_read_whole(folder: Path, path: str, content: bytes):
    root, car = car_of(folder)
    assert b"".join(read(root, car, path)) == content


def test_blocks_that_a_file_repeats_are_sent_once(folder: Path):
    root, car = car_of(folder)
    assert len(b"".join(car)) < 2 * SIZE
    assert b"".join(read(root, car, "outputs/zeros")) == bytes(SIZE)


def test_the_beginning_is_read_before_the_end_has_arrived(folder: Path):
    root, car = car_of(folder)
    with FileStream(root, path=("outputs", "data")) as stream:
        first = next(piece for received in car[: len(car) // 2] for piece in stream.feed(received))
    assert DATA.startswith(first)
    assert first


def test_a_response_that_ends_early_is_an_error(folder: Path):
    root, car = car_of(folder)
    with pytest.raises(InvalidContent, match="incomplete response: the node sent only part of"):
        read(root, car[:7], "outputs/data")


def test_a_folder_and_a_missing_path_are_errors(folder: Path):
    root, car = car_of(folder)
    with pytest.raises(InvalidContent, match=f"^{root}/outputs is not a file$"):
        read(root, car, "outputs")
    with pytest.raises(PathNotFound, match="path 'absent' not found"):
        read(root, car, "absent")


def test_a_block_that_does_not_match_its_hash_is_an_error(folder: Path):
    root, car = car_of(folder)
    forged = [piece.replace(b"hello\n", b"jello\n") for piece in car]
    with pytest.raises(InvalidContent, match="does not match its hash"):
        read(root, forged, "stdout")
