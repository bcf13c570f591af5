from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from bacalhau_p2p.errors import ContentError, ContentTooLarge
from bacalhau_p2p.ipfs.files.export import export
from bacalhau_p2p.ipfs.files.importer import SMALL_BYTES, SMALL_ENTRIES, build, cid_of, is_small_folder
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.ipfs.format.dag_stat import dag_stat
from bacalhau_p2p.ipfs.format.limits import Limits
from bacalhau_p2p.ipfs.format.profiles import UNIXFS_V1_2025, Profile
from bacalhau_p2p.runtime.removal import remove_tree
from tests.support.blocks.dag_makers import MemoryBlocks, blob, fill, results_folder
from tests.support.folders import nest

EMPTY_FOLDER = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"


@pytest.mark.parametrize(
    ("content", "cid"),
    [
        (b"", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        (b"hello\n", "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"),
        (blob(262144, 262144), "bafkreih2bk74eu5axngebs6vftmmkcaqboysjjy726xzy5hksnqmfgw5fy"),
        (blob(262145, 262145), "bafybeidbbs6ocod3v27jtr4uhvc6n55y3gbrtur3bvjsnraudtbxkozi2y"),
        (blob(1048577, 1048577), "bafybeib6vp2uke46o52dsgdttquqocnoppffjjwogfxqljdt4egfks3zoe"),
        (blob(50_000_000, 1), "bafybeifwcfdswscfatqirafh35kpgzrpacmf5vhf6xqbqxzza5yu3gd2pi"),
    ],
    ids=["empty", "hello", "one chunk", "one byte more", "five chunks", "two levels"],
)
def test_a_file_has_the_cid_that_kubo_gives(tmp_path, content, cid):
    file = tmp_path / "file"
    file.write_bytes(content)
    assert str(cid_of(file)) == cid


def test_an_empty_folder_has_the_cid_that_kubo_gives(tmp_path):
    assert str(cid_of(tmp_path)) == EMPTY_FOLDER


def test_a_results_folder_has_the_cid_that_kubo_gives(tmp_path):
    blocks = MemoryBlocks()
    added = blocks.add(results_folder(tmp_path / "results"))
    assert str(added.cid) == "bafybeibndemgckvqeburlhzfzr6snajj73yik677wzqpaloeyprtjpgc7a"
    assert added.size == 3_000_005
    assert sorted(added.entries) == ["exitCode", "outputs", "stderr", "stdout"]
    assert added.entries["stdout"] == CID.of(RAW, b"out\n")


def test_a_large_folder_is_sharded_as_by_kubo(tmp_path):
    for number in range(5000):
        (tmp_path / f"file-{number:05d}.txt").write_text(str(number))
    assert str(cid_of(tmp_path)) == "bafybeicoomucvynpgemf4t3lfmxcbxdcl2atjwe5inxrifbiwqyvluavhq"


def test_a_file_of_several_levels_is_complete(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(blob(100_000, 3))
    blocks = MemoryBlocks()
    added = blocks.add(file, profile=Profile(name="small", chunk=100, links=5))
    found = dag_stat(added.cid, blocks)
    assert (found.bytes, found.complete) == (100_000, True)


def test_the_root_comes_last(tmp_path):
    seen: list[CID] = []
    added = build(results_folder(tmp_path / "r"), lambda cid, block: seen.append(cid))
    assert seen[-1] == added.cid


def test_symlinks_are_kept_skipped_or_refused(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    blocks = MemoryBlocks()
    kept = blocks.add(tmp_path)
    assert blocks.blocks[kept.entries["link"]] == b"\x0a\x0f\x08\x04\x12\x0b/etc/passwd"
    skipped = blocks.add(tmp_path, symlinks="skip")
    assert (str(skipped.cid), skipped.skipped) == (
        EMPTY_FOLDER,
        (("link", "a link that leads out of the folder"),),
    )
    with pytest.raises(ContentError, match="link is a symlink"):
        blocks.add(tmp_path, symlinks="refuse")


def test_a_symlink_to_a_folder_is_never_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("s3cret")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "out").symlink_to(secret)
    blocks = MemoryBlocks()
    blocks.add(tmp_path / "results")
    assert not any(b"s3cret" in block for block in blocks.blocks.values())


def test_hidden_files_are_left_out_unless_asked_for(tmp_path):
    (tmp_path / ".env").write_text("a=1")
    assert str(cid_of(tmp_path)) == EMPTY_FOLDER
    assert str(cid_of(tmp_path, hidden=True)) != EMPTY_FOLDER
    assert cid_of(tmp_path / ".env") == CID.of(RAW, b"a=1")


def test_pipes_and_sockets_are_left_out_and_listed(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # socket paths are short
    listener.bind("socket")
    listener.close()
    added = MemoryBlocks().add(tmp_path)
    assert (str(added.cid), added.skipped) == (
        EMPTY_FOLDER,
        (("pipe", "not a file, folder or link"), ("socket", "not a file, folder or link")),
    )
    with pytest.raises(ContentError, match="is not a file or folder"):
        cid_of(tmp_path / "pipe")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    with pytest.raises(ContentError, match="not UTF-8"):
        cid_of(tmp_path)


def test_content_above_the_limits_is_refused(tmp_path):
    inner = tmp_path
    for _ in range(5):
        inner = inner / "d"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"12345")
    with pytest.raises(ContentTooLarge, match="levels deep"):
        MemoryBlocks().add(tmp_path, limits=Limits(folder_depth=5))
    with pytest.raises(ContentTooLarge, match="bytes"):
        MemoryBlocks().add(tmp_path, limits=Limits(bytes=4))
    with pytest.raises(ContentTooLarge, match="entries"):
        MemoryBlocks().add(tmp_path, limits=Limits(entries=5))
    assert MemoryBlocks().add(tmp_path, limits=Limits(folder_depth=6, bytes=5, entries=6)).size == 5


def test_folders_nested_deeper_than_any_path_are_refused(tmp_path):
    deep = tmp_path / "deep"
    deep.mkdir()
    nest(deep, 1500)
    assert not is_small_folder(deep)
    with pytest.raises(ContentTooLarge, match="nested more than 64 levels deep") as caught:
        MemoryBlocks().add(deep)
    remove_tree(deep)
    assert len(str(caught.value)) < 200


def test_a_sparse_file_above_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 100 * 1024**3)
    monkeypatch.setattr(os, "read", lambda *arguments: pytest.fail("it was read"))
    with pytest.raises(ContentTooLarge, match="has at least 107374182400 bytes"):
        MemoryBlocks().add(tmp_path)


def test_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ContentError, match=r"cannot read .*nothing: No such file"):
        cid_of(tmp_path / "nothing")


