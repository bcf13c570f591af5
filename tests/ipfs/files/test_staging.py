"""The staging folder: existing targets, failures, and kill -9 of a process that writes to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.ipfs.files.export import export
from bacalhau_p2p.ipfs.files.staging import Existing
from tests.support.blocks import export_process
from tests.support.blocks.dag_makers import MemoryBlocks, names, tree
from tests.support.blocks.export_process import CONTENT, content


class Exporter:
    """A process that exports, step by step."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def until(self, step: str) -> None:
        """Go on to this step, and stop there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        while (said := self.process.stdout.readline().strip()) != step:
            assert said, "it has ended"
            self.go_on()

    def go_on(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> int:
        for _ in self.process.stdout:
            self.go_on()
        return self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL


class Exports:
    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.out.mkdir()
        self.blocks = MemoryBlocks()
        self.cid = content(self.blocks)

    @contextmanager
    def process(self, name: str, existing: Existing = "refuse") -> Iterator[Exporter]:
        """A process that exports to this name; it is killed at the end of the block, if it still runs."""
        script = export_process.__file__
        command = [sys.executable, script, self.out / name, existing]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield Exporter(process)
            finally:
                process.kill()

    def export(self, name: str, existing: Existing = "refuse") -> None:
        export(self.cid, self.out / name, self.blocks, existing=existing)

    def hidden(self) -> list[str]:
        return [name for name in names(self.out) if name.startswith(".")]


@pytest.fixture
def exports(tmp_path) -> Exports:
    return Exports(tmp_path)


def killed_at(exports: Exports, step: str, name: str = "copy", existing: Existing = "refuse") -> None:
    with exports.process(name, existing) as process:
        process.until(step)
        process.kill()


def test_the_next_export_removes_the_folder_of_a_killed_one(exports):
    killed_at(exports, "block")
    assert len(exports.hidden()) == 1
    exports.export("copy")
    assert names(exports.out) == ["copy"]
    assert tree(exports.out / "copy") == CONTENT


def test_the_folder_of_a_process_that_was_killed_at_the_end_is_removed(exports):
    killed_at(exports, "renamed")
    assert len(exports.hidden()) == 1
    with pytest.raises(ContentError, match="already exists"):
        exports.export("copy")
    assert names(exports.out) == ["copy"]
    assert tree(exports.out / "copy") == CONTENT


def test_the_folders_of_several_killed_processes_are_removed(exports):
    with exports.process("copy") as one, exports.process("copy") as other:
        one.until("block")
        other.until("block")
        assert len(exports.hidden()) == 2
        one.kill()
        other.kill()
    exports.export("copy")
    assert names(exports.out) == ["copy"]


def test_the_folder_of_a_running_process_is_left_alone(exports):
    with exports.process("copy", "overwrite") as process:
        process.until("block")
        (used,) = exports.hidden()
        exports.export("copy")
        assert names(exports.out) == [used, "copy"]
        process.go_on()
        assert process.finish() == 0
    assert names(exports.out) == ["copy"]
    assert tree(exports.out / "copy") == CONTENT


def test_the_folder_of_another_target_is_left_alone(exports):
    name = "n" * 60
    killed_at(exports, "block", f"{name}-1")
    exports.export(f"{name}-2")
    assert len(exports.hidden()) == 1
    exports.export(f"{name}-1")
    assert exports.hidden() == []


@pytest.mark.parametrize("existing", ["refuse", "overwrite"])
def test_a_target_that_was_moved_away_by_a_killed_process_is_restored(exports, existing):
    (exports.out / "copy").mkdir()
    (exports.out / "copy" / "old").write_bytes(b"old")
    killed_at(exports, "renamed", existing="overwrite")
    assert not (exports.out / "copy").exists()
    if existing == "refuse":
        with pytest.raises(ContentError, match="already exists"):
            exports.export("copy", existing)
        assert tree(exports.out) == {"copy": None, "copy/old": b"old"}
    else:
        exports.export("copy", existing)
        assert names(exports.out) == ["copy"]
        assert tree(exports.out / "copy") == CONTENT


def test_a_symlink_with_the_name_of_the_folder_is_left_alone(exports, tmp_path):
    killed_at(exports, "block")
    (leftover,) = exports.hidden()
    (exports.out / leftover).rename(tmp_path / "elsewhere")
    (exports.out / leftover).symlink_to(tmp_path / "elsewhere")
    exports.export("copy")
    assert names(exports.out) == sorted([leftover, "copy"])
    assert (tmp_path / "elsewhere").is_dir()


def test_the_folder_of_another_user_is_left_alone(exports, monkeypatch):
    killed_at(exports, "block")
    (leftover,) = exports.hidden()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    exports.export("copy")
    assert names(exports.out) == sorted([leftover, "copy"])


# --- existing targets ---------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["a", "é", "日", "𝄞"])
def test_a_target_may_have_the_longest_possible_name(blocks, out, letter):
    name = letter * (255 // len(letter.encode()))
    export(blocks.raw(b"data"), out / name, blocks)
    assert names(out) == [name]


def test_an_existing_target_is_refused_and_unchanged(blocks, out):
    cid = blocks.folder([(b"a", blocks.raw(b"new"))])
    (out / "copy").mkdir()
    with pytest.raises(ContentError, match="already exists"):
        export(cid, out / "copy", blocks)
    assert tree(out) == {"copy": None}


def test_a_target_that_is_a_symlink_is_not_followed(blocks, out):
    (out / "elsewhere").mkdir()
    (out / "copy").symlink_to("elsewhere")
    cid = blocks.folder([(b"a", blocks.raw(b"new"))])
    with pytest.raises(ContentError, match="already exists"):
        export(cid, out / "copy", blocks)
    export(cid, out / "copy", blocks, existing="overwrite")
    assert tree(out) == {"copy": None, "copy/a": b"new", "elsewhere": None}


def test_overwrite_replaces_the_old_content(blocks, out):
    (out / "copy").mkdir()
    (out / "copy" / "old").write_text("old")
    export(blocks.folder([(b"a", blocks.raw(b"new"))]), out / "copy", blocks, existing="overwrite")
    assert tree(out) == {"copy": None, "copy/a": b"new"}


def test_join_adds_entries_and_changes_nothing_when_a_name_clashes(blocks, out):
    (out / "copy" / "sub").mkdir(parents=True)
    (out / "copy" / "sub" / "old").write_text("old")
    sub = blocks.folder([(b"b", blocks.raw(b"new b"))])
    cid = blocks.folder([(b"a", blocks.raw(b"new a")), (b"sub", sub)])
    export(cid, out / "copy", blocks, existing="join")
    whole = {"a": b"new a", "sub": None, "sub/b": b"new b", "sub/old": b"old"}
    assert tree(out / "copy") == whole
    clash = blocks.folder([(b"c", blocks.raw(b"c")), (b"sub", blocks.folder([(b"old", blocks.raw(b"x"))]))])
    with pytest.raises(ContentError, match="copy/sub/old already exists"):
        export(clash, out / "copy", blocks, existing="join")
    assert tree(out / "copy") == whole


def test_merge_adds_entries_and_replaces_files(blocks, out):
    (out / "copy" / "sub").mkdir(parents=True)
    (out / "copy" / "sub" / "old").write_text("old")
    (out / "copy" / "a").write_text("old")
    sub = blocks.folder([(b"b", blocks.raw(b"new b"))])
    cid = blocks.folder([(b"a", blocks.raw(b"new a")), (b"sub", sub)])
    export(cid, out / "copy", blocks, existing="merge")
    assert tree(out / "copy") == {"a": b"new a", "sub": None, "sub/b": b"new b", "sub/old": b"old"}


def test_merge_does_not_follow_a_symlink_in_the_target(blocks, out):
    (out / "elsewhere").mkdir()
    (out / "copy").mkdir()
    (out / "copy" / "sub").symlink_to(out / "elsewhere")
    cid = blocks.folder([(b"sub", blocks.folder([(b"b", blocks.raw(b"new"))]))])
    with pytest.raises(ContentError, match="cannot merge"):
        export(cid, out / "copy", blocks, existing="merge")
    assert tree(out / "elsewhere") == {}


def test_a_target_without_a_parent_folder_is_an_error(blocks, out):
    with pytest.raises(ContentError, match=r"cannot write .*: No such file"):
        export(blocks.raw(b"a"), out / "no" / "copy", blocks)
