"""JSON over HTTP, in the shape of the Bacalhau API."""
