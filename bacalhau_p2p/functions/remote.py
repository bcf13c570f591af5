"""Functions that are meant to run as jobs, and what their jobs ask for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

from bacalhau_p2p.functions.bundle import Bundle
from bacalhau_p2p.functions.capture import Captured, capture, plain_function
from bacalhau_p2p.functions.options import FunctionOptions
from bacalhau_p2p.functions.packages import Packages, load
from bacalhau_p2p.functions.source_text import REMOVED

_P = ParamSpec("_P")
_R = TypeVar("_R")


class RemoteFunction(Generic[_P, _R]):
    """A function with the options of its jobs. Called directly, it runs here, as ever."""

    def __init__(self, function: Callable[_P, _R], options: FunctionOptions) -> None:
        """Raises InvalidFunction for what cannot run as a job."""
        plain_function(function)
        functools.update_wrapper(self, function)
        self._function = function
        self.options = options
        self._packages: Packages | None = None

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<remote function {self.name}>"

    @property
    def name(self) -> str:
        return plain_function(self._function).__name__

    def with_options(self, **changes: Any) -> RemoteFunction[_P, _R]:
        """The same function with other options."""
        return RemoteFunction(self._function, replace(self.options, **changes))

    def check_arguments(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Raises TypeError, as a call would, for arguments that the function does not take."""
        inspect.signature(self._function).bind(*args, **kwargs)

    def capture(self) -> tuple[Captured, Bundle]:
        """The function as it is now, with all that it uses. Blocks. Raises InvalidFunction."""
        if self._packages is None:
            self._packages = load(self.options.requires)
        captured = capture(self._function, self._packages.modules)
        return captured, Bundle.of(captured, self._packages)


@overload
def remote(function: Callable[_P, _R], /) -> RemoteFunction[_P, _R]: ...


@overload
def remote(
    *,
    inputs: Mapping[str, str] = ...,
    requires: Sequence[str | Path] = ...,
    count: int = ...,
    cpu: float | str = ...,
    memory: str = ...,
    timeout: float | str = ...,
    job: Mapping[str, Any] = ...,
) -> Callable[[Callable[_P, _R]], RemoteFunction[_P, _R]]: ...


def remote(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Mark a function that is to run as a job: `@remote`, or `@remote(requires=["x"], memory="1gb")`.

    The options are those of `FunctionOptions`. Raises InvalidFunction for what cannot run as a job.
    """
    chosen = FunctionOptions(**options)
    if function is not None:
        return RemoteFunction(function, chosen)

    def mark(function: Callable[..., Any]) -> RemoteFunction[..., Any]:
        return RemoteFunction(function, chosen)

    setattr(mark, REMOVED, True)
    return mark


setattr(remote, REMOVED, True)


def as_remote(function: Callable[_P, _R]) -> RemoteFunction[_P, _R]:
    """The function with its options, or with default ones. Raises InvalidFunction."""
    return function if isinstance(function, RemoteFunction) else RemoteFunction(function, FunctionOptions())
