"""Types for what peers send: bounded, finite, and such that everything accepted can be stored and sent on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, StringConstraints, TypeAdapter, ValidationError

from bacalhau_p2p.encoding.multiaddrs import peer_of_address
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID

MAX_ID = 128
"""Characters of the id of a job, an execution or a peer."""
MAX_REASON = 4096
"""Characters of a reason, the text of an error, or the message of a state. Longer ones are cut."""
MAX_ADDRESSES = 16
"""Multiaddrs of one peer in a message. More are left out."""
MAX_PARAM_VALUES = 20_000
"""Maps, lists and values in the parameters of one engine, source, publisher or verifier."""
MAX_PARAM_DEPTH = 16
"""Maps and lists inside each other in parameters."""
MAX_LOCATION = 64 * 1024
"""Characters of all texts in the location of a published result."""

MAX_UNUSABLE = 1_000
"""Items of a list that are left out because they cannot be read."""

_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1

_ID = StringConstraints(min_length=1, max_length=MAX_ID)
BoundedJobID = Annotated[JobID, _ID]
BoundedExecutionID = Annotated[ExecutionID, _ID]
BoundedPeerID = Annotated[PeerID, _ID]


def cut_reason(text: str) -> str:
    """The first MAX_REASON characters of a text."""
    return text[:MAX_REASON]


Reason = Annotated[str, AfterValidator(cut_reason)]
"""The text of an error or message, cut at MAX_REASON characters."""


def _peer_addresses(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in values[:MAX_ADDRESSES] if peer_of_address(text) is not None)


PeerAddresses = Annotated[tuple[str, ...], AfterValidator(_peer_addresses)]
"""Multiaddrs that end in `/p2p/<peer id>`. Malformed ones, and those beyond MAX_ADDRESSES, are left out."""


def json_params(value: Any) -> Any:
    """Raises ValueError unless a map has only what JSON has, within the limits of parameters."""
    if not value:
        return value
    size = _check_json(value)
    if size > MAX_PARAM_VALUES:
        raise ValueError(f"must have at most {MAX_PARAM_VALUES} values")
    return value


Params = Annotated[Mapping[str, Any], AfterValidator(json_params)]
"""The parameters of an adapter: JSON's types only, with text keys."""


def _check_json(value: Any) -> int:
    """The number of values in it. Raises ValueError for what JSON does not have."""
    level: list[Any] = [value]
    count = depth = 0
    while level:
        if depth > MAX_PARAM_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_PARAM_DEPTH}")
        depth += 1
        inner: list[Any] = []
        for container in level:
            count += len(container)
            if count > MAX_PARAM_VALUES:
                return count
            if isinstance(container, Mapping):
                for key in container:
                    _check_scalar(key)
                    if not isinstance(key, str):
                        raise ValueError("must have only keys that are text")
                container = container.values()
            for item in container:
                if isinstance(item, Mapping | list | tuple):
                    inner.append(item)
                else:
                    _check_scalar(item)
        level = inner
    return count


def _check_scalar(value: Any) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("must have only text that UTF-8 can encode")
    elif isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            raise ValueError("must have only integers of 64 bits")
    elif isinstance(value, float):
        if not isfinite(value):
            raise ValueError("must have only finite numbers")
    else:
        raise ValueError(f"must have only values that JSON has, not {type(value).__name__}")


def usable_items(item: Any, most: int) -> BeforeValidator:
    """For a list of up to `most` items: leaves out those that are not valid for the type `item`.

    One item that this version cannot read does not take its neighbours with it; MAX_UNUSABLE do.
    """
    adapter = TypeAdapter[Any](item)

    def keep(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(value) > most:
            raise ValueError(f"at most {most} items")
        usable: list[Any] = []
        for number, entry in enumerate(value):
            if (valid := _validated(adapter, entry)) is not None:
                usable.append(valid)
            elif number - len(usable) >= MAX_UNUSABLE:
                raise ValueError(f"more than {MAX_UNUSABLE} items that cannot be read")
        return usable

    return BeforeValidator(keep)


def _validated(adapter: TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


def clamped(low: float, high: float) -> AfterValidator:
    """A number outside of these bounds counts as the nearest bound."""
    clamp: Callable[[float], float] = lambda number: min(max(number, low), high)  # noqa: E731
    return AfterValidator(clamp)
