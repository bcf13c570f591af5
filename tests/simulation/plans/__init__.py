"""What happens in a world, as data: nodes, jobs and faults, expanded from a seed."""
