"""Builds the compute component of a node."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from math import inf

import trio

from bacalhau_p2p.bprotocol import log_streams
from bacalhau_p2p.components.adapter_calls import CLOSE_TIMEOUT, call_adapter
from bacalhau_p2p.components.store import Retention
from bacalhau_p2p.compute.adapters import Adapters
from bacalhau_p2p.compute.assessment import Assessor, JobSelectionPolicy, Offer
from bacalhau_p2p.compute.capacity import LEAST_CHARGE, Capacity
from bacalhau_p2p.compute.failed_results import FailedResults
from bacalhau_p2p.compute.inspection import Inspector
from bacalhau_p2p.compute.logs.kept import KeptLogs
from bacalhau_p2p.compute.logs.server import LogServer
from bacalhau_p2p.compute.machine import ComputeMachine, Environment
from bacalhau_p2p.compute.probes import ExecProbe, HttpProbe, Probe
from bacalhau_p2p.compute.service import ComputeService
from bacalhau_p2p.compute.shares import ShareRules
from bacalhau_p2p.compute.step_runner import StepRunner
from bacalhau_p2p.compute.steps import Steps
from bacalhau_p2p.compute.store import FORGET_ENDED, ComputeStore
from bacalhau_p2p.errors import ExecutionError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.identity.sealing import seal
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.model.access_list import AccessList
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.job import NETWORKS
from bacalhau_p2p.model.node import ComputeInfo
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.model.resources import parse_resources
from bacalhau_p2p.node import registry
from bacalhau_p2p.node.gpus import find_gpus
from bacalhau_p2p.node.host_limits import disk_shortage, job_capacity
from bacalhau_p2p.node.ids import random_uuid
from bacalhau_p2p.node.networking import Networking
from bacalhau_p2p.node.offer_monitor import OfferMonitor
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.storage.interface import StorageProvider

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A compute component: its service, and what its adapters offer."""

    service: ComputeService
    offers: OfferMonitor
    logs: LogServer
    accepted_networks: frozenset[str]
    """Those that the operator lets jobs have."""

    @property
    def walls(self) -> dict[str, list[str]]:
        """By engine, what keeps its runs from the rest of this machine."""
        executors = self.offers.adapters.executors
        walls = {name: getattr(executor, "walls", ()) for name, executor in executors.items()}
        return {name: list(known) for name, known in walls.items() if known}

    def info(self) -> ComputeInfo:
        """What the node announces about it now."""
        machine, offer = self.service.machine, self.offers.offer
        return ComputeInfo(
            engines=tuple(sorted(offer.engines)),
            storage_sources=tuple(sorted(offer.sources)),
            publishers=tuple(sorted(offer.publishers)),
            networks=tuple(sorted(filter(offer.gives, self.accepted_networks))),
            max_capacity=machine.capacity.limit,
            available_capacity=machine.capacity.available,
            running_executions=machine.active,
        )


@asynccontextmanager
async def open_compute(
    settings: Settings,
    networking: Networking,
    content: Content,
    context: registry.AdapterContext,
    storage: Mapping[str, StorageProvider],
    executors: Sequence[Executor],
    rng: random.Random,
) -> AsyncIterator[Compute]:
    """A compute component that is not running yet, and knows what its adapters can do.

    On exit its store and executors are closed.
    """
    async with AsyncExitStack() as stack:
        adapters = Adapters(
            executors={**registry.executors(context), **{added.engine: added for added in executors}},
            storage=storage,
            publishers=registry.publishers(context),
        )
        for executor in adapters.executors.values():
            stack.push_async_callback(_close, executor)
        store = ComputeStore(
            settings.data_dir / "compute.db",
            power_safe=settings.power_safe,
            keep_ended=Retention(FORGET_ENDED, settings.max_jobs or inf),
        )
        stack.callback(store.close)
        offers = OfferMonitor(adapters, networking.info_exchange.publish_soon)
        gpus = await trio.to_thread.run_sync(find_gpus)
        service = _service(settings, networking, content, adapters, store, offers, gpus, rng)
        logs = LogServer(service.log_source)
        networking.transport.handle_streams(log_streams.PROTOCOL, logs.serve)
        await offers.check()
        networks = frozenset(_ACCEPTED_NETWORKS[settings.accept_networked])
        _warn_of_missing(networks, offers.offer)
        yield Compute(service=service, offers=offers, logs=logs, accepted_networks=networks)


