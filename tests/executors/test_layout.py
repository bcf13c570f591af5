from __future__ import annotations

import os
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.layout import arrange


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("x")
    return folder


@pytest.fixture
def inner(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    return inner


def mounted(path: Path, target: str, *, owned: bool = True) -> MountedInput:
    return MountedInput(path=path, target=target, owned=owned)


def test_outer_mounts_come_before_those_inside_them(folder, inner, tmp_path):
    inputs = [mounted(inner, "/a/b/c"), mounted(inner, "/z"), mounted(folder, "/a")]
    layout = arrange(inputs, {"/a/b": inner})
    assert [(str(m.target), m.outer and str(m.outer.target)) for m in layout.mounts] == [
        ("/z", None),
        ("/a", None),
        ("/a/b", "/a"),
        ("/a/b/c", "/a/b"),
    ]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_mount_point_replaces_what_is_in_the_way_and_all_can_reach_it(folder, inner, umask):
    inputs = [mounted(folder, "/a"), mounted(inner, "/a/file/new"), mounted(folder / "file", "/a/sub")]
    before = os.umask(umask)
    try:
        layout = arrange(inputs, {})
        layout.make_mount_points()
    finally:
        os.umask(before)
    assert (folder / "file" / "new").is_dir()
    assert (folder / "sub").is_file()
    assert (folder / "file").stat().st_mode & 0o777 == 0o755
    assert (folder / "sub").stat().st_mode & 0o777 == 0o644


def test_no_symlink_is_followed_to_make_a_mount_point(folder, inner, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "way").symlink_to(outside)
    arrange([mounted(folder, "/a"), mounted(inner, "/a/way/in")], {}).make_mount_points()
    assert list(outside.iterdir()) == []
    assert not (folder / "way").is_symlink()


def test_mount_points_in_results_are_removed_unless_the_job_used_them(folder, inner, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "own").mkdir()
    inputs = [mounted(inner, target) for target in ("/out/x/y", "/out/own/z", "/out/used/v")]
    layout = arrange(inputs, {"/out": out})
    layout.make_mount_points()
    (out / "used" / "more").write_text("of the job")
    layout.remove_mount_points()
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*")) == ["own", "used", "used/more"]


def test_a_link_that_the_job_left_is_not_followed_to_remove_a_mount_point(inner, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    (outside / "y").mkdir(parents=True)
    layout = arrange([mounted(inner, "/out/x/y")], {"/out": out})
    layout.make_mount_points()
    (out / "x" / "y").rmdir()
    (out / "x").rmdir()
    (out / "x").symlink_to(outside)
    layout.remove_mount_points()
    assert (outside / "y").is_dir()


def test_nothing_is_made_in_a_folder_of_the_user(folder, inner):
    layout = arrange([mounted(folder, "/a", owned=False), mounted(inner, "/a/sub")], {})
    layout.make_mount_points()
    layout = arrange([mounted(folder, "/a", owned=False), mounted(inner, "/a/none")], {})
    with pytest.raises(ExecutorError, match="the folder of this node at /a has no none"):
        layout.make_mount_points()
    assert sorted(p.name for p in folder.iterdir()) == ["file", "sub"]


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (("/a", "/a/"), "two inputs or result paths have the path /a"),
        (("/a", "/out"), "two inputs or result paths have the path /out"),
        (("/f", "/f/x"), "/f is a file, so nothing can be at /f/x"),
    ],
)
def test_what_no_node_can_mount_is_a_permanent_failure(folder, inner, targets, reason):
    inputs = [mounted(folder / "file" if target == "/f" else inner, target) for target in targets]
    with pytest.raises(ExecutorError, match=reason) as caught:
        arrange(inputs, {"/out": inner})
    assert caught.value.permanent
