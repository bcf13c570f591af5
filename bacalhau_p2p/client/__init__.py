"""A client of a node's HTTP API, and the handles that users get on jobs and results."""
