"""How a node is put together: what stands behind each interface, and with which limits.

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
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from bacalhau_p2p.bprotocol.codec import MESSAGE_ID_BYTES, MessageID
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.compute.bidding import BidStrategy, JobSelectionPolicy, no_disk_for_inputs
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.inspection import Examiner
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.machine import Environment as ComputeEnvironment
from bacalhau_p2p.compute.probes import ExecProbe, HttpProbe, Probe
from bacalhau_p2p.compute.service import Adapters, ComputeService
from bacalhau_p2p.compute.store import ComputeStore
from bacalhau_p2p.errors import BacalhauError, SettingsError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.identity.identity import Identity, seal
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.ipfs.dht.peerstore import Peerstore
from bacalhau_p2p.ipfs.dht.service import Dht
from bacalhau_p2p.ipfs.exchange.bitswap import PROTOCOL as BITSWAP_PROTOCOL
from bacalhau_p2p.ipfs.exchange.bitswap import Bitswap
from bacalhau_p2p.ipfs.exchange.gateways import Gateways
from bacalhau_p2p.ipfs.exchange.server import PROTOCOL as CAR_PROTOCOL
from bacalhau_p2p.ipfs.exchange.server import Exchange
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.base import ExecutionID, JobID, UnixSeconds
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.model.resources import Resources, ResourceSpec, parse_resources
from bacalhau_p2p.node import registry
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.node.neighbours import Neighbours
from bacalhau_p2p.node.node import Node, may_be_found
from bacalhau_p2p.node.peer_book import PeerBook
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.requester.machine import Environment as RequesterEnvironment
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.service import RequesterService
from bacalhau_p2p.requester.store import RequesterStore
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.settings import Limits, Settings
from bacalhau_p2p.transports.interface import Transport

ASKED_AT_ONCE = 64
"""Peers that are asked directly for a CID; others are found through the DHT."""
SHARE = 0.8
"""The part of the machine's memory and free disk that is given to jobs unless limits say otherwise."""


@asynccontextmanager
async def open_node(
    settings: Settings | None = None,
    *,
    executors: Sequence[Executor] = (),
    transport: Transport | None = None,
    identity: Identity | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Node]:
    """Run a node for the length of the block.

    On entry the node listens, is subscribed, knows what it can offer and has resumed what its store
    holds. On exit no container, wasm process, socket or temporary folder of it is left. A fault in any
    of its tasks arrives as an ExceptionGroup.

    `executors` are added to those found by name, and win over them. `transport` is for networks in one
    process; it must be that of `identity`. `rng` makes ids and random choices repeatable in tests.
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
    rng = rng or random.SystemRandom()
    async with AsyncExitStack() as stack:
        if transport is None:
            transport = await stack.enter_async_context(_open_transport(settings, identity))
        node = _assemble(settings, identity, transport, stack, clock, rng)
        context = registry.AdapterContext(
            settings=settings,
            peer_id=identity.peer_id,
            folder=folder,
            content=node.content,
            addresses=lambda: node.addresses,
            connect=transport.connect,
            api_url=lambda: node.api_url,
        )
        if settings.requester:
            store = RequesterStore(folder / "requester.db")
            stack.callback(store.close)
            _build_requester(node, context, store, rng)
        if settings.compute:
            await _build_compute(node, context, executors, stack, rng)
        async with background() as nursery:
            await node.start(nursery)
            yield node


def _assemble(
    settings: Settings,
    identity: Identity,
    transport: Transport,
    stack: AsyncExitStack,
    clock: Callable[[], UnixSeconds],
    rng: random.Random,
) -> Node:
    """What every node has, whatever its components: it speaks, has content, and knows others."""
    messenger = Messenger(
        transport,
        network=settings.network,
        clock=clock,
        rng=rng.random,
        new_message_id=lambda: MessageID(rng.randbytes(MESSAGE_ID_BYTES)),
    )
    blocks = stack.enter_context(BlockStore(settings.data_dir / "blocks", quota=_content_quota(settings)))
    bitswap = Bitswap(blocks, transport.open_stream)
    exchange = Exchange(blocks, transport.open_stream, fallback=bitswap)
    known_nodes = KnownNodes()
    neighbours = Neighbours(settings.data_dir / "neighbours.json")
    peer_book = PeerBook(transport, known_nodes, clock, neighbours)
    dht = _dht(settings, transport, peer_book, clock)
    gateways = Gateways(lambda: known_nodes.gateways(clock()), AddressGuard(settings.allow_private_networks))
    content = Content(
        blocks,
        exchange,
        lambda: peer_book.candidates(None if dht is None else ASKED_AT_ONCE),
        ask_for_block=bitswap.block,
        finder=dht,
        web=gateways.of,
        pinned=lambda cid, owner: dht.provide(cid) if dht and may_be_found(owner) else None,
        power_safe=settings.power_safe,
    )
    node = Node(settings, identity, transport, messenger, content, known_nodes, clock, peer_book, rng)
    if dht is not None:
        node.add_dht(dht)
    transport.handle_streams(CAR_PROTOCOL, exchange.serve)
    transport.handle_streams(BITSWAP_PROTOCOL, bitswap.serve)
    return node


def _dht(
    settings: Settings,
    transport: Transport,
    peer_book: PeerBook,
    clock: Callable[[], UnixSeconds],
) -> Dht | None:
    """This node's part in the DHT that its settings name."""
    if settings.dht == "off":
        return None
    protocol = f"{settings.dht_prefix or f'/bacalhau/{settings.network}'}/kad/1.0.0"
    dht = Dht(
        transport.peer_id,
        protocol,
        transport.open_stream,
        Peerstore(
            bootstrap=peer_book.dht_nodes,
            add_addresses=peer_book.rumoured,
            own_addresses=lambda: transport.addresses,
            connected=lambda: transport.peers,
        ),
        clock=clock,
        lookup_each_key=bool(settings.dht_prefix),
    )
    if settings.dht == "server":
        transport.handle_streams(protocol, dht.serve)
    return dht


