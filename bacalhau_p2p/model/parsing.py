"""Parses a job from JSON, YAML or a mapping into a `JobSpec`, and reports every fault with its path.

Keys are accepted in any letter case; the keys of a user's own maps (labels, environments) are not changed.
Keys that a Bacalhau server adds to a job are ignored, so that a job that was read from a server can be
submitted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bacalhau_p2p.errors import Fault, InvalidJob
from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.documents import Format, as_plain, as_text, bounded, read_document
from bacalhau_p2p.model.engine_params import DockerParams, WasmParams
from bacalhau_p2p.model.job import InputSource, JobSpec, NetworkSpec, SpecConfig, Task
from bacalhau_p2p.model.older_jobs import converted, is_older_job
from bacalhau_p2p.model.params import KNOWN_PARAMS
from bacalhau_p2p.model.shapes import Choice, ListOf, Shape, TextMap, fields_of, suggestion
from bacalhau_p2p.model.validation import faults_of, size_faults

_SERVER_FIELDS = frozenset(
    {"id", "state", "version", "revision", "createtime", "modifytime", "evaluationid", "requesterid"}
)

_MAX_FAULTS = 100
"""Faults that are reported. Bounds the work that a malformed job can cause: each fault has a suggestion."""

_WITH_EMPTY_TEXTS = frozenset({JobSpec, Task, DockerParams, WasmParams})
"""In these an empty text means that the key is not given."""

_IGNORED: Mapping[type[Model], frozenset[str]] = {JobSpec: _SERVER_FIELDS}
"""Keys, in lower case, that are allowed and ignored."""


def parse_job(data: bytes | str, *, format: Format = "auto") -> JobSpec:  # noqa: A002
    """The job in a JSON or YAML document, normalised. Raises InvalidJob with all faults."""
    return job_from_mapping(read_document(data, format=format))


def job_from_mapping(value: object) -> JobSpec:
    """The job in plain maps, lists, text and numbers, normalised. Unwraps `{"Job": ...}`.

    Raises InvalidJob with all faults.
    """
    document = bounded(value)
    if document is None:
        raise InvalidJob([Fault("", "the document is empty")])
    if not isinstance(document, dict):
        raise InvalidJob([Fault("", f"a job must be a map, not {_kind(document)}")])
    job = _unwrapped(document)
    return _Parser().parse(converted(job) if is_older_job(job) else job)


class _Parser:
    """Parses one job: corrects the spelling of keys and collects all faults."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._moved: dict[str, str] = {}
        """Maps the path of each lifted module to the path where the user wrote it."""

    def parse(self, job: dict[str, Any]) -> JobSpec:
        canonical = self._model(job, JobSpec, "")
        for index, task in enumerate(_items(canonical.get("Tasks"))):
            self._lift_modules(task, f"Tasks[{index}]")
        spec: JobSpec | None = None
        try:
            spec = JobSpec.from_wire(canonical)
        except ValidationError as error:
            self._faults += faults_of(error)
        if self._faults or spec is None:
            raise InvalidJob(self._faults_where_written())
        if too_large := size_faults(spec):
            raise InvalidJob(too_large)
        if "Verifier" not in canonical and spec.group_size > 1 and spec.task.engine.type == "wasm":
            return spec.replace(verifier=SpecConfig(type="deterministic"))
        return spec

    def _shaped(self, value: Any, shape: Shape, path: str) -> Any:
        """`value` with its keys in their proper spelling. Leaves mismatches of type to pydantic."""
        if isinstance(shape, Choice) and isinstance(value, dict):
            return self._choice(value, shape.field, path)
        if isinstance(shape, ListOf) and isinstance(value, list):
            return [self._shaped(item, shape.item, f"{path}[{i}]") for i, item in enumerate(value)]
        if isinstance(shape, TextMap):
            return _text_map(value)
        if shape is str:
            return as_text(value) if isinstance(value, bool | int | float) else as_plain(value)
        if isinstance(shape, type) and issubclass(shape, Model) and isinstance(value, dict):
            return self._model(value, shape, path)
        return as_plain(value)

    def _model(self, value: dict[str, Any], model: type[Model], path: str) -> dict[str, Any]:
        fields, ignored = fields_of(model), _IGNORED.get(model, frozenset())
        canonical: dict[str, Any] = {}
        for key, item in value.items():
            known = fields.get(key.lower())
            if known is None:
                if key.lower() not in ignored:
                    self._unknown(key, item, model, path)
                continue
            name, shape = known
            where = f"{path}.{name}" if path else name
            if name in canonical:
                self._faults.append(Fault(where, "duplicate key"))
            elif item is not None and not _is_unset(item, shape, model):
                canonical[name] = self._shaped(item, shape, where)
        return canonical

    def _choice(self, value: dict[str, Any], field: str, path: str) -> dict[str, Any]:
        choice = self._model(value, SpecConfig, path)
        params = choice.get("Params")
        name = choice.get("Type")
        model = KNOWN_PARAMS[field].get(name.strip().lower()) if isinstance(name, str) else None
        if model is None or (params is not None and not isinstance(params, dict)):
            return choice
        # Parse `value` again: only the type tells which keys are known and which values must be text.
        params_as_given = next((item for key, item in value.items() if key.lower() == "params"), None)
        where = f"{path}.Params"
        canonical = self._model(params_as_given or {}, model, where)
        lifted = {
            key: canonical[key] for key in ("EntryModule", "ImportModules") if _has_map(canonical.get(key))
        }
        try:
            # A module that is written as an input source is checked as one after it is lifted.
            stand_in = {key: "/module" if key == "EntryModule" else [] for key in lifted}
            checked = model.from_wire({**canonical, **stand_in})
        except ValidationError as error:
            self._faults += faults_of(error, where)
            return {**choice, "Params": canonical}
        return {**choice, "Params": {**_as_given(checked), **lifted}}

    def _lift_modules(self, task: Any, path: str) -> None:
        """Older jobs contain the modules as input sources. Replace each by its target in `InputSources`."""
        engine = task.get("Engine") if isinstance(task, dict) else None
        params = engine.get("Params") if isinstance(engine, dict) else None
        if not isinstance(engine, dict) or not isinstance(params, dict) or engine.get("Type") is None:
            return
        if str(engine["Type"]).strip().lower() != "wasm":
            return
        where = f"{path}.Engine.Params"
        if isinstance(params.get("EntryModule"), dict):
            params["EntryModule"] = self._lift(
                task, params["EntryModule"], "entry.wasm", path, f"{where}.EntryModule"
            )
        if isinstance(modules := params.get("ImportModules"), list):
            params["ImportModules"] = [
                self._lift(task, module, f"import-{i}.wasm", path, f"{where}.ImportModules[{i}]")
                if isinstance(module, dict)
                else module
                for i, module in enumerate(modules)
            ]
        _root_relative_targets(task, params)

    def _lift(self, task: dict[str, Any], module: dict[str, Any], name: str, path: str, where: str) -> Any:
        source = self._model(module, InputSource, where)
        source["Target"] = source.get("Target") or f"/modules/{name}"
        sources = task.setdefault("InputSources", [])
        if isinstance(sources, list):
            self._moved[f"{path}.InputSources[{len(sources)}]"] = where
            sources.append(source)
        return source["Target"]

    def _unknown(self, key: str, item: Any, model: type[Model], path: str) -> None:
        if len(self._faults) >= _MAX_FAULTS:
            return
        where = f"{path}.{key}" if path else key
        if model is JobSpec and key.lower() in {"spec", "apiversion"}:
            problem = "a job has either Tasks, or a Spec as before Bacalhau v1.1; leave out one of them"
            self._faults.append(Fault(where, problem))
        elif model is NetworkSpec and key.lower() == "ports":
            if item:
                self._faults.append(Fault(where, "not supported yet"))
        else:
            self._faults.append(Fault(where, f"unknown key{suggestion(key, model)}"))

    def _faults_where_written(self) -> list[Fault]:
        faults: dict[Fault, None] = {}
        for fault in self._faults:
            path = fault.path
            for moved, written in self._moved.items():
                if path == moved or path.startswith(moved + "."):
                    path = written + path[len(moved) :]
            faults[Fault(path, fault.problem)] = None
        return list(faults)[:_MAX_FAULTS]


