"""Describes a blocking class by its async twin, so that `help` says what a method does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import TypeVar

C = TypeVar("C", bound=type)


def described_by(twin: type) -> Callable[[C], C]:
    """A decorator that gives each public method and property of a class that has no docstring that of the
    same name in `twin`."""

    def describe(cls: C) -> C:
        for name, member in vars(cls).items():
            if name.startswith("_") or not hasattr(twin, name):
                continue
            if isinstance(member, property | FunctionType) and not member.__doc__:
                text = inspect.getdoc(getattr(twin, name))
                if text:
                    member.__doc__ = f"As `{twin.__name__}.{name}`, without `await`:\n\n{text}"
        return cls

    return describe
