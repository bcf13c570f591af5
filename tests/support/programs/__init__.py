"""Programs for executors to run."""
