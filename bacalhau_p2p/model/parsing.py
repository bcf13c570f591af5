"""From what a user wrote (JSON, YAML or a mapping) to a `JobSpec`, with every fault named by its path.

Keys are ours in any letter case, at every level whose keys we know; the keys of a user's own maps
(labels, environments) stay as they are. What a Bacalhau server adds to a job is ignored, so that a
job that was read from one can be submitted again.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError

from bacalhau_p2p.errors import Fault, InvalidJob
from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.documents import Format, as_plain, as_text, bounded, read_document
from bacalhau_p2p.model.job import InputSource, JobSpec, NetworkSpec, SpecConfig, Task
from bacalhau_p2p.model.params import KNOWN_PARAMS
from bacalhau_p2p.model.validation import faults_of, size_faults

_SERVER_FIELDS = frozenset(
    {"id", "state", "version", "revision", "createtime", "modifytime", "evaluationid", "requesterid"}
)

_MAX_FAULTS = 100
"""Nobody mends more than these in one go, and a peer's garbage must not cost us a suggestion each."""

_IGNORED: Mapping[type[Model], frozenset[str]] = {JobSpec: _SERVER_FIELDS}
"""Keys, in lower case, that are neither used nor wrong."""


def parse_job(data: bytes | str, *, format: Format = "auto") -> JobSpec:  # noqa: A002
    """The job that JSON or YAML text describes, in normal form. Raises InvalidJob with all faults."""
    return job_from_mapping(read_document(data, format=format))


def job_from_mapping(value: object) -> JobSpec:
    """The job that plain maps, lists, text and numbers describe, in normal form; `{"Job": ...}` is
    unwrapped. Raises InvalidJob with all faults."""
    document = bounded(value)
    if document is None:
        raise InvalidJob([Fault("", "there is no job: the document is empty")])
    if not isinstance(document, dict):
        raise InvalidJob([Fault("", f"a job must be a map, not {_kind(document)}")])
    return _Reader().read(_unwrapped(document))


# --- the shapes that a job is made of ------------------------------------------------------


class _ListOf:
    def __init__(self, item: _Shape) -> None:
        self.item = item


class _TextMap:
    """A map whose keys are the user's own."""


class _Choice:
    """A `SpecConfig`: which parameters it knows depends on the field that it stands in."""

    def __init__(self, field: str) -> None:
        self.field = field


_Shape = type[Any] | _ListOf | _TextMap | _Choice


@lru_cache(maxsize=256)
def _fields(model: type[Model]) -> dict[str, tuple[str, _Shape]]:
    """The keys of a model in lower case, each with its own spelling and what stands behind it."""
    found: dict[str, tuple[str, _Shape]] = {}
    for field in model.model_fields.values():
        assert field.alias is not None
        found[field.alias.lower()] = (field.alias, _shape(field.annotation, field.alias))
    return found


def _shape(annotation: Any, field: str) -> _Shape:
    if get_origin(annotation) is Annotated:
        return _shape(get_args(annotation)[0], field)
    if annotation is SpecConfig:
        return _Choice(field)
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if get_origin(annotation) is tuple:
        return _ListOf(_shape(arguments[0], field))
    if get_origin(annotation) is Mapping:
        return _TextMap() if _shape(arguments[1], field) is str else object
    if len(arguments) == 1:  # X | None
        return _shape(arguments[0], field)
    return str if annotation is str else object


# --- reading -----------------------------------------------------------------------------


