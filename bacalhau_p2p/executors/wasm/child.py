"""The processes in which WebAssembly runs: one that stays warm, and a fork of it for each job.

Run as a script by `wasm_process.py`, never imported by the node: `python -I -S wasm_child.py
SITE_PACKAGES CONTROL_FD`. It knows nothing but the standard library and wasmtime, so that it starts
fast and is small. It has one thread only, so that it may fork.

The warm process ends when its control socket does, however the node died; a job ends at the
latest with the warm process (PR_SET_PDEATHSIG). Messages and spec are described in `wasm_process.py`.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wasmtime

WASI = "wasi_snapshot_preview1"
TRAPPED = 134
"""Exit code of a run that trapped: that of a process ended by SIGABRT, as wasmtime's own command has it."""

FIXED_CLOCK = 1_000_000_000 * 1_000_000_000
"""Deterministic mode: nanoseconds since 1970 at the first look at the clock (9 September 2001)."""
CLOCK_STEP = 1000
"""Deterministic mode: nanoseconds that pass with each look at the clock, so that no loop waits for ever."""
LAST_TIME = 2**62
"""Deterministic mode: nanoseconds after which time stands still, as a clock has 64 bits."""

COMPILE_MEMORY = 4 * 1024**3
"""Bytes that compiling may use; a module of 26 MB needs about a tenth."""
OWN_MEMORY = 256 * 1024**2
"""Bytes that a process may use beside the memory of its guest."""

MESSAGE_LIMIT = 8192
"""Characters of an error that are reported."""
CHUNK = 65536

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_EFAULT = 21
_EINVAL = 28
_SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")
"""WASI's subscription to a clock: userdata, tag (0; 1 and 2 are files), clock, timeout, precision, flags."""
_EVENT = struct.Struct("<QHB5xQH6x")
"""WASI's event: userdata, error, tag, bytes that can be had, flags."""

_libc = ctypes.CDLL(None, use_errno=True)


class Exited(BaseException):
    """The guest called proc_exit."""

    def __init__(self, code: int) -> None:
        self.code = code


class Failed(Exception):
    """The run could not start. `permanent`: another node would fail alike."""

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.permanent = permanent


# --- the warm process -------------------------------------------------------------------


def serve(control: socket.socket) -> None:
    """Fork a process for each request until the control socket ends."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    jobs: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for fd, _ in poll.poll():
            if fd in jobs:
                poll.unregister(fd)
                _bury(fd, *jobs.pop(fd))
                continue
            message, received, _, _ = socket.recv_fds(control, 64, 4)
            if not message:
                return
            pidfd = _fork(received, jobs)
            if pidfd is not None:
                poll.register(pidfd, select.POLLIN)


def _fork(received: list[int], jobs: dict[int, tuple[int, socket.socket]]) -> int | None:
    """Start one job; its pidfd, or None when there is none to be watched."""
    job = socket.socket(fileno=received[0])
    warm = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _become_job(warm, *received)
    except OSError as error:
        _tell(job, {"refused": f"no process could be started: {error.strerror}"})
        job.close()
        return None
    finally:
        for fd in received[1:]:
            os.close(fd)
    pidfd = os.pidfd_open(pid)
    jobs[pidfd] = (pid, job)
    try:
        socket.send_fds(job, [json.dumps({"pid": pid}).encode()], [pidfd])
    except OSError:  # nobody is there any more who could end it
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return pidfd


def _bury(pidfd: int, pid: int, job: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    _tell(job, {"status": os.waitstatus_to_exitcode(status)})
    job.close()


def _tell(job: socket.socket, message: dict[str, Any]) -> bool:
    """Send to the node; False when it no longer listens."""
    try:
        job.send(json.dumps(message).encode())
    except OSError:
        return False
    return True


def _become_job(warm: int, job_fd: int, out: int, err: int, spec_fd: int) -> None:
    """In the forked process: run the spec, report, and exit."""
    status = 70  # EX_SOFTWARE, unless all goes well
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != warm:
            os._exit(status)  # the warm process died before the line above
        spec = json.loads(os.pread(spec_fd, os.fstat(spec_fd).st_size, 0))
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(job_fd, 3)
        os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        job = socket.socket(fileno=3)
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        report = do(spec)
        if _tell(job, report):
            status = 0
    finally:
        os._exit(status)


# --- one job ----------------------------------------------------------------------------


def do(spec: dict[str, Any]) -> dict[str, Any]:
    """Do what the spec asks for, and what to report."""
    try:
        return compile_module(spec) if spec["op"] == "compile" else run(spec)
    except Failed as failure:
        return {"failed": str(failure)[:MESSAGE_LIMIT], "permanent": failure.permanent}
    except OSError as error:
        return {"failed": f"{error.filename or 'wasm'}: {error.strerror}", "permanent": False}


def compile_module(spec: dict[str, Any]) -> dict[str, Any]:
    """Compile one module to stdout, which is a file of the node."""
    _limit(memory=COMPILE_MEMORY, disk=0)
    compiled = memoryview(_compile(_engine(spec["deterministic"]), spec["module"]).serialize())
    digest = hashlib.sha256(compiled).hexdigest()
    while compiled:
        compiled = compiled[os.write(1, compiled) :]
    return {"compiled": digest}


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Run one guest to its end."""
    import wasmtime

    stale: list[str] = []
    engine = _engine(spec["deterministic"])
    modules = [_load(engine, module, stale) for module in spec["modules"]]
    for link in spec["links"]:
        _link(*link)
    _limit(memory=spec["memory"] + OWN_MEMORY if spec["memory"] else 0, disk=spec["disk"])
    linker = wasmtime.Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    _define_exit(linker)
    if spec["deterministic"]:
        _Chance(bytes.fromhex(spec["modules"][-1]["sha256"])).define(linker)
    store = wasmtime.Store(engine)
    if spec["memory"]:
        store.set_limits(memory_size=spec["memory"])
    store.set_wasi(_wasi(spec))
    try:
        entry = _instantiate(linker, store, modules, spec)
        entry(store)
        code = 0
    except Exited as exited:
        code = exited.code
    except wasmtime.ExitTrap as exited:
        code = exited.code
    except (wasmtime.Trap, wasmtime.WasmtimeError) as trap:
        _write_all(2, f"{str(trap).strip()[:MESSAGE_LIMIT]}\n".encode())
        code = TRAPPED
    return {"exit": code, "stale": stale}


