"""Requests that leave this node: to HTTP servers that a job names, and to services of the operator."""
