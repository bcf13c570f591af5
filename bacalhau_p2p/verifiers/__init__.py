"""Who decides which results are right."""
