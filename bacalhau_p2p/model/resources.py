"""How much of a machine: CPU cores, bytes of memory and disk, GPUs."""

from __future__ import annotations

from bacalhau_p2p.model.base import Model


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
