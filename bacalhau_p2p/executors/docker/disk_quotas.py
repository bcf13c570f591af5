"""Limits what a container writes to its own file system, where the engine's storage driver can.

A quota holds at once, where watching notices half a second later what has filled the disk. It is a little
larger than the job's `Disk`, so that the watch usually ends the job first, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.output_limits import OutputLimits
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.runtime.logs import get_logger

if TYPE_CHECKING:
    from docker import APIClient

log = get_logger(__name__)

SLACK = 64 * 1024**2
"""Bytes by which a quota is larger than the job's `Disk`: what the engine itself writes counts too."""
_DRIVERS = frozenset({"btrfs", "zfs"})
"""Storage drivers with quotas, beside overlay2 on XFS."""
_REFUSED = "storage-opt"
"""What the engine names when it has no quotas after all: overlay2 on XFS without the option `pquota`."""


class DiskQuotas:
    """Knows whether one engine has quotas."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._has: bool | None = None

    async def of(self, client: APIClient, resources: Resources) -> int | None:
        """The quota for a job, in bytes; None where the engine has none. Raises ExecutorError."""
        if self._has is None:
            self._has = _may_have(await self._engine.call(client.info))
        return OutputLimits.of_disk(resources.disk).size + SLACK if self._has else None

    def create(self, client: APIClient, config: Mapping[str, Any]) -> str:
        """Create a container, without its quota if the engine says that it has none; its id. Blocks."""
        from docker.errors import APIError

        try:
            return str(client.create_container(**config)["Id"])
        except APIError as error:
            host = dict(config["host_config"])
            if not host.pop("StorageOpt", None) or _REFUSED not in str(error.explanation):
                raise
            log.info("disk_quotas_unavailable", reason=str(error.explanation)[:200])
            self._has = False
            return str(client.create_container(**{**config, "host_config": host})["Id"])


def _may_have(info: Mapping[str, Any]) -> bool:
    """Whether the engine's storage driver has quotas, as far as it says."""
    below = dict(each[:2] for each in info.get("DriverStatus") or () if len(each) >= 2)
    driver = info.get("Driver")
    return driver in _DRIVERS or (driver == "overlay2" and below.get("Backing Filesystem") == "xfs")
