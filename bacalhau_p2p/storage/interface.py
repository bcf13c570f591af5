"""The interface of storage providers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInput:
    """An input on this machine's disk. If `owned`, `cleanup` removes it.

    With a `name` it is a file that the job finds in the folder at the target, under this name.
    `content` names what it contains, if that can never be anything else: a CID that the provider verified.
    """

    path: Path
    name: str = ""
    content: str = ""
    read_only: bool = True
    owned: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSize:
    """Bytes of an input: of all its files, of those that are on this machine already, and of the disk that
    preparing it will take."""

    total: int
    local: int = 0
    disk: int = 0

    @classmethod
    def as_blocks(cls, total: int) -> Self:
        """Content that is not here: it takes disk as blocks, and again as the files of the job."""
        return cls(total=total, disk=2 * total)


class StorageProvider(Protocol):
    """Brings one type of input source to disk. One object serves all executions of a node.

    A provider that derives from this class inherits `input_faults`, which finds none, and `part_size`.
    """

    @property
    def source(self) -> str:
        """The source type that it serves, lower case: `ipfs`. Types differ only in letter case
        from Bacalhau's (`localDirectory`)."""
        ...

    def faults(self, source: SpecConfig) -> list[Fault]:
        """What is wrong with these parameters, by path (`Params.CID`).

        Pure and fast: it looks at nothing but the parameters and this node's settings. A source that
        the settings do not allow is a fault too.
        """
        ...

    async def input_faults(self, source: SpecConfig) -> list[Fault]:
        """What is wrong with this input on this node, by path, beyond what `faults` can tell.

        May use the disk and worker threads; fetches nothing. Called at submission and before a bid, for
        sources without `faults`, by a caller that cancels it after a second or two. A requester that
        does not run the job itself ignores faults with `this_node_only`.
        """
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        """Whether the data is on this machine already."""
        ...

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """The size of the input, without fetching it; None when that cannot be found out soon.

        Called before a bid, for sources without faults, by a caller that cancels it after a second or two.
        Raises StorageError when this node certainly cannot take so much.
        """
        ...

    async def part_size(
        self, source: SpecConfig, parts: int, *, hints: Sequence[PeerID] = ()
    ) -> InputSize | None:
        """As `size`, of the largest of so many parts of an input that is divided among partitions of its job:
        a node bids before it knows which it gets. By default the size of all parts together."""
        return await self.size(source, hints=hints)

    async def prepare(
        self,
        source: SpecConfig,
        folder: Path,
        *,
        hints: Sequence[PeerID] = (),
        max_bytes: int | None = None,
    ) -> PreparedInput:
        """Bring the data to disk, inside the empty `folder` or elsewhere. `hints` are peers that
        may have it: the requester first. `max_bytes` of disk are reserved for files; `size` may have relied
        on a false claim, so a provider counts what it writes.

        Raises StorageError; `permanent` when every node would fail in the same way.
        Cancelled: no incomplete input is left where a job would see it.
        """
        ...

    async def cleanup(self, prepared: PreparedInput) -> None:
        """Remove what `prepare` made, if it still exists."""
        ...
