from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bacalhau_p2p.runtime.removal import remove_tree
from tests.support.folders import nest


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """Only so many more descriptors can be opened in the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    probes = [os.open("/dev/null", os.O_RDONLY) for _ in range(free)]  # the lowest that are free
    for each in probes:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(probes) + 1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_1500_nested_folders_are_removed_with_three_descriptors(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    nest(top, 1500)
    with few_descriptors(3):
        remove_tree(top)
    assert list(tmp_path.iterdir()) == []


def test_a_wide_tree_is_removed(tmp_path):
    for number in range(3):
        inner = tmp_path / "top" / f"{number}" / "inner"
        inner.mkdir(parents=True)
        for file in range(1100):
            (inner / f"{file}").touch()
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_a_symlink_is_removed_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "inner" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "top")
    remove_tree("link", dir_fd=os.open(tmp_path, os.O_RDONLY))
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]


def test_a_file_is_removed_and_a_missing_one_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        remove_tree(tmp_path / "file")


def test_folders_that_their_owner_may_not_change_are_removed(tmp_path):
    """As a user who is not root: root may change everything."""
    tmp_path.chmod(0o777)
    top = tmp_path / "top"
    deep = top / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    for folder in (deep, top / "a", top):
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        folder.chmod(0o500 if folder != deep else 0o000)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.chdir(tmp_path)
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            remove_tree("top")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_an_error_after_everything_else_is_gone(tmp_path, monkeypatch):
    unlink = os.unlink

    def refuse_some(name, **options):
        if name == "stays":
            raise PermissionError(1, "not permitted", name)
        unlink(name, **options)

    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "inner" / "stays").touch()
    (tmp_path / "top" / "other").touch()
    (tmp_path / "top" / "folder" / "empty").mkdir(parents=True)
    monkeypatch.setattr(os, "unlink", refuse_some)
    with pytest.raises(PermissionError, match="not permitted"):
        remove_tree(tmp_path / "top")
    assert sorted(path.name for path in (tmp_path / "top").rglob("*")) == ["inner", "stays"]


def test_a_removal_can_be_stopped(tmp_path):
    (tmp_path / "top" / "inner").mkdir(parents=True)

    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        remove_tree(tmp_path / "top", checkpoint=stop)
    assert (tmp_path / "top").exists()
