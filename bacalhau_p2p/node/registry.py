"""Adapters by name: ours, and those that installed packages offer as entry points.

An entry point of the group `bacalhau_p2p.executors`, `.storage`, `.publishers` or `.verifiers` names a
callable that takes an `AdapterContext` and returns the adapter. Ours are made the same way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.publishers.interface import Publisher
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.storage.interface import StorageProvider
from bacalhau_p2p.verifiers.interface import Verifier

if TYPE_CHECKING:
    from bacalhau_p2p.outbound.s3 import S3Access
    from bacalhau_p2p.publishers.remote import Handover
    from bacalhau_p2p.storage.fetching import Fetcher


@dataclass(frozen=True, kw_only=True)
class AdapterContext:
    """What an adapter may need of its node. The callables are for later: a node's addresses change."""

    settings: Settings
    peer_id: PeerID
    folder: Path
    """A folder of the node for what adapters keep; each takes a folder of its own name in it."""
    content: Content
    addresses: Callable[[], Sequence[str]]
    connect: Callable[[str], Awaitable[PeerID]]
    """Connects to the peer at a multiaddr that ends in `/p2p/<peer id>`. Raises PeerUnreachable."""
    api_url: Callable[[], str]
    """`http://host:port` of this node's API, empty while it has none."""

    @cached_property
    def fetcher(self) -> Fetcher:
        """What storage providers fetch with over the web: one cache and a few threads for all of them."""
        from bacalhau_p2p.storage.cache import InputCache
        from bacalhau_p2p.storage.fetching import Fetcher, FetchLimits

        cache = InputCache(self.folder / "inputs", budget=parse_bytes(self.settings.input_cache))
        limits = FetchLimits(bytes=parse_bytes(self.settings.input_limit))
        return Fetcher(cache, limits, trio.CapacityLimiter(4))

    @cached_property
    def s3(self) -> S3Access:
        from bacalhau_p2p.outbound.s3 import S3Access

        return S3Access(endpoints=self.settings.s3_endpoints, buckets=self.settings.s3_buckets)


Factory = Callable[[AdapterContext], Any]
"""Makes an adapter, or, of a storage provider, None where it cannot work."""


def executors(context: AdapterContext) -> dict[str, Executor]:
    """Every executor that the settings do not exclude, by engine type."""
    made: dict[str, Executor] = {
        name: factory(context)
        for name, factory in {**_EXECUTORS, **_plugins("executors")}.items()
        if not context.settings.engines or name in context.settings.engines
    }
    if missing := set(context.settings.engines) - made.keys():
        raise SettingsError(f"no such engine: {', '.join(sorted(missing))}")
    return made


def storage(context: AdapterContext) -> dict[str, StorageProvider]:
    """Every storage provider that can work here, by source type."""
    made = {name: factory(context) for name, factory in {**_STORAGE, **_plugins("storage")}.items()}
    return {name: provider for name, provider in made.items() if provider is not None}


def publishers(context: AdapterContext) -> dict[str, Publisher]:
    """Every publisher, by type."""
    from bacalhau_p2p.publishers.chain import ChainPublisher

    made = {name: factory(context) for name, factory in {**_PUBLISHERS, **_plugins("publishers")}.items()}
    return {
        **made,
        "fanout": ChainPublisher("fanout", lambda: made),
        "fallback": ChainPublisher("fallback", lambda: made),
    }


def verifiers(context: AdapterContext) -> dict[str, Verifier]:
    """Every verifier, by type."""
    return {name: factory(context) for name, factory in {**_VERIFIERS, **_plugins("verifiers")}.items()}


@cache  # reading the metadata of every installed package takes milliseconds
def _plugins(room: str) -> dict[str, Factory]:
    return {point.name.lower(): point.load() for point in entry_points(group=f"bacalhau_p2p.{room}")}


# Imported when made: Docker and WebAssembly cost a node that offers neither nothing.


def _docker(context: AdapterContext) -> Executor:
    from bacalhau_p2p.executors.docker.executor import DockerExecutor

    return DockerExecutor(context.peer_id)


def _wasm(context: AdapterContext) -> Executor:
    from bacalhau_p2p.executors.wasm.executor import WasmExecutor

    return WasmExecutor(cache=context.folder / "wasm")


def _noop(context: AdapterContext) -> Executor:
    from bacalhau_p2p.executors.noop import NoopExecutor

    return NoopExecutor()


def _ipfs_storage(context: AdapterContext) -> StorageProvider:
    from bacalhau_p2p.storage.ipfs import IpfsStorage

    settings = context.settings
    peers = IpfsStorage(context.content, timeout=settings.content_timeout)
    if not settings.kubo_api and not settings.ipfs_gateways:
        return peers
    from bacalhau_p2p.outbound.service import Service
    from bacalhau_p2p.storage.ipfs_web import CarSource, GatewaySource, IpfsWebStorage, KuboSource

    sources: list[CarSource] = []
    if settings.kubo_api:
        sources.append(KuboSource(Service(settings.kubo_api, settings.kubo_token.get_secret_value())))
    sources += [GatewaySource(Service(url)) for url in settings.ipfs_gateways]
    return IpfsWebStorage(peers, context.content, sources)


def _inline_storage(context: AdapterContext) -> StorageProvider:
    from bacalhau_p2p.storage.inline import InlineStorage

    return InlineStorage()


