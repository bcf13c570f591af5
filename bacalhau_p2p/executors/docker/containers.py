"""The containers of one node: which are in use, and which must be removed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.container_config import EXECUTION_LABEL, NODE_LABEL, container_name
from bacalhau_p2p.executors.docker.container_monitor import REMOVAL_TIMEOUT, remove_container
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.runtime.logs import get_logger

if TYPE_CHECKING:
    from docker import APIClient

log = get_logger(__name__)


class Containers:
    """Knows the containers of a node by their labels, and removes those that nothing uses."""

    def __init__(self, engine: DockerEngine, node_id: str) -> None:
        self._engine = engine
        self._label = f"{NODE_LABEL}={node_id}"
        self._in_use: set[ExecutionID] = set()
        self._leftovers: set[str] = set()
        """Names of containers that could not be removed when their run ended."""
        self._removing: dict[str, trio.Event] = {}
        """Containers that have ended and are being removed, by name."""
        self._may_exist = False
        self._closed = False

    async def client(self) -> APIClient:
        """A client to create containers with; removes leftovers first, which may have the same names.

        Raises ExecutorError, after `aclose` too.
        """
        self.check_open()
        client = await self._engine.client()
        self._may_exist = True
        used = {container_name(execution_id) for execution_id in self._in_use}
        for name in self._leftovers - used:
            await self._try_to_remove(name)
        return client

    def begun(self, name: str) -> None:
        """As `Removals.begun`."""
        self._removing[name] = trio.Event()

    def ended(self, name: str, removed: bool) -> None:
        """As `Removals.ended`."""
        self._removing.pop(name).set()
        if not removed:
            self._leftovers.add(name)

    async def gone(self, name: str) -> None:
        """Returns when a removal of this container that goes on is over, or takes too long."""
        if (removing := self._removing.get(name)) is not None:
            with trio.move_on_after(REMOVAL_TIMEOUT):
                await removing.wait()

    def check_open(self) -> None:
        """Raises ExecutorError after `aclose`."""
        if self._closed:
            raise ExecutorError("this node is stopping")

    @contextmanager
    def using(self, execution_id: ExecutionID) -> Iterator[None]:
        """Within the block, `sweep` does not remove the execution's container."""
        self._in_use.add(execution_id)
        try:
            yield
        finally:
            self._in_use.discard(execution_id)

    async def remove(self, name: str) -> None:
        """Kill and remove a container if it exists. Waits for a bounded time, even when cancelled.

        One that cannot be removed now is removed later: before the next container is created, or by `sweep`.
        """
        with trio.CancelScope(shield=True):
            await self.gone(name)
            await self._try_to_remove(name)

    async def _try_to_remove(self, name: str) -> None:
        reason = f"no answer from the engine within {REMOVAL_TIMEOUT:g} s"
        self._leftovers.add(name)
        with trio.move_on_after(REMOVAL_TIMEOUT):
            try:
                await self._engine.abandonable_call(remove_container, await self._engine.client(), name)
                self._leftovers.discard(name)
                return
            except ExecutorError as error:
                reason = str(error)
        log.warning("container_left", container=name, reason=reason)

    async def sweep(self, alive: Collection[ExecutionID]) -> None:
        """As `Executor.sweep`."""
        client = await self._engine.client()
        self._may_exist = True
        await self._remove_all(client, spared=alive)

    async def aclose(self) -> None:
        """Remove all containers, those in use too, and let no more be created."""
        self._closed = True
        self._in_use.clear()
        for name in list(self._removing):
            await self.gone(name)
        try:
            if self._may_exist:
                await self._remove_all(await self._engine.client(), spared=())
        except ExecutorError as error:
            log.warning("containers_left", reason=str(error))

    async def _remove_all(self, client: APIClient, *, spared: Collection[ExecutionID]) -> None:
        found = await self._engine.call(client.containers, all=True, filters={"label": self._label})
        for container in found:
            execution = container["Labels"].get(EXECUTION_LABEL)
            if any(name.lstrip("/") in self._removing for name in container["Names"] or ()):
                continue
            if execution not in spared and execution not in self._in_use:
                await self._engine.call(remove_container, client, container["Id"])
