"""Values as JSON: arguments on their way to a function, and what it returns.

JSON has no tuples, sets, bytes or dates. Each is an object with one key that begins with `$`. There is one
text for each value, so that results can be compared. `docs/functions.md` has the format.
"""

from __future__ import annotations

import binascii
import math
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # to load typing at the start of every job takes 80 ms
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

FORMAT = 1
"""Of `function.json`, of the arguments, and of `value.json`."""
MAX_VALUE = 16 * 1024 * 1024
"""Bytes of the arguments, and of what a function returns."""
MAX_MESSAGE = 10_000
"""Characters of the message of an exception."""
MAX_TRACEBACK = 50_000
"""Characters of a traceback; longer ones lose their beginning."""
MAX_DEPTH = 100
"""Arrays and objects inside each other."""
MAX_BRACKETS = 1_000_000
"""`[` and `{` in one text, those in strings included. An empty list takes 20 times the memory of its text."""
MAX_EQUAL_HASHES = 100
"""Members of one set, or keys of one dict, with the same hash: each is compared with all of these. Numbers
can be chosen so that all have the same one."""
LARGEST_NUMBER = 2**53 - 1
"""Of the integers that every JSON parser reads exactly; larger ones are text."""

_INF = float("inf")
_SAME = frozenset({type(None), bool, str})
_PLAIN = _SAME | {int, float}


class UnsupportedValue(TypeError):
    """No text stands for this value."""


class MalformedValue(ValueError):
    """This text stands for no value."""


