"""What an execution used of its node, as that node measured it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.quantities import MAX_BYTES, duration, format_bytes

MAX_CPU_SECONDS = 1e12
"""More than a thousand cores use in thirty years."""

_Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]


class Usage(Model):
    """What one execution used. None is not measured."""

    cpu_seconds: Annotated[float, Field(ge=0, le=MAX_CPU_SECONDS)] | None = None
    """Processor time of the run, in user and kernel mode."""
    peak_memory: _Bytes | None = None
    """Bytes of memory that the run held at most."""
    input_bytes_fetched: _Bytes | None = None
    """Bytes of the inputs that came from elsewhere for this execution."""
    input_bytes_local: _Bytes | None = None
    """Bytes of the inputs that were on the node already."""
    result_bytes: _Bytes | None = None
    """Bytes of the files that the run left: in its result paths, and of stdout and stderr."""
    network_bytes_received: _Bytes | None = None
    """Bytes that the run received over the network, if its job had one."""
    network_bytes_sent: _Bytes | None = None
    """Bytes that the run sent over the network, if its job had one."""

    @property
    def bytes_in(self) -> int | None:
        """Bytes of its inputs, wherever they were, and of what it received over the network."""
        return _sum(self.input_bytes_fetched, self.input_bytes_local, self.network_bytes_received)

    @property
    def bytes_out(self) -> int | None:
        """Bytes of what it left and of what it sent over the network."""
        return _sum(self.result_bytes, self.network_bytes_sent)

    def __str__(self) -> str:
        """For people, as far as it was measured: `2.3 s of CPU, 61 MB of memory, 5 MB in, 7 kB out`."""
        parts = []
        if (seconds := self.cpu_seconds) is not None:
            parts.append(f"{duration(seconds)} of CPU" if seconds >= 0.1 else "< 0.1 s of CPU")
        if self.peak_memory:
            parts.append(f"{format_bytes(self.peak_memory)} of memory")
        for amount, way in ((self.bytes_in, "in"), (self.bytes_out, "out")):
            if amount is not None:
                parts.append(f"{format_bytes(amount)} {way}")
        return ", ".join(parts)

    def to_wire(self) -> dict[str, Any]:
        """As `Model.to_wire`, with what was measured only."""
        return self.model_dump(by_alias=True, mode="python", exclude_none=True)


def _sum(*amounts: int | None) -> int | None:
    measured = [each for each in amounts if each is not None]
    return sum(measured) if measured else None
