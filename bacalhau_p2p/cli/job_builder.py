"""Builds a job from flags, as plain maps in Bacalhau's shape. Reads and sends nothing, and leaves it to
the parser of jobs to check the values."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import click

from bacalhau_p2p.cli.flag_syntax import parse_publisher, source_params, split_parts
from bacalhau_p2p.model.selectors import parse_selector

JSON = dict[str, Any]

INPUTS = "/inputs"
OUTPUTS = {"Name": "outputs", "Path": "/outputs"}
MODULES = "/modules"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class InputFlag:
    """An input as a flag names it: a `source`, or a local `path` that has yet to be added to a node.
    `target` is empty if the flag has none."""

    source: JSON
    target: str = ""
    path: str = ""

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
        raise click.UsageError(f"input {text!r}: {target} is not an absolute path")
    parsed = parse_source(source)
    options = source_params(str(parsed.source.get("Type", "")), parts.options, text)
    if options:
        params = {**parsed.source["Params"], **options}
        parsed = InputFlag({**parsed.source, "Params": params}, path=parsed.path)
    return InputFlag(parsed.source, target, parsed.path)


def parse_source(source: str) -> InputFlag:
    """The source of data; text without a scheme is a local path."""
    match = _SCHEME.fullmatch(source)
    if match is None:
        return InputFlag({}, path=source)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return InputFlag({}, path=unquote(rest.removeprefix("localhost")))
    if scheme == "ipfs":
        return InputFlag(ipfs_source(rest.strip("/")))
    if scheme in {"http", "https"}:
        return InputFlag({"Type": "urlDownload", "Params": {"URL": source}})
    if scheme in {"local", "localdirectory"}:
        return InputFlag({"Type": "localDirectory", "Params": {"SourcePath": rest}})
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        return InputFlag({"Type": "s3", "Params": {"Bucket": bucket, "Key": key}})
    raise click.UsageError(f"{source!r}: unknown scheme {scheme}; use ipfs, https, http, s3, file or local")


def ipfs_source(cid: str) -> JSON:
    return {"Type": "ipfs", "Params": {"CID": cid}}


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
    paths = {posixpath.normpath(output["Path"]) for output in outputs}
    if OUTPUTS["Path"] not in paths and all(output["Name"] != OUTPUTS["Name"] for output in outputs):
        outputs.append(dict(OUTPUTS))
    return outputs


def parse_environment(texts: Iterable[str], here: Mapping[str, str]) -> dict[str, str]:
    """Each `NAME=VALUE`; a `NAME` alone gets its value from the environment `here`."""
    environment = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            if name not in here:
                raise click.UsageError(f"--env {name}: not set in this environment; use {name}=VALUE")
            value = here[name]
        environment[name] = value
    return environment


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Each `KEY=VALUE`, several separated by commas; a `KEY` alone has the empty value."""
    parts = (part.strip() for text in texts for part in text.split(","))
    return {key: value for key, _, value in (part.partition("=") for part in parts if part)}


def parse_constraints(selectors: Iterable[str]) -> list[JSON]:
    """What selectors, in the notation of Kubernetes, ask of a node. Raises click's usage error."""
    try:
        return [each for selector in selectors for each in parse_selector(selector)]
    except ValueError as error:
        raise click.UsageError(f"--constraints: {error}") from None


def docker_engine(
    image: str, arguments: Sequence[str], *, entrypoint: Sequence[str], workdir: str | None
) -> JSON:
    params: JSON = {"Image": image}
    if entrypoint:
        params["Entrypoint"] = list(entrypoint)
    if arguments:
        params["Parameters"] = list(arguments)
    if workdir:
        params["WorkingDirectory"] = workdir
    return {"Type": "docker", "Params": params}


def wasm_engine(
    module: str, arguments: Sequence[str], *, entrypoint: str | None, imports: Sequence[str] = ()
) -> JSON:
    """`module` and `imports` are targets of inputs."""
    params: JSON = {"EntryModule": module}
    if imports:
        params["ImportModules"] = list(imports)
    if entrypoint:
        params["Entrypoint"] = entrypoint
    if arguments:
        params["Parameters"] = list(arguments)
    return {"Type": "wasm", "Params": params}


def build_job(
    engine: JSON, inputs: Sequence[JSON], flags: Mapping[str, Any], here: Mapping[str, str]
) -> JSON:
    """A job with what the flags of `job_options` set, and nothing more. `here` is the environment of
    this process."""
    task = _given(
        {
            "Name": flags["task_name"] or "main",
            "Engine": engine,
            "InputSources": list(inputs),
            "ResultPaths": parse_outputs(flags["outputs"]),
            "Env": parse_environment(flags["env"], here),
            "Publisher": parse_publisher(flags["publisher"]) if flags["publisher"] else {},
            "Resources": _given(
                {
                    "CPU": flags["cpu"],
                    "Memory": flags["memory"],
                    "Disk": flags["disk"],
                    "GPU": flags["gpu"],
                }
            ),
            "Network": _given({"Type": flags["network"], "Domains": list(flags["domains"])}),
            "Timeouts": _given(
                {
                    "ExecutionTimeout": flags["timeout"],
                    "QueueTimeout": flags["queue_timeout"],
                    "TotalTimeout": flags["total_timeout"],
                }
            ),
        }
    )
    return _given(
        {
            "Name": flags["name"],
            "Namespace": flags["namespace"],
            "Type": "batch",
            "Priority": flags["priority"],
            "Count": flags["count"],
            "Constraints": parse_constraints(flags["constraints"]),
            "Labels": parse_labels(flags["labels"]),
            "Verifier": _verifier(flags["verifier"], flags["confidence"]),
            "Deal": _given({"MinBids": flags["min_bids"]}),
            "Tasks": [task],
        }
    )


def _verifier(type_: str | None, confidence: int | None) -> JSON:
    if type_ is None and confidence is not None:
        type_ = "deterministic"  # the only verifier with a confidence
    if type_ is None:
        return {}
    return {"Type": type_, "Params": _given({"Confidence": confidence})}


def _given(values: Mapping[str, Any]) -> JSON:
    return {key: value for key, value in values.items() if value not in (None, {}, [])}


def _split_target(text: str) -> tuple[str, str]:
    # The last colon before a path, but not that of a scheme.
    source, colon, target = text.rpartition(":")
    if colon and target.startswith("/") and not target.startswith("//"):
        return source, target
    return text, ""
