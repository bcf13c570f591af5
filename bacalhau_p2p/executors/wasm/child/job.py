"""What the process of one job does: compile a module, or run one."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.executors.wasm.child.component import (
    MAGIC,
    NoCommand,
    command_of,
    compile_component,
    load,
    run_command,
)
from bacalhau_p2p.executors.wasm.child.imports import cure, define_no_ops, in_order
from bacalhau_p2p.executors.wasm.child.wasi import DeterministicWasi, Exited, define_exit

if TYPE_CHECKING:
    import wasmtime

    from bacalhau_p2p.executors.isolation.walls import Walls

TRAPPED = 134
"""Exit code of a run that trapped: that of a process ended by SIGABRT, as the `wasmtime` command has it."""
CALL_STACK = 16 * 1024**2
"""Bytes of calls that a guest may nest, the same on every node. Interpreters and parsers nest deep."""
PROCESS_STACK = 64 * 1024**2
"""Bytes of the stack of the process: that of the guest, and what wasmtime and Python need below it."""
OWN_MEMORY = 256 * 1024**2
"""Bytes that a process may use besides the memory of its guest."""
MESSAGE_LIMIT = 8192
"""Characters of an error that are reported."""


class StartFailed(Exception):
    """The run could not start. `permanent`: it would fail on every node."""

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.permanent = permanent


def perform(spec: dict[str, Any], walls: Walls) -> dict[str, Any]:
    """Do what the spec asks for, behind the walls; the report."""
    try:
        return compile_module(spec, walls) if spec["op"] == "compile" else run(spec, walls)
    except StartFailed as failure:
        return {"failed": str(failure)[:MESSAGE_LIMIT], "permanent": failure.permanent}
    except MemoryError:
        return {"failed": "more memory is needed than the limit allows", "permanent": True}
    except OSError as error:
        return {"failed": f"{error.filename or 'wasm'}: {error.strerror or error}", "permanent": False}


def compile_module(spec: dict[str, Any], walls: Walls) -> dict[str, Any]:
    """Compile one module to stdout, which is a file of the node."""
    module = spec["module"]
    engine = _engine(spec["deterministic"])
    with open(module["path"], "rb") as file:  # noqa: PTH123 - pathlib is needed for nothing else
        _set_limits(spec)
        os.nice(spec["threads_niceness"])
        walls.enter(readable=(), writable=())
        wasm = file.read()
    if hashlib.sha256(wasm).hexdigest() != module["sha256"]:
        raise StartFailed(f"{module['name']} changed during its preparation", permanent=False)
    compiled = _compile(engine, module["name"], wasm)
    digest = hashlib.sha256(compiled).hexdigest()
    _write_all(1, memoryview(compiled))
    return {"compiled": digest}


def run(spec: dict[str, Any], walls: Walls) -> dict[str, Any]:
    """Run one guest to its end."""
    import wasmtime

    engine = _engine(spec["deterministic"])
    compiled: list[bytes | wasmtime.Module] = []
    for module in spec["modules"]:
        code = _mapped(engine, module) or _read(module)
        if code is None:
            return {"stale": module["key"]}
        compiled.append(code)
    for source, target, copied in spec["links"]:
        _link(source, target, copied=copied)
    user = walls.user()
    if user is not None:
        for folder in spec["outputs"]:
            os.chown(folder, user, user)
    wasi = _wasi_config(spec, other_user=user is not None)
    _set_limits(spec)
    walls.enter(
        readable=[host for host, _, mutable in spec["preopens"] if not mutable],
        writable=[host for host, _, mutable in spec["preopens"] if mutable],
    )
    store = wasmtime.Store(engine)
    if spec["memory"]:
        store.set_limits(memory_size=spec["memory"])
    store.set_wasi(wasi)
    if spec["component"]:
        code = compiled[-1]
        assert isinstance(code, bytes)
        return _run_component(engine, store, spec, code)
    modules = []
    for module, code in zip(spec["modules"], compiled, strict=True):
        try:
            modules.append(wasmtime.Module.deserialize(engine, code) if isinstance(code, bytes) else code)
        except wasmtime.WasmtimeError:  # compiled for a processor with other features
            return {"stale": module["key"]}
    linker = _linker(engine, spec)

    def start() -> int:
        _instantiate(linker, store, modules, spec)(store)
        return 0

    return {"exit": _exit_code(start, spec)}


def _run_component(
    engine: wasmtime.Engine, store: wasmtime.Store, spec: dict[str, Any], compiled: bytes
) -> dict[str, Any]:
    """Run a component, which is the only module of its job."""
    import wasmtime

    described = spec["modules"][-1]
    try:
        component = load(engine, compiled)
    except wasmtime.WasmtimeError:  # compiled for a processor with other features
        return {"stale": described["key"]}
    try:
        command = command_of(engine, store, component)
    except (NoCommand, wasmtime.WasmtimeError) as error:
        raise StartFailed(f"{described['name']} cannot be run as a command: {_one_line(error)}") from None
    return {"exit": _exit_code(lambda: run_command(command, store), spec)}


def _exit_code(start: Callable[[], int], spec: dict[str, Any]) -> int:
    """The exit code of a run. A trap is at the end of its stderr."""
    import wasmtime

    try:
        return start()
    except (Exited, wasmtime.ExitTrap) as exited:
        return exited.code
    except (wasmtime.Trap, wasmtime.WasmtimeError) as trap:
        # Engines word a trap and its backtrace differently, and deterministic runs are compared.
        described = "trap" if spec["deterministic"] else str(trap).strip()[:MESSAGE_LIMIT]
        _write_all(2, memoryview(f"{described}\n".encode()))
        return TRAPPED


def _engine(deterministic: bool) -> wasmtime.Engine:
    import wasmtime
    from wasmtime import _ffi as ffi

    config = wasmtime.Config()
    config.max_wasm_stack = CALL_STACK
    # Nothing here is asynchronous, but engines abort the process if this is less than the stack of a guest.
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), 2 * CALL_STACK)
    config.wasm_threads = not deterministic
    config.cranelift_nan_canonicalization = deterministic
    config.wasm_relaxed_simd_deterministic = deterministic
    return wasmtime.Engine(config)


def _mapped(engine: wasmtime.Engine, module: dict[str, Any]) -> wasmtime.Module | None:
    """A module of which the warm process has verified the code, without reading it again; None without."""
    import wasmtime

    if module.get("memory", -1) < 0:
        return None
    try:
        return wasmtime.Module.deserialize_file(engine, f"/proc/self/fd/{module['memory']}")
    except wasmtime.WasmtimeError:  # compiled for a processor with other features, or /proc is not there
        return None


def _read(module: dict[str, Any]) -> bytes | None:
    """What the node compiled earlier, if that is unchanged: it is native code, so a byte that the node did
    not write must never be loaded."""
    try:
        with open(module["compiled"], "rb") as file:  # noqa: PTH123
            file.seek(module["skip"])
            compiled = file.read()
    except OSError:  # removed
        return None
    return compiled if hashlib.sha256(compiled).hexdigest() == module["compiled_sha256"] else None


def _compile(engine: wasmtime.Engine, name: str, wasm: bytes) -> bytes | bytearray:
    import wasmtime

    try:
        if wasm.startswith(MAGIC):
            return compile_component(engine, wasm)
        return wasmtime.Module(engine, wasm).serialize()
    except wasmtime.WasmtimeError as error:
        raise StartFailed(f"{name} is not a valid WebAssembly module: {_one_line(error)}") from None


def _link(source: str, target: str, *, copied: bool) -> None:
    """A second name for a file input, which the job's user can read, or a copy, where the guest may change
    what is in its folder."""
    if os.path.lexists(target):  # a mount point, or from an earlier attempt to start
        os.unlink(target)  # noqa: PTH108
    try:
        if copied or not os.stat(source).st_mode & 0o004:  # noqa: PTH116
            raise PermissionError(source)
        os.link(source, target, follow_symlinks=True)
    except OSError:  # on another file system, owned by another user, or unreadable for the job
        shutil.copyfile(source, target)
        os.chmod(target, 0o644)  # noqa: PTH101


def _set_limits(spec: dict[str, Any]) -> None:
    """Limits of this process, in bytes and seconds; 0 is none. A second barrier behind that of the store."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _grow_stack()
    if spec["memory"]:
        memory = spec["memory"] + OWN_MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if spec["disk"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (spec["disk"], spec["disk"]))
    if spec["cpu_seconds"]:
        resource.setrlimit(resource.RLIMIT_CPU, (spec["cpu_seconds"], spec["cpu_seconds"]))


