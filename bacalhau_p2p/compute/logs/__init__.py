"""What executions write to stdout and stderr: read while they run, and kept when they give no result."""
