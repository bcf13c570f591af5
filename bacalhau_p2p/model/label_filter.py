"""Which jobs or nodes a user wants to see, by their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.model.constraints import Constraint, matches
from bacalhau_p2p.model.fields import MAX_ENTRIES
from bacalhau_p2p.model.selectors import parse_selector
from bacalhau_p2p.model.validation import faults_of


def label_filter(selectors: Sequence[str] | None) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels satisfy all selectors, in Kubernetes' notation. Raises ApiError (400)."""
    try:
        wanted = [each for selector in selectors or () for each in parse_selector(selector)]
        if len(wanted) > MAX_ENTRIES:
            raise ApiError(f"labels: more than {MAX_ENTRIES} conditions", status=400)
        constraints = [Constraint.from_wire(each) for each in wanted]
    except ValidationError as error:
        raise ApiError(f"labels: {faults_of(error)[0].problem}", status=400) from None
    except ValueError as error:
        raise ApiError(f"labels: {error}", status=400) from None
    return lambda labels: matches(constraints, labels)
