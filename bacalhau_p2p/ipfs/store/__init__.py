"""Blocks on disk, the pins that keep them, and the garbage collector."""
