"""A running node, as programs in the same process use it. `assembly.open_node` opens one."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.client.on_backend import OnBackend
from bacalhau_p2p.compute.service import ComputeService
from bacalhau_p2p.errors import AmbiguousID, ContentInUse, SettingsError, UnknownNode
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.ipfs.store.pin_owners import ANNOUNCED
from bacalhau_p2p.model.base import JobID, Model, PeerID, UnixSeconds
from bacalhau_p2p.model.logs import LogPiece, LogQuery
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node.backend import LocalBackend
from bacalhau_p2p.node.compute_assembly import Compute
from bacalhau_p2p.node.known_nodes import KnownNode
from bacalhau_p2p.node.log_access import LogAccess
from bacalhau_p2p.node.networking import Networking
from bacalhau_p2p.requester.log_reader import LogReader
from bacalhau_p2p.requester.service import RequesterService
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.text import printable
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.interface import Transport
from bacalhau_p2p.version import __version__

log = get_logger(__name__)

FINAL_DELIVERY_TIMEOUT = 2.0
"""Seconds for peers to acknowledge the last messages of a node that stops."""


class Node(OnBackend):
    """A libp2p peer with a requester, a compute component, or both.

    `AnyNode` describes what it does with jobs and content.
    """

    def __init__(
        self,
        settings: Settings,
        networking: Networking,
        content: Content,
        *,
        requester: RequesterService | None,
        compute: Compute | None,
    ) -> None:
        self.settings = settings
        self.content = content
        self._networking = networking
        self._requester = requester
        self._compute = compute.service if compute is not None else None
        self._walls: Callable[[], dict[str, list[str]]] = lambda: compute.walls if compute is not None else {}
        self._compute_info = compute.info if compute is not None else lambda: None
        self._offers = compute.offers if compute is not None else None
        self._log_access = LogAccess(
            networking.transport,
            content,
            compute.logs if compute is not None else None,
            content_timeout=settings.content_timeout,
        )
        self._backend = LocalBackend(self)
        self._slow_pass_watchers: list[Callable[[float], None]] = []
        if requester is not None:
            networking.info_exchange.observe(requester)

    async def start(self, nursery: trio.Nursery) -> None:
        """Resume the work of earlier runs and start. The node runs until the nursery is cancelled."""
        networking = self._networking
        self._log_access.start(nursery)
        services = [service for service in (self._requester, self._compute) if service is not None]
        for service in services:
            service.resume()
            networking.keeper.protect(service.partners)
        await nursery.start(networking.messenger.run)
        for service in services:
            await nursery.start(service.run)
        if self._offers is not None:
            nursery.start_soon(self._offers.run)
        nursery.start_soon(networking.info_exchange.publish, self.info)
        nursery.start_soon(networking.info_exchange.greet, self.info)
        nursery.start_soon(networking.info_exchange.expire_known_nodes)
        nursery.start_soon(self.content.collect_periodically)
        nursery.start_soon(self.content.remove_expired_pins)
        nursery.start_soon(networking.keeper.run)
        if networking.mdns is not None:
            nursery.start_soon(networking.mdns.run)
        if networking.dht is not None:
            nursery.start_soon(networking.dht.run, self._announced_roots)
        log.info("node_started", peer=self.peer_id, addresses=self.addresses)

    # --- the node as a peer -------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        return self._networking.identity

    @property
    def peer_id(self) -> PeerID:
        return self._networking.identity.peer_id

    @property
    def transport(self) -> Transport:
        return self._networking.transport

    @property
    def messenger(self) -> Messenger:
        return self._networking.messenger

    @property
    def clock(self) -> Callable[[], UnixSeconds]:
        return self._networking.clock

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs at which peers can dial this node, each ending in `/p2p/<peer id>`."""
        return self._networking.addresses.multiaddrs

    @property
    def api_url(self) -> str:
        """`http://host:port` while an API serves this node, else empty."""
        return self._networking.addresses.api_url

    @api_url.setter
    def api_url(self, url: str) -> None:
        self._networking.addresses.api_url = url

    def info(self) -> NodeInfo:
        """What this node announces about itself now."""
        return NodeInfo(
            id=self.peer_id,
            addresses=self.addresses,
            version=__version__,
            labels=self.settings.labels,
            requester=self._requester is not None,
            compute=self._compute_info(),
            dht=self.settings.dht == "server",
            gateway=self._networking.addresses.gateway_url,
            interval=self._networking.info_exchange.interval,
            sent=self.clock(),
        )

    @property
    def walls(self) -> dict[str, list[str]]:
        """By engine, what keeps its runs from the rest of this machine."""
        return self._walls()

    @property
    def ignored_events(self) -> dict[str, Counter[str]]:
        """By component, the events that changed nothing in its state machine, by kind and state."""
        return {name: service.ignored for name, service in self._components().items()}

    @property
    def dropped_events(self) -> dict[str, Counter[tuple[str, str]]]:
        """By component, the events that raised and were undone, by kind and author ("" for this node)."""
        return {name: service.dropped for name, service in self._components().items()}

    @property
    def counters(self) -> dict[str, int]:
        """How often faults were survived, by kind."""
        return {**self.transport.counters, **self.messenger.counters}

    @property
    def unfinished(self) -> dict[str, Counter[str]]:
        """By component, the number of jobs or executions that have not ended, by state."""
        return {name: service.unfinished() for name, service in self._components().items()}

    def health(self) -> list[str]:
        """Why this node cannot do now what it is meant to do; nothing if it can."""
        problems = []
        if self._requester is not None and (shortage := self._requester.resource_shortage) is not None:
            limit = f"less than min_free_disk, which is {self.settings.min_free_disk}"
            problems.append(f"requester: it {shortage}: {limit}")
        if self._offers is not None:
            problems += self._offers.problems(self.settings.engines)
        return problems

    def watch_records(self, watcher: Callable[[Model], None]) -> None:
        """Call `watcher` with every version of every job and execution, from now on, before it is stored."""
        for service in self._components().values():
            service.watch_records(watcher)

    def watch_slow_passes(self, watcher: Callable[[float], None]) -> None:
        """Call `watcher` with the seconds of each slow pass of the event loop, from now on."""
        self._slow_pass_watchers.append(watcher)

    def report_slow_pass(self, seconds: float) -> None:
        """For the owner of the event loop."""
        for watcher in self._slow_pass_watchers:
            watcher(seconds)

    def _components(self) -> dict[str, RequesterService | ComputeService]:
        components: dict[str, RequesterService | ComputeService] = {}
        if self._requester is not None:
            components["Requester"] = self._requester
        if self._compute is not None:
            components["Compute"] = self._compute
        return components

    def known_nodes(self) -> list[KnownNode]:
        """Every node that this one knows, itself included, ordered by peer id. Its own info is as of now, and
        the load of others as of their latest info or heartbeat."""
        known = self._networking.known_nodes.nodes()
        return [replace(node, info=self.info()) if node.info.id == self.peer_id else node for node in known]

    def resolve_node(self, wanted: str) -> KnownNode:
        """The node with this id or prefix of an id; if there is none, with this end: ids begin alike, and are
        shown by their ends. Raises UnknownNode, AmbiguousID."""
        nodes = self.known_nodes()
        found = [known for known in nodes if known.info.id.startswith(wanted)]
        found = found or [known for known in nodes if known.info.id.endswith(wanted)]
        exact = [known for known in found if known.info.id == wanted]
        if not found:
            raise UnknownNode(f"no known node has the id {printable(wanted)}")
        if len(found) > 1 and not exact:
            raise AmbiguousID(f"several nodes match {printable(wanted)}; give more characters")
        return (exact or found)[0]

    async def wait_for_compute_nodes(self, count: int) -> None:
        """Returns once this node knows at least `count` nodes that run jobs, itself included."""
        await self._networking.info_exchange.wait_until(
            lambda: sum(known.info.compute is not None for known in self.known_nodes()) >= count
        )

    def learn(self, addresses: Sequence[str]) -> list[PeerID]:
        """Remember where peers can be dialled, from multiaddrs that end in `/p2p/<peer id>`."""
        by_peer: dict[PeerID, list[str]] = {}
        for address in addresses:
            _, found, peer = address.rpartition("/p2p/")
            if found and peer != self.peer_id:
                by_peer.setdefault(PeerID(peer), []).append(address)
        for peer_id, own in by_peer.items():
            self._networking.peer_book.learn_from_user(peer_id, own)
        return list(by_peer)

    # --- jobs ---------------------------------------------------------------------------------

    @property
    def requester(self) -> RequesterService:
        """Raises SettingsError if this node has no requester."""
        if self._requester is None:
            raise SettingsError("this node takes no jobs: its requester is switched off")
        return self._requester

    def logs(self, job_id: JobID, query: LogQuery) -> AsyncGenerator[LogPiece | None, None]:
        """What a job writes to stdout and stderr; None when nothing came for some seconds.

        Close the iterator when you stop early. Raises UnknownJob, LogsUnavailable.
        """
        access = self._log_access
        return LogReader(self.requester, access.open_stream, access.read_file).read(job_id, query)

    async def drain(self, timeout: float) -> None:
        """Take no more jobs, let running executions go on for `timeout` seconds, then hand back the rest.

        The requesters replace these at once. Leave the block of the node soon afterwards.
        """
        if self._compute is not None:
            await self._compute.drain(timeout)
        self._networking.info_exchange.leave(self.info())
        await self.messenger.wait_acknowledged(FINAL_DELIVERY_TIMEOUT)

    # --- content ------------------------------------------------------------------------------

    async def unpin(self, cid: CID, owner: str) -> bool:
        """Remove a pin; whether there was one. Its blocks stay until the node needs the space.

        Raises ContentInUse for the pin of a running execution.
        """
        if pin_owners.is_execution(owner):
            raise ContentInUse(f"{cid} is in use by a running execution; stop its job instead")
        return await self.content.unpin(cid, owner)

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        """Write the content of `CID[/path]` to `target`, which must not exist. Fetches it from peers if
        necessary.

        `hints` are multiaddrs of peers that may have it. Raises ContentError.
        """
        await self._backend.export(cid, target, hints=hints)

    async def close_maps(self) -> None:
        """End the maps that still run."""
        await self._maps.aclose()

    async def _announced_roots(self) -> list[CID]:
        return await self.content.pinned_roots(ANNOUNCED)
