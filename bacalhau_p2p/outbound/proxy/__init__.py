"""The HTTP proxy through which jobs reach the domains that they name, and nothing else."""
