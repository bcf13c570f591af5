"""Which symlinks in content are safe to create."""

from __future__ import annotations


def stays_inside(target: str, depth: int) -> bool:
    """Whether a symlink that is `depth` folders below the root cannot lead out of the root.

    `..` may only come first: there it climbs real folders; after a name it would climb from wherever that
    name leads.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return not target.startswith("/") and climbs <= depth and ".." not in parts[climbs:]
