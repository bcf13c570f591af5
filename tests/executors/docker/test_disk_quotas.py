"""Quotas of the engine's storage driver, where it has them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import docker
import pytest

from bacalhau_p2p.executors.docker.disk_quotas import SLACK, DiskQuotas, _may_have
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.output_limits import UNRESERVED_SIZE, TooMuchOutput
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.testing.executors import ExecutorKit
from tests.support.programs.shell_programs import shell


class Client:
    """An engine that says this about itself, and that refuses quotas or not."""

    def __init__(self, driver: str, below: str = "", *, refuses: bool = False) -> None:
        self._info = {"Driver": driver, "DriverStatus": [["Backing Filesystem", below]]}
        self._refuses = refuses
        self.created: list[object] = []

    def info(self):
        return self._info

    def create_container(self, **config):
        self.created.append(config["host_config"].get("StorageOpt"))
        if self._refuses and config["host_config"].get("StorageOpt"):
            words = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
            raise docker.errors.APIError("500", explanation=words)
        return {"Id": "id"}


@pytest.mark.parametrize(
    ("driver", "below", "has"),
    [
        ("overlay2", "extfs", False),
        ("overlay2", "xfs", True),
        ("btrfs", "", True),
        ("zfs", "", True),
        ("vfs", "", False),
    ],
)
def test_the_storage_driver_decides_whether_there_are_quotas(driver, below, has):
    assert _may_have(Client(driver, below).info()) is has


async def test_a_quota_is_a_little_larger_than_the_disk_of_the_job():
    quotas = DiskQuotas(DockerEngine())
    assert await quotas.of(Client("btrfs"), Resources(disk=10**9)) == 10**9 + SLACK
    assert await quotas.of(Client("vfs"), Resources()) == UNRESERVED_SIZE + SLACK  # asked once
    assert await DiskQuotas(DockerEngine()).of(Client("overlay2", "extfs"), Resources(disk=1)) is None


async def test_an_engine_that_has_no_quotas_after_all_is_not_asked_for_them_again():
    client, quotas = Client("overlay2", "xfs", refuses=True), DiskQuotas(DockerEngine())
    assert await quotas.of(client, Resources(disk=1)) == 1 + SLACK
    assert quotas.create(client, {"host_config": {"StorageOpt": {"size": "1"}}}) == "id"
    assert client.created == [{"size": "1"}, None]
    assert await quotas.of(client, Resources(disk=1)) is None


def test_other_errors_of_the_engine_are_not_hidden():
    class Failing(Client):
        def create_container(self, **config):
            raise docker.errors.APIError("500", explanation="No such image")

    with pytest.raises(docker.errors.APIError, match="500"):
        DiskQuotas(DockerEngine()).create(Failing("btrfs"), {"host_config": {"StorageOpt": {"size": "1"}}})


@pytest.mark.docker
async def test_a_job_cannot_write_beyond_the_quota(kit: ExecutorKit, docker_client: docker.DockerClient):
    if not _may_have(docker_client.info()):
        pytest.skip("the storage driver of this engine has no quotas")
    script = "dd if=/dev/zero of=/tmp/x bs=1M count=300; stat -c %s /tmp/x; exit 1"
    request = replace(kit.request(shell(script)), resources=Resources(disk=200_000_000))
    outputs = []
    with suppress(TooMuchOutput):  # where the watch comes first
        outputs.append(await kit.run(request))
    for output in outputs:
        assert int(output.stdout) <= 200_000_000 + SLACK
        assert b"hint: the job may write 200000000 bytes" in output.stderr