def _grow_stack() -> None:
    """Let the stack of this process, on which the guest runs, grow to more than the guest may use."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard != resource.RLIM_INFINITY and hard < PROCESS_STACK:
        raise StartFailed("the limit of the stack (ulimit -Hs) of this node is too low", permanent=False)
    resource.setrlimit(resource.RLIMIT_STACK, (PROCESS_STACK, hard))


def _linker(engine: wasmtime.Engine, spec: dict[str, Any]) -> wasmtime.Linker:
    import wasmtime

    linker = wasmtime.Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    define_exit(linker)
    if spec["deterministic"]:
        DeterministicWasi(bytes.fromhex(spec["modules"][-1]["sha256"])).define(linker)
    return linker


def _wasi_config(spec: dict[str, Any], *, other_user: bool) -> wasmtime.WasiConfig:
    import wasmtime

    wasi = wasmtime.WasiConfig()
    wasi.argv = spec["argv"]
    wasi.env = spec["env"]
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for host, guest, mutable in spec["preopens"]:
        if other_user and not mutable and os.stat(host).st_mode & 0o005 != 0o005:  # noqa: PTH116
            raise StartFailed(
                f"input {guest}: not readable for the user of the job; make it readable for everyone",
                permanent=False,
            )
        try:
            wasi.preopen_dir(host, guest, mutable)
        except wasmtime.WasmtimeError:
            raise StartFailed(
                f"the folder for {guest} cannot be opened on this node", permanent=False
            ) from None
    return wasi


def _instantiate(
    linker: wasmtime.Linker, store: wasmtime.Store, modules: list[wasmtime.Module], spec: dict[str, Any]
) -> wasmtime.Func:
    """Instantiate the modules, the entry module last; its entry point."""
    import wasmtime

    name = ""
    try:
        for described, module in in_order(list(zip(spec["modules"], modules, strict=True))):
            name = described["name"]
            if module is modules[-1]:
                _check_entry_point(name, module, spec["entrypoint"])
            define_no_ops(linker, module)
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
        problem = _one_line(error)
        raise StartFailed(f"{name} cannot be instantiated: {problem}{cure(problem)}") from None
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
        listed = ", ".join(sorted(functions)) or "none"
        raise StartFailed(f"{name} exports no function {entrypoint!r}; exported functions: {listed}")
    if kind.params:
        raise StartFailed(
            f"the function {entrypoint!r} of {name} takes {len(kind.params)} parameters; it must take none"
        )


def _one_line(error: Exception) -> str:
    """An error of wasmtime on one line, without its backtrace."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("Caused by"))


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
