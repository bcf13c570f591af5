"""Selectors in Kubernetes' notation, as constraints."""

from __future__ import annotations

import pytest

from bacalhau_p2p.model.constraints import Constraint, matches
from bacalhau_p2p.model.selectors import MAX_SELECTOR, parse_selector


@pytest.mark.parametrize(
    ("text", "constraints"),
    [
        ("", []),
        (" , ", []),
        ("a=b", [("a", "=", ["b"])]),
        ("a==b,c!=d", [("a", "==", ["b"]), ("c", "!=", ["d"])]),
        ("e in (f, g),!h", [("e", "in", ["f", "g"]), ("h", "!", [])]),
        ("zone notin (a),gpu", [("zone", "notin", ["a"]), ("gpu", "exists", [])]),
        ("cores > 4, cores<9", [("cores", ">", ["4"]), ("cores", "<", ["9"])]),
        ("example.com/kind=", [("example.com/kind", "=", [""])]),
    ],
)
def test_a_selector_is_a_list_of_constraints(text, constraints):
    assert [(c["Key"], c["Operator"], c["Values"]) for c in parse_selector(text)] == constraints


TOO_LONG = "x" * (MAX_SELECTOR + 1)


@pytest.mark.parametrize("text", ["a b", "a in b", "=b", "a=b=c", "(a)", "!", "a in (b", TOO_LONG])
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(ValueError, match="selector"):
        parse_selector(text)


def test_labels_satisfy_a_selector_as_in_kubernetes():
    wanted = [Constraint.from_wire(each) for each in parse_selector("canary!=true,zone in (a,b)")]
    assert matches(wanted, {"zone": "a"})
    assert not matches(wanted, {"zone": "a", "canary": "true"})
    assert not matches(wanted, {})