def _open_transport(settings: Settings, identity: Identity) -> AbstractAsyncContextManager[Transport]:
    from bacalhau_p2p.transports.libp2p.transport import (
        open_libp2p,  # a second of imports that tests in memory spare
    )

    return open_libp2p(
        identity,
        listen=(f"/ip4/{settings.swarm_host}/tcp/{settings.swarm_port}",),
        announce=settings.announce,
        bootstrap=settings.peers,
    )


def _build_requester(
    node: Node, context: registry.AdapterContext, store: RequesterStore, rng: random.Random
) -> None:
    verifiers = registry.verifiers(context)
    disk = _disk_watch(context.folder, parse_bytes(node.settings.min_free_disk))
    machine = RequesterMachine(
        RequesterEnvironment(
            peer_id=node.peer_id,
            addresses=lambda: node.addresses,
            open_proposal=lambda sealed: decode_proposal(node.identity.open(sealed)),
            rng=rng.random,
            lost_after_surviving=node.settings.lost_after_surviving,
        )
    )
    requester = RequesterService(
        machine,
        store,
        node.messenger,
        verifiers=verifiers,
        check=node.check,
        clock=node.clock,
        power_safe=node.settings.power_safe,
        new_job_id=lambda: JobID(_uuid(rng)),
        resource_shortage=lambda: disk(0),
    )
    node.add_requester(requester, verifiers)


async def _build_compute(
    node: Node,
    context: registry.AdapterContext,
    executors: Sequence[Executor],
    stack: AsyncExitStack,
    rng: random.Random,
) -> None:
    settings, probes = node.settings, _probes(node.settings)
    policy = JobSelectionPolicy(
        accept_networked=settings.accept_networked,
        reject_stateless=settings.reject_stateless,
        local_data_only=settings.data_locality == "local",
        probed=bool(probes),
    )
    adapters = Adapters(
        executors={
            **registry.executors(context),
            **{executor.engine: executor for executor in executors},
        },
        storage=registry.storage(context),
        publishers=registry.publishers(context),
    )
    for executor in adapters.executors.values():
        stack.push_async_callback(executor.aclose)
    store = ComputeStore(context.folder / "compute.db")
    stack.callback(store.close)
    compute = ComputeService(
        _compute_machine(node, context.folder, policy, rng),
        store,
        node.messenger,
        node.content,
        adapters,
        Examiner(
            adapters.storage,
            node_id=node.peer_id,
            local_data_only=policy.local_data_only,
            probes=probes,
        ),
        peer_id=node.peer_id,
        folder=context.folder / "executions",
        seal=seal,
        learn_addresses=node.transport.learn_addresses,
        changed=node.tell_changed,
        clock=node.clock,
        power_safe=node.settings.power_safe,
    )
    await node.add_compute(compute, adapters)


def _compute_machine(
    node: Node, folder: Path, policy: JobSelectionPolicy, rng: random.Random
) -> ComputeMachine:
    return ComputeMachine(
        ComputeEnvironment(
            peer_id=node.peer_id,
            new_execution_id=lambda: ExecutionID(f"e-{_uuid(rng)}"),
            rng=rng.random,
        ),
        BidStrategy(
            offer=lambda: node.offer,
            labels=node.settings.labels,
            policy=policy,
            resource_shortage=_disk_watch(folder, parse_bytes(node.settings.min_free_disk)),
        ),
        Capacity(_limits(node.settings.limits, folder)),
    )


def _probes(settings: Settings) -> list[Probe]:
    """What the owner of this node has decide about each job."""
    probes: list[Probe] = []
    if settings.probe_exec:
        probes.append(ExecProbe(settings.probe_exec, timeout=settings.probe_timeout))
    if settings.probe_http:
        probes.append(HttpProbe(settings.probe_http, timeout=settings.probe_timeout))
    return probes


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


def _disk_watch(folder: Path, least: int) -> Callable[[int], str | None]:
    """What a bid strategy asks before each bid; the disk itself is asked, which takes microseconds."""

    def resource_shortage(inputs: int) -> str | None:
        free = shutil.disk_usage(folder).free - least
        if free < 0:
            return "has almost no free disk"
        return no_disk_for_inputs(inputs=inputs, job=0, free=free) if inputs > free else None

    return resource_shortage


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(bytes=rng.randbytes(16), version=4))


def _wall_clock() -> Callable[[], UnixSeconds]:
    """UNIX seconds that never jump, and follow trio's clock where a test moves that."""
    offset = time.time() - trio.current_time()
    return lambda: trio.current_time() + offset
