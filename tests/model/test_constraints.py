from __future__ import annotations

import pytest
from pydantic import ValidationError

from bacalhau_p2p.model.constraints import Constraint, matches

LABELS = {"arch": "amd64", "cores": "16", "zone": "b"}


@pytest.mark.parametrize(
    ("key", "operator", "values", "expected"),
    [
        ("arch", "=", ["amd64"], True),
        ("arch", "==", ["arm64"], False),
        ("absent", "=", [""], False),
        ("zone", "in", ["a", "b"], True),
        ("zone", "IN", ["a", "c"], False),
        ("zone", "notin", ["a", "c"], True),
        ("zone", "NotIn", ["a", "b"], False),
        ("absent", "notin", ["a"], True),
        ("arch", "!=", ["amd64"], False),
        ("absent", "!=", ["amd64"], True),
        ("arch", "exists", [], True),
        ("absent", "exists", [], False),
        ("arch", "!", [], False),
        ("absent", "!", [], True),
        ("cores", ">", ["8"], True),
        ("cores", "gt", ["16"], False),
        ("cores", "<", ["100"], True),
        ("cores", "lt", ["8"], False),
        ("arch", ">", ["8"], False),
        ("absent", "<", ["8"], False),
    ],
)
def test_an_operator_compares_the_label_with_the_values(key, operator, values, expected):
    constraint = Constraint.from_wire({"Key": key, "Operator": operator, "Values": values})
    assert matches([constraint], LABELS) is expected


def test_every_constraint_must_hold():
    first, second = (
        Constraint(key="arch", operator="=", values=("amd64",)),
        Constraint(key="zone", operator="=", values=("a",)),
    )
    assert matches([], {})
    assert matches([first], LABELS)
    assert not matches([first, second], LABELS)


@pytest.mark.parametrize(
    ("operator", "values"),
    [("in", ()), ("=", ()), ("=", ("a", "b")), ("exists", ("a",)), (">", ("many",)), ("near", ("a",))],
)
def test_an_operator_with_unsuitable_values_is_rejected(operator, values):
    with pytest.raises(ValidationError):
        Constraint(key="arch", operator=operator, values=values)
