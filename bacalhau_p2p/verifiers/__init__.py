"""Verifiers decide which results are right."""
