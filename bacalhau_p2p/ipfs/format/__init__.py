"""Blocks and what they mean: CIDs, dag-pb, UnixFS, HAMT folders, CAR. Pure."""
