from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.storage.trees import link_tree, make_readable
from bacalhau_p2p.testing.storage import content_of


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "a").write_bytes(b"a")
    (root / "link").symlink_to("nowhere")
    return root


def test_a_linked_tree_has_the_same_files_and_symlinks(tree, tmp_path):
    link_tree(tree, tmp_path / "copy")
    assert (tmp_path / "copy" / "sub" / "a").samefile(tree / "sub" / "a")
    assert (tmp_path / "copy" / "sub" / "empty").is_dir()
    assert (tmp_path / "copy" / "link").readlink() == Path("nowhere")


def test_files_are_copied_where_there_are_no_hard_links(tree, tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tree / "sub" / "a").chmod(0o755)
    link_tree(tree / "sub", tmp_path / "copy")
    assert content_of(tmp_path / "copy") == {"a": b"a", "empty": None}
    assert (tmp_path / "copy" / "a").stat().st_mode & 0o777 == 0o755


def test_removing_follows_no_symlink_and_a_missing_tree_is_no_error(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    discard_tree(tmp_path / "link")
    assert (tree / "sub" / "a").exists()
    discard_tree(tree)
    discard_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_a_tree_may_be_as_deep_as_a_path_is_long(tmp_path):
    deep = bottom = tmp_path / "deep"
    bottom.mkdir()
    for _ in range(1200):
        bottom /= "d"
        bottom.mkdir()
    link_tree(deep, tmp_path / "copy")
    assert (tmp_path / "copy" / bottom.relative_to(deep)).is_dir()
    discard_tree(deep)
    discard_tree(tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_everybody_can_read_a_tree_that_was_made_readable(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    outside.write_text("x")
    outside.chmod(0o600)
    for name, mode in (("plain", 0o600), ("program", 0o700), ("shared", 0o444)):
        (folder / "sub" / name).write_text("x")
        (folder / "sub" / name).chmod(mode)
    (folder / "link").symlink_to(outside)
    (folder / "sub").chmod(0o700)
    folder.chmod(0o700)
    make_readable(folder)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (folder, *folder.rglob("*"), outside)}
    assert modes == {
        **{"folder": 0o755, "sub": 0o755, "plain": 0o644, "program": 0o755, "shared": 0o444},
        **{"link": 0o600, "outside": 0o600},
    }