def _root_relative_targets(task: dict[str, Any], params: dict[str, Any]) -> None:
    """Bacalhau's clients mount modules at relative paths, which begin at the root of a module's files."""
    relative = set[str]()
    for source in _items(task.get("InputSources")):
        target = source.get("Target") if isinstance(source, dict) else None
        if isinstance(target, str) and target and not target.startswith("/"):
            relative.add(target)
            source["Target"] = f"/{target}"
    if isinstance(entry := params.get("EntryModule"), str) and entry in relative:
        params["EntryModule"] = f"/{entry}"
    if isinstance(imported := params.get("ImportModules"), list):
        params["ImportModules"] = [
            f"/{target}" if isinstance(target, str) and target in relative else target for target in imported
        ]


def _unwrapped(document: dict[str, Any]) -> dict[str, Any]:
    for key, value in document.items():
        if key.lower() == "job" and isinstance(value, dict):
            return value
    return document


def _is_unset(value: Any, shape: Shape, model: type[Model]) -> bool:
    """Whether the value means "not given". Bacalhau writes empty texts, and choices without a type."""
    if value == "" and shape is str:
        return model in _WITH_EMPTY_TEXTS
    if not isinstance(shape, Choice) or not isinstance(value, dict) or shape.field == "Engine":
        return False
    folded = {key.lower(): item for key, item in value.items()}
    return not folded.get("type") and not folded.get("params")


def _text_map(value: Any) -> Any:
    """A map of the user with scalars as text; null becomes the empty text. Lists stay lists."""
    if isinstance(value, dict):
        return {key: "" if item is None else _scalar_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scalar_text(item) for item in value]
    return as_plain(value)


def _scalar_text(value: Any) -> Any:
    return as_text(value) if isinstance(value, bool | int | float) else as_plain(value)


def _as_given(params: Model) -> dict[str, Any]:
    """The given parameters without defaults, which may differ in another version."""
    return params.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _has_map(value: Any) -> bool:
    return isinstance(value, dict) or any(isinstance(item, dict) for item in _items(value))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else "a number"
