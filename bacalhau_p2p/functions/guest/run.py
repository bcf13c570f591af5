"""Calls the function of a job: `python run.py CALL OUTPUT`.

The folder of this file has `function.json` and `packages/`. CALL is the file with the arguments; OUTPUT the
folder in which `value.json` tells what the function returned or raised.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # to load typing at the start of every job takes 80 ms
    from typing import Any

    from bacalhau_p2p.functions.guest.values import (
        FORMAT,
        MAX_MESSAGE,
        MAX_TRACEBACK,
        MAX_VALUE,
        UnsupportedValue,
        Values,
        unique,
    )
else:
    from values import FORMAT, MAX_MESSAGE, MAX_TRACEBACK, MAX_VALUE, UnsupportedValue, Values, unique

MODULE = "function"
"""The module that the function finds itself in."""


def main(folder: str, call: str, output: str) -> int:
    """Call the function; the exit code of the program."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.path.remove(folder)  # a package of the function may be called like one of these programs
    sys.path.append(f"{folder}/packages")
    sys.modules.pop("values")
    values = Values(_write, _read)
    described = values.decode(_content(f"{folder}/{MODULE}.json"))
    try:
        function, values = _define(described, values)
        args, kwargs = values.decode(_content(call))
        answer, exit_code = _returned(function(*args, **kwargs), values), 0
    except BaseException as error:  # noqa: BLE001 - whatever the function raises is what the caller gets
        told = {"format": FORMAT, "error": _told(error, described)}
        answer, exit_code = Values(_write, _read).encode(told), 1
    with open(f"{output}/value.json", "wb") as file:  # noqa: PTH123 - loading pathlib takes 30 ms
        file.write(answer)
    return exit_code


def _returned(value: object, values: Values) -> bytes:
    """`value.json` for what the function returned. Raises UnsupportedValue."""
    answer = values.encode({"format": FORMAT, "value": value})
    if len(answer) > MAX_VALUE:
        raise UnsupportedValue(
            f"the value that the function returned takes {len(answer)} bytes as JSON; the limit is"
            f" {MAX_VALUE}: write it to a file in /outputs"
        )
    return answer


def _define(described: dict[str, Any], values: Values) -> tuple[Any, Values]:
    """The function, and what encodes and decodes for it."""
    module = type(sys)(MODULE)
    sys.modules[MODULE] = module
    namespace = module.__dict__
    for name, source, attribute in described["imports"]:
        __import__(source)
        found = sys.modules[source]
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
        namespace[name] = found
    for name in described["modules"]:
        __import__(name)
    namespace.update(described["constants"])
    for piece in described["pieces"]:
        source = "\n" * (piece["line"] - 1) + piece["source"]
        code = compile(source, piece["file"], "exec", flags=_ANNOTATIONS, dont_inherit=True)
        exec(code, namespace)  # noqa: S102 - running this is what the job is for
        for alias in piece["aliases"]:
            namespace[alias] = namespace[piece["name"]]
    classes = {name: namespace[name] for name in described["classes"]}
    return namespace[described["function"]], Values(_write, _read, classes)


_ANNOTATIONS = 0x1000000
"""`from __future__ import annotations`: what annotations name is not sent."""


def _told(error: BaseException, described: dict[str, Any]) -> dict[str, str]:
    """An exception as text, which is also written to stderr."""
    import linecache
    import traceback

    for file, lines in _lines(described["pieces"]).items():
        linecache.cache[file] = (len(lines), None, lines, file)
    own = error.__traceback__
    shown = own.tb_next if own is not None else None  # without this program
    text = "".join(traceback.format_exception(type(error), error, shown))[-MAX_TRACEBACK:]
    sys.stderr.write(text)
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", MODULE, "values"):
        name = f"{kind.__module__}.{name}"
    return {"type": name, "message": _message(error)[:MAX_MESSAGE], "traceback": _sendable(text)}


def _lines(pieces: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The lines of the user's files, as far as they were sent, for tracebacks."""
    files: dict[str, list[str]] = {}
    for piece in pieces:
        lines, start, sent = files.setdefault(piece["file"], []), piece["line"] - 1, piece["source"]
        new = sent.splitlines(keepends=True)
        lines += ["\n"] * (start + len(new) - len(lines))
        lines[start : start + len(new)] = new
    return files


def _message(error: BaseException) -> str:
    try:
        return _sendable(str(error))
    except Exception:  # noqa: BLE001 - it is the exception's own code
        return "its message cannot be made"


def _sendable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _content(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def _json_parts() -> tuple[Any, Any]:
    """An encoder and a parser of JSON. The module `json` loads `re` and `enum`, which takes 45 ms; what it is
    made of does not."""
    try:
        import _json

        class Options:
            strict = True
            object_hook = None
            object_pairs_hook = staticmethod(unique)
            parse_float = float
            parse_int = int
            parse_constant = float

        parts: Any = _json
        encode = parts.make_encoder(None, None, parts.encode_basestring, None, ":", ",", False, False, False)
        scan = parts.make_scanner(Options)
        return (lambda tree: "".join(encode(tree, 0))), (lambda text: scan(text, 0)[0])
    except (ImportError, AttributeError, TypeError):  # another interpreter
        import json
        from functools import partial

        write = partial(json.dumps, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return write, partial(json.loads, object_pairs_hook=unique)


_write, _read = _json_parts()

if __name__ == "__main__":
    sys.exit(main(__file__.rpartition("/")[0], *sys.argv[1:3]))
