"""A process that runs native code behind the walls can do nothing but its job. Covers `kernel`, `landlock`,
and `seccomp`."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bacalhau_p2p.executors.isolation import kernel
from bacalhau_p2p.executors.isolation.walls import (
    CAPABILITIES,
    FIRST_USER,
    IPC,
    LANDLOCK,
    MOUNT,
    NETWORK,
    PID,
    SECCOMP,
    THREADS_LIMIT,
    USER,
    Walls,
)
from tests.support.programs.escape_attempts import Targets, succeeding_attempts

NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # as a program that this user started


def stay() -> None:
    pass


@pytest.fixture(params=[pytest.param(stay, marks=ROOT, id="root"), pytest.param(become_nobody, marks=ROOT)])
def who(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Makes a process that of the user who runs the node."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that also `nobody` can enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def outcome(step: Callable[[], object]) -> object:
    """What this returns in a process of its own, as JSON has it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(step()).encode())
        except BaseException:  # noqa: BLE001 - told to the other process
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(text)


def behind_walls(who: Callable[[], None], job: Callable[[Walls], object]) -> object:
    """What `job` returns, which runs in the process of a job and has yet to go behind the walls."""

    def warm() -> object:
        who()
        walls = Walls.build()
        reader, writer = os.pipe()
        pid = walls.fork()
        if pid == 0:
            try:
                os.write(writer, json.dumps(job(walls)).encode())
            except BaseException:  # noqa: BLE001 - told to the other process
                os.write(writer, json.dumps(traceback.format_exc()).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            text = file.read()
        os.waitpid(pid, 0)
        return json.loads(text or "null")

    return outcome(warm)


@pytest.fixture
def targets(place: Path) -> Iterator[Targets]:
    """Things of the node's, which may belong to `nobody`: walls of Unix permissions must not be all."""
    (place / "secret").write_text("the key")
    for name in ("output", "other"):
        (place / name).mkdir()
    server = socket.create_server(("127.0.0.1", 0))
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(place / "api.sock"))
    local.listen()
    for path in place.iterdir():
        path.chmod(0o777)
    yield Targets(
        secret=place / "secret",
        other_job=place / "other",
        node=os.getpid(),
        port=server.getsockname()[1],
        unix_socket=place / "api.sock",
        output=-1,
    )
    server.close()
    local.close()


def test_an_escaped_program_can_do_nothing(who: Callable[[], None], targets: Targets, place: Path) -> None:
    def job(walls: Walls) -> object:
        output = os.open(place / "output", os.O_RDONLY)
        walls.enter(readable=[], writable=[str(place / "output")])
        own = os.open("result", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=output)
        os.write(own, b"done")
        return succeeding_attempts(replace(targets, output=output))

    assert behind_walls(who, job) == []
    assert (place / "output" / "result").read_text() == "done"
    assert list((place / "other").iterdir()) == []


def test_without_walls_the_attempts_succeed(who: Callable[[], None], targets: Targets, place: Path) -> None:
    """Shows that the test before this one can fail."""

    def job() -> object:
        who()
        return succeeding_attempts(replace(targets, output=os.open(place / "output", os.O_RDONLY)))

    found = outcome(job)
    assert isinstance(found, list)
    assert {"reads the node's key", "connects to the node's API", "forks", "writes to /tmp"} <= set(found)
    assert len(found) > 15


@pytest.mark.parametrize("alone", [LANDLOCK, MOUNT])
def test_files_of_others_are_out_of_reach_with_landlock_or_a_mount_namespace(
    alone: str, targets: Targets, place: Path
) -> None:

    def job(walls: Walls) -> object:
        output = os.open(place / "output", os.O_RDONLY)
        thinner = replace(
            walls,
            names=(alone,),
            landlock_version=walls.landlock_version if alone == LANDLOCK else 0,
            mount_namespace=walls.mount_namespace if alone == MOUNT else -1,
            first_user=0,
        )
        thinner.enter(readable=[], writable=[str(place / "output")])
        return succeeding_attempts(replace(targets, output=output))

    found = behind_walls(stay, job)
    assert isinstance(found, list)
    assert not {name for name in found if "node's key" in name or "another job" in name or "/tmp" in name}


@ROOT
def test_root_has_all_walls_and_each_job_has_a_user_of_its_own(place: Path) -> None:
    def job(walls: Walls) -> object:
        output = os.open(place, os.O_RDONLY)
        user = walls.user()
        walls.enter(readable=[], writable=[str(place)])
        os.close(os.open(str(user), os.O_CREAT | os.O_WRONLY, dir_fd=output))
        return [walls.names, os.getpid()]

    for _ in range(2):
        names, pid = behind_walls(stay, job)  # type: ignore[misc]
        assert set(names) == {USER, CAPABILITIES, NETWORK, IPC, PID, MOUNT, LANDLOCK, SECCOMP}
        assert pid == 1
    made = list(place.iterdir())
    assert len(made) == 2
    for path in made:
        assert str(path.stat().st_uid) == str(path.stat().st_gid) == path.name
        assert path.stat().st_uid > FIRST_USER


@ROOT
def test_a_job_of_a_root_node_can_start_only_some_threads() -> None:
    def job(walls: Walls) -> object:
        walls.enter(readable=[], writable=[])
        stop = threading.Event()
        try:
            for started in range(1000):  # noqa: B007 - needed when it fails
                threading.Thread(target=stop.wait, daemon=True).start()
        except RuntimeError:
            return started
        return None

    started = behind_walls(stay, job)
    assert started == (os.cpu_count() or 1) + THREADS_LIMIT - 1


@ROOT
def test_an_ordinary_user_has_all_walls_but_a_user_for_each_job() -> None:
    names = behind_walls(become_nobody, lambda walls: walls.names)
    assert set(names) == {CAPABILITIES, NETWORK, IPC, PID, MOUNT, LANDLOCK, SECCOMP}  # type: ignore[call-overload]


def test_inputs_can_be_read_and_not_changed(who: Callable[[], None], place: Path) -> None:
    (place / "input").mkdir()
    (place / "input" / "file").write_text("data")
    for path in (place / "input", place / "input" / "file"):
        path.chmod(0o777)

    def job(walls: Walls) -> object:
        folder = os.open(place / "input", os.O_RDONLY)
        walls.enter(readable=[str(place / "input")], writable=[])
        text = os.read(os.open("file", os.O_RDONLY, dir_fd=folder), 10).decode()
        failed = 0
        for change in (
            lambda: os.open("file", os.O_RDWR, dir_fd=folder),
            lambda: os.open("new", os.O_RDWR | os.O_CREAT, dir_fd=folder),
            lambda: os.unlink("file", dir_fd=folder),
            lambda: os.rename("file", "other", src_dir_fd=folder, dst_dir_fd=folder),
        ):
            try:
                change()
            except OSError:
                failed += 1
        return [text, failed]

    assert behind_walls(who, job) == ["data", 4]


def test_a_job_ends_with_the_warm_process(who: Callable[[], None]) -> None:
    reader, writer = os.pipe()
    warm = os.fork()
    if warm == 0:
        who()
        walls = Walls.build()
        if walls.fork() == 0:
            walls.follow_parent()
            walls.enter(readable=[], writable=[])
            os.write(writer, b"x")
            select.poll().poll()  # for ever
        os.close(writer)
        signal.pause()
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.kill(warm, signal.SIGKILL)
    assert os.read(reader, 1) == b""  # nobody has the other end any more
    os.waitpid(warm, 0)
    os.close(reader)
