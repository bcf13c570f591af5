"""Builds job specs from arguments: `docker("busybox", "wc", "-w", "/inputs/a.txt", inputs={"/inputs": cid})`.

What is wrong is said with the name of the argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypedDict

from typing_extensions import Unpack

from bacalhau_p2p.client.job_map import (
    INPUTS,
    JSON,
    MODULES,
    docker_engine,
    ipfs_source,
    job_map,
    source_of_url,
    split_scheme,
    wasm_engine,
)
from bacalhau_p2p.client.job_places import DOCKER_PLACES, PLACES, WASM_PLACES, numbered, renamed
from bacalhau_p2p.errors import Fault, InvalidCID, InvalidJob
from bacalhau_p2p.ipfs.files.reader import split_path
from bacalhau_p2p.model.job import InputSource, JobSpec, SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.selectors import parse_selector

InputLike = str | Mapping[str, Any] | SpecConfig
"""Where an input comes from: a CID or `CID/path`, a URL (ipfs, https, http, s3, local), or a source in
Bacalhau's shape, such as `{"Type": "git", "Params": {"URL": ...}}`."""


class JobOptions(TypedDict, total=False):
    """What every kind of job may say. All of it is optional."""

    name: str
    """Shown in lists; commands take it for an id."""
    namespace: str
    labels: Mapping[str, str]
    type: Literal["batch", "ops"]
    """`ops`: once on every node that matches now."""
    count: int
    """On how many nodes it runs, or into how many partitions it is divided."""
    replicas: int
    """Divides it: each of its `count` partitions is run by so many nodes."""
    constraints: str | Sequence[str]
    """Only on nodes whose labels match, such as `zone=lab,!slow`."""
    priority: int
    verifier: str
    """`noop` or `deterministic`."""
    confidence: int
    """How many equal results are enough."""
    min_bids: int
    """How many bids to wait for before any is accepted."""
    keep_failed_results: bool
    """Keep what failed executions leave in their outputs, for a day."""
    inputs: Mapping[str, InputLike]
    """By the absolute path where the job finds it."""
    outputs: Mapping[str, str]
    """Folders of the job that are kept, by their name in the results; `outputs` at `/outputs` always is."""
    env: Mapping[str, str]
    publisher: str | Mapping[str, Any]
    """`ipfs`, `local`, ..., or a publisher in Bacalhau's shape."""
    cpu: float | str
    """Cores, such as 0.5."""
    memory: int | str
    """Bytes, or text such as `256mb`."""
    disk: int | str
    gpu: int
    network: Literal["none", "http", "full"]
    domains: Sequence[str]
    """That `network="http"` allows."""
    timeout: float | str
    """For one run: seconds, or text such as `30m`."""
    queue_timeout: float | str
    """To find nodes for it."""
    total_timeout: float | str
    """For all of it, retries included."""


def docker(
    image: str,
    *command: str,
    entrypoint: Sequence[str] = (),
    workdir: str | None = None,
    **options: Unpack[JobOptions],
) -> JobSpec:
    """A job that runs `command` in a container of `image`.

    docker("busybox", "sh", "-c", "wc -w /inputs/* > /outputs/count", inputs={"/inputs": cid}, memory="256mb")

    `entrypoint` replaces that of the image, `workdir` is the folder to run in; for the rest see `JobOptions`.
    Raises InvalidJob, and TypeError for an unknown argument.
    """
    engine = docker_engine(image, command, entrypoint=_words(entrypoint, "entrypoint"), workdir=workdir)
    return _build("docker", engine, options, DOCKER_PLACES)


def wasm(
    module: InputLike,
    *arguments: str,
    entrypoint: str | None = None,
    imports: Sequence[InputLike] = (),
    **options: Unpack[JobOptions],
) -> JobSpec:
    """A job that runs a WebAssembly module, given by its CID, URL or source, with `arguments`.

    `entrypoint` is an exported function, `_start` by default; `imports` are modules to link; for the rest see
    `JobOptions`. Raises InvalidJob, and TypeError for an unknown argument.
    """
    entry = _input(f"{MODULES}/entry.wasm", module, "module")
    linked = [
        _input(f"{MODULES}/import-{number}.wasm", each, f"imports[{number}]")
        for number, each in enumerate(imports)
    ]
    engine = wasm_engine(
        entry["Target"], arguments, entrypoint=entrypoint, imports=[each["Target"] for each in linked]
    )
    return _build("wasm", engine, options, WASM_PLACES, modules=[entry, *linked])


