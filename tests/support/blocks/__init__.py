"""Content to test with, and processes that may be killed while they handle it."""
