"""Executors run the tasks of jobs."""
