"""A job from its parts, as plain maps in Bacalhau's shape: for flags of the command line and for builders in
Python. Leaves it to the parser of jobs to check the values. Imports nothing slow."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

JSON = dict[str, Any]

INPUTS = "/inputs"
OUTPUTS = {"Name": "outputs", "Path": "/outputs"}
MODULES = "/modules"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def job_map(engine: JSON, parts: Mapping[str, Any]) -> JSON:
    """A job with these parts and nothing more. Its maps and lists are in Bacalhau's shape: `inputs` and
    `outputs`, `publisher`, `verifier` and `constraints`."""
    task = given(
        {
            "Name": parts.get("task_name") or "main",
            "Engine": engine,
            "InputSources": list(parts.get("inputs") or ()),
            "ResultPaths": with_outputs_folder(parts.get("outputs") or ()),
            "Env": dict(parts.get("env") or {}),
            "Publisher": parts.get("publisher"),
            "Resources": _renamed(parts, CPU="cpu", Memory="memory", Disk="disk", GPU="gpu"),
            "Network": _renamed(parts, Type="network", Domains="domains"),
            "Timeouts": _renamed(
                parts,
                ExecutionTimeout="timeout",
                QueueTimeout="queue_timeout",
                TotalTimeout="total_timeout",
            ),
        }
    )
    return given(
        {
            "Name": parts.get("name"),
            "Namespace": parts.get("namespace"),
            "Type": parts.get("type") or "batch",
            "Priority": parts.get("priority"),
            "Count": parts.get("count"),
            "Constraints": parts.get("constraints"),
            "Labels": dict(parts.get("labels") or {}),
            "Verifier": verifier_map(parts.get("verifier"), parts.get("confidence")),
            "Deal": _renamed(parts, MinBids="min_bids", Replicas="replicas"),
            "KeepFailedResults": parts.get("keep_failed_results") or None,
            "Tasks": [task],
        }
    )


def docker_engine(
    image: str, arguments: Sequence[str], *, entrypoint: Sequence[str], workdir: str | None
) -> JSON:
    params = {
        "Image": image,
        "Entrypoint": list(entrypoint),
        "Parameters": list(arguments),
        "WorkingDirectory": workdir or None,
    }
    return {"Type": "docker", "Params": given(params)}


def wasm_engine(
    module: str, arguments: Sequence[str], *, entrypoint: str | None, imports: Sequence[str] = ()
) -> JSON:
    """`module` and `imports` are targets of inputs."""
    params = {
        "EntryModule": module,
        "ImportModules": list(imports),
        "Entrypoint": entrypoint or None,
        "Parameters": list(arguments),
    }
    return {"Type": "wasm", "Params": given(params)}


def verifier_map(kind: str | None, confidence: int | None) -> JSON:
    if kind is None and confidence is not None:
        kind = "deterministic"  # the only verifier with a confidence
    if kind is None:
        return {}
    return {"Type": kind, "Params": given({"Confidence": confidence})}


def with_outputs_folder(outputs: Sequence[JSON]) -> list[JSON]:
    """These outputs, and `outputs:/outputs` unless its name or path is used."""
    paths = {posixpath.normpath(output["Path"]) for output in outputs}
    if OUTPUTS["Path"] in paths or any(output["Name"] == OUTPUTS["Name"] for output in outputs):
        return list(outputs)
    return [*outputs, dict(OUTPUTS)]


def ipfs_source(cid: str) -> JSON:
    return {"Type": "ipfs", "Params": {"CID": cid}}


def split_scheme(text: str) -> tuple[str, str]:
    """The scheme of a URL in lower case, and what follows `://`; no scheme for any other text."""
    match = _SCHEME.fullmatch(text)
    return (match[1].lower(), match[2]) if match is not None else ("", text)


def source_of_url(url: str) -> JSON:
    """The source that a URL names. Raises ValueError for an unknown scheme."""
    scheme, rest = split_scheme(url)
    if scheme == "ipfs":
        return ipfs_source(rest.strip("/"))
    if scheme in {"http", "https"}:
        return {"Type": "urlDownload", "Params": {"URL": url}}
    if scheme in {"local", "localdirectory"}:
        return {"Type": "localDirectory", "Params": {"SourcePath": rest}}
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        return {"Type": "s3", "Params": {"Bucket": bucket, "Key": key}}
    raise ValueError(f"unknown scheme {scheme}")


def given(values: Mapping[str, Any]) -> JSON:
    """Without what is empty."""
    return {key: value for key, value in values.items() if value not in (None, {}, [])}


def _renamed(parts: Mapping[str, Any], **names: str) -> JSON:
    values = {key: parts.get(name) for key, name in names.items()}
    return given({key: list(value) if isinstance(value, tuple) else value for key, value in values.items()})
