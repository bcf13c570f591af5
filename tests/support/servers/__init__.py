"""Servers that stand in for others: HTTP, S3, kubo, a node."""