def _engine(deterministic: bool) -> wasmtime.Engine:
    import wasmtime

    config = wasmtime.Config()
    config.wasm_threads = not deterministic
    config.cranelift_nan_canonicalization = deterministic
    config.wasm_relaxed_simd_deterministic = deterministic
    return wasmtime.Engine(config)


def _load(engine: wasmtime.Engine, module: dict[str, Any], stale: list[str]) -> wasmtime.Module:
    """The module, from what the node compiled earlier if that is sound: it is native code, so a byte
    that the node did not write must never be loaded."""
    import wasmtime

    try:
        with open(module["compiled"], "rb") as file:  # noqa: PTH123 - pathlib is not needed for anything else
            file.seek(module["skip"])
            compiled = file.read()
        if hashlib.sha256(compiled).hexdigest() == module["compiled_sha256"]:
            return wasmtime.Module.deserialize(engine, compiled)
    except (OSError, wasmtime.WasmtimeError):
        pass  # gone, or of a processor with other features: as good as tampered with
    stale.append(module["key"])
    return _compile(engine, module)


def _compile(engine: wasmtime.Engine, module: dict[str, Any]) -> wasmtime.Module:
    import wasmtime

    with open(module["path"], "rb") as file:  # noqa: PTH123
        wasm = file.read()
    if hashlib.sha256(wasm).hexdigest() != module["sha256"]:
        raise Failed(f"{module['name']} changed while it was prepared", permanent=False)
    try:
        return wasmtime.Module(engine, wasm)
    except wasmtime.WasmtimeError as error:
        raise Failed(f"{module['name']} is not a valid WebAssembly module: {_first_cause(error)}") from None


def _link(source: str, target: str) -> None:
    """A file input by another name. The guest gets its folder read-only, so the original is safe."""
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:  # another file system, or somebody else's file
        shutil.copyfile(source, target)


