"""What cannot start, and whether another node could start it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import Executor, RunRequest
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.programs.shell_programs import shell

pytestmark = pytest.mark.docker


async def prepare_and_run(executor: Executor, request: RunRequest) -> RunOutput:
    await executor.prepare(request)
    return await executor.run(request)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"Entrypoint": ["nosuch", "argument"]}, r"^exec nosuch failed: No such file or directory$"),
        ({"Entrypoint": ["/etc/passwd"]}, r"^exec /etc/passwd failed: Permission denied$"),
        ({"WorkingDirectory": "/etc/passwd"}, r"^Cannot mkdir: /etc/passwd is not a directory$"),
        ({"Image": "Not A Name"}, r"^Params.Image: 'Not A Name' is not an image name, such as "),
        ({"Image": "UPPER"}, r"^Params.Image: 'UPPER' is not an image name, such as "),
    ],
)
async def test_a_job_that_can_start_nowhere_fails_permanently_with_its_root_cause(
    params: Mapping[str, object], message: str, kit: ExecutorKit
) -> None:
    request = kit.request(shell("", **params))
    with pytest.raises(ExecutorError, match=message) as caught:
        await prepare_and_run(kit.executor, request)
    assert caught.value.permanent


async def test_a_command_that_the_shell_does_not_find_is_a_result(kit: ExecutorKit) -> None:
    output = await kit.run(kit.request(shell("nosuch")))
    assert output.exit_code == 127
    assert output.stderr.endswith(b"nosuch: not found\n")


async def test_two_mounts_with_one_target_fail_permanently(kit: ExecutorKit) -> None:
    inputs = [kit.input_folder("/inputs", {}), kit.input_folder("/inputs", {})]
    with pytest.raises(ExecutorError, match=r"^two inputs or result paths have the path /inputs$") as caught:
        await kit.run(kit.request(shell("true"), inputs=inputs))
    assert caught.value.permanent


@pytest.mark.docker
async def test_a_job_that_fails_on_permissions_is_told_which_user_it_was(kit: ExecutorKit) -> None:
    output = await kit.run(kit.request(shell("touch /etc/x")))
    assert output.exit_code == 1
    assert re.search(
        rb"Permission denied\n\nhint: the job ran as user \d+:\d+, that of this node", output.stderr
    )
    compared = await kit.run(kit.request(shell("touch /etc/x"), deterministic=True))
    assert b"hint" not in compared.stderr
    fine = await kit.run(kit.request(shell("echo Permission denied >&2")))
    assert fine.stderr == b"Permission denied\n"


@pytest.mark.docker
@pytest.mark.parametrize("target", ["/proc/x", "/sys/x", "/bin/busybox", "/bin/busybox/x"])
async def test_a_mount_that_the_runtime_refuses_is_a_permanent_failure(kit: ExecutorKit, target: str) -> None:
    """It cost three full attempts, and the engine's words named folders of the node."""
    request = kit.request(shell("true"), inputs=[kit.input_folder(target, {})])
    with pytest.raises(ExecutorError, match=rf"^nothing can be mounted at {target}: ") as caught:
        await kit.run(request)
    assert caught.value.permanent
