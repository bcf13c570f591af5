"""The types of the fields of a job. Any peer may send a job, so each has a limit."""

from __future__ import annotations

from collections.abc import Sized
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from bacalhau_p2p.encoding.cids import binary_of_text, text_of_binary
from bacalhau_p2p.errors import InvalidCID
from bacalhau_p2p.model.quantities import parse_timeout

MAX_COUNT = 1000
"""Executions of one job that are accepted at the same time."""

MAX_ENTRIES = 256
"""Entries of a list or map (labels, inputs, constraints, ...) other than a command line."""

MAX_ARGUMENTS = 4096
"""Words of a command line."""

MAX_ARGUMENT = 128 * 1024
"""Characters of one argument, and of the value of an environment variable."""
MAX_ARGUMENT_BYTES = 128 * 1024
"""What Linux lets a program have for one argument or `NAME=VALUE`, with the NUL at its end."""

MAX_SPEC = 256 * 1024
"""Bytes of a job as JSON. It is broadcast to all nodes, so data belongs in inputs."""

RESERVED_ENVIRONMENT = "BACALHAU_"
"""The prefix of variables that the node sets."""

RESERVED_RESULTS = frozenset({"stdout", "stderr", "exitCode"})
"""Names in the results folder that the node writes."""


def _check_few(value: object) -> object:
    """Before any item is validated: naming the faults of 100,000 items takes seconds."""
    if isinstance(value, Sized) and len(value) > MAX_ENTRIES:
        raise ValueError(f"must have at most {MAX_ENTRIES} entries")
    return value


FEW = BeforeValidator(_check_few)
"""Limits a list or map to MAX_ENTRIES entries."""


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must be an absolute path, which begins with /")
    if "\0" in path or ".." in path.split("/"):
        raise ValueError("must not contain '..' or NUL")
    return path


def _mount_point(path: str) -> str:
    """Without what changes nothing: `/outputs/` and `//outputs/./` are `/outputs`."""
    parts = [part for part in _absolute(path).split("/") if part not in ("", ".")]
    if not parts:
        raise ValueError("must not be the root folder")
    return "/" + "/".join(parts)


def _entry_name(name: str) -> str:
    if "/" in name or "\0" in name or name in {".", ".."} or len(name.encode()) > 255:
        raise ValueError("must be a file name of at most 255 bytes without '/'")
    if name in RESERVED_RESULTS:
        raise ValueError(f"{name} is reserved")
    return name


def _environment_name(name: str) -> str:
    if "=" in name or "\0" in name:
        raise ValueError("name must not contain '=' or NUL")
    if name.upper().startswith(RESERVED_ENVIRONMENT):
        raise ValueError(f"names that start with {RESERVED_ENVIRONMENT} are reserved")
    return name


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


def _cid(text: str) -> str:
    try:
        return text_of_binary(binary_of_text(text))
    except InvalidCID as error:
        raise ValueError(str(error)) from None


def check_argument(text: str) -> str:
    """An argument of a program on Linux. Raises ValueError."""
    if len(text) > MAX_ARGUMENT_BYTES // 4 - 1 and len(text.encode()) >= MAX_ARGUMENT_BYTES:
        raise ValueError(f"must have less than {MAX_ARGUMENT_BYTES:,} bytes, because Linux allows no more")
    return text


def check_variable(name: str, value: str) -> None:
    """An environment variable of a program on Linux. Raises ValueError."""
    try:
        check_argument(f"{name}={value}")
    except ValueError as error:
        raise ValueError(f"the variable {name[:64]} with its name {error}") from None


CIDText = Annotated[str, AfterValidator(_cid)]
"""A CID in its usual text, whichever form it had: letters and digits only, safe to print and in a path."""

Line = Annotated[str, StringConstraints(max_length=256)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Value = Annotated[str, StringConstraints(max_length=4096)]
TypeName = Annotated[
    str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True, to_lower=True)
]
"""The type of an engine, source, publisher or verifier, in lower case: Bacalhau ignores its case."""

AbsolutePath = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_absolute)]
MountPoint = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_mount_point)]
EntryName = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_entry_name)]
"""The name of an entry in the results folder."""

EnvironmentName = Annotated[
    str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_environment_name)
]
EnvironmentValue = Annotated[str, StringConstraints(max_length=MAX_ARGUMENT), AfterValidator(_no_nul)]
Argument = Annotated[str, StringConstraints(max_length=MAX_ARGUMENT), AfterValidator(_no_nul)]

Seconds = Annotated[float, BeforeValidator(parse_timeout)]
"""Seconds of a timeout; more than a year means a year."""
