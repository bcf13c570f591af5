"""A node: a libp2p peer with a requester, a compute component, or both.

async with open_node(Settings(peers=("/ip4/.../p2p/12D3Koo...",))) as node:
    job = await node.submit({"Tasks": [{"Engine": {"Type": "noop"}}]})
    result = await job.wait_result()
    await result.fetch(Path("results"))
"""

from __future__ import annotations

import os
import random
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from math import inf
from pathlib import Path

import trio

import bacalhau_p2p
from bacalhau_p2p import registry
from bacalhau_p2p.bprotocol.codec import MESSAGE_ID_BYTES, MessageID
from bacalhau_p2p.bprotocol.messages import NodeInfoPublished
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.compute.bidding import BidStrategy, JobSelectionPolicy, Offer
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.machine import Host as ComputeHost
from bacalhau_p2p.compute.service import Adapters, ComputeService
from bacalhau_p2p.compute.store import ComputeStore
from bacalhau_p2p.content.bitswap import PROTOCOL as BITSWAP_PROTOCOL
from bacalhau_p2p.content.bitswap import Bitswap
from bacalhau_p2p.content.blockstore import BlockStore
from bacalhau_p2p.content.cid import CID
from bacalhau_p2p.content.exchange import PROTOCOL as CAR_PROTOCOL
from bacalhau_p2p.content.exchange import Exchange
from bacalhau_p2p.content.service import Content
from bacalhau_p2p.directory import PUBLISH_APART, PUBLISH_EVERY, Directory, KnownNode
from bacalhau_p2p.errors import BacalhauError, Fault, SettingsError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.handles import JobHandle, JobLike, spec_of
from bacalhau_p2p.identity import Identity, seal
from bacalhau_p2p.lifetimes import background
from bacalhau_p2p.logs import get_logger
from bacalhau_p2p.messenger import Arrival, Messenger
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Job, PublishedResult
from bacalhau_p2p.model.job import JobSpec, ResourceSpec
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.parsing import check_types
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.model.resources import Resources, parse_resources
from bacalhau_p2p.requester.machine import Host as RequesterHost
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.service import RequesterService
from bacalhau_p2p.requester.store import RequesterStore
from bacalhau_p2p.settings import Limits, Settings
from bacalhau_p2p.transports.interface import Transport
from bacalhau_p2p.verifiers.interface import Verifier

log = get_logger(__name__)

CHECK_ENGINES_EVERY = 30.0
"""Seconds; an engine that was started or stopped meanwhile changes what the node offers."""
FAREWELL = 2.0
"""Seconds for peers to acknowledge what a node that stops has told them."""
SHARE = 0.8
"""The part of the machine's memory and free disk that is given to jobs unless limits say otherwise."""


