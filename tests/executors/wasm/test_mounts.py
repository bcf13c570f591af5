"""What a guest finds at which path, and what it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.model.resources import Resources
from tests.support.programs.wasm_programs import PROBE, refused, wasm_request

WORDCOUNT = Path(__file__).parents[3] / "examples" / "wordcount" / "wordcount.wasm"


async def test_two_mounts_with_one_target_are_refused(executor: WasmExecutor, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for more, results in (
        ([(folder, "/data"), (folder, "/data/")], ()),
        ([(PROBE, "/data/a"), (PROBE, "/data/a")], ()),
        ([(folder, "/out")], [ResultPath(name="out", path="/out")]),
    ):
        mounted = [MountedInput(path=path, target=target) for path, target in more]
        why = await refused(
            executor, wasm_request(tmp_path, PROBE, "exit", "0", more=mounted, result_paths=results)
        )
        assert "two inputs" in why


async def test_a_folder_that_has_only_inputs_can_be_listed_and_not_changed(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    """With inputs at /inputs/a and /inputs/b, there was no /inputs for a program to walk."""
    inputs = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.txt").write_text("some words")
        inputs.append(MountedInput(path=tmp_path / name, target=f"/inputs/{name}"))
    asked = wasm_request(tmp_path, WORDCOUNT, "-n", "0", "/inputs", more=inputs)
    assert (await executor.run(asked)).exit_code == 0
    counted = (asked.results / "stdout").read_text().split()
    assert [word for word in counted if word.startswith("/")] == ["/inputs/a/text.txt", "/inputs/b/text.txt"]
    asked = wasm_request(tmp_path, PROBE, "write", "/inputs/new", "text", more=inputs)
    assert (await executor.run(asked)).exit_code != 0


async def test_a_vanished_input_is_not_a_permanent_failure(executor: WasmExecutor, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    asked = wasm_request(tmp_path, PROBE, "exit", "0", more=[MountedInput(path=folder, target="/in")])
    await executor.prepare(asked)
    folder.rmdir()
    with pytest.raises(ExecutorError, match="/in") as caught:
        await executor.run(asked)
    assert not caught.value.permanent


async def test_a_job_cannot_read_outside_its_mounts(executor: WasmExecutor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the node")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "absolute").symlink_to(secret)
    (folder / "relative").symlink_to("../secret")
    for source in (
        "/in/absolute",
        "/in/relative",
        "/in/../secret",
        str(secret),
        "/etc/passwd",
        "/proc/self/environ",
    ):
        asked = wasm_request(
            tmp_path,
            PROBE,
            "copy",
            source,
            "/out/copy",
            more=[MountedInput(path=folder, target="/in")],
            result_paths=[ResultPath(name="out", path="/out")],
        )
        assert (await executor.run(asked)).exit_code == 1, source
        assert list((asked.results / "out").iterdir()) == []


async def test_a_symlink_in_an_output_does_not_lead_the_next_job_outside(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the node")
    first = wasm_request(
        tmp_path,
        PROBE,
        "link",
        "../../../secret",
        "/out/l",
        result_paths=[ResultPath(name="out", path="/out")],
    )
    assert (await executor.run(first)).stderr == (
        b"left out of the results: out/l: it is a link that leads out of the results: ../../../secret\n"
    )
    (first.results / "out" / "l").symlink_to("../../../secret")
    assert (first.results / "out" / "l").read_text() == "of the node", "the test's link leads nowhere"
    second = wasm_request(
        tmp_path,
        PROBE,
        "copy",
        "/in/l",
        "/out/copy",
        more=[MountedInput(path=first.results / "out", target="/in")],
        result_paths=[ResultPath(name="out", path="/out")],
    )
    assert (await executor.run(second)).exit_code == 1


@pytest.fixture
def far_file(tmp_path: Path) -> Iterator[Path]:
    """A file on another file system than the one on which jobs run."""
    jobs = tmp_path.stat().st_dev
    folders = [Path("/dev/shm"), Path("/var/tmp")]
    others = [each for each in folders if os.access(each, os.W_OK) and each.stat().st_dev != jobs]
    if not others:
        pytest.skip("no second file system that can be written to")
    path = others[0] / f"bacalhau-test-{os.getpid()}"
    path.write_text("far away")
    yield path
    path.unlink()


async def test_a_file_input_from_another_file_system_is_copied(
    executor: WasmExecutor, tmp_path: Path, far_file: Path
) -> None:
    asked = wasm_request(
        tmp_path,
        PROBE,
        "copy",
        "/data/near",
        "/out/copy",
        more=[MountedInput(path=far_file, target="/data/near")],
        result_paths=[ResultPath(name="out", path="/out")],
    )
    assert (await executor.run(asked)).exit_code == 0
    assert (asked.results / "out" / "copy").read_text() == "far away"


async def test_paths_that_are_not_absolute_lead_to_a_writable_folder_of_the_run(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    """Programs that open `out.txt` failed: nothing was mounted at `.`"""
    for _ in range(2):
        asked = wasm_request(tmp_path, PROBE, "write", "out.txt", "text")
        assert (await executor.run(asked)).exit_code == 0
        assert (asked.work / "working-folder" / "out.txt").read_text() == "text"


async def test_what_is_written_to_the_working_folder_counts(executor: WasmExecutor, tmp_path: Path) -> None:
    asked = wasm_request(
        tmp_path, PROBE, "write", "out.txt", "x" * 5000, resources=Resources(memory=64_000_000, disk=5500)
    )
    with pytest.raises(ExecutorError, match="takes more than the 5500 bytes"):
        await executor.run(asked)
