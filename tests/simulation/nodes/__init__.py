"""Simulated nodes: the real machines, delivery and commit plans on a simulated disk, clock and network."""
