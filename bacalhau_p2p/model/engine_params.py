"""The `Params` of the built-in engines, and the environment of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from bacalhau_p2p.model.base import ClosedModel
from bacalhau_p2p.model.fields import (
    MAX_ARGUMENTS,
    MAX_ENTRIES,
    AbsolutePath,
    Argument,
    EnvironmentName,
    EnvironmentValue,
    Name,
    Value,
    check_argument,
    check_variable,
)
from bacalhau_p2p.model.image_names import image_name
from bacalhau_p2p.model.job import Task


def _assignments(value: object) -> object:
    """Accepts a list of `NAME=value`: Bacalhau uses it for Docker, and a map for WebAssembly."""
    if not isinstance(value, list | tuple):
        return value
    pairs: dict[str, str] = {}
    for entry in value:
        if not isinstance(entry, str) or "=" not in entry:
            raise ValueError("must be a map or a list of NAME=value")
        name, _, text = entry.partition("=")
        pairs[name] = text
    return pairs


Environment = Annotated[
    Mapping[EnvironmentName, EnvironmentValue], BeforeValidator(_assignments), Field(max_length=MAX_ENTRIES)
]
Arguments = Annotated[tuple[Argument, ...], Field(max_length=MAX_ARGUMENTS)]


def _variables_fit(variables: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in variables.items():
        check_variable(name, value)
    return variables


_LinuxArguments = Annotated[
    tuple[Annotated[Argument, AfterValidator(check_argument)], ...], Field(max_length=MAX_ARGUMENTS)
]
_LinuxEnvironment = Annotated[Environment, AfterValidator(_variables_fit)]


class DockerParams(ClosedModel):
    """`Entrypoint` and `Parameters` replace those of the image; if they are empty, the image's are used."""

    image: Annotated[Name, AfterValidator(image_name)]
    entrypoint: _LinuxArguments = ()
    parameters: _LinuxArguments = ()
    environment_variables: _LinuxEnvironment = Field(default_factory=dict)
    working_directory: AbsolutePath | None = None


class WasmParams(ClosedModel):
    """`EntryModule` and `ImportModules` are targets of input sources; `Entrypoint` is an exported function.

    The entry module imports a module by the alias of its input source, or by its target if it has no alias.
    """

    entry_module: Value = Field(min_length=1)
    entrypoint: Name = "_start"
    parameters: Arguments = ()
    environment_variables: Environment = Field(default_factory=dict)
    import_modules: Annotated[tuple[Value, ...], Field(max_length=MAX_ENTRIES)] = ()


class NoopParams(ClosedModel):
    """What the no-op engine returns as the result of a run."""

    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    stdout: Argument = ""
    stderr: Argument = ""


def environment_of(task: Task) -> dict[str, str]:
    """The environment of a run: the task's `Env`, overridden by the engine's `EnvironmentVariables`."""
    engine = task.engine.params.get("EnvironmentVariables")
    return {**task.env, **(engine if isinstance(engine, Mapping) else {})}