class _Reader:
    """Reads one job: brings keys to their spelling, and gathers what is wrong."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._moved: dict[str, str] = {}
        """Path prefixes of what was lifted to another place -> where the user wrote it."""

    def read(self, job: dict[str, Any]) -> JobSpec:
        canonical = self._model(job, JobSpec, "")
        for index, task in enumerate(_items(canonical.get("Tasks"))):
            self._lift_modules(task, f"Tasks[{index}]")
        spec: JobSpec | None = None
        try:
            spec = JobSpec.from_wire(canonical)
        except ValidationError as error:
            self._faults += faults_of(error)
        if self._faults or spec is None:
            raise InvalidJob(self._in_users_terms())
        if too_large := size_faults(spec):
            raise InvalidJob(too_large)
        if "Verifier" not in canonical and spec.count > 1 and spec.task.engine.type == "wasm":
            return spec.replace(verifier=SpecConfig(type="deterministic"))
        return spec

    def _shaped(self, value: Any, shape: _Shape, path: str) -> Any:
        """`value` with its keys spelled as `shape` has them. What does not fit is left for pydantic."""
        if isinstance(shape, _Choice) and isinstance(value, dict):
            return self._choice(value, shape.field, path)
        if isinstance(shape, _ListOf) and isinstance(value, list):
            return [self._shaped(item, shape.item, f"{path}[{i}]") for i, item in enumerate(value)]
        if isinstance(shape, _TextMap):
            return _text_map(value)
        if shape is str:
            return as_text(value) if isinstance(value, bool | int | float) else as_plain(value)
        if isinstance(shape, type) and issubclass(shape, Model) and isinstance(value, dict):
            return self._model(value, shape, path)
        return as_plain(value)

    def _model(self, value: dict[str, Any], model: type[Model], path: str) -> dict[str, Any]:
        fields, ignored = _fields(model), _IGNORED.get(model, frozenset())
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
                self._faults.append(Fault(where, "given twice"))
            elif item is not None and not _says_nothing(item, shape, model):
                canonical[name] = self._shaped(item, shape, where)
        return canonical

    def _choice(self, value: dict[str, Any], field: str, path: str) -> dict[str, Any]:
        choice = self._model(value, SpecConfig, path)
        params = choice.get("Params")
        name = choice.get("Type")
        model = KNOWN_PARAMS[field].get(name.strip().lower()) if isinstance(name, str) else None
        if model is None or (params is not None and not isinstance(params, dict)):
            return choice
        # Read again from `value`: only now is it known which keys are ours and what must be text.
        written = next((item for key, item in value.items() if key.lower() == "params"), None)
        where = f"{path}.Params"
        canonical = self._model(written or {}, model, where)
        lifted = {
            key: canonical[key] for key in ("EntryModule", "ImportModules") if _has_map(canonical.get(key))
        }
        try:
            # A module that is given as an input source is checked as such, once it is lifted out.
            stand_in = {key: "/module" if key == "EntryModule" else [] for key in lifted}
            checked = model.from_wire({**canonical, **stand_in})
        except ValidationError as error:
            self._faults += faults_of(error, where)
            return {**choice, "Params": canonical}
        return {**choice, "Params": {**_as_given(checked), **lifted}}

    def _lift_modules(self, task: Any, path: str) -> None:
        """Modules written as input sources, the older form, become input sources and their targets."""
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
            self._faults.append(
                Fault(where, "this is a job of Bacalhau before v1.1; write it with Tasks and Engine")
            )
        elif model is NetworkSpec and key.lower() == "ports":
            if item:
                self._faults.append(Fault(where, "not supported yet"))
        else:
            names = [name for name, _ in _fields(model).values()]
            self._faults.append(Fault(where, f"unknown key{_suggestion(key, names)}"))

    def _in_users_terms(self) -> list[Fault]:
        faults: dict[Fault, None] = {}
        for fault in self._faults:
            path = fault.path
            for moved, written in self._moved.items():
                if path == moved or path.startswith(moved + "."):
                    path = written + path[len(moved) :]
            faults[Fault(path, fault.problem)] = None
        return list(faults)[:_MAX_FAULTS]


def _unwrapped(document: dict[str, Any]) -> dict[str, Any]:
    for key, value in document.items():
        if key.lower() == "job" and isinstance(value, dict):
            return value
    return document


def _says_nothing(value: Any, shape: _Shape, model: type[Model]) -> bool:
    """Bacalhau's own JSON has empty texts, and choices with an empty type, where nothing was given."""
    if value == "" and shape is str:
        return model is JobSpec or model is Task
    if not isinstance(shape, _Choice) or not isinstance(value, dict) or shape.field == "Engine":
        return False
    folded = {key.lower(): item for key, item in value.items()}
    return not folded.get("type") and not folded.get("params")


def _text_map(value: Any) -> Any:
    """A user's own map with its scalars as text; a null is the empty text. A list stays one."""
    if isinstance(value, dict):
        return {key: "" if item is None else _scalar_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scalar_text(item) for item in value]
    return as_plain(value)


def _scalar_text(value: Any) -> Any:
    return as_text(value) if isinstance(value, bool | int | float) else as_plain(value)


def _as_given(params: Model) -> dict[str, Any]:
    """What was given, and no defaults: another version may have other ones."""
    return params.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _has_map(value: Any) -> bool:
    return isinstance(value, dict) or any(isinstance(item, dict) for item in _items(value))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# --- words -------------------------------------------------------------------------------


def _suggestion(key: str, names: list[str]) -> str:
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(key.lower(), folded, n=1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else "a number"
