"""A running node: a libp2p peer with a requester, a compute component, or both.

`assembly.open_node` makes it; here is what it does while it runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path

import trio

import bacalhau_p2p
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import NodeInfoPublished
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.client.jobs import JobHandle, JobLike, spec_of
from bacalhau_p2p.compute.bidding import Offer
from bacalhau_p2p.compute.service import Adapters, ComputeService
from bacalhau_p2p.errors import Fault, SettingsError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.ipfs.dht.service import Dht
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.validation import type_faults
from bacalhau_p2p.node import registry
from bacalhau_p2p.node.known_nodes import MIN_PUBLISH_INTERVAL, PUBLISH_INTERVAL, KnownNode, KnownNodes
from bacalhau_p2p.node.peer_book import PeerBook
from bacalhau_p2p.requester.service import RequesterService
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.interface import Transport
from bacalhau_p2p.verifiers.interface import Verifier

log = get_logger(__name__)

CHECK_ENGINES_EVERY = 30.0
"""Seconds; an engine that was started or stopped meanwhile changes what the node offers."""
FAREWELL = 2.0
"""Seconds for peers to acknowledge what a node that stops has told them."""


def may_be_found(owner: str) -> bool:
    """Whether others are told that what this owner has pinned is here."""
    return owner == pin_owners.USER or pin_owners.is_published(owner)


class Node:
    """A running node. Made by `open_node`; a `Backend` for jobs of its own requester."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        transport: Transport,
        messenger: Messenger,
        content: Content,
        known_nodes: KnownNodes,
        clock: Callable[[], UnixSeconds],
        peer_book: PeerBook,
        rng: random.Random,
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.transport = transport
        self.messenger = messenger
        self.content = content
        self.clock = clock
        self.known_nodes = known_nodes
        self._peer_book = peer_book
        self._rng = rng
        self._dht: Dht | None = None
        self.api_url = ""
        """`http://host:port` once an API serves this node."""
        self._requester: RequesterService | None = None
        self._compute: ComputeService | None = None
        self._adapters = Adapters(executors={}, storage={}, publishers={})
        self._verifiers: Mapping[str, Verifier] = {}
        self.offer = Offer()
        """What this node's adapters can do now."""
        self._info_changed = trio.Event()
        self._node_seen = trio.Event()
        messenger.listen([NodeInfoPublished], self._hear_of_node)
        messenger.watch_connections(self._connection_changed)

    # --- assembly and life --------------------------------------------------------------------

    def add_requester(self, requester: RequesterService, verifiers: Mapping[str, Verifier]) -> None:
        """Give this node its requester, before it is started."""
        self._requester, self._verifiers = requester, verifiers

    def add_dht(self, dht: Dht) -> None:
        """Give this node its part in the DHT, before it is started."""
        self._dht = dht

    async def add_compute(self, compute: ComputeService, adapters: Adapters) -> None:
        """Give this node its compute component, before it is started. Returns once it is known what the
        adapters can do."""
        self._compute, self._adapters = compute, adapters
        await self._look_at_engines()

    async def start(self, nursery: trio.Nursery) -> None:
        """Take up what an earlier life left, and begin. The node runs until the nursery is cancelled."""
        components = [part for part in (self._requester, self._compute) if part is not None]
        for component in components:
            component.resume()
        await nursery.start(self.messenger.run)
        for component in components:
            await nursery.start(component.run)
        if self._compute is not None:
            nursery.start_soon(self._watch_engines)
        nursery.start_soon(self._publish_info)
        nursery.start_soon(self._expire_known_nodes)
        nursery.start_soon(self.content.keep_room)
        nursery.start_soon(self._peer_book.keep_neighbours, self.settings.neighbours, self._rng)
        if self._dht is not None:
            nursery.start_soon(self._dht.run, self._provided)
        log.info("node_started", peer=self.peer_id, addresses=self.addresses)

    # --- who this is --------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerID:
        return self.identity.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs at which peers can dial this node, each ending in `/p2p/<peer id>`."""
        return tuple(self.transport.addresses)

    @property
    def requester(self) -> RequesterService:
        """Raises SettingsError when this node has no requester."""
        if self._requester is None:
            raise SettingsError("this node takes no jobs: its requester is switched off")
        return self._requester

    def info(self) -> NodeInfo:
        """What this node tells others about itself now."""
        compute = None
        if self._compute is not None:
            machine = self._compute.machine
            compute = ComputeInfo(
                engines=tuple(sorted(self.offer.engines)),
                storage_sources=tuple(sorted(self.offer.sources)),
                publishers=tuple(sorted(self.offer.publishers)),
                max_capacity=machine.capacity.limit,
                available_capacity=machine.capacity.available,
                running_executions=machine.active,
            )
        return NodeInfo(
            id=self.peer_id,
            addresses=self.addresses,
            version=bacalhau_p2p.__version__,
            labels=self.settings.labels,
            requester=self._requester is not None,
            compute=compute,
            dht=self.settings.dht == "server",
            gateway=self._gateway_url(),
            sent=self.clock(),
        )

    def _gateway_url(self) -> str:
        """Where others reach our gateway; empty when they do not."""
        if not self.settings.gateway:
            return ""
        if self.settings.gateway_url or self.settings.api_on_loopback or not self.api_url:
            return self.settings.gateway_url
        if self.settings.api_host not in ("0.0.0.0", "::"):  # noqa: S104 - not bound to here
            return self.api_url
        _, _, port = self.api_url.rpartition(":")
        hosts = [address.split("/")[1:3] for address in self.addresses]
        return next((f"http://{host}:{port}" for kind, host in hosts if kind in ("ip4", "dns4", "dns")), "")

    async def _provided(self) -> list[CID]:
        """The roots that others may find here."""
        now = self.clock()
        pins = await self.content.pins()
        return [pin.cid for pin in pins if may_be_found(pin.owner) and (pin.expires or inf) > now]

    def nodes(self) -> list[KnownNode]:
        """Every node this one knows of, itself included."""
        return self.known_nodes.nodes()

    async def wait_for_compute_nodes(self, count: int) -> None:
        """Returns once this node knows at least so many nodes that run jobs, itself included."""
        while sum(known.info.compute is not None for known in self.nodes()) < count:
            await self._node_seen.wait()

    def _connection_changed(self, peer: PeerID, stands: bool) -> None:
        self.tell_changed()
        if self._dht is not None and not stands:
            self._dht.disconnected(peer)

    def tell_changed(self) -> None:
        """Something that others should know has changed: publish the node's info soon."""
        self._info_changed.set()

    # --- jobs ---------------------------------------------------------------------------------

    async def submit(self, job: JobLike, *, idempotency_token: str | None = None) -> JobHandle:
        """Take a job; it survives any crash from the moment this returns.

        Raises InvalidJob, and SettingsError when this node has no requester.
        """
        job_id = await self.requester.submit(spec_of(job), token=idempotency_token)
        return JobHandle(NodeBackend(self), job_id)

    def job(self, job_id: str) -> JobHandle:
        """A handle on a job by its id, or by an unambiguous beginning of it.

        Raises UnknownJob, AmbiguousID.
        """
        return JobHandle(NodeBackend(self), self.requester.resolve(job_id))

    async def drain(self, patience: float) -> None:
        """Take no more work, let what runs go on for `patience` seconds, then give the rest back.

        Requesters are told and replace it at once; leave the node's block soon afterwards.
        """
        if self._compute is not None:
            await self._compute.drain(patience)
        await self.messenger.wait_acknowledged(FAREWELL)

    # --- content ------------------------------------------------------------------------------

    async def add(self, path: Path) -> CID:
        """Add a file or folder to this node's store; peers can fetch it from now on.

        Hidden files are left out, as by `ipfs add -r`. Raises ContentError, OSError.
        """
        added = await self.content.add(path, pin_owner=pin_owners.USER, hidden=False)
        return added.cid

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        """Write the content of a CID to `target`, which must not exist, fetching it if need be.

        `hints` are multiaddrs of peers that may have it. Raises ContentError.
        """
        parsed = CID.parse(cid)
        with self.content.holding(parsed):
            await self.content.fetch(parsed, hints=self.learn(hints), timeout=self.settings.content_timeout)
            await self.content.export(parsed, target)

    def learn(self, addresses: Sequence[str]) -> list[PeerID]:
        """Remember where peers can be dialled, from multiaddrs that end in `/p2p/<peer id>`."""
        known: dict[PeerID, list[str]] = {}
        for address in addresses:
            _, found, peer = address.rpartition("/p2p/")
            if found and peer != self.peer_id:
                known.setdefault(PeerID(peer), []).append(address)
        for peer_id, dialled in known.items():
            self._peer_book.named(peer_id, dialled)
        return list(known)

    # --- inside -------------------------------------------------------------------------------

    def check(self, spec: JobSpec) -> list[Fault]:
        """Types that nobody in the network is known to have are a fault at submission."""
        offers = [known.info.compute for known in self.nodes() if known.info.compute is not None]
        return type_faults(
            spec,
            engines={*registry.engine_names(), *(name for offer in offers for name in offer.engines)},
            sources={
                *registry.source_names(),
                *(name for offer in offers for name in offer.storage_sources),
            },
            publishers={
                *registry.publisher_names(),
                *(name for offer in offers for name in offer.publishers),
            },
            verifiers=self._verifiers.keys(),
        )

    def _hear_of_node(self, arrival: Arrival) -> None:
        assert isinstance(arrival.message, NodeInfoPublished)
        info = arrival.message.info
        if info.id != arrival.author:
            self.messenger.counters["forged_info"] += 1
            return
        if self.known_nodes.update(info, self.clock()):
            if info.id != self.peer_id:
                self.transport.learn_addresses(info.id, info.addresses)
            if self._requester is not None:
                self._requester.node_seen(info)
            self._node_seen.set()
            self._node_seen = trio.Event()

    async def _publish_info(self) -> None:
        while True:
            self._info_changed = trio.Event()
            self.messenger.broadcast(NodeInfoPublished(info=self.info()))
            await trio.sleep(MIN_PUBLISH_INTERVAL)
            with trio.move_on_after(PUBLISH_INTERVAL - MIN_PUBLISH_INTERVAL):
                await self._info_changed.wait()

    async def _expire_known_nodes(self) -> None:
        while True:
            await trio.sleep(PUBLISH_INTERVAL)
            for peer in self.known_nodes.expire(self.clock()):
                log.info("node_stale", peer=peer)
                if self._requester is not None:
                    self._requester.node_went_stale(peer)

    async def _watch_engines(self) -> None:
        while True:
            await trio.sleep(CHECK_ENGINES_EVERY)
            await self._look_at_engines()

    async def _look_at_engines(self) -> None:
        """Find out what works here now; nobody waits longer than its slowest answer."""
        reasons: dict[str, str | None] = {}

        async def ask(name: str, unavailable: Callable[[], object]) -> None:
            with trio.move_on_after(10.0) as patience:
                reasons[name] = await unavailable()  # type: ignore[misc]
            if patience.cancelled_caught:
                reasons[name] = "did not answer"

        async with trio.open_nursery() as nursery:
            for name, executor in self._adapters.executors.items():
                nursery.start_soon(ask, f"engine {name}", executor.unavailable)
            for name, publisher in self._adapters.publishers.items():
                nursery.start_soon(ask, f"publisher {name}", publisher.unavailable)
        offer = Offer(
            engines={
                name: executor.faults
                for name, executor in self._adapters.executors.items()
                if reasons[f"engine {name}"] is None
            },
            sources={name: provider.faults for name, provider in self._adapters.storage.items()},
            publishers={
                name: publisher.faults
                for name, publisher in self._adapters.publishers.items()
                if reasons[f"publisher {name}"] is None
            },
            outliving=frozenset(
                name for name, executor in self._adapters.executors.items() if executor.outlives_node
            ),
        )
        if (offer.engines.keys(), offer.publishers.keys()) != (
            self.offer.engines.keys(),
            self.offer.publishers.keys(),
        ):
            log.info("offer", **{name: reason or "available" for name, reason in sorted(reasons.items())})
            self.offer = offer
            self.tell_changed()


class NodeBackend:
    """A node's own requester as what job handles stand on."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def submit(self, spec: JobSpec, *, idempotency_token: str | None = None) -> JobID:
        return await self._node.requester.submit(spec, token=idempotency_token)

    async def job(self, job_id: JobID) -> Job:
        return self._node.requester.job(job_id)

    async def wait(self, job_id: JobID, timeout: float | None) -> Job:
        return await self._node.requester.wait(job_id, inf if timeout is None else timeout)

    async def executions(self, job_id: JobID) -> Sequence[Execution]:
        return self._node.requester.executions(job_id)

    async def results(self, job_id: JobID) -> Sequence[PublishedResult]:
        return self._node.requester.results(job_id)

    async def cancel(self, job_id: JobID, reason: str) -> None:
        await self._node.requester.cancel(job_id, reason)

    async def export(self, cid: str, target: Path, *, hints: Sequence[str] = ()) -> None:
        await self._node.export(cid, target, hints=hints)
