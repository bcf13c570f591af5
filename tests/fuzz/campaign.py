"""Runs the inputs of a part by number, and measures what each took. The same seed makes the same inputs."""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

STALL = 0.5
"""Seconds of processor time that one input may take."""


class Part(Protocol):
    """One part of the program, and what strangers can send to it."""

    def run(self, rng: Random) -> bool:
        """Make one input and use it. Returns whether it was accepted. Raises what must not be raised."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Report:
    """What a campaign has shown of one part."""

    part: str
    seed: int
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    """Seconds of processor time."""
    memory: list[int] = field(default_factory=list)
    """MiB of resident memory: at the beginning, halfway and at the end."""
    deaths: dict[str, int] = field(default_factory=dict)
    """Traceback of each distinct fault, and the number of the input that showed it first."""
    stalls: list[int] = field(default_factory=list)
    """Numbers of inputs that took longer than STALL."""

    @property
    def clean(self) -> bool:
        return not self.deaths and not self.stalls


def run_part(name: str, make: Callable[[], Part], *, seed: int, first: int, inputs: int) -> Report:
    """Try so many inputs of a part, from number `first` on."""
    report = Report(name, seed)
    part = make()
    began = time.perf_counter()
    try:
        for number in range(first, first + inputs):
            if number - first in (0, inputs // 2):
                report.memory.append(_resident())
            _run_one(part, report, number)
    finally:
        part.close()
    report.memory.append(_resident())
    report.seconds = time.perf_counter() - began
    return report


def rng_for(part: str, seed: int, number: int) -> Random:
    """The generator of one input: `--seed S --only N` makes it again."""
    return Random(f"{part}:{seed}:{number}")


def _run_one(part: Part, report: Report, number: int) -> None:
    began = time.thread_time()
    try:
        report.accepted += part.run(rng_for(report.part, report.seed, number))
    except Exception as error:  # noqa: BLE001 - the finding
        frames = traceback.extract_tb(error.__traceback__)
        where = next((f for f in reversed(frames) if "bacalhau_p2p" in f.filename), frames[-1])
        key = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:200]}"
        report.deaths.setdefault(key, number)
    took = time.thread_time() - began
    report.inputs += 1
    report.slowest = max(report.slowest, took)
    if took > STALL:
        report.stalls.append(number)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20
