from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.model.fields import MAX_ENTRIES
from bacalhau_p2p.model.label_filter import label_filter


def test_labels_have_to_satisfy_all_selectors():
    wanted = label_filter(["team=blue", "zone in (a,b),!old"])
    assert wanted({"team": "blue", "zone": "a"})
    assert not wanted({"team": "blue", "zone": "c"})
    assert not wanted({"team": "blue", "zone": "a", "old": ""})
    assert label_filter(None)({}) is label_filter([])({}) is True


@pytest.mark.parametrize("selector", ["a=b=c", "x" * 5000, ",".join(["a"] * (MAX_ENTRIES + 1))])
def test_what_is_no_selector_is_refused(selector):
    with pytest.raises(ApiError, match=r"labels") as refused:
        label_filter([selector])
    assert refused.value.status == 400