def test_what_runs_without_a_node_imports_neither_trio_nor_cbor2_nor_pydantic():
    code = (
        "import sys; from bacalhau_p2p.ipfs.files import importer, export, tar; "
        "from bacalhau_p2p.ipfs.format import car; "
        "print([m for m in ('trio', 'cbor2', 'pydantic', 'mmh3', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the profile unixfs-v1-2025; the CIDs are those of npm's ipfs-unixfs-importer 17 ----------------


def pattern(size: int) -> bytes:
    return bytes((n * 7 + (n >> 10)) & 255 for n in range(size))


@pytest.mark.parametrize(
    ("size", "cid"),
    [
        (0, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        (1, "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu"),
        (1048576, "bafkreiavg22xnxwy7rk3o3jyk4p66tft3kafjss3sz7oyaw5mctruk4rjq"),
        (1048577, "bafybeidjpxu66m6jejpkta7hbaf3x3r5uwxf3jdi3eomi67uyr4dalnpr4"),
        (5000000, "bafybeigzekjrx5llho4vhpk5xur2hn2paukmztq3lmmi4qwahu5m24ti3i"),
    ],
)
def test_a_file_has_the_cid_that_others_give_under_the_profile_of_2025(tmp_path, size, cid):
    (tmp_path / "file").write_bytes(pattern(size))
    assert str(cid_of(tmp_path / "file", profile=UNIXFS_V1_2025)) == cid


@pytest.mark.parametrize(
    ("extra", "cid"),
    [
        (0, "bafybeics55o7ad5td2lp4qvei47kukxjgwt3pgk7ejfzbgtng3veohf6ve"),
        (1, "bafybeihiqknymuuh5spaeiczhcj2fekzvp5357f5ynwkythcqrsqfi5u3a"),
    ],
)
def test_a_folder_is_sharded_above_262144_bytes_of_its_block_under_the_profile_of_2025(tmp_path, extra, cid):
    for number in range(2787):
        (tmp_path / f"{number:050d}").write_text("x")
    (tmp_path / ("z" * (117 + extra))).write_text("x")
    assert str(cid_of(tmp_path, profile=UNIXFS_V1_2025)) == cid


# --- small folders --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_a_folder_is_small_up_to_a_number_of_entries(folder):
    assert is_small_folder(folder)
    fill(folder, SMALL_ENTRIES)
    assert is_small_folder(folder)
    (folder / "one more").touch()
    assert not is_small_folder(folder)


def test_entries_at_every_depth_count(folder):
    deep = folder
    for _ in range(SMALL_ENTRIES // 2):
        deep = deep / "below"
        deep.mkdir()
    fill(deep, SMALL_ENTRIES - SMALL_ENTRIES // 2)
    bytes_of_folders = sum(path.stat().st_size for path in folder.rglob("below"))
    assert is_small_folder(folder) == (bytes_of_folders <= SMALL_BYTES)
    (deep / "one more").touch()
    assert not is_small_folder(folder)


def test_a_folder_is_small_up_to_a_number_of_bytes(folder):
    fill(folder, 4, SMALL_BYTES // 4)
    assert is_small_folder(folder)
    (folder / "3").write_bytes(bytes(SMALL_BYTES // 4 + 1))
    assert not is_small_folder(folder)


def test_targets_of_symlinks_do_not_count(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fill(elsewhere, SMALL_ENTRIES + 1, SMALL_BYTES)
    (folder / "link").symlink_to(elsewhere)
    (folder / "file").symlink_to(elsewhere / "0")
    assert is_small_folder(folder)


def test_a_file_is_no_small_folder(folder):
    (folder / "file").touch()
    assert not is_small_folder(folder / "file")
    assert not is_small_folder(folder / "missing")


def test_links_that_lead_out_are_left_out_and_named_and_hidden_files_counted(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to("../sub")
    (tmp_path / "sub" / "out").symlink_to("../../x")
    (tmp_path / "absolute").symlink_to(tmp_path / "sub")
    (tmp_path / ".hidden").touch()
    added = build(tmp_path, lambda cid, block: None, symlinks="inside")
    leads_out = "a link that leads out of the folder"
    assert added.skipped == (("absolute", leads_out), ("sub/out", leads_out))
    assert added.hidden == 1
    assert build(tmp_path, lambda cid, block: None, hidden=True).hidden == 0


@pytest.mark.parametrize("size", [0, 5, 300_000, 60_000_000])
def test_programs_keep_that_they_can_be_executed_and_other_cids_stay(tmp_path, size):
    """60 MB have more than one level of blocks; `ipfs add --preserve-mode` puts the mode there too."""
    folder, blocks = tmp_path / "data", MemoryBlocks()
    folder.mkdir()
    for name, mode in (("program", 0o750), ("plain", 0o640)):
        (folder / name).write_bytes(bytes(size))
        (folder / name).chmod(mode)
    added = build(folder, blocks.blocks.__setitem__, programs=True)
    assert added.entries["plain"] == cid_of(folder / "plain") == cid_of(folder / "program")
    assert added.entries["program"] == cid_of(folder / "program", programs=True) != added.entries["plain"]
    export(added.cid, tmp_path / "copy", blocks)
    copies = {path.name: path for path in (tmp_path / "copy").iterdir()}
    assert {name: path.stat().st_mode & 0o111 for name, path in copies.items()} == {
        "program": 0o111,
        "plain": 0,
    }
    assert {path.stat().st_size for path in copies.values()} == {size}
