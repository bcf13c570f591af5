"""Jobs of Bacalhau v1.0 (`APIVersion` and `Spec`), rewritten as jobs of today.

Values are taken over as they are: whatever is wrong with them is found when the new job is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bacalhau_p2p.errors import Fault, InvalidJob

JSON = dict[str, Any]

_MEANINGLESS = frozenset({"donottrack", "executionplan", "sharding"})
"""Keys of a spec that change nothing about how a job runs."""


def is_older_job(document: Mapping[str, Any]) -> bool:
    """Whether this is a job of v1.0: it has a spec instead of tasks."""
    keys = {key.lower() for key in document}
    return "spec" in keys and "tasks" not in keys


def converted(document: Mapping[str, Any]) -> JSON:
    """The job of today that means the same. Raises InvalidJob for what there is no more."""
    spec = _folded(_folded(document).get("spec"))
    engine = _type(spec)
    convert = _ENGINES.get(engine)
    if convert is None:
        raise InvalidJob(
            [Fault("Spec.Engine", f"{engine or 'missing'}: only docker, wasm and noop jobs of v1.0 can run")]
        )
    known = _MEANINGLESS | _KEYS
    if unknown := [key for key, value in spec.items() if key not in known and not _is_empty(value)]:
        raise InvalidJob(
            [
                Fault(f"Spec.{key}", "unknown key of a job of v1.0; write the job with Tasks")
                for key in unknown
            ]
        )
    deal, outputs = _folded(spec.get("deal")), _items(spec.get("outputs"))
    labels = {str(label): "" for label in _items(spec.get("annotations"))}
    task = {
        "Engine": {"Type": engine, "Params": convert(spec)},
        "InputSources": [_input(each) for each in _items(spec.get("inputs"))],
        "ResultPaths": [{"Name": o.get("name"), "Path": o.get("path")} for o in map(_folded, outputs)],
        "Publisher": _folded_choice(spec.get("publisherspec")) or _named(spec.get("publisher")),
        "Resources": spec.get("resources"),
        "Network": spec.get("network"),
        "Timeouts": {"ExecutionTimeout": spec["timeout"]} if spec.get("timeout") else None,
    }
    verifier = _named(spec.get("verifier"))
    if verifier is not None and deal.get("confidence"):
        verifier["Params"] = {"Confidence": deal["confidence"]}
    return {
        "Count": deal.get("concurrency") or 1,
        "Deal": {"MinBids": deal["minbids"]} if deal.get("minbids") else None,
        "Verifier": verifier,
        "Labels": labels,
        "Constraints": spec.get("nodeselectors"),
        "Tasks": [task],
    }


_KEYS = frozenset(
    {
        "engine",
        "enginespec",
        "verifier",
        "publisher",
        "publisherspec",
        "docker",
        "wasm",
        "resources",
        "network",
        "timeout",
        "inputs",
        "outputs",
        "annotations",
        "nodeselectors",
        "deal",
    }
)


def _type(spec: Mapping[str, Any]) -> str:
    chosen = spec.get("engine") or _folded(spec.get("enginespec")).get("type")
    return chosen.strip().lower() if isinstance(chosen, str) else ""


def _docker(spec: Mapping[str, Any]) -> JSON:
    params = _params(spec, "docker")
    names = ("Image", "Entrypoint", "Parameters", "EnvironmentVariables", "WorkingDirectory")
    return {name: params[name.lower()] for name in names if params.get(name.lower())}


def _wasm(spec: Mapping[str, Any]) -> JSON:
    params = _params(spec, "wasm")
    found = {
        "EntryModule": _module(params.get("entrymodule")),
        "ImportModules": [_module(each) for each in _items(params.get("importmodules"))],
        "Entrypoint": params.get("entrypoint"),
        "Parameters": params.get("parameters"),
        "EnvironmentVariables": params.get("environmentvariables"),
    }
    return {name: value for name, value in found.items() if value}


def _noop(spec: Mapping[str, Any]) -> JSON:
    return {}


_ENGINES: Mapping[str, Callable[[Mapping[str, Any]], JSON]] = {
    "docker": _docker,
    "wasm": _wasm,
    "noop": _noop,
}


def _params(spec: Mapping[str, Any], engine: str) -> JSON:
    """The parameters of the engine: v1.0.3 writes them twice."""
    return _folded(spec.get(engine)) or _folded(_folded(spec.get("enginespec")).get("params"))


def _input(value: Any) -> JSON:
    given = _folded(value)
    return {"Source": _source(given), "Target": given.get("path") or "/inputs", "Alias": given.get("name")}


def _module(value: Any) -> JSON:
    """A module as an input source, which is given a target when the job is parsed."""
    given = _folded(value)
    return {"Source": _source(given), "Target": given.get("path"), "Alias": given.get("name")}


def _source(given: Mapping[str, Any]) -> JSON:
    kind = str(given.get("storagesource") or "").lower()
    s3 = dict(_folded(given.get("s3")))
    if "checksum" in s3:
        s3["checksumsha256"] = s3.pop("checksum")
    params: Mapping[str, JSON] = {
        "ipfs": {"CID": given.get("cid")},
        "urldownload": {"URL": given.get("url")},
        "inline": {"URL": given.get("url")},
        "s3": s3,
        "localdirectory": {"SourcePath": given.get("sourcepath"), "ReadWrite": given.get("readwrite")},
        "repoclone": {"URL": given.get("repo")},
    }
    return {"Type": "git" if kind == "repoclone" else kind, "Params": params.get(kind, {})}


def _named(kind: Any) -> JSON | None:
    return {"Type": kind} if isinstance(kind, str) and kind else None


def _folded_choice(value: Any) -> JSON | None:
    given = _folded(value)
    return {"Type": given["type"], "Params": given.get("params")} if given.get("type") else None


def _folded(value: Any) -> JSON:
    """A map with its keys in lower case; empty for anything else."""
    return {str(key).lower(): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_empty(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_empty(item) for item in value.values())
    return not value
