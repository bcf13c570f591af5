from __future__ import annotations

import os
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.model.execution import INLINE_OUTPUT_LIMIT, RunOutput
from bacalhau_p2p.model.job import ResultPath


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_finished_run_leaves_streams_exit_code_and_named_outputs(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, [ResultPath(name="counts", path="/outputs")]) as results:
        results.stdout.write(b"hello ")
        results.stdout.write(b"world\n")
        results.stderr.write(b"careful")
        (results.outputs["/outputs"] / "a.csv").write_text("1,2")
        output = results.finish(3)
    assert output == RunOutput(exit_code=3, stdout=b"hello world\n", stderr=b"careful")
    found = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {
        "stdout": b"hello world\n",
        "stderr": b"careful",
        "exitCode": b"3",
        "counts/a.csv": b"1,2",
    }


def test_a_run_without_output_leaves_both_streams(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as results:
        assert results.finish(0) == RunOutput()
    assert names(tmp_path) == ["exitCode", "stderr", "stdout"]


def test_a_run_that_did_not_end_has_no_exit_code(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as results:
        results.stdout.write(b"half")
    assert names(tmp_path) == ["stderr", "stdout"]
    assert (tmp_path / "stdout").read_bytes() == b"half"


def test_messages_carry_the_first_bytes_and_whether_there_are_more(tmp_path: Path) -> None:
    whole = bytes(range(256)) * 9
    with ResultsFolder(tmp_path) as results:
        results.stdout.write(whole)
        results.stderr.write(whole[:INLINE_OUTPUT_LIMIT])
        output = results.finish(0)
    assert (tmp_path / "stdout").read_bytes() == whole
    assert (output.stdout, output.stdout_truncated) == (whole[:INLINE_OUTPUT_LIMIT], True)
    assert (output.stderr, output.stderr_truncated) == (whole[:INLINE_OUTPUT_LIMIT], False)


def test_bytes_beyond_the_limit_are_dropped_and_counted(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, limit=5) as results:
        results.stdout.write(b"abc")
        results.stdout.write(b"defgh")
        results.stdout.write(b"i")
        output = results.finish(0)
        assert (results.stdout.kept, results.stdout.dropped) == (5, 4)
    assert (tmp_path / "stdout").read_bytes() == b"abcde"
    assert output.stdout_truncated


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        ([("", "/o")], "not a valid folder name"),
        ([("..", "/o")], "not a valid folder name"),
        ([("a/b", "/o")], "not a valid folder name"),
        ([("x" * 256, "/o")], "not a valid folder name"),
        ([("stdout", "/o")], "reserved for the output of the run"),
        ([("exitCode", "/o")], "reserved for the output of the run"),
        ([("a", "/o"), ("a", "/p")], "used twice"),
        ([("a", "/o"), ("b", "/o")], "used twice"),
        ([("a", "relative")], "not absolute"),
        ([("a", "/o/../etc")], "not absolute"),
    ],
)
def test_invalid_result_paths_are_refused_before_anything_is_written(
    tmp_path: Path, paths: list[tuple[str, str]], problem: str
) -> None:
    unchecked = [ResultPath.model_construct(name=name, path=path) for name, path in paths]
    folder = ResultsFolder(tmp_path, unchecked)
    with pytest.raises(ExecutorError, match=problem) as caught, folder:
        pass
    assert caught.value.permanent
    assert names(tmp_path) == []


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "stdout").symlink_to("target")
    with pytest.raises(ExecutorError, match="cannot be written") as caught, ResultsFolder(tmp_path):
        pass
    assert not caught.value.permanent
    assert (tmp_path / "target").read_text() == "mine"


def test_a_full_disk_is_not_a_permanent_failure(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as results:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, results.stdout.fileno())
        os.close(full)
        with pytest.raises(ExecutorError, match="No space left") as caught:
            results.stdout.write(b"x")
        assert not caught.value.permanent


def test_all_files_are_closed_at_the_end_of_the_block(tmp_path: Path) -> None:
    before = len(names(Path("/proc/self/fd")))
    with ResultsFolder(tmp_path, [ResultPath(name="a", path="/a")]) as results:
        results.finish(0)
    (tmp_path / "stdout").unlink()
    with pytest.raises(ExecutorError), ResultsFolder(tmp_path):  # stderr is in the way
        pass
    assert len(names(Path("/proc/self/fd"))) == before
