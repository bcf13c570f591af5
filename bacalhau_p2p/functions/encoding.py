"""Arguments and results of functions as bytes. What comes back from the network is read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bacalhau_p2p.errors import InvalidValue, RemoteError
from bacalhau_p2p.functions.guest.values import (
    FORMAT,
    MAX_MESSAGE,
    MAX_TRACEBACK,
    MAX_VALUE,
    MalformedValue,
    UnsupportedValue,
    Values,
    no_constant,
    unique,
)
from bacalhau_p2p.functions.inputs import Placed
from bacalhau_p2p.runtime.text import printable

_write = partial(json.dumps, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_read = partial(json.loads, object_pairs_hook=unique, parse_constant=no_constant)

MAX_PROBLEM = 200
"""Characters of what is wrong with a result: it may quote what the result has."""
MAX_TYPE_NAME = 200
"""Characters of the name of an exception's class."""

_Classes = Mapping[str, type]


def encode(value: object, classes: _Classes | None = None) -> bytes:
    """Raises InvalidValue."""
    try:
        return Values(_write, _read, classes).encode(value)
    except UnsupportedValue as error:
        raise InvalidValue(str(error)) from None


def encode_call(
    args: Sequence[object], kwargs: Mapping[str, object], classes: _Classes
) -> tuple[bytes, Placed]:
    """The arguments of a call as bytes, and the inputs that are among them. Raises InvalidValue."""
    placed = Placed()
    call = [[placed.place(each) for each in args], placed.place(dict(kwargs))]
    try:
        document = encode(call, classes)
    except InvalidValue as error:
        raise InvalidValue(f"{_unsendable(call, classes)}{error}") from None
    if len(document) > MAX_VALUE:
        raise InvalidValue(
            f"the arguments take {len(document)} bytes as JSON; the limit is {MAX_VALUE}: add large data with"
            " client.add, and pass Input(cid)"
        )
    return document, placed


def _unsendable(call: Sequence[Any], classes: _Classes) -> str:
    """Which argument cannot be sent."""
    args, kwargs = call
    for where, value in [*enumerate(args, start=1), *kwargs.items()]:
        try:
            encode(value, classes)
        except InvalidValue:
            return f"argument {where}: "
    return ""


def read_answer(data: bytes, classes: _Classes) -> Any:
    """What the function returned, from `value.json`. Raises RemoteError for what it raised, and InvalidValue
    unless the text is exactly what `Values` writes for its value: a node may send anything."""
    if len(data) > MAX_VALUE:
        raise InvalidValue(f"the result has {len(data)} bytes; the limit is {MAX_VALUE}")
    values = Values(_write, _read, classes)
    try:
        answer = values.decode(data)
        whole = values.encode(answer)
    except (MalformedValue, UnsupportedValue) as error:
        raise InvalidValue(f"the result is malformed: {str(error)[:MAX_PROBLEM]}") from None
    if whole != data or not isinstance(answer, dict) or answer.get("format") != FORMAT:
        raise InvalidValue("the result is malformed: it is not in the format that this version reads")
    if list(answer) == ["format", "value"]:
        return answer["value"]
    told = answer.get("error")
    names = ["type", "message", "traceback"]
    if list(answer) != ["format", "error"] or not isinstance(told, dict) or list(told) != names:
        raise InvalidValue("the result is malformed: it has neither a value nor an error")
    type_name, message, traceback = (told[name] for name in names)
    if not all(isinstance(each, str) for each in (type_name, message, traceback)):
        raise InvalidValue("the result is malformed: its error is not text")
    raise RemoteError(
        printable(message[:MAX_MESSAGE], keep_lines=True),
        type_name=printable(type_name[:MAX_TYPE_NAME]),
        traceback=printable(traceback[-MAX_TRACEBACK:], keep_lines=True),
    )
