"""Functions of WASI that replace those of wasmtime."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wasmtime

WASI = "wasi_snapshot_preview1"

START_TIME = 1_000_000_000 * 1_000_000_000
"""Nanoseconds since 1970 at which the deterministic clock starts (9 September 2001)."""
CLOCK_STEP = 1000
"""Nanoseconds by which each reading moves the deterministic clock, so that every waiting loop ends."""
LAST_TIME = 2**62
"""Nanoseconds at which the deterministic clock stops, because a timestamp has 64 bits."""
_RANDOM_CHUNK = 65536
_READY_BYTES = 65536
"""Bytes that are reported as ready for every file."""

_EFAULT = 21
_EINVAL = 28
_SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")
"""A subscription to a clock: userdata, tag (0; 1 and 2 are files), clock, timeout, precision, flags."""
_EVENT = struct.Struct("<QHB5xQH6x")
"""An event: userdata, error, tag, bytes that are ready, flags."""


class Exited(BaseException):
    """The guest called proc_exit."""

    def __init__(self, code: int) -> None:
        self.code = code


def define_exit(linker: wasmtime.Linker) -> None:
    """A proc_exit that accepts any code; wasmtime's refuses 126 and above."""
    import wasmtime

    def proc_exit(code: int) -> None:
        raise Exited(code & 0xFFFFFFFF)

    i32 = wasmtime.ValType.i32()
    linker.define_func(WASI, "proc_exit", wasmtime.FuncType([i32], []), proc_exit)


class DeterministicWasi:
    """A clock that moves only when the guest reads it or sleeps, which takes no time, and random bytes
    derived from the module."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._draws = 0
        self._now = 0

    def define(self, linker: wasmtime.Linker) -> None:
        import wasmtime

        i32, i64 = wasmtime.ValType.i32(), wasmtime.ValType.i64()
        for function, params in (
            (self.clock_time_get, [i32, i64, i32]),
            (self.clock_res_get, [i32, i32]),
            (self.random_get, [i32, i32]),
            (self.poll_oneoff, [i32, i32, i32, i32]),
        ):
            kind = wasmtime.FuncType(params, [i32])
            linker.define_func(WASI, function.__name__, kind, function, access_caller=True)

    def clock_time_get(self, caller: wasmtime.Caller, clock: int, _precision: int, result: int) -> int:
        self._now += CLOCK_STEP
        return _write_memory(caller, result, (self._now + _origin(clock)).to_bytes(8, "little"))

    def clock_res_get(self, caller: wasmtime.Caller, _clock: int, result: int) -> int:
        return _write_memory(caller, result, CLOCK_STEP.to_bytes(8, "little"))

    def random_get(self, caller: wasmtime.Caller, start: int, length: int) -> int:
        start, length = start & 0xFFFFFFFF, length & 0xFFFFFFFF
        for offset in range(0, length, _RANDOM_CHUNK):
            self._draws += 1
            state = self._seed + self._draws.to_bytes(8, "little")
            drawn = hashlib.shake_256(state).digest(min(_RANDOM_CHUNK, length - offset))
            if errno := _write_memory(caller, start + offset, drawn):
                return errno
        return 0

    def poll_oneoff(
        self, caller: wasmtime.Caller, subscriptions: int, events: int, count: int, event_count: int
    ) -> int:
        """Files are always ready. Without any, the clock moves to the earliest timeout."""
        count &= 0xFFFFFFFF
        data = _read_memory(caller, subscriptions, count * _SUBSCRIPTION.size)
        if data is None or not count:
            return _EFAULT if count else _EINVAL
        wanted = list(_SUBSCRIPTION.iter_unpack(data))
        ready = [(userdata, tag) for userdata, tag, *_ in wanted if tag != 0]
        if not ready:
            due = [
                timeout - _origin(clock) if flags & 1 else self._now + timeout
                for _, _, clock, timeout, _, flags in wanted
            ]
            then = max(self._now, min(due))
            ready = [
                (userdata, tag) for (userdata, tag, *_), at in zip(wanted, due, strict=True) if at <= then
            ]
            self._now = min(then, LAST_TIME)
        packed = b"".join(
            _EVENT.pack(userdata, 0, tag, _READY_BYTES if tag else 0, 0) for userdata, tag in ready
        )
        return _write_memory(caller, events, packed) or _write_memory(
            caller, event_count, len(ready).to_bytes(4, "little")
        )


def _origin(clock: int) -> int:
    """Nanoseconds at which this WASI clock starts: 0 is the one of the calendar."""
    return START_TIME if clock == 0 else 0


def _read_memory(caller: wasmtime.Caller, start: int, length: int) -> bytes | None:
    """Read the guest's memory; None beyond its end."""
    import wasmtime

    memory = caller.get("memory")
    start &= 0xFFFFFFFF
    if not isinstance(memory, wasmtime.Memory) or start + length > memory.data_len(caller):
        return None
    return bytes(memory.read(caller, start, start + length))


def _write_memory(caller: wasmtime.Caller, start: int, data: bytes) -> int:
    """Write into the guest's memory; WASI's error number beyond its end, else 0."""
    import wasmtime

    memory = caller.get("memory")
    start &= 0xFFFFFFFF
    if not isinstance(memory, wasmtime.Memory) or start + len(data) > memory.data_len(caller):
        return _EFAULT
    memory.write(caller, data, start)
    return 0
