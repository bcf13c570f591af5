"""What a job, an execution, a node and a result are: frozen, validated, no I/O."""
