"""Runs components: commands of WASI 0.2, as toolchains make them for `wasm32-wasip2`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wasmtime
    from wasmtime.component import Component, Func, Instance

MAGIC = b"\0asm\x0d\0\x01\0"
"""The first bytes of a component."""
_RUN = re.compile(r"wasi:cli/run@0\.2\.[0-9]+")
FAILED = 1
"""Exit code of a command that says that it failed; WASI 0.2 has no other."""


class NoCommand(Exception):
    """The component is not a command."""


def compile_component(engine: wasmtime.Engine, code: bytes) -> bytes:
    """Its native code. Raises WasmtimeError."""
    from wasmtime.component import Component

    return bytes(Component(engine, code).serialize())


def load(engine: wasmtime.Engine, compiled: bytes) -> Component:
    """A component from its native code. Raises WasmtimeError."""
    from wasmtime.component import Component

    return Component.deserialize(engine, compiled)


def command_of(engine: wasmtime.Engine, store: wasmtime.Store, component: Component) -> Func:
    """Link the component with WASI; its `run` function. Raises NoCommand, WasmtimeError."""
    from wasmtime.component import Linker

    name = next((name for name in component.type.exports(engine) if _RUN.fullmatch(name)), None)
    if name is None:
        raise NoCommand("it does not export wasi:cli/run@0.2")
    linker = Linker(engine)
    linker.add_wasip2()
    instance: Instance = linker.instantiate(store, component)
    index = component.get_export_index("run", component.get_export_index(name))
    function = None if index is None else instance.get_func(store, index)
    if function is None:
        raise NoCommand(f"its {name} has no function run")
    return function


def run_command(function: Func, store: wasmtime.Store) -> int:
    """Run it to its end; the exit code. Raises as wasmtime does."""
    result = function(store)
    return FAILED if getattr(result, "tag", "ok") == "err" else 0
