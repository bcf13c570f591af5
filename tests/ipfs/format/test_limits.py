from __future__ import annotations

import pytest

from bacalhau_p2p.errors import ContentTooLarge, InvalidContent
from bacalhau_p2p.ipfs.format.limits import Limits

LIMITS = Limits(bytes=100, blocks=5, entries=4, folder_depth=3, file_depth=2, path=10)


@pytest.mark.parametrize(
    ("check", "limit", "error", "message"),
    [
        (LIMITS.check_bytes, 100, ContentTooLarge, "the content has at least 101 bytes; the limit is 100"),
        (LIMITS.check_entries, 4, ContentTooLarge, "more than 4 entries"),
        (LIMITS.check_blocks, 5, ContentTooLarge, "more than 5 blocks"),
        (LIMITS.check_folder_depth, 3, InvalidContent, "nested more than 3 levels deep"),
        (LIMITS.check_file_depth, 2, InvalidContent, "more than 2 levels of blocks"),
        (LIMITS.check_path, 10, InvalidContent, "more than 10 bytes"),
        (LIMITS.check_transfer, 100 + 12 + 4 * 512, ContentTooLarge, "more than 100 bytes"),
    ],
)
def test_a_limit_is_the_largest_value_that_is_accepted(check, limit, error, message):
    check(limit)
    with pytest.raises(error, match=message):
        check(limit + 1)


def test_a_file_above_the_limit_is_named():
    with pytest.raises(ContentTooLarge, match="file abc has at least 101 bytes"):
        LIMITS.check_bytes(101, "file abc")