def _warn_of_missing(networks: Collection[str], offer: Offer) -> None:
    """Say once which networks the operator accepts and no engine can give to jobs."""
    for network in sorted(networks):
        if not offer.gives(network):
            reasons = {name: offer.no_networks.get(name, {}).get(network) for name in offer.engines}
            log.warning("network_not_offered", network=network, reasons=reasons)


async def _close(executor: Executor) -> None:
    try:
        await call_adapter(f"{executor.engine} engine", executor.aclose, timeout=CLOSE_TIMEOUT)
    except ExecutionError as error:
        log.warning("executor_not_closed", engine=executor.engine, reason=str(error))


def _service(
    settings: Settings,
    networking: Networking,
    content: Content,
    adapters: Adapters,
    store: ComputeStore,
    offers: OfferMonitor,
    gpus: Sequence[str],
    rng: random.Random,
) -> ComputeService:
    peer_id = networking.identity.peer_id
    shortage = disk_shortage(settings.data_dir, parse_bytes(settings.min_free_disk))
    machine = _machine(settings, gpus, rng)
    steps = Steps(
        adapters,
        content,
        peer_id=peer_id,
        seal=seal,
        clock=networking.clock,
        disk_limit=machine.capacity.limit.disk,
        job_disk=parse_resources(settings.job_limits).disk,
    )

    def learn_addresses(peer: PeerID, addresses: tuple[str, ...]) -> None:
        if peer != peer_id:
            networking.transport.learn_addresses(peer, addresses)

    return ComputeService(
        machine,
        store,
        networking.messenger,
        StepRunner(
            steps,
            content,
            settings.data_dir / "executions",
            KeptLogs(settings.data_dir / "logs", networking.clock),
            FailedResults(content, networking.clock, disk=machine.capacity.limit.disk),
            offers.engine_problem,
        ),
        _assessor(settings, networking, offers, shortage),
        Inspector(
            adapters.storage,
            node_id=peer_id,
            local_data_only=settings.data_locality == "local",
            probes=_probes(settings),
            resource_shortage=shortage,
        ),
        learn_addresses=learn_addresses,
        clock=networking.clock,
    )


def _assessor(
    settings: Settings,
    networking: Networking,
    offers: OfferMonitor,
    shortage: Callable[[int], str | None],
) -> Assessor:
    peer_id = networking.identity.peer_id
    return Assessor(
        node_id=peer_id,
        offer=lambda: offers.offer,
        labels=settings.labels,
        policy=_selection_policy(settings, peer_id),
        resource_shortage=lambda: shortage(0),
        nodes_known=lambda: networking.known_nodes.count,
    )


def _machine(settings: Settings, gpus: Sequence[str], rng: random.Random) -> ComputeMachine:
    limit = job_capacity(settings.limits, settings.data_dir, len(gpus))
    capacity = Capacity(limit, least=LEAST_CHARGE, gpus=gpus)
    rules = ShareRules(share=settings.max_requester_share, jobs=settings.max_requester_jobs)
    return ComputeMachine(
        Environment(
            execution_ids=_execution_ids(rng),
            rng=rng,
            capacity=capacity,
            share_rules=rules,
            requester_gone_after=settings.requester_gone_timeout,
        )
    )


def _execution_ids(rng: random.Random) -> Iterator[ExecutionID]:
    while True:
        yield ExecutionID(f"e-{random_uuid(rng)}")


_ACCEPTED_NETWORKS = {"none": (), "http": ("HTTP",), "full": NETWORKS}
"""What the setting `accept_networked` means."""


def _selection_policy(settings: Settings, own_peer: PeerID) -> JobSelectionPolicy:
    allowed = frozenset(settings.allowed_requesters)
    return JobSelectionPolicy(
        requesters=AccessList(
            allowed=allowed | {own_peer} if allowed else allowed,
            denied=frozenset(settings.denied_requesters),
        ),
        networks=frozenset(_ACCEPTED_NETWORKS[settings.accept_networked]),
        network_domains=settings.network_domains,
        max_execution_time=settings.max_execution_time,
        reject_stateless=settings.reject_stateless,
        job_limit=parse_resources(settings.job_limits),
        probed=bool(settings.probe_exec or settings.probe_http),
    )


def _probes(settings: Settings) -> list[Probe]:
    """The operator's own programs that decide about each job."""
    probes: list[Probe] = []
    if settings.probe_exec:
        probes.append(ExecProbe(settings.probe_exec, timeout=settings.probe_timeout))
    if settings.probe_http:
        probes.append(HttpProbe(settings.probe_http, timeout=settings.probe_timeout))
    return probes
