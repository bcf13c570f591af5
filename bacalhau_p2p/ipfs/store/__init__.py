"""Blocks on disk, the pins that keep them, and the collector of the rest."""
