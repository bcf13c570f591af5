"""Blocks and what they mean: CIDs, dag-pb, UnixFS, sharded folders, CAR. Pure."""
