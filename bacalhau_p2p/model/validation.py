"""Checks a job or its parameters, and reports each fault with the path of the key."""

from __future__ import annotations

import re
from collections.abc import Collection, Set
from typing import TypeVar

from pydantic import AfterValidator, ValidationError
from pydantic_core import ErrorDetails

from bacalhau_p2p.errors import Fault, InvalidJob
from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.fields import MAX_SPEC
from bacalhau_p2p.model.job import JobSpec, SpecConfig

M = TypeVar("M", bound=Model)


MAX_FAULTS = 1_000
"""More faults are only counted: a stranger can make tens of thousands, and naming them takes time."""


MAX_SHOWN = 64
"""Characters of a wrong value that its fault repeats; a longer one is left out."""


def faults_of(error: ValidationError, prefix: str = "", *, secrets: Set[str] = frozenset()) -> list[Fault]:
    """The faults that pydantic found, in our own words. Their paths start with `prefix`.

    The values of keys in `secrets` are not repeated.
    """
    if (count := error.error_count()) > MAX_FAULTS:
        return [Fault(prefix, f"{count} faults")]
    return [
        Fault(_path(prefix, at), problem_of(details, secret=not secrets.isdisjoint(at)))
        for details in error.errors()
        for at in [details["loc"]]
    ]


def read_params(model: type[M], config: SpecConfig) -> M:
    """The `Params` of an engine, source, publisher or verifier as a value.

    Raises InvalidJob; the paths of its faults start with `Params`.
    """
    try:
        return model.from_wire(dict(config.params))
    except ValidationError as error:
        raise InvalidJob(faults_of(error, "Params")) from None


def param_faults(model: type[Model], config: SpecConfig) -> list[Fault]:
    """The faults of these `Params`; none when `read_params` would succeed."""
    try:
        read_params(model, config)
    except InvalidJob as error:
        return list(error.faults)
    return []


def size_of(spec: JobSpec) -> int:
    """Bytes of the job as JSON, which the limit MAX_SPEC is about."""
    return len(spec.model_dump_json(by_alias=True).encode())


def size_faults(spec: JobSpec) -> list[Fault]:
    """One fault if the job is too large to be announced, else none."""
    size = size_of(spec)
    if size <= MAX_SPEC:
        return []
    problem = (
        f"the job is too large: {size:,} bytes (the limit is {MAX_SPEC:,}); "
        "add the data to a node and use its CID as an input"
    )
    return [Fault("", problem)]


def network_faults(spec: JobSpec) -> list[Fault]:
    """A fault if no node can give the job the network that it asks for, else none."""
    task = spec.task
    if task.network.type != "None" and task.engine.type == "wasm":
        problem = "a WebAssembly job has no network; fetch what it needs as inputs, or use docker"
        return [Fault("Tasks[0].Network.Type", problem)]
    if task.network.type == "HTTP" and not task.network.domains:
        return [
            Fault(
                "Tasks[0].Network.Domains", "must name the domains that the job reaches, such as example.com"
            )
        ]
    return []


def type_faults(
    spec: JobSpec,
    *,
    engines: Collection[str] | None = None,
    sources: Collection[str] | None = None,
    publishers: Collection[str] | None = None,
    verifiers: Collection[str] | None = None,
) -> list[Fault]:
    """A fault for each type in the job that is not among the known ones.

    Known types are in lower case. None accepts every type.
    """
    task = spec.task
    chosen = [
        ("Tasks[0].Engine.Type", "engine", task.engine, engines),
        *(
            (f"Tasks[0].InputSources[{index}].Source.Type", "storage type", source.source, sources)
            for index, source in enumerate(task.input_sources)
        ),
        ("Tasks[0].Publisher.Type", "publisher", task.publisher, publishers),
        ("Verifier.Type", "verifier", spec.verifier, verifiers),
    ]
    return [
        Fault(path, f"unknown {what} {choice.type!r} (known: {', '.join(sorted(known)) or 'none'})")
        for path, what, choice, known in chosen
        if known is not None and choice.type not in known
    ]


_PROBLEMS = {
    "missing": "missing",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be greater than {gt}",
    "less_than": "must be less than {lt}",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "mapping_type": "must be a map",
    "dict_type": "must be a map",
    "model_type": "must be a map",
    "model_attributes_type": "must be a map",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "extra_forbidden": "unknown key",
}


def problem_of(details: ErrorDetails, *, secret: bool = False) -> str:
    """What is wrong, in our own words: `must be at least 0, not -1`. A `secret` value is not repeated."""
    if details["type"] == "value_error":
        problem = str(details["ctx"]["error"])
    else:
        context = {name: _without_zeros(value) for name, value in details.get("ctx", {}).items()}
        problem = _PROBLEMS.get(details["type"], "invalid value").format(**context)
    return problem if secret else _with_value(problem, details["input"])


def _with_value(problem: str, value: object) -> str:
    """The problem with a value that is short; a problem of another form names it already, or needs none."""
    names_it_first = problem.startswith("is not a ")
    fits = names_it_first or problem.startswith(("must be ", "must start with "))
    if not fits or not isinstance(value, bool | int | float | str):
        return problem
    shown = repr(_without_zeros(value)) if not isinstance(value, str) or len(value) <= MAX_SHOWN else ""
    if not 0 < len(shown) <= MAX_SHOWN or shown in problem:
        return problem
    return f"{shown} {problem}" if names_it_first else f"{problem}, not {shown}"


def matching(pattern: str, problem: str) -> AfterValidator:
    """Text that this pattern describes; for any other, what is wrong."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return text

    return AfterValidator(check)


def _without_zeros(value: object) -> object:
    """30.0 is shown as 30."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _path(prefix: str, location: tuple[int | str, ...]) -> str:
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path
