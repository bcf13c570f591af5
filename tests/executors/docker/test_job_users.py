from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import docker
import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.job_users import JobUsers
from bacalhau_p2p.executors.docker.ownership import NOBODY, JobUser
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.programs.shell_programs import shell

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs jobs as others")
IMAGE = f"bacalhau-user-test:{uuid.uuid4()}"
"""Its own for each process that runs tests."""


@pytest.fixture
def image_of(docker_client: docker.DockerClient) -> Iterator[object]:
    """Makes an image of busybox with this `USER`, and with a user `app` (1234, group 55)."""

    def make(user: str, *more: str) -> str:
        rows = "root:x:0:0::/root:/bin/sh\\napp:x:1234:55::/home/app:/bin/sh\\n"
        script = f"""mkdir -p /app/inner /etc /home/app; chown 1234:55 /home/app
        printf '{rows}' >/etc/passwd; echo 'staff:x:77:' >/etc/group"""
        command = ["sh", "-c", script]
        container = docker_client.containers.create("busybox:latest", command, network_disabled=True)
        try:
            container.start()
            container.wait()
            changes = [f"USER {user}"] if user else []
            container.commit(*IMAGE.split(":"), changes=[*changes, *more])
        finally:
            container.remove(force=True)
        return IMAGE

    yield make
    docker_client.images.remove(IMAGE, force=True)


@as_root
@pytest.mark.docker
@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("", JobUser(NOBODY, NOBODY)),
        ("root", JobUser(NOBODY, NOBODY)),
        ("0:5", JobUser(NOBODY, NOBODY)),
        ("1000:7", JobUser(1000, 7, of_image=True)),
        ("1000", JobUser(1000, 0, of_image=True)),
        ("1234", JobUser(1234, 55, of_image=True)),
        ("app", JobUser(1234, 55, of_image=True)),
        ("app:staff", JobUser(1234, 77, of_image=True)),
    ],
)
async def test_the_user_of_an_image_is_honoured_unless_it_is_root(
    image_of, user: str, found: JobUser
) -> None:
    engine = DockerEngine()
    try:
        image = image_of(user)
        assert await JobUsers(engine).user_of(image) == found
        assert await JobUsers(engine, "nobody").user_of(image) == JobUser(NOBODY, NOBODY)
        assert await JobUsers(engine, "5:6").user_of(image) == JobUser(5, 6)
    finally:
        await engine.aclose()


@as_root
@pytest.mark.docker
async def test_a_user_that_its_image_does_not_have_is_a_permanent_failure(image_of) -> None:
    engine = DockerEngine()
    try:
        with pytest.raises(ExecutorError, match="its user 'ghost' does not exist in it") as caught:
            await JobUsers(engine).user_of(image_of("ghost"))
    finally:
        await engine.aclose()
    assert caught.value.permanent


@as_root
@pytest.mark.docker
@pytest.mark.parametrize("user", ["", "app"])
async def test_a_job_writes_to_its_results_home_and_working_directory(
    image_of, kit: ExecutorKit, user: str
) -> None:
    image_of(user, "WORKDIR /app", "ENV X=1")
    script = (
        'id -u; pwd; touch here "$HOME/there" && ls -d /app/inner && echo text > /outputs/file; echo $HOME'
    )
    request = kit.request(shell(script, Image=IMAGE), result_paths=[ResultPath(name="out", path="/outputs")])
    output = await kit.run(request)
    assert (output.exit_code, output.stderr) == (0, b"")
    uid, home = ("1234", "/home/app") if user else ("65534", "/home/job")
    assert output.stdout.decode().split() == [uid, "/app", "/app/inner", home]
    assert (request.results / "out" / "file").read_text() == "text\n"
