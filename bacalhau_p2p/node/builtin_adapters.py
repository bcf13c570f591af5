"""The adapters of this package, by type.

Each is imported when it is built, so that a node without Docker does not load the code for Docker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.node.adapter_context import AdapterContext
from bacalhau_p2p.publishers.interface import Publisher
from bacalhau_p2p.storage.interface import StorageProvider
from bacalhau_p2p.verifiers.interface import Verifier

if TYPE_CHECKING:
    from bacalhau_p2p.publishers.remote.service import RemoteService

Factory = Callable[[AdapterContext], Any]
"""Builds an adapter. For a storage provider that cannot work on this computer it returns None."""


def _docker(context: AdapterContext) -> Executor:
    from bacalhau_p2p.executors.docker.executor import DockerExecutor
    from bacalhau_p2p.executors.docker.images import ImagePolicy
    from bacalhau_p2p.outbound.addresses import AddressGuard
    from bacalhau_p2p.outbound.dialing import Dialer

    settings = context.settings
    policy = ImagePolicy(
        registries=settings.image_registries,
        keep=settings.keep_images,
        # The node takes no jobs below `min_free_disk`, so that images must go before.
        min_free=2 * parse_bytes(settings.min_free_disk),
    )
    dialer = Dialer(AddressGuard(settings.allow_private_networks))
    return DockerExecutor(
        context.peer_id, user=settings.job_user, images=policy, folder=context.folder, dialer=dialer
    )


def _wasm(context: AdapterContext) -> Executor:
    from bacalhau_p2p.executors.wasm.executor import WasmExecutor

    shared = context.settings.compiled_modules
    return WasmExecutor(cache=Path(shared) if shared else context.folder / "wasm")


def _noop(context: AdapterContext) -> Executor:
    from bacalhau_p2p.executors.noop import NoopExecutor

    return NoopExecutor()


def _ipfs_storage(context: AdapterContext) -> StorageProvider:
    from bacalhau_p2p.storage.ipfs.provider import IpfsStorage

    settings = context.settings
    peers = IpfsStorage(context.content, timeout=settings.content_timeout, cache=context.input_cache)
    if not settings.kubo_api and not settings.ipfs_gateways:
        return peers
    from bacalhau_p2p.outbound.service import Service
    from bacalhau_p2p.storage.ipfs.car_sources import CarSource, GatewaySource, KuboSource
    from bacalhau_p2p.storage.ipfs.web_provider import IpfsWebStorage

    sources: list[CarSource] = []
    if settings.kubo_api:
        sources.append(KuboSource(Service(settings.kubo_api, settings.kubo_token.get_secret_value())))
    sources += [GatewaySource(Service(url)) for url in settings.ipfs_gateways]
    return IpfsWebStorage(peers, context.content, sources)


def _inline_storage(context: AdapterContext) -> StorageProvider:
    from bacalhau_p2p.storage.inline import InlineStorage

    return InlineStorage()


def _local_storage(source: str) -> Factory:
    def build(context: AdapterContext) -> StorageProvider:
        from bacalhau_p2p.storage.local.provider import LocalStorage

        return LocalStorage(context.settings.allow_local_paths, source=source)

    return build


def _url_storage(source: str) -> Factory:
    def build(context: AdapterContext) -> StorageProvider:
        from bacalhau_p2p.outbound.addresses import AddressGuard
        from bacalhau_p2p.storage.url.provider import UrlStorage

        guard = AddressGuard(context.settings.allow_private_networks)
        return UrlStorage(guard, context.fetcher, source=source)

    return build


def _git_storage(context: AdapterContext) -> StorageProvider | None:
    from bacalhau_p2p.outbound.addresses import AddressGuard
    from bacalhau_p2p.storage.git.provider import GitStorage

    guard = AddressGuard(context.settings.allow_private_networks)
    return GitStorage(guard, context.fetcher) if GitStorage.installed() else None


def _s3_storage(context: AdapterContext) -> StorageProvider | None:
    from bacalhau_p2p.storage.s3.provider import S3Storage

    return S3Storage(context.s3, context.fetcher) if context.s3.installed() else None


def _ipfs_publisher(context: AdapterContext) -> Publisher:
    settings = context.settings
    if settings.kubo_api:
        from bacalhau_p2p.outbound.service import Service
        from bacalhau_p2p.publishers.remote.kubo import Kubo

        service = Service(settings.kubo_api, settings.kubo_token.get_secret_value())
        return _remote_publisher(context, "ipfs", Kubo(service, context.addresses))
    from bacalhau_p2p.publishers.ipfs import IpfsPublisher

    return IpfsPublisher(context.content, addresses=context.addresses)


def _local_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.publishers.local import LocalPublisher

    return LocalPublisher(context.content, base_url=context.api_url)


def _remote_publisher(context: AdapterContext, kind: str, service: RemoteService | None) -> Publisher:
    from bacalhau_p2p.publishers.remote.publisher import RemotePublisher

    return RemotePublisher(context.content, service, kind, addresses=context.addresses)


def _pinning_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.outbound.service import Service
    from bacalhau_p2p.publishers.remote.pinning import PinningService

    settings, pinning = context.settings, None
    if settings.pinning_endpoint:
        service = Service(settings.pinning_endpoint, settings.pinning_token.get_secret_value())
        pinning = PinningService(service, context.addresses, context.connect)
    return _remote_publisher(context, "pinning", pinning)


def _lighthouse_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.outbound.service import Service
    from bacalhau_p2p.publishers.remote.lighthouse import Lighthouse

    settings, lighthouse = context.settings, None
    if token := settings.lighthouse_token.get_secret_value():
        upload, api = Service(settings.lighthouse_endpoint, token), Service(settings.lighthouse_api, token)
        lighthouse = Lighthouse(upload, api)
    return _remote_publisher(context, "lighthouse", lighthouse)


def _estuary_publisher(context: AdapterContext) -> Publisher:
    from bacalhau_p2p.outbound.service import Service
    from bacalhau_p2p.publishers.remote.estuary import Estuary

    settings, estuary = context.settings, None
    if settings.estuary_endpoint:
        estuary = Estuary(Service(settings.estuary_endpoint, settings.estuary_token.get_secret_value()))
    return _remote_publisher(context, "estuary", estuary)


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


EXECUTORS: dict[str, Factory] = {"docker": _docker, "wasm": _wasm, "noop": _noop}
STORAGE: dict[str, Factory] = {
    "ipfs": _ipfs_storage,
    "inline": _inline_storage,
    "localdirectory": _local_storage("localdirectory"),
    "local": _local_storage("local"),
    "url": _url_storage("url"),
    "urldownload": _url_storage("urldownload"),
    "s3": _s3_storage,
    "git": _git_storage,
}
PUBLISHERS: dict[str, Factory] = {
    "ipfs": _ipfs_publisher,
    "local": _local_publisher,
    "noop": _noop_publisher,
    "s3": _s3_publisher,
    "pinning": _pinning_publisher,
    "lighthouse": _lighthouse_publisher,
    "estuary": _estuary_publisher,
}
VERIFIERS: dict[str, Factory] = {"noop": _noop_verifier, "deterministic": _deterministic_verifier}
