"""Builds the requester of a node."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from math import inf

from bacalhau_p2p.bprotocol.proposals import decode_proposal
from bacalhau_p2p.components.store import Retention
from bacalhau_p2p.identity.sealing import unseal
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.node import registry
from bacalhau_p2p.node.host_limits import disk_shortage
from bacalhau_p2p.node.ids import random_uuid
from bacalhau_p2p.node.known_types import KnownTypes
from bacalhau_p2p.node.networking import Networking
from bacalhau_p2p.requester.job_checks import JobChecks
from bacalhau_p2p.requester.machine import Environment, RequesterMachine
from bacalhau_p2p.requester.service import RequesterService
from bacalhau_p2p.requester.store import RequesterStore
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.storage.interface import StorageProvider


@contextmanager
def open_requester(
    settings: Settings,
    networking: Networking,
    context: registry.AdapterContext,
    storage: Mapping[str, StorageProvider],
    rng: random.Random,
    *,
    engines: Collection[str] = (),
) -> Iterator[RequesterService]:
    """A requester that is not running yet; its store is open for the length of the block.

    `engines` are types of the node's own executors that are not of this installation.
    """
    verifiers = registry.verifiers(context)
    known = KnownTypes(networking.known_nodes, verifiers, engines=engines)
    shortage = disk_shortage(settings.data_dir, parse_bytes(settings.min_free_disk))
    machine = RequesterMachine(
        Environment(
            peer_id=networking.identity.peer_id,
            addresses=networking.addresses.multiaddrs,
            open_proposal=lambda sealed: decode_proposal(unseal(networking.identity, sealed)),
            rng=rng,
            lost_after_surviving=settings.lost_after_surviving,
        )
    )
    path = settings.data_dir / "requester.db"
    keep_jobs = Retention(settings.keep_jobs or inf, settings.max_jobs or inf)
    store = RequesterStore(path, power_safe=settings.power_safe, keep_jobs=keep_jobs)
    try:
        yield RequesterService(
            machine,
            store,
            networking.messenger,
            verifiers=verifiers,
            checks=JobChecks(known.faults, verifiers, storage),
            clock=networking.clock,
            new_job_id=lambda: JobID(random_uuid(rng)),
            resource_shortage=lambda: shortage(0),
        )
    finally:
        store.close()
