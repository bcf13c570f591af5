"""Job files with variables: `{{.name}}`, as in templates of Go, which Bacalhau's users write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import click

_VARIABLE = re.compile(rb"\{\{\s*\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_ACTION = re.compile(rb"\{\{[^{}]*\}\}")


def variables_of(assignments: Iterable[str], names: str | None, here: Mapping[str, str]) -> dict[str, str]:
    """Each `NAME=VALUE`, several separated by commas, and the variables `here` whose names match.

    Raises click's usage error.
    """
    try:
        wanted = re.compile(names) if names else None
    except re.error as error:
        raise click.UsageError(f"--template-envs {names!r} is no regular expression: {error}") from None
    found = {name: value for name, value in here.items() if wanted is not None and wanted.fullmatch(name)}
    for text in (part for given in assignments for part in re.split(r",(?=[A-Za-z_]\w*=)", given)):
        name, equals, value = text.partition("=")
        if not (equals and name):
            raise click.UsageError(f"--template-vars {text!r} is not NAME=VALUE")
        found[name] = value
    return found


def filled_in(document: bytes, variables: Mapping[str, str]) -> bytes:
    """The document with values in place of its variables. Raises click's usage error for one without value,
    and for whatever else Go's templates can do."""

    def value(match: re.Match[bytes]) -> bytes:
        name = match[1].decode()
        if name not in variables:
            raise click.UsageError(f"the job file uses {{{{.{name}}}}}: set it with -V {name}=VALUE")
        return variables[name].encode(errors="surrogateescape")

    filled = _VARIABLE.sub(value, document)
    left = _ACTION.search(_VARIABLE.sub(b"", document))
    if left is not None:
        shown = left[0].decode(errors="replace")
        raise click.UsageError(f"{shown} in the job file is not supported; only {{{{.NAME}}}} is")
    return filled
