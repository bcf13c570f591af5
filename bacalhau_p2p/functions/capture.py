"""What of a function is sent: its source, and all that it uses from around itself."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from pathlib import Path
from types import FunctionType, MethodType, ModuleType

from bacalhau_p2p.errors import InvalidFunction, InvalidValue
from bacalhau_p2p.functions.encoding import encode
from bacalhau_p2p.functions.guest.values import FORMAT
from bacalhau_p2p.functions.interpreter import STANDARD_LIBRARY
from bacalhau_p2p.functions.source_text import Described, SourceText, is_builtin, scope_of, source_of

_OF_THE_MODULE = frozenset({"__name__", "__doc__", "__builtins__", "__class__"})
"""Names that every module or class has itself."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One definition in the module of the job, and the further names that it has there."""

    source: SourceText
    aliases: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Captured:
    """A function with all that it uses."""

    name: str
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By name in the module of the job: a module, and what is taken from it (`""`: the module itself)."""
    modules: set[str] = field(default_factory=set)
    """Further modules to load."""
    constants: dict[str, object] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    """Each after those that it needs when it is defined."""
    classes: dict[str, type] = field(default_factory=dict)
    """Data classes and enumerations that may be sent and come back, by name."""

    def document(self) -> bytes:
        """`function.json`."""
        return encode(
            {
                "format": FORMAT,
                "function": self.name,
                "imports": [[name, *source] for name, source in sorted(self.imports.items())],
                "modules": sorted(self.modules),
                "constants": dict(sorted(self.constants.items())),
                "pieces": [
                    {
                        "name": piece.source.name,
                        "file": piece.source.file,
                        "line": piece.source.line,
                        "source": piece.source.text,
                        "aliases": piece.aliases,
                    }
                    for piece in self.pieces
                ],
                "classes": sorted(self.classes),
            }
        )


def capture(function: object, packages: Sequence[str] = ()) -> Captured:
    """`packages`: names of modules that the job brings.

    Raises InvalidFunction, which names what cannot be sent and what to do.
    """
    root = plain_function(function)
    capturing = _Capturing(Captured(root.__name__), STANDARD_LIBRARY | frozenset(packages))
    capturing.define(root)
    return capturing.captured


def plain_function(function: object) -> FunctionType:
    """What a decorator wraps. Raises InvalidFunction for what cannot run as a job."""
    found = inspect.unwrap(function) if callable(function) else function
    if isinstance(found, functools.partial):
        raise InvalidFunction("a functools.partial cannot be sent: send its function, and pass all arguments")
    if isinstance(found, MethodType):
        raise InvalidFunction(
            f"{found.__qualname__} is a method of an object, which cannot be sent: use a function that takes"
            " what it needs as arguments"
        )
    if not isinstance(found, FunctionType):
        name = getattr(found, "__qualname__", None) or type(found).__qualname__
        raise InvalidFunction(f"{name} is not a function written in Python: wrap it in one, with def")
    if found.__name__ == "<lambda>":
        raise InvalidFunction("a lambda has no source of its own: use def")
    if inspect.isgeneratorfunction(found):
        raise InvalidFunction(f"{found.__name__} is a generator: return a list")
    if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
        raise InvalidFunction(f"{found.__name__} is async: a job runs a plain function")
    return found


class _Capturing:
    """Follows what a function uses."""

    def __init__(self, captured: Captured, provided: frozenset[str]) -> None:
        self.captured = captured
        self._provided = provided
        self._bound: dict[str, object] = {}
        self._defined: dict[object, Piece] = {}

    def define(self, described: Described) -> Piece:
        """Add the source of a function or class, after all that it uses."""
        if described in self._defined:
            return self._defined[described]
        source = source_of(described)
        piece = self._defined[described] = Piece(source)
        self._bind(source.name, described)
        for module in sorted(source.imports):
            if not self._has(module):
                raise InvalidFunction(f"{source.name} imports {module}, which {self._missing(module)}")
        scope = scope_of(described)
        for name in sorted(source.names - _OF_THE_MODULE):
            if name in scope:
                self._use(name, scope[name], source)
            elif not is_builtin(name):
                raise InvalidFunction(f"{source.name} uses {name}, which is not defined")
        for name in sorted(source.annotations - source.names):
            kind = scope.get(name)
            if isinstance(kind, type) and _is_value_class(kind) and not self._from_provided(kind):
                self.define(kind)
        if isinstance(described, type) and _is_value_class(described):
            self.captured.classes[source.name] = described
        self.captured.pieces.append(piece)
        return piece

    def _use(self, name: str, value: object, user: SourceText) -> None:
        """Make `name` stand for this value in the module of the job."""
        if isinstance(value, ModuleType):
            self._use_module(name, value, user)
            return
        found = inspect.unwrap(value) if callable(value) and hasattr(value, "__wrapped__") else value
        origin = self._from_provided(value, name) or self._from_provided(found, name)
        if origin is not None:
            self._bind(name, value)
            self.captured.imports[name] = origin
        elif isinstance(found, FunctionType | type):
            if found.__name__ == "<lambda>":
                raise InvalidFunction(f"{user.name} uses {name}, a lambda, which has no source: use def")
            if _is_of_others(found):
                missing = self._missing(found.__module__)
                raise InvalidFunction(f"{user.name} uses {name} of {found.__module__}, which {missing}")
            piece = self.define(found)
            if name != piece.source.name and name not in piece.aliases:
                self._bind(name, found)
                piece.aliases.append(name)
        elif (source := _remade(name, value)) is not None:
            self._bind(name, value)
            self._add_once(Piece(source))
        else:
            self._use_constant(name, value, user)

    def _use_module(self, name: str, module: ModuleType, user: SourceText) -> None:
        if not self._has(module.__name__):
            raise InvalidFunction(
                f"{user.name} uses the module {name}, which {self._missing(module.__name__)}"
            )
        self._bind(name, module)
        self.captured.imports[name] = (module.__name__, "")
        for chain in user.chains:
            first, *parts = chain.split(".")
            for end in range(1, len(parts) + 1) if first == name else ():
                inner = ".".join([module.__name__, *parts[:end]])
                if inner in sys.modules:
                    self.captured.modules.add(inner)

    def _use_constant(self, name: str, value: object, user: SourceText) -> None:
        try:
            encode(value)
        except InvalidValue:
            raise InvalidFunction(
                f"{user.name} uses {name}, a {type(value).__qualname__}, which cannot be sent: make it inside"
                " the function, or pass what it is made of as an argument"
            ) from None
        if name not in self._bound or self.captured.constants.get(name, self) != value:
            self._bind(name, value)
        self.captured.constants[name] = value

    def _bind(self, name: str, value: object) -> None:
        """Raises InvalidFunction if the name stands for something else already: the job has one module."""
        if self._bound.setdefault(name, value) is not value:
            raise InvalidFunction(
                f"two things that the function uses are called {name}, which come from different modules:"
                " rename one"
            )

    def _add_once(self, piece: Piece) -> None:
        if all(each.source != piece.source for each in self.captured.pieces):
            self.captured.pieces.append(piece)

    # --- what is there already where the function runs ------------------------------------------

    def _has(self, module: str) -> bool:
        return module.partition(".")[0] in self._provided

    def _missing(self, module: str) -> str:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names:
            return "this Python for WebAssembly has not"
        return (
            "is not sent: take the functions that you use from it by name (from ... import ...), or add its"
            f" package to requires, if that is pure Python: requires=[{top!r}]"
        )

    def _from_provided(self, value: object, used_as: str = "") -> tuple[str, str] | None:
        """The module, and the name in it, where this value is found in the job too."""
        module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
        if isinstance(module, str) and isinstance(name, str) and self._has(module):
            for place in _places(module):
                for each in (used_as, name) if used_as else (name,):
                    if _attribute(sys.modules.get(place), each) is value:
                        return place, each
        if isinstance(value, FunctionType | type) or not callable(value):
            return None
        return next(self._found_in_modules(value), None)

    def _found_in_modules(self, value: object) -> Iterator[tuple[str, str]]:
        for module_name, module in list(sys.modules.items()):
            if self._has(module_name) and not module_name.startswith("_") and isinstance(module, ModuleType):
                for name, found in list(vars(module).items()):
                    if found is value:
                        yield module_name, name


def _is_of_others(described: Described) -> bool:
    """Whether it belongs to the standard library or to an installed package, which is not sent in parts."""
    if described.__module__.partition(".")[0] in sys.stdlib_module_names:
        return True
    file = Path(getattr(sys.modules.get(described.__module__), "__file__", None) or "/")
    return "site-packages" in file.parts or "dist-packages" in file.parts


def _places(module: str) -> list[str]:
    """The package that a private module is part of, and the module. Where the private ones are, and the names
    of what is in them, differs from version to version of Python: 3.13 has `Path` in `pathlib._local`."""
    public = module.partition("._")[0]
    return [public] if public == module else [public, module]


def _attribute(module: object, name: str) -> object:
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def _is_value_class(kind: type) -> bool:
    """Whether values of this class may be sent."""
    return is_dataclass(kind) or issubclass(kind, Enum)


def _remade(name: str, value: object) -> SourceText | None:
    """The source that makes such a value, where values of its kind are made from text."""
    if isinstance(value, re.Pattern):
        made = f"{name} = __import__('re').compile({value.pattern!r}, {int(value.flags & ~re.DEBUG)})\n"
    elif isinstance(value, logging.Logger):
        made = f"{name} = __import__('logging').getLogger({value.name!r})\n"
    else:
        return None
    nothing = frozenset[str]()
    return SourceText(name, f"<{name}>", 1, made, nothing, nothing, nothing, nothing)
