"""Reads untrusted JSON and YAML into plain maps, lists, text and numbers, within limits.

YAML follows the rules of YAML 1.2: `no` and `1:30` are text. A number keeps its original text, because
`1.10` must not become `1.1` in a place where text is expected.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NoReturn

import yaml

from bacalhau_p2p.errors import Fault, InvalidJob

Format = Literal["auto", "json", "yaml"]

MAX_DOCUMENT = 1024 * 1024
"""Bytes of a job file."""

MAX_DEPTH = 32
MAX_NODES = 50_000
"""Values in a document after its YAML aliases are expanded."""


class _OriginalText:
    """A number that keeps its original text."""

    text: str


class _Int(int, _OriginalText):
    def __new__(cls, text: str) -> _Int:
        number = super().__new__(cls, text, 0 if text[:2] in ("0x", "0o") else 10)
        number.text = text
        return number


class _Float(float, _OriginalText):
    def __new__(cls, text: str) -> _Float:
        number = super().__new__(cls, text)
        number.text = text
        return number


def as_text(scalar: Any) -> str:
    """A scalar as the author wrote it."""
    if isinstance(scalar, _OriginalText):
        return scalar.text
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    return str(scalar)


def as_plain(value: Any) -> Any:
    """The value with plain numbers, without their original text."""
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_plain(item) for item in value]
    if isinstance(value, _Int):
        return int(value)
    return float(value) if isinstance(value, _Float) else value


def read_document(data: bytes | str, *, format: Format = "auto") -> Any:  # noqa: A002
    """The value of a JSON or YAML document; see `bounded` for what it may contain.

    Raises InvalidJob, with line and column if they are known.
    """
    size = len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "surrogatepass"))
    if size > MAX_DOCUMENT:
        _reject(f"the job file is too large: {size:,} bytes (the limit is {MAX_DOCUMENT:,})")
    if isinstance(data, bytes):
        try:
            data = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            _reject(f"not UTF-8 text: invalid byte {data[error.start]:#04x} at position {error.start}")
    if format == "auto":
        # A document in braces is JSON, or a flow map of YAML.
        format = "json" if data.lstrip()[:1] in ("{", "[") else "yaml"  # noqa: A001
        if format == "json":
            return bounded(_read_json_or_flow_map(data))
    return bounded(_read_json(data) if format == "json" else _read_yaml(data))


def bounded(value: Any) -> Any:
    """A copy that consists only of maps with text keys, lists and scalars.

    Raises InvalidJob if the value is nested too deeply, too large, or contains anything else.
    """
    return _copy(value, 0, [MAX_NODES])


def _copy(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        _reject(f"the job has more than {MAX_NODES:,} values")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if depth >= MAX_DEPTH:
        _reject(f"the job is nested more than {MAX_DEPTH} levels deep")
    # `Model.to_wire` contains tuples and other mappings.
    if isinstance(value, list | tuple):
        return [_copy(item, depth + 1, budget) for item in value]
    if hasattr(value, "items"):
        return {_key(key): _copy(item, depth + 1, budget) for key, item in value.items()}
    return _reject(f"a job can contain only maps, lists, text and numbers, not {type(value).__name__}")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return "null" if key is None else as_text(key)
    return _reject("keys of a map must be text")


def _read_json_or_flow_map(text: str) -> Any:
    try:
        return _read_json(text)
    except InvalidJob as not_json:
        try:
            return _read_yaml(text)
        except InvalidJob:
            raise not_json from None


def _read_json(text: str) -> Any:
    try:
        return json.loads(
            text,
            parse_float=_Float,
            parse_int=_Int,
            parse_constant=_no_constant,
            object_pairs_hook=_map_of_pairs,
        )
    except json.JSONDecodeError as error:
        _reject(f"not JSON: {error.msg.lower()} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _reject(f"the job is nested more than {MAX_DEPTH} levels deep")
    except ValueError as error:
        _reject(f"not JSON: {_first_clause(error)}")


def _map_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key!r}")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlLoader(_Base):  # type: ignore[misc]  # its base is chosen at run time
    """Loads safe YAML with the core schema of YAML 1.2. Numbers keep their original text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own way to inherit them

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"duplicate key {key.value!r}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
YamlLoader.add_implicit_resolver(_TAG + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
YamlLoader.add_implicit_resolver(
    _TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
YamlLoader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
YamlLoader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
YamlLoader.add_constructor(_TAG + "int", lambda loader, node: _Int(loader.construct_scalar(node)))
YamlLoader.add_constructor(_TAG + "float", lambda loader, node: _Float(loader.construct_scalar(node)))


def _read_yaml(text: str) -> Any:
    try:
        _check_depth(text)
        return yaml.load(text, Loader=YamlLoader)  # noqa: S506  # derives from a safe loader
    except (ValueError, yaml.YAMLError) as error:
        _reject(f"not YAML: {yaml_fault(error)}")


def yaml_fault(error: Exception) -> str:
    """What is wrong with a YAML document, with line and column if they are known."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return _first_clause(error)
    mark = error.problem_mark or error.context_mark
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{error.problem or error.context}{where}"


def _check_depth(text: str) -> None:
    """Reject deep nesting before libyaml composes the document: its composer recurses on the C stack, and
    500,000 opening brackets would crash the process."""
    depth = 0
    for event in yaml.parse(text, Loader=YamlLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                _reject(f"the job is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _first_clause(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(";")[0]


def _reject(problem: str) -> NoReturn:
    raise InvalidJob([Fault("", problem)])
