"""Constraints on the labels of a node, with the rules of Kubernetes' label selectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.fields import FEW, Line, Name, Value

_Relation = Callable[[str | None, tuple[str, ...]], bool]


def _in(label: str | None, values: tuple[str, ...]) -> bool:
    return label is not None and label in values


def _not_in(label: str | None, values: tuple[str, ...]) -> bool:
    # As in Kubernetes, a node without the label matches.
    return label not in values


def _greater(label: str | None, values: tuple[str, ...]) -> bool:
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


_ONE, _SOME, _NONE = "exactly one value", "at least one value", "an empty list of values"

_OPERATORS: dict[str, tuple[str, _Relation]] = {
    "=": (_ONE, _in),
    "==": (_ONE, _in),
    "in": (_SOME, _in),
    "!=": (_ONE, _not_in),
    "notin": (_SOME, _not_in),
    "exists": (_NONE, lambda label, _: label is not None),
    "!": (_NONE, lambda label, _: label is None),
    ">": (_ONE, _greater),
    "gt": (_ONE, _greater),
    "<": (_ONE, _less),
    "lt": (_ONE, _less),
}


def _operator(operator: str) -> str:
    """The operator in lower case. Raises ValueError if it is unknown."""
    folded = operator.strip().lower()
    if folded not in _OPERATORS:
        raise ValueError(f"unknown operator {operator!r} (known: {', '.join(_OPERATORS)})")
    return folded


def _check_values(operator: str, values: tuple[str, ...]) -> None:
    """Raises ValueError if the operator does not take this number of values."""
    wanted, relation = _OPERATORS[operator]
    if not {_ONE: len(values) == 1, _SOME: len(values) >= 1, _NONE: not values}[wanted]:
        raise ValueError(f"operator {operator} requires {wanted}")
    if relation in (_greater, _less) and _number(values[0]) is None:
        raise ValueError(f"operator {operator} requires a number, not {values[0]!r}")


class Constraint(Model):
    """A condition on the label `key` of a node. The node is eligible only if the condition holds."""

    key: Name
    operator: Annotated[Line, AfterValidator(_operator)]
    values: Annotated[tuple[Value, ...], FEW] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_values(self.operator, self.values)
        return self


def matches(constraints: Iterable[Constraint], labels: Mapping[str, str]) -> bool:
    """Whether `labels` satisfy all constraints."""
    return all(_OPERATORS[c.operator][1](labels.get(c.key), c.values) for c in constraints)