def _limit(*, memory: int, disk: int) -> None:
    """Limits of this process, in bytes; 0 is none. They are the second wall, behind the store's own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if disk:
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))


def _wasi(spec: dict[str, Any]) -> wasmtime.WasiConfig:
    import wasmtime

    wasi = wasmtime.WasiConfig()
    wasi.argv = spec["argv"]
    wasi.env = spec["env"]
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for host, guest, mutable in spec["preopens"]:
        try:
            wasi.preopen_dir(host, guest, mutable)
        except wasmtime.WasmtimeError:
            raise Failed(f"the folder for {guest} cannot be opened on this node", permanent=False) from None
    return wasi


def _instantiate(
    linker: wasmtime.Linker, store: wasmtime.Store, modules: list[wasmtime.Module], spec: dict[str, Any]
) -> wasmtime.Func:
    """Bring the modules to life, the entry module last, and give its entry point."""
    import wasmtime

    name = ""
    try:
        for described, module in zip(spec["modules"], modules, strict=True):
            name = described["name"]
            if module is modules[-1]:
                _check_entry_point(name, module, spec["entrypoint"])
            instance = linker.instantiate(store, module)
            exports = instance.exports(store)
            initialize = exports.get("_initialize")
            if isinstance(initialize, wasmtime.Func) and spec["entrypoint"] != "_initialize":
                initialize(store)
            for alias in described["aliases"]:
                linker.define_instance(store, alias, instance)
    except wasmtime.ExitTrap:
        raise
    except wasmtime.WasmtimeError as error:
        raise Failed(f"{name} cannot be instantiated: {_first_cause(error)}") from None
    entry = exports[spec["entrypoint"]]
    assert isinstance(entry, wasmtime.Func)
    return entry


def _check_entry_point(name: str, module: wasmtime.Module, entrypoint: str) -> None:
    import wasmtime

    functions = {
        export.name: export.type for export in module.exports if isinstance(export.type, wasmtime.FuncType)
    }
    kind = functions.get(entrypoint)
    if kind is None:
        there = ", ".join(sorted(functions)) or "none"
        raise Failed(f"{name} has no function {entrypoint!r} to start; it exports: {there}")
    if kind.params:
        raise Failed(
            f"the function {entrypoint!r} of {name} takes {len(kind.params)} parameters; it must take none"
        )


def _first_cause(error: Exception) -> str:
    """An error of wasmtime on one line, without its backtrace."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("Caused by"))


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


# --- what is put in the place of WASI's own -----------------------------------------------


def _define_exit(linker: wasmtime.Linker) -> None:
    """wasmtime's proc_exit refuses codes of 126 and more; this one takes any."""
    import wasmtime

    def proc_exit(code: int) -> None:
        raise Exited(code & 0xFFFFFFFF)

    i32 = wasmtime.ValType.i32()
    linker.define_func(WASI, "proc_exit", wasmtime.FuncType([i32], []), proc_exit)


class _Chance:
    """WASI's sources of chance, for deterministic mode: a clock that moves only when it is looked at or
    slept on (which takes no time), and random bytes that follow from the module."""

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
        return _poke(caller, result, (self._now + _origin(clock)).to_bytes(8, "little"))

    def clock_res_get(self, caller: wasmtime.Caller, _clock: int, result: int) -> int:
        return _poke(caller, result, CLOCK_STEP.to_bytes(8, "little"))

    def random_get(self, caller: wasmtime.Caller, start: int, length: int) -> int:
        start, length = start & 0xFFFFFFFF, length & 0xFFFFFFFF
        for offset in range(0, length, CHUNK):
            self._draws += 1
            state = self._seed + self._draws.to_bytes(8, "little")
            drawn = hashlib.shake_256(state).digest(min(CHUNK, length - offset))
            if errno := _poke(caller, start + offset, drawn):
                return errno
        return 0

    def poll_oneoff(self, caller: wasmtime.Caller, asked: int, answer: int, count: int, found: int) -> int:
        """Files are always ready. Who waits for nothing but time finds that it has passed."""
        count &= 0xFFFFFFFF
        data = _peek(caller, asked, count * _SUBSCRIPTION.size)
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
        events = b"".join(_EVENT.pack(userdata, 0, tag, CHUNK if tag else 0, 0) for userdata, tag in ready)
        return _poke(caller, answer, events) or _poke(caller, found, len(ready).to_bytes(4, "little"))


def _origin(clock: int) -> int:
    """Nanoseconds at which this clock of WASI's begins: 0 is that of the calendar."""
    return FIXED_CLOCK if clock == 0 else 0


def _peek(caller: wasmtime.Caller, start: int, length: int) -> bytes | None:
    """Read the guest's memory; None when that is not all its own."""
    import wasmtime

    memory = caller.get("memory")
    start &= 0xFFFFFFFF
    if not isinstance(memory, wasmtime.Memory) or start + length > memory.data_len(caller):
        return None
    return bytes(memory.read(caller, start, start + length))


def _poke(caller: wasmtime.Caller, start: int, data: bytes) -> int:
    """Write into the guest's memory; WASI's error number when that is not all its own."""
    import wasmtime

    memory = caller.get("memory")
    start &= 0xFFFFFFFF
    if not isinstance(memory, wasmtime.Memory) or start + len(data) > memory.data_len(caller):
        return _EFAULT
    memory.write(caller, data, start)
    return 0


def main() -> None:
    sys.path.append(sys.argv[1])
    control = socket.socket(fileno=int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which then ends us
    try:
        import wasmtime  # noqa: F401 - every fork has it then
    except (ImportError, OSError, RuntimeError) as error:
        control.send(json.dumps({"unavailable": f"wasmtime cannot be loaded: {error}"}).encode())
        return
    control.send(json.dumps({"ready": True}).encode())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each job takes two
    gc.collect()
    gc.freeze()  # shared with every fork: collecting in one must not copy it
    serve(control)


if __name__ == "__main__":
    main()
