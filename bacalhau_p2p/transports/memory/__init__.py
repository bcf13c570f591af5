"""The transport within one process, over links with adjustable loss, delay and order."""
