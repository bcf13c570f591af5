"""The images of jobs: which may be pulled, and how long they stay."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.errors import ExecutorError, Fault, SettingsError
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.image_pull import pull
from bacalhau_p2p.executors.docker.pulled_images import PulledImage, PulledImages
from bacalhau_p2p.model.image_names import ImageName, is_registry
from bacalhau_p2p.runtime.logs import get_logger

if TYPE_CHECKING:
    from docker import APIClient

log = get_logger(__name__)

DEFAULT_REGISTRIES = ("docker.io", "ghcr.io", "quay.io")
KEEP_UNUSED = 7 * 86400.0
"""Seconds that a pulled image stays after its last use."""
RECENT = 600.0
"""Seconds after its last use in which no image is removed: an execution may be about to start."""
COLLECT_INTERVAL = 60.0
"""Seconds between two looks for images to remove."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePolicy:
    """What the operator of a node lets it pull and keep."""

    registries: Collection[str] = DEFAULT_REGISTRIES
    """Hosts, with their ports if they have one: `docker.io`, `registry.example.org:5000`."""
    keep: float = KEEP_UNUSED
    """Seconds that a pulled image stays after its last use."""
    min_free: int = 0
    """Bytes of the engine's disk below which the least recently used ones are removed."""

    def __post_init__(self) -> None:
        for registry in self.registries:
            if not is_registry(registry):
                raise SettingsError(f"image_registries: {registry!r} is not HOST or HOST:PORT")


ImageDetails = Mapping[str, Any]
"""What the engine says about an image."""


class Images:
    """The images of one engine, as far as this node has to do with them."""

    def __init__(
        self,
        engine: DockerEngine,
        policy: ImagePolicy,
        record: Path | None,
        *,
        now: Callable[[], float] = time.time,
        free: Callable[[str], int | None] | None = None,
    ) -> None:
        """`record` is where pulled images are remembered. `now` in UNIX seconds. `free` gives the free bytes
        of the disk with a folder, None when it is not on this machine."""
        self._engine = engine
        self._policy = policy
        self._registries = frozenset(registry.lower() for registry in policy.registries)
        self._pulled = PulledImages(record, now)
        self._now = now
        self._free = free or _free_bytes
        self._next_collection = 0.0

    def faults(self, image: str) -> list[Fault]:
        """Why this node does not take an image of this name."""
        try:
            name = ImageName.parse(image)
        except ValueError as error:
            return [Fault("Params.Image", str(error))]
        if name.registry not in self._registries:
            problem = f"is from {name.registry}, which is not among the registries of this node"
            return [Fault("Params.Image", problem, this_node_only=True)]
        return []

    async def ensure(self, image: str, note: Callable[[str], None] = lambda doing: None) -> ImageDetails:
        """Pull the image unless the engine has it; what the engine says about it.

        `note` is told when pulling begins and, with an empty text, when it has ended.
        Raises ExecutorError, permanent when the registry has no such image.
        """
        name = ImageName.parse(image)
        client = await self._engine.client()
        details = await self._engine.call(self._use, client, str(name))
        if details is None:
            note(f"pulling image {image}")
            try:
                await self._engine.long_call(pull, client, name)
            finally:
                note("")
            details = await self._engine.call(self._add, client, str(name))
        if details is None:
            raise ExecutorError(f"image {name}: removed from this node while it was pulled")
        return details

    def _use(self, client: APIClient, name: str) -> ImageDetails | None:
        """Of an image that the engine has, which counts as used now."""
        details = _details(client, name)
        if details is not None:
            self._pulled.use(name)
        return details

    def _add(self, client: APIClient, name: str) -> ImageDetails | None:
        details = _details(client, name)
        if details is not None:
            self._pulled.add(name, str(details["Id"]))
        return details

    async def collect(self) -> None:
        """Remove images that this node has pulled: those that were not used for long, and when the disk is
        short, those that were not used longest. Those in use stay, and those of others.

        Looks once in COLLECT_INTERVAL. Raises ExecutorError.
        """
        if self._now() < self._next_collection:
            return
        self._next_collection = self._now() + COLLECT_INTERVAL
        pulled = await self._engine.call(self._pulled.least_recently_used)
        if not pulled:
            return
        client = await self._engine.client()
        folder = (await self._engine.call(client.info)).get("DockerRootDir", "")
        for image in pulled:
            unused = self._now() - image.last_used
            if unused < RECENT:
                return
            free = self._free(folder)
            if unused > self._policy.keep or (free is not None and free < self._policy.min_free):
                await self._remove(client, image)

    async def _remove(self, client: APIClient, image: PulledImage) -> None:
        removed = await self._engine.call(_remove, client, image)
        if removed is not None:
            await self._engine.call(self._pulled.forget, image.name)
            if removed:
                log.info("image_removed", image=image.name)


def _details(client: APIClient, name: str) -> ImageDetails | None:
    """What the engine says about an image; None when it does not have it."""
    from docker.errors import ImageNotFound

    try:
        return dict(client.inspect_image(name))  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None


def _remove(client: APIClient, image: PulledImage) -> bool | None:
    """Remove an image of a pull; False when it is not that one any more, None when a container uses it."""
    from docker.errors import APIError

    details = _details(client, image.name)
    if details is None or details["Id"] != image.image_id:
        return False
    if _is_used(client, image.image_id):
        return None
    try:
        client.remove_image(image.name, force=False)
    except APIError as error:
        if error.response is not None and error.response.status_code == 409:
            return None
        raise
    return True


def _is_used(client: APIClient, image_id: str) -> bool:
    """Whether any container, of whomever and in whatever state, is of this image."""
    return bool(client.containers(all=True, filters={"ancestor": image_id}, limit=1))


def _free_bytes(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free if folder else None
    except OSError:
        return None


def unusable(faults: list[Fault]) -> ExecutorError:
    """The error for a job with these faults."""
    return ExecutorError(
        "; ".join(map(str, faults)), permanent=not all(fault.this_node_only for fault in faults)
    )
