"""Values as YAML for people to read."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import yaml

from bacalhau_p2p.model.documents import YamlLoader

WIDTH = 200
"""Characters of a line before it is folded."""


def yaml_text(value: object) -> str:
    """YAML with keys in their order, and text of several lines as it is.

    Text that looks like something else to YAML 1.1 or 1.2 is quoted. What most values consist of is written
    here, as PyYAML writes it in ten times the time; what is rare is left to PyYAML.
    """
    if not value or type(value) not in (dict, list):
        return _emitted(value)
    lines: list[str] = []
    _write(value, "", lines)
    return "\n".join([*lines, ""])


def _write(value: Any, pad: str, lines: list[str]) -> None:
    """Append a map or list that is not empty: entries, each of one or more lines that begin with `pad`."""
    inner = pad + "  "
    if type(value) is list:
        for item in value:
            if item and type(item) in (dict, list):
                first = len(lines)
                _write(item, inner, lines)
                lines[first] = f"{pad}- {lines[first][len(inner) :]}"
            elif (text := _scalar(item, inner, len(inner))) is not None:
                lines.append(f"{pad}- {text}")
            else:
                lines.append(_nested([item], len(pad) // 2 + 1))
        return
    for key, item in value.items():
        if type(key) is not str or not _is_plain_key(key):
            lines.append(_nested({key: item}, len(pad) // 2))
        elif item and type(item) in (dict, list):
            lines.append(f"{pad}{key}:")
            _write(item, pad if type(item) is list else inner, lines)
        elif (text := _scalar(item, inner, len(inner) + len(key))) is not None:
            lines.append(f"{pad}{key}: {text}")
        else:
            lines.append(_nested({key: item}, len(pad) // 2))


_LONGEST_KEY = 100
"""Characters of a key. PyYAML writes longer ones (than 128) in another way."""
_PLAIN = re.compile(r"[A-Za-z0-9_/](?:[!-9;-~]|:(?=[!-~])| (?=[!\"$-~]))*")
"""Text that has no meaning of its own in a block of YAML, unless it looks like a number or the like."""
_LINES = re.compile(r"[!-~][\n -~]*\n[\n -~]*")


def _scalar(value: Any, pad: str, column: int) -> str | None:
    """A value without parts, or an empty one, that begins at this column; None if PyYAML shall write it."""
    kind = type(value)
    if kind is str:
        return _text(value, pad, column)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        text = repr(value)
        return text if text.replace(".", "").replace("-", "").isdigit() else None
    return "{}" if kind is dict else "[]" if kind is list else None


def _text(text: str, pad: str, column: int) -> str | None:
    if not text:
        return "''"
    if _PLAIN.fullmatch(text):
        if column + len(text) > WIDTH - 10 and " " in text:  # it may be folded
            return None
        return text if not _is_resolved(text) else "'" + text.replace("'", "''") + "'"
    if _LINES.fullmatch(text) and " \n" not in text and text[-1] != " " and text[-2:] != "\n\n":
        whole, lines = text[-1] == "\n", text.splitlines()
        return "\n".join(["|" if whole else "|-", *(pad + line if line else "" for line in lines)])
    return None


@lru_cache(1024)
def _is_plain_key(text: str) -> bool:
    return len(text) <= _LONGEST_KEY and _PLAIN.fullmatch(text) is not None and not _is_resolved(text)


def _is_resolved(text: str) -> bool:
    return any(looks.match(text) for _, looks in _PythonDumper.yaml_implicit_resolvers.get(text[0], ()))


def _nested(value: object, depth: int) -> str:
    """The lines of a map or list that is so many maps deep."""
    for _ in range(depth):
        value = {"_": value}
    text = _emitted(value)
    text = text[: -len("...\n")] if text.endswith("\n...\n") else text  # the end of a document
    return "\n".join(text.removesuffix("\n").split("\n")[depth:])


def _emitted(value: object) -> str:
    """The text that PyYAML writes."""
    try:
        text = _dumped(value, _Dumper)
    except UnicodeEncodeError:  # half of a surrogate pair
        return _dumped(value, _PythonDumper)
    # libyaml escapes what lies beyond 16 bits, such as emojis.
    return _dumped(value, _PythonDumper) if "\\U" in text else text


def _dumped(value: object, dumper: Any) -> str:
    return str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=WIDTH))


class _PythonDumper(yaml.SafeDumper):
    pass


_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # four times as fast, where it was compiled


class _Dumper(_Base):  # type: ignore[misc]
    pass


def _represent_text(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


for each in (_Dumper, _PythonDumper):
    each.add_representer(str, _represent_text)
    for first, looks in YamlLoader.yaml_implicit_resolvers.items():
        for tag, pattern in looks:
            each.add_implicit_resolver(tag, pattern, [first])
