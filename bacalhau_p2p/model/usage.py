"""What an execution used of its node, as that node measured it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.quantities import MAX_BYTES

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
    """Bytes of the files of the result."""
    network_bytes_received: _Bytes | None = None
    """Bytes that the run received over the network, if its job had one."""
    network_bytes_sent: _Bytes | None = None
    """Bytes that the run sent over the network, if its job had one."""

    def to_wire(self) -> dict[str, Any]:
        """As `Model.to_wire`, with what was measured only."""
        return self.model_dump(by_alias=True, mode="python", exclude_none=True)
