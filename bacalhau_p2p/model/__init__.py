"""Jobs, executions, nodes and results as values: frozen, validated, without I/O."""
