"""What modules import beside WASI: other modules of the job, and functions that toolchains add."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wasmtime

_UNKNOWN = re.compile(r"unknown import: `(.*?)::(.*?)`")
_NO_OPS = frozenset({"emscripten_notify_memory_growth", "trace"})
"""Functions of `env` that tell the host something. They do nothing here."""
_CURES = (
    (
        r"wasi_unstable::",
        "it is built for an early WASI: rebuild it for wasi_snapshot_preview1 (wasm32-wasip1)",
    ),
    (r"wasi_snapshot_preview1::sock_", "jobs have no sockets"),
    (r"wasi_snapshot_preview1::", "it needs a later or extended WASI: rebuild it for wasm32-wasip1"),
    (r"(wasi|wasix)[^:]*::", "it needs another WASI: rebuild it for wasm32-wasip1"),
    (r"(wbg|__wbindgen.*)::", "it is built for a web page by wasm-bindgen: rebuild it for wasm32-wasip1"),
    (r"(go|gojs)::", "it is built for a web page: rebuild it with GOOS=wasip1 GOARCH=wasm"),
    (r"env::memory$", "it imports its memory: link it without --import-memory"),
    (r"env::abort$", "it is built by AssemblyScript for a host: build it with the WASI shim"),
    (r"env::(invoke_|__cxa_|_emscripten|emscripten)", "build it with Emscripten's -sSTANDALONE_WASM"),
    (r"env::", "a library is missing: link it in, or name its module in ImportModules"),
)


Described = tuple[dict[str, Any], "wasmtime.Module"]
"""A module with its description in the spec."""


def in_order(modules: Sequence[Described]) -> list[Described]:
    """The modules in an order in which each comes after those that it imports.

    The entry module, which is the last, stays last. A circle is left as it is, and fails when it is linked.
    """
    *waiting, entry = modules
    ordered = []
    while waiting:
        missing = {alias for described, _ in waiting for alias in described["aliases"]}
        ready = [pair for pair in waiting if not _imported(pair[1]) & (missing - set(pair[0]["aliases"]))]
        ordered += ready or waiting
        waiting = [pair for pair in waiting if ready and pair not in ready]
    return [*ordered, entry]


def define_no_ops(linker: wasmtime.Linker, module: wasmtime.Module) -> None:
    """Define what a module imports from `env` and can do without."""
    import wasmtime

    for wanted in module.imports:
        kind = wanted.type
        if wanted.module != "env" or wanted.name not in _NO_OPS or not isinstance(kind, wasmtime.FuncType):
            continue
        if not kind.results:
            linker.define_func("env", str(wanted.name), kind, lambda *arguments: None)


def cure(message: str) -> str:
    """What to do about an import that nobody provides, to be appended to the error about it; or nothing."""
    found = _UNKNOWN.search(message)
    if found is None:
        return ""
    name = f"{found[1]}::{found[2]}"
    return next((f"; {what}" for pattern, what in _CURES if re.match(pattern, name)), "")


def _imported(module: wasmtime.Module) -> set[str]:
    return {wanted.module for wanted in module.imports}
