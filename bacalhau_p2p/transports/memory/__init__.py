"""The transport within one process, with links as bad as wanted."""
