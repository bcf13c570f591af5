"""A job's constraints, and whether a node's labels satisfy them, as Kubernetes' label selectors do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.fields import MAX_ENTRIES, Line, Name, Value

_Relation = Callable[[str | None, tuple[str, ...]], bool]


def _among(label: str | None, values: tuple[str, ...]) -> bool:
    return label is not None and label in values


def _not_among(label: str | None, values: tuple[str, ...]) -> bool:
    # As in Kubernetes: a node without the label differs from every value.
    return label not in values


def _more(label: str | None, values: tuple[str, ...]) -> bool:
    number, limit = _number(label), _number(values[0])
    return number is not None and limit is not None and number > limit


def _less(label: str | None, values: tuple[str, ...]) -> bool:
    number, limit = _number(label), _number(values[0])
    return number is not None and limit is not None and number < limit


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


_ONE, _SOME, _NONE = "exactly one value", "at least one value", "no values"

_OPERATORS: dict[str, tuple[str, _Relation]] = {
    "=": (_ONE, _among),
    "==": (_ONE, _among),
    "in": (_SOME, _among),
    "!=": (_ONE, _not_among),
    "notin": (_SOME, _not_among),
    "exists": (_NONE, lambda label, _: label is not None),
    "!": (_NONE, lambda label, _: label is None),
    ">": (_ONE, _more),
    "gt": (_ONE, _more),
    "<": (_ONE, _less),
    "lt": (_ONE, _less),
}


def _operator(operator: str) -> str:
    """The operator in lower case. Raises ValueError when there is no such operator."""
    folded = operator.strip().lower()
    if folded not in _OPERATORS:
        raise ValueError(f"unknown operator {operator!r} (known: {', '.join(_OPERATORS)})")
    return folded


def _check_values(operator: str, values: tuple[str, ...]) -> None:
    """Raises ValueError when a known operator cannot take so many values."""
    wanted, relation = _OPERATORS[operator]
    if not {_ONE: len(values) == 1, _SOME: len(values) >= 1, _NONE: not values}[wanted]:
        raise ValueError(f"operator {operator} takes {wanted}")
    if relation in (_more, _less) and _number(values[0]) is None:
        raise ValueError(f"operator {operator} compares with a number, not {values[0]!r}")


class Constraint(Model):
    """A node is eligible only if its label `key` stands in this relation to `values`."""

    key: Name
    operator: Annotated[Line, AfterValidator(_operator)]
    values: Annotated[tuple[Value, ...], Field(max_length=MAX_ENTRIES)] = ()

    @model_validator(mode="after")
    def _values_suit_operator(self) -> Self:
        _check_values(self.operator, self.values)
        return self


def matches(constraints: Iterable[Constraint], labels: Mapping[str, str]) -> bool:
    """Whether `labels` satisfy every one of the constraints."""
    return all(_OPERATORS[c.operator][1](labels.get(c.key), c.values) for c in constraints)
