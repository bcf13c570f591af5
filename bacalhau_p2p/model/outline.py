"""What a large job is announced by: enough of it to decide whether to fetch the rest."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.constraints import Constraint
from bacalhau_p2p.model.fields import FEW, CIDText, Line, Seconds, TypeName
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.quantities import MAX_BYTES, MAX_CPU, MAX_GPU
from bacalhau_p2p.model.resources import Resources

MAX_OUTLINE = 8 * 1024
"""Bytes of an outline in CBOR, with everything around it. Every node reads those of all jobs."""
MAX_ENCODED_SPEC = 768 * 1024
"""Bytes of the spec of a job in CBOR. One of `MAX_SPEC` bytes of JSON takes less, whatever is in it."""
MAX_CONSTRAINTS = 2048
"""Bytes of the constraints in an outline, as JSON. Further ones are only in the spec."""


def _within_limits(asked: Resources) -> Resources:
    limits = ((asked.cpu, MAX_CPU), (asked.memory, MAX_BYTES), (asked.disk, MAX_BYTES), (asked.gpu, MAX_GPU))
    if any(not 0 <= amount <= limit for amount, limit in limits):
        raise ValueError("must not be negative or beyond the limits of a job")
    return asked


class JobOutline(Model):
    """The spec of a job is the block with the CID `spec_cid`, of `spec_size` bytes."""

    spec_cid: CIDText
    spec_size: Annotated[int, Field(ge=1, le=MAX_ENCODED_SPEC)]
    engine: TypeName
    publisher: TypeName
    inputs: Annotated[int, Field(ge=0, le=256)] = 0
    """How many inputs it has. Their sizes are found out by whoever inspects it."""
    sources: Annotated[tuple[TypeName, ...], FEW] = ()
    """The types of their sources, each once."""
    resources: Annotated[Resources, AfterValidator(_within_limits)] = Resources()
    """What one execution may use, with defaults."""
    constraints: Annotated[tuple[Constraint, ...], FEW] = ()
    """Some of its constraints, or all."""
    network: Line = "None"
    execution_timeout: Seconds = 0.0

    @classmethod
    def of(cls, spec: JobSpec, *, cid: str, size: int) -> JobOutline:
        """The outline of a spec whose encoding has this CID and size, in bytes."""
        task = spec.task
        return cls(
            spec_cid=cid,
            spec_size=size,
            engine=task.engine.type,
            publisher=task.publisher.type,
            inputs=len(task.input_sources),
            sources=tuple(sorted({each.source.type for each in task.input_sources})),
            resources=spec.resources,
            constraints=_first_constraints(spec),
            network=task.network.type,
            execution_timeout=spec.execution_timeout,
        )

    def difference_to(self, spec: JobSpec) -> str | None:
        """The name of a field in which this is not an outline of the spec, or None if it is one."""
        true = JobOutline.of(spec, cid=self.spec_cid, size=self.spec_size)
        for field in (
            "engine",
            "publisher",
            "inputs",
            "sources",
            "resources",
            "network",
            "execution_timeout",
        ):
            if getattr(self, field) != getattr(true, field):
                return field
        return None if set(self.constraints) <= set(spec.constraints) else "constraints"


def _first_constraints(spec: JobSpec) -> tuple[Constraint, ...]:
    room, first = MAX_CONSTRAINTS, []
    for constraint in spec.constraints:
        room -= len(constraint.model_dump_json())
        if room < 0:
            break
        first.append(constraint)
    return tuple(first)
