"""What the engines that we know can be told, and what a task's environment is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.fields import (
    MAX_ARGUMENTS,
    MAX_ENTRIES,
    AbsolutePath,
    Argument,
    EnvironmentName,
    EnvironmentValue,
    Name,
    Value,
)
from bacalhau_p2p.model.job import Task


def _assignments(value: object) -> object:
    """Bacalhau writes Docker's environment as a list of `NAME=value`, WebAssembly's as a map."""
    if not isinstance(value, list | tuple):
        return value
    pairs: dict[str, str] = {}
    for entry in value:
        if not isinstance(entry, str) or "=" not in entry:
            raise ValueError("must be a map, or a list of NAME=value")
        name, _, text = entry.partition("=")
        pairs[name] = text
    return pairs


def _image_name(image: str) -> str:
    if any(character.isspace() or character == "\0" for character in image):
        raise ValueError("is not the name of an image")
    return image


Environment = Annotated[
    Mapping[EnvironmentName, EnvironmentValue], BeforeValidator(_assignments), Field(max_length=MAX_ENTRIES)
]
Arguments = Annotated[tuple[Argument, ...], Field(max_length=MAX_ARGUMENTS)]


class DockerParams(Model):
    """`Entrypoint` and `Parameters` replace the image's own; empty means as the image has it."""

    image: Annotated[Name, AfterValidator(_image_name)]
    entrypoint: Arguments = ()
    parameters: Arguments = ()
    environment_variables: Environment = Field(default_factory=dict)
    working_directory: AbsolutePath | None = None


class WasmParams(Model):
    """`EntryModule` and `ImportModules` are targets of input sources; `Entrypoint` an exported function.

    An import module is known to the entry module by its input source's alias, or else its target.
    """

    entry_module: Value = Field(min_length=1)
    entrypoint: Name = "_start"
    parameters: Arguments = ()
    environment_variables: Environment = Field(default_factory=dict)
    import_modules: Annotated[tuple[Value, ...], Field(max_length=MAX_ENTRIES)] = ()


class NoopParams(Model):
    """What the run that does not happen answers."""

    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    stdout: Argument = ""
    stderr: Argument = ""


def environment_of(task: Task) -> dict[str, str]:
    """The variables a run starts with: the task's `Env`, and the engine's own, which win."""
    engine = task.engine.params.get("EnvironmentVariables")
    return {**task.env, **(engine if isinstance(engine, Mapping) else {})}
