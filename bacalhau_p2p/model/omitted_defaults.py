"""The JSON of a model from a record that leaves out what has its default value.

Stored records leave that out. A long list of them is shown without making models of them, which takes three
times as long as all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

from pydantic_core import to_jsonable_python

from bacalhau_p2p.model.base import Model

JSON = dict[str, Any]
_REQUIRED: Any = object()


def with_defaults(kind: type[Model], record: object) -> JSON:
    """What `model_dump(mode="json", by_alias=True)` makes of a model, from what it makes of it with
    `exclude_defaults`: values are not validated, and default values are shared, so change none of them.

    Raises ValueError for what cannot be the record of such a model.
    """
    if not isinstance(record, dict):
        raise ValueError(f"the record of a {kind.__name__} is no object")
    shape = _shape(kind)
    whole = dict(shape.defaults)
    for name, value in record.items():
        if name in whole:
            fill = shape.nested.get(name)
            whole[name] = value if fill is None or value is None else fill(value)
    for name in shape.required:
        if whole[name] is _REQUIRED:
            raise ValueError(f"the record of a {kind.__name__} has no {name}")
    return whole


@dataclass(frozen=True, slots=True)
class _Shape:
    defaults: Mapping[str, Any]
    """All fields in their order, by their names in JSON."""
    required: tuple[str, ...]
    nested: Mapping[str, Callable[[Any], Any]]
    """What fills the fields that are models, or several models."""


@lru_cache(maxsize=64)
def _shape(kind: type[Model]) -> _Shape:
    defaults: JSON = {}
    nested: dict[str, Callable[[Any], Any]] = {}
    for field in kind.model_fields.values():
        name = str(field.serialization_alias)
        if field.is_required():
            defaults[name] = _REQUIRED
        else:
            value = field.get_default(call_default_factory=True, validated_data={})
            defaults[name] = to_jsonable_python(value, by_alias=True, bytes_mode="base64")
        if (fill := _fill(field.annotation)) is not None:
            nested[name] = fill
    required = tuple(name for name, value in defaults.items() if value is _REQUIRED)
    return _Shape(defaults, required, nested)


def _fill(annotation: Any) -> Callable[[Any], Any] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return lambda value: with_defaults(annotation, value)
    kinds = [each for each in get_args(annotation) if isinstance(each, type) and issubclass(each, Model)]
    if not kinds:
        return None
    (kind,) = kinds
    if getattr(annotation, "__origin__", None) is tuple:
        return lambda values: [with_defaults(kind, value) for value in values]
    return lambda value: with_defaults(kind, value)
