"""A requester on the other side of HTTP, and the handles that users get on jobs and results."""
