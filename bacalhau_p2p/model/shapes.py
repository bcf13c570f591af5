"""The keys of a model and the shapes of their values, for reading what a user wrote."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.job import SpecConfig


class ListOf:
    """A list whose items have the same shape."""

    def __init__(self, item: Shape) -> None:
        self.item = item


class TextMap:
    """A map with keys of the user."""


class Choice:
    """A `SpecConfig`. Its possible parameters depend on the field that contains it."""

    def __init__(self, field: str) -> None:
        self.field = field


Shape = type[Any] | ListOf | TextMap | Choice
"""A model, `str`, one of the above, or `object` for anything else."""


@lru_cache(maxsize=256)
def fields_of(model: type[Model]) -> dict[str, tuple[str, Shape]]:
    """The keys of a model in lower case, each with its proper spelling and the shape of its value."""
    found: dict[str, tuple[str, Shape]] = {}
    for field in model.model_fields.values():
        assert field.alias is not None
        found[field.alias.lower()] = (field.alias, _shape(field.annotation, field.alias))
    return found


def suggestion(key: str, model: type[Model]) -> str:
    """` (did you mean Image?)` for the most similar key of the model, or nothing."""
    fields = fields_of(model)
    close = difflib.get_close_matches(key.lower(), fields, n=1)
    return f" (did you mean {fields[close[0]][0]}?)" if close else ""


def _shape(annotation: Any, field: str) -> Shape:
    if get_origin(annotation) is Annotated:
        return _shape(get_args(annotation)[0], field)
    if annotation is SpecConfig:
        return Choice(field)
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if get_origin(annotation) is tuple:
        return ListOf(_shape(arguments[0], field))
    if get_origin(annotation) is Mapping:
        return TextMap() if _shape(arguments[1], field) is str else object
    if len(arguments) == 1:  # X | None
        return _shape(arguments[0], field)
    return str if annotation is str else object
