"""How much of a machine: CPU cores, bytes of memory and disk, GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.quantities import parse_bytes, parse_cpu, parse_gpu

if TYPE_CHECKING:
    from bacalhau_p2p.model.job import ResourceSpec


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


def parse_resources(spec: ResourceSpec) -> Resources:
    """What the texts of a (validated) `ResourceSpec` amount to; what is not given is 0."""
    return Resources(
        cpu=parse_cpu(spec.cpu) if spec.cpu else 0.0,
        memory=parse_bytes(spec.memory) if spec.memory else 0,
        disk=parse_bytes(spec.disk) if spec.disk else 0,
        gpu=parse_gpu(spec.gpu) if spec.gpu else 0,
    )
