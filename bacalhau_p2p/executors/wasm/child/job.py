"""What the process of one job does: compile a module, or run one."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.executors.wasm.child.wasi import DeterministicWasi, Exited, define_exit

if TYPE_CHECKING:
    import wasmtime

TRAPPED = 134
"""Exit code of a run that trapped: that of a process ended by SIGABRT, as the `wasmtime` command has it."""
OWN_MEMORY = 256 * 1024**2
"""Bytes that a process may use besides the memory of its guest."""
COMPILE_NICENESS = 10
"""Compiling comes after everything else that the node does."""
MESSAGE_LIMIT = 8192
"""Characters of an error that are reported."""


class StartFailed(Exception):
    """The run could not start. `permanent`: it would fail on every node."""

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.permanent = permanent


def perform(spec: dict[str, Any]) -> dict[str, Any]:
    """Do what the spec asks for; the report."""
    try:
        return compile_module(spec) if spec["op"] == "compile" else run(spec)
    except StartFailed as failure:
        return {"failed": str(failure)[:MESSAGE_LIMIT], "permanent": failure.permanent}
    except MemoryError:
        return {"failed": "more memory is needed than the limit allows", "permanent": True}
    except OSError as error:
        return {"failed": f"{error.filename or 'wasm'}: {error.strerror}", "permanent": False}


def compile_module(spec: dict[str, Any]) -> dict[str, Any]:
    """Compile one module to stdout, which is a file of the node."""
    _set_limits(memory=spec["memory"], disk=spec["disk"], cpu_seconds=spec["cpu_seconds"])
    os.nice(COMPILE_NICENESS)
    compiled = _compile(_engine(spec["deterministic"]), spec["module"]).serialize()
    digest = hashlib.sha256(compiled).hexdigest()
    _write_all(1, memoryview(compiled))
    return {"compiled": digest}


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Run one guest to its end."""
    import wasmtime

    engine = _engine(spec["deterministic"])
    stale: list[str] = []
    modules = [module for each in spec["modules"] if (module := _load(engine, each, stale))]
    if stale:
        return {"stale": stale}
    for source, target in spec["links"]:
        _link(source, target)
    _set_limits(memory=spec["memory"] + OWN_MEMORY if spec["memory"] else 0, disk=spec["disk"], cpu_seconds=0)
    linker = _linker(engine, spec)
    store = wasmtime.Store(engine)
    if spec["memory"]:
        store.set_limits(memory_size=spec["memory"])
    store.set_wasi(_wasi_config(spec))
    try:
        entry = _instantiate(linker, store, modules, spec)
        entry(store)
        code = 0
    except (Exited, wasmtime.ExitTrap) as exited:
        code = exited.code
    except (wasmtime.Trap, wasmtime.WasmtimeError) as trap:
        _write_all(2, memoryview(f"{str(trap).strip()[:MESSAGE_LIMIT]}\n".encode()))
        code = TRAPPED
    return {"exit": code}


def _engine(deterministic: bool) -> wasmtime.Engine:
    import wasmtime

    config = wasmtime.Config()
    config.wasm_threads = not deterministic
    config.cranelift_nan_canonicalization = deterministic
    config.wasm_relaxed_simd_deterministic = deterministic
    return wasmtime.Engine(config)


def _load(engine: wasmtime.Engine, module: dict[str, Any], stale: list[str]) -> wasmtime.Module | None:
    """The module, from what the node compiled earlier if that is unchanged: it is native code, so a byte
    that the node did not write must never be loaded. Otherwise its key is added to the `stale` ones."""
    import wasmtime

    try:
        with open(module["compiled"], "rb") as file:  # noqa: PTH123 - pathlib is needed for nothing else
            file.seek(module["skip"])
            compiled = file.read()
        if hashlib.sha256(compiled).hexdigest() == module["compiled_sha256"]:
            return wasmtime.Module.deserialize(engine, compiled)
    except (OSError, wasmtime.WasmtimeError):
        pass  # removed, or compiled for a processor with other features
    stale.append(module["key"])
    return None


def _compile(engine: wasmtime.Engine, module: dict[str, Any]) -> wasmtime.Module:
    import wasmtime

    with open(module["path"], "rb") as file:  # noqa: PTH123
        wasm = file.read()
    if hashlib.sha256(wasm).hexdigest() != module["sha256"]:
        raise StartFailed(f"{module['name']} changed during its preparation", permanent=False)
    try:
        return wasmtime.Module(engine, wasm)
    except wasmtime.WasmtimeError as error:
        raise StartFailed(f"{module['name']} is not a valid WebAssembly module: {_one_line(error)}") from None


def _link(source: str, target: str) -> None:
    """A second name for a file input. The guest gets its folder read-only, so the original is safe."""
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:  # on another file system, or owned by another user
        shutil.copyfile(source, target)


def _set_limits(*, memory: int, disk: int, cpu_seconds: int) -> None:
    """Limits of this process, in bytes and seconds; 0 is none. A second barrier behind that of the store."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))  # SIGXCPU, then SIGKILL
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if disk:
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))


def _linker(engine: wasmtime.Engine, spec: dict[str, Any]) -> wasmtime.Linker:
    import wasmtime

    linker = wasmtime.Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    define_exit(linker)
    if spec["deterministic"]:
        DeterministicWasi(bytes.fromhex(spec["modules"][-1]["sha256"])).define(linker)
    return linker


def _wasi_config(spec: dict[str, Any]) -> wasmtime.WasiConfig:
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
        raise StartFailed(f"{name} cannot be instantiated: {_one_line(error)}") from None
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
