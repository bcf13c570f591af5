"""The parameters of the docker engine, as Bacalhau names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.job import SpecConfig

_NAMES = {
    name.lower(): name
    for name in ("Image", "Entrypoint", "Parameters", "EnvironmentVariables", "WorkingDirectory")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerParams:
    """What to run: an image, and what replaces its own entry point, command and working directory."""

    image: str
    entrypoint: Sequence[str] = ()
    parameters: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = ""


def read_params(engine: SpecConfig) -> tuple[DockerParams, list[Fault]]:
    """The parameters, their names in any letter case, and what is wrong with them.

    They can be used where nothing is.
    """
    faults: list[Fault] = []
    given: dict[str, Any] = {}
    for key, value in engine.params.items():
        name = _NAMES.get(key.lower())
        if name is None:
            faults.append(
                Fault(f"Params.{key}", f"unknown; the docker engine has {', '.join(_NAMES.values())}")
            )
        elif value is not None:
            given[name] = value
    params = DockerParams(
        image=_image(given.get("Image"), faults),
        entrypoint=_texts("Entrypoint", given.get("Entrypoint", ()), faults),
        parameters=_texts("Parameters", given.get("Parameters", ()), faults),
        environment=_environment(given.get("EnvironmentVariables", ()), faults),
        working_directory=_folder(given.get("WorkingDirectory", ""), faults),
    )
    return params, faults


def _image(value: object, faults: list[Fault]) -> str:
    if isinstance(value, str) and value and not any(c.isspace() or c == "\0" for c in value):
        return value
    faults.append(Fault("Params.Image", "missing" if value in (None, "") else "not the name of an image"))
    return ""


def _texts(name: str, value: object, faults: list[Fault]) -> Sequence[str]:
    if not isinstance(value, list | tuple):
        faults.append(Fault(f"Params.{name}", "not a list of texts"))
        return ()
    for position, item in enumerate(value):
        if not _is_text(item):
            faults.append(Fault(f"Params.{name}[{position}]", "not a text"))
    return tuple(item for item in value if _is_text(item))


def _environment(value: object, faults: list[Fault]) -> Mapping[str, str]:
    """A list of `NAME=value`, as Bacalhau has it, or a map. A name alone has an empty value."""
    path = "Params.EnvironmentVariables"
    if isinstance(value, Mapping):
        pairs = [(f"{path}.{name}", name, text) for name, text in value.items()]
    else:
        listed = _texts("EnvironmentVariables", value, faults)
        pairs = [(f"{path}[{position}]", *text.partition("=")[::2]) for position, text in enumerate(listed)]
    environment: dict[str, str] = {}
    for where, name, text in pairs:
        if not _is_text(name) or not name or "=" in name:
            faults.append(Fault(where, "not the name of a variable"))
        elif not _is_text(text):
            faults.append(Fault(where, "not a text"))
        else:
            environment[name] = text
    return environment


def _folder(value: object, faults: list[Fault]) -> str:
    if isinstance(value, str) and (not value or (_is_text(value) and value.startswith("/"))):
        return value
    faults.append(Fault("Params.WorkingDirectory", "not an absolute path"))
    return ""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value