class Node:
    """A running node. Made by `open_node`; a `Backend` for jobs of its own requester."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        transport: Transport,
        messenger: Messenger,
        content: Content,
        directory: Directory,
        clock: Callable[[], UnixSeconds],
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.transport = transport
        self.messenger = messenger
        self.content = content
        self.clock = clock
        self.directory = directory
        self.api_url = ""
        """`http://host:port` once an API serves this node."""
        self._requester: RequesterService | None = None
        self._compute: ComputeService | None = None
        self._adapters = Adapters(executors={}, storage={}, publishers={})
        self._verifiers: Mapping[str, Verifier] = {}
        self._offer = Offer()
        self._info_changed = trio.Event()
        self._node_seen = trio.Event()
        messenger.listen([NodeInfoPublished], self._hear_of_node)
        messenger.watch_connections(lambda peer, stands: self.tell_changed())

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
                engines=tuple(sorted(self._offer.engines)),
                storage_sources=tuple(sorted(self._offer.sources)),
                publishers=tuple(sorted(self._offer.publishers)),
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
            sent=self.clock(),
        )

    def nodes(self) -> list[KnownNode]:
        """Every node this one knows of, itself included."""
        return self.directory.nodes()

    async def wait_for_compute_nodes(self, count: int) -> None:
        """Returns once this node knows at least so many nodes that run jobs, itself included."""
        while sum(known.info.compute is not None for known in self.nodes()) < count:
            await self._node_seen.wait()

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
        await self.messenger.quiet(FAREWELL)

    # --- content ------------------------------------------------------------------------------

    async def add(self, path: Path) -> CID:
        """Add a file or folder to this node's store; peers can fetch it from now on.

        Hidden files are left out, as by `ipfs add -r`. Raises ContentError, OSError.
        """
        added = await self.content.add(path, pin_owner="user", hidden=False)
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
            self.transport.learn_addresses(peer_id, dialled)
        return list(known)

    # --- inside -------------------------------------------------------------------------------

    def _check(self, spec: JobSpec) -> list[Fault]:
        """Types that nobody in the network is known to have are a fault at submission."""
        offers = [known.info.compute for known in self.nodes() if known.info.compute is not None]
        return check_types(
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
        if self.directory.saw(info, self.clock()):
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
            await trio.sleep(PUBLISH_APART)
            with trio.move_on_after(PUBLISH_EVERY - PUBLISH_APART):
                await self._info_changed.wait()

    async def _watch_directory(self) -> None:
        while True:
            await trio.sleep(PUBLISH_EVERY)
            for peer in self.directory.gone_stale(self.clock()):
                log.info("node_stale", peer=peer)
                if self._requester is not None:
                    self._requester.node_forgotten(peer)

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
        )
        if (offer.engines.keys(), offer.publishers.keys()) != (
            self._offer.engines.keys(),
            self._offer.publishers.keys(),
        ):
            log.info("offer", **{name: reason or "available" for name, reason in sorted(reasons.items())})
            self._offer = offer
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


@asynccontextmanager
async def open_node(
    settings: Settings | None = None,
    *,
    executors: Sequence[Executor] = (),
    transport: Transport | None = None,
    identity: Identity | None = None,
    chance: random.Random | None = None,
) -> AsyncIterator[Node]:
    """Run a node for the length of the block.

    On entry the node listens, is subscribed, knows what it can offer and has resumed what its store
    holds. On exit no container, wasm process, socket or temporary folder of it is left. A fault in any
    of its tasks arrives as an ExceptionGroup.

    `executors` are added to those found by name, and win over them. `transport` is for networks in one
    process; it must be that of `identity`. `chance` gives ids and dice where a test wants to repeat them.
    Raises SettingsError, TransportError.
    """
    settings = settings or Settings()
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"data directory {folder}: {error.strerror}") from error
    identity = identity or Identity.load_or_create(folder / "identity")
    clock = _wall_clock()
    chance = chance or random.SystemRandom()
    async with AsyncExitStack() as stack:
        if transport is None:
            transport = await stack.enter_async_context(_open_transport(settings, identity))
        messenger = Messenger(
            transport,
            network=settings.network,
            clock=clock,
            dice=chance.random,
            new_message_id=lambda: MessageID(chance.randbytes(MESSAGE_ID_BYTES)),
        )
        blocks = stack.enter_context(BlockStore(folder / "blocks", quota=_content_quota(settings)))
        bitswap = Bitswap(blocks, transport.open_stream)
        exchange = Exchange(blocks, transport.open_stream, fallback=bitswap)
        directory = Directory()
        content = Content(blocks, exchange, lambda: _candidates(transport, directory, clock()))
        node = Node(settings, identity, transport, messenger, content, directory, clock)
        transport.handle_streams(CAR_PROTOCOL, exchange.serve)
        transport.handle_streams(BITSWAP_PROTOCOL, bitswap.serve)
        context = registry.AdapterContext(
            settings=settings,
            peer_id=identity.peer_id,
            folder=folder,
            content=content,
            addresses=lambda: node.addresses,
            api_url=lambda: node.api_url,
        )
        if settings.requester:
            store = RequesterStore(folder / "requester.db")
            stack.callback(store.close)
            _furnish_requester(node, context, store, chance)
        if settings.compute:
            await _furnish_compute(node, context, executors, stack, chance)
        for component in (node._requester, node._compute):
            if component is not None:
                component.resume()
        async with background() as nursery:
            await nursery.start(messenger.run)
            if node._requester is not None:
                await nursery.start(node._requester.run)
            if node._compute is not None:
                await nursery.start(node._compute.run)
                nursery.start_soon(node._watch_engines)
            nursery.start_soon(node._publish_info)
            nursery.start_soon(node._watch_directory)
            nursery.start_soon(content.keep_room)
            log.info("node_started", peer=node.peer_id, addresses=node.addresses)
            yield node


def _candidates(transport: Transport, directory: Directory, now: UnixSeconds) -> list[PeerID]:
    """Peers that may have content: those connected first, then those heard of lately."""
    fresh = [known.info.id for known in directory.nodes() if known.fresh(now)]
    return [peer for peer in dict.fromkeys([*transport.peers, *fresh]) if peer != transport.peer_id]


def _open_transport(settings: Settings, identity: Identity) -> AbstractAsyncContextManager[Transport]:
    from bacalhau_p2p.transports.libp2p import open_libp2p  # a second of imports that tests in memory spare

    return open_libp2p(
        identity,
        listen=(f"/ip4/{settings.swarm_host}/tcp/{settings.swarm_port}",),
        announce=settings.announce,
        bootstrap=settings.peers,
    )


def _furnish_requester(
    node: Node, context: registry.AdapterContext, store: RequesterStore, chance: random.Random
) -> None:
    node._verifiers = registry.verifiers(context)
    machine = RequesterMachine(
        RequesterHost(
            peer_id=node.peer_id,
            addresses=lambda: node.addresses,
            open_proposal=lambda sealed: decode_proposal(node.identity.open(sealed)),
            dice=chance.random,
        )
    )
    node._requester = RequesterService(
        machine,
        store,
        node.messenger,
        verifiers=node._verifiers,
        check=node._check,
        clock=node.clock,
        new_job_id=lambda: JobID(_uuid(chance)),
    )


async def _furnish_compute(
    node: Node,
    context: registry.AdapterContext,
    executors: Sequence[Executor],
    stack: AsyncExitStack,
    chance: random.Random,
) -> None:
    adapters = node._adapters = Adapters(
        executors={
            **registry.executors(context),
            **{executor.engine: executor for executor in executors},
        },
        storage=registry.storage(context),
        publishers=registry.publishers(context),
    )
    for executor in adapters.executors.values():
        stack.push_async_callback(executor.aclose)
    machine = ComputeMachine(
        ComputeHost(
            peer_id=node.peer_id,
            new_execution_id=lambda: ExecutionID(f"e-{_uuid(chance)}"),
            dice=chance.random,
        ),
        BidStrategy(
            offer=lambda: node._offer,
            labels=node.settings.labels,
            policy=JobSelectionPolicy(accept_networked=node.settings.accept_networked),
            short_of=_disk_watch(context.folder, parse_bytes(node.settings.min_free_disk)),
        ),
        Capacity(_limits(node.settings.limits, context.folder)),
    )
    store = ComputeStore(context.folder / "compute.db")
    stack.callback(store.close)
    node._compute = ComputeService(
        machine,
        store,
        node.messenger,
        node.content,
        adapters,
        peer_id=node.peer_id,
        folder=context.folder / "executions",
        seal=seal,
        learn_addresses=node.transport.learn_addresses,
        changed=node.tell_changed,
        clock=node.clock,
    )
    await node._look_at_engines()


def _limits(limits: Limits, folder: Path) -> Resources:
    """What this node gives to jobs in all. Raises SettingsError."""
    try:
        given = parse_resources(ResourceSpec(**limits.model_dump()))
    except (BacalhauError, ValueError) as error:
        raise SettingsError(f"limits: {error}") from error
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Resources(
        cpu=given.cpu or float(os.cpu_count() or 1),
        memory=given.memory or int(memory * SHARE),
        disk=given.disk or int(shutil.disk_usage(folder).free * SHARE),
        gpu=given.gpu,
    )


def _content_quota(settings: Settings) -> int:
    """Bytes that the block store may use. Raises SettingsError."""
    if not settings.content_quota:
        return int(shutil.disk_usage(settings.data_dir).total * SHARE)
    try:
        return parse_bytes(settings.content_quota)
    except ValueError as error:
        raise SettingsError(f"content_quota: {error}") from None


def _disk_watch(folder: Path, least: int) -> Callable[[], str | None]:
    """What a bid strategy asks before each bid; the disk itself is asked, which takes microseconds."""

    def short_of() -> str | None:
        return "has almost no free disk" if shutil.disk_usage(folder).free < least else None

    return short_of


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(bytes=chance.randbytes(16), version=4))


def _wall_clock() -> Callable[[], UnixSeconds]:
    """UNIX seconds that never jump, and follow trio's clock where a test moves that."""
    offset = time.time() - trio.current_time()
    return lambda: trio.current_time() + offset
