"""How much of a machine: CPU cores, bytes of memory and disk, GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.fields import Line
from bacalhau_p2p.model.quantities import parse_bytes, parse_cpu, parse_gpu


class Resources(Model):
    """An amount of a machine. `cpu` in cores (0.5 is half of one), `memory` and `disk` in bytes."""

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

    def fits_in(self, room: Resources) -> bool:
        """Whether each part is at most that of `room`; a billionth of a core is forgiven."""
        return (
            self.cpu <= room.cpu + 1e-9
            and self.memory <= room.memory
            and self.disk <= room.disk
            and self.gpu <= room.gpu
        )


def _readable_by(parse: Callable[[str], float]) -> AfterValidator:
    def check(text: str) -> str:
        if text:
            parse(text)
        return text

    return AfterValidator(check)


class ResourceSpec(Model):
    """What one execution may use, as text: `0.5` or `500m` cores, `256mb`, `1gb`."""

    cpu: Annotated[Line, _readable_by(parse_cpu)] = ""
    memory: Annotated[Line, _readable_by(parse_bytes)] = ""
    disk: Annotated[Line, _readable_by(parse_bytes)] = ""
    gpu: Annotated[Line, _readable_by(parse_gpu)] = ""


def parse_resources(spec: ResourceSpec) -> Resources:
    """What the texts of a (validated) `ResourceSpec` amount to; what is not given is 0."""
    return Resources(
        cpu=parse_cpu(spec.cpu) if spec.cpu else 0.0,
        memory=parse_bytes(spec.memory) if spec.memory else 0,
        disk=parse_bytes(spec.disk) if spec.disk else 0,
        gpu=parse_gpu(spec.gpu) if spec.gpu else 0,
    )
