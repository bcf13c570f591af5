"""Large networks: how many messages a job costs, and how soon it is placed, however many nodes there are."""