def _local_storage(source: str) -> Factory:
    def make(context: AdapterContext) -> StorageProvider:
        from bacalhau_p2p.storage.local.provider import LocalStorage

        return LocalStorage(context.settings.allow_local_paths, source=source)

    return make


def _url_storage(source: str) -> Factory:
    def make(context: AdapterContext) -> StorageProvider:
        from bacalhau_p2p.outbound.addresses import AddressGuard
        from bacalhau_p2p.storage.url import UrlStorage

        guard = AddressGuard(context.settings.allow_private_networks)
        return UrlStorage(guard, context.fetcher, source=source)

    return make


def _git_storage(context: AdapterContext) -> StorageProvider | None:
    from bacalhau_p2p.outbound.addresses import AddressGuard
    from bacalhau_p2p.storage.git.provider import GitStorage

    guard = AddressGuard(context.settings.allow_private_networks)
    return GitStorage(guard, context.fetcher) if GitStorage.installed() else None


def _s3_storage(context: AdapterContext) -> StorageProvider | None:
    from bacalhau_p2p.storage.s3 import S3Storage

    return S3Storage(context.s3, context.fetcher) if context.s3.installed() else None


def _ipfs_publisher(context: AdapterContext) -> Publisher:
    settings = context.settings
    if settings.kubo_api:
        from bacalhau_p2p.outbound.service import Service
        from bacalhau_p2p.publishers.kubo import Kubo

        service = Service(settings.kubo_api, settings.kubo_token.get_secret_value())
        return _remote_publisher(context, "ipfs", Kubo(service, context.addresses))
    from bacalhau_p2p.publishers.ipfs import IpfsPublisher

    return IpfsPublisher(context.content, addresses=context.addresses)


def _local_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.publishers.local import LocalPublisher

    return LocalPublisher(context.content, base_url=context.api_url)


def _remote_publisher(context: AdapterContext, kind: str, handover: Handover | None) -> Publisher:
    from bacalhau_p2p.publishers.remote import RemotePublisher

    return RemotePublisher(context.content, handover, kind, addresses=context.addresses)


def _pinning_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.outbound.service import Service
    from bacalhau_p2p.publishers.pinning import PinningService

    settings, handover = context.settings, None
    if settings.pinning_endpoint:
        service = Service(settings.pinning_endpoint, settings.pinning_token.get_secret_value())
        handover = PinningService(service, context.addresses, context.connect)
    return _remote_publisher(context, "pinning", handover)


def _lighthouse_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.outbound.service import Service
    from bacalhau_p2p.publishers.lighthouse import Lighthouse

    settings, handover = context.settings, None
    if token := settings.lighthouse_token.get_secret_value():
        upload, api = Service(settings.lighthouse_endpoint, token), Service(settings.lighthouse_api, token)
        handover = Lighthouse(upload, api)
    return _remote_publisher(context, "lighthouse", handover)


def _estuary_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.outbound.service import Service
    from bacalhau_p2p.publishers.estuary import Estuary

    settings, handover = context.settings, None
    if settings.estuary_endpoint:
        handover = Estuary(Service(settings.estuary_endpoint, settings.estuary_token.get_secret_value()))
    return _remote_publisher(context, "estuary", handover)


def _s3_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.publishers.s3 import S3Publisher

    folder = context.folder / "publishing"
    return S3Publisher(context.content, context.s3, folder=folder, addresses=context.addresses)


def _noop_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.publishers.noop import NoopPublisher

    return NoopPublisher()


def _noop_verifier(context: AdapterContext) -> Verifier:
    from bacalhau_p2p.verifiers.noop import NoopVerifier

    return NoopVerifier()


def _deterministic_verifier(context: AdapterContext) -> Verifier:
    from bacalhau_p2p.verifiers.deterministic import DeterministicVerifier

    return DeterministicVerifier()


_EXECUTORS: dict[str, Factory] = {"docker": _docker, "wasm": _wasm, "noop": _noop}
_STORAGE: dict[str, Factory] = {
    "ipfs": _ipfs_storage,
    "inline": _inline_storage,
    "localdirectory": _local_storage("localdirectory"),
    "local": _local_storage("local"),
    "url": _url_storage("url"),
    "urldownload": _url_storage("urldownload"),
    "s3": _s3_storage,
    "git": _git_storage,
}
_PUBLISHERS: dict[str, Factory] = {
    "ipfs": _ipfs_publisher,
    "local": _local_publisher,
    "noop": _noop_publisher,
    "s3": _s3_publisher,
    "pinning": _pinning_publisher,
    "lighthouse": _lighthouse_publisher,
    "estuary": _estuary_publisher,
}
_VERIFIERS: dict[str, Factory] = {"noop": _noop_verifier, "deterministic": _deterministic_verifier}


def engine_names() -> set[str]:
    """Engine types that this installation knows, whether they work here or not."""
    return {*_EXECUTORS, *_plugins("executors")}


def source_names() -> set[str]:
    """Storage source types that this installation knows."""
    return {*_STORAGE, *_plugins("storage")}


def publisher_names() -> set[str]:
    """Publisher types that this installation knows."""
    return {*_PUBLISHERS, *_plugins("publishers"), "fanout", "fallback"}
