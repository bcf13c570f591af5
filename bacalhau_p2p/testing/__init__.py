"""Conformance suites and the simulated network, for users who write adapters."""
