"""Peers in processes of their own: ours, stock ones and hostile ones."""
