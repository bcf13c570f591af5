"""The adapters of a compute node, by the types that jobs name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bacalhau_p2p.errors import ExecutionError, ExecutorError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.publishers.interface import Publisher
from bacalhau_p2p.storage.interface import StorageProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """Executors, storage providers and publishers. A type that is missing raises ExecutionError."""

    executors: Mapping[str, Executor]
    storage: Mapping[str, StorageProvider]
    publishers: Mapping[str, Publisher]

    def executor(self, engine: str) -> Executor:
        if engine not in self.executors:
            raise ExecutorError(f"this node has no {engine} engine")
        return self.executors[engine]

    def storage_provider(self, source: str) -> StorageProvider:
        if source not in self.storage:
            raise ExecutionError(f"this node has no storage provider for {source}")
        return self.storage[source]

    def publisher(self, name: str) -> Publisher:
        if name not in self.publishers:
            raise ExecutionError(f"this node has no {name} publisher")
        return self.publishers[name]