def divided(
    source: InputLike,
    by: Literal["object", "regex", "substring", "date"] = "object",
    *,
    pattern: str = "",
    start_index: int = 0,
    end_index: int = 0,
    date_format: str = "",
) -> dict[str, Any]:
    """An input whose files are divided among the `count` partitions of its job: a folder by CID, or an S3
    prefix. Files with an equal key are in the same partition.

    docker("busybox", "sh", "-c", "wc -w /inputs/*", inputs={"/inputs": divided(cid)}, count=8)

    `by` says what the key is: `object` the path; `regex` what `pattern` matches of it; `substring` its
    characters from `start_index` up to `end_index`; `date` the date at its beginning, written as in
    `date_format` (`2006-01-02`). Raises InvalidJob for what is no source.
    """
    partition = {
        "Type": by,
        "Pattern": pattern,
        "StartIndex": start_index,
        "EndIndex": end_index,
        "DateFormat": date_format,
    }
    plain = _source(source, "source")
    return {
        **plain,
        "Params": {**plain.get("Params", {}), "Partition": {k: v for k, v in partition.items() if v}},
    }


def with_input(spec: JobSpec, source: object, target: str = INPUTS) -> JobSpec:
    """The same job with this input (an `InputLike`) at `target`, instead of the one that is there.

    Raises InvalidJob."""
    added = InputSource.from_wire(_input(target, source, "input"))
    others = [each for each in spec.task.input_sources if each.target != added.target]
    task = spec.task.replace(input_sources=(*others, added))
    return job_from_mapping(spec.replace(tasks=(task,)).model_dump(mode="json", by_alias=True))


def _build(
    builder: str,
    engine: JSON,
    options: JobOptions,
    arguments: Mapping[str, str],
    *,
    modules: Sequence[JSON] = (),
) -> JobSpec:
    _check_names(builder, options)
    mounts = options.get("inputs") or {}
    outputs = options.get("outputs") or {}
    publisher = options.get("publisher")
    parts: dict[str, Any] = {
        **options,
        "inputs": [*modules, *(_input(target, mounts[target], f"inputs[{target!r}]") for target in mounts)],
        "outputs": [{"Name": name, "Path": path} for name, path in outputs.items()],
        "publisher": {"Type": publisher} if isinstance(publisher, str) else publisher,
        "constraints": _constraints(options.get("constraints") or ()),
        "domains": list(_words(options.get("domains") or (), "domains")),
    }
    places = {
        **PLACES,
        **arguments,
        **numbered("InputSources", [*("module" for _ in modules), *(f"inputs[{each!r}]" for each in mounts)]),
        **numbered("ResultPaths", [f"outputs[{name!r}]" for name in outputs]),
    }
    try:
        return job_from_mapping(job_map(engine, parts))
    except InvalidJob as error:
        raise InvalidJob([renamed(fault, places) for fault in error.faults]) from None


def _check_names(builder: str, options: Mapping[str, Any]) -> None:
    known = JobOptions.__annotations__
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{builder}() has no argument {name!r}{hint}")


def _input(target: str, source: object, argument: str) -> JSON:
    return {"Target": target, "Source": _source(source, argument)}


def _source(source: object, argument: str) -> JSON:
    if isinstance(source, SpecConfig):
        return source.model_dump(mode="json", by_alias=True)
    if isinstance(source, Mapping):
        return dict(source)
    if not isinstance(source, str | Path):
        raise _fault(argument, f"must be a CID, a URL or a source, not {type(source).__name__}")
    scheme, _ = split_scheme(str(source))
    if scheme in ("", "file") and not _is_content_path(source):
        problem = f"{str(source)!r} is neither a CID nor a URL"
        raise _fault(argument, f"{problem}; add a local file or folder first: await client.add(...)")
    if not scheme:
        return ipfs_source(str(source).removeprefix("/ipfs/"))
    try:
        return source_of_url(str(source))
    except ValueError as error:
        raise _fault(argument, f"{error} in {source!r}; use ipfs, https, http, s3 or local") from None


def _is_content_path(source: str | Path) -> bool:
    try:
        split_path(str(source))
    except InvalidCID:
        return False
    return True


def _words(value: Sequence[str], argument: str) -> Sequence[str]:
    """Guards against a text where a list is meant: it would be taken apart into characters."""
    if isinstance(value, str):
        raise _fault(argument, f"must be a list of words, such as [{value!r}]")
    return value


def _constraints(given: str | Sequence[str]) -> list[JSON]:
    try:
        selectors = [given] if isinstance(given, str) else given
        return [each for selector in selectors for each in parse_selector(selector)]
    except ValueError as error:
        raise _fault("constraints", str(error)) from None


def _fault(argument: str, problem: str) -> InvalidJob:
    return InvalidJob([Fault(argument, problem)])