class Values:
    """Encodes and decodes values.

    `write` and `read` are a JSON encoder without white space, and a parser that gives `unique` the pairs of
    each object. `classes` are the data classes and enumerations that both sides know, by name: nothing else
    that a text names is ever made.
    """

    def __init__(
        self,
        write: Callable[[Any], str],
        read: Callable[[str], Any],
        classes: Mapping[str, type] | None = None,
    ) -> None:
        self._write = write
        self._read = read
        self._classes = classes or {}
        self._names = {kind: name for name, kind in self._classes.items()}

    def encode(self, value: object) -> bytes:
        """The text of a value, in UTF-8. Raises UnsupportedValue."""
        try:
            text = self._write(self._lower(value, 0)).encode()
        except UnicodeEncodeError:
            raise UnsupportedValue("text with half of a surrogate pair cannot be sent") from None
        if _brackets(text) > MAX_BRACKETS:
            raise UnsupportedValue(
                f"more than {MAX_BRACKETS} lists and dicts (or brackets in text) cannot be sent: use a file"
            )
        return text

    def decode(self, data: bytes) -> Any:
        """The value of a text. Raises MalformedValue."""
        if _brackets(data) > MAX_BRACKETS:
            raise MalformedValue(f"more than {MAX_BRACKETS} brackets")
        try:
            return self._raise(self._read(data.decode()), 0)
        except MalformedValue:
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
            raise MalformedValue(str(error) or type(error).__name__) from None

    # --- to JSON --------------------------------------------------------------------------------

    def _lower(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise UnsupportedValue(f"a value has at most {MAX_DEPTH} levels, and does not contain itself")
        kind = type(value)
        if kind in self._names:
            return self._lower_object(value, depth)
        if value is None or kind is bool:
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            number = int(value)
            return number if -LARGEST_NUMBER <= number <= LARGEST_NUMBER else {"$int": hex(number)}
        if isinstance(value, float):
            real = float(value)
            return real if -_INF < real < _INF else {"$float": repr(real)}
        if isinstance(value, list):
            return self._lower_all(value, depth + 1)
        if isinstance(value, dict):
            if all(type(key) is str and key[:1] != "$" for key in value):
                return {key: self._lower(item, depth + 1) for key, item in value.items()}
            return {"$dict": [self._lower_all(pair, depth + 3) for pair in value.items()]}
        if isinstance(value, tuple):
            return {"$tuple": self._lower_all(value, depth + 2)}
        if isinstance(value, (set, frozenset)):
            name = "$set" if isinstance(value, set) else "$frozenset"
            return {name: sorted(self._lower_all(value, depth + 2), key=self._write)}
        if isinstance(value, bytes):
            return {"$bytes": binascii.b2a_base64(value, newline=False).decode()}
        if kind is complex:
            return {"$complex": self._lower_all((value.real, value.imag), depth + 2)}
        for name, module, class_name, write, _ in _MORE:
            loaded = sys.modules.get(module)  # a value of it is here only if it is loaded
            if loaded is not None and isinstance(value, getattr(loaded, class_name)):
                return {name: write(value)}
        return _refuse(kind)

    def _lower_all(self, values: Any, depth: int) -> list[Any]:
        if depth <= MAX_DEPTH and _is_plain(values):
            return list(values)
        return [self._lower(each, depth) for each in values]

    def _lower_object(self, value: Any, depth: int) -> dict[str, Any]:
        kind = type(value)
        name = self._names[kind]
        members = getattr(kind, "__members__", None)
        if members is None:
            fields = {field: self._lower(getattr(value, field), depth + 3) for field in _fields(kind)}
            return {"$object": [name, fields]}
        if value.name not in members:
            raise UnsupportedValue(f"{value!r} is several members of {name}: send each")
        return {"$enum": [name, value.name]}

    # --- from JSON ------------------------------------------------------------------------------

    def _raise(self, tree: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise MalformedValue(f"more than {MAX_DEPTH} levels")
        kind = type(tree)
        if kind is list:
            if _PLAIN.issuperset(map(type, tree)):
                return tree
            return [self._raise(each, depth + 1) for each in tree]
        if kind is not dict:
            return tree
        if len(tree) == 1:
            (name,) = tree
            if name[:1] == "$":
                return self._raise_special(name, tree[name], depth)
        for key in tree:
            if key[:1] == "$":
                raise MalformedValue(f"{key!r} is not alone in its object")
        return {key: self._raise(item, depth + 1) for key, item in tree.items()}

    def _raise_special(self, name: str, tree: Any, depth: int) -> Any:
        if name == "$object":
            return self._raise_object(tree, depth)
        if name == "$enum":
            class_name, member = _check(tree, list, 2)
            return self._class(class_name, "__members__").__members__[member]
        if name == "$dict":
            pairs = [_check(pair, list, 2) for pair in _check(tree, list)]
            items = [tuple(self._raise(each, depth + 3) for each in pair) for pair in pairs]
            _check_hashes([key for key, _ in items])
            return _whole(dict(items), items)
        if name in _SEQUENCES:
            items = self._raise(_check(tree, list), depth + 1)
            if name != "$tuple":
                _check_hashes(items)
            return _whole(_SEQUENCES[name](items), items)
        if name == "$complex":
            real, imaginary = self._raise(_check(tree, list, 2), depth + 1)
            return complex(_check(real, float), _check(imaginary, float))
        if name in _TEXTS:
            return _TEXTS[name](_check(tree, str))
        for known, module, class_name, _, read in _MORE:
            if known == name:
                __import__(module)
                return read(getattr(sys.modules[module], class_name), tree)
        raise MalformedValue(f"unknown type {name!r}")

    def _raise_object(self, tree: Any, depth: int) -> Any:
        name, given = _check(tree, list, 2)
        kind = self._class(name, "__dataclass_fields__")
        if list(_check(given, dict)) != _fields(kind):
            raise MalformedValue(f"{name} has other fields")
        value: Any = object.__new__(kind)  # its constructor is code, and may not take all of its fields
        for field, item in given.items():
            object.__setattr__(value, field, self._raise(item, depth + 3))
        return value

    def _class(self, name: object, kind: str) -> Any:
        """The class of this name, which has the attribute that makes it one of this kind."""
        if not isinstance(name, str) or not hasattr(self._classes.get(name), kind):
            raise MalformedValue(f"unknown class {name!r}")
        return self._classes[name]


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these pairs. Raises MalformedValue if a key is there twice."""
    made: dict[str, Any] = _whole(dict(pairs), pairs)
    return made


def no_constant(name: str) -> NoReturn:
    """For a parser that reads NaN and Infinity, which JSON has not."""
    raise MalformedValue(f"{name} is not JSON")


def _brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _is_plain(values: Any) -> bool:
    """Whether JSON has all of these as they are. For long lists much faster than to look at each."""
    kinds = set(map(type, values))
    if kinds <= _SAME:
        return True
    if kinds == {int}:
        return bool(min(values) >= -LARGEST_NUMBER and max(values) <= LARGEST_NUMBER)
    return kinds == {float} and all(map(math.isfinite, values))


def _fields(kind: type) -> list[str]:
    """The names of the fields that each value of a data class has."""
    declared = getattr(kind, "__dataclass_fields__", {})
    return [name for name, field in declared.items() if field._field_type.name == "_FIELD"]


def _check_hashes(items: Sequence[Any]) -> None:
    """Raises MalformedValue when a set or dict of these would take quadratic time."""
    if len(items) <= MAX_EQUAL_HASHES or _SAME.issuperset(map(type, items)):
        return
    counts: dict[int, int] = {}
    for each in items:
        value = hash(each)
        counts[value] = counts.get(value, 0) + 1
    if max(counts.values()) > MAX_EQUAL_HASHES:
        raise MalformedValue(f"more than {MAX_EQUAL_HASHES} members or keys have the same hash")


def _whole(made: Any, items: Sequence[Any]) -> Any:
    if len(made) != len(items):
        raise MalformedValue("something is there twice")
    return made


def _check(tree: Any, kind: Any, size: int | None = None) -> Any:
    if type(tree) is not kind or (size is not None and len(tree) != size):
        raise MalformedValue(f"expected {kind.__name__}")
    return tree


def _refuse(kind: type) -> NoReturn:
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    cure = "convert it to lists, numbers, text or bytes"
    if hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__members__"):
        cure = "let the function use this class by its name, so that both sides know it"
    elif hasattr(kind, "tolist"):
        cure = "convert it with .tolist()"
    elif hasattr(kind, "__next__"):
        cure = "make a list of it"
    raise UnsupportedValue(f"a value of type {name} cannot be sent: {cure}")


def _decimal(kind: Any, tree: Any) -> Any:
    return kind(_check(tree, str))


def _path(text: str) -> Any:
    from pathlib import Path

    return Path(text)


def _iso(kind: Any, tree: Any) -> Any:
    return kind.fromisoformat(_check(tree, str))


def _span(kind: Any, tree: Any) -> Any:
    return kind(*(_check(each, int) for each in _check(tree, list, 3)))


_SEQUENCES: Mapping[str, Callable[[Any], Any]] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
_TEXTS: Mapping[str, Callable[[str], Any]] = {
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$bytes": lambda text: binascii.a2b_base64(text, strict_mode=True),
}
_MORE: tuple[tuple[str, str, str, Callable[[Any], Any], Callable[[Any, Any], Any]], ...] = (
    ("$datetime", "datetime", "datetime", lambda value: value.isoformat(), _iso),
    ("$date", "datetime", "date", lambda value: value.isoformat(), _iso),
    ("$time", "datetime", "time", lambda value: value.isoformat(), _iso),
    ("$timedelta", "datetime", "timedelta", lambda v: [v.days, v.seconds, v.microseconds], _span),
    ("$decimal", "decimal", "Decimal", str, _decimal),
    ("$uuid", "uuid", "UUID", str, _decimal),
    ("$path", "pathlib", "PurePath", str, lambda kind, tree: _path(_check(tree, str))),
)
"""Types of modules that are loaded when they are needed: name, module, class, to JSON and back. A datetime is
a date too, so it comes first."""
