from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from bacalhau_p2p.errors import ExecutorError, SettingsError
from bacalhau_p2p.executors.docker.ownership import JobUser, check_readable, give_to_job
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.output_limits import OutputLimits, Outputs, check_outputs

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.mark.parametrize(
    ("text", "user"), [("1000", JobUser(1000, 1000)), ("1000:5", JobUser(1000, 5)), ("0:0", JobUser(0, 0))]
)
def test_a_user_is_parsed_from_numbers(text: str, user: JobUser) -> None:
    assert JobUser.parse(text) == user
    assert JobUser.parse(str(user)) == user


def test_nobody_is_a_user() -> None:
    assert JobUser.parse("nobody") == JobUser(65534, 65534)


@pytest.mark.parametrize("text", ["", "somebody", "1000:", "1:2:3", "-1", "1000:x"])
def test_a_user_that_is_not_numeric_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not image, nobody, UID or UID:GID"):
        JobUser.parse(text)


def test_jobs_do_not_run_as_root_by_default() -> None:
    assert JobUser.of_this_process().uid not in (0, -1)


@as_root
def test_a_folder_belongs_to_the_job_until_it_is_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    give_to_job([folder], JobUser(1234, 5678))
    assert (folder.stat().st_uid, folder.stat().st_gid) == (1234, 5678)
    check_outputs(Outputs({"/out": folder}), OutputLimits(), take=True)
    assert (folder.stat().st_uid, folder.stat().st_gid) == (0, os.getegid())


def test_a_tree_taken_from_a_job_can_be_read_and_removed(tmp_path: Path) -> None:
    deep = tmp_path / "outputs" / "deep"
    deep.mkdir(parents=True)
    (deep / "file").write_text("text")
    (deep / "file").chmod(0)
    deep.chmod(0o2000)
    check_outputs(Outputs({"/out": tmp_path / "outputs"}), OutputLimits(), take=True)
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    assert stat.S_IMODE((deep / "file").stat().st_mode) == 0o600


def test_taking_a_tree_follows_no_symlink_and_removes_pipes_and_sockets(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "file").touch(mode=0o444)
    folder = tmp_path / "outputs"
    folder.mkdir()
    (folder / "dir").symlink_to(outside)
    (folder / "file").symlink_to(outside / "file")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        check_outputs(Outputs({"/out": folder}), OutputLimits(), take=True)
    assert sorted(path.name for path in folder.iterdir()) == ["dangling"]
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o444


@pytest.mark.parametrize(
    ("mode", "user", "readable"),
    [
        (0o700, JobUser(os.geteuid(), 1), True),
        (0o700, JobUser(1, os.getegid()), False),
        (0o750, JobUser(1, os.getegid()), True),
        (0o705, JobUser(1, 1), True),
        (0o704, JobUser(1, 1), False),
        (0o077, JobUser(os.geteuid(), os.getegid()), False),
    ],
)
def test_an_input_must_be_readable_for_the_jobs_user(
    mode: int, user: JobUser, readable: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    folder.chmod(mode)
    source = MountedInput(path=folder, target="/inputs")
    if readable:
        check_readable(source, user)
    else:
        with pytest.raises(ExecutorError, match=rf"^input /inputs: not readable .* \(mode {mode:04o}\)$"):
            check_readable(source, user)
