"""Inputs from the compute node's own disk."""
