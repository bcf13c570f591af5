"""The web page of a node: its jobs, nodes and content, drawn by the server (see `docs/page.md`)."""
