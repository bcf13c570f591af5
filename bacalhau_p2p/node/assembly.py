"""Opens a node: builds its parts and runs them.

async with open_node(Settings(peers=("/ip4/.../p2p/12D3Koo...",))) as node:
    job = await node.submit({"Tasks": [{"Engine": {"Type": "noop"}}]})
    result = await job.wait_result()
    await result.fetch(Path("results"))
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.identity.key_file import load_or_create_identity
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.model.access_list import AccessList
from bacalhau_p2p.node import registry
from bacalhau_p2p.node.addresses import listen_addresses
from bacalhau_p2p.node.compute_assembly import open_compute
from bacalhau_p2p.node.content_assembly import open_content
from bacalhau_p2p.node.data_dir import make_private
from bacalhau_p2p.node.networking import Networking, build_networking
from bacalhau_p2p.node.node import Node
from bacalhau_p2p.node.registry import AdapterContext
from bacalhau_p2p.node.requester_assembly import open_requester
from bacalhau_p2p.runtime.clocks import wall_clock
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.interface import Transport


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

    On entry the node listens, knows what it can offer, and has resumed its jobs and executions. On exit no
    container, wasm process, socket or temporary folder of it is left. An error in one of its tasks ends the
    block with an ExceptionGroup.

    `executors` are added to those of the registry, and replace those of the same type. `transport` is for
    networks in one process; it must belong to `identity`. `rng` makes ids and random choices repeatable.
    Raises SettingsError, TransportError.
    """
    settings = settings or Settings()
    make_private(settings.data_dir)
    identity = identity or load_or_create_identity(settings.data_dir / "identity")
    rng = rng or random.SystemRandom()
    async with AsyncExitStack() as stack:
        if transport is None:
            transport = await stack.enter_async_context(_open_transport(settings, identity))
        networking = build_networking(settings, identity, transport, wall_clock(), rng)
        content = stack.enter_context(open_content(settings, networking))
        context = _adapter_context(settings, networking, content)
        storage = registry.storage(context)
        requester = compute = None
        if settings.requester:
            engines = [executor.engine for executor in executors]
            requester = stack.enter_context(
                open_requester(settings, networking, context, storage, rng, engines=engines)
            )
        if settings.compute:
            opened = open_compute(settings, networking, content, context, storage, executors, rng)
            compute = await stack.enter_async_context(opened)
        node = Node(settings, networking, content, requester=requester, compute=compute)
        async with background() as nursery:
            await node.start(nursery)
            try:
                yield node
            finally:
                await node.close_maps()


def _adapter_context(settings: Settings, networking: Networking, content: Content) -> AdapterContext:
    addresses = networking.addresses
    return AdapterContext(
        settings=settings,
        peer_id=networking.identity.peer_id,
        folder=settings.data_dir,
        content=content,
        addresses=lambda: addresses.multiaddrs,
        connect=networking.transport.connect,
        api_url=lambda: addresses.api_url,
    )


def _open_transport(settings: Settings, identity: Identity) -> AbstractAsyncContextManager[Transport]:
    # Imported here because it takes a second, which nodes on other transports save.
    from bacalhau_p2p.transports.libp2p.transport import open_libp2p

    return open_libp2p(
        identity,
        listen=listen_addresses(settings.swarm_host, settings.swarm_port),
        announce=settings.announce,
        bootstrap=settings.peers,
        access=AccessList(allowed=frozenset(settings.allowed_peers), denied=frozenset(settings.denied_peers)),
    )
