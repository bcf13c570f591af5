"""Kademlia: who has the content of a CID, asked of nodes that need not know each other."""
