"""Resources of a computer: CPU cores, bytes of memory and disk, GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.fields import Line
from bacalhau_p2p.model.quantities import parse_bytes, parse_cpu, parse_gpu


class Resources(Model):
    """Amounts of resources: `cpu` in cores (0.5 is half a core), `memory` and `disk` in bytes."""

    cpu: float = 0.0
    memory: int = 0
    disk: int = 0
    gpu: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            cpu=self.cpu + other.cpu,
            memory=self.memory + other.memory,
            disk=self.disk + other.disk,
            gpu=self.gpu + other.gpu,
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            cpu=self.cpu - other.cpu,
            memory=self.memory - other.memory,
            disk=self.disk - other.disk,
            gpu=self.gpu - other.gpu,
        )

    def fits_in(self, available: Resources) -> bool:
        """Whether no amount exceeds the available one. Tolerates a billionth of a core, for rounding."""
        return (
            self.cpu <= available.cpu + 1e-9
            and self.memory <= available.memory
            and self.disk <= available.disk
            and self.gpu <= available.gpu
        )

    def too_large_for(self, limit: Resources) -> str:
        """Why a node with this limit can never run a job that asks for so much. Names what it lacks, but no
        amounts, so that many nodes may say the same."""
        parts = {"CPU": "cpu", "memory": "memory", "disk": "disk", "GPUs": "gpu"}
        lacking = [
            shown
            for shown, name in parts.items()
            if not Resources().replace(**{name: getattr(self, name)}).fits_in(limit)
        ]
        return f"is too small for the requested resources: {', '.join(lacking)}"


def _parsed_by(parse: Callable[[str], float]) -> AfterValidator:
    def check(text: str) -> str:
        if text:
            parse(text)
        return text

    return AfterValidator(check)


class ResourceSpec(Model):
    """What one execution may use, as text: `0.5` or `500m` cores, `256mb`, `1gb`."""

    cpu: Annotated[Line, _parsed_by(parse_cpu)] = ""
    memory: Annotated[Line, _parsed_by(parse_bytes)] = ""
    disk: Annotated[Line, _parsed_by(parse_bytes)] = ""
    gpu: Annotated[Line, _parsed_by(parse_gpu)] = ""


def parse_resources(spec: ResourceSpec) -> Resources:
    """The amounts of a validated `ResourceSpec`. Empty texts are 0."""
    return Resources(
        cpu=parse_cpu(spec.cpu) if spec.cpu else 0.0,
        memory=parse_bytes(spec.memory) if spec.memory else 0,
        disk=parse_bytes(spec.disk) if spec.disk else 0,
        gpu=parse_gpu(spec.gpu) if spec.gpu else 0,
    )
