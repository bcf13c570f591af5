from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.files.symlinks import stays_inside


@pytest.mark.parametrize(
    ("target", "depth", "inside"),
    [
        ("a", 0, True),
        ("./a//b", 0, True),
        ("..", 0, False),
        ("..", 1, True),
        ("../../a", 1, False),
        ("a/../b", 3, False),
        ("/a", 3, False),
        ("..a/b..", 0, True),
    ],
)
def test_a_symlink_stays_inside_if_no_component_can_climb_out(target, depth, inside):
    assert stays_inside(target, depth) is inside
