"""Forms that make jobs. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from bacalhau_p2p.errors import Fault, InvalidJob
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping, parse_job

Form = Mapping[str, str]

MODULE_TARGET = "/inputs/main.wasm"

_FIELDS = (
    (r".*\.Engine\.Params\.Image", "image"),
    (r".*\.Engine\.Params\.(EntryModule|ImportModules).*", "module"),
    (r".*\.Engine\.Params\.(Entrypoint|Parameters).*", "command"),
    (r".*\.InputSources.*", "input"),
    (r".*\.Resources\.CPU", "cpu"),
    (r".*\.Resources\.Memory", "memory"),
    (r"Count", "count"),
    (r"Name", "name"),
    (r"Verifier.*", "verify"),
)
"""Where the faults of a job stand on its form."""


def job_of_form(kind: str, form: Form) -> JobSpec:
    """The job of a form: `docker`, `wasm` or `file`. Raises InvalidJob with the faults."""
    if kind == "file":
        return parse_job(form.get("text", ""))
    faults: list[Fault] = []
    job = _with_docker(form, faults) if kind == "docker" else _with_wasm(form, faults)
    count = form.get("count", "").strip() or "1"
    job["Count"] = int(count) if re.fullmatch("[0-9]{1,9}", count) else count
    job["Name"] = form.get("name", "").strip()
    if form.get("verify"):
        job["Verifier"] = {"Type": "deterministic"}
    if faults:
        raise InvalidJob(faults)
    return job_from_mapping(job)


def faults_by_field(faults: list[Fault], kind: str) -> tuple[dict[str, str], list[Fault]]:
    """The faults that belong to a field of the form, and the others."""
    by_field: dict[str, str] = {}
    others: list[Fault] = []
    for fault in faults:
        field = next((name for pattern, name in _FIELDS if re.fullmatch(pattern, fault.path)), "")
        if kind == "file" or not field or field in by_field:
            others.append(fault)
        else:
            by_field[field] = fault.problem
    return by_field, others


def _with_docker(form: Form, faults: list[Fault]) -> dict[str, Any]:
    params = {"Image": form.get("image", "").strip(), "Parameters": _words(form, faults)}
    return {"Tasks": [_task("docker", params, form, [])]}


def _with_wasm(form: Form, faults: list[Fault]) -> dict[str, Any]:
    module = form.get("module", "").strip()
    if not module:
        faults.append(Fault("Tasks[0].Engine.Params.EntryModule", "missing"))
    params = {
        "EntryModule": {"Source": _source(module), "Target": MODULE_TARGET} if module else "",
        "Parameters": _words(form, faults),
    }
    return {"Tasks": [_task("wasm", params, form, [])]}


def _task(engine: str, params: dict[str, Any], form: Form, inputs: list[Any]) -> dict[str, Any]:
    given = form.get("input", "").strip()
    if given:
        inputs = [*inputs, {"Target": "/inputs", "Source": _source(given)}]
    resources = {key: form.get(key.lower(), "").strip() for key in ("CPU", "Memory")}
    return {
        "Name": "main",
        "Engine": {"Type": engine, "Params": params},
        "Publisher": {"Type": "ipfs"},
        "InputSources": inputs,
        "ResultPaths": [{"Name": "outputs", "Path": "/outputs"}],
        "Resources": {key: value for key, value in resources.items() if value},
    }


def _words(form: Form, faults: list[Fault]) -> list[str]:
    try:
        return shlex.split(form.get("command", ""))
    except ValueError as error:
        faults.append(Fault("Tasks[0].Engine.Params.Parameters", f"cannot be split into words: {error}"))
        return []


def _source(text: str) -> dict[str, Any]:
    if text.startswith(("http://", "https://")):
        return {"Type": "urlDownload", "Params": {"URL": text}}
    return {"Type": "ipfs", "Params": {"CID": text.removeprefix("ipfs://")}}
