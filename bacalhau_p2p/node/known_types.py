"""Which types of engines, sources, publishers and verifiers a job may name."""

from __future__ import annotations

from collections.abc import Collection

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.validation import type_faults
from bacalhau_p2p.node import registry
from bacalhau_p2p.node.known_nodes import KnownNodes


class KnownTypes:
    """The types that this installation has or that a known node offers."""

    def __init__(
        self, known_nodes: KnownNodes, verifiers: Collection[str], *, engines: Collection[str] = ()
    ) -> None:
        """`engines` are those that this node was given beside the ones of the installation."""
        self._known_nodes = known_nodes
        self._engines = frozenset(engines)
        self._verifiers = verifiers

    def faults(self, spec: JobSpec) -> list[Fault]:
        """A fault for each type in the job that nobody is known to have."""
        infos = [known.info.compute for known in self._known_nodes.nodes() if known.info.compute is not None]
        return type_faults(
            spec,
            engines=self._engines.union(registry.engine_names(), *(info.engines for info in infos)),
            sources={*registry.source_names(), *(name for info in infos for name in info.storage_sources)},
            publishers={*registry.publisher_names(), *(name for info in infos for name in info.publishers)},
            verifiers=self._verifiers,
        )
