"""Builds a job from flags, as plain maps in Bacalhau's shape. Reads and sends nothing, and leaves it to
the parser of jobs to check the values."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import click

from bacalhau_p2p.cli.flag_syntax import parse_publisher, source_params, split_parts
from bacalhau_p2p.client.job_map import (
    INPUTS,
    JSON,
    job_map,
    source_of_url,
    split_scheme,
    with_outputs_folder,
)
from bacalhau_p2p.model.selectors import parse_selector


@dataclass(frozen=True, slots=True)
class InputFlag:
    """An input as a flag names it: a `source`, or a local `path` that has yet to be added to a node.
    `target` is empty if the flag has none; `params` are more of them for the source of what was added."""

    source: JSON
    target: str = ""
    path: str = ""
    params: JSON = field(default_factory=dict)

    def at(self, target: str) -> JSON:
        return {"Target": self.target or target, "Source": self.source}


def parse_input(text: str) -> InputFlag:
    """`SRC[:DST]`, `SRC,dst=DST` or `src=SRC,dst=DST`, each with `,opt=NAME=VALUE`.

    Raises click's usage error.
    """
    parts = split_parts(text)
    source, target = (parts.source, parts.target) if parts.target else _split_target(parts.source)
    if not source:
        raise click.UsageError(f"input {text!r} has no source")
    if target and not target.startswith("/"):
        raise click.UsageError(f"input {text!r}: DST must begin with /, as in dst=/{target}")
    parsed = parse_source(source)
    # What has a path is a CID, or gets one.
    params = source_params(str(parsed.source.get("Type", "ipfs")), parts.options, text)
    if params and parsed.source:
        parsed = InputFlag({**parsed.source, "Params": {**parsed.source["Params"], **params}})
        params = {}
    return InputFlag(parsed.source, target, parsed.path, params)


def relative_target(text: str) -> str:
    """What is behind the last colon of a path that does not exist, if it is meant as DST."""
    source, colon, target = text.rpartition(":")
    return target if colon and source and target and not target.startswith("/") else ""


def parse_source(source: str) -> InputFlag:
    """The source of data; text without a scheme is a local path."""
    scheme, rest = split_scheme(source)
    if not scheme:
        return InputFlag({}, path=source)
    if scheme == "file":
        return InputFlag({}, path=unquote(rest.removeprefix("localhost")))
    try:
        return InputFlag(source_of_url(source))
    except ValueError as error:
        raise click.UsageError(f"{source!r}: {error}; use ipfs, https, http, s3, file or local") from None


def is_single_file(given: InputFlag) -> bool:
    """Whether the input is a file that has its own name in the folder at its target."""
    return "URL" in given.source.get("Params", {})


def check_targets(targets: Sequence[tuple[InputFlag, str]]) -> None:
    """Raises click's usage error when two inputs would be at the same path."""
    seen: dict[str, InputFlag] = {}
    for given, target in targets:
        place = posixpath.normpath(target)
        if place in seen:
            first, second = _named(seen[place]), _named(given)
            raise click.UsageError(
                f"inputs {first} and {second} would both be at {place}; say where each belongs, such as"
                f" -i {first}:{INPUTS}/{_last_part(first) or 'a'}"
                f" -i {second}:{INPUTS}/{_another(_last_part(second), _last_part(first))}"
            )
        seen[place] = given


def _named(given: InputFlag) -> str:
    params = given.source.get("Params", {})
    cid, key = params.get("CID"), params.get("Key")
    if cid:
        return f"ipfs://{cid}"
    return given.path or str(params.get("SourcePath") or f"s3://{params.get('Bucket')}/{key}")


def _last_part(text: str) -> str:
    return posixpath.basename(text.rstrip("/"))


def _another(name: str, taken: str) -> str:
    return name if name and name != taken else f"{name or 'b'}-2"


def parse_outputs(texts: Iterable[str]) -> list[JSON]:
    """Each `NAME:PATH`, and `outputs:/outputs` unless its name or path is used."""
    outputs = []
    for text in texts:
        name, colon, path = text.partition(":")
        if not (name and colon and path):
            raise click.UsageError(f"output {text!r} is not NAME:PATH")
        outputs.append({"Name": name, "Path": path})
    return with_outputs_folder(outputs)


def parse_environment(texts: Iterable[str], here: Mapping[str, str]) -> dict[str, str]:
    """Each `NAME=VALUE`; a `NAME` alone gets its value from the environment `here`."""
    environment = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise click.UsageError(f"--env {text!r} has no name: use NAME=VALUE")
        if not equals:
            if name not in here:
                raise click.UsageError(f"--env {name}: not set in this environment; use {name}=VALUE")
            value = here[name]
        environment[name] = value
    return environment


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Each `KEY=VALUE`, several separated by commas; a `KEY` alone has the empty value.

    Raises click's usage error.
    """
    parts = [part.strip() for text in texts for part in text.split(",")]
    for part in parts:
        if part.startswith("="):
            raise click.UsageError(f"--label {part!r} has no name: use K=V")
    return {key: value for key, _, value in (part.partition("=") for part in parts if part)}


def parse_constraints(selectors: Iterable[str]) -> list[JSON]:
    """What selectors, in the notation of Kubernetes, ask of a node. Raises click's usage error."""
    try:
        return [each for selector in selectors for each in parse_selector(selector)]
    except ValueError as error:
        raise click.UsageError(f"--selector: {error}") from None


def build_job(
    engine: JSON, inputs: Sequence[JSON], flags: Mapping[str, Any], here: Mapping[str, str]
) -> JSON:
    """A job with what the flags of `job_options` set, and nothing more. `here` is the environment of
    this process."""
    publisher = parse_publisher(flags["publisher"]) if flags["publisher"] else None
    if flags["domains"] and flags["network"] != "http":
        raise click.UsageError("--domain needs --network http")
    parts = {
        **flags,
        "inputs": inputs,
        "outputs": parse_outputs(flags["outputs"]),
        "env": parse_environment(flags["env"], here),
        "publisher": publisher,
        "constraints": parse_constraints(flags["constraints"]),
        "labels": parse_labels(flags["labels"]),
    }
    return job_map(engine, parts)


def _split_target(text: str) -> tuple[str, str]:
    # The last colon before a path, but not that of a scheme.
    source, colon, target = text.rpartition(":")
    if colon and target.startswith("/") and not target.startswith("//"):
        return source, target
    return text, ""
