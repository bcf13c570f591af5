"""What the requester and the compute component have in common: how a machine is driven, and its outbox."""
