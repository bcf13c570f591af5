"""What this node asks of servers on the web."""
