"""Where a job's inputs come from."""
