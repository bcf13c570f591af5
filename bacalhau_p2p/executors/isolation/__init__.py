"""Walls around the process of a job, built from what the kernel offers. Uses only the standard library."""
